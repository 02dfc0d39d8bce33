"""Only builders for which something waits and that a worker has room for are looked at, in one query."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from types import MappingProxyType, SimpleNamespace
from typing import Any

import pytest
import sqlalchemy as sa
from buildbot.db import model as buildbot_model
from buildbot.process import buildrequestdistributor as distributor
from buildbot.process.results import SUCCESS
from buildbot.util.pathmatch import Matcher
from twisted.internet import defer

from oscar_steps.master.fair import memory_of
from oscar_steps.master.scale.distribution import CellChooser, look_at_few, waiting_builders

MODEL = buildbot_model.Model


class Pool:
    """A database in memory that counts queries."""

    def __init__(self) -> None:
        self.connection = sa.create_engine("sqlite://").connect()
        MODEL.metadata.create_all(self.connection)
        self.queries = 0

    def do(self, query: Any, *arguments: Any) -> Any:
        self.queries += 1
        return defer.succeed(query(self.connection, *arguments))


class Builder:
    def __init__(self, number: int, *, room: bool = True) -> None:
        self.number, self.name = number, f"c{number}"
        self.config = SimpleNamespace(tags=[], locks=["clusters"])
        worker = SimpleNamespace(room_for=lambda _builder: room, canStartBuild=lambda: True)
        self.workers = [SimpleNamespace(isAvailable=lambda: True, worker=worker)]


def master(pool: Pool, builders: list[Builder]) -> Any:
    by_number = {builder.number: builder for builder in builders}
    return SimpleNamespace(
        db=SimpleNamespace(pool=pool, model=MODEL), botmaster=SimpleNamespace(getBuilderById=by_number.get)
    )


def request(pool: Pool, number: int, builder: int, *, priority: int = 0, **more: Any) -> None:
    row = {"id": number, "buildsetid": 1, "builderid": builder, "priority": priority, "submitted_at": 0}
    complete = int(more.get("complete", False))
    pool.connection.execute(MODEL.buildrequests.insert(), [{**row, "complete": complete, "waited_for": 0}])
    if more.get("claimed"):
        pool.connection.execute(MODEL.buildrequest_claims.insert(), [{"brid": number, "masterid": 1, "claimed_at": 1}])


def waiting(pool: Pool, builders: list[Builder], ended: Mapping[str, float] = MappingProxyType({})) -> list[str]:
    """Their order, when the last build of each cell in `ended` was green and ended then."""
    owner = master(pool, builders)
    memory = memory_of(owner)
    memory.complete = True
    for name, when in ended.items():
        memory.noted(name, SUCCESS, when)

    async def answer() -> list[Any]:
        found: list[Any] = await waiting_builders(owner, builders)
        return found

    return [builder.name for builder in asyncio.run(answer())]


def test_urgent_ones_come_first_then_those_that_have_not_run_for_longest_and_nothing_else_is_looked_at() -> None:
    pool, builders = Pool(), [Builder(number) for number in range(1, 1000)]
    request(pool, 1, 5)
    request(pool, 2, 7)
    request(pool, 3, 9, priority=1)
    request(pool, 4, 11, claimed=True)
    request(pool, 5, 13, complete=True)
    request(pool, 6, 5000)
    assert waiting(pool, builders, {"c5": 30.0, "c7": 20.0, "c9": 40.0}) == ["c9", "c7", "c5"]
    assert pool.queries == 1


def test_where_no_worker_has_room_nothing_is_read() -> None:
    pool, builders = Pool(), [Builder(number, room=False) for number in range(1, 4)]
    request(pool, 1, 2)
    assert waiting(pool, builders) == []
    assert pool.queries == 0
    assert waiting(pool, [*builders, Builder(4)]) == []


def test_a_chooser_reads_no_request_where_there_is_no_room() -> None:
    builder: Any = Builder(1, room=False)
    builder.config = SimpleNamespace(nextWorker=None, nextBuild=None)
    builder.getAvailableWorkers = list
    owner: Any = SimpleNamespace(config=SimpleNamespace(select_next_worker=None))
    chooser = CellChooser(builder, owner)

    async def choose() -> Any:
        return await chooser.chooseNextBuild()

    assert asyncio.run(choose()) == (None, None)  # a query would fail: the master has no database


def test_buildbots_distributor_makes_the_chooser_that_it_has_been_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distributor.BuildRequestDistributor, "BuildChooser", distributor.BasicBuildChooser)
    look_at_few()
    builder: Any = Builder(1)
    builder.config = SimpleNamespace(nextWorker=None, nextBuild=None)
    builder.getAvailableWorkers = list
    owner: Any = SimpleNamespace(config=SimpleNamespace(select_next_worker=None))
    made = distributor.BuildRequestDistributor(SimpleNamespace()).createBuildChooser(builder, owner)
    assert isinstance(made, CellChooser)


def test_the_paths_of_buildbots_data_are_sorted_once_and_again_when_there_is_a_new_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Matcher, "_compile", Matcher._compile)
    monkeypatch.setattr(distributor.BuildRequestDistributor, "BuildChooser", CellChooser)
    look_at_few()
    paths = Matcher()
    for word in ("builds", "workers"):
        paths[(word,)] = word
        assert paths[(word,)] == (word, {})
        paths._compile = None  # it is not asked a second time
        assert paths[(word,)] == (word, {})
        del paths._compile


def test_a_worker_is_asked_once_for_all_clusters() -> None:
    pool, builders = Pool(), [Builder(number) for number in range(1, 100)]
    asked: list[int] = []

    def room(builder: Builder) -> bool:
        asked.append(builder.number)
        return bool(builder.config.locks)

    worker = SimpleNamespace(room_for=room, canStartBuild=lambda: True)
    for builder in builders:
        builder.workers[0].worker = worker
    builders[-1].config.locks = []
    request(pool, 1, 5)
    request(pool, 2, 99)
    assert waiting(pool, builders) == ["c5"]
    assert asked == [1, 99]
