"""What a builder tests: a cell with all that it refers to, read once, so that a bad profile is found at start-up."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from oscar_steps.job import Job, Source, Timeouts
from oscar_steps.matrix import Answers, Cell, ImageRecipe, Matrix
from oscar_steps.oscar.known import KnownIssue
from oscar_steps.site import Site

Boot = Literal["cdrom", "network"]


@dataclass(frozen=True)
class Wish:
    """What a person who forces a build may ask for; None: as the cluster profile says."""

    boot: Boot | None = None
    nodes: int | None = None


@dataclass(frozen=True)
class CellPlan:
    """One cell, ready to be made into jobs."""

    cell: Cell
    image: ImageRecipe
    answers: Answers
    cluster_xml: str
    timeouts: Timeouts
    workers: tuple[str, ...]
    known_issues: tuple[KnownIssue, ...] = ()

    @property
    def name(self) -> str:
        return self.cell.name

    def job(self, url: str, revision: str, build_number: int, wish: Wish) -> Job:
        """The job of one build: `revision` is exact, `url` is what gets checked out."""
        return Job(
            run_id=f"{self.name}-r{revision}-b{build_number}",
            cell=self.name,
            source=Source(url=url, revision=revision),
            image=self.image,
            cluster_xml=self.cluster_xml,
            answers=self.answers,
            boot=wish.boot,
            nodes=wish.nodes,
            timeouts=self.timeouts,
            known_issues=self.known_issues,
        )


def plans(site: Site, matrix: Matrix) -> tuple[CellPlan, ...]:
    """A plan for every cell of the matrix. Raises ConfigError, with file and line, where one cannot be used."""
    site.check_against(matrix)
    return tuple(
        CellPlan(
            cell=cell,
            image=matrix.image(cell),
            answers=matrix.answers(cell),
            cluster_xml=matrix.cluster_xml(cell),
            timeouts=site.timeouts,
            workers=site.workers_for(cell.name),
            known_issues=matrix.known_issues(cell),
        )
        for cell in matrix.cells
    )


def run_directory(site: Site, run_id: str) -> Path:
    """Where a worker keeps a run."""
    return site.driver.runs / run_id
