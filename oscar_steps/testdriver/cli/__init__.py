"""The commands of `oscar-testdriver`."""
