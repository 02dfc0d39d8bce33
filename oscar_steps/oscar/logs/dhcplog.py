"""The log of ISC's DHCP server: who asked, who got which address, and who was turned away.

The server writes to the system's log, wherever that is: `FOLLOW_COMMAND` finds it. Nodes have fixed addresses, which
never get into `dhcpd.leases`; so the log is the only witness.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum

# A systemd journal that holds nothing of dhcpd yet is followed, too. Older systems write /var/log/messages or syslog.
FOLLOW_COMMAND = (
    "if command -v journalctl >/dev/null && journalctl -n 1 >/dev/null 2>&1; then "
    "exec journalctl --boot --follow --lines=all --output=cat SYSLOG_IDENTIFIER=dhcpd; "
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


_MAC = r"(?P<mac>[0-9a-fA-F]{1,2}(?::[0-9a-fA-F]{1,2}){5})"
_ADDRESS = r"(?P<address>\d{1,3}(?:\.\d{1,3}){3})"
_BEHIND = r"(?: \([^)]*\))? via (?P<interface>[^\s:]+)(?:: (?P<refusal>\S.*))?"
_LINE = re.compile(
    rf"(?:^|dhcpd(?:\[\d+\])?: )(?:(?P<asked>DHCPDISCOVER|DHCPREQUEST)(?: for {_ADDRESS}(?: \([^)]*\))?)? from {_MAC}"
    rf"|(?P<said>DHCPOFFER|DHCPACK|DHCPNAK) on {_ADDRESS.replace('address', 'given')} to {_MAC.replace('mac', 'to')})"
    rf"{_BEHIND}\s*$"
)


def parse_line(line: str) -> DhcpMessage | None:
    """The message that a line tells of. None for every other line, and for torn ones."""
    match = _LINE.search(line)
    if match is None:
        return None
    kind = DhcpKind(match["asked"] or match["said"])
    mac = ":".join(f"{int(part, 16):02x}" for part in (match["mac"] or match["to"]).split(":"))
    return DhcpMessage(kind, mac, match["address"] or match["given"] or "", match["refusal"] or "")
