"""Jobs that are run for real, one run directory each, against a Subversion repository with the stand-in OSCAR.

What the table of faults and the table of the matrix have in common.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Protocol, TypeVar

from rich.console import Console
from rich.table import Table

from demo.children import last_line, start
from demo.errors import NoVerdict
from demo.farm import CHECKOUT, STANDIN, USERS
from demo.repository import Repository, apply_patch
from demo.sighting import wait
from oscar_steps.job import Job
from oscar_steps.verdict import VERDICT_FILE, Outcome, Verdict

_LOG_COLUMNS = 200
DRIVER = (sys.executable, "-m", "oscar_steps.testdriver")


class Watch(Protocol):
    """Looks at a run's files while the run goes on."""

    def look(self, run: Path) -> None: ...


@contextmanager
def standin_served() -> Iterator[Repository]:
    """A repository whose trunk is the stand-in, served for as long as it is needed."""
    with TemporaryDirectory(prefix="oscar-standin-") as directory:
        repository = Repository(Path(directory) / "svn", STANDIN / "tree", users=USERS)
        server = repository.serve(Path(directory) / "svnserve.log", os.environ)
        try:
            yield repository
        finally:
            server.stop(5)


class Commits:
    """Commits to the repository, one after the other; each takes back what the one before has changed."""

    def __init__(self, repository: Repository) -> None:
        self.repository = repository
        self._committing = threading.Lock()

    def patch(self, message: str, patch: Path) -> int:
        """The revision in which `patch` alone is added to the tree."""
        with self._committing:
            return self.repository.commit(USERS[1], message, apply_patch(patch), upon=1)


def last_run(*directories: Path, counts: Callable[[Path, Verdict], bool] | None = None) -> Path | None:
    """The newest run in one of the folders that came to its end by itself, of those that `counts` takes."""
    runs = [path.parent for directory in directories for path in directory.glob(f"*/{VERDICT_FILE}")]
    verdicts = {run: Verdict.load(run) for run in runs}
    ended = [run for run, verdict in verdicts.items() if verdict.outcome is not Outcome.CANCELLED]
    counted = [run for run in ended if counts is None or counts(run, verdicts[run])]
    return max(counted, key=lambda path: (path / VERDICT_FILE).stat().st_mtime, default=None)


def replay(job: Job, directory: Path, watch: Watch | None = None) -> Path:
    """Run `job` in a new folder below `directory`, which the driver names; that folder. Raises NoVerdict."""
    directory.mkdir(parents=True, exist_ok=True)
    before = set(directory.iterdir())
    job.save(directory / "job.json")
    command = [*DRIVER, "replay", str(directory / "job.json"), "--runs", str(directory)]
    output = directory / "output.log"
    with output.open("wb") as file:
        # The driver ends with us, and its virtual machines with it.
        process = start(
            ["setpriv", "--pdeathsig", "KILL", "--", *command],
            cwd=CHECKOUT, stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.STDOUT,
        )  # fmt: skip
        run = _watched(process, directory, before, watch)
    if run is None or not (run / VERDICT_FILE).exists():
        raise NoVerdict(f"the driver ended with status {process.returncode}: {last_line(output)} ({output})")
    return run


def _watched(process: subprocess.Popen[bytes], directory: Path, before: set[Path], watch: Watch | None) -> Path | None:
    """Look at the run's files until its driver ends; the run's directory."""
    run: Path | None = None
    over = False
    while not over:
        wait()
        over = process.poll() is not None
        if run is None:
            run = next((path for path in directory.iterdir() if path.is_dir() and path not in before), None)
        if run and watch:
            watch.look(run)
    return run


_Row = TypeVar("_Row")


def rows_as_they_come(row: Callable[[str], _Row], names: Sequence[str], at_once: int) -> Iterator[_Row]:
    """`row` of each name, `at_once` at a time. At Ctrl-C the drivers, which get it too, end their clusters first."""
    with ThreadPoolExecutor(max_workers=at_once) as pool:
        waiting = [pool.submit(row, name) for name in names]
        try:
            for future in as_completed(waiting):
                yield future.result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def names_in(words: str) -> list[str]:
    """The names in a list with commas."""
    return [name.strip() for name in words.split(",") if name.strip()]


def markdown(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table as Markdown."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |\n" for line in lines)


def show(columns: Sequence[str], rows: Sequence[tuple[Sequence[str], bool]]) -> None:
    """A table on the terminal; a row that is not right is red."""
    table = Table()
    for column in columns:
        table.add_column(column, justify="right" if column.endswith(", s") else "left", overflow="fold")
    for cells, right in rows:
        table.add_row(*cells, style="" if right else "red")
    console = Console()
    if not console.is_terminal and "COLUMNS" not in os.environ:  # a log or a pipe, for which 80 columns are assumed
        console.width = _LOG_COLUMNS
    console.print(table)
