"""`python -m demo.fault_table`: every fault of the stand-in, run for real, and what the farm said of it.

Each fault is committed to a Subversion repository of its own and installed by `oscar-testdriver replay`, with the whole
virtual cluster. A row is right if stage, OSCAR's stage, whose fault it is and the words are as `faults.toml` says, and
if the verdict made again from the run's files is the one that the run ended with.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NoReturn

import click
from rich.console import Console
from rich.table import Table

from demo.children import last_line, start
from demo.errors import NoVerdict
from demo.farm import CHECKOUT, STANDIN, USERS
from demo.faults import GOOD, Fault, FaultBook, place
from demo.repository import Repository, apply_patch
from demo.sighting import Lookout, Sighting, seconds_until, wait
from oscar_steps.errors import FarmError, UserError
from oscar_steps.job import CellPlan, Job, Source, Timeouts
from oscar_steps.matrix.cells import load_matrix
from oscar_steps.testdriver.record.events import read_events
from oscar_steps.verdict import VERDICT_FILE, ExitStatus, Outcome, Verdict

NONE = "none"
"""The row of the tree as it is."""

# Limits that are long for an idle host and short for a test: what hangs is found soon.
TIMEOUTS = Timeouts(silence=75, node_boot=75, node_stall=30, node_up=75, node_reboot=40)

_DRIVER = (sys.executable, "-m", "oscar_steps.testdriver")


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


class Proving:
    """Runs faults, each in `runs`/NAME/RUN. The repository is served while this context is open."""

    def __init__(self, runs: Path, book: FaultBook) -> None:
        self._runs, self._book = runs.resolve(), book
        self._committing = threading.Lock()

    @contextmanager
    def serving(self) -> Iterator[Proving]:
        """The stand-in's repository, for as long as it is needed."""
        with TemporaryDirectory(prefix="oscar-faults-") as directory:
            self._repository = Repository(Path(directory) / "svn", STANDIN / "tree", users=USERS)
            server = self._repository.serve(Path(directory) / "svnserve.log", os.environ)
            try:
                yield self
            finally:
                server.stop(5)

    def row(self, name: str, *, resume: bool = False) -> Row:
        """The row of one fault; with `resume`, of its last run if that came to its end. Raises FaultUnknown."""
        fault = GOOD if name == NONE else self._book[name]
        try:
            run = (self._last_run(name) if resume else None) or self._run(name, fault)
            return judge(name, fault, run)
        except FarmError as error:
            return Row(name, fault, None, (error.sentence,))

    def _last_run(self, name: str) -> Path | None:
        """The newest run that came to its end by itself."""
        runs = [path.parent for path in (self._runs / name).glob(f"*/{VERDICT_FILE}")]
        ended = [run for run in runs if Verdict.load(run).outcome is not Outcome.CANCELLED]
        return max(ended, key=lambda path: path.stat().st_mtime, default=None)

    def _run(self, name: str, fault: Fault) -> Path:
        directory = self._runs / name
        directory.mkdir(parents=True, exist_ok=True)
        before = set(directory.iterdir())
        self._job(name, fault).save(directory / "job.json")
        command = [*_DRIVER, "replay", str(directory / "job.json"), "--runs", str(directory)]
        output = directory / "output.log"
        with output.open("wb") as file:
            # The driver ends with us, and its virtual machines with it.
            process = start(
                ["setpriv", "--pdeathsig", "KILL", "--", *command],
                cwd=CHECKOUT, stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.STDOUT,
            )  # fmt: skip
            run = self._watch(process, directory, before, fault)
        if run is None or not (run / VERDICT_FILE).exists():
            raise NoVerdict(f"the driver ended with status {process.returncode}: {last_line(output)} ({output})")
        return run

    def _watch(self, process: subprocess.Popen[bytes], directory: Path, before: set[Path], fault: Fault) -> Path | None:
        """Look at the run's files until its driver ends; the run's directory."""
        lookout: Lookout | None = None
        run: Path | None = None
        over = False
        while not over:
            wait()
            over = process.poll() is not None
            if run is None:
                run = next((path for path in directory.iterdir() if path.is_dir() and path not in before), None)
                lookout = Lookout(run, fault.line) if run else None
            if lookout:
                lookout.look()
        if run and lookout and lookout.sighting:
            lookout.sighting.save(run)
        return run

    def _job(self, name: str, fault: Fault) -> Job:
        matrix = load_matrix(CHECKOUT / "profiles")
        source = Source(url=f"{self._repository.url}/trunk", revision=str(self._commit(name)))
        return CellPlan.of(matrix, matrix.cells[0], TIMEOUTS).job("fault", source, boot=fault.boot)

    def _commit(self, name: str) -> int:
        if name == NONE:
            return 1
        with self._committing:
            return self._repository.commit(USERS[1], f"fault {name}", apply_patch(self._book.patch(name)), upon=1)


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
    done = subprocess.run([*_DRIVER, "verdict", str(run), "--json"], capture_output=True, cwd=CHECKOUT, check=False)
    try:
        return Verdict.model_validate_json(done.stdout)
    except ValueError:
        return None


def markdown(rows: Sequence[Row]) -> str:
    """The table as Markdown."""
    lines = [COLUMNS, tuple("---" for _ in COLUMNS), *(row.cells() for row in rows)]
    return "".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |\n" for line in lines)


def show(rows: Sequence[Row]) -> None:
    """The table on the terminal; the sentence was printed when its run ended."""
    table = Table()
    for column in COLUMNS[:-1]:
        table.add_column(column, justify="right" if column.endswith(", s") else "left", overflow="fold")
    for row in rows:
        table.add_row(*row.cells()[:-1], style="red" if row.wrong else "")
    Console().print(table)


def _rows(proving: Proving, names: Sequence[str], at_once: int, resume: bool) -> Iterator[Row]:
    """The rows as they come. At Ctrl-C the drivers, which get it too, end their clusters first."""
    with ThreadPoolExecutor(max_workers=at_once) as pool:
        waiting = [pool.submit(proving.row, name, resume=resume) for name in names]
        try:
            for future in as_completed(waiting):
                yield future.result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _names(only: str, book: FaultBook) -> list[str]:
    wanted = [name.strip() for name in only.split(",") if name.strip()]
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
            for row in _rows(proving, names, at_once, resume):
                rows.append(row)
                name, _, said, right, seconds, certain, _, sentence = row.cells()
                click.echo(f"[{len(rows)}/{len(names)}] {name}: {said} after {seconds} s, right: {right}, "
                           f"certain {certain} s after the fault: {sentence}")  # fmt: skip
        rows.sort(key=lambda row: names.index(row.name))
        show(rows)
        if file:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(markdown(rows), encoding="utf-8")
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
