"""Known issues that heal: what the history says of each, for the page and the night's mail. Nobody edits their file.

An issue has healed when every cell in which it has shown has passed since, on the same branch.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from oscar_steps.master.history.record import Result
from oscar_steps.master.history.store import HISTORY_SERVICE, History
from oscar_steps.master.history.table import Shown
from oscar_steps.oscar.known import KnownIssue


@dataclass(frozen=True, slots=True)
class IssueState:
    """A known issue, and what became of it. `count` 0: it has not shown yet."""

    reference: str
    note: str
    expires: str
    expired: bool
    count: int = 0
    cells: tuple[str, ...] = ()
    """In which it shows still."""
    first: Result | None = None
    last: Result | None = None
    cured: Result | None = None
    """The run that proved it healed: the last cell's first green one."""

    @property
    def words(self) -> str:
        """In one sentence."""
        if self.first is None or self.last is None:
            return "it has not shown yet"
        seen = f"seen {self.count} time{'s' if self.count > 1 else ''}, "
        seen += f"first on {day(self.first)} ({self.first.source}), last on {day(self.last)} ({self.last.source})"
        if self.cured is None:
            return f"open in {', '.join(self.cells[:5])}{' and others' if len(self.cells) > 5 else ''}: {seen}"
        return f"healed by {self.cured.source} in {self.cured.cell} on {day(self.cured)}: {seen}"


def day(result: Result) -> str:
    return datetime.fromtimestamp(result.ended, UTC).strftime("%Y-%m-%d")


def state_of(issue: KnownIssue, shown: Sequence[Shown], today: datetime) -> IssueState:
    """What became of one issue."""
    plain = IssueState(issue.reference, issue.note, issue.expires.isoformat(), today.date() > issue.expires)
    if not shown:
        return plain
    cures = [each.cured for each in shown if each.cured is not None]
    return IssueState(
        plain.reference,
        plain.note,
        plain.expires,
        plain.expired,
        count=sum(each.count for each in shown),
        cells=tuple(sorted(each.cell for each in shown if each.cured is None)),
        first=min((each.first for each in shown), key=lambda each: each.build),
        last=max((each.last for each in shown), key=lambda each: each.build),
        cured=max(cures, key=lambda each: each.build) if len(cures) == len(shown) else None,
    )


async def issue_states(master: Any) -> list[IssueState]:
    """What became of each known issue of the site; the open ones first, the last seen first."""
    service = master.service_manager.namedServices.get(HISTORY_SERVICE)
    history, today = History(master), datetime.now(UTC)
    # Issues with the same reference are shown as one.
    of_reference = {issue.reference: issue for issue in (service.issues if service is not None else ())}
    found = [state_of(issue, await history.shown(issue.reference), today) for issue in of_reference.values()]
    return sorted(found, key=lambda each: (each.cured is not None, -(each.last.build if each.last else 0)))


async def healed_lines(master: Any, seconds: float) -> list[str]:
    """The issues that have healed within so many seconds, one a line, for a mail."""
    since = time.time() - seconds
    states = await issue_states(master)
    return [f"{each.reference}: {each.words}" for each in states if each.cured and each.cured.ended >= since]
