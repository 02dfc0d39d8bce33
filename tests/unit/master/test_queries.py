"""What the farm asks Buildbot's tables: on both databases, with Buildbot's own columns and keys."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import pytest
import sqlalchemy as sa
from buildbot.db.model import Model
from buildbot.process.results import CANCELLED, EXCEPTION, FAILURE, RETRY, SKIPPED, SUCCESS

from oscar_steps.master.bisect import case
from oscar_steps.master.durability.once import REPEAT_OF
from oscar_steps.master.fair import _last_builds
from oscar_steps.master.history.record import SAME_AS
from oscar_steps.master.reports.candidate import _buildsets_of
from oscar_steps.master.scale import distribution, registry
from oscar_steps.master.schedules import busy, clock, commit
from oscar_steps.master.schedules.names import BISECT, CANDIDATE, CHANGES, IDENTITY, NIGHTLY, PER_COMMIT
from oscar_steps.master.waiting import _last_spans
from oscar_steps.master.watch.svn import PROJECT

URL = "svn://h/oscar"


class Rows:
    """Fills the tables as Buildbot does. Ids count from 1 in each table."""

    def __init__(self, engine: sa.Engine) -> None:
        self.engine = engine
        self.numbers: dict[str, int] = {}
        self.cells: dict[str, int] = {}
        self.master = self.add(Model.masters, name="m", name_hash="m", active=1, last_active=1)

    def add(self, table: sa.Table, **row: Any) -> int:
        number = self.numbers[table.name] = self.numbers.get(table.name, 0) + 1
        key = "changeid" if table is Model.changes else "id"
        with self.engine.begin() as connection:
            connection.execute(table.insert().values({key: number} | row if key in table.columns else row))
        return number

    def ask(self, query: Any, *arguments: Any) -> Any:
        """As Buildbot's pool asks."""
        with self.engine.connect() as connection:
            return query(connection, *arguments)

    def stamp(self, branch: str | None, revision: str) -> int:
        number = self.numbers.get(Model.sourcestamps.name, 0) + 1
        said = {"branch": branch, "revision": revision, "repository": URL, "project": PROJECT}
        return self.add(Model.sourcestamps, ss_hash=str(number), created_at=1, **said)

    def change(self, branch: str | None, revision: str = "1", project: str = PROJECT) -> int:
        said = {"author": "a", "comments": "c", "when_timestamp": 1, "project": project, "repository": URL}
        return self.add(Model.changes, branch=branch, revision=revision, sourcestampid=self.stamp(branch, "1"), **said)

    def cell(self, name: str) -> int:
        if name not in self.cells:
            self.cells[name] = self.add(Model.builders, name=name, name_hash=name)
        return self.cells[name]

    def buildset(
        self, scheduler: str, branch: str, revision: str = "1", *cells: str, submitted: int = 1, **said: Any
    ) -> list[int]:
        """The requests that were made. Those of a cell 'name!3' have that result."""
        number = self.add(Model.buildsets, submitted_at=submitted, complete=0)
        stamp = self.stamp(branch, revision)
        self.add(Model.buildset_sourcestamps, buildsetid=number, sourcestampid=stamp)
        for name, value in ({"scheduler": scheduler} | said).items():
            row = {"property_name": name, "property_value": json.dumps([value, "Scheduler"])}
            self.add(Model.buildset_properties, buildsetid=number, **row)
        requests = []
        for cell in cells:
            name, _, result = cell.partition("!")
            done = {"complete": int(bool(result)), "results": int(result) if result else -1}
            row = {"builderid": self.cell(name), "submitted_at": submitted, **done}
            requests.append(self.add(Model.buildrequests, buildsetid=number, **row))
        return requests

    def build(self, cell: str, results: int | None, ended: int | None) -> int:
        (request,) = self.buildset(NIGHTLY, "trunk", "1", cell)
        number = self.numbers.get(Model.builds.name, 0) + 1
        row = {"builderid": self.cell(cell), "buildrequestid": request, "masterid": self.master, "results": results}
        done = {"started_at": 1, "complete_at": ended, "locks_duration_s": 0, "state_string": ""}
        return self.add(Model.builds, number=number, **row, **done)

    def say(self, build: int, name: str, value: Any) -> None:
        """A property of a build."""
        with self.engine.begin() as connection:
            row = {"buildid": build, "name": name, "value": json.dumps(value), "source": "x"}
            connection.execute(Model.build_properties.insert().values(row))


@pytest.fixture
def rows(engine: sa.Engine) -> Rows:
    return Rows(engine)


ODD = "branches/ü ' \" % _ \\ [x]"


def test_the_branches_with_commits_are_those_of_the_project(rows: Rows) -> None:
    for branch in ("trunk", ODD, "trunk", None):
        rows.change(branch)
    rows.change("other", project="x")
    assert rows.ask(clock._known_branches, Model) == sorted([(URL, "trunk"), (URL, ODD)])


def test_a_night_that_was_asked_for_is_found_by_its_branch_and_time(rows: Rows) -> None:
    rows.buildset(NIGHTLY, ODD, "7", "a", submitted=100)
    rows.buildset(PER_COMMIT, "trunk", "7", "a", submitted=100)

    def asked(branch: str, since: float, until: float) -> Any:
        return rows.ask(clock._asked_between, Model, NIGHTLY, URL, branch, since, until)

    assert asked(ODD, 99.5, 100.5)
    assert not asked(ODD, 100.5, 200.0)
    assert not asked(ODD, 0.0, 99.5)
    assert not asked("trunk", 0.0, 200.0)


def test_the_cells_that_a_night_has_tested_are_those_with_a_result(rows: Rows) -> None:
    same, other = {IDENTITY: "7" * 64}, {IDENTITY: "8" * 64}
    rows.buildset(NIGHTLY, "trunk", "7", f"a!{SUCCESS}", f"b!{FAILURE}", f"c!{EXCEPTION}", "d", **same)
    rows.buildset(NIGHTLY, "trunk", "7", f"e!{SUCCESS}", **other)
    rows.buildset(NIGHTLY, "trunk", "7", f"f!{SUCCESS}")
    assert rows.ask(clock._tested, Model, NIGHTLY, URL, "trunk", "7" * 64) == {"a", "b"}


def test_the_changes_that_builds_were_asked_for_and_forgetting_them(rows: Rows) -> None:
    scheduler = rows.add(Model.schedulers, name="s", name_hash="s")
    numbers = [rows.change("trunk") for _ in range(3)]
    for number in numbers:
        rows.add(Model.scheduler_changes, schedulerid=scheduler, changeid=number, important=1)
    rows.buildset(PER_COMMIT, "trunk", "1", "a", **{CHANGES: numbers[:2]})
    rows.buildset(PER_COMMIT, "trunk", "1", "a", **{CHANGES: None})
    assert rows.ask(commit.changes_with_builds, Model) == numbers[:2]
    rows.buildset(PER_COMMIT, "trunk", "1", "a", **{CHANGES: [34]})
    assert [rows.ask(commit._was_asked_for, Model, number) for number in (1, 2, 3, 34)] == [True, True, False, True]
    rows.ask(commit._forget, Model, scheduler, numbers[:2])
    rows.ask(commit._forget, Model, scheduler, [])
    left = rows.ask(lambda connection: connection.execute(sa.select(Model.scheduler_changes.c.changeid)).fetchall())
    assert [number for (number,) in left] == numbers[2:]


def test_a_request_speaks_for_those_that_it_replaced(rows: Rows) -> None:
    rows.buildset(PER_COMMIT, ODD, "1", f"a!{SUCCESS}", **{CHANGES: [1]})
    rows.buildset(PER_COMMIT, ODD, "2", f"a!{SKIPPED}", **{CHANGES: [2]})
    rows.buildset(PER_COMMIT, "trunk", "3", f"a!{SKIPPED}", **{CHANGES: [3]})
    rows.buildset(PER_COMMIT, ODD, "4", f"a!{FAILURE}", **{CHANGES: [4], REPEAT_OF: 2})
    rows.buildset(PER_COMMIT, ODD, "5", f"a!{CANCELLED}", **{CHANGES: [5, 6]})
    (last,) = rows.buildset(PER_COMMIT, ODD, "7", "a", **{CHANGES: [7]})
    assert rows.ask(busy._replaced, Model, rows.cell("a"), last, ODD) == [5, 6, 2]


def test_the_builds_of_a_search_are_found_by_their_red_build(rows: Rows) -> None:
    rows.buildset(BISECT, "trunk", "1", "a", **{BISECT: [9, 3]})
    rows.buildset(BISECT, "trunk", "1", "a", **{BISECT: [8, 1]})
    assert rows.ask(case._asked_for, Model) == [(1, (9, 3)), (2, (8, 1))]


def test_the_buildsets_of_a_release_are_its_own(rows: Rows) -> None:
    rows.buildset(CANDIDATE, "tarballs/r", "1", "a", **{CHANGES: [1]})
    rows.buildset(CANDIDATE, "tarballs/r", "1", "a", **{CHANGES: [11]})
    rows.buildset(PER_COMMIT, "trunk", "1", "a", **{CHANGES: [1]})
    rows.buildset(CANDIDATE, "tarballs/r", "1", "a", **{CHANGES: [1], REPEAT_OF: 1})
    assert rows.ask(_buildsets_of, Model, 1) == [1, 4]


def test_of_each_cell_the_last_build_and_the_last_that_says_something_are_known(rows: Rows) -> None:
    rows.build("a", FAILURE, 10)
    rows.build("a", EXCEPTION, 20)
    rows.build("b", SUCCESS, 15)
    rows.build("b", RETRY, 30)
    rows.build("b", None, None)
    assert rows.ask(_last_builds, Model) == [("a", 2, 10.0), ("b", 0, 15.0), ("b", 0, 15.0), ("a", 4, 20.0)]


def test_the_cells_for_which_something_waits_have_their_highest_priority(rows: Rows) -> None:
    first, _ = rows.buildset(NIGHTLY, "trunk", "1", "a", "b")
    rows.buildset(NIGHTLY, "trunk", "1", "a", f"c!{SUCCESS}")
    claim = Model.buildrequest_claims.insert().values(brid=first, masterid=rows.master, claimed_at=1)
    with rows.engine.begin() as connection:
        connection.execute(claim)
        connection.execute(Model.buildrequests.update().where(Model.buildrequests.c.id == 3).values(priority=5))
    assert sorted(rows.ask(distribution._unclaimed, Model)) == [(1, 5), (2, 0)]


def test_builders_are_noted_described_and_read(rows: Rows) -> None:
    def config(name: str, description: str | None, *tags: str) -> Any:
        return SimpleNamespace(name=name, description=description, tags=list(tags), project=None)

    def note(*configs: Any) -> dict[str, int]:
        with rows.engine.begin() as connection:
            return registry._note(connection, Model, rows.master, configs)

    ids = note(config("a", "one", "x", "y"), config("ü'%", None))
    assert note(config("a", "two", "y"), config("ü'%", None)) == ids
    builder = rows.ask(registry._read_one, Model, ids["a"])
    assert (builder.name, builder.description, builder.tags, builder.masterids) == ("a", "two", ["y"], [rows.master])
    assert rows.ask(registry._read_one, Model, 99) is None


def test_what_a_cells_runs_took_is_told_by_its_last_five_that_were_runs(rows: Rows) -> None:
    rows.build("other", SUCCESS, 7)
    rows.build("a", SUCCESS, 9000)
    for minutes in range(10, 15):
        rows.say(rows.build("a", FAILURE if minutes % 2 else SUCCESS, 1 + 60 * minutes), "nodes", 2)
        for outcome in (SUCCESS, FAILURE):
            rows.say(rows.build("a", outcome, 4), SAME_AS, 1)
    for results in (SKIPPED, EXCEPTION, RETRY, CANCELLED):
        rows.build("a", results, 3)
    rows.build("a", None, None)
    assert rows.ask(_last_spans, Model, rows.cell("a")) == [60 * minutes for minutes in (14, 13, 12, 11, 10)]
    assert rows.ask(_last_spans, Model, rows.cell("new")) == []
