"""A release that was stored when the master ended is tested after the next start, and no other is tested again."""

from __future__ import annotations

import asyncio
import json
import time
from types import SimpleNamespace
from typing import Any

import pytest
import sqlalchemy as sa
from buildbot.changes.filter import ChangeFilter
from buildbot.data import resultspec
from buildbot.db.model import Model
from twisted.internet import defer

from oscar_steps.master.schedules import commit
from oscar_steps.master.schedules.names import CANDIDATE, CHANGES, PER_COMMIT
from oscar_steps.master.schedules.tarballs import PerRelease

RELEASE, TRUNK = "tarballs/ftp", "trunk"
WEEK = 7 * 86400.0


class Number(int):
    """Of a change, and as much of a change as is looked at."""

    revision = "5.1"


@pytest.fixture(autouse=True)
def changes_are_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    async def as_it_is(_master: Any, number: int) -> Number:
        return Number(number)

    monkeypatch.setattr(commit, "Change", SimpleNamespace(fromChdict=as_it_is))


def ask(engine: sa.Engine, scheduler: str, changes: list[int]) -> None:
    """Store that builds were asked for."""
    with engine.begin() as connection:
        made = connection.execute(Model.buildsets.insert().values(submitted_at=1, complete=0)).inserted_primary_key
        for name, value in (("scheduler", scheduler), (CHANGES, changes)):
            row = {"buildsetid": made[0], "property_name": name, "property_value": json.dumps([value, "Scheduler"])}
            connection.execute(Model.buildset_properties.insert().values(row))


def caught_up(engine: sa.Engine, stored: dict[int, str], ages: dict[int, float] | None = None) -> list[int]:
    """The changes that a scheduler takes at its start."""
    taken: list[int] = []

    class Alone(PerRelease):
        master: Any = None

        def gotChange(self, change: Any, important: bool) -> Any:
            assert important
            taken.append(change)
            return defer.succeed(None)

    async def get(path: Any, **how: Any) -> Any:
        assert path == ("changes",)
        when = {number: int(time.time() - (ages or {}).get(number, 0)) for number in stored}
        rows = [{"changeid": n, "branch": branch, "when_timestamp": when[n]} for n, branch in stored.items()]
        return resultspec.ResultSpec(**how).apply(rows)

    async def do(query: Any, *arguments: Any) -> Any:
        with engine.connect() as connection:
            return query(connection, *arguments)

    async def change_of(number: int) -> int:
        return number

    scheduler = Alone(name=CANDIDATE, builderNames=["c"], change_filter=ChangeFilter())
    scheduler._change_consumption_lock = defer.DeferredLock()
    scheduler.change_filter = SimpleNamespace(filter_change=lambda _change: True)
    database = SimpleNamespace(pool=SimpleNamespace(do=do), model=Model, changes=SimpleNamespace(getChange=change_of))
    scheduler.master = SimpleNamespace(db=database, data=SimpleNamespace(get=get))
    asyncio.run(scheduler._catch_up())
    return taken


@pytest.mark.parametrize("commits", [0, 500])
def test_a_forgotten_release_is_found_behind_any_number_of_commits(engine: sa.Engine, commits: int) -> None:
    ask(engine, CANDIDATE, [1])
    stored = {1: RELEASE, 2: TRUNK, 3: RELEASE} | {3 + number: TRUNK for number in range(1, commits + 1)}
    assert caught_up(engine, stored, {3: WEEK}) == [3]


def test_a_release_whose_builds_are_long_ago_is_not_tested_again(
    engine: sa.Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(commit, "_LOOK_BACK", 2)
    ask(engine, CANDIDATE, [1])
    for number in range(2, 9):
        ask(engine, PER_COMMIT, [number])
    assert caught_up(engine, {1: RELEASE} | dict.fromkeys(range(2, 9), TRUNK)) == []


def test_a_release_that_the_database_refused_before_it_took_the_next_is_tested(engine: sa.Engine) -> None:
    ask(engine, CANDIDATE, [3])
    stored = dict.fromkeys(range(1, 4), RELEASE)
    assert caught_up(engine, stored, {1: WEEK}) == [2], "a week ago there may have been no cells for it"
