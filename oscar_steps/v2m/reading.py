"""Reads the profile that a command is about."""

from __future__ import annotations

from pathlib import Path

import click

from oscar_steps.v3m.profiles import xmlfile
from oscar_steps.v3m.profiles.cluster import Profiles, parse_any


def load(file: Path) -> Profiles:
    """What a file holds. Raises ProfileError with file, line and column."""
    return parse_any(xmlfile.read(file), click.format_filename(file))
