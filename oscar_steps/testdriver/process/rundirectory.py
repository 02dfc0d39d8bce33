"""The directory of a run: made, locked by the run's process, looked at by others."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from oscar_steps.daemon import is_claimed
from oscar_steps.errors import HostError, UserError
from oscar_steps.textio import close_to_others
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
        raise UserError(sentence, hint="name a folder that you can write to") from None
    except OSError as error:
        raise HostError(f"the run directory {run_directory} cannot be made: {error.strerror}") from error
    _close_runs(run_directory.parent)


def _close_runs(runs: Path) -> None:
    with suppress(OSError):
        for folder in runs.iterdir():
            with suppress(OSError):  # another user's
                if (folder / JOB_FILE).is_file():
                    close_to_others(folder)


def is_running(run_directory: Path) -> bool:
    """Whether the run's process is there."""
    return is_claimed(run_directory / LOCK_FILE)


def require_run(run_directory: Path) -> None:
    """Raises UserError where the directory holds no run."""
    if not (run_directory / JOB_FILE).exists():
        hint = "`oscar-testdriver status` lists the runs of this host; `stage create-image --job JOB.json` starts one"
        raise UserError(f"{run_directory}: there is no run here", hint=hint)
