"""Which of several candidates did it, where a run may say the wrong thing: probabilistic bisection.

The method is Horstein's (1963, for a noisy channel; Burnashev and Zigangirov proved in 1974 how fast it is). Of each
candidate the search keeps the probability that it did it. It runs the revision that halves these probabilities, and
multiplies them by what the run says (Bayes): a revision that shows the fault speaks against all later candidates, one
that does not against all earlier ones, by so much as runs of this kind can be trusted. Where they can be trusted fully
that is ordinary bisection; where they cannot, a place is asked more than once by itself, which is a vote of k in n.

Positions count from 0, the last good revision, to n, the first bad one. Candidate c (1 to n) is what came between
position c - 1 and c: a run at a position from c on should show the fault. Two more answers are possible. 0: it was
there before, all positions show it (then the commits are innocent). n + 1: no position shows it any more.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import pairwise

CONFIDENCE = 0.98
"""So sure the search has to be of an answer."""
LIMIT = 80
"""After so many runs it says what is most likely, and ends."""
_FLOOR = 0.0005
"""No run can be trusted more than this."""
_WORST = 0.4
"""Nor can a signature be searched for that comes and goes more often than this."""
_ELSEWHERE = 0.1
"""How likely it is at first that the fault was there before, and that it does not come back."""


class Seen(StrEnum):
    """What one run says of the signature that is looked for."""

    GOOD = "good"
    BAD = "bad"
    OTHER = "fails otherwise"
    """It failed before, or elsewhere: this says nothing of the signature."""
    LOST = "lost"
    """The farm's own fault. The next one may tell."""
    UNTESTABLE = "cannot be tested"


class Kind(StrEnum):
    """What an answer is."""

    FOUND = "found"
    BETWEEN = "between"
    """It cannot be told which of several, because what is between them cannot be tested."""
    BEFORE = "before"
    """The last good revision shows it today: no candidate did it."""
    GONE = "gone"
    """It does not come back."""
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class Run:
    """One run and what it said."""

    position: int
    seen: Seen


@dataclass(frozen=True)
class Ask:
    """The next run, and why."""

    position: int
    why: str


@dataclass(frozen=True)
class Answer:
    """`first` to `last` are the candidates that are left, `untested` the positions between that could not be tested."""

    kind: Kind
    first: int
    last: int
    confidence: float
    untested: tuple[int, ...] = ()

    def sentence(self, names: Sequence[str]) -> str:
        """In words; `names` are the positions' names, the last good one first."""
        sure = f"{min(self.confidence, 0.999):.1%} sure"
        before = f"no candidate did it: {names[0]}, which was good, shows it now as well ({sure})"
        gone = f"it does not come back: {names[-1]}, which was bad, does not show it now ({sure})"
        if self.kind is Kind.UNKNOWN:
            likely = {0: before, len(names): gone}.get(self.first) or f"{names[self.first]} did it ({sure})"
            return f"it was not found; the most likely is: {likely}"
        if self.kind is Kind.FOUND:
            return f"{names[self.first]} did it ({sure})"
        if self.kind is Kind.BEFORE:
            return before
        if self.kind is Kind.GONE:
            return gone
        left = f"it cannot be told between {names[self.first]} and {names[self.last]}"
        skipped = ", ".join(names[position] for position in self.untested)
        return f"{left}, because {skipped} could not be tested ({sure})"


@dataclass(frozen=True)
class Search:
    """A search over `candidates` of them. `flake`: how often a run says the wrong thing, as far as is known.

    `votes`: so many runs have to agree on each side of the answer, however sure it is.
    """

    candidates: int
    flake: float = 0.0
    votes: int = 1
    limit: int = LIMIT

    def next(self, runs: Sequence[Run]) -> Ask | Answer:
        """The next thing to run, or the answer. It depends on the arguments alone, so a search can stop at any time."""
        counts = _counted(runs)
        skipped = {position for position, seen in counts.items() if _is_skipped(seen)}
        if ends := {0, self.candidates} & skipped:
            return Answer(Kind.BETWEEN, 1, self.candidates, 1.0, tuple(sorted(ends)))
        for position, why in ((self.candidates, "the bad revision again"), (0, "the last good revision today")):
            if not _votes(counts, position):
                return Ask(position, why)
        odds = self.odds(runs)
        groups = self._groups(skipped)
        best = max(groups, key=lambda group: sum(odds[c] for c in group))
        sure = sum(odds[c] for c in best)
        answer = self._answer(best, sure)
        over = len(runs) >= self.limit
        if sure >= CONFIDENCE:
            return (None if over else self._one_more_vote(counts, answer)) or answer
        if over:
            likely = max(range(len(odds)), key=odds.__getitem__)
            return Answer(Kind.UNKNOWN, likely, likely, odds[likely])
        return Ask(self._halving(odds, counts, skipped), "it halves what is left")

    def odds(self, runs: Sequence[Run]) -> list[float]:
        """Of each answer, 0 to n + 1, how likely it is after these runs."""
        counts = _counted(runs)
        wrong = self._wrong(counts)
        last = self.candidates + 1
        each = (1 - 2 * _ELSEWHERE) / self.candidates
        odds = [_ELSEWHERE, *[each] * self.candidates, _ELSEWHERE]
        for position, seen in counts.items():
            shows, hides = ((1 - wrong) ** a * wrong**b for a, b in (_both(seen), _both(seen)[::-1]))
            for c in range(last + 1):
                odds[c] *= shows if position >= c else hides
        total = sum(odds)
        return [one / total for one in odds]

    def _wrong(self, counts: Mapping[int, Counter[Seen]]) -> float:
        """How often a run says the wrong thing: as is known, or more often, where runs of one position differ."""
        differ = [_both(seen) for seen in counts.values() if all(_both(seen))]
        votes, less = sum(map(sum, differ)), sum(map(min, differ))
        return min(max(self.flake, _FLOOR, less / votes if votes else 0.0), _WORST)

    def _groups(self, skipped: set[int]) -> list[list[int]]:
        """Answers that only a position which cannot be tested would tell apart are one group."""
        groups = [[0]]
        for before, c in pairwise(range(self.candidates + 2)):
            if before in skipped:
                groups[-1].append(c)
            else:
                groups.append([c])
        return groups

    def _answer(self, group: Sequence[int], sure: float) -> Answer:
        first, last = group[0], group[-1]
        if first == 0:
            return Answer(Kind.BEFORE, 0, 0, sure)
        if first > self.candidates:
            return Answer(Kind.GONE, first, first, sure)
        kind = Kind.FOUND if first == last else Kind.BETWEEN
        return Answer(kind, first, last, sure, tuple(range(first, last)))

    def _one_more_vote(self, counts: Mapping[int, Counter[Seen]], answer: Answer) -> Ask | None:
        sides = {answer.last: Seen.BAD, answer.first - 1: Seen.GOOD}
        for position, seen in sides.items():
            if 0 <= position <= self.candidates and counts.get(position, Counter())[seen] < self.votes:
                return Ask(position, f"it has to be {seen} {self.votes} times")
        return None

    def _halving(self, odds: Sequence[float], counts: Mapping[int, Counter[Seen]], skipped: set[int]) -> int:
        """The position that can be tested and halves the odds best; of equals the one with fewer runs."""
        below, found = 0.0, list[tuple[float, int, int]]()
        for position in range(self.candidates + 1):
            below += odds[position]
            if position not in skipped:
                found.append((round(abs(below - 0.5), 9), _votes(counts, position), position))
        return min(found)[2]


def _counted(runs: Sequence[Run]) -> dict[int, Counter[Seen]]:
    counts = dict[int, Counter[Seen]]()
    for run in runs:
        counts.setdefault(run.position, Counter())[run.seen] += 1
    return counts


def _votes(counts: Mapping[int, Counter[Seen]], position: int) -> int:
    return sum(_both(counts.get(position, Counter[Seen]())))


def _both(seen: Counter[Seen]) -> tuple[int, int]:
    return seen[Seen.BAD], seen[Seen.GOOD]


def _is_skipped(seen: Counter[Seen]) -> bool:
    """Whether a position is left out: it says more often nothing than something. The farm's own faults count half."""
    return seen[Seen.UNTESTABLE] + seen[Seen.OTHER] + seen[Seen.LOST] // 2 > sum(_both(seen))
