"""Processes of ours that outlive the command that starts them (a run's, and v2m's daemon): start, lock and socket."""

from __future__ import annotations

import fcntl
import os
import select
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TextIO

from oscar_steps.environment import python_environment
from oscar_steps.errors import HostError
from oscar_steps.textio import open_regular

PYTHON = (sys.executable, "-P", "-m")  # -P: a secrets.py in the user's directory is not the one that we mean
_READY = b"!"
_PAUSE = 0.05
"""Seconds between two tries: no event reports that a lock has become free."""
_CREDENTIALS = struct.Struct("3i")  # process, user, group: unix(7)


def start(command: list[str], log: Path, seconds: float, what: str) -> None:
    """Start `command` in a session of its own, and wait until it calls `report_ready` with its last argument.

    What it says goes to `log`. Raises HostError, which calls it `what`, where it does not start within `seconds`.
    A process that comes up later ends by itself: a run by its lease, the v2m daemon because no machine needs it.
    """
    reader, writer = os.pipe()
    with os.fdopen(reader, "rb") as pipe:
        with os.fdopen(writer, "wb"), log.open("ab") as errors:
            process = subprocess.Popen(
                [*command, str(writer)],
                stdin=subprocess.DEVNULL,
                stdout=errors,
                stderr=errors,
                start_new_session=True,
                pass_fds=(writer,),
                env=python_environment(),
            )
        # Where it ends before us, it must not stay behind as a zombie.
        threading.Thread(target=process.wait, daemon=True).start()
        waiting, _, _ = select.select([pipe], [], [], seconds)
        if not waiting:
            raise HostError(f"{what} did not start within {seconds:.0f} s", hint=last_line(log))
        if pipe.read(1) != _READY:
            raise HostError(f"{what} did not start", hint=last_line(log))


def report_ready(descriptor: int) -> None:
    """Let `start` return: the socket listens."""
    with suppress(OSError):
        os.write(descriptor, _READY)
    os.close(descriptor)


def last_line(log: Path) -> str:
    """The last line of a log, as a hint; empty where there is none."""
    with suppress(OSError):
        lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        return f"the last line of {log}: {lines[-1]}" if lines else ""
    return ""


def claim(lock: Path, seconds: float = 1.0) -> TextIO | None:
    """The lock that a process holds while it lives, None where another one has it. A kill -9 frees it. Raises OSError.

    `is_claimed` of another command takes it for a moment: hence the `seconds`.
    """
    file = os.fdopen(open_regular(lock, os.O_WRONLY | os.O_CREAT | os.O_APPEND), "a", encoding="utf-8")
    if _locked(file.fileno(), fcntl.LOCK_EX, seconds):
        return file
    file.close()
    return None


def is_claimed(lock: Path, seconds: float = 0.0) -> bool:
    """Whether a process holds the lock; one that frees it within `seconds` does not. Raises OSError."""
    try:
        with os.fdopen(open_regular(lock)) as file:
            return not _locked(file.fileno(), fcntl.LOCK_SH, seconds)  # two who ask at once do not see each other
    except FileNotFoundError:
        return False


def _locked(descriptor: int, how: int, seconds: float) -> bool:
    end = time.monotonic() + seconds
    while True:
        try:
            fcntl.flock(descriptor, how | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= end:
                return False
            time.sleep(_PAUSE)
        else:
            return True


@contextmanager
def short_path(path: Path) -> Iterator[str]:
    """A path to a socket that fits into its address (107 bytes), however deep its directory lies. Raises OSError."""
    directory = os.open(path.parent, os.O_PATH | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{directory}/{path.name}"
    finally:
        os.close(directory)


def connect(connection: socket.socket, path: Path) -> None:
    """Connect a Unix socket to the one at `path`. Raises OSError."""
    with short_path(path) as short:
        connection.connect(short)


def peer(connection: socket.socket) -> int:
    """The process at the other end of a Unix socket, as the kernel knows it."""
    return int(_CREDENTIALS.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size))[0])
