"""DHCP's log: who asked, who was given what, who was turned away."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oscar_steps.oscar.logs.dhcplog import DhcpKind, DhcpMessage, parse_line

MAC = "52:54:00:00:00:11"


@pytest.mark.parametrize("prefix", ["", "Jun 14 05:11:34 oscarhead dhcpd: ", "Jun 14 05:11:34 oscarhead dhcpd[2246]: "])
@pytest.mark.parametrize(
    ("line", "message"),
    [
        (f"DHCPDISCOVER from {MAC} via eth1", DhcpMessage(DhcpKind.DISCOVER, MAC)),
        (f"DHCPDISCOVER from {MAC} (oscarnode1) via eth1", DhcpMessage(DhcpKind.DISCOVER, MAC)),
        (
            f"DHCPDISCOVER from {MAC} via eth1: network 10.0.0.0/24: no free leases",
            DhcpMessage(DhcpKind.DISCOVER, MAC, refusal="network 10.0.0.0/24: no free leases"),
        ),
        (
            f"DHCPDISCOVER from {MAC} via eth1: unknown client",
            DhcpMessage(DhcpKind.DISCOVER, MAC, refusal="unknown client"),
        ),
        (f"DHCPOFFER on 10.0.0.2 to {MAC} via eth1", DhcpMessage(DhcpKind.OFFER, MAC, "10.0.0.2")),
        (
            f"DHCPREQUEST for 10.0.0.2 (10.0.0.1) from {MAC} via eth1",
            DhcpMessage(DhcpKind.REQUEST, MAC, "10.0.0.2"),
        ),
        (
            f"DHCPREQUEST for 10.0.0.9 from {MAC} via eth1: wrong network.",
            DhcpMessage(DhcpKind.REQUEST, MAC, "10.0.0.9", "wrong network."),
        ),
        (f"DHCPACK on 10.0.0.2 to {MAC.upper()} (oscarnode1) via eth1", DhcpMessage(DhcpKind.ACK, MAC, "10.0.0.2")),
        (f"DHCPNAK on 10.0.0.9 to {MAC} via eth1", DhcpMessage(DhcpKind.NAK, MAC, "10.0.0.9")),
    ],
)
def test_each_message_is_understood_wherever_the_system_logs(prefix: str, line: str, message: DhcpMessage) -> None:
    assert parse_line(prefix + line) == message


@pytest.mark.parametrize("prefix", ["", "Nov 30 02:11:34 oscarhead dnsmasq-dhcp[846]: ", "3675291 "])
@pytest.mark.parametrize(
    ("line", "message"),
    [
        (f"DHCPDISCOVER(eth1) {MAC} ", DhcpMessage(DhcpKind.DISCOVER, MAC)),
        (f"DHCPDISCOVER(eth1) 10.0.0.7 {MAC} ", DhcpMessage(DhcpKind.DISCOVER, MAC)),
        (
            f"DHCPDISCOVER(eth1) {MAC} no address available",
            DhcpMessage(DhcpKind.DISCOVER, MAC, refusal="no address available"),
        ),
        (f"DHCPDISCOVER(eth1) {MAC} ignored", DhcpMessage(DhcpKind.DISCOVER, MAC, refusal="ignored")),
        (f"DHCPOFFER(eth1) 10.0.0.2 {MAC} ", DhcpMessage(DhcpKind.OFFER, MAC, "10.0.0.2")),
        (f"DHCPREQUEST(eth1) 10.0.0.2 {MAC} ", DhcpMessage(DhcpKind.REQUEST, MAC, "10.0.0.2")),
        (f"DHCPACK(eth1) 10.0.0.2 {MAC.upper()} oscarnode1", DhcpMessage(DhcpKind.ACK, MAC, "10.0.0.2")),
        (f"DHCPNAK(eth1) 10.0.0.9 {MAC} wrong network", DhcpMessage(DhcpKind.NAK, MAC, "10.0.0.9", "wrong network")),
    ],
)
def test_each_message_of_dnsmasq_is_understood(prefix: str, line: str, message: DhcpMessage) -> None:
    assert parse_line(prefix + line) == message


@pytest.mark.parametrize(
    "line",
    [
        "",
        "Server starting service.",
        "Wrote 0 leases to leases file.",
        f"DHCPDISCOVER from {MAC}",
        f"DHCPDISCOVER from {MAC} vi",
        "DHCPOFFER on 10.0.0.2 to 52:54:00",
        f"DHCPOFFER(eth1) 10.0.0.2 {MAC[:8]}",
        f"DHCPINFORM(eth1) 10.0.0.2 {MAC}",
        f"sshd[264]: somebody wrote DHCPACK(eth1) 10.0.0.2 {MAC} oscarnode1",
        f"sshd[264]: somebody wrote DHCPACK on 10.0.0.2 to {MAC} via eth1",
    ],
)
def test_other_lines_and_torn_ones_tell_nothing(line: str) -> None:
    assert parse_line(line) is None


@given(st.text())
def test_no_text_breaks_the_parser(text: str) -> None:
    parse_line(text)
