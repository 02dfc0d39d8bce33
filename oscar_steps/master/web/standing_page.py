"""The page of standing problems: PLUGINS/standing (HTML), PLUGINS/standing?format=json.

Registered as a Buildbot web plug-in (entry point `buildbot.www`, name `standing`).
"""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jinja2
from twisted.internet import threads

from oscar_steps.master.web.plugin import Content, Page, Plugin
from oscar_steps.master.web.standing import page_data

STANDING = "standing"
"""The plug-in's name."""
_DAY = 86400.0
_templates = jinja2.Environment(
    loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
    trim_blocks=True,
    lstrip_blocks=True,
    undefined=jinja2.StrictUndefined,
    autoescape=True,
)


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


def html_of(data: dict[str, Any], now: float) -> str:
    """The page."""
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
    return _templates.get_template("standing.html.j2").render(branches=branches, trouble=data["trouble"], begun=begun)


class StandingPage(Page):
    """The standing problems, branch by branch."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder = folder

    async def content(self, form: str) -> Content:
        return await threads.deferToThread(self._content, form)

    def _content(self, form: str) -> Content:
        data = page_data(self.folder)
        if form == "json":
            return Content(json.dumps(data) + "\n", "application/json")
        return Content(html_of(data, time.time()), "text/html; charset=utf-8")


application = Plugin("Standing problems", lambda master: StandingPage(Path(master.basedir)))
