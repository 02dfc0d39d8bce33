"""A cell that is busy when the next commits come: the newest wins, and nobody's name is lost."""

from __future__ import annotations

import json
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import sqlalchemy as sa
from buildbot.db.model import Model
from buildbot.process.properties import Properties
from buildbot.process.results import CANCELLED, EXCEPTION, FAILURE, SKIPPED, SUCCESS
from twisted.internet import defer

from oscar_steps.master.durability.once import AGAIN_OF, REPEAT_OF
from oscar_steps.master.schedules import busy
from oscar_steps.master.schedules.busy import all_changes, newest_of_each
from oscar_steps.master.schedules.names import BISECT, CHANGES, FORCE, PER_COMMIT


@pytest.fixture(autouse=True)
def forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(busy, "_closed", set())


def request(number: int, branch: str = "trunk", *, patch: Any = None, **said: Any) -> Any:
    properties = Properties(**({"scheduler": PER_COMMIT, CHANGES: [number]} | said))
    stamp = SimpleNamespace(branch=branch, repository="svn://h/oscar", patch=patch)
    return SimpleNamespace(id=number, properties=properties, sources={"": stamp})


def left(*requests: Any) -> tuple[list[int], list[int]]:
    """The requests that are left, and those that were closed."""
    closed: list[int] = []

    async def complete(numbers: list[int], result: int) -> None:
        assert result == SKIPPED
        closed.extend(numbers)

    updates = SimpleNamespace(completeBuildRequests=complete)
    builder = SimpleNamespace(name="c", master=SimpleNamespace(data=SimpleNamespace(updates=updates)))
    done = defer.ensureDeferred(newest_of_each(builder, requests))
    again = defer.ensureDeferred(newest_of_each(builder, requests))
    assert [each.id for each in done.result] == [each.id for each in again.result], "Buildbot may offer them again"
    return [each.id for each in done.result], closed


def test_of_the_commits_that_wait_on_a_branch_the_newest_is_left() -> None:
    assert left(request(3), request(1), request(2)) == ([3], [1, 2])
    assert left(request(7)) == ([7], [])


def test_other_branches_and_what_a_person_asked_for_are_left_alone() -> None:
    others = [
        request(11, "branches/a"),
        request(12, scheduler=FORCE, owner="x"),
        request(13, **{CHANGES: []}),
        request(14, **{AGAIN_OF: 2}),
        request(19, **{BISECT: {"of": 1}}),
        request(20, **{REPEAT_OF: 1}),
        request(15, patch=(0, b"x", "")),
        request(16, "tarballs/releases"),
        request(17, "tarballs/releases"),
    ]
    assert left(request(10), *others, request(18)) == ([11, 12, 13, 14, 19, 20, 15, 16, 17, 18], [10])


class Database:
    """Requests of one builder, the oldest first: (branch, changes, result or None, what else is said)."""

    def __init__(self, *rows: tuple[str, list[int], int | None, dict[str, Any]]) -> None:
        self.model, self.pool = Model, self
        self.engine = sa.create_engine("sqlite://", poolclass=sa.pool.StaticPool)
        with self.engine.begin() as connection:
            for table in (
                Model.buildrequests,
                Model.buildset_sourcestamps,
                Model.sourcestamps,
                Model.buildset_properties,
            ):
                names = ", ".join(column.name for column in table.columns)
                connection.execute(sa.text(f"CREATE TABLE {table.name} ({names})"))
            for number, (branch, changes, results, more) in enumerate(rows, 1):
                complete = int(results is not None)
                row = {"id": number, "buildsetid": number, "builderid": 1, "complete": complete, "results": results}
                connection.execute(Model.buildrequests.insert().values(row))
                stamp = {"id": number, "branch": branch, "ss_hash": str(number), "created_at": 0}
                connection.execute(Model.sourcestamps.insert().values(stamp))
                link = {"id": number, "buildsetid": number, "sourcestampid": number}
                connection.execute(Model.buildset_sourcestamps.insert().values(link))
                for name, value in ({"scheduler": PER_COMMIT, CHANGES: changes} | more).items():
                    said = {"buildsetid": number, "property_name": name, "property_value": json.dumps([value, "x"])}
                    connection.execute(Model.buildset_properties.insert().values(said))

    async def do(self, query: Any, *arguments: Any) -> Any:
        with self.engine.connect() as connection:
            return query(connection, *arguments)


@pytest.fixture(autouse=True)
def databases_are_closed(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    made: list[sa.Engine] = []
    create = sa.create_engine
    monkeypatch.setattr(sa, "create_engine", lambda *words, **more: made.append(create(*words, **more)) or made[-1])
    yield
    for engine in made:
        engine.dispose()


def changes_of_next(*rows: tuple[str, list[int], int | None, dict[str, Any]], **said: Any) -> list[int]:
    """The changes of the build of a request that comes after these, with the change 99."""

    async def builder() -> int:
        return 1

    given = {"scheduler": PER_COMMIT, CHANGES: [99], "branch": "trunk"} | said
    build = SimpleNamespace(requests=[SimpleNamespace(id=len(rows) + 1)], getBuilderId=builder)
    step: Any = SimpleNamespace(getProperty=given.get, build=build, master=SimpleNamespace(db=Database(*rows)))
    done = defer.ensureDeferred(all_changes(step))
    return list(done.result)


BUILT: tuple[str, list[int], int | None, dict[str, Any]] = ("trunk", [1], SUCCESS, {})


def test_the_newest_is_for_the_changes_of_all_that_it_replaced() -> None:
    assert changes_of_next(BUILT, ("trunk", [2], SKIPPED, {}), ("trunk", [3, 4], SKIPPED, {})) == [2, 3, 4, 99]


def test_what_was_cancelled_before_its_build_said_anything_is_tested_with_the_next() -> None:
    assert changes_of_next(("trunk", [2], SKIPPED, {}), ("trunk", [3], CANCELLED, {})) == [2, 3, 99]


@pytest.mark.parametrize("ended", [SUCCESS, FAILURE, EXCEPTION, None])
def test_no_change_is_told_twice(ended: int | None) -> None:
    assert changes_of_next(("trunk", [2], SKIPPED, {}), ("trunk", [3], ended, {})) == [99]


def test_other_branches_retries_and_forced_builds_are_passed_over() -> None:
    rows = [
        ("trunk", [2], SKIPPED, {}),
        ("branches/a", [5], SKIPPED, {}),
        ("trunk", [6], SKIPPED, {AGAIN_OF: 1}),
        ("trunk", [], SUCCESS, {"scheduler": FORCE}),
    ]
    assert changes_of_next(BUILT, *rows) == [2, 99]


def test_a_build_that_no_commit_caused_is_for_no_change() -> None:
    assert changes_of_next(("trunk", [2], SKIPPED, {}), **{CHANGES: None}) == []
    assert changes_of_next(("trunk", [2], SKIPPED, {}), scheduler=FORCE) == [99]
