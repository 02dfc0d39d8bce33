"""The link to the head node while OSCAR's installer runs: who broke it, and since when.

TCP notices a dead connection only after a quarter of an hour. So a shell loop on the head node answers a word every few
seconds. It also says whether the installer's terminal file is still there, and forks once: if that fails, the head node
can start no command any more. If no echo comes, the farm tries a new connection, because an old one may be slow after a
short break. Before it blames OSCAR, it asks the other witnesses: the hypervisor, the host, the serial console.
"""

from __future__ import annotations

import asyncio
import re
import shlex
import time
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING

import paramiko
import psutil

from oscar_steps.errors import Evidence, FarmError, HeadNodeCutOff, HeadNodeLost, HostError, MachineLost, StageTimeout
from oscar_steps.oscar.stages import InstallStage
from oscar_steps.testdriver.head.console import last_lines
from oscar_steps.testdriver.head.installer import FARM
from oscar_steps.testdriver.lines import LineSplitter
from oscar_steps.v3m.machine import MachineState

if TYPE_CHECKING:
    from oscar_steps.testdriver.deadline import HostSpeed
    from oscar_steps.testdriver.head.headnode import HeadNode, Stream
    from oscar_steps.testdriver.head.installer import Installer
    from oscar_steps.testdriver.record.events import Diary
    from oscar_steps.v3m.machine import Machine

IDLE_SECONDS = 5.0
LATE_SECONDS = 10.0
"""Without an echo for so long the link is said to be late: an event, not yet a failure."""
LOST_SECONDS = 25.0
"""And for so long it is lost. Stretched on slow hosts, but below `headnode.CONNECT_SECONDS`, to come before it."""
MOST_SECONDS = 50.0
GAP_SECONDS = 5.0
"""When the driver's own loop stood still for so long, the silence of others means nothing."""
MISSING_TIMES = 2
KNOCK_SECONDS = 7.0
"""How long a new connection may take to the first word of the SSH server; stretched on slow hosts."""
UNANSWERED_SECONDS = 3.0
"""A kernel that has not answered a new connection for so long does not answer at all: no host is slow in that."""
UNUSED_SECONDS = 60.0
"""The SSH server answers new connections, but for so long nothing has come through the old one: it is given up."""

CUT_OFF = "the head node runs but does not answer on eth0 any more"
LOCKED_OUT = "the head node runs and answers on eth0, but does not let root in any more"
NO_COMMANDS = "the head node runs and answers on eth0, but starts no command any more"
ECHO = "exec 2>&1; while read -r n; do if [ -e {file} ]; then echo $n here; else echo $n gone; fi; (:); done"
NO_FORK = re.compile(r"\bfork: (?!retry:)|\bCannot fork\b")
"""A shell's last word where it cannot fork. Bash says 'retry' for 15 s before (`make_child` in its jobs.c)."""
HINTS = {
    CUT_OFF: "its interface is down, its firewall is shut or its SSH server has ended: what did OSCAR change there?",
    LOCKED_OUT: "root's password, root's shell or the server's keys have changed: what did OSCAR change there?",
    NO_COMMANDS: "its process table or its memory may be full: what did OSCAR start there?",
}
STANDS_STILL = "the virtual machine of the head node stands still"


def echo_command(file: str) -> str:
    """Shell line that answers each line of its input, with a word on whether `file` is there."""
    return ECHO.format(file=shlex.quote(file))


async def greets(host: str, port: int, seconds: float) -> bool:
    """Whether an SSH server says its first word to a new connection, within `seconds`."""
    try:
        async with asyncio.timeout(seconds):
            reader, writer = await asyncio.open_connection(host, port)
            try:
                return (await reader.read(4)).startswith(b"SSH-")
            finally:
                writer.close()
    except OSError:  # also the time-out
        return False


class HeadLink:
    """Asks the head node for an echo again and again. `watch` ends with the installer, or with an alarm."""

    def __init__(
        self, head: HeadNode, machine: Machine, installer: Installer, speed: HostSpeed, diary: Diary,
        alarm: Callable[[FarmError], None],
    ) -> None:  # fmt: skip
        self._head, self._machine, self._installer, self._speed = head, machine, installer, speed
        self._diary, self._alarm = diary, alarm
        self._heard = self._echoed = time.monotonic()
        self._knocked = float("inf")
        self._asked = 0
        self._missing = 0
        self._stood_still = float("-inf")

    @property
    def _lost(self) -> float:
        return min(LOST_SECONDS * self._speed.factor, MOST_SECONDS)

    @property
    def _late(self) -> float:
        return self._lost * LATE_SECONDS / LOST_SECONDS

    async def watch(self) -> None:
        """Raises HeadNodeCutOff where the farm's files are gone, or no command can be started; the alarm of a lost
        link is raised by itself."""
        works = (self._echo(), self._knock(), self._clock(), self._installer.ended.wait())
        watching = [asyncio.create_task(work) for work in works]
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
                self._diary.say("the head node's end of the SSH connection is gone; connecting again")
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
                self._heard = self._echoed = time.monotonic()
                if NO_FORK.search(line):
                    raise self._given_up(await self._cut_off(NO_COMMANDS))
                self._missing = self._missing + 1 if line.endswith(" gone") else 0
                if self._missing >= MISSING_TIMES:
                    raise gone_files(self._installer)

    async def _knock(self) -> None:
        """Where the echo is late: does the SSH server answer a new connection? Then it is not cut off, only slow."""
        while True:
            self._knocked = float("inf")
            await asyncio.sleep(min(1.0, LATE_SECONDS))
            if time.monotonic() - self._heard < LATE_SECONDS:
                continue
            self._knocked = time.monotonic()
            if not await greets(self._head.host, self._head.port, KNOCK_SECONDS * self._speed.factor):
                continue
            self._heard = time.monotonic()
            if self._heard - self._echoed > UNUSED_SECONDS * self._speed.factor:
                self._diary.say("the head node answers new connections, but not the old one; connecting again")
                self._echoed = self._heard
                self._head.broke()

    async def _clock(self) -> None:
        """Say how long the link has been silent. A moment in which the driver itself did not run does not count."""
        said = False
        while True:
            before = time.monotonic()
            await asyncio.sleep(1.0)
            now = time.monotonic()
            self._not_counted(now - before - 1.0, now)
            silent = now - self._heard
            if silent >= self._lost or (silent >= LOST_SECONDS and await self._is_certain(now)):
                still = now - self._stood_still <= self._lost + GAP_SECONDS
                self._given_up(await self._cut_off(host_stood_still=still))
                return
            if silent >= self._late and not said:
                self._diary.say(f"the head node has not answered for {silent:.0f} s")
            elif said and silent < self._late:
                self._diary.say("the head node answers again")
            said = silent >= self._late

    async def _cut_off(self, what: str = CUT_OFF, *, host_stood_still: bool = False) -> FarmError:
        step = self._diary.current_step
        return await cut_off(self._machine, self._installer, step, what, host_stood_still=host_stood_still)

    def _given_up(self, error: FarmError) -> FarmError:
        """Raise `error` as the run's alarm, and end all that waits for the head node."""
        self._alarm(error)  # first: what waits for the connection wakes now, and has less to say
        self._head.gone(error.sentence)
        return error

    async def _is_certain(self, now: float) -> bool:
        """Whether more patience changes nothing: no host is so slow that its machines stand still, or that a kernel
        does not answer a new connection."""
        if await _stands_still(self._machine):
            return True
        if now - self._knocked < UNANSWERED_SECONDS:
            return False
        with suppress(FarmError):
            return await self._machine.has_unanswered_ssh()
        return False

    def _not_counted(self, lag: float, now: float) -> None:
        """The driver was not let run for `lag` seconds: the head node, on the same host, was not either."""
        if lag > GAP_SECONDS:
            self._stood_still = self._heard = now
            self._diary.say(f"the driver itself stood still for {lag:.0f} s")
        elif lag > 0:
            self._heard = min(self._heard + lag, now)


async def cut_off(
    machine: Machine, installer: Installer, waiting_for: str, what: str = CUT_OFF, *, host_stood_still: bool = False
) -> FarmError:
    """The error for a head node that cannot be reached, by what the other witnesses say. `what` is the sentence for a
    machine that is well."""
    if host_stood_still:
        return HostError(f"{STANDS_STILL}: the host itself stood still, for seconds", hint="run it again")
    if why := await _stands_still(machine):
        return HostError(f"{STANDS_STILL}: {why}", hint="this says nothing about OSCAR; run it again")
    if installer.ended.is_set():
        return MachineLost(f"{what}, while the run waited for {waiting_for}")
    first, lines = last_lines(machine.console)
    stage, doing = _step(installer)
    return HeadNodeCutOff(
        f"{what}, since OSCAR began {doing}",
        hint=HINTS[what],
        oscar_stage=stage,
        evidence=(Evidence(f"console/{machine.console.name}", first, lines),)
        if lines
        else installer.overdue(0.0).evidence,
    )


def gone_files(installer: Installer) -> FarmError:
    """The error for a head node on which the farm's files in root's home were removed during the run."""
    stage, doing = _step(installer)
    return HeadNodeCutOff(
        f"files in root's home were removed, {FARM}/terminal.log among them, since OSCAR began {doing}",
        hint="OSCAR's installer may go on, but its output cannot be read",
        oscar_stage=stage,
        evidence=installer.overdue(0.0).evidence,
    )


def _step(installer: Installer) -> tuple[str, str]:
    stage = installer.overdue(0.0).oscar_stage
    return stage, InstallStage(stage).doing if stage else "installing the cluster"


async def _stands_still(machine: Machine) -> str:
    """Why the machine cannot answer; '' where it can."""
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
    return "" if state is MachineState.RUNNING else f"its hypervisor says that it is {state}"


async def explained(
    error: FarmError, head: HeadNode, machine: Machine, installer: Installer, waiting_for: str
) -> FarmError:
    """`error`, or what the other witnesses say where it is only that the connection broke while the installer ran."""
    if not isinstance(error, HeadNodeLost):
        return error
    what = CUT_OFF if head.is_gone else await _refusal(head)
    return await cut_off(machine, installer, waiting_for, what) if what else error


async def _refusal(head: HeadNode) -> str:
    """What the head node does not do any more for a new connection; '' where it does it, or is only slow."""
    try:
        async with asyncio.timeout(LOST_SECONDS + KNOCK_SECONDS):
            await head.reconnect(LOST_SECONDS)
    except (HeadNodeLost, TimeoutError) as lost:
        if isinstance(lost.__cause__, (paramiko.AuthenticationException, paramiko.BadHostKeyException)):
            return LOCKED_OUT
        return "" if await greets(head.host, head.port, KNOCK_SECONDS) else CUT_OFF
    with suppress(StageTimeout):
        try:
            await head.run(":", seconds=LOST_SECONDS)
        except HeadNodeLost:
            return NO_COMMANDS if head.connected else ""
    return ""
