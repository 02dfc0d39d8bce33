"""The link to the head node while OSCAR's installer runs: who broke it, and since when.

A connection whose other end is cut off says nothing: TCP waits for a quarter of an hour. So a small loop of the head
node's shell echoes a word every few seconds, and says whether the installer's terminal is still there. It forks
nothing. Where no echo comes, the other witnesses are asked: the hypervisor, the host, the serial console.
"""

from __future__ import annotations

import asyncio
import shlex
import time
from contextlib import suppress
from typing import TYPE_CHECKING

import psutil

from oscar_steps.errors import FarmError, Finding, HostError, MachineLost
from oscar_steps.oscar.stages import InstallStage
from oscar_steps.testdriver.console import last_lines
from oscar_steps.testdriver.headnode import HeadNodeLost, LineSplitter
from oscar_steps.testdriver.installer import FARM
from oscar_steps.v3m.machine import MachineState

if TYPE_CHECKING:
    from oscar_steps.testdriver.headnode import HeadNode, Stream
    from oscar_steps.testdriver.installer import Installer
    from oscar_steps.testdriver.run import Run

IDLE_SECONDS = 5.0
LATE_SECONDS = 10.0
"""Without an echo for so long the link is said to be late: an event, not yet a failure."""
LOST_SECONDS = 25.0
"""And for so long it is lost. Stretched on slow hosts, but below `headnode.CONNECT_SECONDS`, to come before it."""
MOST_SECONDS = 50.0
GAP_SECONDS = 5.0
"""The driver's own loop stood still for so long: then nobody else's silence means anything."""
MISSING_TIMES = 2

ECHO = "while read -r n; do if [ -e {file} ]; then echo $n here; else echo $n gone; fi; done"
STANDS_STILL = "the virtual machine of the head node stands still"


class HeadNodeCutOff(Finding):
    """The head node runs, and nothing of it can be reached any more since something that OSCAR did."""


def echo_command(file: str) -> str:
    """Shell line that answers each line of its input, with a word on whether `file` is there."""
    return ECHO.format(file=shlex.quote(file))


class HeadLink:
    """Keeps asking the head node for an echo; `watch` ends with the installer, or where the link is lost: an alarm."""

    def __init__(self, run: Run, head: HeadNode, installer: Installer, *, factor: float = 1.0) -> None:
        self._run, self._head, self._installer = run, head, installer
        self._lost = min(LOST_SECONDS * factor, MOST_SECONDS)
        self._late = min(LATE_SECONDS * factor, self._lost)
        self._heard = time.monotonic()
        self._asked = 0
        self._answered = 0
        self._missing = 0
        self._stood_still = float("-inf")

    async def watch(self) -> None:
        """Raises HeadNodeCutOff where the farm's files are gone; the alarm of a lost link is raised by itself."""
        watching = [asyncio.create_task(work) for work in (self._echo(), self._clock(), self._installer.ended.wait())]
        try:
            done, _ = await asyncio.wait(watching, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            for task in watching:
                task.cancel()
            await asyncio.gather(*watching, return_exceptions=True)

    async def _echo(self) -> None:
        """Listen to the echo; start it again where it ended, however it ended."""
        while True:
            with suppress(HeadNodeLost):  # `_clock` knows for how long
                async with self._head.stream(echo_command(f"{FARM}/terminal.log")) as stream:
                    asking = asyncio.create_task(self._ask(stream))
                    try:
                        await self._listen(stream)
                    finally:
                        asking.cancel()
                self._run.diary.say("the head node's end of the SSH connection is gone; connecting again")
            with suppress(HeadNodeLost):
                await self._head.reconnect(self._lost)

    async def _ask(self, stream: Stream) -> None:
        while True:
            self._asked += 1
            await stream.send(f"{self._asked}\n".encode())
            await asyncio.sleep(IDLE_SECONDS)

    async def _listen(self, stream: Stream) -> None:
        splitter = LineSplitter()
        async for chunk in stream:
            for line in splitter.feed(chunk):
                self._heard = time.monotonic()
                self._missing = self._missing + 1 if line.endswith(" gone") else 0
                if self._missing >= MISSING_TIMES:
                    raise gone_files(self._run)

    async def _clock(self) -> None:
        """Tell how long the link has been silent. A moment in which the driver itself did not run does not count."""
        told = False
        before = time.monotonic()
        while True:
            await asyncio.sleep(1.0)
            now = time.monotonic()
            if now - before > 1.0 + GAP_SECONDS:
                self._stood_still = self._heard = now
                self._run.diary.say(f"the driver itself stood still for {now - before:.0f} s")
            before = now
            silent = now - self._heard
            if silent >= self._lost:
                error = await cut_off(self._run, host_stood_still=now - self._stood_still <= self._lost + GAP_SECONDS)
                self._run.raise_alarm(error)  # first: what waits for the connection wakes now, and has less to say
                self._head.gone(error.sentence)
                return
            if silent >= self._late and not told:
                self._run.diary.say(f"the head node has not answered for {silent:.0f} s")
            elif told and silent < self._late:
                self._run.diary.say("the head node answers again")
            told = silent >= self._late


async def cut_off(run: Run, *, host_stood_still: bool = False) -> FarmError:
    """The error for a head node that cannot be reached, by what the other witnesses say."""
    if host_stood_still:
        return HostError(f"{STANDS_STILL}: the virtualization host itself did, for seconds", hint="run it again")
    if why := await _stands_still(run):
        return HostError(f"{STANDS_STILL}: {why}", hint="this says nothing about OSCAR; run it again")
    what = "the head node runs but does not answer on eth0 any more"
    installer = run.installer
    evidence = _console(run)
    if installer is None or installer.ended.is_set():
        return MachineLost(f"{what}, while the run waited for {run.diary.current_step}")
    stage, doing = _step(installer)
    return HeadNodeCutOff(
        f"{what}, since OSCAR began {doing}",
        hint="its interface, its firewall or its SSH server is gone: what did OSCAR change there?",
        oscar_stage=stage,
        evidence=evidence or installer.overdue(0.0).evidence,
    )


def gone_files(run: Run) -> FarmError:
    """The error for a head node on which what the farm keeps in root's home was removed under its feet."""
    installer = run.installer
    assert installer is not None
    stage, doing = _step(installer)
    return HeadNodeCutOff(
        f"files in root's home were removed, {FARM}/terminal.log among them, since OSCAR began {doing}",
        hint="OSCAR's installer may go on, but nobody can read what it says",
        oscar_stage=stage,
        evidence=installer.overdue(0.0).evidence,
    )


def _step(installer: Installer) -> tuple[str, str]:
    stage = installer.overdue(0.0).oscar_stage
    return stage, InstallStage(stage).doing if stage else "installing the cluster"


async def _stands_still(run: Run) -> str:
    """Why the machine cannot answer; '' where it can."""
    if run.cluster is None:
        return ""
    machine = run.cluster.head
    with suppress(psutil.Error):
        if machine.pid is not None and psutil.Process(machine.pid).status() == psutil.STATUS_STOPPED:
            return f"its process {machine.pid} was stopped by a signal"
    try:
        async with asyncio.timeout(LATE_SECONDS):
            state = await machine.status()
    except TimeoutError:
        return f"its hypervisor has not answered for {LATE_SECONDS:.0f} s"
    except FarmError as error:
        return error.sentence
    return "" if state is MachineState.RUNNING else f"its hypervisor calls it {state}"


def _console(run: Run) -> tuple[tuple[str, int, tuple[str, ...]], ...]:
    if run.cluster is None:
        return ()
    path = run.cluster.head.console
    first, lines = last_lines(path)
    return ((f"console/{path.name}", first, lines),) if lines else ()


async def explained(run: Run, error: FarmError) -> FarmError:
    """`error`, or what the other witnesses say where it is only that the connection broke while the installer ran."""
    installer = run.installer
    if not isinstance(error, HeadNodeLost) or installer is None or installer.ended.is_set() or run.ending:
        return error
    if run.head is not None and not run.head.is_gone:
        with suppress(HeadNodeLost, TimeoutError):
            async with asyncio.timeout(LOST_SECONDS):
                await run.head.reconnect(LOST_SECONDS)
            return error  # it broke once, and the head node can be reached: nobody has cut it off
    return await cut_off(run)
