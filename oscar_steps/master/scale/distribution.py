"""Which builders are looked at when a build can begin: those that something waits for and a worker has room for.

Buildbot's own looks at every builder a worker knows, each time a build ends: two queries for each to sort them, then
one for its requests. With 1,500 cells that is more work than a build. Here one query finds all that waits.
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from buildbot.process.buildrequestdistributor import BasicBuildChooser, BuildRequestDistributor
from buildbot.util.pathmatch import Matcher
from twisted.internet import defer

from oscar_steps.master.fair import in_order


def has_room(builder: Any) -> bool:
    """Whether any worker could begin a build of this builder now."""
    return any(here.worker.room_for(builder) and here.isAvailable() for here in builder.workers)


class CellChooser(BasicBuildChooser):
    """Reads no request of a builder for which there is no room: the last slot may have gone to the one before."""

    def __init__(self, builder: Any, master: Any) -> None:
        self.bldr = builder
        if has_room(builder):
            super().__init__(builder, master)

    def chooseNextBuild(self) -> Any:
        return super().chooseNextBuild() if has_room(self.bldr) else defer.succeed((None, None))

    def canStartBuild(self, worker: Any, breq: Any) -> Any:
        return worker.worker.room_for(self.bldr) and super().canStartBuild(worker, breq)


def waiting_builders(master: Any, builders: list[Any]) -> Any:
    """Those for which something waits and there is room, the next one first (Buildbot's `prioritizeBuilders`)."""
    return defer.ensureDeferred(_waiting(master, builders))


async def _waiting(master: Any, builders: list[Any]) -> list[Any]:
    open_ones = _open(builders)
    if not open_ones:
        return []
    priority = {
        builder: highest
        for number, highest in await master.db.pool.do(_unclaimed, master.db.model)
        if (builder := master.botmaster.getBuilderById(number)) in open_ones
    }
    return sorted(await in_order(master, priority), key=lambda builder: -priority[builder])


def _open(builders: list[Any]) -> set[Any]:
    """The builders that a worker has room for. A worker is asked once for all clusters, and once for other builds."""
    known: dict[tuple[int, bool], bool] = {}

    def takes(worker: Any, builder: Any) -> bool:
        key = id(worker), bool(builder.config.locks)  # its hash is made of all its settings
        if key not in known:
            known[key] = bool(worker.room_for(builder) and worker.canStartBuild())
        return known[key]

    return {builder for builder in builders if any(takes(here.worker, builder) for here in builder.workers)}


def _unclaimed(connection: Any, model: Any) -> list[tuple[int, int]]:
    """Of every builder that has unclaimed requests: its id, and their highest priority."""
    requests, claims = model.buildrequests.c, model.buildrequest_claims
    query = (
        sa.select(requests.builderid, sa.func.max(requests.priority))
        .select_from(model.buildrequests.outerjoin(claims, requests.id == claims.c.brid))
        .where(claims.c.brid.is_(None), requests.complete == 0)
        .group_by(requests.builderid)
    )
    return [tuple(row) for row in connection.execute(query).fetchall()]


def _compile_once(paths: Any) -> None:
    """Buildbot's own forgets that it did so, and sorts all paths of its data anew at every question."""
    _compile(paths)
    paths._dirty = False


_compile = Matcher._compile


def look_at_few() -> None:
    """Have Buildbot choose builds this way."""
    BuildRequestDistributor.BuildChooser = CellChooser
    Matcher._compile = _compile_once
