"""What a run records, and the verdict that is made of it."""
