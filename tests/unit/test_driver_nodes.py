"""The node state machine: forward only, the first failure stays, the rsync log moves it."""

from __future__ import annotations

import itertools

import pytest

from oscar_steps.testdriver.nodes import ALLOWED, ImpossibleTransition, Node, NodeBoard, NodeState
from oscar_steps.testdriver.nodewatch import take_rsyncd_line


def make_node() -> Node:
    clock = itertools.count()
    return Node("oscarnode1", "10.0.0.2", lambda: float(next(clock)))


def request(path: str, ip: str = "10.0.0.2") -> str:
    return f"2026/01/02 03:04:05 [77] rsync on {path} from oscarnode1.oscardomain ({ip})"


@pytest.fixture
def board() -> NodeBoard:
    board = NodeBoard({"oscarnode1": "10.0.0.2", "oscarnode2": "10.0.0.3"}, lambda: 0.0)
    for node in board:
        node.reach(NodeState.POWERED_ON)
    return board


def test_a_node_that_does_all_its_steps_is_up() -> None:
    node = make_node()
    for state in list(NodeState)[1:-1]:
        assert node.reach(state)
    assert node.state is NodeState.UP
    assert node.up.is_set()
    assert [state for state, _ in node.report().history] == [state.value for state in list(NodeState)[:-1]]


def test_late_news_change_nothing() -> None:
    node = make_node()
    node.reach(NodeState.POWERED_ON)
    node.reach(NodeState.IMAGED)
    assert not node.reach(NodeState.PULLING)
    assert node.state is NodeState.IMAGED


def test_there_is_no_way_from_defined_to_up() -> None:
    with pytest.raises(ImpossibleTransition, match="no way from 'defined' to 'up'"):
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
    assert not board.all_up
