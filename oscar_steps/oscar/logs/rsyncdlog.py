"""The image server's rsync daemon log, `/var/log/systemimager/rsyncd` on the head node: how far is which node?

A node asks, in this order, for the installer's binaries, the autoinstall scripts, a listing of its image (only with a
monitor server), the image itself, its overrides, and for `scripts/imaging_complete`, a file that does not exist: that
request is how it says that it has done, and the error that the daemon logs for it is expected.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

RSYNCD_LOG = "/var/log/systemimager/rsyncd"

_STAMP = r"(?P<time>\d{4}/\d\d/\d\d \d\d:\d\d:\d\d) \[(?P<pid>\d+)\] "
_REQUEST = re.compile(
    _STAMP + r"rsync\s+on\s+(?P<path>.+?)\s+from\s+(?:\S+@)?(?P<host>\S+)\s+\((?P<ip>[0-9A-Fa-f:.]+)\)\s*"
)
_SENT = re.compile(_STAMP + r"sent (?P<bytes>[\d,]+) bytes\s+received [\d,]+ bytes\s+total size [\d,]+\s*")
_TIME = "%Y/%m/%d %H:%M:%S"
_OTHER_MODULES = frozenset({"boot", "scripts", "overrides", "tarballs", "torrents", "kernels"})


class RequestKind(StrEnum):
    """What a node asked for."""

    BINARIES = "binaries"
    SCRIPTS = "scripts"
    LISTING = "listing"
    IMAGE = "image"
    OVERRIDES = "overrides"
    COMPLETE = "complete"
    OTHER = "other"


@dataclass(frozen=True, slots=True)
class Request:
    """A node asked for something. `time` is the head node's own clock, without a zone; `host` may be 'UNKNOWN'."""

    time: datetime
    pid: int
    kind: RequestKind
    path: str
    host: str
    ip: str


@dataclass(frozen=True, slots=True)
class Sent:
    """The transfer of the request with this `pid` ended; `bytes` went from the head node to the node."""

    time: datetime
    pid: int
    bytes: int


def parse_line(line: str) -> Request | Sent | None:
    """What a line of the log tells. None for the lines that tell nothing of a node's progress, and for torn ones."""
    text = line.rstrip("\r\n")
    if match := _REQUEST.fullmatch(text):
        moment, path = _moment(match["time"]), match["path"]
        if moment is None:
            return None
        return Request(moment, int(match["pid"]), _kind(path), path, match["host"], match["ip"])
    if match := _SENT.fullmatch(text):
        moment = _moment(match["time"])
        return Sent(moment, int(match["pid"]), int(match["bytes"].replace(",", ""))) if moment else None
    return None


def _moment(text: str) -> datetime | None:
    try:
        return datetime.strptime(text, _TIME)
    except ValueError:
        return None


def _kind(path: str) -> RequestKind:
    module, slash, rest = path.partition("/")
    if module == "scripts":
        if rest.startswith("imaging_complete"):
            return RequestKind.COMPLETE
        return RequestKind.OTHER if rest else RequestKind.SCRIPTS
    if module == "overrides":
        return RequestKind.OVERRIDES
    if module == "boot" and "boel_binaries" in rest:
        return RequestKind.BINARIES
    if module in _OTHER_MODULES or rest not in ("", "."):
        return RequestKind.OTHER
    # Every other module is an image: with the slash its content is pulled, without it only listed.
    return RequestKind.IMAGE if slash else RequestKind.LISTING
