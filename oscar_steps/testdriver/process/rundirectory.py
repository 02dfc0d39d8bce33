"""The directory of a run: made, locked by the run's process, looked at by others."""

from __future__ import annotations

import fcntl
import os
from contextlib import suppress
from pathlib import Path
from typing import TextIO

from oscar_steps.errors import HostError, UserError
from oscar_steps.textio import close_to_others, open_regular
from oscar_steps.words import JOB_FILE

LOCK_FILE = "owner.lock"  # not renamed: a run that an earlier version started must not look dead
SOCKET_FILE = "run.sock"


def make_directory(run_directory: Path) -> None:
    """Make the run directory, for this user alone: it holds the guests' disks, and what they say.

    Runs beside it that an earlier version left open are closed. Raises UserError where it cannot be a run directory,
    HostError where the host's disk is at fault.
    """
    try:
        run_directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError, PermissionError) as error:
        sentence = f"the run directory {run_directory} cannot be made: {error.strerror}"
        raise UserError(sentence, hint="name a folder for it that can be written to") from None
    except OSError as error:
        raise HostError(f"the run directory {run_directory} cannot be made: {error.strerror}") from error
    _close_runs(run_directory.parent)


def _close_runs(runs: Path) -> None:
    with suppress(OSError):
        for folder in runs.iterdir():
            with suppress(OSError):  # another user's
                if (folder / JOB_FILE).is_file():
                    close_to_others(folder)


def lock_directory(run_directory: Path) -> TextIO | None:
    """The lock of the run's process, or None while another process has it. A kill -9 frees it, too."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
    lock = os.fdopen(open_regular(run_directory / LOCK_FILE, flags), "a", encoding="utf-8")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.close()
        return None
    return lock


def is_running(run_directory: Path) -> bool:
    """Whether the run's process is there (it holds the directory's lock)."""
    try:
        with os.fdopen(open_regular(run_directory / LOCK_FILE)) as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)  # shared: two who ask at once do not see each other
    except BlockingIOError:
        return True
    except FileNotFoundError:
        return False
    return False


def require_run(run_directory: Path) -> None:
    """Raises UserError where the directory holds no run."""
    if not (run_directory / JOB_FILE).exists():
        hint = "`oscar-testdriver status` lists the runs of this host; `stage create-image --job JOB.json` starts one"
        raise UserError(f"{run_directory}: there is no run here", hint=hint)
