"""What a builder tests: a cell with all that it refers to, read once, so that a bad profile is found at start-up."""

from __future__ import annotations

from pathlib import Path

from oscar_steps.job import CellPlan
from oscar_steps.matrix import Matrix
from oscar_steps.site import Site


def plans(site: Site, matrix: Matrix) -> tuple[CellPlan, ...]:
    """A plan for every cell of the matrix. Raises ConfigError, with file and line, where one cannot be used."""
    site.check_against(matrix)
    return tuple(CellPlan.of(matrix, cell, site.timeouts) for cell in matrix.cells)


def run_directory(site: Site, run_id: str) -> Path:
    """Where a worker keeps a run."""
    return site.driver.runs / run_id
