"""The web server: what Buildbot is given of it, and what holds for every request, whichever page it is for.

Buildbot itself sends cookies that any script may read, takes a WebSocket of any page in the world, and shows everybody
buttons that end with 403. All of that is settled in `FarmRequest`, before a page sees the request.
"""

from __future__ import annotations

import json
import re
from ipaddress import ip_address
from typing import Any
from urllib.parse import unquote_to_bytes, urlsplit

from buildbot.plugins import util
from buildbot.plugins.db import get_plugins
from buildbot.www.auth import NoAuth
from buildbot.www.avatar import AvatarBase
from twisted.web import server

from oscar_steps.master.web.health import HEALTH
from oscar_steps.master.web.plugin import SEALED
from oscar_steps.master.web.poke import poked
from oscar_steps.master.web.run_files import RUNS
from oscar_steps.master.web.standing_page import STANDING
from oscar_steps.site import POLL_HOOK, Site, Web

ADMINS = "admins"
_PAGE_POLICY = (
    b"default-src 'self'; script-src 'self' 'unsafe-inline'; style-src 'self' 'unsafe-inline'; "
    b"img-src 'self' data: blob:; object-src 'none'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)
"""Buildbot's page holds its configuration as a script, and its parts set styles."""
_NO_BUTTONS = b'{"forceschedulers": [], "meta": {"total": 0}}'
_FACE = b"""<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 8 8" fill="#9aa3b5"><circle cx="4" cy="2.4" r="1.9"/>
<path d="M.5 8a3.5 3.5 0 0 1 7 0z"/></svg>"""


class FarmRequest(server.Request):
    """A request to the master. It reads the master's settings each time, so a reconfiguration takes effect at once."""

    def process(self) -> None:
        master = self.channel.site.master
        self.setHeader(b"X-Content-Type-Options", b"nosniff")
        self.setHeader(b"Referrer-Policy", b"same-origin")
        self.setHeader(b"Content-Security-Policy", SEALED if self._is_below(b"api", b"plugins") else _PAGE_POLICY)
        if not _is_a_name(unquote_to_bytes(self.path)):
            self._refuse(404, "the path is not valid: it has to be UTF-8 text")
        elif self._is_foreign(master.config.buildbotURL):
            self._refuse(
                403, "a page of another site sent this request; open the farm at the address [web] url of farm.toml"
            )
        else:
            super().process()

    def _is_below(self, *folders: bytes) -> bool:
        """Whether the path is below one of the folders that serve text of guests and commits."""
        return unquote_to_bytes(self.path).lstrip(b"/").split(b"/")[0] in folders

    def _refuse(self, status: int, said: str) -> None:
        # Buildbot's page shows the message of an error.
        if self._is_below(b"api"):
            self._say(status, "application/json", json.dumps({"error": {"message": said}}).encode())
        else:
            self._say(status, "text/plain; charset=utf-8", f"{said}\n".encode())

    def _say(self, status: int, kind: str, body: bytes) -> None:
        self.setResponseCode(status)
        self.setHeader(b"Content-Type", kind.encode())
        self.setHeader(b"Content-Length", str(len(body)).encode())
        self.write(body)
        self.finish()

    def _is_foreign(self, base: str) -> bool:
        """Whether a page of another site asks for more than to look. A client that is no browser names no origin."""
        origins = self.requestHeaders.getRawHeaders(b"origin") or []
        looks = self.method in (b"GET", b"HEAD") and not self.requestHeaders.hasHeader(b"upgrade")
        if not origins or looks:
            return False
        ours = {urlsplit(base).netloc.lower().encode()} - {b""}
        host = (self.getHeader(b"host") or b"").lower()
        # Anybody can have a name that leads to this host: where nobody logs in, only an address is the farm's own.
        if host and (self.channel.site.master.www.authz.allowRules or _is_address(host)):
            ours.add(host)
        scheme, _, authority = origins[0].lower().partition(b"://")
        return len(origins) > 1 or scheme not in (b"http", b"https") or authority not in ours

    def render(self, resrc: Any) -> None:
        if not self._is_below(b"api") or self.may_control():
            super().render(resrc)
        elif self.method not in (b"GET", b"HEAD", b"OPTIONS"):
            self._refuse(403, "only the farm's admins may do this: log in as one of them")
        elif self.path.endswith(b"/forceschedulers"):
            self._say(200, "application/json", _NO_BUTTONS)
        else:
            super().render(resrc)

    def may_control(self) -> bool:
        """Whether its user may force and stop builds."""
        www = self.channel.site.master.www
        rules = www.authz.allowRules
        return not rules or ADMINS in www.authz.getRolesFromUser(www.getUserInfos(self))

    def addCookie(self, k: Any, v: Any, *words: Any, **named: Any) -> None:
        """No script reads a cookie of ours, no other site's page sends it, and with TLS it never goes in the clear."""
        secure = self.isSecure() or self.channel.site.master.config.buildbotURL.startswith("https:")
        super().addCookie(k, v, *words, **{**named, "secure": secure, "httpOnly": True, "sameSite": "lax"})


def _is_address(host: bytes) -> bool:
    """Whether a `Host` is a number, or this host's own name for itself: no name server is asked for it."""
    name = re.fullmatch(rb"(?:\[([0-9a-f:.]+)\]|([0-9.]+)|localhost)(?::[0-9]+)?", host)
    try:
        return name is not None and bool(ip_address((name[1] or name[2] or b"127.0.0.1").decode("ascii")))
    except ValueError:
        return False


def _is_a_name(path: bytes) -> bool:
    try:
        return "\0" not in path.decode("utf-8")
    except UnicodeDecodeError:
        return False


class _ForEveryRequest:
    """Buildbot asks its `auth` before the port is opened, and after each reconfiguration."""

    def reconfigAuth(self, master: Any, new_config: Any) -> None:
        super().reconfigAuth(master, new_config)  # type: ignore[misc]
        master.www.site.requestFactory = FarmRequest


class _Nobody(_ForEveryRequest, NoAuth):
    def getConfigDict(self) -> dict[str, str]:
        return {"name": "NoAuth"}


class _Passwords(_ForEveryRequest, util.UserPasswordAuth):
    def getConfigDict(self) -> dict[str, str]:
        return {"name": "UserPasswordAuth"}


class _Face(AvatarBase):
    """One picture for everybody. Buildbot's own sends each reader's browser to gravatar.com, with the mail address."""

    name = "face"

    def getUserAvatar(self, *_who: Any) -> tuple[bytes, bytes]:
        return b"image/svg+xml", _FACE


def build_web(site: Site) -> dict[str, Any]:
    """What Buildbot calls `www`. Raises ConfigError for a password that is missing."""
    plugins: dict[str, Any] = {"waterfall_view": {}, "console_view": {}, "grid_view": {}, RUNS: {}}
    # An installation older than the entry point starts anyway, without this page.
    known = get_plugins("www", None, load_now=False).names
    plugins |= {name: {} for name in (HEALTH, STANDING) if name in known}
    return {
        "port": f"tcp:{site.web.port}:interface={site.web.address.replace(':', chr(92) + ':')}",
        "plugins": plugins,
        "avatar_methods": [_Face()],
        **_access(site, site.web),
        **({"change_hook_dialects": poked(site.secrets)} if site.secrets.has(POLL_HOOK) else {}),
    }


def _access(site: Site, web: Web) -> dict[str, Any]:
    """Everybody may look; only the site's admins may force and stop builds, or everybody where the site is open."""
    if web.open:
        return {"auth": _Nobody()}
    authz = util.Authz(
        allowRules=[util.AnyControlEndpointMatcher(role=ADMINS)],
        roleMatchers=[util.RolesFromUsername(roles=[ADMINS], usernames=list(web.admins))],
    )
    passwords = {login: site.secrets.read(f"web-{login}", f"web password of {login}") for login in web.admins}
    return {"authz": authz, "auth": _Passwords(passwords) if passwords else _Nobody()}
