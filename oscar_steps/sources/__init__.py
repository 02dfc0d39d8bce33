"""Where what is tested comes from: Subversion, what it is asked and what it answers."""
