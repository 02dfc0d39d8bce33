"""Stage 9, the farm's own: end the cluster and prove that nothing of it is left. Always runs."""

from __future__ import annotations

import asyncio
import math
from contextlib import suppress
from datetime import datetime, timedelta

from oscar_steps.errors import MachineLost
from oscar_steps.testdriver.cleanup import clean_up
from oscar_steps.testdriver.reached import Booted, Booting, Prepared
from oscar_steps.testdriver.run import Run
from oscar_steps.v3m.host.ledger import find_leftovers


async def run_stage(run: Run) -> None:
    """Raises MachineLost where a VM of the run outlived its end."""
    if run.options.keep and not run.cancelled.is_set() and isinstance(run.reached, Booting):
        await _keep(run)
    await run.end_background()
    reached = run.reached
    if isinstance(reached, Booted):
        reached.head.close()
    try:
        if isinstance(reached, Booting):
            await reached.cluster.destroy()
        left = find_leftovers(run.directory)
        if left:
            raise MachineLost(f"VMs of the run still run after its teardown: {', '.join(str(one) for one in left)}")
    finally:
        clean_up(run.directory)
        if isinstance(reached, Prepared):
            reached.room.release()


async def _keep(run: Run) -> None:
    """Leave the cluster to a person until the run is ended or the time is up."""
    hours, end = run.options.keep, f"`oscar-testdriver destroy {run.directory}`"
    if math.isinf(hours):
        run.diary.say(f"the cluster is kept; {end} or Ctrl-C ends it")
        await run.cancelled.wait()
        return
    until = f"the cluster is kept until {datetime.now() + timedelta(hours=hours):%H:%M}"
    words = f"{until}; `oscar-testdriver ssh {run.directory}` logs in to its head node; {end} ends it before"
    run.diary.write("kept", words, summary=until)
    with suppress(TimeoutError):
        async with asyncio.timeout(hours * 3600):
            await run.cancelled.wait()
