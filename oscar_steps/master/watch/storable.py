"""A commit as it is stored: what its author wrote, cut to what the database's columns hold and a page can show.

Subversion and git accept an author of 10 kB, and a message of a megabyte without a blank. PostgreSQL refuses the first:
the farm would ask for that commit for ever; the second would make a page a million pixels wide. `svn log` and
`git show` show all of it.
"""

from __future__ import annotations

import re
from typing import Any

from oscar_steps.sources.git import FULL_ID

_AUTHOR, _FILE, _BRANCH, _LINK = 200, 1000, 255, 255
"""Buildbot's columns hold 255, 1024, 255 and 256 characters."""
_FILES = 500
_MESSAGE = 4000
_NOT_SEEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069\ufeff]")
"""Control characters, and those that turn the direction of what follows."""


def storable(change: dict[str, Any]) -> dict[str, Any] | None:
    """`change` (as for `addChange`) in a form that can be stored and shown; None where its branch cannot be named."""
    branch = change["branch"]
    if branch is not None and len(branch) > _BRANCH:
        return None
    files = [_name(name, _FILE) for name in change["files"][:_FILES]]
    if more := len(change["files"]) - len(files):
        files.append(f"... and {more} more")
    link = change["revlink"] or ""
    return {
        **change,
        "author": _name(change["author"] or "", _AUTHOR),
        "comments": _message(change["comments"] or "", change["revision"]),
        "files": files,
        "revlink": link if len(link) <= _LINK else "",
        # Or Buildbot keeps a user for the author, in a column of 128 characters. Nothing of the farm asks for users.
        "src": None,
    }


def _message(text: str, revision: str) -> str:
    said = _NOT_SEEN.sub("\ufffd", text[:_MESSAGE].replace("\r\n", "\n").replace("\r", "\n"))
    if len(text) <= _MESSAGE:
        return said
    command = f"git show -s {revision}" if FULL_ID.fullmatch(revision) else f"svn log -r {revision}"
    return f"{said}...\n({len(text)} characters in all: {command})"


def _name(text: str, length: int) -> str:
    line = _NOT_SEEN.sub("\ufffd", text).replace("\n", "\ufffd").replace("\t", "\ufffd")
    return line if len(line) <= length else f"{line[: length - 3]}..."
