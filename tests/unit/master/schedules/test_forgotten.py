"""A commit that was stored when the master ended, before its build was asked for, is not forgotten."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from types import SimpleNamespace
from typing import Any

import pytest
import sqlalchemy as sa
from buildbot.changes.filter import ChangeFilter
from buildbot.data import resultspec
from buildbot.db.model import Model
from twisted.internet import defer, task

from oscar_steps.master.schedules import commit as schedulers
from oscar_steps.master.schedules.commit import PerCommit, WatchedBranch
from oscar_steps.master.schedules.names import CHANGES
from oscar_steps.master.watch.svn import PROJECT
from oscar_steps.site import Schedule
from oscar_steps.verdict import LINT


class Data:
    """A master's database: changes by number and branch, and for which of them builds were asked."""

    def __init__(self, stored: dict[int, str], asked: Sequence[Sequence[int]], waiting: Sequence[int]) -> None:
        self.stored = stored
        self.model = Model
        self.pool = self.schedulers = self.changes = self
        self.engine = sa.create_engine("sqlite://", poolclass=sa.pool.StaticPool)
        with self.engine.begin() as connection:
            connection.execute(sa.text("CREATE TABLE scheduler_changes (schedulerid, changeid, important)"))
            for number in waiting:
                connection.execute(Model.scheduler_changes.insert().values(schedulerid=1, changeid=number, important=1))
            connection.execute(sa.text("CREATE TABLE buildset_properties (buildsetid, property_name, property_value)"))
        self.buildsets = 0
        for changes in asked:
            self.ask(changes)

    def ask(self, changes: Sequence[int]) -> None:
        """Store that a build was asked for."""
        self.buildsets += 1
        with self.engine.begin() as connection:
            for name, value in ((CHANGES, changes), ("scheduler", LINT)):
                told = json.dumps([value, "Scheduler"])
                row = {"buildsetid": self.buildsets, "property_name": name, "property_value": told}
                connection.execute(Model.buildset_properties.insert().values(row))

    async def do(self, query: Any, *arguments: Any) -> Any:
        with self.engine.connect() as connection:
            return query(connection, *arguments)

    @property
    def waiting(self) -> list[int]:
        with self.engine.connect() as connection:
            return sorted(row.changeid for row in connection.execute(sa.select(Model.scheduler_changes)))

    async def getChangeClassifications(self, _scheduler: int, branch: str = "", **_more: str) -> dict[int, bool]:
        return {number: True for number in self.waiting if not branch or self.stored[number] == branch}

    async def flushChangeClassifications(self, scheduler: int, less_than: int) -> None:
        """As Buildbot's own does it."""
        table = Model.scheduler_changes
        with self.engine.begin() as connection:
            connection.execute(table.delete().where(table.c.schedulerid == scheduler, table.c.changeid < less_than))

    async def get(self, _path: tuple[str], **how: Any) -> list[dict[str, Any]]:
        rows = [{"changeid": number, "when_timestamp": self.when(number)} for number in self.stored]
        found: list[dict[str, Any]] = resultspec.ResultSpec(**how).apply(rows)
        return found

    def when(self, number: int) -> int:
        """Commits on branches are a week old."""
        return int(time.time()) - (0 if self.stored[number] == "trunk" else 7 * 86400)

    async def getChange(self, number: int) -> Any:
        return SimpleNamespace(
            number=number, revision=str(number), branch=self.stored[number], project=PROJECT, repository="r"
        )


class Alone(PerCommit):
    """The scheduler without a master's service tree; it notes what it would ask for."""

    master: Any = None
    reason, priority, treeStableTimer = "", 0, None

    def __init__(self, data: Data) -> None:
        super().__init__(name=LINT, builderNames=[LINT], change_filter=ChangeFilter(project=PROJECT))
        self.serviceid = 1
        self.change_filter = ChangeFilter(project=PROJECT, branch_fn=WatchedBranch(Schedule()))
        self.master = SimpleNamespace(db=data, data=data)
        self.asked: list[int] = []
        self.refusals, self.stored_all_the_same = 0, False

    def addBuildsetForChanges(self, **arguments: Any) -> Any:
        if self.refusals:
            self.refusals -= 1
            if self.stored_all_the_same:
                self.master.db.ask(arguments["changeids"])
            return defer.fail(OSError("the server closed the connection"))
        self.asked += arguments["changeids"]
        return defer.succeed(None)


async def _as_it_is(_master: Any, found: Any) -> Any:
    return found


@pytest.fixture(autouse=True)
def databases_are_closed(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    made: list[sa.Engine] = []
    create = sa.create_engine
    monkeypatch.setattr(sa, "create_engine", lambda *words, **more: made.append(create(*words, **more)) or made[-1])
    yield
    for engine in made:
        engine.dispose()


@pytest.fixture(autouse=True)
def changes_as_stored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schedulers, "Change", SimpleNamespace(fromChdict=_as_it_is))


@pytest.fixture
def noted(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the scheduler writes into the log as an error."""
    errors: list[str] = []
    monkeypatch.setattr(schedulers.log, "err", lambda _error, why: errors.append(why))
    return errors


def caught_up(stored: dict[int, str], asked: Sequence[Sequence[int]], waiting: Sequence[int] = ()) -> Alone:
    scheduler = Alone(Data(stored, asked, waiting))
    done = defer.ensureDeferred(scheduler._catch_up())
    assert done.called
    done.addErrback(lambda failure: failure.raiseException())
    assert done.result is None
    return scheduler


TRUNK = dict.fromkeys(range(1, 7), "trunk")


@pytest.mark.parametrize(
    ("asked", "waiting", "heard"),
    [
        ([[1], [2], [3], [4]], [], [5, 6]),
        ([[1], [2, 3, 4, 5, 6]], [], []),
        ([[1], [2]], [3, 4], [5, 6]),
        ([], [], [1, 2, 3, 4, 5, 6]),
    ],
    ids=["after the last one with a build", "none", "those that wait to be quiet are known", "killed at the first"],
)
def test_changes_that_no_build_was_asked_for_are_heard_at_the_start(
    asked: list[list[int]], waiting: list[int], heard: list[int]
) -> None:
    assert caught_up(TRUNK, asked, waiting).asked == heard


def test_a_change_that_the_database_refused_before_it_took_the_next_is_heard_at_the_start() -> None:
    stored = TRUNK | {3: "branches/watched-since-today"}
    assert caught_up(stored, [[1], [5]]).asked == [2, 4, 6]
    assert caught_up(TRUNK, [[2], [5]], [3]).asked == [1, 4, 6]


def test_a_change_whose_build_is_long_ago_is_not_built_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """A commit of git's may have a date that is still to come."""
    monkeypatch.setattr(schedulers, "_LOOK_BACK", 1)
    assert caught_up(TRUNK, [[2, 3], [12], [4], [1], [6]]).asked == [5]


def test_a_branch_that_is_not_watched_stays_so() -> None:
    assert caught_up({1: "trunk", 2: "elsewhere", 3: "trunk"}, [[1]]).asked == [3]


def test_a_change_that_comes_by_itself_as_well_is_built_once() -> None:
    scheduler = caught_up(TRUNK, [[1], [2], [3], [4]])
    scheduler.gotChange(SimpleNamespace(number=5, repository="r"), True)
    scheduler.gotChange(SimpleNamespace(number=7, repository="r"), True)
    assert scheduler.asked == [5, 6, 7]
    assert defer.ensureDeferred(scheduler._catch_up()).called
    assert scheduler.asked == [5, 6, 7]


def quiet(stored: dict[int, str], asked: Sequence[Sequence[int]], waiting: Sequence[int], branch: str) -> Alone:
    """The scheduler after a branch has been quiet for long enough."""
    scheduler = Alone(Data(stored, asked, waiting))
    name = ("", PROJECT, "r", branch)
    scheduler._stable_timers[name] = object()
    done = scheduler.stableTimerFired(name)
    done.addErrback(lambda failure: failure.raiseException())
    assert done.called
    return scheduler


def test_a_branch_that_is_quiet_takes_no_earlier_commit_of_another_branch_with_it() -> None:
    scheduler = quiet({5: "branches/a", 6: "trunk", 7: "branches/a"}, [], [5, 6, 7], "trunk")
    assert scheduler.asked == [6]
    assert scheduler.master.db.waiting == [5, 7]


def test_commits_whose_build_was_asked_for_when_the_master_was_killed_are_forgotten_and_not_asked_again() -> None:
    scheduler = quiet(TRUNK, [[5, 6]], [5, 6], "trunk")
    assert (scheduler.asked, scheduler.master.db.waiting) == ([], [])
    scheduler = quiet(TRUNK, [[4, 5]], [4, 5, 6], "trunk")
    assert (scheduler.asked, scheduler.master.db.waiting) == ([6], [])


def with_clock(stored: dict[int, str], waiting: Sequence[int]) -> tuple[Alone, task.Clock]:
    """A scheduler whose database fails twice."""
    scheduler, clock = Alone(Data(stored, [], waiting)), task.Clock()
    scheduler.master.reactor, scheduler.refusals, scheduler.active = clock, 2, True
    return scheduler, clock


def test_a_repository_may_have_each_commit_tested_by_itself_though_others_wait_for_a_quiet_branch() -> None:
    scheduler, _ = with_clock(TRUNK, [])
    scheduler.each, scheduler.treeStableTimer = frozenset({"each"}), 60
    scheduler.refusals = 0
    scheduler.gotChange(SimpleNamespace(number=5, repository="each"), True)
    assert scheduler.asked == [5]


def test_a_change_that_the_database_did_not_take_is_tried_again(noted: list[str]) -> None:
    scheduler, clock = with_clock(TRUNK, [])
    scheduler.gotChange(SimpleNamespace(number=5, revision="5", repository="r"), True)
    assert scheduler.asked == []
    clock.pump([schedulers.AGAIN_SECONDS] * 4)
    assert scheduler.asked == [5]
    assert len(noted) == 2


def test_a_change_that_the_database_took_and_denied_is_not_built_twice(noted: list[str]) -> None:
    scheduler, clock = with_clock(TRUNK, [])
    scheduler.stored_all_the_same = True
    scheduler.gotChange(SimpleNamespace(number=5, revision="5", repository="r"), True)
    clock.pump([schedulers.AGAIN_SECONDS] * 4)
    assert scheduler.asked == []
    assert len(noted) == 1


def test_a_quiet_branch_whose_build_the_database_did_not_take_is_asked_for_again(noted: list[str]) -> None:
    scheduler, clock = with_clock(TRUNK, [5, 6])
    name = ("", PROJECT, "r", "trunk")
    scheduler._stable_timers[name] = object()
    scheduler.stableTimerFired(name)
    assert (scheduler.asked, scheduler.master.db.waiting) == ([], [5, 6])
    clock.pump([schedulers.AGAIN_SECONDS] * 4)
    assert (scheduler.asked, scheduler.master.db.waiting) == ([5, 6], [])
    assert len(noted) == 2


def test_a_scheduler_that_ends_tries_nothing_again(noted: list[str]) -> None:
    scheduler, clock = with_clock(TRUNK, [])
    scheduler.gotChange(SimpleNamespace(number=5, revision="5", repository="r"), True)
    scheduler.active = False
    clock.pump([schedulers.AGAIN_SECONDS] * 4)
    assert scheduler.asked == []
    assert len(noted) == 1
