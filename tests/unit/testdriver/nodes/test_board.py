"""The node state machine: forward only, the first failure stays, every source moves it and none is needed."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable

import pytest

from oscar_steps.errors import ImpossibleTransition
from oscar_steps.job import Timeouts
from oscar_steps.testdriver.nodes.board import ALLOWED, Node, NodeBoard, NodeState, limit_of, stuck
from oscar_steps.testdriver.nodes.head_logs import take_clients, take_dhcp_line, take_rsyncd_line

MACS = {"oscarnode1": "52:54:00:00:00:11", "oscarnode2": "52:54:00:00:00:12"}
ONE, TWO = MACS.values()


class Clock:
    """A clock that is put on by hand."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def make_node() -> Node:
    clock = itertools.count()
    return Node("oscarnode1", "10.0.0.2", lambda: float(next(clock)))


def request(path: str, ip: str = "10.0.0.2") -> str:
    return f"2026/01/02 03:04:05 [77] rsync on {path} from oscarnode1.oscardomain ({ip})"


@pytest.fixture
def board() -> NodeBoard:
    board = NodeBoard({"oscarnode1": "10.0.0.2", "oscarnode2": "10.0.0.3"}, lambda: 0.0)
    board.learn_macs(MACS)
    for node in board:
        node.reach(NodeState.POWERED_ON)
    return board


def monitor(status: int, mac: str = ONE, ip: str = "10.0.0.2") -> str:
    return f'<opt><client name="{mac.replace(":", ".")}" ip="{ip}" status="{status}"/></opt>'


def ack(mac: str = ONE, ip: str = "10.0.0.2") -> str:
    return f"DHCPACK on {ip} to {mac} via eth1"


def discover(mac: str = ONE, refusal: str = "") -> str:
    return f"DHCPDISCOVER from {mac} via eth1" + (f": {refusal}" if refusal else "")


def test_a_node_that_does_all_its_steps_is_up() -> None:
    node = make_node()
    for state in list(NodeState)[1:-1]:
        assert node.reach(state)
    assert node.state is NodeState.UP
    assert node.up.is_set()
    assert [state for state, _ in node.history] == list(NodeState)[:-1]


def test_late_news_change_nothing() -> None:
    node = make_node()
    node.reach(NodeState.POWERED_ON)
    node.reach(NodeState.IMAGED)
    assert not node.reach(NodeState.PULLING)
    assert node.state is NodeState.IMAGED


def test_there_is_no_way_from_defined_to_up() -> None:
    with pytest.raises(ImpossibleTransition, match="it cannot go from 'defined' to 'up'"):
        make_node().reach(NodeState.UP)


def test_a_failed_node_stays_failed_and_remembers_where_it_was() -> None:
    node = make_node()
    node.reach(NodeState.POWERED_ON)
    node.reach(NodeState.PULLING)
    node.reach(NodeState.FAILED, note="stopped")
    assert not node.reach(NodeState.UP)
    assert node.state is NodeState.FAILED
    assert node.last_good_state is NodeState.PULLING


def test_every_state_can_fail_and_none_leads_back() -> None:
    for state, targets in ALLOWED.items():
        assert all(target.rank > state.rank for target in targets)
        assert state is NodeState.FAILED or NodeState.FAILED in targets


def test_the_rsync_log_moves_the_node_that_asked(board: NodeBoard) -> None:
    for path, state in (
        ("boot/x86_64/standard/boel_binaries.tar.gz", NodeState.INSTALLER_BOOTED),
        ("scripts/", NodeState.INSTALLER_BOOTED),
        ("oscarimage", NodeState.INSTALLER_BOOTED),
        ("oscarimage/", NodeState.PULLING),
        ("overrides/oscarnode1/", NodeState.PULLING),
        ("scripts/imaging_complete", NodeState.IMAGED),
    ):
        take_rsyncd_line(request(path), board)
        assert board.nodes["oscarnode1"].state is state, path
    assert board.nodes["oscarnode2"].state is NodeState.POWERED_ON


def test_requests_of_strangers_and_torn_lines_change_nothing(board: NodeBoard) -> None:
    stranger = request("scripts/imaging_complete", ip="10.0.0.99")
    for line in (stranger, "2026/01/02 03:04:05 [77] rsync on scri", "", "x" * 500):
        take_rsyncd_line(line, board)
    assert all(node.state is NodeState.POWERED_ON for node in board)


def test_a_request_from_before_power_on_does_not_count() -> None:
    board = NodeBoard({"oscarnode1": "10.0.0.2"}, lambda: 0.0)
    take_rsyncd_line(request("scripts/imaging_complete"), board)
    assert board.nodes["oscarnode1"].state is NodeState.DEFINED


def test_the_summary_says_how_many_and_where_the_rest_is(board: NodeBoard) -> None:
    node = board.nodes["oscarnode2"]
    for state in (NodeState.PULLING, NodeState.IMAGED, NodeState.REBOOTED, NodeState.UP):
        node.reach(state)
    assert board.summary() == "1 of 2 nodes up (oscarnode1 powered on)"


# The ladder: what brings a node onto each rung, how long it may stay there, what it then waited for.

Push = Callable[[NodeBoard], object]
RUNGS: list[tuple[NodeState, Push, float, str]] = [
    (
        NodeState.POWERED_ON,
        lambda board: board.nodes["oscarnode1"].reach(NodeState.POWERED_ON),
        180,
        "its installer to boot and to ask for an address by DHCP",
    ),
    (
        NodeState.ADDRESSED,
        lambda board: take_dhcp_line(ack(), board),
        180,
        "its installer to ask the head node for its scripts",
    ),
    (
        NodeState.INSTALLER_BOOTED,
        lambda board: take_rsyncd_line(request("scripts/"), board),
        180,
        "it to ask for its image",
    ),
    (NodeState.PULLING, lambda board: take_rsyncd_line(request("oscarimage/"), board), 600, "it to pull its image"),
    (
        NodeState.FINISHING,
        lambda board: take_clients(monitor(101), board),
        180,
        "its installer to make it bootable and to say that imaging is complete",
    ),
    (
        NodeState.IMAGED,
        lambda board: take_rsyncd_line(request("scripts/imaging_complete"), board),
        60,
        "its installer to end (reboot or power off)",
    ),
    (
        NodeState.REBOOTED,
        lambda board: board.nodes["oscarnode1"].reach(NodeState.REBOOTED),
        180,
        "it to come up from its disk and answer by SSH",
    ),
    (
        NodeState.ANSWERING,
        lambda board: board.nodes["oscarnode1"].reach(NodeState.ANSWERING),
        90,
        "it to let root in by SSH from the head node",
    ),
]


@pytest.mark.parametrize("count", range(1, len(RUNGS) + 1), ids=[rung[0].name for rung in RUNGS])
def test_a_node_that_is_stuck_is_named_with_its_rung_and_what_it_waited_for(count: int) -> None:
    clock = Clock()
    board = NodeBoard({"oscarnode1": "10.0.0.2"}, clock)
    board.learn_macs({"oscarnode1": ONE})
    node = board.nodes["oscarnode1"]
    for state, push, _limit, _waited in RUNGS[:count]:
        clock.now += 1000  # what was spent on an earlier rung is not held against a later one
        push(board)
        assert node.state is state
    state, _push, limit, waited = RUNGS[count - 1]
    clock.now += limit
    assert stuck(node, Timeouts()) is None
    clock.now += 0.1
    assert stuck(node, Timeouts()) == f"it was '{state.value}' for {limit:.0f} s, waiting for {waited}"
    assert stuck(node, Timeouts(), factor=2) is None


def test_every_rung_has_a_limit_but_the_first_and_the_last() -> None:
    endless = {state for state in NodeState if limit_of(state, Timeouts()) is None}
    assert endless == {NodeState.DEFINED, NodeState.UP, NodeState.FAILED}


INSTALL_SIGNS: list[tuple[str, Push]] = [
    ("dhcp", lambda board: take_dhcp_line(ack(), board)),
    ("binaries", lambda board: take_rsyncd_line(request("boot/x86_64/standard/boel_binaries.tar.gz"), board)),
    ("scripts", lambda board: take_rsyncd_line(request("scripts/"), board)),
    ("monitor 0", lambda board: take_clients(monitor(0), board)),
    ("image", lambda board: take_rsyncd_line(request("oscarimage/"), board)),
    ("monitor 50", lambda board: take_clients(monitor(50), board)),
    ("monitor 100", lambda board: take_clients(monitor(100), board)),
    ("complete", lambda board: take_rsyncd_line(request("scripts/imaging_complete"), board)),
    ("monitor 104", lambda board: take_clients(monitor(104), board)),
]


@pytest.mark.parametrize("seed", range(40))
def test_signs_in_any_order_and_any_number_bring_the_node_as_far_as_the_furthest(seed: int, board: NodeBoard) -> None:
    chance = random.Random(seed)
    signs = chance.choices(INSTALL_SIGNS, k=20)
    node = board.nodes["oscarnode1"]
    ranks = [node.state.rank]
    for _name, push in signs:
        push(board)
        ranks.append(node.state.rank)
    assert ranks == sorted(ranks)
    done = {"complete", "monitor 104"} & {name for name, _push in signs}
    assert (node.state is NodeState.IMAGED) == bool(done)
    assert node.trouble.empty()
    assert board.nodes["oscarnode2"].state is NodeState.POWERED_ON


@pytest.mark.parametrize("missing", ["dhcp", "monitor", "both"])
def test_a_good_node_needs_neither_dhcps_log_nor_the_monitor(missing: str, board: NodeBoard) -> None:
    for name, push in INSTALL_SIGNS:
        if not name.startswith(("dhcp", "monitor") if missing == "both" else missing):
            push(board)
    node = board.nodes["oscarnode1"]
    for state in (NodeState.REBOOTED, NodeState.ANSWERING, NodeState.UP):
        assert node.reach(state)
    assert node.trouble.empty()


@pytest.mark.parametrize("state", [NodeState.REBOOTED, NodeState.ANSWERING, NodeState.UP, NodeState.FAILED])
def test_late_signs_of_the_installation_change_nothing_any_more(state: NodeState, board: NodeBoard) -> None:
    node = board.nodes["oscarnode1"]
    for step in (NodeState.IMAGED, NodeState.REBOOTED, state):
        node.reach(step)
    for _name, push in INSTALL_SIGNS:
        push(board)
    take_clients(monitor(-1), board)
    assert node.state is state
    assert node.trouble.empty()


def test_signs_from_before_power_on_change_nothing() -> None:
    board = NodeBoard({"oscarnode1": "10.0.0.2"}, lambda: 0.0)
    board.learn_macs({"oscarnode1": ONE})
    for _name, push in INSTALL_SIGNS:
        push(board)
    assert board.nodes["oscarnode1"].state is NodeState.DEFINED


def test_two_nodes_with_swapped_macs_are_found_with_the_first_address_that_is_given(board: NodeBoard) -> None:
    take_dhcp_line(discover(), board)
    take_dhcp_line(ack(ip="10.0.0.3"), board)
    trouble = board.nodes["oscarnode1"].trouble.get_nowait()
    assert trouble.sentence == (
        "oscarnode1 (52:54:00:00:00:11) was given oscarnode2's address 10.0.0.3 by DHCP; its own is 10.0.0.2"
    )
    assert trouble.from_dhcp
    assert board.nodes["oscarnode1"].state is NodeState.POWERED_ON
    assert board.nodes["oscarnode2"].trouble.empty()


def test_an_address_that_is_nobodys_is_trouble_as_well(board: NodeBoard) -> None:
    take_dhcp_line(ack(ip="10.0.0.77"), board)
    assert "was given the address 10.0.0.77 by DHCP" in board.nodes["oscarnode1"].trouble.get_nowait().sentence


def test_a_stranger_that_asks_for_an_address_is_no_node(board: NodeBoard) -> None:
    for line in (
        ack(mac="52:54:00:99:99:99"),
        discover("52:54:00:99:99:99", "no free leases"),
        "Server starting service.",
    ):
        take_dhcp_line(line, board)
    assert all(node.state is NodeState.POWERED_ON and node.trouble.empty() for node in board)


def test_a_node_that_is_turned_away_three_times_gets_no_address_any_more(board: NodeBoard) -> None:
    node = board.nodes["oscarnode1"]
    for _ in range(2):
        take_dhcp_line(discover(refusal="network 10.0.0.0/24: no free leases"), board)
    assert node.trouble.empty()
    take_dhcp_line(discover(refusal="network 10.0.0.0/24: no free leases"), board)
    assert node.trouble.get_nowait().sentence == (
        "oscarnode1 failed: no answer from DHCP: the head node's server refused 52:54:00:00:00:11 3 times: "
        "network 10.0.0.0/24: no free leases"
    )


def test_a_node_that_was_answered_once_may_be_turned_away_later(board: NodeBoard) -> None:
    take_dhcp_line("DHCPOFFER on 10.0.0.2 to 52:54:00:00:00:11 via eth1", board)
    for _ in range(5):
        take_dhcp_line(discover(refusal="lease in transition state expired"), board)
    assert board.nodes["oscarnode1"].trouble.empty()


def test_an_installer_that_tells_the_monitor_of_its_failure_has_failed(board: NodeBoard) -> None:
    take_clients(monitor(-1, mac=TWO, ip="10.0.0.3"), board)
    trouble = board.nodes["oscarnode2"].trouble.get_nowait()
    assert trouble.sentence == "oscarnode2 failed: its installer reported its failure to the monitor"


def test_a_banner_opens_the_barrier_and_only_a_login_is_up(board: NodeBoard) -> None:
    node = board.nodes["oscarnode1"]
    for state in (NodeState.IMAGED, NodeState.REBOOTED, NodeState.ANSWERING):
        node.reach(state)
    assert (node.answers.is_set(), node.up.is_set()) == (True, False)
    assert "oscarnode1 answering by SSH" in board.summary()
    node.reach(NodeState.UP)
    assert node.up.is_set()
    assert node.reached(NodeState.ANSWERING) == 0.0
    assert node.reached(NodeState.PULLING) is None
