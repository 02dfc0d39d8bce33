"""Step 7: open the barrier, let OSCAR finish the installation and test the cluster."""

from __future__ import annotations

import asyncio

from oscar_steps.oscar import hook
from oscar_steps.testdriver.run import Run, need


async def run_stage(run: Run) -> None:
    """Raises InstallerFailed and InstallerHung through the run's alarm; StageTimeout."""
    installer = need(run.installer, "the installer")
    deadline = need(run.speed, "the speed").deadline(run.job.timeouts.install)
    last_up = max(node.since for node in need(run.board, "the nodes"))
    await installer.open_barrier(hook.open_command())
    run.diary.write(
        "barrier-open",
        f"barrier open, {run.diary.elapsed - last_up:.2f} s after the last node's SSH banner",
        after_last_banner=round(run.diary.elapsed - last_up, 3),
    )
    with run.diary.step("OSCAR to finish the installation and test the cluster"):
        try:
            async with asyncio.timeout(deadline.left):
                await installer.ended.wait()
        except TimeoutError:
            raise installer.overdue(deadline.seconds) from None
    run.check_alarm()
