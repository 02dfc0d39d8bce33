"""Why cells wait, where people look: on the page of each cell that waits, and in the night's mail to the operator."""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import datetime, timedelta
from datetime import time as daytime
from typing import Any

from buildbot.util.service import BuildbotService
from twisted.internet import defer, reactor, task
from twisted.python import log

from oscar_steps.master.history.heal import healed_lines
from oscar_steps.master.operator_mail import notify_operator
from oscar_steps.master.scale.registry import describe_builders
from oscar_steps.master.waiting import MOST, WaitingCell, lines_of, quiet_cells, waiting_cells
from oscar_steps.textio import one_line, some

QUEUE_SERVICE = "oscar-queue"
_LOOK_SECONDS = 60.0
_AFTER = timedelta(hours=5)
"""From the night's begin to its mail: what waits then may not run before the next night."""
_LONGEST = 600


class QueueNotes(BuildbotService):
    """Notes once a minute on the page of each cell why it waits; mails once a night what still waits.

    `night`: hour and minute at which the nightly matrix begins.
    """

    name = QUEUE_SERVICE
    clock: Any = reactor
    night: tuple[int, int] = (0, 0)
    _loop: task.LoopingCall | None = None
    _mail_due = 0.0

    def checkConfig(self, night: tuple[int, int]) -> None:
        """The site has checked it."""

    async def reconfigService(self, night: tuple[int, int]) -> None:
        self.night = night
        self._mail_due = next_mail(night, time.time())

    async def startService(self) -> None:
        await super().startService()
        self._loop = task.LoopingCall(lambda: defer.ensureDeferred(self.look()))
        self._loop.clock = self.clock
        self._loop.start(_LOOK_SECONDS, now=False)

    async def stopService(self) -> None:
        if self._loop and self._loop.running:
            self._loop.stop()
        await super().stopService()

    async def look(self) -> None:
        """One look at the queue. It never raises: the next one is a minute away."""
        try:
            cells, behind = await waiting_cells(self.master)
            await self._note(cells, behind)
        except Exception as error:  # broad on purpose: see above
            log.err(error, "why cells wait could not be noted")
            return
        now = time.time()
        if now >= self._mail_due:
            self._mail_due = next_mail(self.night, now)
            if cells:
                notify_operator(self.master, *mail_of(cells, behind, await self._quiet()))
            await self._mail_of_healed()

    async def _quiet(self) -> list[str]:
        try:
            return await quiet_cells(self.master, _AFTER.total_seconds())
        except Exception as error:  # broad on purpose: the mail is about what waits
            log.err(error, "the cells that had no night")
            return []

    async def _mail_of_healed(self) -> None:
        try:
            lines = await healed_lines(self.master, timedelta(days=1).total_seconds())
        except Exception as error:  # broad on purpose: the page of standing problems shows them, too
            log.err(error, "the known issues that have healed")
            return
        if lines:
            text = "\n".join([*lines, "", "Remove what is no longer wanted from known-issues.toml.", ""])
            notify_operator(self.master, "known issues have healed", text)

    async def _note(self, cells: Sequence[WaitingCell], behind: Sequence[str]) -> None:
        notes = {each.cell: f"Waits: {one_line(each.why, _LONGEST)}." for each in cells}
        notes |= dict.fromkeys(behind, f"Waits behind {MOST} other cells.")
        wanted = {}
        for name, builder in self.master.botmaster.builders.items():
            said = builder.config.description or ""
            wanted[await builder.getBuilderId()] = f"{said}. {notes[name]}" if name in notes else said
        await describe_builders(self.master, wanted)


def next_mail(night: tuple[int, int], now: float) -> float:
    """When the next mail about a night is due (Unix time)."""
    hour, minute = night
    day = datetime.fromtimestamp(now).date() - timedelta(days=1)
    while True:
        due = (datetime.combine(day, daytime(hour, minute)) + _AFTER).timestamp()
        if due > now:
            return due
        day += timedelta(days=1)


def mail_of(cells: Sequence[WaitingCell], behind: Sequence[str], quiet: Sequence[str] = ()) -> tuple[str, str]:
    """Subject and text. Cells that no connected worker can take come first: they need somebody.

    `quiet`: cells that had no night.
    """
    stuck, others = [each for each in cells if each.stuck], [each for each in cells if not each.stuck]
    number = len(cells) + len(behind)
    subject = f"after the night {number} cell{'s wait' if number > 1 else ' waits'}"
    parts = []
    if stuck:
        parts += ["No connected worker can take these cells:", "", *lines_of(stuck, 0), ""]
    if others or behind:
        parts += ["These cells wait for their turn:", "", *lines_of(others, len(behind)), ""]
    if quiet:
        parts += [f"These had no night, because nothing had changed: {some(quiet)}.", ""]
    if stuck:
        subject += f", {len(stuck)} of them for a worker that can take it"
    return subject, "\n".join(parts)
