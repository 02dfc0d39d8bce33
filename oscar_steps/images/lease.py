"""Images in use: a lock of the kernel's on an image's folder, which ends with the process that holds it.

The lock is on the folder itself, not on its name. So an image whose folder is renamed and removed cannot be mistaken
for a later one of that name, nothing has to be written into a store that somebody else owns, and after kill -9 nothing
is left to clean up. No child inherits it.
"""

from __future__ import annotations

import fcntl
import os
import weakref
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from oscar_steps.textio import one_line

_LONGEST = 60


class Lease:
    """A shared lock on an image. It ends with `end`, with the object, or with the process."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._finalizer = weakref.finalize(self, os.close, descriptor)

    def is_of(self, folder: Path) -> bool:
        """Whether what is called `folder` now is what was locked."""
        with suppress(OSError):
            return self._finalizer.alive and os.path.samestat(os.fstat(self._descriptor), folder.lstat())
        return False

    def end(self) -> None:
        self._finalizer()


def lease(folder: Path) -> Lease | None:
    """Use the image in `folder` from now on. None: there is no such image, or it is being removed."""
    descriptor = _locked(folder, fcntl.LOCK_SH)
    return None if descriptor is None else Lease(descriptor)


@contextmanager
def unused(folder: Path) -> Iterator[bool]:
    """Whether nobody uses the image in `folder`; nobody begins to while the block runs."""
    descriptor = _locked(folder, fcntl.LOCK_EX)
    try:
        yield descriptor is not None
    finally:
        if descriptor is not None:
            os.close(descriptor)


def _locked(folder: Path, kind: int) -> int | None:
    """A descriptor that holds the lock; None where another one is in the way, or the folder is not there any more."""
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
        if os.path.samestat(os.fstat(descriptor), folder.lstat()):
            return descriptor
    except OSError:
        pass  # locked by another, or renamed since
    os.close(descriptor)
    return None


def users(folder: Path) -> tuple[str, ...]:
    """Who uses the image, by what the kernel and the processes say: 'run NAME (1234)', or the program's name."""
    with suppress(OSError):
        status = folder.stat()
        place = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}:{status.st_ino}"
        lines = Path("/proc/locks").read_text(encoding="ascii", errors="replace").splitlines()
        rows = (line.split() for line in lines if " FLOCK " in line)
        pids = sorted({int(row[4]) for row in rows if "->" not in row and len(row) > 5 and row[5] == place})
        return tuple(f"{_name(pid)} ({pid})" for pid in pids if pid > 0)
    return ()


def _name(pid: int) -> str:
    """What a process is for people: a run by its name."""
    try:
        raw = Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return "a process"
    words = [word.decode(errors="replace") for word in raw.split(b"\0")]
    if "--run" in words[:-1]:
        return one_line(f"run {Path(words[words.index('--run') + 1]).name}", _LONGEST)
    driver = next(
        (n for n, word in enumerate(words[:3]) if word.endswith(("oscar-testdriver", "oscar_steps.testdriver"))), None
    )
    if driver is not None:  # a run by hand has no directory on its command line
        return one_line(" ".join(["oscar-testdriver", *words[driver + 1 : driver + 4]]), _LONGEST)
    with suppress(OSError):
        return Path(f"/proc/{pid}/comm").read_text(encoding="utf-8", errors="replace").strip()
    return "a process"
