"""What the farm's own web pages share: each is a plug-in of Buildbot's web server (entry point `buildbot.www`)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from twisted.internet import defer
from twisted.python import log
from twisted.web import resource, server, static

SEALED = b"sandbox; default-src 'none'; style-src 'unsafe-inline'; img-src 'self'; frame-ancestors 'none'"
"""The browser's policy for content that guests and commits influence: it runs no script and has no origin."""


@dataclass(frozen=True)
class Content:
    """What a page says. `kind` is its content type."""

    body: str
    kind: str
    status: int = 200


class Page(resource.Resource):
    """A page that is made anew for each request. The browser neither keeps it nor runs anything of it."""

    def getChild(self, path: bytes, request: server.Request) -> resource.Resource:
        return super().getChild(path, request) if path else self

    def render_GET(self, request: server.Request) -> int:
        gone = request.notifyFinish()
        answer = defer.ensureDeferred(self._answer(request))
        gone.addErrback(lambda _why: answer.cancel())
        answer.addErrback(lambda why: why.check(defer.CancelledError) or log.err(why, f"the {type(self).__name__}"))
        return server.NOT_DONE_YET

    async def _answer(self, request: server.Request) -> None:
        asked = (request.args or {}).get(b"format") or [b""]
        content = await self.content(asked[0].decode("utf-8", "replace"))
        request.setResponseCode(content.status)
        request.setHeader(b"Content-Type", content.kind.encode())
        request.setHeader(b"Cache-Control", b"no-store")
        request.setHeader(b"X-Content-Type-Options", b"nosniff")
        request.setHeader(b"Content-Security-Policy", SEALED)
        request.write(content.body.encode(errors="replace"))
        request.finish()

    async def content(self, form: str) -> Content:
        """The page in the form that `?format=` asks for ('': nothing was asked for)."""
        raise NotImplementedError


_STYLES = b"""
/* One word of a commit may be thousands of characters long: it is broken or cut, and makes no page wider. */
body, pre, li, th, td, .badge { overflow-wrap: anywhere; }
th:first-child, td:first-child { min-width: 6em; }
pre, .badge { white-space: pre-wrap; }
[class*="bb-badge"] {
  display: inline-block; max-width: min(24em, 40vw); overflow: hidden; text-overflow: ellipsis; vertical-align: bottom;
}
select { max-width: 100%; }
.changedetails-heading { flex-wrap: wrap; }
.changedetails-heading > * { min-width: 0; max-height: 4.5em; overflow: hidden; }
"""
_NO_ORDERS = b"""
/* A user who may not stop or restart a build sees no button for it. */
#bb-topbar-navbar-nav form { display: none; }
"""


class Styles(resource.Resource):
    """What the farm adds to the style of Buildbot's page."""

    isLeaf = True

    def render_GET(self, request: Any) -> bytes:
        request.setHeader(b"Content-Type", b"text/css")
        request.setHeader(b"Cache-Control", b"no-store")
        return _STYLES if request.may_control() else _STYLES + _NO_ORDERS


class Plugin:
    """A web plug-in as Buildbot expects it. It is no part of the single-page application: its script is empty.

    `page` makes the page, of the master.
    """

    version = "1"
    ui = False

    def __init__(self, description: str, page: Callable[[Any], resource.Resource]) -> None:
        self.description = description
        self.resource: resource.Resource = resource.Resource()
        self._page = page

    def setMaster(self, master: Any) -> None:
        self.resource = self._page(master)
        # Buildbot's page asks every plug-in for these two.
        self.resource.putChild(b"scripts.js", static.Data(b"", "text/javascript"))
        self.resource.putChild(b"styles.css", Styles())

    def setConfiguration(self, _configuration: Any) -> None:
        """There is none."""
