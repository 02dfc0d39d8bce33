"""Makefiles, package lists and shell scripts: files and commands that they name."""
