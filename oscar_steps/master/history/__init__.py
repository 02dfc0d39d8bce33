"""What became of every build of a cell, and when two failures are the same."""
