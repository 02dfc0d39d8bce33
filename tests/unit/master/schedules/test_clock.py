"""The nights: one revision for all cells of a branch, none twice, none lost with a master that ends."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import sqlalchemy as sa
from buildbot.db.model import Model
from buildbot.process.results import EXCEPTION, FAILURE, SUCCESS
from twisted.internet import defer

from oscar_steps.errors import HostError, SourceError
from oscar_steps.master.schedules import clock
from oscar_steps.master.schedules.clock import OncePerNight, nightly
from oscar_steps.master.schedules.names import IDENTITY, NIGHTLY
from oscar_steps.master.watch.svn import PROJECT
from oscar_steps.repositories import Git
from oscar_steps.site import Site
from oscar_steps.sources.source import External, Source

URL = "svn://h/oscar"
TRUNK = Source(url=f"{URL}/trunk", revision="9")
NOW = datetime(2026, 11, 30, 9, 0).timestamp()
HOUR = 3600.0
TABLES = (
    Model.buildrequests, Model.buildset_sourcestamps, Model.sourcestamps, Model.buildset_properties, Model.buildsets,
    Model.builders, Model.changes,
)  # fmt: skip


class Night(OncePerNight):
    """Without a master's services: it notes what it asks for."""

    master: Any = None
    name = NIGHTLY
    enabled, priority, reason = True, 0, "the night"
    builderNames = ("a", "b")

    def __init__(self, engine: sa.Engine, **schedule: Any) -> None:
        self.engine = engine
        schedule = {"nightly_branches": ["branches/5-*"], **schedule}
        self.site = Site.model_validate({"repository": {"url": URL}, "schedule": schedule, "worker": [{"name": "w"}]})
        self.branches = self.site.schedule.nightly_branches
        self.state: dict[str, Any] = {}
        self.serviceid, self.lastActuated = 1, NOW
        self.asked: list[tuple[str, str | None, list[str]]] = []
        flushed = SimpleNamespace(flushChangeClassifications=self._nothing)
        database = SimpleNamespace(pool=self, model=Model, schedulers=flushed)
        self.master = SimpleNamespace(reactor=None, db=database, basedir="/master")

    async def _nothing(self, _number: int) -> None:
        """Nothing waits."""

    async def do(self, query: Any, *arguments: Any) -> Any:
        with self.engine.connect() as connection:
            return query(connection, *arguments)

    def now(self) -> float:
        return NOW

    async def getState(self, name: str, *default: Any) -> Any:
        return self.state.get(name, *default)

    async def setState(self, name: str, value: Any) -> None:
        self.state[name] = value

    async def addBuildsetForSourceStampsWithDefaults(self, **said: Any) -> None:
        (stamp,) = said["sourcestamps"]
        assert said["properties"].hasProperty(IDENTITY) == (stamp["revision"] is not None)
        self.asked.append((stamp["branch"], stamp["revision"], list(said["builderNames"])))


@pytest.fixture
def engine() -> Iterator[sa.Engine]:
    made = sa.create_engine("sqlite://", poolclass=sa.pool.StaticPool)
    with made.begin() as connection:
        for table in TABLES:
            connection.execute(sa.text(f"CREATE TABLE {table.name} ({', '.join(c.name for c in table.columns)})"))
        for number, branch in enumerate(("trunk", "branches/5-1", "branches/5-0", "branches/x", "branches/5-1"), 1):
            row = {"changeid": number, "project": PROJECT, "branch": branch, "repository": URL}
            connection.execute(sa.text(f"INSERT INTO changes ({', '.join(row)}) VALUES (:{', :'.join(row)})"), row)
    yield made
    made.dispose()


@pytest.fixture(autouse=True)
def newest(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The last revision of each branch, or why it cannot be had."""
    found: dict[str, Any] = {"trunk": "9", "branches/5-0": "7", "branches/5-1": "8"}

    async def exact(_reactor: Any, _site: Any, asked: Any) -> Source:
        assert asked.folder == Path("/master"), "where the copy, the logins and what is known of externals are"
        if isinstance(found[asked.branch], Exception):
            raise found[asked.branch]
        return Source(url=f"{asked.repository}/{asked.branch}", revision=found[asked.branch])

    monkeypatch.setattr(clock, "exact_source", exact)
    return found


def had(engine: sa.Engine, source: Source, hours: float, **cells: int | None) -> None:
    """An earlier night of the trunk, and how its cells ended."""
    with engine.begin() as connection:

        def add(table: str, **row: Any) -> None:
            connection.execute(sa.text(f"INSERT INTO {table} ({', '.join(row)}) VALUES (:{', :'.join(row)})"), row)

        add("buildsets", id=1, submitted_at=NOW - hours * HOUR)
        add("sourcestamps", id=1, branch="trunk", revision=source.revision, repository=URL)
        add("buildset_sourcestamps", buildsetid=1, sourcestampid=1)
        for name, value in (("scheduler", NIGHTLY), (IDENTITY, source.identity)):
            said = json.dumps([value, "Scheduler"])
            add("buildset_properties", buildsetid=1, property_name=name, property_value=said)
        for number, (cell, results) in enumerate(cells.items(), 1):
            add("builders", id=number, name=cell)
            add("buildrequests", id=number, buildsetid=1, builderid=number, results=results)


def night(engine: sa.Engine, git: tuple[Git, ...] = (), **schedule: Any) -> list[tuple[str, str | None, list[str]]]:
    """What a night asks for."""
    scheduler = Night(engine, **schedule)
    scheduler.site = scheduler.site.model_copy(update={"git": git})
    done = scheduler.startBuild()
    done.addErrback(lambda failure: failure.raiseException())
    assert done.called
    assert scheduler.state == {"night_done": NOW, "night_ended": NOW}
    return scheduler.asked


def test_trunk_and_each_maintained_branch_are_tested_at_one_revision_for_all_cells(engine: sa.Engine) -> None:
    both = ["a", "b"]
    assert night(engine) == [("trunk", "9", both), ("branches/5-0", "7", both), ("branches/5-1", "8", both)]
    assert night(engine, nightly_branches=[]) == [("trunk", "9", both)]


def test_a_branch_that_is_gone_has_no_night_and_a_silent_server_keeps_none_from_it(
    engine: sa.Engine, newest: dict[str, Any]
) -> None:
    newest |= {"trunk": HostError("the server is away"), "branches/5-0": SourceError("there is no such branch")}
    assert night(engine) == [("trunk", None, ["a", "b"]), ("branches/5-1", "8", ["a", "b"])]


@pytest.mark.parametrize(
    ("ended", "cells"),
    [
        ({"a": SUCCESS, "b": FAILURE}, None),
        ({"a": SUCCESS, "b": EXCEPTION}, ["b"]),
        ({"a": SUCCESS, "b": None}, ["b"]),
        ({"a": SUCCESS}, ["b"]),
    ],
    ids=["all judged", "the farm's fault", "not built yet", "a new cell"],
)
def test_where_the_site_says_so_no_cell_judges_the_same_revision_in_two_nights(
    engine: sa.Engine, ended: dict[str, int | None], cells: list[str] | None
) -> None:
    had(engine, TRUNK, 24, **ended)
    assert night(engine, nightly_branches=[], nightly="commits") == ([("trunk", "9", cells)] if cells else [])
    assert night(engine, nightly_branches=[]) == [("trunk", "9", ["a", "b"])]


def test_the_main_branch_of_a_git_repository_has_the_nights_of_the_trunk_also_where_it_has_moved(
    engine: sa.Engine, newest: dict[str, Any]
) -> None:
    newest |= {"git/oscar/master": "a" * 40, "git/oscar/5-1": "b" * 40}
    with engine.begin() as connection:
        query = "INSERT INTO changes (changeid, project, branch, repository) VALUES (:number, :project, :branch, :url)"
        for number, branch in ((6, "git/oscar/topic"), (7, "git/oscar/5-1"), (8, "git/oscar/5-1")):
            row = {"number": number, "project": PROJECT, "branch": branch, "url": f"git://moved/{number}"}
            connection.execute(sa.text(query), row)
    git = Git(name="oscar", url="git://h/o", main="master")
    asked = night(engine, (git,), nightly_branches=["git/oscar/5-*"])
    assert [(branch, revision) for branch, revision, _ in asked] == [
        ("trunk", "9"),
        ("git/oscar/master", "a" * 40),
        ("git/oscar/5-1", "b" * 40),
    ]


def test_a_release_is_no_branch_that_is_maintained(engine: sa.Engine, newest: dict[str, Any]) -> None:
    newest |= {"branches/x": "6", "tarballs/ftp": "5.1"}
    with engine.begin() as connection:
        said = {"project": PROJECT, "branch": "tarballs/ftp", "repository": URL}
        query = "INSERT INTO changes (changeid, project, branch, repository) VALUES (6, :project, :branch, :repository)"
        connection.execute(sa.text(query), said)
    assert {branch for branch, _, _ in night(engine, nightly_branches=["*"])} == {
        "trunk", "branches/5-0", "branches/5-1", "branches/x",
    }  # fmt: skip


def test_another_revision_has_its_night(engine: sa.Engine) -> None:
    had(engine, TRUNK.model_copy(update={"revision": "8"}), 24, a=SUCCESS, b=SUCCESS)
    assert night(engine, nightly_branches=[], nightly="commits") == [("trunk", "9", ["a", "b"])]


def test_the_same_revision_with_another_external_has_its_night(engine: sa.Engine) -> None:
    external = External(path="vendor", url="svn://h/oscar/vendor", revision="5")
    had(engine, TRUNK.model_copy(update={"externals": (external,)}), 24, a=SUCCESS, b=SUCCESS)
    assert night(engine, nightly_branches=[], nightly="commits") == [("trunk", "9", ["a", "b"])]


def test_an_external_on_another_server_may_be_another_one_by_now_so_there_is_a_night(
    engine: sa.Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = TRUNK.model_copy(update={"externals": (External(path="x", url="svn://elsewhere/x", revision="HEAD"),)})

    async def exact(*_: Any) -> Source:
        return source

    monkeypatch.setattr(clock, "exact_source", exact)
    had(engine, source, 24, a=SUCCESS, b=SUCCESS)
    assert night(engine, nightly_branches=[], nightly="commits") == [("trunk", source.revision, ["a", "b"])]


def test_a_night_that_was_cut_short_goes_on_with_what_was_not_asked_for(engine: sa.Engine) -> None:
    had(engine, TRUNK, 1, a=None, b=None)
    assert [branch for branch, *_ in night(engine)] == ["branches/5-0", "branches/5-1"]


@pytest.mark.parametrize(
    ("last", "now", "begins"),
    [
        ("2026-11-29T02:30", "2026-11-30T09:00", "2026-11-30T09:00"),
        ("2026-11-20T02:30", "2026-11-30T09:00", "2026-11-30T09:00"),
        ("2026-11-29T02:30", "2026-11-30T20:00", "2026-12-01T02:30"),
        ("2026-11-28T02:30", "2026-11-30T02:00", "2026-11-30T02:30"),
        ("2026-11-30T02:30", "2026-11-30T02:31", "2026-12-01T02:30"),
        ("2026-11-30T09:00", "2026-11-30T09:01", "2026-12-01T02:30"),
    ],
    ids=["off in the night", "off for days: one night", "too late", "the next is near", "done", "made up for: once"],
)
def test_a_night_that_was_missed_is_made_up_for_once_and_soon_or_not_at_all(
    last: str, now: str, begins: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = Site.model_validate({"repository": {"url": URL}, "worker": [{"name": "w"}]})
    scheduler = nightly(site, ["cell"])
    scheduler.hour, scheduler.minute, scheduler.dayOfWeek = 2, 30, "*"
    scheduler.now = lambda: datetime.fromisoformat(now).timestamp()
    later: list[float] = []
    timer = SimpleNamespace(cancel=lambda: None)
    reactor = SimpleNamespace(callLater=lambda seconds, _what: later.append(seconds) or timer)
    monkeypatch.setattr(OncePerNight, "master", SimpleNamespace(reactor=reactor))
    scheduler.lastActuated = datetime.fromisoformat(last).timestamp()
    defer.ensureDeferred(scheduler._scheduleNextBuild_locked())
    assert [scheduler.now() + seconds for seconds in later] == [datetime.fromisoformat(begins).timestamp()]


def test_a_night_counts_as_done_when_all_of_it_was_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    site = Site.model_validate({"repository": {"url": URL}, "worker": [{"name": "w"}]})
    scheduler = nightly(site, ["cell"])
    state = {"last_build": 200.0}

    async def get(_self: Any, name: str, *default: Any) -> Any:
        return state.get(name, *default)

    monkeypatch.setattr(clock.schedulers.Nightly, "getState", get)
    assert scheduler.getState("last_build", None).result == 200.0, "a farm from before this was noted"
    state["night_done"] = 100.0
    assert scheduler.getState("last_build", None).result == 100.0
