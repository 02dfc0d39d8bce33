"""What a killed master had done already is not done a second time.

A master that is killed leaves its builds and requests open; the next one takes them up again. Between two
steps that belong together it may have ended, too: a build has its result and its request is open, or what a build asks
for is asked for already and the build itself begins anew. This module finds out what was done already.
"""

from __future__ import annotations

import time
from typing import Any

from buildbot.data import resultspec
from buildbot.process.results import EXCEPTION, FAILURE, RETRY, SKIPPED
from twisted.python import log

AGAIN_OF = "again_of"
"""Request property: the request whose build went wrong; this one was asked for in its place."""
REPEAT_OF = "repeat_of"
"""Request property: the request whose build was red; this one repeats it."""
_STARTED = time.time()
_looked_at: set[int] = set()


async def asked_already(step: Any) -> bool:
    """Whether an earlier build of this build's request has asked for further builds before it was cut short."""
    if not (earlier := await _earlier_builds(step)):
        return False
    children = resultspec.Filter("parent_buildid", "eq", earlier)
    return bool(await step.master.data.get(("buildsets",), filters=[children], limit=1))


async def asked_for(step: Any, relation: str) -> int:
    """The same, for one request of that relation: its number; 0: there is none."""
    if not (earlier := await _earlier_builds(step)):
        return 0
    children = [
        resultspec.Filter("parent_buildid", "eq", earlier),
        resultspec.Filter("parent_relationship", "eq", [relation]),
    ]
    for buildset in await step.master.data.get(("buildsets",), filters=children):
        of_set = [resultspec.Filter("buildsetid", "eq", [buildset["bsid"]])]
        for request in await step.master.data.get(("buildrequests",), filters=of_set):
            return int(request["buildrequestid"])
    return 0


async def _earlier_builds(step: Any) -> list[int]:
    """The builds that this build's request had before it."""
    builds = await step.master.data.get(("buildrequests", step.build.requests[0].id, "builds"))
    return [build["buildid"] for build in builds if build["buildid"] != step.build.buildid]


async def is_open(master: Any, request: Any) -> bool | None:
    """Whether a request is still to be built; None: not yet. One that is not is closed here."""
    if (result := await _result_before_the_start(master, request)) is not None:
        log.msg(f"the request {request.id} had its build before the master ended: it is closed")
        return await _close(master, request, result)
    if not (origin := request.properties.getProperty(AGAIN_OF)):
        return True
    first = await master.data.get(("buildrequests", int(origin)))
    if first and not first["complete"]:
        return None
    red = request.properties.getProperty(REPEAT_OF) == origin
    if first and first["results"] != (FAILURE if red else EXCEPTION):
        log.msg(f"the request {request.id} is closed: {origin}, in whose place it was made, has its result")
        return await _close(master, request, SKIPPED)
    return True


async def _result_before_the_start(master: Any, request: Any) -> int | None:
    """The result of a build that this request had under an earlier master."""
    if request.id in _looked_at or request.submittedAt > _STARTED + 1:
        return None
    builds = await master.data.get(("buildrequests", request.id, "builds"))
    result = next((b["results"] for b in builds if b["complete"] and b["results"] not in (None, RETRY)), None)
    if result is None:  # one that has a result is asked about again until it is closed
        _looked_at.add(request.id)
    return result


async def _close(master: Any, request: Any, result: int) -> bool:
    await master.data.updates.completeBuildRequests([request.id], result)
    return False
