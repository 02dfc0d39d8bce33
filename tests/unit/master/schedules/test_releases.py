"""A release that was stored when the master ended is tested after the next start, whatever was committed since."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from buildbot.changes.filter import ChangeFilter
from buildbot.data import resultspec
from twisted.internet import defer

from oscar_steps.master.schedules import tarballs
from oscar_steps.master.schedules.tarballs import PerRelease

ASKED, FORGOTTEN = 1, 3


@pytest.mark.parametrize("commits", [0, 500])
def test_a_forgotten_release_is_found_behind_any_number_of_commits(
    commits: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored = {ASKED: "tarballs/ftp", 2: "trunk", FORGOTTEN: "tarballs/ftp"}
    stored |= {FORGOTTEN + number: "trunk" for number in range(1, commits + 1)}
    taken: list[int] = []

    class Alone(PerRelease):
        master: Any = None

        def gotChange(self, change: Any, important: bool) -> Any:
            assert important
            taken.append(change)
            return defer.succeed(None)

    async def get(path: Any, **how: Any) -> Any:
        assert path == ("changes",)
        return resultspec.ResultSpec(**how).apply([{"changeid": n, "branch": branch} for n, branch in stored.items()])

    async def asked(*_: Any) -> list[int]:
        return [ASKED]

    async def change_of(number: int) -> int:
        return number

    async def as_it_is(_master: Any, number: int) -> Any:
        return Number(number)

    class Number(int):
        revision = "5.1"

    monkeypatch.setattr(tarballs, "Change", SimpleNamespace(fromChdict=as_it_is))
    scheduler = Alone(name="x", builderNames=["c"], change_filter=ChangeFilter())
    scheduler._change_consumption_lock = defer.DeferredLock()
    database = SimpleNamespace(pool=SimpleNamespace(do=asked), model=None, changes=SimpleNamespace(getChange=change_of))
    scheduler.master = SimpleNamespace(db=database, data=SimpleNamespace(get=get))
    asyncio.run(scheduler._catch_up())
    assert taken == [FORGOTTEN]
