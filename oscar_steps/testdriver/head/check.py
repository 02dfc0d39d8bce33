"""A look at the head node when something has failed: is its disk full, do its servers run? And the finding that it has
rebooted by itself."""

from __future__ import annotations

import asyncio
import re
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from oscar_steps.errors import FarmError, Finding, HeadNodeRebooted, MachineLost, NodeFailed
from oscar_steps.oscar.stages import InstallStage

if TYPE_CHECKING:
    from oscar_steps.testdriver.head.headnode import HeadNode
    from oscar_steps.testdriver.head.installer import Installer

COMMAND = "df -P -k 2>/dev/null; echo @@; ps -e -o args= 2>/dev/null"
LOOK_SECONDS = 20.0
FRESH_SECONDS = 5.0
"""Nodes mostly fail together; one look serves them all."""
FULL_KIB = 1024
FULL_WORDS = "the head node's disk is full"
"""The sentence for OSCAR's own complaint has these words, too; once is enough."""

_FILE_SYSTEM = re.compile(r"(?P<device>\S+)\s+\d+\s+\d+\s+(?P<free>-?\d+)\s+(?P<used>\d+)%\s+(?P<mounted>/.*)")


@dataclass(frozen=True, slots=True)
class HeadFacts:
    """`full`: mount points without room, each with its percentage; the servers: whether they run."""

    full: tuple[str, ...] = ()
    dhcp_server: bool = True
    rsync_daemon: bool = True

    @property
    def disk_clause(self) -> str:
        """'the head node's disk is full (/: 100 %)', or ''."""
        return f"{FULL_WORDS} ({', '.join(self.full)})" if self.full else ""


def parse_facts(text: str) -> HeadFacts | None:
    """The facts in the output of `COMMAND`; None where it cannot be understood, so that nothing is claimed."""
    disks, separator, processes = text.partition("\n@@\n")
    programs = [line.split() for line in processes.splitlines() if line.strip()]
    if not separator or not programs:
        return None
    full = tuple(
        f"{match['mounted']}: {match['used']} %"
        for line in disks.splitlines()
        if (match := _FILE_SYSTEM.fullmatch(line.strip())) and _is_full(match)
    )
    names = [words[0].rpartition("/")[2] for words in programs]
    daemons = [words for words, name in zip(programs, names, strict=True) if name == "rsync" and "--daemon" in words]
    return HeadFacts(full, any(name.startswith(("dhcpd", "dnsmasq")) for name in names), bool(daemons))


def _is_full(match: re.Match[str]) -> bool:
    """A CD is always full; `tmpfs` (/tmp, /run) is as good a place to run out of room as a disk."""
    device = match["device"]
    writable = device == "tmpfs" or (device.startswith("/dev/") and not re.match(r"/dev/(?:loop|sr)\d", device))
    return writable and (int(match["free"]) < FULL_KIB or int(match["used"]) >= 100)


class HeadCheck:
    """Looks at the head node, once for all who ask at about the same time."""

    def __init__(self, head: HeadNode) -> None:
        self._head = head
        self._lock = asyncio.Lock()
        self._facts: HeadFacts | None = None
        self._seen = float("-inf")

    async def look(self) -> HeadFacts | None:
        """The facts; None where the head node does not answer (others raise the alarm for that)."""
        async with self._lock:
            if time.monotonic() - self._seen > FRESH_SECONDS:
                self._facts = None
                with suppress(FarmError):
                    self._facts = parse_facts((await self._head.run(COMMAND, seconds=LOOK_SECONDS)).output)
                self._seen = time.monotonic()
            return self._facts


async def with_full_disk(head: HeadNode, error: FarmError) -> None:
    """Add to `error` that the head node's disk is full, where it is: then this is the cause, whatever else was said.

    (Who watches the nodes has looked already.) The verdict reads the installer's lines once more, hence the fact.
    """
    if not head.connected or isinstance(error, (HeadNodeRebooted, NodeFailed)) or FULL_WORDS in error.sentence:
        return
    facts = await HeadCheck(head).look()
    if facts and facts.full:
        error.sentence = f"{error.sentence}; {facts.disk_clause}"
        error.args = (error.sentence,)
        if isinstance(error, Finding):
            error.facts["also"] = facts.disk_clause


def head_rebooted(installer: Installer | None, waiting_for: str) -> FarmError:
    """The error for a head node that has rebooted by itself. While OSCAR's `installer` runs it is OSCAR's: the base
    image does not reboot, and a kernel that panics stops and says so."""
    if installer is None:
        return MachineLost(f"the head node rebooted by itself, while the run waited for {waiting_for}")
    stuck = installer.overdue(0.0)
    doing = InstallStage(stuck.oscar_stage).doing if stuck.oscar_stage else "installing the cluster"
    return HeadNodeRebooted(
        f"the head node rebooted while OSCAR was {doing}",
        hint="a program on the head node itself asked for the reboot: what did OSCAR start there?",
        oscar_stage=stuck.oscar_stage,
        evidence=stuck.evidence,
    )
