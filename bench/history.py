"""What the farm's own questions to the database cost after years of nights, on SQLite and on PostgreSQL.

    python -m bench.history [--cells 1500] [--nights 365] [--times 20] [--folder FOLDER] [--explain] [--markdown]

Makes the rows (every cell once a night, on three branches; one red in twenty, some of them flaky; ten known issues; ten
commits a day), then asks each question with arguments that change, and prints the medians in milliseconds and
PostgreSQL's share of SQLite's. `--explain` prints the plan of each statement that reads a whole table of the farm's or
of builds. Both databases are in a folder of their own, which is removed at the end.
"""

from __future__ import annotations

import argparse
import asyncio
import csv
import io
import json
import os
import re
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import sqlalchemy as sa
from buildbot.db.model import Model
from buildbot.process.results import FAILURE, RETRY, SUCCESS
from rich.console import Console
from rich.table import Table

from oscar_steps.master.bisect import case
from oscar_steps.master.fair import _last_builds
from oscar_steps.master.history import table
from oscar_steps.master.history.heal import issue_states
from oscar_steps.master.history.record import Result
from oscar_steps.master.history.store import HISTORY_SERVICE, YEAR
from oscar_steps.master.reports.candidate import _buildsets_of
from oscar_steps.master.scale import distribution
from oscar_steps.master.schedules import busy, clock, commit
from oscar_steps.master.schedules.names import CHANGES, IDENTITY, NIGHTLY, PER_COMMIT
from oscar_steps.master.watch.svn import PROJECT
from oscar_steps.oscar.known import KnownIssue
from tests.farm.postgres import postgres

URL = "svn://svn.example.org/oscar"
BRANCHES = ("trunk", "branches/5-1", "branches/5-0")
_DAY = 86400
_COMMITS = 10
"""A day."""
_SMOKE = 3
"""Cells that a commit is tested in."""
_AT_ONCE = 20_000
_REFERENCES = 10
Row = tuple[Any, ...]
Question = Callable[[sa.Connection, int], Any]


class Farm:
    """Numbers of cells and nights, and the rows that they leave. Ids count from 1; the last night was yesterday's."""

    def __init__(self, cells: int, nights: int) -> None:
        self.cells, self.nights = cells, nights
        self.start = int(time.time()) - nights * _DAY
        self.sets = nights * len(BRANCHES)
        """Buildsets of nights; those of commits come after them."""
        self.commits = nights * _COMMITS
        self.builds = nights * cells

    def name(self, cell: int) -> str:
        return f"distribution{cell // 20}-{cell % 20}-x86_64"

    def branch(self, night: int, cell: int) -> int:
        """Eight nights in ten of a cell are the trunk's."""
        return max(0, (night + cell) % 10 - 7)

    def red(self, build: int) -> bool:
        return build % 19 == 0

    def signature(self, build: int) -> str:
        """A few failures are frequent, many are rare."""
        return f"wait-nodes:{int((build * 2654435761 % 2**32 / 2**32) ** 3 * 2000):012x}" if self.red(build) else ""

    def results(self) -> Iterator[Row]:
        """Of the farm's own table."""
        for night in range(self.nights):
            for cell in range(self.cells):
                yield tuple(self.result(night, cell).values())

    def result(self, night: int, cell: int, build: int = 0) -> dict[str, Any]:
        """One of them."""
        build = build or night * self.cells + cell + 1
        red = self.red(build)
        known = [f"T{build // 95 % _REFERENCES}"] if build % 95 == 0 else []
        said = Result(
            build=build,
            number=night + 1,
            request=build,
            cell=self.name(cell),
            branch=BRANCHES[self.branch(night, cell)],
            identity=f"{night:064x}",
            source=f"r{night * _COMMITS}",
            url=f"{URL}/trunk",
            revision=str(night * _COMMITS),
            outcome="failed" if red else "passed",
            stage="wait-nodes" if red else "",
            category="oscar" if red else "",
            signature=self.signature(build),
            sentence="oscarnode2 stopped in mid-pull: 41 MB came, then nothing for 150 s" if red else "passed",
            image=f"{cell:016x}",
            packages=f"{night // 7:016x}",
            farm=f"{night // 30:016x}",
            worker="worker1",
            scheduler=NIGHTLY,
            ended=float(self.start + night * _DAY + cell),
            flaky=red and build % 5 == 0,
        )
        return {**asdict(said), "changes": "[]", "known": json.dumps(known)}

    def rows(self) -> Iterator[tuple[sa.Table, Sequence[str], Iterable[Row]]]:
        """All rows of all tables, with the columns that they fill."""
        nights, every = range(self.nights), range(self.cells)
        ids = [(night, cell, night * self.cells + cell + 1) for night in nights for cell in every]
        when = [self.start + night * _DAY for night in nights]
        done = {False: SUCCESS, True: FAILURE}
        yield Model.masters, ("id", "name", "name_hash", "active", "last_active"), [(1, "m", "m", 1, 1)]
        yield Model.builders, ("id", "name", "name_hash"), ((c + 1, self.name(c), self.name(c)) for c in every)
        yield (
            Model.sourcestamps,
            ("id", "ss_hash", "branch", "revision", "repository", "codebase", "project", "created_at"),
            (
                (number + 1, str(number), branch, str(number), URL, "", PROJECT, 1)
                for number, branch in enumerate(self._branches())
            ),
        )
        yield (
            Model.changes,
            ("changeid", "author", "comments", "branch", "revision", "when_timestamp", "repository", "codebase",
             "project", "sourcestampid"),
            (
                (n + 1, "dev", "a message", "trunk", str(n), 1, URL, "", PROJECT, self.sets + n + 1)
                for n in range(self.commits)
            ),
        )  # fmt: skip
        sets = range(self.sets + self.commits)
        yield (
            Model.buildsets,
            ("id", "submitted_at", "complete", "complete_at", "results", "reason"),
            ((n + 1, when[self._night(n)], 1, when[self._night(n)] + 9, SUCCESS, "") for n in sets),
        )
        links = ((n + 1, n + 1, n + 1) for n in sets)
        yield Model.buildset_sourcestamps, ("id", "buildsetid", "sourcestampid"), links
        yield Model.buildset_properties, ("buildsetid", "property_name", "property_value"), self._said()
        yield (
            Model.buildrequests,
            ("id", "buildsetid", "builderid", "priority", "complete", "results", "submitted_at", "waited_for"),
            self._requests(ids, when, done),
        )
        yield (
            Model.builds,
            ("id", "number", "builderid", "buildrequestid", "masterid", "started_at", "complete_at",
             "locks_duration_s", "state_string", "results"),
            ((b, n + 1, c + 1, b, 1, when[n], when[n] + c, 0, "", done[self.red(b)]) for n, c, b in ids),
        )  # fmt: skip
        yield table.RESULTS, [column.name for column in table.RESULTS.columns], self.results()
        yield (
            table.SHOWN,
            ("reference", "build", "cell"),
            ((f"T{b // 95 % _REFERENCES}", b, self.name(c)) for _, c, b in ids if b % 95 == 0),
        )

    def _branches(self) -> Iterator[str]:
        for _ in range(self.nights):
            yield from BRANCHES
        yield from ["trunk"] * self.commits

    def identity(self, buildset: int) -> str:
        """What a night tests."""
        return f"{buildset:064x}"

    def _night(self, buildset: int) -> int:
        return buildset // len(BRANCHES) if buildset < self.sets else (buildset - self.sets) // _COMMITS

    def _said(self) -> Iterator[Row]:
        for number in range(self.sets + self.commits):
            by = NIGHTLY if number < self.sets else PER_COMMIT
            yield number + 1, "scheduler", json.dumps([by, "Scheduler"])
            if by == NIGHTLY:
                yield number + 1, IDENTITY, json.dumps([self.identity(number), "Scheduler"])
            if number >= self.sets:
                yield number + 1, CHANGES, json.dumps([[number - self.sets + 1], "Scheduler"])
            for more in ("virtual_builder_name", "reason", "nodes", "boot"):
                yield number + 1, more, json.dumps(["", "Scheduler"])

    def _requests(self, ids: Iterable[tuple[int, int, int]], when: Sequence[int], done: Any) -> Iterator[Row]:
        for night, cell, build in ids:
            buildset = night * len(BRANCHES) + self.branch(night, cell) + 1
            yield build, buildset, cell + 1, 0, 1, done[self.red(build)], when[night], 0
        for number in range(self.commits * _SMOKE):
            buildset = self.sets + number // _SMOKE + 1
            yield self.builds + number + 1, buildset, number % _SMOKE + 1, 0, 1, SUCCESS, when[-1], 0

    def questions(self) -> dict[str, tuple[str, Question]]:
        """By name: who asks, and the question, of which the number is another one each time."""

        def cell(number: int) -> str:
            return self.name(number * 37 % self.cells)

        def sig(number: int) -> str:
            return self.signature(19 * (number * 997 % (self.builds // 19)) or 19)

        last, now = self.builds - 5, time.time()
        smoke = self.builds + self.commits * _SMOKE
        night, since = (NIGHTLY, URL, "trunk"), now - 43200
        return {
            "one result": ("all", lambda c, n: table.result_of_build(c, n * 997 % self.builds + 1)),
            "results of a cell and branch, 100": (
                "a red with several candidates",
                lambda c, n: table.results_of(c, cell(n), "trunk", 100, before=last),
            ),
            "results of a rare branch, 100": ("the same", lambda c, n: table.results_of(c, cell(n), BRANCHES[2], 100)),
            "results of a branch that never was": ("the same", lambda c, n: table.results_of(c, cell(n), "x", 100)),
            "a failure in its cell": ("each red", lambda c, n: table.seen(c, sig(n), cell(n), last)),
            "a failure anywhere": ("tests", lambda c, n: table.seen(c, sig(n))),
            "the most frequent failure anywhere": ("tests", lambda c, _n: table.seen(c, f"wait-nodes:{0:012x}")),
            "rate of flakes of a cell": (
                "each mail of a repetition",
                lambda c, n: table.flake_rate(c, cell(n), sig(n)),
            ),
            "has the cell flaked": ("each red of a commit", lambda c, n: table.has_flaked(c, cell(n))),
            "what has flaked within a year, 50": (
                "the page of standing problems",
                lambda c, _n: table.flakes(c, now - YEAR, 50),
            ),
            "what a source has had already": (
                "each commit's build",
                lambda c, n: table.judged(c, cell(n), f"{n % self.nights:064x}", f"{n % self.nights // 30:016x}"),
            ),
            "the last night of a cell": (
                "each build of a night",
                lambda c, n: table.last_judged(c, cell(n), "trunk", NIGHTLY),
            ),
            "a known issue": ("the same page, the night's mail", lambda c, n: table.shown(c, f"T{n % _REFERENCES}")),
            "results that were not noted": (
                "a start",
                lambda c, _n: table.not_noted(c, Model, (RETRY,), self.start),
            ),
            "forget": ("a start", lambda c, _n: table.forget(c, self.start - 1.0)),
            "note a result": ("each build", self._note),
            "last builds of all cells": ("a start", lambda c, _n: _last_builds(c, Model)),
            "cells that wait": ("each build that ends", lambda c, _n: distribution._unclaimed(c, Model)),
            "requests that were replaced": (
                "each commit's build",
                lambda c, n: busy._replaced(c, Model, n % _SMOKE + 1, smoke, "trunk"),
            ),
            "branches with commits": ("a night", lambda c, _n: clock._known_branches(c, Model)),
            "this night's buildsets": ("a night", lambda c, _n: clock._asked_between(c, Model, *night, since, now)),
            "cells that are tested": (
                "a night",
                lambda c, _n: clock._tested(c, Model, *night, self.identity(self.sets - 3)),
            ),
            "changes with builds": ("each commit", lambda c, _n: commit.changes_with_builds(c, Model)),
            "buildsets of a release": ("each release's build", lambda c, n: _buildsets_of(c, Model, n)),
            "builds of all searches": ("each red", lambda c, _n: case._asked_for(c, Model)),
        }

    def _note(self, connection: sa.Connection, number: int) -> None:
        new = self.result(self.nights - 1, number, self.builds + number + 1)
        table.add(connection, [Result(**{**new, "changes": (), "known": ()})])


def fill(engine: sa.Engine, to: sa.Table, columns: Sequence[str], rows: Iterable[Row]) -> None:
    """Write the rows, by the way of each database that does it fastest."""
    names = ", ".join(columns)
    source = iter(rows)
    connection: Any = engine.raw_connection()
    cursor = connection.cursor()
    while some := list(islice(source, _AT_ONCE)):
        if engine.dialect.name == "sqlite":
            cursor.executemany(f"INSERT INTO {to.name} ({names}) VALUES ({', '.join('?' * len(columns))})", some)
        else:
            text = io.StringIO()
            csv.writer(text, quoting=csv.QUOTE_ALL).writerows(some)
            text.seek(0)
            cursor.copy_expert(f"COPY {to.name} ({names}) FROM STDIN CSV", text)
    connection.commit()
    connection.close()


def page(engine: sa.Engine, _number: int) -> None:
    """The known issues, as the page of standing problems and the night's mail ask for them."""

    async def do(question: Any, *arguments: Any) -> Any:
        with engine.connect() as connection:
            return question(connection, *arguments)

    expires = (datetime.now(UTC) + timedelta(days=9)).date()
    issues = [KnownIssue(text="text of an issue", reference=f"T{n}", expires=expires) for n in range(_REFERENCES)]
    services = SimpleNamespace(namedServices={HISTORY_SERVICE: SimpleNamespace(issues=issues)})
    asyncio.run(
        issue_states(SimpleNamespace(db=SimpleNamespace(pool=SimpleNamespace(do=do)), service_manager=services))
    )


def measure(engine: sa.Engine, farm: Farm, times: int) -> dict[str, float]:
    """The median of each question, in milliseconds."""

    def median(ask: Callable[[int], Any]) -> float:
        taken = []
        for number in range(times):
            begun = time.perf_counter()
            ask(number)
            taken.append((time.perf_counter() - begun) * 1000)
        return statistics.median(taken)

    def asked(question: Question) -> Callable[[int], Any]:
        def ask(number: int) -> None:
            with engine.connect() as connection:
                question(connection, number)

        return ask

    found = {name: median(asked(question)) for name, (_, question) in farm.questions().items()}
    return found | {f"all {_REFERENCES} known issues": median(lambda number: page(engine, number))}


def plans(engine: sa.Engine, farm: Farm) -> None:
    """Print the plan of each statement that reads a whole table."""
    asked: list[tuple[str, Any]] = []
    note = lambda _c, _cursor, statement, parameters, *_more: asked.append((statement, parameters))  # noqa: E731
    explain = "EXPLAIN QUERY PLAN" if engine.dialect.name == "sqlite" else "EXPLAIN"
    for name, (_, question) in farm.questions().items():
        asked.clear()
        sa.event.listen(engine, "before_cursor_execute", note)
        with engine.connect() as connection:
            question(connection, 3)
        sa.event.remove(engine, "before_cursor_execute", note)
        for statement, parameters in dict(asked[:10]).items():
            with engine.connect() as connection:
                plan = connection.exec_driver_sql(f"{explain} {statement}", parameters).fetchall()
            lines = [str(row[-1]) for row in plan]
            if any(re.search("SCAN (farm_|build)|Seq Scan on (farm_|build)|TEMP B-TREE", line) for line in lines):
                print(f"\n{engine.dialect.name}: {name}\n  {' '.join(statement.split())[:600]}")
                print("\n".join(f"    {line}" for line in lines))


@contextmanager
def databases(folder: Path) -> Iterator[list[sa.Engine]]:
    """Both of them, empty."""
    with postgres() as server:
        server.administer("CREATE DATABASE history")
        file = sa.create_engine(f"sqlite:///{folder}/state.sqlite")
        with file.connect() as connection:
            connection.exec_driver_sql("PRAGMA journal_mode = wal")
        engines = [file, sa.create_engine(server.administrators_url("history"))]
        yield engines
        for engine in engines:
            engine.dispose()


def size(engine: sa.Engine) -> float:
    """Of the table of results with its indexes, in MiB."""
    with engine.connect() as connection:
        if engine.dialect.name == "sqlite":
            query = "SELECT sum(pgsize) FROM dbstat WHERE name LIKE 'farm_results%' OR name LIKE '%farm_results_1'"
        else:
            query = "SELECT pg_total_relation_size('farm_results')"
        try:
            return float(connection.exec_driver_sql(query).scalar() or 0) / 2**20
        except sa.exc.OperationalError:  # this SQLite was made without dbstat
            return float("nan")


def show(farm: Farm, found: Sequence[dict[str, float]], sizes: Sequence[float], *, markdown: bool) -> None:
    """Print them as a table."""
    who = {name: asker for name, (asker, _) in farm.questions().items()}
    heading = ["question", "asked by", "SQLite, ms", "PostgreSQL, ms", "ratio"]
    lines = [
        [name, who.get(name, "the same page, the night's mail"), f"{one:.2f}", f"{found[1][name]:.2f}",
         f"{found[1][name] / one:.2f}"]
        for name, one in found[0].items()
    ]  # fmt: skip
    lines.append(["size of the results, MiB", "", *(f"{each:.0f}" for each in sizes), f"{sizes[1] / sizes[0]:.2f}"])
    if markdown:
        print("\n".join(f"| {' | '.join(line)} |" for line in (heading, ["---"] * 2 + ["--:"] * 3, *lines)))
        return
    shown = Table(title=f"{farm.cells} cells, {farm.nights} nights; load {os.getloadavg()[0]:.1f}")
    for column in heading:
        shown.add_column(column, justify="right" if column.endswith(("ms", "ratio")) else "left")
    for line in lines:
        shown.add_row(*line)
    Console(width=130).print(shown)


def main() -> int:
    """Prints a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", type=int, default=1500)
    parser.add_argument("--nights", type=int, default=365)
    parser.add_argument("--times", type=int, default=20, help="each question is asked so many times (%(default)s)")
    parser.add_argument("--folder", type=Path, help="where the files are; it needs 2 GB of room")
    parser.add_argument("--explain", action="store_true", help="print plans that read a whole table")
    parser.add_argument("--markdown", action="store_true", help="print the table as Markdown")
    options = parser.parse_args()
    farm = Farm(options.cells, options.nights)
    with (
        tempfile.TemporaryDirectory(prefix="bench-history-", dir=options.folder) as folder,
        databases(Path(folder)) as two,
    ):
        found, sizes = [], []
        for engine in two:
            begun = time.monotonic()
            Model.metadata.create_all(engine)
            table.create(engine)
            for to, columns, rows in farm.rows():
                fill(engine, to, columns, rows)
            if engine.dialect.name == "postgresql":  # as its own housekeeping does
                with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
                    connection.exec_driver_sql("VACUUM ANALYZE")
            print(f"{engine.dialect.name}: {farm.builds} results after {time.monotonic() - begun:.0f} s", flush=True)
            sizes.append(size(engine))
            if options.explain:
                plans(engine, farm)
            found.append(measure(engine, farm, options.times))
    show(farm, found, sizes, markdown=options.markdown)
    return 0


if __name__ == "__main__":
    sys.exit(main())
