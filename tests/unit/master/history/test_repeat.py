"""A red is repeated where the evidence says so, and its mail waits for the second result."""

from __future__ import annotations

import asyncio
import datetime
from types import SimpleNamespace
from typing import Any

import pytest
from buildbot.process.results import CANCELLED, EXCEPTION, FAILURE, RETRY, SKIPPED, SUCCESS

from oscar_steps.master import again
from oscar_steps.master.durability.once import AGAIN_OF, REPEAT_OF, is_open
from oscar_steps.master.history import repeat
from oscar_steps.master.history.record import NOT_COUNTED, TESTED, VERDICT
from oscar_steps.master.history.table import Seen
from oscar_steps.master.schedules.names import CHANGES
from oscar_steps.verdict import LINT, Category, Outcome, Stage, Verdict


def verdict(outcome: Outcome = Outcome.FAILED) -> Verdict:
    return Verdict(
        run_id="cell-r7-b1",
        cell="cell",
        source="svn://svn/oscar/trunk",
        revision="7",
        outcome=outcome,
        sentence="oscarnode2 panicked",
        stage=Stage.WAIT_NODES,
        category=Category.OSCAR,
    )


class Data:
    """Buildbot's data: of each path what it holds; and what is asked for."""

    def __init__(self, answers: dict[tuple[Any, ...], Any]) -> None:
        self.answers = answers
        self.added: list[dict[str, Any]] = []
        self.closed: list[Any] = []
        self.updates = SimpleNamespace(addBuildset=self._add, completeBuildRequests=self._close)

    async def get(self, path: tuple[Any, ...], filters: Any = ()) -> Any:
        del filters
        return self.answers[path]

    async def _add(self, **what: Any) -> Any:
        self.added.append(what)
        return 8, {4: 21}

    async def _close(self, *what: Any) -> None:
        self.closed.append(what)


async def _builder_id() -> int:
    return 4


def a_step(**properties: Any) -> Any:
    values = {CHANGES: [11], "scheduler": "commit", **properties}
    data = Data(
        {
            ("buildsets", 7): {"bsid": 7, "sourcestamps": [{"ssid": 3}]},
            ("buildsets", 7, "properties"): {CHANGES: ([11], "Scheduler"), "scheduler": ("commit", "Scheduler")},
            ("buildrequests", 9, "builds"): [{"buildid": 5, "complete": False, "results": None}],
        }
    )
    return SimpleNamespace(
        getProperty=values.get,
        setProperty=lambda name, value, _source: values.__setitem__(name, value),
        master=SimpleNamespace(data=data),
        build=SimpleNamespace(buildid=5, requests=[SimpleNamespace(id=9, bsid=7)], getBuilderId=_builder_id),
        values=values,
    )


@pytest.fixture
def history(monkeypatch: pytest.MonkeyPatch) -> Any:
    """What the farm remembers of the cell."""
    known = SimpleNamespace(flaked=True, count=0)

    class Remembered:
        def __init__(self, _master: Any) -> None:
            pass

        async def has_flaked(self, cell: str) -> bool:
            assert cell == "cell"
            return bool(known.flaked)

        async def seen(self, signature: str, cell: str) -> Seen:
            assert (signature.partition(":")[0], cell) == ("wait-nodes", "cell")
            return Seen(known.count)

    monkeypatch.setattr(repeat, "History", Remembered)
    return known


def ask(step: Any, said: Verdict | None = None, cell: str = "cell") -> Verdict:
    return asyncio.run(repeat.ask_repetition(step, cell, said or verdict()))


@pytest.mark.usefixtures("history")
def test_a_commit_s_red_is_repeated_where_it_is_new_in_the_cell_and_the_cell_has_flaked_before() -> None:
    step = a_step()
    assert "repeated once: this failure is new in this cell" in ask(step).hint
    (added,) = step.master.data.added
    assert (added["sourcestamps"], added["builderids"], added["parent_buildid"]) == ([3], [4], 5)
    assert added["properties"][REPEAT_OF][0] == added["properties"][AGAIN_OF][0] == 9
    assert added["properties"][CHANGES][0] == [11]
    assert step.values[repeat.REPEATED_BY] == 21


def test_a_commit_s_red_is_not_repeated_where_nothing_speaks_for_it(history: Any) -> None:
    for history.flaked, history.count in ((False, 0), (True, 1), (False, 3)):
        step = a_step()
        assert ask(step) == verdict()
        assert step.master.data.added == []
        assert repeat.REPEATED_BY not in step.values


@pytest.mark.parametrize("scheduler", ["nightly", "weekly"])
def test_a_red_by_the_clock_is_repeated_whatever_was_before(history: Any, scheduler: str) -> None:
    history.flaked, history.count = False, 7
    step = a_step(**{CHANGES: None, "scheduler": scheduler})
    assert "repeated once" in ask(step).hint


@pytest.mark.usefixtures("history")
@pytest.mark.parametrize(
    ("properties", "said", "cell"),
    [
        ({REPEAT_OF: 8}, verdict(), "cell"),
        ({"owner": "somebody"}, verdict(), "cell"),
        *(({"scheduler": name}, verdict(), "cell") for name in ("force", "try", "candidate")),
        ({NOT_COUNTED: True}, verdict(), "cell"),
        ({TESTED: {"patch": {"sha256": "0"}}}, verdict(), "cell"),
        ({CHANGES: None}, verdict(), "cell"),
        ({}, verdict(), LINT),
        ({}, verdict(Outcome.PASSED), "cell"),
        ({}, verdict(Outcome.INFRASTRUCTURE), "cell"),
        ({}, verdict(Outcome.CANCELLED), "cell"),
    ],
)
def test_a_red_is_repeated_once_and_only_where_the_farm_began_it_by_itself(
    properties: dict[str, Any], said: Verdict, cell: str
) -> None:
    step = a_step(**properties)
    assert ask(step, said, cell) == said
    assert step.master.data.added == []


@pytest.mark.usefixtures("history")
def test_a_repetition_that_cannot_be_asked_for_changes_nothing() -> None:
    step = a_step()
    step.master.data.answers.clear()
    assert ask(step) == verdict()
    assert repeat.REPEATED_BY not in step.values


@pytest.mark.usefixtures("history")
def test_a_build_that_was_cut_short_after_it_had_asked_asks_no_second_time() -> None:
    step = a_step()
    answers = step.master.data.answers
    answers["buildrequests", 9, "builds"].insert(0, {"buildid": 4, "complete": True, "results": RETRY})
    answers["buildsets",], answers["buildrequests",] = [{"bsid": 8}], [{"buildrequestid": 20}]
    ask(step)
    assert step.master.data.added == []
    assert step.values[repeat.REPEATED_BY] == 20


def test_a_repetition_begins_only_when_the_red_has_ended_and_not_where_that_ended_otherwise() -> None:
    def opened(complete: bool, results: int, **properties: Any) -> tuple[Any, Any]:
        data = Data({("buildrequests", 9): {"complete": complete, "results": results}})
        wanted = SimpleNamespace(id=21, submittedAt=2.0**40, properties=SimpleNamespace(getProperty=properties.get))
        return asyncio.run(is_open(SimpleNamespace(data=data), wanted)), data.closed

    repetition, retry = {AGAIN_OF: 9, REPEAT_OF: 9}, {AGAIN_OF: 9, REPEAT_OF: 3}
    assert opened(False, -1, **repetition) == (None, [])
    assert opened(True, FAILURE, **repetition) == (True, [])
    assert opened(True, SUCCESS, **repetition) == (False, [([21], SKIPPED)])
    assert opened(True, EXCEPTION, **retry) == (True, []), "the farm failed the repetition itself"
    assert opened(True, FAILURE, **retry) == (False, [([21], SKIPPED)])


NOW = datetime.datetime.now(datetime.UTC)


def second(answers: dict[tuple[Any, ...], Any], ended: datetime.datetime = NOW) -> repeat.Second | None:
    master = SimpleNamespace(data=Data(answers))
    return asyncio.run(repeat.second_of(master, {"complete_at": ended}, {repeat.REPEATED_BY: 21}))


def a_request(number: int, builds: list[dict[str, Any]], *, complete: bool = False) -> dict[tuple[Any, ...], Any]:
    return {("buildrequests", number): {"complete": complete}, ("buildrequests", number, "builds"): builds}


def ended_build(number: int, results: int) -> dict[str, Any]:
    return {"buildid": number, "complete": True, "results": results}


def test_a_red_that_is_not_repeated_waits_for_nothing() -> None:
    assert asyncio.run(repeat.second_of(SimpleNamespace(), {}, {})) is None


def test_the_mail_waits_while_the_second_result_may_still_come() -> None:
    assert second(a_request(21, [])) == repeat.Second(waits=True)
    going = {"buildid": 6, "complete": False, "results": None}
    assert second(a_request(21, [ended_build(5, RETRY), going])) == repeat.Second(waits=True)


def test_the_second_result_is_the_repetition_s() -> None:
    said = {VERDICT: (verdict(Outcome.PASSED).model_dump(mode="json"), "x")}
    found = second({**a_request(21, [ended_build(6, SUCCESS)]), ("builds", 6, "properties"): said})
    assert found is not None
    assert found.passed
    assert not found.waits


def test_a_repetition_that_the_farm_failed_is_followed_to_its_retry() -> None:
    said = {again.TRIED_AGAIN: (22, "x")}
    first = {**a_request(21, [ended_build(6, EXCEPTION)], complete=True), ("builds", 6, "properties"): said}
    assert second({**first, **a_request(22, [])}) == repeat.Second(waits=True)
    then = {**first, **a_request(22, [ended_build(7, EXCEPTION)]), ("builds", 7, "properties"): {}}
    assert second(then) == repeat.Second(build=ended_build(7, EXCEPTION))


def test_no_lost_repetition_swallows_the_mail() -> None:
    lost = {
        "gone": second({("buildrequests", 21): None}),
        "cancelled before it began": second(a_request(21, [], complete=True)),
        "timed out after 12 h": second(a_request(21, []), NOW - datetime.timedelta(hours=13)),
    }
    for words, found in lost.items():
        assert found is not None
        assert (found.waits, found.build) == (False, None)
        assert words in found.why
    stopped = second({**a_request(21, [ended_build(6, CANCELLED)]), ("builds", 6, "properties"): {}})
    assert stopped == repeat.Second(build=ended_build(6, CANCELLED))
