"""The command line on virtual machines and clusters that are described by profiles."""

from oscar_steps.v2m.cli import cli, main

__all__ = ["cli", "main"]
