"""Which of several candidates broke it: the search, and two runs side by side. Pure: nothing here runs anything."""
