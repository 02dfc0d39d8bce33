"""The page of standing problems, of cells that wait, of what is flaky and of known issues: PLUGINS/standing
(HTML), PLUGINS/standing?format=json.

Registered as a Buildbot web plug-in (entry point `buildbot.www`, name `standing`).
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jinja2
from twisted.internet import threads
from twisted.python import log

from oscar_steps.master.history.heal import IssueState, issue_states
from oscar_steps.master.history.store import YEAR, History
from oscar_steps.master.history.table import Flake
from oscar_steps.master.waiting import WaitingCell, waiting_cells
from oscar_steps.master.web.plugin import Content, Page, Plugin
from oscar_steps.master.web.standing import page_data
from oscar_steps.sources.source import short_name

STANDING = "standing"
"""The plug-in's name."""
_DAY = 86400.0
_MOST_FLAKES = 200
_templates = jinja2.Environment(
    loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
    trim_blocks=True,
    lstrip_blocks=True,
    undefined=jinja2.StrictUndefined,
    autoescape=True,
)


def name_of(revision: int, commit: str) -> str:
    """A revision, or a commit of git's, for people."""
    return short_name(commit or str(revision))


_templates.globals["name_of"] = name_of


def age_of(date: str, now: float) -> str:
    """How long ago, in the largest unit that fits; '' for a date that cannot be read."""
    try:
        then = datetime.fromisoformat(date)
    except ValueError:
        return ""
    days = (now - (then if then.tzinfo else then.replace(tzinfo=UTC)).timestamp()) / _DAY
    for unit, length in (("year", 365.25), ("month", 30.44), ("day", 1.0), ("hour", 1 / 24)):
        if days >= length:
            count = int(days / length)
            return f"{count} {unit}{'s' if count > 1 else ''}"
    return "less than an hour"


@dataclass(frozen=True)
class Queue:
    """The cells that wait, and how many more there are."""

    cells: Sequence[WaitingCell] = ()
    more: int = 0
    trouble: str = ""

    def as_json(self) -> dict[str, Any]:
        return {"trouble": self.trouble, "more": self.more, "cells": [asdict(each) for each in self.cells]}


async def queue_of(master: Any) -> Queue:
    """The page answers whatever is wrong with the queue."""
    try:
        cells, behind = await waiting_cells(master)
        return Queue(cells, len(behind))
    except Exception as error:  # broad on purpose: see above
        log.err(error, "the cells that wait")
        return Queue(trouble="the list cannot be made; the master's log says more")


@dataclass(frozen=True)
class Past:
    """What the history says: the failures that come and go, and what became of the known issues."""

    flakes: Sequence[Flake] = ()
    issues: Sequence[IssueState] = ()
    trouble: str = ""

    def as_json(self) -> dict[str, Any]:
        return {
            "trouble": self.trouble,
            "flaky": [asdict(each) for each in self.flakes],
            "known_issues": [{**asdict(each), "words": each.words} for each in self.issues],
        }


async def past_of(master: Any) -> Past:
    """The page answers whatever is wrong with the history."""
    try:
        return Past(await History(master).flakes(time.time() - YEAR, _MOST_FLAKES), await issue_states(master))
    except Exception as error:  # broad on purpose: see above
        log.err(error, "the history, for the page of standing problems")
        return Past(trouble="the list cannot be made; the master's log says more")


def html_of(data: dict[str, Any], now: float, queue: Queue | None = None, past: Past | None = None) -> str:
    """The page."""
    queue, past = queue or Queue(), past or Past()
    branches = []
    for name, branch in sorted(data["branches"].items(), key=lambda item: ("/" in item[0], item[0])):
        problems = sorted(
            branch["problems"].values(),
            key=lambda entry: (not entry["gates"], -entry["revision"], entry["file"], entry["line"]),
        )
        for entry in problems:
            entry["age"] = age_of(entry["date"], now)
        branches.append({"name": name, **branch, "problems": problems, "gating": sum(e["gates"] for e in problems)})
    begun = datetime.fromtimestamp(data["begun_anew"], UTC).strftime("%Y-%m-%d") if data["begun_anew"] else ""
    waits = [{**asdict(each), "age": age_of(_date(each.since), now)} for each in queue.cells]
    return _templates.get_template("standing.html.j2").render(
        branches=branches,
        trouble=data["trouble"],
        begun=begun,
        waits=waits,
        queue=queue,
        past=past,
        flaky=[
            {"rate": each.rate, "last": each.last, "age": age_of(_date(each.last.ended), now)} for each in past.flakes
        ],
    )


def _date(when: float) -> str:
    return datetime.fromtimestamp(when, UTC).isoformat()


class StandingPage(Page):
    """The standing problems, branch by branch, and the cells that wait."""

    def __init__(self, master: Any) -> None:
        super().__init__()
        self.master = master

    async def content(self, form: str) -> Content:
        queue, past = await queue_of(self.master), await past_of(self.master)
        return await threads.deferToThread(self._content, form, queue, past)

    def _content(self, form: str, queue: Queue, past: Past) -> Content:
        data = page_data(Path(self.master.basedir))
        if form == "json":
            return Content(
                json.dumps({**data, "waiting": queue.as_json(), "history": past.as_json()}) + "\n", "application/json"
            )
        return Content(html_of(data, time.time(), queue, past), "text/html; charset=utf-8")


application = Plugin("Standing problems", StandingPage)
