"""The master's files are for its own user: a user who can read its database can act as an admin on the web page."""

from __future__ import annotations

import stat
from contextlib import suppress
from pathlib import Path

from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

from oscar_steps.errors import ConfigError
from oscar_steps.site import Database
from oscar_steps.textio import close_to_others, open_to_others

_DATABASE = "state.sqlite"


def check_private(state: Path, database: Database) -> None:
    """Raise ConfigError where others than the master's user can open its folder `state`, or an SQLite file outside it.

    Where nobody can, the files in it that were made under another umask are closed as well.
    """
    if open_to_others(state):
        names = sorted(path.name for path in state.iterdir() if path.is_file() and open_to_others(path))
        what = f", and read {_first(names)} in it" if names else ""
        mode = stat.S_IMODE(state.stat().st_mode)
        raise ConfigError(
            f"other users of this host can open the master's folder {state} (mode {mode:04o}){what}; "
            f"close it: chmod -R go= {state}"
        )
    file = _sqlite_file(database.url, state)
    if file and file.is_file() and open_to_others(file):
        if state.resolve() not in file.parents:
            raise ConfigError(f"other users of this host can read the database {file}; close it: chmod 600 {file}")
        close_to_others(file)
    for path in state.iterdir():
        close_to_others(path)


def _first(names: list[str]) -> str:
    first = _DATABASE if _DATABASE in names else names[0]
    return first if len(names) == 1 else f"{first} (and {len(names) - 1} more)"


def _sqlite_file(url: str, state: Path) -> Path | None:
    """The database's file, links followed, where it is not in the master's folder itself."""
    with suppress(ArgumentError):
        parts = make_url(url)
        if parts.get_backend_name() == "sqlite" and parts.database:
            file = state / parts.database
            return None if file.parent == state else file.resolve()
    return None
