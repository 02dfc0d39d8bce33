"""Follows one compute node from power-on to its first SSH banner, and names what it waited for when it fails.

The install boot ends the VM (a reboot as well as a power-off): then the disk's fingerprint tells whether anything was
installed, and the VM is started again from its disk alone. So 'the VM stopped' is never taken for 'it is installed',
and a node cannot install itself for ever.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from oscar_steps.errors import FarmError, HostError, NodeFailed
from oscar_steps.oscar.nodeconsole import ConsoleSign, SignKind, classify
from oscar_steps.oscar.rsyncdlog import RSYNCD_LOG, Request, RequestKind, parse_line
from oscar_steps.testdriver.console import follow_console, last_lines
from oscar_steps.testdriver.headnode import LineSplitter
from oscar_steps.testdriver.nodes import WAITING_FOR, NodeState
from oscar_steps.v3m.machine import EndReason, MachineState

if TYPE_CHECKING:
    from collections.abc import Callable

    from oscar_steps.job import Timeouts
    from oscar_steps.testdriver.deadline import HostSpeed
    from oscar_steps.testdriver.headnode import HeadNode
    from oscar_steps.testdriver.nodes import Node, NodeBoard
    from oscar_steps.testdriver.run import Run
    from oscar_steps.v3m.machine import DiskFingerprint, Machine

LOOK_SECONDS = 1.0
ASK_SSH_SECONDS = 0.5

_REACHED = {
    RequestKind.BINARIES: NodeState.INSTALLER_BOOTED,
    RequestKind.SCRIPTS: NodeState.INSTALLER_BOOTED,
    RequestKind.IMAGE: NodeState.PULLING,
    RequestKind.COMPLETE: NodeState.IMAGED,
}


async def follow_rsyncd_log(head: HeadNode, board: NodeBoard, alarm: Callable[[FarmError], None]) -> None:
    """Read the head node's rsync log live: what the nodes ask for is where they are."""
    splitter = LineSplitter()
    try:
        while True:
            async for chunk in head.follow(RSYNCD_LOG, from_byte=splitter.total):
                for line in splitter.feed(chunk):
                    take_rsyncd_line(line, board)
            await head.reconnect()
    except FarmError as error:
        alarm(error)


def take_rsyncd_line(line: str, board: NodeBoard) -> None:
    """One line of the rsync log: lets the node that asked reach the state that its request means."""
    request = parse_line(line)
    if not isinstance(request, Request) or request.kind not in _REACHED:
        return
    node = board.by_address(request.ip)
    if node is not None and node.state is not NodeState.DEFINED:
        node.reach(_REACHED[request.kind], note=request.path)


class NodeWatch:
    """Watches one node. `watch` returns when it is up; whatever ends it before is raised as the run's alarm."""

    def __init__(self, run: Run, machine: Machine, board: NodeBoard, head: HeadNode, speed: HostSpeed) -> None:
        self._run, self._machine, self._board, self._head = run, machine, board, head
        self._node: Node = board.nodes[machine.name]
        self._timeouts: Timeouts = run.job.timeouts
        self._factor = speed.factor
        self._written, self._written_at = 0, 0.0

    async def watch(self) -> None:
        """Power on, install, boot from disk, answer by SSH."""
        try:
            async with asyncio.TaskGroup() as group:
                console = group.create_task(self._watch_console())
                clock = group.create_task(self._watch_clock())
                await self._install()
                await self._come_up()
                console.cancel()
                clock.cancel()
        except* FarmError as group_error:
            first = _first(group_error)
            if isinstance(first, NodeFailed):
                self._node.reach(NodeState.FAILED, note=first.sentence.partition(": ")[2])
            self._run.raise_alarm(first)

    async def _install(self) -> None:
        before = await self._machine.fingerprint()
        await self._machine.boot(install=True, cdrom=self._run.boot_cd)
        self._node.reach(NodeState.POWERED_ON)
        ended = await self._machine.wait_ended()
        if ended.reason is EndReason.GUEST_PANIC:
            raise self._failed("its kernel panicked during the installation")
        if not ended.by_guest:
            raise HostError(f"the VM of {self._node.name} ended unasked: {ended.reason} {ended.detail}".strip())
        if self._node.state is not NodeState.IMAGED:
            await self._read_log_again()
        after = await self._machine.fingerprint()
        self._check_installed(before, after)
        self._node.reach(NodeState.REBOOTED, note=str(ended.reason))

    async def _read_log_again(self) -> None:
        # The VM's end comes at once, the log's last lines through tail and SSH of a slow head node: ask before judging.
        text = await self._head.read(f"tail -c 1000000 {RSYNCD_LOG}")
        for line in text.decode("utf-8", "replace").split("\n"):
            take_rsyncd_line(line, self._board)

    def _check_installed(self, before: DiskFingerprint, after: DiskFingerprint) -> None:
        state = self._node.state
        if before == after:
            raise self._failed(f"its VM ended while it was '{state.value}', and nothing was written to its disk")
        if state is not NodeState.IMAGED:
            raise self._failed(f"its VM ended while it was '{state.value}', before it had said that it is imaged")
        if not after.bootable:
            raise self._failed("it said that it is imaged, but its disk has no boot sector")

    async def _come_up(self) -> None:
        await self._machine.boot()
        ended = asyncio.ensure_future(self._machine.wait_ended())
        banner = asyncio.ensure_future(self._banner())
        try:
            await asyncio.wait({ended, banner}, return_when=asyncio.FIRST_COMPLETED)
            if not banner.done():
                end = ended.result()
                if not (end.by_guest or end.reason is EndReason.GUEST_PANIC):
                    raise HostError(f"the VM of {self._node.name} ended unasked: {end.reason} {end.detail}".strip())
                raise self._failed(f"it was started from its disk and ended ({end.reason}) instead of coming up")
            self._node.reach(NodeState.UP, note=banner.result())
        finally:
            ended.cancel()
            banner.cancel()

    async def _banner(self) -> str:
        # A port that nobody listens on is refused at once by the node's kernel; asking twice a second costs it nothing.
        while not (banner := await self._head.ssh_banner(self._node.address)):  # noqa: ASYNC110 - no event tells
            await asyncio.sleep(ASK_SSH_SECONDS)
        return banner

    async def _watch_console(self) -> None:
        async for line in follow_console(self._machine.console):
            sign = classify(line)
            if sign and sign.kind.fatal:
                raise self._failed(_say(sign))

    async def _watch_clock(self) -> None:
        """A node may stay in each state only so long; while it pulls its image its disk must be written to."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            limit = self._limit()
            if limit is not None and self._node.in_state_for > limit:
                raise self._failed(
                    f"it was '{self._node.state.value}' for {limit:.0f} s, waiting for {self._waiting_for()}"
                )
            if self._node.state is NodeState.PULLING:
                await self._look_at_disk()

    async def _look_at_disk(self) -> None:
        if self._machine.state is not MachineState.RUNNING:
            return
        now = self._run.diary.elapsed
        written = await self._machine.bytes_written()
        if written != self._written or self._written_at < self._node.since:
            self._written, self._written_at = written, now
        stalled = now - self._written_at
        if stalled > self._timeouts.node_stall * self._factor:
            raise self._failed(
                f"it stopped in the middle of pulling its image: no byte was written to its disk for {stalled:.0f} s "
                f"({written / 1e6:.0f} MB so far)"
            )

    def _limit(self) -> float | None:
        limits = {
            NodeState.POWERED_ON: self._timeouts.node_boot,
            NodeState.INSTALLER_BOOTED: self._timeouts.node_boot,
            NodeState.PULLING: self._timeouts.node_transfer,
            NodeState.IMAGED: self._timeouts.node_reboot,
            NodeState.REBOOTED: self._timeouts.node_up,
        }
        limit = limits.get(self._node.state)
        return None if limit is None else limit * self._factor

    def _waiting_for(self) -> str:
        return WAITING_FOR.get(self._node.state, "it to get on")

    def _failed(self, what: str) -> NodeFailed:
        first, lines = last_lines(self._machine.console)
        file = str(self._machine.console.relative_to(self._run.directory))
        where = "complete" if self._node.last_good_state is NodeState.UP else "barrier"
        return NodeFailed(
            f"{self._node.name} failed: {what}",
            oscar_stage=where,
            hint=f"its console ends with: {lines[-1]}" if lines else "its console is empty",
            evidence=((file, first, lines),) if lines else (),
        )


_SAY = {
    SignKind.PANIC: "its kernel panicked",
    SignKind.INSTALLATION_FAILED: "its installer gave up",
    SignKind.NO_BOOTABLE_DEVICE: "it found nothing to boot from",
    SignKind.NETWORK_BOOT_FAILED: "it could not boot from the network",
    SignKind.EMERGENCY_SHELL: "it is in an emergency shell",
}


def _say(sign: ConsoleSign) -> str:
    return f"{_SAY.get(sign.kind, str(sign.kind))}: {sign.text}"


def _first(group: BaseExceptionGroup[FarmError]) -> FarmError:
    """The first of the errors in a group, however deep."""
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    assert isinstance(error, FarmError)
    return error
