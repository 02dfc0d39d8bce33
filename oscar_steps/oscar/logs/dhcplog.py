"""The log of a DHCP server, ISC's or dnsmasq (which distributions without ISC's have): who asked, who got which
address, and who was turned away.

The server writes to the system's log, wherever that is: `FOLLOW_COMMAND` finds it. Nodes have fixed addresses, which
never get into `dhcpd.leases`; so the log is the only witness.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum

# A systemd journal without a word of the server is followed, too. Older systems write /var/log/messages or syslog.
FOLLOW_COMMAND = (
    "if command -v journalctl >/dev/null && journalctl -n 1 >/dev/null 2>&1; then "
    "exec journalctl --boot --follow --lines=all --output=cat SYSLOG_IDENTIFIER=dhcpd SYSLOG_IDENTIFIER=dnsmasq-dhcp; "
    "else exec tail -n +1 -F /var/log/messages /var/log/syslog; fi 2>/dev/null"
)
"""Shell line for the head node: prints what DHCP's server has written since the head node started, and goes on."""


class DhcpKind(StrEnum):
    """What a line tells; the values are the protocol's own words."""

    DISCOVER = "DHCPDISCOVER"
    OFFER = "DHCPOFFER"
    REQUEST = "DHCPREQUEST"
    ACK = "DHCPACK"
    NAK = "DHCPNAK"


@dataclass(frozen=True, slots=True)
class DhcpMessage:
    """One message. `mac` in lower case; `address` '' for a DISCOVER; `refusal`: why the server leaves it unanswered."""

    kind: DhcpKind
    mac: str
    address: str = ""
    refusal: str = ""


_KINDS = frozenset(DhcpKind)
_MAC = r"(?P<mac>[0-9a-fA-F]{1,2}(?::[0-9a-fA-F]{1,2}){5})"
_ADDRESS = r"(?P<address>\d{1,3}(?:\.\d{1,3}){3})"
_BEHIND = r"(?: \([^)]*\))? via (?P<interface>[^\s:]+)(?:: (?P<refusal>\S.*))?"
_LINE = re.compile(
    rf"(?:^|dhcpd(?:\[\d+\])?: )(?:(?P<asked>DHCPDISCOVER|DHCPREQUEST)(?: for {_ADDRESS}(?: \([^)]*\))?)? from {_MAC}"
    rf"|(?P<said>DHCPOFFER|DHCPACK|DHCPNAK) on {_ADDRESS.replace('address', 'given')} to {_MAC.replace('mac', 'to')})"
    rf"{_BEHIND}\s*$"
)
# dnsmasq's log-dhcp puts the transaction's number first. What follows the MAC is a reason, or the name that was given.
_DNSMASQ_LINE = re.compile(
    r"(?:^|dnsmasq-dhcp(?:\[\d+\])?: )(?:\d+ )?(?P<kind>DHCP[A-Z]+)\([^\s()]+\)"
    rf"(?: {_ADDRESS})? {_MAC}(?: (?P<rest>[^\r\n]*))?\s*$"
)


def parse_line(line: str) -> DhcpMessage | None:
    """The message that a line tells of. None for every other line, and for torn ones."""
    if match := _LINE.search(line):
        kind = DhcpKind(match["asked"] or match["said"])
        return DhcpMessage(
            kind, _mac(match["mac"] or match["to"]), match["address"] or match["given"] or "", match["refusal"] or ""
        )
    if (match := _DNSMASQ_LINE.search(line)) and match["kind"] in _KINDS:
        kind = DhcpKind(match["kind"])
        # A DISCOVER may name the address that the node would like.
        address = "" if kind is DhcpKind.DISCOVER else match["address"] or ""
        refusal = "" if kind in (DhcpKind.OFFER, DhcpKind.ACK) else (match["rest"] or "").strip()
        return DhcpMessage(kind, _mac(match["mac"]), address, refusal)
    return None


def _mac(text: str) -> str:
    return ":".join(f"{int(part, 16):02x}" for part in text.split(":"))
