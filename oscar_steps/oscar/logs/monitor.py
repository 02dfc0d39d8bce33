"""SystemImager's monitor: `si_monitor` on the head node (port 8181) keeps what nodes report in `clients.xml`.

The file has one element per MAC (in which dots may stand for colons) and is written anew every 5 s, so it may be read
half written. It is welcome evidence and never needed: not every OSCAR starts the monitor.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from xml.etree import ElementTree

CLIENTS_FILE = "/var/lib/systemimager/clients.xml"

_MAC = re.compile(r"[0-9a-fA-F]{2}(?:[:.][0-9a-fA-F]{2}){5}")
_ADDRESS = re.compile(r"\d{1,3}(?:\.\d{1,3}){3}")


class MonitorPhase(StrEnum):
    """What a status number means, as far as it says where a node is."""

    FAILED = "failed"
    STARTING = "starting"
    PULLING = "pulling"
    FINISHING = "finishing"
    REBOOTED = "rebooted"
    LEAVING = "leaving"


@dataclass(frozen=True, slots=True)
class MonitorClient:
    """What a node last reported to the monitor. `mac` in lower case with colons; `address` '' where it did not say."""

    mac: str
    address: str
    status: int

    @property
    def phase(self) -> MonitorPhase | None:
        """Where the node is; None for a number that nobody knows, and for 103: it beeps until somebody comes."""
        if 1 <= self.status <= 99:
            return MonitorPhase.PULLING
        return _PHASES.get(self.status)

    @property
    def text(self) -> str:
        """The status in words."""
        return f"{self.status} % of the image" if 1 <= self.status <= 99 else f"status {self.status}"


_PHASES = {
    -1: MonitorPhase.FAILED,
    0: MonitorPhase.STARTING,
    100: MonitorPhase.FINISHING,
    101: MonitorPhase.FINISHING,
    102: MonitorPhase.REBOOTED,
    104: MonitorPhase.LEAVING,
    105: MonitorPhase.LEAVING,
}


def parse_clients(text: str) -> tuple[MonitorClient, ...]:
    """The nodes of `clients.xml`. Empty for a file that is half written; what is no node is left out."""
    if "<!" in text.replace("<!--", ""):  # it has no entities to declare; a hostile one must not keep us busy
        return ()
    try:
        root = ElementTree.fromstring(text)
    except ElementTree.ParseError:
        return ()
    return tuple(client for element in root.iter() if (client := _client(element)) is not None)


def _client(element: ElementTree.Element) -> MonitorClient | None:
    """A node keeps its items as attributes or as child elements; its MAC may also be the element's name or key."""
    items = dict(element.attrib) | {child.tag: child.text or "" for child in element if not len(child)}
    keys = (items.get("mac", ""), items.get("name", ""), element.tag.lstrip("_"))
    mac = next((key.strip() for key in keys if _MAC.fullmatch(key.strip())), None)
    status = items.get("status", "").strip()
    if mac is None or not re.fullmatch(r"-?\d{1,3}", status):
        return None
    address = items.get("ip", "").strip()
    return MonitorClient(mac.replace(".", ":").lower(), address if _ADDRESS.fullmatch(address) else "", int(status))
