"""Whatever a history is like, a search ends, and names a revision only where runs say so."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from oscar_steps.bisect.search import LIMIT, Answer, Ask, Kind, Run, Search, Seen


@dataclass(frozen=True)
class History:
    """Candidate `culprit` did it (0: it was there before, `candidates` + 1: it is gone). `stretch`: what those
    positions say instead, always. So often a run says the wrong thing (`wrong`), or is lost (`lost`).
    """

    candidates: int
    culprit: int
    stretches: tuple[tuple[int, int, Seen], ...]
    wrong: float
    lost: float
    seed: int

    def tell(self) -> Callable[[int], Seen]:
        chance = random.Random(self.seed)

        def tell(position: int) -> Seen:
            for first, length, seen in self.stretches:
                if first <= position < first + length:
                    return seen
            if chance.random() < self.lost:
                return Seen.LOST
            bad = (position >= self.culprit) != (chance.random() < self.wrong)
            return Seen.BAD if bad else Seen.GOOD

        return tell


@st.composite
def histories(draw: st.DrawFn, *, noise: float = 0.4) -> History:
    candidates = draw(st.integers(1, 40))
    places = st.integers(0, candidates)
    stretch = st.tuples(places, st.integers(1, 12), st.sampled_from([Seen.OTHER, Seen.UNTESTABLE, Seen.LOST]))
    return History(
        candidates,
        draw(st.integers(0, candidates + 1)),
        tuple(draw(st.lists(stretch, max_size=3))),
        draw(st.floats(0, noise)),
        draw(st.floats(0, noise)),
        draw(st.integers(0, 1000)),
    )


def searched(search: Search, tell: Callable[[int], Seen]) -> tuple[Answer, list[Run]]:
    runs = list[Run]()
    while isinstance(step := search.next(runs), Ask):
        assert len(runs) < search.limit, "the search does not end"
        assert 0 <= step.position <= search.candidates
        runs.append(Run(step.position, tell(step.position)))
    return step, runs


def says(runs: Sequence[Run], position: int) -> Counter[Seen]:
    return Counter(run.seen for run in runs if run.position == position)


@given(histories(), st.sampled_from([0.0, 0.1, 0.3]), st.integers(1, 4))
def test_every_search_ends_and_blames_only_whom_runs_on_both_sides_speak_against(
    history: History, flake: float, votes: int
) -> None:
    answer, runs = searched(Search(history.candidates, flake=flake, votes=votes), history.tell())
    if answer.kind in (Kind.FOUND, Kind.BETWEEN) and not {0, history.candidates} & {*answer.untested}:
        with_it, without = says(runs, answer.last), says(runs, answer.first - 1)
        assert with_it[Seen.BAD] > with_it[Seen.GOOD]
        assert without[Seen.GOOD] > without[Seen.BAD]
        if len(runs) < LIMIT:
            assert min(with_it[Seen.BAD], without[Seen.GOOD]) >= votes
    if answer.kind is Kind.FOUND:
        assert (answer.first, answer.untested) == (answer.last, ())
    assert answer.sentence([f"r{n}" for n in range(history.candidates + 1)])


@given(st.integers(1, 40), st.integers(1, 20), st.sampled_from([0.0, 0.4]), st.randoms(use_true_random=False))
def test_a_search_ends_whatever_its_runs_say(candidates: int, votes: int, flake: float, chance: random.Random) -> None:
    weights = [chance.random() ** 3 for _ in Seen]
    searched(Search(candidates, flake=flake, votes=votes), lambda _: chance.choices([*Seen], weights)[0])


@given(histories(noise=0.0))
def test_where_no_run_is_wrong_the_culprit_is_always_among_the_answer(history: History) -> None:
    answer, runs = searched(Search(history.candidates), history.tell())
    ends = {0, history.candidates} & {position for position in (0, history.candidates) if not _tells(runs, position)}
    if ends:
        assert answer.kind is Kind.BETWEEN
    elif history.culprit == 0:
        assert answer.kind is Kind.BEFORE
    elif history.culprit > history.candidates:
        assert answer.kind is Kind.GONE
    else:
        assert answer.kind in (Kind.FOUND, Kind.BETWEEN)
        assert answer.first <= history.culprit <= answer.last
    assert len(runs) <= 2 * (2 + history.candidates.bit_length() + sum(length for _, length, _ in history.stretches))


def _tells(runs: Sequence[Run], position: int) -> bool:
    found = says(runs, position)
    return bool(found[Seen.BAD] + found[Seen.GOOD])


@given(histories())
def test_the_same_runs_always_lead_to_the_same_next_step(history: History) -> None:
    search = Search(history.candidates)
    answer, runs = searched(search, history.tell())
    for stopped in range(len(runs)):
        step = search.next(runs[:stopped])
        assert isinstance(step, Ask) and step.position == runs[stopped].position
    assert search.next(runs) == answer


def test_a_search_that_gives_up_names_no_revision_where_all_of_them_are_less_likely() -> None:
    runs = [Run(16, Seen.BAD), Run(0, Seen.BAD), Run(0, Seen.GOOD), Run(0, Seen.BAD)]
    answer = Search(16, flake=0.4, limit=4).next(runs)
    assert isinstance(answer, Answer) and answer.kind is Kind.UNKNOWN
    said = answer.sentence([f"r{n}" for n in range(17)])
    assert "r1 " not in said and "the most likely is: no candidate did it: r0" in said
