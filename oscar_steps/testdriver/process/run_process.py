"""The run's process: parent of every QEMU of the run, alone in its run directory."""

from __future__ import annotations

import asyncio
import signal
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from oscar_steps.daemon import claim, report_ready
from oscar_steps.errors import UserError
from oscar_steps.job import Job
from oscar_steps.testdriver.process.rundirectory import LOCK_FILE, make_directory
from oscar_steps.testdriver.process.server import RunServer
from oscar_steps.testdriver.record.events import Listener
from oscar_steps.testdriver.run import Gate, Run, RunOptions
from oscar_steps.testdriver.stages import HANDLERS
from oscar_steps.v3m.host import eventloop
from oscar_steps.verdict import Verdict


def execute(
    run_directory: Path,
    job: Job,
    options: RunOptions,
    *,
    stepwise: bool,
    listener: Listener | None = None,
    ready: int | None = None,
) -> Verdict:
    """Run the job in this process to its end. `stepwise`: go on only as far as attached commands ask, with the lease.

    `ready`: a file descriptor that gets a byte when the socket listens. Raises UserError where the directory is in use.
    """
    make_directory(run_directory)
    lock = claim(run_directory / LOCK_FILE)
    if lock is None:
        raise UserError(f"{run_directory} belongs to a run that is still going on", hint="name another directory")
    with lock:
        return eventloop.run(_execute(run_directory, job, options, stepwise, listener, ready))


async def _execute(
    run_directory: Path, job: Job, options: RunOptions, stepwise: bool, listener: Listener | None, ready: int | None
) -> Verdict:
    run = Run(run_directory, job, options, Gate(open_=not stepwise))
    server = RunServer(run)
    loop = asyncio.get_running_loop()
    # paramiko blocks: what is asked of the head node takes a thread for as long as it lasts; the rest must not wait.
    loop.set_default_executor(ThreadPoolExecutor(max_workers=32))
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, _signalled, run, number)
    with run.diary.listening(listener or (lambda _event: None)):
        async with server.serving():
            if ready is not None:
                report_ready(ready)
            lease = asyncio.ensure_future(server.hold_lease(job.timeouts.lease)) if stepwise else None
            verdict = await run.execute(HANDLERS)
            if lease:
                lease.cancel()
    sys.stderr.flush()
    return verdict


def _signalled(run: Run, number: int) -> None:
    task = asyncio.ensure_future(run.cancel(f"the run's process received {signal.Signals(number).name}"))
    run.hold(task)
