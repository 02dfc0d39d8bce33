"""Whose turn it is when more cells wait than can run."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
import sqlalchemy as sa
from buildbot.process.results import EXCEPTION, FAILURE, RETRY, SUCCESS, WARNINGS
from hypothesis import given
from hypothesis import strategies as st

from oscar_steps.master.fair import CellFacts, Memory, in_order, memory_of, order, remember

FACTS = st.builds(CellFacts, st.integers(0, 3), st.booleans(), st.floats(0, 1e9))


def test_a_smoke_cell_goes_before_a_nightly_one_that_is_red_and_has_waited_for_longer() -> None:
    facts = {"nightly": CellFacts(2, red=True, ended=1.0), "smoke": CellFacts(1, red=False, ended=100.0)}
    assert order(["nightly", "smoke"], facts) == ["smoke", "nightly"]


def test_among_equals_the_cell_that_was_red_last_goes_first() -> None:
    facts = {"green": CellFacts(2, red=False, ended=1.0), "red": CellFacts(2, red=True, ended=100.0)}
    assert order(["green", "red"], facts) == ["red", "green"]


def test_among_equals_the_one_that_has_not_run_for_longest_goes_first_and_a_new_one_before_all() -> None:
    facts = {"late": CellFacts(ended=100.0), "early": CellFacts(ended=1.0)}
    assert order(["late", "early", "new"], facts) == ["new", "early", "late"]


@given(st.dictionaries(st.text(min_size=1), FACTS), st.randoms())
def test_the_order_names_each_cell_once_and_does_not_depend_on_how_they_are_listed(facts, random) -> None:
    names = list(facts)
    random.shuffle(names)
    ordered = order(names, facts)
    assert sorted(ordered) == sorted(facts)
    assert ordered == order(sorted(facts), facts)
    assert [facts[name].urgency for name in ordered] == sorted(facts[name].urgency for name in ordered)


def test_only_a_verdict_about_oscar_makes_a_cell_red_or_green() -> None:
    memory = Memory()
    memory.noted("cell", FAILURE, 1.0)
    memory.noted("cell", EXCEPTION, 2.0)
    assert memory.of("cell").red
    memory.noted("cell", WARNINGS, 3.0)
    memory.noted("cell", EXCEPTION, 4.0)
    assert not memory.of("cell").red


def test_a_cell_that_the_farm_could_not_run_has_had_its_turn_and_one_that_is_taken_up_again_has_not() -> None:
    memory = Memory()
    for cell in ("broken", "interrupted", "waiting"):
        memory.noted(cell, SUCCESS, 10.0)
    memory.noted("broken", EXCEPTION, 20.0)
    memory.noted("interrupted", RETRY, 20.0)
    assert memory.order(["broken", "interrupted", "waiting"]) == ["interrupted", "waiting", "broken"]


def test_a_cell_s_urgency_is_the_configuration_s_also_when_it_has_run_before() -> None:
    memory = Memory()
    memory.noted("a", SUCCESS, 1.0)
    memory.noted("b", SUCCESS, 2.0)
    memory.urgency = {"b": 1}
    assert memory.order(["a", "b"]) == ["b", "a"]
    memory.urgency = {}
    assert memory.order(["a", "b"]) == ["a", "b"]


def test_what_the_database_knows_of_earlier_builds_counts_after_a_restart_of_the_master() -> None:
    engine = sa.create_engine("sqlite://")
    model = SimpleNamespace(builds=_table("builds", "builderid", "results", "complete_at"))
    model.builders = sa.Table(
        "builders", model.builds.metadata, sa.Column("id", sa.Integer), sa.Column("name", sa.Text)
    )

    async def do(query: Any, *arguments: Any) -> Any:
        with engine.connect() as connection:
            return query(connection, *arguments)

    rows = [
        (1, FAILURE, 10), (1, EXCEPTION, 20), (2, FAILURE, 5), (2, SUCCESS, 15),
        (1, RETRY, 30), (2, None, None), (3, EXCEPTION, 1),
    ]  # fmt: skip
    with engine.begin() as connection:
        model.builds.metadata.create_all(connection)
        connection.execute(model.builders.insert(), [{"id": n, "name": f"c{n}"} for n in (1, 2, 3)])
        for builder, results, ended in rows:
            connection.execute(model.builds.insert().values(builderid=builder, results=results, complete_at=ended))
    master = SimpleNamespace(db=SimpleNamespace(pool=SimpleNamespace(do=do), model=model))
    memory_of(master).noted("c3", SUCCESS, 99.0)
    memory = asyncio.run(remember(master))
    assert [(memory.of(cell).red, memory.of(cell).ended) for cell in ("c1", "c2", "c3")] == [
        (True, 20.0),
        (False, 15.0),
        (False, 99.0),
    ]


def _table(name: str, *columns: str) -> sa.Table:
    whole = [sa.Column(column, sa.Integer) for column in columns]
    return sa.Table(name, sa.MetaData(), sa.Column("id", sa.Integer, primary_key=True), *whole)


def test_the_first_tier_goes_before_smoke_cells_and_these_before_all_others() -> None:
    def builder(name: str, *tags: str) -> Any:
        return SimpleNamespace(name=name, config=SimpleNamespace(tags=list(tags)))

    master = SimpleNamespace()
    memory = memory_of(master)
    memory.complete = True
    memory.noted("red", FAILURE, 1.0)
    builders = [builder("green", "nightly"), builder("red", "weekly"), builder("b", "smoke"), builder("lint", "smoke")]
    assert [each.name for each in asyncio.run(in_order(master, builders))] == ["lint", "b", "red", "green"]


def test_a_query_that_fails_is_asked_again_and_what_it_says_counts_then() -> None:
    answers: list[Any] = [OSError("the database is away"), [("c", FAILURE, 5.0)]]

    async def do(*_arguments: Any) -> Any:
        answer = answers.pop(0)
        if isinstance(answer, OSError):
            raise answer
        return answer

    master = SimpleNamespace(db=SimpleNamespace(pool=SimpleNamespace(do=do), model=None))
    with pytest.raises(OSError, match="away"):
        asyncio.run(remember(master))
    assert asyncio.run(remember(master)).of("c").red
    assert not answers


def test_two_that_ask_before_the_database_has_answered_both_get_its_answer() -> None:
    answered = asyncio.Event()

    async def do(*_arguments: Any) -> Any:
        await answered.wait()
        return [("c", FAILURE, 5.0)]

    async def both() -> list[Memory]:
        asking = [asyncio.create_task(remember(master)) for _ in range(2)]
        await asyncio.sleep(0)
        answered.set()
        return await asyncio.gather(*asking)

    master = SimpleNamespace(db=SimpleNamespace(pool=SimpleNamespace(do=do), model=None))
    assert [each.of("c").red for each in asyncio.run(both())] == [True, True]
