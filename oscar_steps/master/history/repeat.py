"""A red is repeated only where something speaks for it, and once; and what became of the repetition.

A commit's red is repeated where this failure is new in its cell and the cell has flaked before. A red of the nightly or
weekly matrix is repeated in any case. Both results are shown, in one mail: it waits for the second.

As a retry (`again.py`) the repetition is an ordinary request in Buildbot's database: it outlives the master.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from buildbot.process.results import RETRY
from twisted.python import log

from oscar_steps.master.again import TRIED_AGAIN, ask_once_more, with_hint
from oscar_steps.master.durability.once import REPEAT_OF, asked_for
from oscar_steps.master.history.record import NOT_COUNTED, TESTED, VERDICT, verdict_in
from oscar_steps.master.history.store import History
from oscar_steps.master.schedules.names import CANDIDATE, CHANGES, FORCE, NIGHTLY, TRY, WEEKLY
from oscar_steps.signature import signature_of
from oscar_steps.verdict import LINT, Outcome, Verdict

REPEATED_BY = "repeated_by"
"""Build property of a red build: the request that repeats it. The mail about the red waits for that."""
LONGEST_WAIT = 12 * 3600.0
"""Seconds. A red whose repetition has no result by then is reported alone."""
_RELATION = "repetition"
_MOST_TRIES = 20


async def ask_repetition(step: Any, cell: str, verdict: Verdict) -> Verdict:
    """Request a repetition of this build if there is a reason for one. The verdict's hint then says so."""
    if verdict.outcome is not Outcome.FAILED or cell == LINT or not _may_repeat(step):
        return verdict
    try:
        why = await _reason(step, cell, verdict)
        if not why:
            return verdict
        request = await asked_for(step, _RELATION) or await _ask(step)
    except Exception:  # broad on purpose: the verdict stands, and its mail goes out at once
        log.err(None, "the repetition could not be requested")
        return verdict
    step.setProperty(REPEATED_BY, request, "Build")
    return with_hint(verdict, f"it is repeated once: {why}")


def _may_repeat(step: Any) -> bool:
    if step.getProperty(REPEAT_OF) or step.getProperty(NOT_COUNTED) or step.getProperty("owner"):
        return False
    tested = step.getProperty(TESTED)
    return step.getProperty("scheduler") not in (CANDIDATE, FORCE, TRY) and not (
        isinstance(tested, dict) and tested.get("patch")
    )


async def _reason(step: Any, cell: str, verdict: Verdict) -> str:
    """Why this red deserves a second look; '': it does not."""
    if step.getProperty("scheduler") in (NIGHTLY, WEEKLY):
        return "a red of the nightly or weekly matrix always is"
    history = History(step.master)
    if not step.getProperty(CHANGES) or not await history.has_flaked(cell):
        return ""
    known = await history.seen(signature_of(verdict), cell)
    return "" if known.count else "this failure is new in this cell, and the cell has flaked before"


async def _ask(step: Any) -> int:
    number = step.build.requests[0].id
    return await ask_once_more(step, _RELATION, "repetition: the build before was red", {REPEAT_OF: number})


@dataclass(frozen=True)
class Second:
    """What became of the repetition of a red. `build`: as Buildbot's data has it; None: it never had one, see `why`.

    `waits`: its result may still come.
    """

    build: dict[str, Any] | None = None
    verdict: Verdict | None = None
    waits: bool = False
    why: str = ""

    @property
    def passed(self) -> bool:
        return self.verdict is not None and self.verdict.outcome is Outcome.PASSED


async def second_of(master: Any, build: dict[str, Any], properties: dict[str, Any]) -> Second | None:
    """The repetition of a finished build, followed over the farm's own faults; None: there is none."""
    number = properties.get(REPEATED_BY)
    if not isinstance(number, int):
        return None
    for _ in range(_MOST_TRIES):
        request = await master.data.get(("buildrequests", number))
        if not request:
            return Second(why="its repetition is gone from the database")
        builds = await master.data.get(("buildrequests", number, "builds"))
        ended = [each for each in builds if each["complete"] and each["results"] != RETRY]
        if not ended:
            return _without_build(build, request)
        last = max(ended, key=lambda each: int(each["buildid"]))
        said = await master.data.get(("builds", last["buildid"], "properties"))
        then = said.get(TRIED_AGAIN, (None, ""))[0]
        if isinstance(then, bool) or not isinstance(then, int):
            return Second(build=last, verdict=verdict_in(said.get(VERDICT, (None,))[0]))
        number = then
    return Second(why=f"the farm failed its repetition {_MOST_TRIES} times")


def _without_build(build: dict[str, Any], request: dict[str, Any]) -> Second:
    if request["complete"]:
        return Second(why="its repetition was cancelled before it began")
    if time.time() - build["complete_at"].timestamp() > LONGEST_WAIT:
        return Second(why=f"timed out after {LONGEST_WAIT / 3600:.0f} h waiting for its repetition")
    return Second(waits=True)
