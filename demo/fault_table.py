"""`python -m demo.fault_table`: every fault of the stand-in, run for real, and what the farm said of it.

Each fault is committed to a Subversion repository of its own and installed by `oscar-testdriver replay`, with the whole
virtual cluster. A row is right if stage, OSCAR's stage, whose fault it is and the words are as `faults.toml` says, and
if the verdict made again from the run's files is the one that the run ended with.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import click

from demo.farm import CHECKOUT, STANDIN
from demo.faults import GOOD, Fault, FaultBook, place
from demo.replays import DRIVER, Commits, last_run, markdown, names_in, replay, rows_as_they_come, show, standin_served
from demo.sighting import Lookout, Sighting, seconds_until
from oscar_steps.errors import FarmError, UserError
from oscar_steps.job import CellPlan, Job, Source, Timeouts
from oscar_steps.matrix.cells import load_matrix
from oscar_steps.testdriver.record.events import read_events
from oscar_steps.verdict import ExitStatus, Outcome, Verdict

NONE = "none"
"""The row of the tree as it is."""

# Limits that are long for an idle host and short for a test: what hangs is found soon.
TIMEOUTS = Timeouts(silence=75, node_boot=75, node_stall=30, node_up=75, node_reboot=40)


@dataclass(frozen=True)
class Row:
    """One fault, what was said of it, and how long that took. `wrong`: a few words for each thing that is not right."""

    name: str
    fault: Fault
    verdict: Verdict | None
    wrong: tuple[str, ...]
    certain_after: float | None = None
    """Seconds from the line that showed the fault to the moment when the run had failed."""
    same_again: bool | None = None
    """Whether the verdict made again from the run's files is the one that the run ended with."""

    @property
    def said(self) -> str:
        if self.verdict is None:
            return "nothing"
        if self.verdict.outcome is Outcome.PASSED:
            return "passed"
        return place(self.verdict.stage, self.verdict.oscar_stage, self.verdict.category)

    def cells(self) -> tuple[str, ...]:
        """As `COLUMNS`."""
        seconds = f"{self.verdict.seconds:.0f}" if self.verdict else "-"
        certain = f"{self.certain_after:.1f}" if self.certain_after is not None else "-"
        again = {True: "yes", False: "NO", None: "-"}[self.same_again]
        words = self.verdict.sentence if self.verdict else "; ".join(self.wrong)
        right = "yes" if not self.wrong else f"NO: {'; '.join(self.wrong)}"
        return self.name, self.fault.expected, self.said, right, seconds, certain, again, words


COLUMNS = ("fault", "expected", "said", "right?", "run, s", "certain after, s", "the same again?", "sentence")


class _FaultWatch:
    """Notes when the line that shows the fault was first there."""

    def __init__(self, pattern: str) -> None:
        self._pattern = pattern
        self._lookout: Lookout | None = None
        self.sighting: Sighting | None = None

    def look(self, run: Path) -> None:
        """Take notice of the line if it has come."""
        self._lookout = self._lookout or Lookout(run, self._pattern)
        self._lookout.look()
        self.sighting = self._lookout.sighting


class Proving:
    """Runs faults, each in `runs`/NAME/RUN. The repository is served while this context is open."""

    def __init__(self, runs: Path, book: FaultBook) -> None:
        self._runs, self._book = runs.resolve(), book

    @contextmanager
    def serving(self) -> Iterator[Proving]:
        """The stand-in's repository, for as long as it is needed."""
        with standin_served() as repository:
            self._commits = Commits(repository)
            yield self

    def row(self, name: str, *, resume: bool = False) -> Row:
        """The row of one fault; with `resume`, of its last run if that came to its end. Raises FaultUnknown."""
        fault = GOOD if name == NONE else self._book[name]
        try:
            run = (last_run(self._runs / name) if resume else None) or self._run(name, fault)
            return judge(name, fault, run)
        except FarmError as error:
            return Row(name, fault, None, (error.sentence,))

    def _run(self, name: str, fault: Fault) -> Path:
        watch = _FaultWatch(fault.line)
        run = replay(self._job(name, fault), self._runs / name, watch)
        if watch.sighting:
            watch.sighting.save(run)
        return run

    def _job(self, name: str, fault: Fault) -> Job:
        matrix = load_matrix(CHECKOUT / "profiles")
        source = Source(url=f"{self._commits.repository.url}/trunk", revision=str(self._commit(name)))
        return CellPlan.of(matrix, matrix.cells[0], TIMEOUTS).job("fault", source, boot=fault.boot)

    def _commit(self, name: str) -> int:
        return 1 if name == NONE else self._commits.patch(f"fault {name}", self._book.patch(name))


def judge(name: str, fault: Fault, run: Path) -> Row:
    """The row of a run that is over. Raises FarmError where it has no readable verdict."""
    verdict = Verdict.load(run)
    failures = [event for event in read_events(run) if event.kind == "failure"]
    certain_after = seconds_until(Sighting.load(run), failures[0].stamp) if failures else None
    wrong = fault.complaints(verdict)
    same = verdict_again(run) == verdict
    if not same:
        wrong.append("its files give another verdict than the one that was stored")
    return Row(name, fault, verdict, tuple(wrong), certain_after, same)


def verdict_again(run: Path) -> Verdict | None:
    """The verdict that `oscar-testdriver verdict` makes from the run's files; None: it makes none."""
    done = subprocess.run([*DRIVER, "verdict", str(run), "--json"], capture_output=True, cwd=CHECKOUT, check=False)
    try:
        return Verdict.model_validate_json(done.stdout)
    except ValueError:
        return None


def _names(only: str, book: FaultBook) -> list[str]:
    wanted = names_in(only)
    for name in wanted:
        if name != NONE:
            book[name]  # raises FaultUnknown
    return wanted or [NONE, *book.faults]


@click.command()
@click.option("--only", default="", metavar="NAME,...", help="These faults alone; 'none' is the tree as it is.")
@click.option("--runs", type=click.Path(path_type=Path, file_okay=False), default=CHECKOUT / ".farm" / "faults",
              help="Folder that keeps the run directories, one folder a fault.")  # fmt: skip
@click.option("--resume", is_flag=True, help="Faults that have a verdict in --runs are judged and not run again.")
@click.option("--at-once", default=1, show_default=True, type=click.IntRange(1, 16), help="Virtual clusters at once.")
@click.option("--markdown", "file", type=click.Path(path_type=Path, dir_okay=False), help="Write the table there too.")
def main(only: str, runs: Path, resume: bool, at_once: int, file: Path | None) -> NoReturn:
    """Run every fault of the stand-in OSCAR and print what the farm said of it. Ends with 0 only if all are right."""
    try:
        book = FaultBook(STANDIN / "faults")
        names = _names(only, book)
        rows: list[Row] = []
        with Proving(runs, book).serving() as proving:
            for row in rows_as_they_come(lambda name: proving.row(name, resume=resume), names, at_once):
                rows.append(row)
                name, _, said, right, seconds, certain, _, sentence = row.cells()
                click.echo(f"[{len(rows)}/{len(names)}] {name}: {said} after {seconds} s, right: {right}, "
                           f"certain {certain} s after the fault: {sentence}")  # fmt: skip
        rows.sort(key=lambda row: names.index(row.name))
        show(COLUMNS[:-1], [(row.cells()[:-1], not row.wrong) for row in rows])
        if file:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(markdown(COLUMNS, [row.cells() for row in rows]), encoding="utf-8")
    except KeyboardInterrupt:
        sys.exit(130)
    except FarmError as error:
        click.echo(f"faults: {error.explain()}", err=True)
        sys.exit(ExitStatus.USAGE if isinstance(error, UserError) else ExitStatus.INFRASTRUCTURE)
    good = sum(not row.wrong for row in rows)
    click.echo(f"{good} of {len(rows)} right")
    sys.exit(0 if good == len(rows) else 1)


if __name__ == "__main__":
    main()
