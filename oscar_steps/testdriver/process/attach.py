"""Attaches a command to a run: lets it go on to the end of one stage, prints what happens, ends with the result.

The run does not depend on the command. If a command is killed, the run goes on, and the next command shows what the
first one missed. A command that receives TERM or INT ends the run, too. The command of the last stage waits until the
run's process has ended, so nothing of the run is alive after it.
"""

from __future__ import annotations

import asyncio
import ctypes
import json
import os
import signal
from collections.abc import Callable
from pathlib import Path

from oscar_steps.daemon import PYTHON, peer, short_path, start
from oscar_steps.errors import HostError
from oscar_steps.testdriver.process.postmortem import verdict_of_dead_run
from oscar_steps.testdriver.process.rundirectory import SOCKET_FILE, is_running, make_directory
from oscar_steps.testdriver.record.events import EVENTS_FILE, Event
from oscar_steps.textio import json_line, json_object
from oscar_steps.v3m.host import eventloop
from oscar_steps.words import JOB_FILE, Stage, StageResult

Printer = Callable[[Event], None]
DRIVER_LOG = "driver.log"
START_SECONDS = 120.0
END_SECONDS = 120.0
"""A login to a head node that is gone, which a thread still waits for, takes up to a minute."""


def start_run(run_directory: Path, job: Path, arguments: tuple[str, ...]) -> None:
    """Start the run's process, detached from us, and wait until its socket listens.

    Raises HostError with its last words where it does not come up.
    """
    make_directory(run_directory)
    command = [
        *PYTHON,
        "oscar_steps.testdriver",
        "process",
        "--run",
        str(run_directory),
        "--job",
        str(job),
        *arguments,
    ]
    start([*command, "--ready"], run_directory / DRIVER_LOG, START_SECONDS, "the run's process")


def follow(run_directory: Path, request: dict[str, str | bool], printer: Printer) -> StageResult:
    """Send `request` to the run and follow it. Raises UserError where there is no run, HostError where it was lost."""
    if not is_running(run_directory):
        verdict = verdict_of_dead_run(run_directory)
        stage = Stage(str(request.get("stage", Stage.TEARDOWN)))
        print(f"{verdict.outcome}: {verdict.sentence}", flush=True)
        return next((report.result for report in verdict.stages if report.stage is stage), StageResult.INFRASTRUCTURE)
    return eventloop.run(_follow(run_directory, request, printer))


def _die_with_parent() -> None:
    """Be killed in the moment our parent dies. Otherwise the command of a worker that was killed would stay attached,
    and the run's lease would never end. (prctl(2), PR_SET_PDEATHSIG = 1.)"""
    parent = os.getppid()
    ctypes.CDLL(None, use_errno=True).prctl(1, signal.SIGKILL)
    if os.getppid() != parent:
        raise HostError("the process that started this command has ended already")


async def _follow(run_directory: Path, request: dict[str, str | bool], printer: Printer) -> StageResult:
    with short_path(run_directory / SOCKET_FILE) as address:
        try:
            reader, writer = await asyncio.open_unix_connection(address, limit=1 << 24)
        except OSError as error:
            what = f"{run_directory}: the run goes on, but its socket cannot be connected to ({error.strerror})"
            raise HostError(what) from error

    def cancel(name: str) -> None:
        writer.write(json_line({"cancel": f"the command attached to it received {name}"}))

    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, cancel, signal.Signals(number).name)
    writer.write(json_line(request))
    while line := await reader.readline():
        message = json_object(line)
        if "event" in message:
            printer(Event.from_json(json.dumps(message["event"])))
        elif "done" in message:
            process = peer(writer.get_extra_info("socket"))
            writer.close()
            if message["done"]["stage"] == Stage.TEARDOWN:
                await _until_ended(run_directory, process)
            return StageResult(message["done"]["result"])
    verdict = verdict_of_dead_run(run_directory) if not is_running(run_directory) else None
    raise HostError(verdict.sentence if verdict else f"{run_directory}: the run closed its connection in mid-stage")


async def _until_ended(run_directory: Path, process: int) -> None:
    """Wait until the run's process has ended. After its last message one of its threads may need a while.

    Raises HostError where it does not end.
    """
    try:
        descriptor = os.pidfd_open(process)
    except ProcessLookupError:
        return
    ended = asyncio.Event()
    asyncio.get_running_loop().add_reader(descriptor, ended.set)
    try:
        async with asyncio.timeout(END_SECONDS):
            await ended.wait()
    except TimeoutError:
        sentence = f"{run_directory}: the run is over, but its process {process} does not end"
        raise HostError(sentence, hint=f"{run_directory / DRIVER_LOG} may say why") from None
    finally:
        asyncio.get_running_loop().remove_reader(descriptor)
        os.close(descriptor)


def follow_stage(
    run_directory: Path, stage: Stage, job: Path | None, arguments: tuple[str, ...], printer: Printer
) -> StageResult:
    """One Buildbot step: start the run with the first stage, then follow it to the end of `stage`.

    `job`: the job's file; without it the one in the run directory.
    """
    _die_with_parent()
    begun = (run_directory / EVENTS_FILE).exists()
    if stage is Stage.CREATE_IMAGE and not begun and (job or (run_directory / JOB_FILE).exists()):
        from oscar_steps.job import Job  # the first stage alone needs it

        job = job or run_directory / JOB_FILE
        Job.load(job)  # a mistake in it is reported here, not in the log of a process that dies at once
        start_run(run_directory, job, arguments)
    return follow(run_directory, {"stage": stage.value}, printer)
