"""Whose turn it is, when more cells wait than can run.

Urgent cells go first. Among equally urgent ones the cell that was red last goes first, since its answer is worth most;
then the one that has not run for the longest time. Nobody is asked for an answer: what is known of each cell is kept in
memory, read once from the database, and noted at the end of each build.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from math import inf

from buildbot.process.results import FAILURE, RETRY, SUCCESS, WARNINGS

NEVER = -inf
_SAYS_SOMETHING = (SUCCESS, WARNINGS, FAILURE)
"""Other results are the farm's or a person's: they do not make a cell red or green."""


@dataclass(frozen=True, slots=True)
class CellFacts:
    """What decides whose turn it is. `urgency`: the smallest number goes first (0 lint, 1 smoke, 2 others).

    `ended`: when its last build ended, in Unix time, whatever that build said. A cell that the farm cannot run would
    have the first turn for ever, otherwise.
    """

    urgency: int = 2
    red: bool = False
    ended: float = NEVER


def order(cells: Iterable[str], facts: Mapping[str, CellFacts]) -> list[str]:
    """The cells (names of builders), the next one first. One of which nothing is known has never run."""

    def turn(cell: str) -> tuple[int, bool, float, str]:
        known = facts.get(cell, CellFacts())
        return known.urgency, not known.red, known.ended, cell

    return sorted(cells, key=turn)


@dataclass
class Memory:
    """The facts of all cells, kept up to date by `noted`. `urgency` of each cell comes from the configuration."""

    urgency: dict[str, int] = field(default_factory=dict)
    facts: dict[str, CellFacts] = field(default_factory=dict)

    def noted(self, cell: str, result: int, ended: float) -> None:
        """A build of the cell has ended. One that is taken up again (RETRY) has not run."""
        if result == RETRY:
            return
        before = self.of(cell)
        red = result == FAILURE if result in _SAYS_SOMETHING else before.red
        self.facts[cell] = replace(before, red=red, ended=max(before.ended, ended))

    def of(self, cell: str) -> CellFacts:
        """What is known of one cell."""
        known = self.facts.get(cell, CellFacts())
        return replace(known, urgency=self.urgency.get(cell, known.urgency))

    def order(self, cells: Iterable[str]) -> list[str]:
        """`order` by what is known now."""
        names = list(cells)
        return order(names, {name: self.of(name) for name in names})
