"""The search for the candidate that did it, among runs that may say the wrong thing."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

import pytest

from oscar_steps.bisect.search import Answer, Ask, Kind, Run, Search, Seen

Tell = Callable[[int], Seen]


def searched(search: Search, tell: Tell, runs: Sequence[Run] = ()) -> tuple[Answer, list[Run]]:
    """The answer, and all the runs that it took."""
    done = list(runs)
    while isinstance(step := search.next(done), Ask):
        done.append(Run(step.position, tell(step.position)))
        assert len(done) <= search.limit + 10
    return step, done


def exactly(culprit: int) -> Tell:
    return lambda position: Seen.BAD if position >= culprit else Seen.GOOD


def flaky(culprit: int, chance: random.Random, miss: float, stray: float) -> Tell:
    """A run shows the fault by mistake (`stray`) and hides it by mistake (`miss`) so often."""

    def tell(position: int) -> Seen:
        bad = chance.random() >= miss if position >= culprit else chance.random() < stray
        return Seen.BAD if bad else Seen.GOOD

    return tell


@pytest.mark.parametrize("candidates", [1, 2, 16, 64, 300])
def test_a_steady_fault_is_found_as_by_bisection(candidates: int) -> None:
    for culprit in range(1, candidates + 1, 1 + candidates // 50):
        answer, runs = searched(Search(candidates), exactly(culprit))
        assert (answer.kind, answer.first, answer.last) == (Kind.FOUND, culprit, culprit)
        assert len(runs) <= 2 + (candidates - 1).bit_length() + (candidates > 64)


def test_first_comes_what_a_person_does_the_bad_one_again_then_the_last_good_one_today() -> None:
    _, runs = searched(Search(16), exactly(5))
    assert [run.position for run in runs[:2]] == [16, 0]


def test_no_commit_did_it_where_the_last_good_one_is_bad_today() -> None:
    answer, runs = searched(Search(16), lambda _: Seen.BAD)
    assert answer.kind is Kind.BEFORE
    assert len(runs) == 2
    assert answer.sentence([f"r{n}" for n in range(17)]).startswith("no candidate did it: r0, which was good, shows it")


def test_a_fault_that_does_not_come_back_is_nobodys() -> None:
    answer, runs = searched(Search(16), lambda _: Seen.GOOD)
    assert answer.kind is Kind.GONE
    assert len(runs) == 2


def test_a_revision_that_fails_otherwise_is_not_taken_for_bad() -> None:
    def tell(position: int) -> Seen:
        return Seen.OTHER if position in (7, 8, 9) else exactly(12)(position)

    answer, runs = searched(Search(16), tell)
    assert (answer.kind, answer.first) == (Kind.FOUND, 12)
    assert sum(run.seen is Seen.OTHER for run in runs) <= 3


def test_what_cannot_be_tested_leaves_its_neighbours_as_the_answer() -> None:
    def tell(position: int) -> Seen:
        return Seen.UNTESTABLE if position in (6, 7) else exactly(7)(position)

    answer, _ = searched(Search(16), tell)
    assert (answer.kind, answer.first, answer.last) == (Kind.BETWEEN, 6, 8)
    said = answer.sentence([f"r{n}" for n in range(100, 117)])
    assert said.startswith("it cannot be told between r106 and r108, because r106, r107 could not be tested")


def test_a_fault_of_the_farm_is_asked_once_more_before_a_revision_is_skipped() -> None:
    lost = iter([Seen.LOST])
    answer, runs = searched(
        Search(16), lambda position: next(lost, exactly(8)(8)) if position == 8 else exactly(8)(position)
    )
    assert (answer.kind, answer.first) == (Kind.FOUND, 8)
    assert [run.seen for run in runs if run.position == 8][:2] == [Seen.LOST, Seen.BAD]


def test_a_bad_revision_that_fails_otherwise_today_ends_the_search() -> None:
    answer, runs = searched(Search(4), lambda _: Seen.OTHER)
    assert (answer.kind, answer.untested, len(runs)) == (Kind.BETWEEN, (4,), 1)


def test_votes_asks_both_sides_of_the_answer_so_many_times() -> None:
    answer, runs = searched(Search(16, votes=3), exactly(5))
    assert answer.first == 5
    assert sum(run.position == 5 for run in runs) == sum(run.position == 4 for run in runs) == 3


def test_runs_that_contradict_each_other_make_the_search_ask_more_often() -> None:
    contradiction = [Run(16, Seen.BAD), Run(0, Seen.GOOD), Run(8, Seen.BAD), Run(8, Seen.GOOD), Run(8, Seen.BAD)]
    _, runs = searched(Search(16), exactly(8), contradiction)
    _, steady = searched(Search(16), exactly(8), contradiction[:3])
    assert len(runs) > len(steady) + 3


def test_a_search_ends_with_what_is_likely_where_runs_say_nothing() -> None:
    chance = random.Random(1)
    answer, runs = searched(Search(16, flake=0.4, limit=30), lambda _: chance.choice([Seen.GOOD, Seen.BAD]))
    assert len(runs) <= 30
    assert answer.kind in (Kind.UNKNOWN, Kind.GONE, Kind.BEFORE, Kind.FOUND)


def test_a_search_goes_on_where_it_stopped() -> None:
    tell = exactly(11)
    answer, runs = searched(Search(16), tell)
    for stopped in range(len(runs)):
        assert searched(Search(16), tell, runs[:stopped]) == (answer, runs)


@pytest.mark.parametrize(("miss", "stray"), [(0.2, 0.2), (0.2, 0.0)], ids=["both-ways", "only-hidden"])
def test_with_a_signature_that_is_wrong_one_time_in_five_19_of_20_searches_are_right(miss: float, stray: float) -> None:
    """Ten times 20 searches over 16 to 64 candidates; printed: how many runs that takes."""
    took = list[int]()
    for twenty in range(10):
        right = 0
        for seed in range(20):
            chance = random.Random(1000 * twenty + seed)
            candidates = chance.randint(16, 64)
            culprit = chance.randint(1, candidates)
            search = Search(candidates, flake=0.2)
            answer, runs = searched(search, flaky(culprit, chance, miss, stray))
            right += (answer.kind, answer.first) == (Kind.FOUND, culprit)
            took.append(len(runs))
        assert right >= 19, f"the {twenty}th twenty: {right} right"
    took.sort()
    print(f"\nmiss {miss:.0%}, stray {stray:.0%}: {took[0]} to {took[-1]} runs, half of them at most {took[100]}")
