"""One state machine per compute node. Its sources: VM events, DHCP's log, the rsync log, the monitor, the console, SSH.

The states are ordered. A sign from any source moves the node forward, so no single source is needed. A sign that comes
late or twice changes nothing. An impossible transition raises an error. The first failure of a node is kept.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

from oscar_steps.errors import ImpossibleTransition

if TYPE_CHECKING:
    from oscar_steps.job import Timeouts
    from oscar_steps.testdriver.record.events import Diary


class NodeState(Enum):
    """Where a node is on its way; the value is what a person reads."""

    DEFINED = "defined"
    POWERED_ON = "powered on"
    ADDRESSED = "given its address"
    INSTALLER_BOOTED = "installer booted"
    PULLING = "pulling its image"
    FINISHING = "finishing its installation"
    IMAGED = "imaged"
    REBOOTED = "rebooted"
    ANSWERING = "answering by SSH"
    UP = "up"
    FAILED = "failed"

    @property
    def rank(self) -> int:
        """The place in the order of the states; `failed` comes last."""
        return list(NodeState).index(self)


# A node may skip forward (its first requests may be read after the later ones, a multicast transfer leaves no IMAGE
# request, its DHCP may not be in the log), but never past the end of its install boot, and the way back is only that of
# a node that installs itself a second time, which is an error of its own.
_INSTALLING = (
    NodeState.POWERED_ON,
    NodeState.ADDRESSED,
    NodeState.INSTALLER_BOOTED,
    NodeState.PULLING,
    NodeState.FINISHING,
    NodeState.IMAGED,
)
ALLOWED: dict[NodeState, tuple[NodeState, ...]] = {
    NodeState.DEFINED: (NodeState.POWERED_ON, NodeState.FAILED),
    **{
        state: (*_INSTALLING[place + 1 :], NodeState.REBOOTED, NodeState.FAILED)
        for place, state in enumerate(_INSTALLING)
    },
    NodeState.REBOOTED: (NodeState.ANSWERING, NodeState.UP, NodeState.FAILED),
    NodeState.ANSWERING: (NodeState.UP, NodeState.FAILED),
    NodeState.UP: (NodeState.FAILED,),
    NodeState.FAILED: (),
}

WAITING_FOR = {
    NodeState.POWERED_ON: "its installer to boot and to ask for an address by DHCP",
    NodeState.ADDRESSED: "its installer to ask the head node for its scripts",
    NodeState.INSTALLER_BOOTED: "it to ask for its image",
    NodeState.PULLING: "it to pull its image",
    NodeState.FINISHING: "its installer to make it bootable and to say that imaging is complete",
    NodeState.IMAGED: "its installer to end (reboot or power off)",
    NodeState.REBOOTED: "it to come up from its disk and answer by SSH",
    NodeState.ANSWERING: "it to let root in by SSH from the head node",
}

DOING = {
    NodeState.DEFINED: "off",
    NodeState.POWERED_ON: "starting its installer",
    NodeState.ADDRESSED: "starting its installer",
    NodeState.INSTALLER_BOOTED: "preparing its disk",
    NodeState.PULLING: "pulling its image",
    NodeState.FINISHING: "finishing its installation",
    NodeState.IMAGED: "ending its installer",
    NodeState.REBOOTED: "coming up from its disk",
    NodeState.ANSWERING: "coming up from its disk",
    NodeState.UP: "up",
}
"""What a node is busy with in each state, to follow 'while it was'."""


def limit_of(state: NodeState, timeouts: Timeouts) -> float | None:
    """How long a node may stay in `state`, in seconds on the reference host; None for ever."""
    limits = {
        NodeState.POWERED_ON: timeouts.node_boot,
        NodeState.ADDRESSED: timeouts.node_request,
        NodeState.INSTALLER_BOOTED: timeouts.node_request,
        NodeState.PULLING: timeouts.node_transfer,
        NodeState.FINISHING: timeouts.node_finish,
        NodeState.IMAGED: timeouts.node_reboot,
        NodeState.REBOOTED: timeouts.node_up,
        NodeState.ANSWERING: timeouts.node_login,
    }
    return limits.get(state)


def stuck(node: Node, timeouts: Timeouts, factor: float = 1.0) -> str | None:
    """What is wrong with a node that has stayed in its state beyond the limit; None within the limit."""
    limit = limit_of(node.state, timeouts)
    if limit is None or node.in_state_for <= limit * factor:
        return None
    return f"it was '{node.state.value}' for {limit * factor:.0f} s, waiting for {WAITING_FOR[node.state]}"


@dataclass
class DhcpRecord:
    """What DHCP's log says of a node: how often it asked, why it was refused, whether it was answered."""

    asked: int = 0
    refused: int = 0
    refusal: str = ""
    answered: bool = False


@dataclass(frozen=True)
class Trouble:
    """A whole sentence about something that is certain to go wrong, seen from outside of the node. `from_dhcp`: DHCP's
    log shows it."""

    sentence: str
    from_dhcp: bool = False


class Node:
    """A compute node's state, its history and the first thing that went wrong."""

    def __init__(self, name: str, address: str, clock: Callable[[], float]) -> None:
        self.name, self.address = name, address
        self.mac = ""
        self.dhcp = DhcpRecord()
        self.trouble: asyncio.Queue[Trouble] = asyncio.Queue()
        self._clock = clock
        self.state = NodeState.DEFINED
        self.since = clock()
        self.history: list[tuple[NodeState, float]] = [(self.state, self.since)]
        self.note = ""
        self.on_change: Callable[[Node], None] = lambda _node: None
        self.powered_on, self.answers, self.up = asyncio.Event(), asyncio.Event(), asyncio.Event()

    def reach(self, state: NodeState, note: str = "") -> bool:
        """Go to `state`. False where the node is there, or further, already (the sign came late).

        Raises ImpossibleTransition."""
        if self.state is NodeState.FAILED or state.rank <= self.state.rank:
            return False
        if state not in ALLOWED[self.state]:
            raise ImpossibleTransition(f"{self.name}: it cannot go from '{self.state.value}' to '{state.value}'")
        self.state, self.since, self.note = state, self._clock(), note
        self.history.append((state, self.since))
        if state in (NodeState.ANSWERING, NodeState.UP):
            self.answers.set()
        if state is NodeState.UP:
            self.up.set()
        self.powered_on.set()
        self.on_change(self)
        return True

    @property
    def is_installing(self) -> bool:
        """Whether it is in its install boot."""
        return self.state in _INSTALLING

    def installing(self, state: NodeState, note: str = "") -> bool:
        """A sign from outside that an installing node has come to `state`. Like `reach`, but a sign from before
        power-on, or from after the end of the install boot, changes nothing."""
        return self.is_installing and self.reach(state, note)

    def reached(self, state: NodeState) -> float | None:
        """When it came into `state` (seconds into the run), if it did."""
        return next((when for one, when in self.history if one is state), None)

    @property
    def now(self) -> float:
        """Seconds into the run."""
        return self._clock()

    @property
    def in_state_for(self) -> float:
        """Seconds since it came into its present state."""
        return self.now - self.since

    @property
    def last_good_state(self) -> NodeState:
        """The state it was in before it failed (or is in now)."""
        return next(state for state, _ in reversed(self.history) if state is not NodeState.FAILED)


class NodeBoard:
    """All compute nodes of a run."""

    def __init__(self, addresses: dict[str, str], clock: Callable[[], float]) -> None:
        self.nodes = {name: Node(name, address, clock) for name, address in addresses.items()}
        self._by_address = {node.address: node for node in self.nodes.values()}
        self._by_mac: dict[str, Node] = {}
        self.dhcp_log_seen = False

    def __iter__(self) -> Iterator[Node]:
        return iter(self.nodes.values())

    def learn_macs(self, macs: dict[str, str]) -> None:
        """Node name to the MAC of its network card, as the cluster defines it."""
        for name, mac in macs.items():
            self.nodes[name].mac = mac.lower()
            self._by_mac[mac.lower()] = self.nodes[name]

    def by_address(self, address: str) -> Node | None:
        return self._by_address.get(address)

    def by_mac(self, mac: str) -> Node | None:
        return self._by_mac.get(mac.lower())

    def summary(self) -> str:
        """'1 of 2 nodes up', and where the others are."""
        nodes = list(self.nodes.values())
        up = sum(node.state is NodeState.UP for node in nodes)
        rest = ", ".join(f"{node.name} {node.state.value}" for node in nodes if node.state is not NodeState.UP)
        return f"{up} of {len(nodes)} nodes up" + (f" ({rest})" if rest else "")


def write_changes(board: NodeBoard, diary: Diary) -> None:
    """Write the nodes and each change of them into the diary: a line for people, a summary for the Buildbot step."""

    def changed(node: Node) -> None:
        text = f"{node.name}: {node.state.value}" + (f" ({node.note})" if node.note else "")
        facts = {"node": node.name, "state": node.state.value, "note": node.note, "summary": board.summary()}
        diary.write("node", text, **facts)

    for node in board:
        diary.write("node", "", node=node.name, state=node.state.value)
        node.on_change = changed
