"""The monitor's file of nodes, in every shape that it has."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oscar_steps.oscar.logs.monitor import MonitorClient, MonitorPhase, parse_clients

NODE = MonitorClient("52:54:00:00:00:1a", "10.0.0.2", 42)


@pytest.mark.parametrize(
    "text",
    [
        '<opt><client name="52.54.00.00.00.1A" ip="10.0.0.2" status="42" speed="900" /></opt>',
        '<clients><client mac="52:54:00:00:00:1A" ip="10.0.0.2" status="42"/></clients>',
        "<clients><client><mac>52.54.00.00.00.1a</mac><ip>10.0.0.2</ip><status>42</status></client></clients>",
        '<opt><client name="oscarnode1" mac="52.54.00.00.00.1a" ip="10.0.0.2" status=" 42 "/></opt>',
        '<?xml version="1.0"?>\n<!-- si_monitor -->\n<opt>\n<_52.54.00.00.00.1A ip="10.0.0.2" status="42"/>\n</opt>',
    ],
)
def test_a_node_is_found_however_its_items_are_written(text: str) -> None:
    assert parse_clients(text) == (NODE,)


def test_all_nodes_of_a_file_are_told_in_its_order() -> None:
    rows = "".join(f'<client name="52.54.00.00.00.{n:02x}" status="{n}"/>' for n in range(1, 129))
    clients = parse_clients(f"<opt>{rows}</opt>")
    assert [client.status for client in clients] == list(range(1, 129))
    assert all(client.address == "" for client in clients)


@pytest.mark.parametrize(
    ("status", "phase"),
    [
        (-1, MonitorPhase.FAILED),
        (0, MonitorPhase.STARTING),
        (1, MonitorPhase.PULLING),
        (99, MonitorPhase.PULLING),
        (100, MonitorPhase.FINISHING),
        (101, MonitorPhase.FINISHING),
        (102, MonitorPhase.REBOOTED),
        (103, None),
        (104, MonitorPhase.LEAVING),
        (105, MonitorPhase.LEAVING),
        (106, None),
    ],
)
def test_the_number_says_where_the_node_is(status: int, phase: MonitorPhase | None) -> None:
    assert MonitorClient("52:54:00:00:00:1a", "", status).phase is phase


@pytest.mark.parametrize(
    "text",
    [
        "",
        "<opt><client name='52.54.00.00.00.1a' status='4",
        "<opt><client name='oscarnode1' status='42'/></opt>",
        "<opt><client name='52.54.00.00.00.1a' status='soon'/></opt>",
        "<opt><client name='52.54.00.00.00.1a'/></opt>",
        "<!DOCTYPE a [<!ENTITY b 'c'>]><opt><client name='52.54.00.00.00.1a' status='42'/></opt>",
    ],
)
def test_half_a_file_and_what_is_no_node_tell_nothing(text: str) -> None:
    assert parse_clients(text) == ()


@given(st.text())
def test_no_text_breaks_the_parser(text: str) -> None:
    parse_clients(text)
