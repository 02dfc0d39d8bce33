"""What the head node's logs say of the compute nodes, for their state machines.

Each source takes one channel to the head node, however many nodes there are. The run needs none of them: an OSCAR that
logs elsewhere shows less, and no more than that.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from oscar_steps.errors import FarmError
from oscar_steps.oscar.logs import dhcplog, monitor, rsyncdlog
from oscar_steps.oscar.logs.dhcplog import DhcpKind
from oscar_steps.oscar.logs.monitor import MonitorPhase
from oscar_steps.oscar.logs.rsyncdlog import RequestKind
from oscar_steps.testdriver.lines import LineSplitter
from oscar_steps.testdriver.nodes.board import Node, NodeBoard, NodeState, Trouble

if TYPE_CHECKING:
    from oscar_steps.testdriver.head.headnode import HeadNode

DHCP_FILE = "nodes/dhcp.log"
"""What DHCP's server wrote during the run, in the run directory."""

# One DISCOVER may be refused while the server looks up from something else; three are its configuration.
REFUSALS = 3

_ASKED_FOR = {
    RequestKind.BINARIES: NodeState.INSTALLER_BOOTED,
    RequestKind.SCRIPTS: NodeState.INSTALLER_BOOTED,
    RequestKind.IMAGE: NodeState.PULLING,
    RequestKind.COMPLETE: NodeState.IMAGED,
}
# 102 ('rebooted') is not among them: our own eyes, on the VM and its SSH, are nearer.
_REPORTED = {
    MonitorPhase.STARTING: NodeState.INSTALLER_BOOTED,
    MonitorPhase.PULLING: NodeState.PULLING,
    MonitorPhase.FINISHING: NodeState.FINISHING,
    MonitorPhase.LEAVING: NodeState.IMAGED,
}


async def follow_rsyncd_log(head: HeadNode, board: NodeBoard, alarm: Callable[[FarmError], None]) -> None:
    """Read the head node's rsync log live: what the nodes ask for is where they are."""
    splitter = LineSplitter()
    try:
        while True:
            async for chunk in head.follow(rsyncdlog.RSYNCD_LOG, from_byte=splitter.total):
                for line in splitter.feed(chunk):
                    take_rsyncd_line(line, board)
            await head.reconnect()
    except FarmError as error:
        alarm(error)


async def follow_dhcp_log(
    head: HeadNode, board: NodeBoard, alarm: Callable[[FarmError], None], run_directory: Path
) -> None:
    """Read what DHCP's server writes, and keep it in the run directory. After a reconnection it comes once more from
    its beginning: that changes no state."""
    capture = run_directory / DHCP_FILE
    capture.parent.mkdir(exist_ok=True)
    try:
        while True:
            with capture.open("wb", buffering=0) as file:
                splitter = LineSplitter(keep=file.write)
                for node in board:
                    node.dhcp.asked = node.dhcp.refused = 0
                async with head.stream(dhcplog.FOLLOW_COMMAND) as stream:
                    async for chunk in stream:
                        for line in splitter.feed(chunk):
                            take_dhcp_line(line, board)
            await head.reconnect()
    except FarmError as error:
        alarm(error)


def take_rsyncd_line(line: str, board: NodeBoard) -> None:
    """One line of the rsync log: lets the node that asked reach the state that its request means."""
    request = rsyncdlog.parse_line(line)
    if not isinstance(request, rsyncdlog.Request) or request.kind not in _ASKED_FOR:
        return
    node = board.by_address(request.ip)
    if node is not None:
        node.installing(_ASKED_FOR[request.kind], note=request.path)


def take_dhcp_line(line: str, board: NodeBoard) -> None:
    """One line of DHCP's log: an address that was given, or was refused, or is another node's."""
    board.dhcp_log_seen = True
    message = dhcplog.parse_line(line)
    node = board.by_mac(message.mac) if message else None
    if message is None or node is None or node.state is NodeState.DEFINED:
        return
    record = node.dhcp
    if message.kind is DhcpKind.DISCOVER:
        record.asked += 1
    if message.kind in (DhcpKind.OFFER, DhcpKind.ACK):
        record.answered = True
    if message.refusal:
        record.refused, record.refusal = record.refused + 1, message.refusal
    if message.kind is DhcpKind.ACK:
        _given(node, message.address, board)
    if record.refused == REFUSALS and not record.answered:
        what = f"no answer from DHCP: the head node's server refused {node.mac} {REFUSALS} times: {record.refusal}"
        node.trouble.put_nowait(Trouble(f"{node.name} failed: {what}", from_dhcp=True))


def _given(node: Node, address: str, board: NodeBoard) -> None:
    """`node` was given `address`: its own, or (two MACs swapped, say) one that it must not have."""
    if address == node.address:
        node.installing(NodeState.ADDRESSED, note=address)
        return
    other = board.by_address(address)
    whose = f"{other.name}'s address" if other else "the address"
    sentence = f"{node.name} ({node.mac}) was given {whose} {address} by DHCP; its own is {node.address}"
    node.trouble.put_nowait(Trouble(sentence, from_dhcp=True))


def take_clients(text: str, board: NodeBoard) -> None:
    """The monitor's file: where each node says that it is."""
    for client in monitor.parse_clients(text):
        node = board.by_mac(client.mac) or board.by_address(client.address)
        if node is None:
            continue
        if client.phase is MonitorPhase.FAILED and node.is_installing:
            node.trouble.put_nowait(Trouble(f"{node.name} failed: its installer reported its failure to the monitor"))
        elif client.phase in _REPORTED:
            node.installing(_REPORTED[client.phase], note=f"monitor: {client.text}")
