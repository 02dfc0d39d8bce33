"""One state machine per compute node, fed from three sources: VM events, the head node's rsyncd log, SSH.

A state is an enum, a transition is explicit, and an impossible one says so. The first failure of a node is kept; what
comes after it is noted and changes nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from enum import Enum

from oscar_steps.errors import FarmError
from oscar_steps.verdict import NodeReport


class NodeState(Enum):
    """Where a node is on its way; the value is what a person reads."""

    DEFINED = "defined"
    POWERED_ON = "powered on"
    INSTALLER_BOOTED = "installer booted"
    PULLING = "pulling its image"
    IMAGED = "imaged"
    REBOOTED = "rebooted"
    UP = "up"
    FAILED = "failed"

    @property
    def rank(self) -> int:
        """How far along; `failed` is beyond everything."""
        return list(NodeState).index(self)


# A node may skip forward (its first requests may be read after the later ones, a multicast transfer leaves no IMAGE
# request), but the way back is only that of a node that installs itself a second time, and that is an error of its own.
_FORWARD_FROM_POWER = (NodeState.INSTALLER_BOOTED, NodeState.PULLING, NodeState.IMAGED, NodeState.REBOOTED)
ALLOWED: dict[NodeState, tuple[NodeState, ...]] = {
    NodeState.DEFINED: (NodeState.POWERED_ON, NodeState.FAILED),
    NodeState.POWERED_ON: (*_FORWARD_FROM_POWER, NodeState.FAILED),
    NodeState.INSTALLER_BOOTED: (*_FORWARD_FROM_POWER[1:], NodeState.FAILED),
    NodeState.PULLING: (*_FORWARD_FROM_POWER[2:], NodeState.FAILED),
    NodeState.IMAGED: (NodeState.REBOOTED, NodeState.FAILED),
    NodeState.REBOOTED: (NodeState.UP, NodeState.FAILED),
    NodeState.UP: (NodeState.FAILED,),
    NodeState.FAILED: (),
}

WAITING_FOR = {
    NodeState.POWERED_ON: "its installer to boot and ask the head node for its scripts",
    NodeState.INSTALLER_BOOTED: "it to ask for its image",
    NodeState.PULLING: "it to pull its image",
    NodeState.IMAGED: "its installer to end (reboot or power off)",
    NodeState.REBOOTED: "it to come up from its disk and answer by SSH",
}


class ImpossibleTransition(FarmError):
    """A bug of ours or a very strange node: there is no way from the one state to the other."""


class Node:
    """A compute node's state, its history and the first thing that went wrong."""

    def __init__(self, name: str, address: str, clock: Callable[[], float]) -> None:
        self.name, self.address = name, address
        self._clock = clock
        self.state = NodeState.DEFINED
        self.since = clock()
        self.history: list[tuple[NodeState, float]] = [(self.state, self.since)]
        self.note = ""
        self.on_change: Callable[[Node], None] = lambda _node: None
        self.powered_on, self.up = asyncio.Event(), asyncio.Event()

    def reach(self, state: NodeState, note: str = "") -> bool:
        """Go to `state`. False where the node is there, or further, already (late news).

        Raises ImpossibleTransition."""
        if self.state is NodeState.FAILED or state.rank <= self.state.rank:
            return False
        if state not in ALLOWED[self.state]:
            raise ImpossibleTransition(f"{self.name}: no way from '{self.state.value}' to '{state.value}'")
        self.state, self.since, self.note = state, self._clock(), note
        self.history.append((state, self.since))
        if state is NodeState.UP:
            self.up.set()
        self.powered_on.set()
        self.on_change(self)
        return True

    @property
    def in_state_for(self) -> float:
        """Seconds since it came into its present state."""
        return self._clock() - self.since

    @property
    def last_good_state(self) -> NodeState:
        """The state it was in before it failed (or is in now)."""
        return next(state for state, _ in reversed(self.history) if state is not NodeState.FAILED)

    def report(self) -> NodeReport:
        history = tuple((state.value, round(when, 3)) for state, when in self.history)
        return NodeReport(
            name=self.name, state=self.state.value, since=round(self.since, 3), history=history, note=self.note
        )


class NodeBoard:
    """All compute nodes of a run."""

    def __init__(self, addresses: dict[str, str], clock: Callable[[], float]) -> None:
        self.nodes = {name: Node(name, address, clock) for name, address in addresses.items()}
        self._by_address = {node.address: node for node in self.nodes.values()}

    def __iter__(self) -> Iterator[Node]:
        return iter(self.nodes.values())

    def on_change(self, listener: Callable[[Node], None]) -> None:
        """Let `listener` hear of every change of a state."""
        for node in self:
            node.on_change = listener

    def by_address(self, address: str) -> Node | None:
        return self._by_address.get(address)

    @property
    def all_up(self) -> bool:
        return all(node.state is NodeState.UP for node in self.nodes.values())

    def summary(self) -> str:
        """'1 of 2 nodes up', and where the others are."""
        nodes = list(self.nodes.values())
        up = sum(node.state is NodeState.UP for node in nodes)
        rest = ", ".join(f"{node.name} {node.state.value}" for node in nodes if node.state is not NodeState.UP)
        return f"{up} of {len(nodes)} nodes up" + (f" ({rest})" if rest else "")

    def reports(self) -> tuple[NodeReport, ...]:
        return tuple(node.report() for node in self.nodes.values())
