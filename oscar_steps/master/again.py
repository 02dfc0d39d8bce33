"""Retries: what the farm or a host has failed is tested again automatically, unless a person asked for it.

A retry is an ordinary build request in Buildbot's database, so it outlives the master. Its properties say how many
builds have failed, before which time the next one may not begin, and which workers to avoid.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

from twisted.internet import defer
from twisted.python import log

from oscar_steps.master.durability.once import AGAIN_OF, asked_for, is_open
from oscar_steps.master.fair import memory_of
from oscar_steps.master.schedules.busy import newest_of_each
from oscar_steps.master.schedules.names import BISECT, CHANGES, IMAGE_WANTED, NIGHTLY, ONLY_ON, WEEKLY
from oscar_steps.verdict import LINT, Category, Outcome, Stage, Verdict

TRIES_BEFORE = "tries_before"
"""Build property: how many builds of this commit and cell the farm has failed before this one."""
NOT_BEFORE = "not_before"
"""Request property: Unix time before which it does not begin."""
NOT_ON = "not_on"
"""Request property: workers whose builds failed; others are preferred."""
TRIED_AGAIN = "tried_again"
"""Build property: the farm failed this build; the request of the one that follows."""
FINAL = "final"
"""Build property: a retry would end in the same way."""
IMAGE_FAILED = "image_failed"
"""Build property: it got no further than the base image of its cell."""
_RELATION = "retry"
_LOOK_AGAIN = 60.0
_SOON = 5.0
"""Seconds: the build in whose place a request was made ends at any moment."""
_OTHERS_FAULT = (Category.DISTRIBUTION, Category.ANSWERS, Category.OSCAR)
_waking: set[tuple[int, float]] = set()


async def ask_again(step: Any, cell: str, verdict: Verdict, pauses: Sequence[float]) -> Verdict:
    """Request a retry if this build says nothing about its commit. The verdict's hint then says so.

    `pauses` are the seconds before each retry; their number is the limit.
    """
    blameless = verdict.outcome is Outcome.INFRASTRUCTURE and verdict.category not in _OTHERS_FAULT
    by_itself = step.getProperty(CHANGES) or step.getProperty("scheduler") in (NIGHTLY, WEEKLY)
    if not blameless or cell == LINT or not by_itself or step.getProperty(FINAL) or not pauses:
        return verdict
    tries = int(step.getProperty(TRIES_BEFORE) or 0)
    if tries >= len(pauses):
        return with_hint(
            verdict, f"the farm failed this commit {tries + 1} times; it is not retried automatically any more"
        )
    try:
        request = await asked_for(step, _RELATION) or await _retry(step, tries + 1, time.time() + pauses[tries])
    except Exception:  # broad on purpose: the verdict stands, and its mail goes to the operator
        log.err(None, "the retry could not be requested")
        return verdict
    step.setProperty(TRIED_AGAIN, request, "Build")
    return with_hint(verdict, f"the commit is retried in {pauses[tries]:.0f} s, at most {len(pauses) - tries} times")


def note_image(step: Any, cell: str, verdict: Verdict) -> None:
    """Note whether the build got past the base image of its cell: if it failed, the cell's next ones wait.

    The image's stage alone does not say so: a host's full disk ends it, too, and a server of sources that is away; and
    its last step waits for room on the host, with the image in hand.
    """
    past = verdict.image is not None or verdict.stage not in (None, Stage.CREATE_IMAGE)
    failed = verdict.outcome is Outcome.INFRASTRUCTURE and verdict.image_failed and not past
    if failed:
        step.setProperty(IMAGE_FAILED, True, "Build")
    if step.getProperty(IMAGE_WANTED):
        return  # an image of a search, not the cell's
    if failed or past or verdict.outcome is Outcome.PASSED:
        memory_of(step.master).image_ended(cell, time.time(), failed=failed)


def due(builder: Any, request: Any) -> float:
    """The Unix time before which a request does not begin. A person's request waits for no image."""
    trouble = memory_of(builder.master).images.get(builder.name)
    asked = float(request.properties.getProperty(NOT_BEFORE) or 0)
    if trouble is None or request.properties.getProperty("owner"):
        return asked
    return max(asked, trouble.until)


def with_hint(verdict: Verdict, words: str) -> Verdict:
    """The verdict with one more remark."""
    return verdict.model_copy(update={"hint": f"{verdict.hint}; {words}" if verdict.hint else words})


async def _retry(step: Any, tries: int, due: float) -> int:
    data = step.master.data
    properties = await data.get(("buildsets", step.build.requests[0].bsid, "properties"))
    worker = str(step.getProperty("workername") or "")
    bad = sorted({*(properties.get(NOT_ON, ((), ""))[0]), worker})
    more = {TRIES_BEFORE: tries, NOT_BEFORE: due, NOT_ON: bad}
    return await ask_once_more(step, _RELATION, f"retry {tries}: the farm failed the build before", more)


async def ask_once_more(step: Any, relation: str, reason: str, more: dict[str, Any]) -> int:
    """The request of this build once more, of the same commit, changes and wishes; gives its number."""
    data = step.master.data
    buildset = await data.get(("buildsets", step.build.requests[0].bsid))
    properties = dict(await data.get(("buildsets", buildset["bsid"], "properties")))
    if changes := step.getProperty(CHANGES):  # with those of the requests that this one had replaced
        properties[CHANGES] = (changes, "Build")
    more = {**more, AGAIN_OF: step.build.requests[0].id}
    builder = await step.build.getBuilderId()
    _, requests = await data.updates.addBuildset(
        waited_for=False,
        scheduler=step.getProperty("scheduler"),
        sourcestamps=[stamp["ssid"] for stamp in buildset["sourcestamps"]],
        reason=reason,
        properties={**properties, **{name: (value, "Build") for name, value in more.items()}},
        builderids=[builder],
        parent_buildid=step.build.buildid,
        parent_relationship=relation,
    )
    return int(requests[builder])


def next_build(builder: Any, requests: list[Any]) -> Any:
    """Which request begins next (Buildbot's `nextBuild`): the oldest; retries come after others."""
    return defer.ensureDeferred(_next_open(builder, list(requests)))


def next_newest(builder: Any, requests: list[Any]) -> Any:
    """The same, where of the commits that wait on a branch the newest wins."""

    async def answer() -> Any:
        return await _next_open(builder, await newest_of_each(builder, requests))

    return defer.ensureDeferred(answer())


async def _next_open(builder: Any, requests: list[Any]) -> Any:
    while (request := _next_ready(builder, requests)) is not None:
        is_now = await is_open(builder.master, request)
        if is_now:
            return request
        if is_now is None:
            _wake(builder, request.id, 0.0, _SOON)
        requests.remove(request)
    return None


def _next_ready(builder: Any, requests: list[Any]) -> Any:
    now = time.time()
    ready = []
    for request in requests:
        begins = due(builder, request)
        if begins <= now:
            ready.append(request)
        else:
            _wake(builder, request.id, begins, begins - now)
    return min(ready, key=_turn, default=None)


def _turn(request: Any) -> tuple[bool, bool]:
    """Searches come last, retries after others."""
    said = request.properties.getProperty
    return bool(said(BISECT)), bool(said(TRIES_BEFORE))


def may_begin_here(builder: Any, offered: Any, request: Any, fits: Callable[[Any], bool] = bool) -> bool:
    """Whether a worker may have a request: elsewhere first, if there is another worker, and its host `fits`."""
    if request.properties.getProperty(ONLY_ON) not in (None, "", offered.worker.workername):
        return False
    bad = request.properties.getProperty(NOT_ON) or ()
    if offered.worker.workername not in bad:
        return True
    others = [each for each in builder.workers if each.worker and each.worker.workername not in bad]
    if any(each.worker.conn is not None and not each.worker.isPaused() and fits(each.worker) for each in others):
        _wake(builder, request.id, 0.0, _LOOK_AGAIN)  # that worker may be lost meanwhile
        return False
    return True


def _wake(builder: Any, request: int, due: float, seconds: float) -> None:
    """Let the builder look at its requests once more after that time."""
    if (request, due) in _waking:
        return
    _waking.add((request, due))

    def look() -> None:
        _waking.discard((request, due))
        builder.botmaster.maybeStartBuildsForBuilder(builder.name)

    builder.master.reactor.callLater(max(seconds, 0.0) + 0.05, look)
