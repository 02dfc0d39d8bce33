"""A folder for one lint. It goes with the lint; where the lint was killed, it goes with the next one."""

from __future__ import annotations

import fcntl
import os
import shutil
import stat
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_PREFIX = "oscar-lint-"
_YOUNG_SECONDS = 60.0
"""A folder that is younger may not be locked yet."""


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """An empty folder below the system's temporary one. Its lock dies with this process: then nobody uses it."""
    _remove_what_is_left()
    with tempfile.TemporaryDirectory(prefix=_PREFIX) as name:
        lock = os.open(name, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield Path(name)
        finally:
            os.close(lock)


def _remove_what_is_left() -> None:
    for path in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        with suppress(OSError):
            status = path.lstat()
            ours = stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid()
            if ours and time.time() - status.st_mtime > _YOUNG_SECONDS:
                _remove_if_unused(path)


def _remove_if_unused(path: Path) -> None:
    lock = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # BlockingIOError: its lint goes on
        shutil.rmtree(path)
    finally:
        os.close(lock)
