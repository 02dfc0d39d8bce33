"""The table of results: one row for each finished build, in Buildbot's own database, beside Buildbot's tables.

Buildbot has the same in its builds' properties, but no index on what is in them. So the table may be lost: it is made
anew of them. All functions here run in a thread of the database's pool.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

import sqlalchemy as sa
from alembic.operations import Operations
from alembic.runtime.migration import MigrationContext

from oscar_steps.master.history.record import Result, storable
from oscar_steps.verdict import Outcome

_LISTS = ("changes", "known")
_AT_ONCE = 500
_MOST_SAME = 100
_SAYS_SOMETHING = (Outcome.PASSED.value, Outcome.FAILED.value)


class _Words(sa.TypeDecorator[str]):
    """Text that every database takes: PostgreSQL refuses some. What is asked for is changed as what is noted was."""

    impl = sa.Text
    cache_ok = True

    def process_bind_param(self, value: str | None, _dialect: Any) -> str | None:
        """The text as it is noted."""
        return None if value is None else storable(value)


_KINDS: dict[str, tuple[type[Any], Any]] = {
    "int": (sa.Integer, "0"),
    "bool": (sa.Boolean, sa.false()),
    "float": (sa.Float, "0"),
    "str": (_Words, ""),
}
"""The type of a column, and what a row of an older farm has in it. All others are lists, in JSON."""


def _column(name: str, kind: str) -> Any:
    of_type, default = _KINDS.get(kind, (sa.Text, "[]"))
    if name == "build":
        return sa.Column(name, of_type, nullable=False, primary_key=True, autoincrement=False)
    return sa.Column(name, of_type, nullable=False, server_default=default)


_metadata = sa.MetaData()
RESULTS = sa.Table(
    "farm_results",
    _metadata,
    *(_column(each.name, str(each.type)) for each in fields(Result)),
    sa.Index("farm_results_cell", "cell", "build"),
    sa.Index("farm_results_identity", "cell", "identity"),
    sa.Index("farm_results_signature", "signature", "build"),
    sa.Index("farm_results_flaky", "flaky", "build"),
    sa.Index("farm_results_request", "request"),
)
SHOWN = sa.Table(
    "farm_known_shown",
    _metadata,
    sa.Column("reference", _Words, nullable=False, primary_key=True),
    sa.Column("build", sa.Integer, nullable=False, primary_key=True, autoincrement=False),
    sa.Column("cell", _Words, nullable=False),
)
"""Which builds have shown a known issue."""
_row = RESULTS.c


def create(engine: Any) -> None:
    """Make the tables where there are none, and what those of an older farm lack.

    The ids of builds come from Buildbot: nothing counts by itself here.
    """
    _metadata.create_all(engine)
    with engine.begin() as connection:
        change = Operations(MigrationContext.configure(connection))
        for table in _metadata.sorted_tables:
            there = {column["name"] for column in sa.inspect(connection).get_columns(table.name)}
            for column in [each for each in table.columns if each.name not in there]:
                new: Any = sa.Column(
                    column.name, column.type, nullable=column.nullable, server_default=column.server_default
                )
                change.add_column(table.name, new)
            for index in table.indexes:
                index.create(connection, checkfirst=True)


def add(connection: Any, results: Iterable[Result]) -> None:
    """Note results; one that is noted already stays as it is. A red and a green of the same are flaky together."""
    with connection.begin():
        for result in results:
            if connection.execute(sa.select(_row.build).where(_row.build == result.build)).first():
                continue
            values = asdict(result) | {name: json.dumps(getattr(result, name)) for name in _LISTS}
            values["flaky"] = _flaky(connection, result)
            connection.execute(RESULTS.insert().values(values))
            shown = [{"reference": each, "build": result.build, "cell": result.cell} for each in result.known]
            if shown:
                connection.execute(SHOWN.insert(), shown)


def _flaky(connection: Any, result: Result) -> bool:
    """Whether a red is; a green marks the reds before it."""
    if not result.counts or not result.identity or result.outcome not in _SAYS_SOMETHING:
        return False
    same = sa.and_(
        _row.cell == result.cell,
        _row.identity == result.identity,
        _row.image == result.image,
        _row.farm == result.farm,
        _row.counts.is_(sa.true()),
    )
    if result.outcome == Outcome.PASSED:
        red = sa.and_(same, _row.outcome == Outcome.FAILED.value)
        connection.execute(RESULTS.update().where(red).values(flaky=True))
        return False
    green = sa.select(_row.build).where(same, _row.outcome == Outcome.PASSED.value).limit(1)
    return connection.execute(green).first() is not None


def _read(rows: Iterable[Any]) -> list[Result]:
    return [
        Result(**{**row._mapping, **{name: tuple(json.loads(row._mapping[name])) for name in _LISTS}}) for row in rows
    ]


def results_of(
    connection: Any, cell: str, branch: str | None, limit: int, *, counted: bool = True, before: int | None = None
) -> list[Result]:
    """The last results of a cell, the newest first; of any branch where that is None. `before`: builds with less."""
    query = sa.select(RESULTS).where(_row.cell == cell)
    if branch is not None:
        query = query.where(_row.branch == branch)
    if counted:
        query = query.where(_row.counts.is_(sa.true()))
    if before is not None:
        query = query.where(_row.build < before)
    return _read(connection.execute(query.order_by(_row.build.desc()).limit(limit)))


def result_of_build(connection: Any, build: int) -> Result | None:
    """The result of one build."""
    return next(iter(_read(connection.execute(sa.select(RESULTS).where(_row.build == build)))), None)


def last_judged(connection: Any, cell: str, branch: str, scheduler: str) -> Result | None:
    """The last result of a cell that a scheduler asked for on a branch, and that says something about OSCAR."""
    query = (
        sa.select(RESULTS)
        .where(_row.cell == cell, _row.branch == branch, _row.scheduler == scheduler)
        .where(_row.counts.is_(sa.true()), _row.outcome.in_(_SAYS_SOMETHING))
        .order_by(_row.build.desc())
        .limit(1)
    )
    return next(iter(_read(connection.execute(query))), None)


def judged(connection: Any, cell: str, identity: str, farm: str) -> list[Result]:
    """What a cell has said of a source by the same farm, the newest first."""
    query = (
        sa.select(RESULTS)
        .where(_row.cell == cell, _row.identity == identity, _row.farm == farm)
        .where(_row.counts.is_(sa.true()), _row.outcome.in_(_SAYS_SOMETHING))
        .order_by(_row.build.desc())
    )
    return _read(connection.execute(query.limit(_MOST_SAME)))


@dataclass(frozen=True, slots=True)
class Seen:
    """When a failure was seen; `count` 0: never."""

    count: int = 0
    first: Result | None = None
    last: Result | None = None


def seen(connection: Any, signature: str, cell: str | None = None, before: int | None = None) -> Seen:
    """All counted results with this signature, of one cell or of all."""
    where = [_row.signature == signature, _row.counts.is_(sa.true())]
    if cell is not None:
        where.append(_row.cell == cell)
    if before is not None:
        where.append(_row.build < before)
    query = sa.select(sa.func.count(), sa.func.min(_row.build), sa.func.max(_row.build)).where(*where)
    count, first, last = connection.execute(query).one()
    if not signature or not count:
        return Seen()
    return Seen(int(count), result_of_build(connection, first), result_of_build(connection, last))


@dataclass(frozen=True, slots=True)
class Rate:
    """Of the last `of` runs of a cell that passed or failed, so many were flaky with a signature."""

    flaky: int = 0
    of: int = 0


def flake_rate(connection: Any, cell: str, signature: str | None, last: int = 50) -> Rate:
    """See `Rate`; None: with any signature."""
    query = (
        sa.select(_row.flaky, _row.signature)
        .where(_row.cell == cell, _row.counts.is_(sa.true()), _row.outcome.in_(_SAYS_SOMETHING))
        .order_by(_row.build.desc())
        .limit(last)
    )
    rows = connection.execute(query).fetchall()
    return Rate(sum(flaky and signature in (None, each) for flaky, each in rows), len(rows))


def has_flaked(connection: Any, cell: str) -> bool:
    """Whether a counted red of the cell ever turned green by itself."""
    query = sa.select(_row.build).where(_row.flaky.is_(sa.true()), _row.cell == cell).limit(1)
    return connection.execute(query).first() is not None


@dataclass(frozen=True, slots=True)
class Flake:
    """A failure that comes and goes in a cell: its rate, and its last flaky red."""

    rate: Rate
    last: Result


def flakes(connection: Any, since: float, most: int) -> list[Flake]:
    """The cells and signatures that have flaked since that time, the last one first."""
    query = (
        sa.select(sa.func.max(_row.build).label("last"))
        .where(_row.flaky.is_(sa.true()), _row.ended > since)
        .group_by(_row.cell, _row.signature)
        .order_by(sa.desc("last"))
        .limit(most)
    )
    last = [result_of_build(connection, build) for (build,) in connection.execute(query).fetchall()]
    return [Flake(flake_rate(connection, each.cell, each.signature), each) for each in last if each is not None]


def not_noted(connection: Any, model: Any, skipped: Sequence[int], since: float) -> list[int]:
    """Builds that ended after that time and have no result here, the last one first.

    `skipped`: Buildbot's results of those that have none.
    """
    builds = model.builds.c
    query = (
        sa.select(builds.id)
        .select_from(model.builds.outerjoin(RESULTS, _row.build == builds.id))
        .where(builds.complete_at > since, builds.results.not_in(skipped), _row.build.is_(None))
        .order_by(builds.id.desc())
    )
    return [int(number) for (number,) in connection.execute(query).fetchall()]


def forget(connection: Any, before: float) -> None:
    """Remove what ended before that time."""
    with connection.begin():
        old = sa.select(_row.build).where(_row.ended < before)
        connection.execute(SHOWN.delete().where(SHOWN.c.build.in_(old)))
        connection.execute(RESULTS.delete().where(_row.ended < before))


@dataclass(frozen=True, slots=True)
class Shown:
    """A known issue in one cell: how often it showed, the first and the last time, and the runs after that."""

    cell: str
    count: int
    first: Result
    last: Result
    cured: Result | None
    """The first run after it that passed on the same branch; None: none has yet."""


def shown(connection: Any, reference: str) -> Sequence[Shown]:
    """In which cells a known issue has shown."""
    each = (
        sa.select(
            SHOWN.c.cell,
            sa.func.count().label("count"),
            sa.func.min(SHOWN.c.build).label("first"),
            sa.func.max(SHOWN.c.build).label("last"),
        )
        .where(SHOWN.c.reference == reference)
        .group_by(SHOWN.c.cell)
        .subquery()
    )
    last, after = RESULTS.alias(), RESULTS.alias().c
    cured = (
        sa.select(after.build)
        .where(after.cell == last.c.cell, after.build > last.c.build, after.branch == last.c.branch)
        .where(after.counts.is_(sa.true()), after.outcome == Outcome.PASSED.value)
        .order_by(after.build)
        .limit(1)
        .scalar_subquery()
    )
    query = sa.select(each, cured.label("cured")).join(last, last.c.build == each.c.last)
    rows = connection.execute(query).fetchall()
    wanted = {build for row in rows for build in (row.first, row.last, row.cured) if build is not None}
    known = {result.build: result for result in _results(connection, sorted(wanted))}
    return [
        Shown(row.cell, int(row.count), known[row.first], known[row.last], known.get(row.cured))
        for row in rows
        if row.first in known
    ]


def _results(connection: Any, builds: Sequence[int]) -> list[Result]:
    found = []
    for begin in range(0, len(builds), _AT_ONCE):
        some = builds[begin : begin + _AT_ONCE]
        found += _read(connection.execute(sa.select(RESULTS).where(_row.build.in_(some))))
    return found
