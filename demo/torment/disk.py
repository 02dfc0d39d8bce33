"""The master's folder on a file system of its own, in memory, which can be full."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from demo.children import run
from demo.farm import Farm
from demo.torment import records
from oscar_steps.errors import FarmError

_OWN = "OSCAR_FARM_TORMENT_NAMESPACE"
_SIZE = "size=2g"
"""Memory is taken only for what is written."""
_ATTEMPTS = 10


def begin_in_own_namespace(program: Sequence[str]) -> None:
    """Begin anew, as `program`, where our mounts are our own: they go with the last process, also after a kill -9."""
    if os.geteuid() == 0 and os.environ.get(_OWN) != str(os.getpid()):
        words = ["unshare", "--mount", "--propagation", "private", *program]
        os.execvpe(words[0], words, {**os.environ, _OWN: str(os.getpid())})


class FarmOnSmallDisk(Farm):
    """Its master has a file system of its own where this process may mount one. Its state is kept at the end."""

    def _take_directory(self) -> None:
        folder = self.directory / "master"
        super()._take_directory()
        folder.mkdir(mode=0o700)
        if os.geteuid() == 0:
            mount = ["mount", "-t", "tmpfs", "-o", f"{_SIZE},mode=0700", "torment", str(folder)]
            if subprocess.run(mount, capture_output=True, check=False).returncode == 0:
                self._stack.callback(_keep, folder)


def is_small(folder: Path) -> bool:
    """Whether it is a file system of its own, which can be filled."""
    return os.path.ismount(folder)


@contextmanager
def full(folder: Path) -> Iterator[None]:
    """Nothing more can be written into the folder meanwhile."""
    with records.opened(folder / records.DATABASE) as connection:  # its log is used again and again, without more room
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    _shrink(folder)
    try:
        yield
    finally:
        run("mount", "-o", f"remount,{_SIZE}", folder)


def _shrink(folder: Path) -> None:
    """Leave no room. A size below what is used is refused, and the master goes on writing meanwhile."""
    for more in range(3, 3 + _ATTEMPTS):
        room = os.statvfs(folder)
        size = (room.f_blocks - room.f_bfree + 2**more) * room.f_frsize
        smaller = ["mount", "-o", f"remount,size={size}", str(folder)]
        if subprocess.run(smaller, capture_output=True, check=False).returncode == 0:
            return
    raise FarmError(f"the file system of {folder} cannot be made smaller")


def _keep(folder: Path) -> None:
    """The state as an ordinary folder, so that a loss can be looked at."""
    kept = folder.with_name("master.kept")
    shutil.copytree(folder, kept, symlinks=True)
    _unmount(folder)
    folder.rmdir()
    kept.rename(folder)


def _unmount(folder: Path) -> None:
    if os.path.ismount(folder):
        run("umount", "--lazy", folder)
