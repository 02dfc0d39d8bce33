"""What the next command says about a run whose process was killed: everything it needs is in the run directory."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from oscar_steps.errors import UserError
from oscar_steps.job import JOB_FILE
from oscar_steps.testdriver.events import append_event
from oscar_steps.testdriver.owner import LOCK_FILE
from oscar_steps.testdriver.perishables import remove_perishables
from oscar_steps.testdriver.story import read_story
from oscar_steps.testdriver.verdicts import verdict_of
from oscar_steps.textio import open_regular
from oscar_steps.v3m.ledger import end_leftovers
from oscar_steps.verdict import Verdict


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


def verdict_of_dead_run(run_directory: Path) -> Verdict:
    """The verdict of a run that ended, however it ended, as it was written.

    Where its process was killed before it could write one: VMs of the run's ledger that are left are ended (there are
    none, since they die with their parent; this is the proof), that is noted among the run's events, and the verdict is
    made as the run itself would have made it. Raises UserError where the directory holds no run.
    """
    require_run(run_directory)
    try:
        return Verdict.load(run_directory)
    except FileNotFoundError:
        if read_story(run_directory) is None:
            raise UserError(f"{run_directory}: this run has not begun yet") from None
    left = end_leftovers(run_directory)
    remove_perishables(run_directory)
    append_event(run_directory, "post-mortem", f"{len(left)} VMs were left", vms_left=len(left))
    verdict = verdict_of(run_directory)
    verdict.save(run_directory)
    return verdict
