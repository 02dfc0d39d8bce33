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
from twisted.internet import defer, threads
from twisted.python import log
from twisted.web import resource, server, static

from oscar_steps.master.standing import page_data

STANDING = "standing"
"""The plug-in's name."""
_POLICY = b"default-src 'none'; style-src 'unsafe-inline'"
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


class StandingPage(resource.Resource):
    """What was wrong before, branch by branch."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder = folder

    def getChild(self, path: bytes, request: server.Request) -> resource.Resource:
        return super().getChild(path, request) if path else self

    def render_GET(self, request: server.Request) -> int:
        gone = request.notifyFinish()
        answer = defer.ensureDeferred(self._answer(request))
        gone.addErrback(lambda _why: answer.cancel())
        answer.addErrback(lambda why: why.check(defer.CancelledError) or log.err(why, "the page of standing problems"))
        return server.NOT_DONE_YET

    async def _answer(self, request: server.Request) -> None:
        as_json = (request.args or {}).get(b"format") == [b"json"]
        body, kind = await threads.deferToThread(self._content, as_json)
        request.setHeader(b"Content-Type", kind)
        request.setHeader(b"Cache-Control", b"no-store")
        request.setHeader(b"X-Content-Type-Options", b"nosniff")
        request.setHeader(b"Content-Security-Policy", _POLICY)
        request.write(body.encode(errors="replace"))
        request.finish()

    def _content(self, as_json: bool) -> tuple[str, bytes]:
        data = page_data(self.folder)
        if as_json:
            return json.dumps(data) + "\n", b"application/json"
        return html_of(data, time.time()), b"text/html; charset=utf-8"


class Application:
    """What Buildbot wants of a web plug-in. It is no part of the single-page application: its script is empty."""

    description = "What was wrong before"
    version = "1"
    ui = False

    def __init__(self) -> None:
        self.resource: resource.Resource = resource.Resource()

    def setMaster(self, master: Any) -> None:
        self.resource = StandingPage(Path(master.basedir))
        # Buildbot's page asks every plug-in for these two.
        self.resource.putChild(b"scripts.js", static.Data(b"", "text/javascript"))
        self.resource.putChild(b"styles.css", static.Data(b"", "text/css"))

    def setConfiguration(self, _configuration: Any) -> None:
        """There is none."""


application = Application()
