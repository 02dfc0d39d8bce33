"""Where runs and base images are kept when nobody says otherwise."""

from __future__ import annotations

import os
from pathlib import Path

from oscar_steps.environment import cache_directory, home_directory


def default_runs() -> Path:
    """Where runs are kept: for root a place of the system's, otherwise one of the user's."""
    if os.geteuid() == 0:
        return Path("/var/lib/oscar-farm/runs")
    return home_directory("say --runs FOLDER") / ".local/share/oscar-farm/runs"


def default_store() -> Path:
    """Where images are kept when nobody says otherwise."""
    if os.geteuid() == 0:
        return Path("/var/cache/oscar-farm")
    return cache_directory("XDG_CACHE_HOME, or say --images FOLDER")
