"""What became of every build: the table, and what is made of it."""

from __future__ import annotations

import datetime
import inspect
import re
import time
from collections.abc import Iterator
from dataclasses import asdict, replace
from types import SimpleNamespace
from typing import Any

import pytest
import sqlalchemy as sa
from buildbot.db.model import Model
from buildbot.process.results import CANCELLED, EXCEPTION, FAILURE, RETRY, SKIPPED, SUCCESS

from oscar_steps.job import CellPlan, Timeouts
from oscar_steps.master.durability.once import REPEAT_OF
from oscar_steps.master.history import store, table
from oscar_steps.master.history.record import (
    FARM,
    NOT_COUNTED,
    SAME_AS,
    TESTED,
    VERDICT,
    Result,
    farm_of,
    result_of,
)
from oscar_steps.master.history.store import HistoryService
from oscar_steps.master.schedules.names import CHANGES
from oscar_steps.matrix.cells import default_profiles, load_matrix
from oscar_steps.oscar.known import KnownIssue
from oscar_steps.sources.source import External, Patch, Source
from oscar_steps.verdict import Category, Evidence, ImageReport, Outcome, Stage, Verdict

SOURCE = Source(url="svn://svn/oscar/trunk", revision="7", branch="trunk")
WHEN = datetime.datetime(2026, 11, 30, 4, 0, tzinfo=datetime.UTC)


@pytest.fixture
def connection(engine: sa.Engine) -> Iterator[Any]:
    table.create(engine)
    with engine.connect() as opened:
        yield opened


def note(connection: Any, *results: Result) -> None:
    connection.rollback()  # a question before has begun a transaction
    table.add(connection, results)


def result(build: int, outcome: str = "passed", **more: Any) -> Result:
    plain = Result(
        build=build,
        number=build,
        request=build,
        cell="cell",
        branch="trunk",
        identity="id7",
        source="r7",
        url="svn://svn/oscar/trunk",
        revision="7",
        outcome=outcome,
        signature="wait-nodes:aaaa" if outcome == "failed" else "",
        ended=float(build),
    )
    return replace(plain, **more)


def built(results: int = FAILURE, **more: Any) -> dict[str, Any]:
    return {
        "buildid": 5,
        "number": 3,
        "buildrequestid": 9,
        "builderid": 1,
        "results": results,
        "complete": True,
        "complete_at": WHEN,
        **more,
    }


def verdict(outcome: Outcome = Outcome.FAILED, **more: Any) -> dict[str, Any]:
    made = Verdict(
        run_id="cell-r7-b3",
        cell="cell",
        source=SOURCE.url,
        revision="7",
        outcome=outcome,
        sentence="oscarnode2 panicked",
        stage=Stage.WAIT_NODES,
        category=Category.OSCAR,
        image=ImageReport(key="abcd1234", manifest="m1"),
        evidence=(Evidence("console", 1, ("a line: the old library is gone",)),),
    )
    return made.model_copy(update=more).model_dump(mode="json")


def said(**more: Any) -> dict[str, Any]:
    return {
        VERDICT: verdict(),
        TESTED: SOURCE.model_dump(mode="json"),
        FARM: "f1",
        CHANGES: [11, 12],
        "branch": "trunk",
        "scheduler": "commit",
        "workername": "w1",
        **more,
    }


def test_a_result_says_all_that_decides_what_was_tested_and_how_it_ended() -> None:
    made = result_of(built(), "cell", said(), ())
    assert (made.build, made.number, made.request, made.cell) == (5, 3, 9, "cell")
    assert (made.branch, made.identity, made.source, made.revision) == ("trunk", SOURCE.identity, "r7", "7")
    assert (made.outcome, made.stage, made.category) == ("failed", "wait-nodes", "oscar")
    assert (made.image, made.packages, made.farm, made.worker) == ("abcd1234", "m1", "f1", "w1")
    assert (made.changes, made.ended, made.counts) == ((11, 12), WHEN.timestamp(), True)
    assert made.signature.startswith("wait-nodes:")


def test_what_is_not_known_exactly_is_never_the_same_as_before() -> None:
    elsewhere = (External(path="x", url="svn://elsewhere/x", revision="HEAD"),)
    source = SOURCE.model_copy(update={"externals": elsewhere})
    made = result_of(built(), "cell", said(**{TESTED: source.model_dump(mode="json")}), ())
    assert (made.identity, made.revision) == ("", "7")
    pinned = SOURCE.model_copy(update={"externals": (elsewhere[0].model_copy(update={"revision": "5"}),)})
    made = result_of(built(), "cell", said(**{TESTED: pinned.model_dump(mode="json")}), ())
    assert made.identity == pinned.identity


@pytest.mark.parametrize("wanted", ["main", "0a" * 20])
def test_a_build_whose_commit_was_never_found_is_no_revision_of_subversions(wanted: str) -> None:
    lost = verdict(Outcome.INFRASTRUCTURE, source="git://host/oscar", revision=wanted)
    made = result_of(built(), "cell", {VERDICT: lost, "revision": wanted}, ())
    assert (made.identity, made.source, made.revision) == ("", wanted[:12], wanted)


@pytest.mark.parametrize(
    "more",
    [
        {"scheduler": "force"},
        {"owner": "somebody"},
        {NOT_COUNTED: True},
        {TESTED: SOURCE.model_copy(update={"patch": Patch.of("--- a", "dev")}).without_text().model_dump(mode="json")},
    ],
)
def test_a_forced_a_patched_and_a_bisecting_build_do_not_count(more: dict[str, Any]) -> None:
    assert not result_of(built(), "cell", said(**more), ()).counts


def test_the_known_issues_of_its_cell_that_a_failed_run_shows_are_noted() -> None:
    def issue(reference: str, text: str, cells: str = "*") -> KnownIssue:
        return KnownIssue(text=text, reference=reference, expires=datetime.date(2026, 1, 1), cells=cells)

    issues = (
        issue("T1", "the old library is gone"),
        issue("T2", "the new library"),
        issue("T3", "oscarnode2 panicked", "other-*"),
    )
    assert result_of(built(), "cell", said(), issues).known == ("T1",)
    passed = said(**{VERDICT: verdict(Outcome.PASSED)})
    assert result_of(built(SUCCESS), "cell", passed, issues).known == ()


def test_a_build_without_a_verdict_or_with_a_spoiled_one_has_a_result_all_the_same() -> None:
    bare = result_of(built(CANCELLED), "cell", {}, ())
    assert (bare.outcome, bare.identity, bare.signature) == ("cancelled", "", "")
    spoiled = result_of(built(EXCEPTION), "cell", {VERDICT: {"run_id": 5}, TESTED: "x", "branch": None}, ())
    assert (spoiled.outcome, spoiled.branch) == ("infrastructure", "")
    stopped = result_of(built(CANCELLED), "cell", said(), ())
    assert stopped.outcome == "cancelled"


def test_the_last_results_of_a_cell_and_branch_come_back_as_they_were_noted_newest_first(connection: Any) -> None:
    ours = [result(n, known=("T1",), changes=(n, n + 1), repeat_of=1) for n in (1, 2, 3)]
    note(connection, *ours, result(4, branch="branches/5"), result(5, cell="other"), result(6, counts=False))
    assert table.results_of(connection, "cell", "trunk", 2) == [ours[2], ours[1]]
    assert [each.build for each in table.results_of(connection, "cell", None, 9)] == [4, 3, 2, 1]
    assert [each.build for each in table.results_of(connection, "cell", None, 9, counted=False)] == [6, 4, 3, 2, 1]
    assert [each.build for each in table.results_of(connection, "cell", None, 9, before=3)] == [2, 1]


def test_a_result_that_is_noted_twice_is_there_once(connection: Any) -> None:
    note(connection, result(1))
    note(connection, result(1, "failed"), result(2))
    assert [each.outcome for each in table.results_of(connection, "cell", None, 9)] == ["passed", "passed"]


def test_a_red_is_flaky_where_the_same_thing_passed_before_or_after_it(connection: Any) -> None:
    note(connection, result(1, "failed"), result(2), result(3, "failed"))
    assert [each.flaky for each in table.results_of(connection, "cell", None, 9)] == [True, False, True]
    assert table.flake_rate(connection, "cell", "wait-nodes:aaaa") == table.Rate(2, 3)
    assert table.flake_rate(connection, "cell", "wait-nodes:bbbb") == table.Rate(0, 3)
    assert table.flake_rate(connection, "cell", None, 2) == table.Rate(1, 2)
    assert table.has_flaked(connection, "cell")
    assert not table.has_flaked(connection, "other")


@pytest.mark.parametrize(
    "more",
    [{"identity": "id8"}, {"image": "other"}, {"farm": "f2"}, {"cell": "other"}, {"counts": False}, {"identity": ""}],
)
def test_a_red_is_not_flaky_because_something_else_passed(connection: Any, more: dict[str, Any]) -> None:
    first = result(1, "failed", identity=more.get("identity", "id7") and "id7")
    note(connection, first, result(2, **more))
    assert not any(each.flaky for each in table.results_of(connection, "cell", None, 9, counted=False))


def test_a_fault_of_the_farm_is_never_flaky(connection: Any) -> None:
    note(connection, result(1, "infrastructure", signature="x:1"), result(2))
    assert table.flakes(connection, 0.0, 9) == []
    assert table.flake_rate(connection, "cell", "x:1") == table.Rate(0, 1)


def test_a_signature_has_its_first_its_last_and_how_often_it_was_seen(connection: Any) -> None:
    note(connection, result(1, "failed"), result(2, "failed", cell="other"), result(3, "failed", counts=False))
    everywhere = table.seen(connection, "wait-nodes:aaaa")
    assert (everywhere.count, everywhere.first.build, everywhere.last.build) == (2, 1, 2)  # type: ignore[union-attr]
    assert table.seen(connection, "wait-nodes:aaaa", "other").count == 1
    assert table.seen(connection, "wait-nodes:aaaa", "cell", before=1) == table.Seen()
    assert table.seen(connection, "") == table.Seen()


def test_what_has_flaked_is_listed_by_cell_and_signature_the_last_one_first(connection: Any) -> None:
    note(connection, result(1, "failed"), result(2))
    note(connection, result(3, "failed", cell="other"), result(4, cell="other"), result(5, "failed", cell="red"))
    assert [(each.last.cell, each.rate) for each in table.flakes(connection, 0.0, 9)] == [
        ("other", table.Rate(1, 2)),
        ("cell", table.Rate(1, 2)),
    ]
    assert [each.last.cell for each in table.flakes(connection, 2.0, 9)] == ["other"]


def test_a_known_issue_is_healed_in_a_cell_by_the_first_run_of_its_branch_that_passes_after_it(connection: Any) -> None:
    note(
        connection,
        result(1, "failed", known=("T1",)),
        result(2),
        result(3, "failed", known=("T1",)),
        result(4, branch="branches/5"),
        result(5, counts=False),
        result(6, "failed", cell="other", known=("T1", "T2")),
    )
    first, other = sorted(table.shown(connection, "T1"), key=lambda each: each.cell)
    assert (first.cell, first.count, first.first.build, first.last.build, first.cured) == ("cell", 2, 1, 3, None)
    assert (other.cell, other.count, other.cured) == ("other", 1, None)
    note(connection, result(7), result(8))
    assert [each.cured.build for each in table.shown(connection, "T1") if each.cured] == [7]
    assert table.shown(connection, "T3") == []


def test_what_is_older_than_the_history_goes(connection: Any) -> None:
    note(connection, result(1, "failed", known=("T1",)), result(2))
    connection.rollback()
    table.forget(connection, 2.0)
    assert [each.build for each in table.results_of(connection, "cell", None, 9)] == [2]
    assert table.shown(connection, "T1") == []


def test_no_question_reads_the_whole_table(connection: Any) -> None:
    questions: list[tuple[Any, ...]] = [
        (table.results_of, "cell", "trunk", 9),
        (table.result_of_build, 1),
        (table.seen, "wait-nodes:aaaa", "cell", 9),
        (table.flake_rate, "cell", "wait-nodes:aaaa"),
        (table.has_flaked, "cell"),
        (table.flakes, 0.0, 9),
        (table.judged, "cell", "id7", "f"),
        (table.last_judged, "cell", "trunk", "nightly"),
        (table.shown, "T1"),
    ]
    note(connection, result(1, "failed", known=("T1",)), result(2))
    asked: list[tuple[str, Any]] = []
    sa.event.listen(
        connection.engine,
        "before_cursor_execute",
        lambda _c, _cursor, statement, parameters, _context, _many: asked.append((statement, parameters)),
    )
    for question, *arguments in questions:
        question(connection, *arguments)
    explain = {"sqlite": "EXPLAIN QUERY PLAN", "postgresql": "EXPLAIN"}[connection.dialect.name]
    if explain == "EXPLAIN":  # so few rows are read one after the other otherwise
        connection.exec_driver_sql("SET enable_seqscan = off")
    for statement, parameters in [each for each in asked if not each[0].startswith("SET")]:
        plan = connection.exec_driver_sql(f"{explain} {statement}", parameters).fetchall()
        assert not [row for row in plan if re.search("(SCAN|Seq Scan on) farm_", str(row[-1]))], f"{statement}: {plan}"
    assert len(asked) >= len(questions)


def test_two_runs_of_the_same_job_are_of_the_same_farm_whatever_their_source() -> None:
    matrix = load_matrix(default_profiles())
    job = CellPlan.of(matrix, matrix.cells[0], Timeouts()).job("cell-r7-b1", SOURCE)
    assert farm_of(job) == farm_of(job.model_copy(update={"run_id": "other", "source": SOURCE}))
    assert farm_of(job) != farm_of(job.model_copy(update={"nodes": 7}))


def add(connection: Any, to: sa.Table, **row: Any) -> None:
    connection.execute(to.insert().values(row))


class Master:
    """As much of a master as the service asks."""

    def __init__(self, engine: sa.Engine) -> None:
        self.engine = engine
        with engine.begin() as connection:
            add(connection, Model.masters, id=1, name="m", name_hash="m", active=1, last_active=1)
            add(connection, Model.builders, id=1, name="cell", name_hash="cell")
            add(connection, Model.buildsets, id=1, complete=1, submitted_at=1, complete_at=1, results=0)
        self.db = SimpleNamespace(pool=self, model=Model)
        self.mq = self
        self.data = self
        self.builds: dict[int, dict[str, Any]] = {}
        self.heard: Any = None

    async def do(self, question: Any, *arguments: Any, **settings: Any) -> Any:
        with self.engine.connect() as connection:
            return question(connection, *arguments, **settings)

    async def do_with_engine(self, what: Any) -> None:
        what(self.engine)

    async def startConsuming(self, heard: Any, key: Any) -> Any:
        assert key == ("builds", None, "finished")
        self.heard = heard
        return SimpleNamespace(stopConsuming=lambda: None)

    def says_finished(self, build: dict[str, Any]) -> None:
        """As Buildbot's queue of messages does: it waits for a Deferred, and for nothing else."""
        assert not inspect.iscoroutine(self.heard(None, build))

    async def get(self, path: tuple[Any, ...]) -> Any:
        if path[0] == "builders":
            return {"name": "cell"}
        if path[2:] == ("properties",):
            return {name: (value, "x") for name, value in said(**{REPEAT_OF: 4}).items()}
        return self.builds.get(path[1])

    def has_built(self, number: int, results: int | None) -> dict[str, Any]:
        done = None if results is None else int(time.time())
        with self.engine.begin() as connection:
            add(
                connection, Model.buildrequests, id=number, buildsetid=1, builderid=1, complete=1, priority=0,
                submitted_at=1, complete_at=1, results=0, waited_for=0,
            )  # fmt: skip
            add(
                connection, Model.builds, id=number, number=number, builderid=1, buildrequestid=number, masterid=1,
                started_at=1, complete_at=done, locks_duration_s=0, state_string="", results=results,
            )  # fmt: skip
        self.builds[number] = built(results or 0, buildid=number, complete=results is not None)
        return self.builds[number]


def run(coroutine: Any) -> Any:
    """What a coroutine that waits for nothing gives."""
    while inspect.iscoroutine(coroutine):
        try:
            coroutine.send(None)
        except StopIteration as end:
            return end.value
    return coroutine


def service_of(of_master: Master) -> HistoryService:
    class OfMaster(HistoryService):
        master = of_master

    return OfMaster(issues=())


def noted(master: Master) -> list[int]:
    return [each.build for each in run(master.do(table.results_of, "cell", None, 99))]


def test_a_build_is_noted_when_it_ends_and_one_that_is_taken_up_again_is_not(engine: sa.Engine) -> None:
    master = Master(engine)
    run(service_of(master).reconfigService(issues=()))
    for number, results in ((1, SUCCESS), (2, RETRY)):
        master.says_finished(master.has_built(number, results))
    master.says_finished(master.has_built(3, FAILURE))
    master.says_finished(master.builds[3])
    assert noted(master) == [3, 1]
    assert run(master.do(table.result_of_build, 3)).repeat_of == 4


def test_a_master_notes_after_its_start_what_a_killed_one_could_not(engine: sa.Engine) -> None:
    master = Master(engine)
    for number, results in ((1, SUCCESS), (2, RETRY), (3, None), (4, FAILURE)):
        master.has_built(number, results)
    run(service_of(master).reconfigService(issues=()))
    assert noted(master) == [4, 1]
    master.has_built(5, SUCCESS)
    run(service_of(master).reconfigService(issues=()))
    assert noted(master) == [5, 4, 1]


def test_a_master_that_stops_waits_for_no_queue_of_messages(engine: sa.Engine) -> None:
    master = Master(engine)
    service = service_of(master)
    run(service.reconfigService(issues=()))
    run(service.stopService())
    assert service._consumer is None


HOSTILE = "a\x00b\ud800\u202e\x1b[2J " + "x" * 100_000


def test_whatever_a_run_and_its_source_say_is_noted_and_found_again(connection: Any) -> None:
    hostile = {
        VERDICT: verdict(
            sentence="a\x00b " + "x" * 100_000,
            revision="7\x00",
            oscar_stage="\x00" * 9,
            image=ImageReport(key="k\x00" + "k" * 100_000, manifest="\x00m"),
        ),
        FARM: HOSTILE,
        "branch": HOSTILE,
        "revision": HOSTILE,
        "workername": HOSTILE,
        "scheduler": HOSTILE,
        CHANGES: ["\x00", 5, None, True],
        REPEAT_OF: "\x00no number",
    }
    issue = KnownIssue(text="xxxxxxxxxx", reference="T\x001 " + "r" * 10_000, expires=WHEN.date())
    made = result_of(built(), "cell", hostile, (issue,))
    note(connection, made)
    assert table.result_of_build(connection, 5) == made
    (found,) = table.results_of(connection, "cell", HOSTILE, 9)
    assert found == made
    assert [each.count for each in table.shown(connection, issue.reference)] == [1]
    for text in (made.signature, HOSTILE):
        table.seen(connection, text, HOSTILE)
        table.flake_rate(connection, text, text)
        table.shown(connection, text)


def test_a_result_that_cannot_be_noted_holds_up_no_other(engine: sa.Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    master = Master(engine)
    for number in (1, 2, 3):
        master.has_built(number, SUCCESS)
    plain = result_of

    def sometimes(build: Any, *more: Any) -> Result:
        if build["buildid"] == 2:
            raise ValueError("nobody can read this")
        return plain(build, *more)

    errors: list[str] = []
    monkeypatch.setattr(store.log, "err", lambda _error, why: errors.append(why))
    monkeypatch.setattr(store, "result_of", sometimes)
    run(service_of(master).reconfigService(issues=()))
    assert noted(master) == [3, 1]
    assert errors == ["the result of the build 2 could not be noted"]


def test_a_farm_that_grew_gets_its_table_with_all_that_was_built_before(engine: sa.Engine) -> None:
    """As after a move to another database: Buildbot's `copy-db` copies its own tables."""
    master = Master(engine)
    for number in range(1, 4):
        master.has_built(number * 100_000, SUCCESS)
    run(service_of(master).reconfigService(issues=()))
    assert noted(master) == [300_000, 200_000, 100_000]


def test_a_table_of_an_older_farm_gets_the_columns_and_the_indexes_that_it_lacks(engine: sa.Engine) -> None:
    lacks = {"flaky", "repeat_of", "ended", "known", "packages"}
    old = sa.MetaData()
    columns = [sa.Column(each.name, each.type, primary_key=each.primary_key, nullable=False)
               for each in table.RESULTS.columns if each.name not in lacks]  # fmt: skip
    before = sa.Table(table.RESULTS.name, old, *columns)
    old.create_all(engine)
    values = {name: value for name, value in asdict(result(1)).items() if name not in lacks} | {"changes": "[4]"}
    with engine.begin() as connection:
        connection.execute(before.insert().values(values))
    table.create(engine)
    table.create(engine)
    there = {index["name"] for index in sa.inspect(engine).get_indexes(table.RESULTS.name)}
    assert there >= {index.name for index in table.RESULTS.indexes}
    with engine.connect() as connection:
        note(connection, result(2, "failed", identity="id7", known=("T1",)))
        assert table.result_of_build(connection, 1) == result(1, changes=(4,), ended=0.0)
        assert table.result_of_build(connection, 2) == result(2, "failed", known=("T1",), flaky=True)


def test_an_older_farm_works_with_the_table_of_a_newer_one(engine: sa.Engine) -> None:
    table.create(engine)
    older = [column for column in table.RESULTS.columns if column.name not in ("flaky", "known")]
    values = {name: value for name, value in asdict(result(1)).items() if name in {column.name for column in older}}
    with engine.begin() as connection:
        connection.execute(sa.insert(table.RESULTS).values(values | {"changes": "[]"}))
        assert table.result_of_build(connection, 1) == result(1)


def test_of_a_batch_that_fails_nothing_is_noted_and_the_next_one_is(engine: sa.Engine) -> None:
    master = Master(engine)
    table.create(engine)
    broken: Any = result(2, counts=None)
    with pytest.raises(sa.exc.IntegrityError):
        run(master.do(table.add, [result(1, "failed", known=("T1",)), broken]))
    assert noted(master) == []
    run(master.do(table.add, [result(1, "failed", known=("T1",)), result(2)]))
    assert noted(master) == [2, 1]
    assert [each.count for each in run(master.do(table.shown, "T1"))] == [1]


def test_what_a_cell_has_said_of_the_same_is_found_without_what_was_no_run_of_it(connection: Any) -> None:
    note(
        connection,
        result(1, farm="f"),
        result(2, "failed", farm="f"),
        result(3, "infrastructure", farm="f"),
        result(4, farm="f", counts=False),
        result(5, farm="g"),
        result(6, farm="f", identity="id8"),
        result(7, farm="f", cell="other"),
    )
    assert [each.build for each in table.judged(connection, "cell", "id7", "f")] == [2, 1]


def test_the_last_night_of_a_branch_is_the_last_that_judged_it(connection: Any) -> None:
    night = {"scheduler": "nightly"}
    note(
        connection,
        result(1, **night),
        result(2, "failed", **night),
        result(3, "infrastructure", **night),
        result(4, scheduler="commit"),
        result(5, branch="branches/x", **night),
    )
    last = table.last_judged(connection, "cell", "trunk", "nightly")
    assert last is not None and last.build == 2
    assert table.last_judged(connection, "cell", "trunk", "weekly") is None


def test_what_nobody_can_call_the_same_is_never_flaky() -> None:
    external = External(path="x", url="svn://other/x", revision="HEAD")
    odd = SOURCE.model_copy(update={"externals": (external,)}).model_dump(mode="json")
    assert result_of(built(), "cell", said(**{TESTED: odd}), ()).identity == ""


def test_a_build_with_the_result_of_an_earlier_one_makes_no_rates_and_a_night_without_changes_has_no_result() -> None:
    assert not result_of(built(), "cell", said(**{SAME_AS: 3}), ()).counts
    ended = built(SKIPPED)

    async def get(_path: Any) -> Any:
        return ended

    service: Any = SimpleNamespace(master=SimpleNamespace(data=SimpleNamespace(get=get)))
    with pytest.raises(StopIteration) as done:
        HistoryService._result(service, 5).send(None)
    assert done.value.value is None
