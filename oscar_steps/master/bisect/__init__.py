"""Which of several commits turned a cell red: the farm looks for it by itself, at low priority."""
