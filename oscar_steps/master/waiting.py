"""Why a cell waits, and when it might run: for the farm's page and for the night's mail to the operator."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

import sqlalchemy as sa
from buildbot.data import resultspec
from buildbot.process.results import FAILURE, SKIPPED, SUCCESS, WARNINGS

from oscar_steps.master.again import NOT_BEFORE, NOT_ON
from oscar_steps.master.fair import in_order, memory_of
from oscar_steps.master.fitting import CellFits
from oscar_steps.master.history.record import SAME_AS
from oscar_steps.master.schedules.names import ONLY_ON
from oscar_steps.verdict import LINT

MOST = 100
"""So many cells are explained; the others are behind them."""
_LAST_RUNS = 5
_MOST_QUIET = 5000


@dataclass(frozen=True)
class WaitingCell:
    """A cell with builds that have not begun. `since`: Unix time; `stuck`: no worker that is connected can take it."""

    cell: str
    builds: int
    since: float
    stuck: bool
    why: str


@dataclass(frozen=True)
class _Request:
    """What `CellFits` and the pauses ask of a request."""

    values: Mapping[str, Any]

    @property
    def properties(self) -> _Request:
        return self

    def getProperty(self, name: str, default: Any = None) -> Any:
        """As Buildbot's properties."""
        return self.values.get(name, default)


async def waiting_cells(master: Any) -> tuple[list[WaitingCell], list[str]]:
    """The cells that wait, the next one first, and the names of those behind them."""
    requests = await master.data.get(
        ("buildrequests",),
        filters=[resultspec.Filter("claimed", "eq", [False]), resultspec.Filter("complete", "eq", [False])],
        order=["buildrequestid"],
    )
    of_builder: dict[Any, list[dict[str, Any]]] = {}
    for request in requests:
        builder = master.botmaster.getBuilderById(request["builderid"])
        if builder is not None and builder.name != LINT:
            of_builder.setdefault(builder, []).append(request)
    ordered = await in_order(master, of_builder)
    ends = await _ends(master)
    found = [await _explained(master, builder, of_builder[builder], ends) for builder in ordered[:MOST]]
    return found, [builder.name for builder in ordered[MOST:]]


async def quiet_cells(master: Any, seconds: float) -> list[str]:
    """The cells that had no night within so many seconds, because nothing had changed."""
    skipped = [resultspec.Filter("results", "eq", [SKIPPED])]
    last = await master.data.get(("builds",), filters=skipped, order=["-buildid"], limit=_MOST_QUIET)
    since = time.time() - seconds
    builders = {each["builderid"] for each in last if each["complete_at"] and each["complete_at"].timestamp() > since}
    found = (master.botmaster.getBuilderById(number) for number in builders)
    return sorted(builder.name for builder in found if builder is not None)


async def _explained(master: Any, builder: Any, requests: Sequence[dict[str, Any]], ends: _Ends) -> WaitingCell:
    first = requests[0]
    properties = await master.data.get(("buildsets", first["buildsetid"], "properties"))
    wanted = _Request({name: value for name, (value, _source) in properties.items()})
    now = time.time()
    since = first["submitted_at"].timestamp()
    said = [pause] if (pause := _pause(master, builder, wanted, now)) else []
    workers = [master.workers.workers[name] for name in builder.config.workernames if name in master.workers.workers]
    reasons = [_why(worker, builder, wanted, ends, now) for worker in workers]
    stuck = not any(fits for fits, _ in reasons)
    before = "no connected worker can take it: " if stuck else ""
    said += [before + "; ".join(why for _, why in reasons)]
    return WaitingCell(builder.name, len(requests), since, stuck, "; ".join(said))


def _pause(master: Any, builder: Any, wanted: _Request, now: float) -> str:
    asked = float(wanted.getProperty(NOT_BEFORE) or 0)
    trouble = memory_of(master).images.get(builder.name)
    if trouble is not None and trouble.until > max(now, asked) and not wanted.getProperty("owner"):
        builds = f"its last {trouble.builds} builds" if trouble.builds > 1 else "its last build"
        return f"{builds} got no further than the base image: the next one begins in {_span(trouble.until - now)}"
    return f"the farm failed it before: it is tried again in {_span(asked - now)}" if asked > now else ""


def _why(worker: Any, builder: Any, wanted: _Request, ends: _Ends, now: float) -> tuple[bool, str]:
    """Whether this worker can take the cell, now or later, and what keeps it from that."""
    never = _never(worker, builder, wanted)
    return not never, f"{worker.name} {never or _later(worker, builder, wanted, ends, now)}"


def _never(worker: Any, builder: Any, wanted: _Request) -> str:
    """Why a worker cannot take the cell as it is now; '' where it can."""
    if worker.conn is None:
        return "is not connected"
    if worker.isPaused():
        return "is paused"
    if wanted.getProperty(ONLY_ON) not in (None, "", worker.name):
        return "has not the old image, which a search wants"
    fits = builder.config.canStartBuild
    return fits.why_not(worker, wanted) if isinstance(fits, CellFits) else ""


def _later(worker: Any, builder: Any, wanted: _Request, ends: _Ends, now: float) -> str:
    """When it can, or what comes first."""
    if worker.quarantine_timer is not None:
        wait = worker.quarantine_timer.getTime() - worker.master.reactor.seconds()
        return f"has failed a build and takes none for {_span(wait)}"
    if not worker.room_for(builder):
        return ends.full(worker, now)
    failed = worker.name in (wanted.getProperty(NOT_ON) or ())
    return "failed this build before: another worker is preferred" if failed else "can begin it"


@dataclass(frozen=True)
class _Ends:
    """When the clusters that are being installed might end, by worker; None: nobody knows."""

    of_worker: Mapping[str, Sequence[float | None]]

    def full(self, worker: Any, now: float) -> str:
        """What a worker has to do first."""
        ends = self.of_worker.get(worker.name, ())
        most = worker.max_builds - 1
        full = f"is full: {len(ends)} of {most} clusters"
        known = [end for end in ends if end is not None]
        if not known:
            return full
        left = min(known) - now
        if left <= 0:
            return f"{full}; the next of them is late (by the median of its last runs)"
        return f"{full}; the next of them ends in about {_span(left)} (median of its last runs)"


async def _ends(master: Any) -> _Ends:
    found: dict[str, list[float | None]] = {}
    for builder in master.botmaster.builders.values():
        for build in builder.building if builder.config.locks else ():
            worker = build.workerforbuilder.worker if build.workerforbuilder else None
            if worker is not None:
                found.setdefault(worker.name, []).append(await _end(master, builder, build))
    return _Ends(found)


async def _end(master: Any, builder: Any, build: Any) -> float | None:
    """When a build might end: after the median of its cell's last runs."""
    number = await builder.getBuilderId()
    spans = await master.db.pool.do(_last_spans, master.db.model, number)
    this = await master.data.get(("builds", build.buildid)) if spans and build.buildid else None
    return this["started_at"].timestamp() + median(spans) if this else None


def _last_spans(connection: Any, model: Any, builder: int) -> list[int]:
    """How many seconds a cell's last runs took, the newest first. A build with the result of an earlier one is none."""
    builds, said = model.builds.c, model.build_properties.c
    is_no_run = sa.exists().where(said.buildid == builds.id, said.name == SAME_AS)
    query = (
        sa.select(builds.started_at, builds.complete_at)
        .where(builds.builderid == builder, builds.complete_at.is_not(None), ~is_no_run)
        .where(builds.results.in_((SUCCESS, WARNINGS, FAILURE)))
        .order_by(builds.number.desc())
        .limit(_LAST_RUNS)
    )
    return [complete - started for started, complete in connection.execute(query)]


def _span(seconds: float) -> str:
    """A time for people."""
    if seconds < 90:
        return f"{max(seconds, 1):.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def lines_of(cells: Sequence[WaitingCell], more: int) -> list[str]:
    """For a mail."""
    lines = [f"{each.cell} ({each.builds} {'builds' if each.builds > 1 else 'build'}): {each.why}" for each in cells]
    return [*lines, f"... and {more} more"] if more else lines
