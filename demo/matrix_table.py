"""`python -m demo.matrix_table`: every cell of the matrix, run for real with the stand-in OSCAR, and what came of it.

The table is made from what the runs have left, their verdicts and jobs, and from nothing else. So it can be made again
from folders of runs, also of runs on other machines.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import NoReturn

import click
from pydantic import BaseModel, ConfigDict, ValidationError

from demo.farm import CHECKOUT
from demo.replays import last_run, markdown, names_in, replay, rows_as_they_come, show, standin_served
from oscar_steps.errors import ConfigError, FarmError, UserError
from oscar_steps.images import foreign
from oscar_steps.job import JOB_FILE, CellPlan, Source, Timeouts
from oscar_steps.matrix.cells import Cell, Matrix, load_matrix
from oscar_steps.textio import read_regular
from oscar_steps.v3m.boards import BOARDS
from oscar_steps.v3m.host.checks import missing_for
from oscar_steps.v3m.profiles.cluster import ClusterProfile, parse_cluster
from oscar_steps.v3m.profiles.vm import BootDevice
from oscar_steps.verdict import ExitStatus, Outcome, Stage, Verdict
from oscar_steps.words import NodeBoot

COLUMNS = (
    "cell", "outcome", "nodes boot from", "nodes", "base image", "image there in, s", "head node booted in, s",
    "installed in, s", "total, s", "day", "why not",
)  # fmt: skip

_INSTALLING = (Stage.START_INSTALL, Stage.BOOT_NODES, Stage.WAIT_NODES, Stage.FINALIZE)
_STAMP = re.compile(r"-(\d{8})-\d{6}-\d+$")
_COLUMN_END = re.compile(r"(?<!\\)\|")

_HEAD = """\
# The matrix, as it ran

{green} of {all} cells are green. Made by `make matrix` from the verdicts of runs; do not edit it.

Each run is a whole one: a head node boots from the base image, the stand-in OSCAR (`tests/oscar_standin`) makes it a
server and installs its compute nodes, which boot from a CD or the network (PXE), and tests the cluster. The row is that
of the cell's last run, whose day it tells.

"""


class Asked(BaseModel):
    """What a run's job says of its compute nodes. The rest of a job differs from version to version of the farm, and a
    run may be older than we are."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    cluster_xml: str
    boot: NodeBoot | None = None
    nodes: int | None = None

    @classmethod
    def load(cls, run: Path) -> Asked:
        """Raises ConfigError."""
        try:
            return cls.model_validate_json(read_regular(run / JOB_FILE))
        except (OSError, ValidationError) as error:
            raise ConfigError(f"{run / JOB_FILE} is not the job of a run: {str(error).splitlines()[0]}") from None

    @property
    def _cluster(self) -> ClusterProfile:
        return parse_cluster(self.cluster_xml, "the cluster profile")

    @property
    def boots_from(self) -> str:
        return "network" if (self.boot or self._cluster.boot) == BootDevice.NETWORK else "CD"

    @property
    def node_count(self) -> int:
        return self.nodes or len(self._cluster.nodes)

    def nodes_as(self, other: Asked) -> bool:
        """Whether as many nodes boot in the same way."""
        return (self.boots_from, self.node_count) == (other.boots_from, other.node_count)


@dataclass(frozen=True)
class Row:
    """One cell, and the last run of it; `trouble`: why there is none."""

    cell: str
    verdict: Verdict | None = None
    asked: Asked | None = None
    trouble: str = ""

    @classmethod
    def of(cls, cell: str, run: Path) -> Row:
        """The row of a run that is over. Raises FarmError where its files cannot be read."""
        return cls(cell, Verdict.load(run), Asked.load(run))

    @property
    def green(self) -> bool:
        return self.verdict is not None and self.verdict.outcome is Outcome.PASSED

    def cells(self) -> tuple[str, ...]:
        """As `COLUMNS`."""
        verdict = self.verdict
        if verdict is None or self.asked is None:
            return self.cell, "not run", *["-"] * (len(COLUMNS) - 3), self.trouble or "no run of it has a verdict"
        seconds = {report.stage: report.seconds for report in verdict.stages}
        installed = sum(seconds.get(stage, 0.0) for stage in _INSTALLING)
        return (
            self.cell,
            str(verdict.outcome),
            self.asked.boots_from,
            str(self.asked.node_count),
            verdict.image.key[:12] if verdict.image else "-",
            _seconds(seconds.get(Stage.CREATE_IMAGE)),
            _seconds(seconds.get(Stage.BOOT_HEADNODE)),
            _seconds(installed),
            _seconds(verdict.seconds),
            self._day(),
            "" if self.green else verdict.sentence,
        )

    def _day(self) -> str:
        """The run's day, which its id ends with."""
        found = _STAMP.search(self.verdict.run_id) if self.verdict else None
        return f"{datetime.strptime(found[1], '%Y%m%d').replace(tzinfo=UTC):%Y-%m-%d}" if found else "-"


def _seconds(number: float | None) -> str:
    return f"{number:.0f}" if number else "-"


class Cells:
    """Runs cells, each in the first folder of `runs`, /CELL/RUN. What they have left is looked for in all of them, also
    in /RUN, where a run made by hand is."""

    def __init__(self, matrix: Matrix, runs: Sequence[Path]) -> None:
        self._matrix, self._runs = matrix, [folder.resolve() for folder in runs]

    def names(self, only: str) -> list[str]:
        """The cells that were asked for, or all. Raises ConfigError for one that there is not."""
        return [self._matrix.cell(name).name for name in names_in(only)] or [cell.name for cell in self._matrix.cells]

    def of_names(self, names: Iterable[str]) -> list[Cell]:
        return [self._matrix.cell(name) for name in names]

    def known(self, name: str) -> Row:
        """The row of the cell's last run. A run whose nodes were made to boot otherwise does not count."""
        try:
            plan = CellPlan.of(self._matrix, self._matrix.cell(name), Timeouts())
            cell = Asked.model_validate_json(plan.job(name, Source(url=name, revision="1")).model_dump_json())

            def counts(run: Path, verdict: Verdict) -> bool:
                return verdict.cell == name and Asked.load(run).nodes_as(cell)

            run = last_run(*self._runs, *(folder / name for folder in self._runs), counts=counts)
            return Row.of(name, run) if run else Row(name)
        except FarmError as error:
            return Row(name, trouble=error.sentence)

    def run(self, name: str, url: str) -> Row:
        """Run the cell with the OSCAR at `url`."""
        try:
            plan = CellPlan.of(self._matrix, self._matrix.cell(name), Timeouts())
            return Row.of(name, replay(plan.job(name, Source(url=url, revision="1")), self._runs[0] / name))
        except FarmError as error:
            return Row(name, trouble=error.sentence)


def lacks_of(cells: Iterable[Cell]) -> str:
    """All that the host lacks for these cells, in one sentence with the command; '' for nothing."""
    lacks: dict[str, str] = {}
    short: list[str] = []
    for cell in cells:
        board = BOARDS.get(cell.architecture)
        here = {**(dict(missing_for(board)) if board else {}), **foreign.missing_for(cell.architecture)}
        short += [cell.name] * bool(here)
        lacks |= here
    if not lacks:
        return ""
    packages = " ".join(dict.fromkeys(lacks.values()))
    return f"this host lacks {', '.join(lacks)} for the cells {', '.join(short)}\n  apt-get install {packages}"


def _run_all(cells: Cells, names: Sequence[str], at_once: int, resume: bool) -> Iterable[Row]:
    left = [name for name in names if not resume or cells.known(name).verdict is None]
    if not left:
        return
    if lacks := lacks_of(cells.of_names(left)):
        click.echo(f"matrix: {lacks}", err=True)
    with standin_served() as repository:
        url = f"{repository.url}/trunk"
        yield from rows_as_they_come(lambda name: cells.run(name, url), left, at_once)


def page(rows: Sequence[Row], earlier: str = "") -> str:
    """`docs/matrix.md`. A cell that no run is known of keeps the row that it has in `earlier`, which tells its day."""
    before = _rows_in(earlier)
    lines = [row.cells() if row.verdict or row.trouble else before.get(row.cell, row.cells()) for row in rows]
    green = sum(line[1] == Outcome.PASSED for line in lines)
    return _HEAD.format(green=green, all=len(lines)) + markdown(COLUMNS, lines)


def _rows_in(text: str) -> dict[str, tuple[str, ...]]:
    """The rows of a page by their cells; none of a page whose table has other columns."""
    found = [_COLUMN_END.split(line)[1:-1] for line in text.splitlines() if line.startswith("| ")]
    rows = [tuple(word.strip().replace("\\|", "|") for word in row) for row in found]
    if not rows or rows[0] != COLUMNS:
        return {}
    return {row[0]: row for row in rows[2:] if len(row) == len(COLUMNS)}


@click.command()
@click.option(
    "--only", default="", metavar="CELL,...", help="Run these cells alone. The table has all, as they ran last."
)
@click.option("--runs", default=str(CHECKOUT / ".farm" / "matrix"), metavar="FOLDER,...",
              help="Folders of run directories, a folder a cell. New runs go into the first.")  # fmt: skip
@click.option("--resume", is_flag=True, help="Cells that have a verdict in --runs are not run again.")
@click.option("--no-run", is_flag=True, help="Run nothing; make the table of what has run.")
@click.option("--at-once", default=1, show_default=True, type=click.IntRange(1, 16), help="Virtual clusters at once.")
@click.option(
    "--markdown",
    "file",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write the table there too. Cells without a run in --runs keep their rows there.",
)
@click.option("--profiles", type=click.Path(path_type=Path, file_okay=False), default=CHECKOUT / "profiles",
              help="Folder with matrix.toml and what it names.")  # fmt: skip
def main(only: str, runs: str, resume: bool, no_run: bool, at_once: int, file: Path | None, profiles: Path) -> NoReturn:
    """Run every cell of the matrix and print what came of it. Ends with 0 only if all that it shows are green."""
    try:
        cells = Cells(load_matrix(profiles), [Path(name) for name in names_in(runs)])
        names = cells.names(only)
        for number, row in enumerate(() if no_run else _run_all(cells, names, at_once, resume), 1):
            outcome, why = row.cells()[1], row.cells()[-1]
            click.echo(f"[{number}] {row.cell}: {outcome} after {row.cells()[-3]} s{why and ': '}{why}")
        rows = [cells.known(name) for name in (cells.names("") if file else names)]
        show(COLUMNS, [(row.cells(), row.green) for row in rows])
        if file:
            file.parent.mkdir(parents=True, exist_ok=True)
            earlier = file.read_text(encoding="utf-8") if file.exists() else ""
            file.write_text(page(rows, earlier), encoding="utf-8")
    except KeyboardInterrupt:
        sys.exit(130)
    except FarmError as error:
        click.echo(f"matrix: {error.explain()}", err=True)
        sys.exit(ExitStatus.USAGE if isinstance(error, UserError) else ExitStatus.INFRASTRUCTURE)
    green = sum(row.green for row in rows)
    click.echo(f"{green} of {len(rows)} green")
    sys.exit(0 if green == len(rows) else 1)


if __name__ == "__main__":
    main()
