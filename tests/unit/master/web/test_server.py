"""What the web server settles before a page sees the request, without a master."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from twisted.web import resource, server
from twisted.web.test.test_web import DummyChannel

from oscar_steps.master.web.server import FarmRequest


def request(base: str, *, open_to_all: bool = False, **headers: str) -> FarmRequest:
    channel: Any = DummyChannel()
    channel.site = server.Site(resource.Resource())
    channel.site.master = SimpleNamespace(
        config=SimpleNamespace(buildbotURL=base),
        www=SimpleNamespace(authz=SimpleNamespace(allowRules=[] if open_to_all else ["admins"])),
    )
    made = FarmRequest(channel, False)
    made.method, made.path = b"POST", b"/"
    for name, value in headers.items():
        made.requestHeaders.addRawHeader(name, value)
    return made


@pytest.mark.parametrize("base, secure", [("https://farm.example.org/", True), ("http://127.0.0.1:8010/", False)])
def test_behind_tls_a_cookie_never_goes_in_the_clear(base: str, secure: bool) -> None:
    made = request(base)
    made.addCookie(b"TWISTED_SESSION", b"x", path=b"/", secure=False)
    words = {word.strip().lower() for word in made.cookies[0].split(b";")}
    assert {b"httponly", b"samesite=lax"} <= words
    assert (b"secure" in words) is secure


@pytest.mark.parametrize(
    "origin, host, foreign",
    [
        ("https://farm.example.org", "farm.example.org", False),
        ("https://farm.example.org", "127.0.0.1:8010", False),  # a proxy that passes on its own name
        ("HTTPS://Farm.Example.Org", "FARM.example.org", False),
        ("http://localhost:9000", "localhost:9000", False),  # a tunnel
        ("https://evil.example.org", "farm.example.org", True),
        ("https://farm.example.org.evil.example.org", "farm.example.org", True),
        ("https://farm.example.org:8443", "farm.example.org", True),
        ("null", "farm.example.org", True),
        ("", "farm.example.org", True),
        ("", "", True),
        ("https://", "", True),
        ("farm.example.org", "farm.example.org", True),
    ],
)
def test_only_the_farms_own_pages_may_order(origin: str, host: str, foreign: bool) -> None:
    made = request("https://farm.example.org/", origin=origin, host=host)
    assert made._is_foreign("https://farm.example.org/") is foreign


@pytest.mark.parametrize(
    "authority, foreign",
    [
        ("127.0.0.1:8010", False),
        ("[::1]:8010", False),
        ("localhost:8010", False),
        ("rebound.example.org:8010", True),  # whose owner lets it lead to 127.0.0.1
        ("127.0.0.1.rebound.example.org:8010", True),
        ("[::1", True),
        ("[::1]:8010:80", True),
    ],
)
def test_where_nobody_logs_in_no_name_of_a_strangers_may_order(authority: str, foreign: bool) -> None:
    made = request("http://127.0.0.1:1/", open_to_all=True, origin=f"http://{authority}", host=authority)
    assert made._is_foreign("http://127.0.0.1:1/") is foreign
