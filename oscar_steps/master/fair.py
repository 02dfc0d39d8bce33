"""Whose turn it is, when more cells wait than can run.

Urgent cells go first. Among equally urgent ones the cell that was red last goes first, since its answer is worth most;
then the one that has not run for the longest time. Nobody is asked for an answer: what is known of each cell is kept in
memory, read once from the database, and noted at the end of each build.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from math import inf
from types import MappingProxyType
from typing import Any

import sqlalchemy as sa
from buildbot.process.results import CANCELLED, EXCEPTION, FAILURE, RETRY, SUCCESS, WARNINGS

from oscar_steps.words import LINT, Label

NEVER = -inf
_FIRST_PAUSE, _LONGEST_PAUSE = 60.0, 3600.0
_SAYS_NOTHING = (EXCEPTION, CANCELLED)
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


_UNKNOWN = CellFacts()


def order(
    cells: Iterable[str], facts: Mapping[str, CellFacts], urgency: Mapping[str, int] = MappingProxyType({})
) -> list[str]:
    """The cells (names of builders), the next one first. One of which nothing is known has never run.

    `urgency` counts before that of the facts.
    """

    def turn(cell: str) -> tuple[int, bool, float, str]:
        known = facts.get(cell, _UNKNOWN)
        return urgency.get(cell, known.urgency), not known.red, known.ended, cell

    return sorted(cells, key=turn)


@dataclass(frozen=True, slots=True)
class ImageTrouble:
    """A cell whose last builds got no further than its base image: how many, and when the last one ended."""

    builds: int
    ended: float

    @property
    def until(self) -> float:
        """Before that no build of the cell begins by itself: one minute, then two, four, ... up to an hour."""
        return self.ended + min(_FIRST_PAUSE * 2.0 ** min(self.builds - 1, 10), _LONGEST_PAUSE)


@dataclass
class Memory:
    """The facts of all cells, kept up to date by `noted`. `urgency` of each cell comes from the configuration."""

    urgency: dict[str, int] = field(default_factory=dict)
    facts: dict[str, CellFacts] = field(default_factory=dict)
    images: dict[str, ImageTrouble] = field(default_factory=dict)
    complete: bool = False
    """Whether the database has been asked."""

    def image_ended(self, cell: str, ended: float, *, failed: bool) -> None:
        """A build of the cell got no further than its image, or got past it."""
        if not failed:
            self.images.pop(cell, None)
        else:
            before = self.images.get(cell)
            self.images[cell] = ImageTrouble(before.builds + 1 if before else 1, ended)

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
        return order(cells, self.facts, self.urgency)


def memory_of(master: Any) -> Memory:
    """What this master knows of its cells; it lives as long as the master does."""
    memory: Memory = vars(master).setdefault("oscar_memory", Memory())
    return memory


async def remember(master: Any) -> Memory:
    """The same, with what the database knows of the builds before this master's start."""
    memory = memory_of(master)
    if not memory.complete:
        # Builds that end meanwhile are noted as well. A query that fails is asked again the next time.
        for cell, result, ended in await master.db.pool.do(_last_builds, master.db.model):
            if ended > memory.of(cell).ended:
                memory.noted(cell, result, ended)
        memory.complete = True
    return memory


async def in_order(master: Any, builders: Iterable[Any]) -> list[Any]:
    """The builders, the next one first."""
    memory = await remember(master)
    by_name = {builder.name: builder for builder in builders}
    for name, builder in by_name.items():
        memory.urgency[name] = 0 if name == LINT else 1 if Label.SMOKE in builder.config.tags else 2
    return [by_name[name] for name in memory.order(by_name)]


def _last_builds(connection: Any, model: Any) -> list[tuple[str, int, float]]:
    """Of each builder its last build that says something of OSCAR, and its last one; the older one first."""
    builds, builders = model.builds.c, model.builders.c
    found: list[tuple[str, int, float]] = []
    for results in (_SAYS_SOMETHING, (*_SAYS_SOMETHING, *_SAYS_NOTHING)):
        last = (
            sa.select(sa.func.max(builds.id))
            .where(builds.complete_at.is_not(None), builds.results.in_(results))
            .group_by(builds.builderid)
        )
        query = (
            sa.select(builders.name, builds.results, builds.complete_at)
            .select_from(model.builds.join(model.builders, builds.builderid == builders.id))
            .where(builds.id.in_(last))
        )
        rows = connection.execute(query).fetchall()
        found += [(str(name), int(result), float(ended)) for name, result, ended in rows]
    return sorted(found, key=lambda each: each[2])
