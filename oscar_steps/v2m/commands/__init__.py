"""The commands of `v2m`, a module for each group."""
