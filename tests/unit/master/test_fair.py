"""Whose turn it is when more cells wait than can run."""

from __future__ import annotations

from buildbot.process.results import EXCEPTION, FAILURE, RETRY, SUCCESS, WARNINGS
from hypothesis import given
from hypothesis import strategies as st

from oscar_steps.master.fair import CellFacts, Memory, order

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
