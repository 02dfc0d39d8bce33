"""The verdict of a run whose process was killed. The next command makes it from the run directory."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from oscar_steps.errors import UserError
from oscar_steps.testdriver.cleanup import clean_up
from oscar_steps.testdriver.process.rundirectory import require_run
from oscar_steps.testdriver.record.events import append_event
from oscar_steps.v3m.host.ledger import end_leftovers

if TYPE_CHECKING:
    from oscar_steps.verdict import Verdict


def verdict_of_dead_run(run_directory: Path) -> Verdict:
    """The verdict of a run that ended, however it ended, as it was written.

    If the process was killed before it wrote one, this ends the VMs of the run's ledger that are left. (There should be
    none, because they die with their parent.) It adds that to the run's events, and makes the verdict as the run itself
    would have done. Raises UserError where the directory holds no run.
    """
    require_run(run_directory)
    from oscar_steps.verdict import Verdict  # not needed for a run that is not there, or goes on

    try:
        return Verdict.load(run_directory)
    except FileNotFoundError:
        pass
    # Few runs are killed: the commands that ask for a verdict do not wait for what makes one.
    from oscar_steps.testdriver.record.event_history import read_event_history
    from oscar_steps.testdriver.record.verdicts import verdict_of

    if read_event_history(run_directory) is None:
        raise UserError(f"{run_directory}: this run has not begun yet")
    left = end_leftovers(run_directory)
    clean_up(run_directory)
    append_event(run_directory, "post-mortem", f"{len(left)} VMs were left", vms_left=len(left))
    verdict = verdict_of(run_directory)
    verdict.save(run_directory)
    return verdict
