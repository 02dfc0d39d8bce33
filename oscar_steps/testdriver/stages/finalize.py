"""Stage 7: OSCAR, let through the barrier, finishes the installation and tests the cluster."""

from __future__ import annotations

import asyncio

from oscar_steps.testdriver.reached import Installing
from oscar_steps.testdriver.run import Run


async def run_stage(run: Run, installing: Installing) -> None:
    """Raises InstallerFailed and InstallerHung, also through the run's alarm."""
    installer = installing.installer
    deadline = installing.speed.deadline(run.job.timeouts.install)
    with run.diary.step("OSCAR to finish the installation and test the cluster"):
        try:
            async with asyncio.timeout(deadline.left):
                await installer.ended.wait()
        except TimeoutError:
            raise installer.overdue(deadline.seconds) from None
    run.check_alarm()
