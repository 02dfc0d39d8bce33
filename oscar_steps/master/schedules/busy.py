"""A cell that is still busy when the next commits come: the newest of them wins, and nobody's name is lost.

Requests that wait for the same cell and branch are closed (SKIPPED) when the newest may begin. Nothing is written to
it: its build finds the requests before it that had no build, and is for their changes, too. So a master may be killed
between any two of these steps.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

import sqlalchemy as sa
from buildbot.process.results import CANCELLED, SKIPPED
from twisted.python import log

from oscar_steps.master.durability.once import AGAIN_OF, REPEAT_OF
from oscar_steps.master.schedules.names import BISECT, CHANGES, PER_COMMIT
from oscar_steps.master.watch.released import is_tarball

_LOOK_BACK = 500
_NO_PLACE = ("", "")
_closed: set[int] = set()


async def newest_of_each(builder: Any, requests: Iterable[Any]) -> list[Any]:
    """The requests without those that a newer commit on the same branch replaces, which are closed here."""
    open_ones = [request for request in requests if request.id not in _closed]
    newest = dict[tuple[str, str], Any]()
    for request in open_ones:
        place = _place(request)
        newest[place] = max(newest.get(place, request), request, key=lambda each: each.id)
    newest.pop(_NO_PLACE, None)
    old = [request for request in open_ones if newest.get(_place(request), request).id > request.id]
    if old:
        numbers = [request.id for request in old]
        log.msg(f"{builder.name}: newer commits wait on the same branch, so the requests {numbers} are not built")
        await builder.master.data.updates.completeBuildRequests(numbers, SKIPPED)
        _closed.update(numbers)
    return [request for request in open_ones if request.id not in _closed]


def _place(request: Any) -> tuple[str, str]:
    """Repository and branch of a commit's request; _NO_PLACE for any other: those are never replaced."""
    get = request.properties.getProperty
    stamps = list(request.sources.values())
    own = any(get(name) for name in (AGAIN_OF, BISECT, REPEAT_OF))
    if get("scheduler") != PER_COMMIT or not get(CHANGES) or own or len(stamps) != 1:
        return _NO_PLACE
    (stamp,) = stamps
    if stamp.patch or not stamp.branch or is_tarball(stamp.branch):  # each release is tested
        return _NO_PLACE
    return str(stamp.repository), str(stamp.branch)


async def all_changes(step: Any) -> list[int]:
    """The changes of a commit's build, with those of the requests that it replaced or that were cancelled before it."""
    own = list(step.getProperty(CHANGES) or ())
    if not own or step.getProperty("scheduler") != PER_COMMIT:
        return own
    request, branch = step.build.requests[0], step.getProperty("branch")
    database = step.master.db
    builder = await step.build.getBuilderId()
    earlier = await database.pool.do(_replaced, database.model, builder, request.id, branch)
    return sorted({*own, *earlier})


def _replaced(connection: Any, model: Any, builder: int, before: int, branch: str | None) -> list[int]:
    """Changes of the commits' requests before this one, back to the last that was built."""
    requests, stamps, links = model.buildrequests.c, model.sourcestamps.c, model.buildset_sourcestamps.c
    query = (
        sa.select(requests.buildsetid, requests.complete, requests.results)
        .select_from(
            model.buildrequests.join(model.buildset_sourcestamps, links.buildsetid == requests.buildsetid).join(
                model.sourcestamps, stamps.id == links.sourcestampid
            )
        )
        .where(requests.builderid == builder, requests.id < before, stamps.branch == branch)
        .order_by(requests.id.desc())
        .limit(_LOOK_BACK)
    )
    found: list[int] = []
    for buildset, complete, results in connection.execute(query).fetchall():
        said = _said(connection, model, buildset)
        if said.get("scheduler") != PER_COMMIT or {AGAIN_OF, BISECT, REPEAT_OF} & {*said}:
            continue
        if not complete or results not in (SKIPPED, CANCELLED):
            break
        found += [number for number in said.get(CHANGES) or () if isinstance(number, int)]
    return found


def _said(connection: Any, model: Any, buildset: int) -> dict[str, Any]:
    table = model.buildset_properties.c
    query = sa.select(table.property_name, table.property_value).where(
        table.buildsetid == buildset, table.property_name.in_((CHANGES, "scheduler", AGAIN_OF, BISECT, REPEAT_OF))
    )
    return {name: json.loads(value)[0] for name, value in connection.execute(query).fetchall()}
