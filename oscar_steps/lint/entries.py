"""Entries of the lint's cache: written in one step, and checked when they are read."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

from oscar_steps.textio import read_own, write_atomically

SPOILED = (OSError, ValueError, KeyError, TypeError, RecursionError)
"""What reading an entry raises that is missing, cut off or of another shape: it is made anew then."""


def read_entry(path: Path) -> Any:
    """What was written. Raises one of SPOILED."""
    checksum, _, content = read_own(path).partition(b"\n")
    if hashlib.sha256(content).hexdigest().encode() != checksum:
        raise ValueError(f"{path} is not as it was written")
    return json.loads(content)


def write_entry(path: Path, value: Any) -> None:
    """Without waiting for the disk: half an entry after a power cut does not fit its checksum. A full disk costs time,
    no more."""
    content = json.dumps(value).encode()
    with suppress(OSError):
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        checksum = hashlib.sha256(content).hexdigest().encode()
        write_atomically(path, checksum + b"\n" + content, durable=False)


def let_oldest_go(folder: Path, most: int) -> None:
    """Where there are more than `most` entries, the oldest go, and a tenth of the others with them."""
    with suppress(OSError):
        entries = [(entry.stat(follow_symlinks=False).st_mtime, entry.path) for entry in os.scandir(folder)]
        if len(entries) > most:
            for _, path in sorted(entries)[: len(entries) - most + most // 10]:
                with suppress(OSError):
                    Path(path).unlink()


def version_of(*rooms: Path) -> str:
    """What an entry depends on beside the tree: all that stands in these folders, Python, and the compilers."""
    sources = (path for room in rooms for path in sorted(room.rglob("*")) if path.suffix not in (".pyc", ""))
    ours = hashlib.blake2b(b"".join(path.read_bytes() for path in sources)).hexdigest()
    return f"{ours} {sys.version} {_compilers()}"


def _compilers() -> str:
    """Which Perl and which shell this host has."""
    programs = [Path(place) for name in ("perl", "bash") if (place := shutil.which(name))]
    return repr(
        [(status.st_size, status.st_mtime_ns) for path in programs if path.exists() and (status := path.stat())]
    )
