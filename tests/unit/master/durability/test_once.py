"""A request whose build had its result before the master was killed is closed, and never built a second time."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from buildbot.process.results import FAILURE, RETRY
from twisted.internet import defer

from oscar_steps.master.durability import once
from oscar_steps.master.durability.once import is_open


class Database:
    """The builds of one request; its first closing of a request fails."""

    def __init__(self, *results: int) -> None:
        self.data = self.updates = self
        self.builds = [
            {"buildid": number, "complete": True, "results": result} for number, result in enumerate(results)
        ]
        self.failures = 1
        self.closed: list[tuple[int, int]] = []

    async def get(self, _path: tuple[Any, ...]) -> list[dict[str, Any]]:
        return self.builds

    async def completeBuildRequests(self, requests: list[int], result: int) -> None:
        if self.failures:
            self.failures -= 1
            raise OSError("the server closed the connection")
        self.closed += [(number, result) for number in requests]


def asked(master: Database) -> Any:
    request = SimpleNamespace(id=7, submittedAt=0, properties=SimpleNamespace(getProperty=lambda _name: None))
    answer = defer.ensureDeferred(is_open(master, request))
    found: list[Any] = []
    answer.addBoth(found.append)
    return found[0]


@pytest.fixture(autouse=True)
def nothing_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(once, "_looked_at", set())


def test_a_request_that_could_not_be_closed_is_no_open_one_at_the_next_look() -> None:
    master = Database(RETRY, FAILURE)
    assert isinstance(asked(master).value, OSError)
    assert asked(master) is False
    assert master.closed == [(7, FAILURE)]


def test_a_request_whose_builds_were_cut_short_is_open() -> None:
    assert asked(Database(RETRY, RETRY)) is True
