"""Follows one compute node from power-on to root's login, and names what it waited for when it fails.

A reboot or power-off ends the VM of the install boot. The disk's fingerprint then shows whether the node was installed.
After that the VM is started from its disk alone, so a node cannot install itself for ever.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from oscar_steps.errors import Evidence, FarmError, HostError, NodeFailed
from oscar_steps.oscar.logs.nodeconsole import Cause, ConsoleReader, ConsoleSign, SignKind, last_panic
from oscar_steps.oscar.logs.rsyncdlog import RSYNCD_LOG
from oscar_steps.testdriver.head.console import follow_console, last_lines
from oscar_steps.testdriver.nodes.board import DOING, Node, NodeBoard, NodeState, stuck
from oscar_steps.testdriver.nodes.head_logs import DHCP_FILE, take_rsyncd_line
from oscar_steps.v3m.boot import InstallMedia
from oscar_steps.v3m.machine import Ended, EndReason, MachineState
from oscar_steps.v3m.profiles.vm import BootDevice

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from oscar_steps.job import Timeouts
    from oscar_steps.testdriver.deadline import HostSpeed
    from oscar_steps.testdriver.head.check import HeadCheck, HeadFacts
    from oscar_steps.testdriver.head.headnode import HeadNode
    from oscar_steps.testdriver.nodes.ssh_probe import SshProbe
    from oscar_steps.v3m.machine import DiskFingerprint, Machine

LOOK_SECONDS = 1.0
PANIC_LINES = 100

# A node that is up has been installed: what would have stopped its installer need not stop it.
_FATAL_WHEN_UP = (SignKind.PANIC, SignKind.OOPS)


class NodeWatch:
    """Watches one node. `watch` lasts as long as the run, and raises failures as the run's alarm."""

    def __init__(
        self, machine: Machine, board: NodeBoard, head: HeadNode, check: HeadCheck, probe: SshProbe, *,
        timeouts: Timeouts, speed: HostSpeed, directory: Path, cd: Path | None, alarm: Callable[[FarmError], None],
    ) -> None:  # fmt: skip
        """`directory`: the run's; `cd`: what the node boots from, None for the network."""
        self._machine, self._board, self._head = machine, board, head
        self._check, self._probe = check, probe
        self._directory, self._cd, self._alarm = directory, cd, alarm
        self._node: Node = board.nodes[machine.name]
        self._timeouts = timeouts
        self._factor = speed.factor
        self._written, self._written_at = 0, 0.0
        self._cause = Cause.OTHER

    async def watch(self) -> None:
        """Power on, install, boot from disk, answer by SSH, let root in, stay up."""
        try:
            async with asyncio.TaskGroup() as group:
                for work in (self._watch_console(), self._watch_clock(), self._watch_trouble()):
                    group.create_task(work)
                await self._install()
                await self._come_up()
        except* FarmError as group_error:
            first = _first(group_error)
            if isinstance(first, NodeFailed):
                first = explained(first, self._node, self._board, self._cause, await self._check.look())
                self._node.reach(NodeState.FAILED, note=first.sentence.partition(": ")[2] or first.sentence)
            self._alarm(first)

    async def _install(self) -> None:
        before = await self._machine.fingerprint()
        medium = BootDevice.NETWORK if self._cd is None else BootDevice.CDROM
        await self._machine.boot(install=medium, media=InstallMedia(self._cd))
        self._node.reach(NodeState.POWERED_ON)
        ended = await self._machine.wait_ended()
        self._check_end(ended)
        if self._node.state is not NodeState.IMAGED:
            await self._read_log_again()
        after = await self._machine.fingerprint()
        self._check_installed(before, after)
        self._node.reach(NodeState.REBOOTED, note=str(ended.reason))

    def _check_end(self, ended: Ended) -> None:
        """Raise where the guest itself did not end the boot."""
        if ended.reason is EndReason.GUEST_PANIC:
            # The kernel wrote its last words before the hypervisor knew of it.
            words = last_panic(last_lines(self._machine.console, PANIC_LINES)[1])
            raise self._failed(f"its kernel panicked {self._while}" + (f": {words}" if words else ""))
        if not ended.by_guest:
            raise HostError(f"the VM of {self._node.name} ended unexpectedly: {ended.reason} {ended.detail}".strip())

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
        await self._probe.ask(self._node)
        ended = await self._machine.wait_ended()
        self._check_end(ended)
        if self._node.state is NodeState.UP:
            raise self._failed(f"it was up, and then its VM ended ({ended.reason})")
        raise self._failed(f"it was started from its disk and ended ({ended.reason}) instead of coming up")

    async def _watch_console(self) -> None:
        reader = ConsoleReader()
        async for line in follow_console(self._machine.console):
            sign = reader.feed(line)
            if sign and (sign.kind in _FATAL_WHEN_UP if self._node.state is NodeState.UP else sign.kind.fatal):
                self._cause = sign.cause
                raise self._failed(self._say(sign))

    async def _watch_trouble(self) -> None:
        """What others have seen of this node, and what is certain to go wrong."""
        trouble = await self._node.trouble.get()
        file = self._directory / DHCP_FILE if trouble.from_dhcp else self._machine.console
        raise self._finding(trouble.sentence, file)

    async def _watch_clock(self) -> None:
        """Raise where the node stays in its state beyond the limit, or writes nothing while it pulls its image."""
        while self._node.state is not NodeState.UP:
            await asyncio.sleep(LOOK_SECONDS)
            if what := stuck(self._node, self._timeouts, self._factor):
                raise self._failed(what)
            if self._node.state is NodeState.PULLING:
                await self._look_at_disk()

    async def _look_at_disk(self) -> None:
        if self._machine.state is not MachineState.RUNNING:
            return
        now = self._node.now
        written = await self._machine.bytes_written()
        if written != self._written or self._written_at < self._node.since:
            self._written, self._written_at = written, now
        stalled = now - self._written_at
        if stalled > self._timeouts.node_stall * self._factor:
            raise self._failed(
                f"it stopped in the middle of pulling its image: no byte was written to its disk for {stalled:.0f} s "
                f"({written / 1e6:.0f} MB so far)"
            )

    @property
    def _while(self) -> str:
        return f"while it was {DOING[self._node.last_good_state]}"

    def _say(self, sign: ConsoleSign) -> str:
        what = _SAY[sign.kind]
        if sign.kind in _FATAL_WHEN_UP:
            what += f" {self._while}"
        return f"{what}: {sign.reason or sign.text}"

    def _failed(self, what: str) -> NodeFailed:
        return self._finding(f"{self._node.name} failed: {what}", self._machine.console)

    def _finding(self, sentence: str, file: Path) -> NodeFailed:
        first, lines = last_lines(file)
        console = last_lines(self._machine.console, 1)[1]
        return NodeFailed(
            sentence,
            oscar_stage="complete" if self._node.last_good_state is NodeState.UP else "barrier",
            hint=f"its console ends with: {console[-1]}" if console else "its console is empty",
            evidence=(Evidence(str(file.relative_to(self._directory)), first, lines),) if lines else (),
        )


_SAY = {
    SignKind.PANIC: "its kernel panicked",
    SignKind.OOPS: "its kernel oopsed",
    SignKind.INSTALLATION_FAILED: "its installer gave up",
    SignKind.NO_BOOTABLE_DEVICE: "it found nothing to boot from",
    SignKind.NO_KERNEL: "it found no kernel to boot",
    SignKind.NETWORK_BOOT_FAILED: "it could not boot from the network",
    SignKind.EMERGENCY_SHELL: "it is in an emergency shell",
}


def explained(error: NodeFailed, node: Node, board: NodeBoard, cause: Cause, facts: HeadFacts | None) -> NodeFailed:
    """`error` with what the head node has to do with it: its full disk, a server that is not there, DHCP's silence."""
    state = node.last_good_state
    clauses = [facts.disk_clause if facts else ""]
    if cause is Cause.RSYNC_REFUSED or state in (NodeState.ADDRESSED, NodeState.INSTALLER_BOOTED, NodeState.PULLING):
        if facts and not facts.rsync_daemon:
            clauses.append("no rsync daemon runs on the head node")
        elif cause is Cause.RSYNC_REFUSED:
            clauses.append("the rsync daemon on the head node does not answer")
    if (cause is Cause.NO_DHCP or state is NodeState.POWERED_ON) and "no answer from DHCP" not in error.sentence:
        clauses.append(dhcp_clause(node, board, facts))
    said = "; ".join([error.sentence, *(clause for clause in clauses if clause and clause not in error.sentence)])
    return NodeFailed(said, hint=error.hint, oscar_stage=error.oscar_stage, evidence=error.evidence)


def dhcp_clause(node: Node, board: NodeBoard, facts: HeadFacts | None) -> str:
    """Why the node has no address, as far as can be known; '' where it has one or nothing is known."""
    record = node.dhcp
    if record.answered:
        return ""
    if record.refusal:
        return f"no answer from DHCP: the head node's server refused {node.mac}: {record.refusal}"
    if record.asked:
        requests = "a request" if record.asked == 1 else f"{record.asked} requests"
        return f"no answer from DHCP: the head node's server received {requests} from {node.mac} and did not answer"
    if facts and not facts.dhcp_server:
        return "no answer from DHCP: no DHCP server runs on the head node"
    if facts and board.dhcp_log_seen:
        return f"the head node's DHCP server runs and has received no request from {node.mac}"
    return ""


def _first(group: BaseExceptionGroup[FarmError]) -> FarmError:
    """The first of the errors in a group, however deep."""
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    assert isinstance(error, FarmError)
    return error
