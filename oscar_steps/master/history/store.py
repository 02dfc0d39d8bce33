"""The history as the rest of the master asks for it, and the service that writes it down."""

from __future__ import annotations

import time
from typing import Any

from buildbot.process.results import RETRY, SKIPPED
from buildbot.util import service
from twisted.internet import defer
from twisted.python import log

from oscar_steps.master.history import table
from oscar_steps.master.history.record import Result, result_of
from oscar_steps.master.history.table import Flake, Rate, Seen, Shown
from oscar_steps.oscar.known import KnownIssue

HISTORY_SERVICE = "oscar-history"
_KEPT = 3 * 365 * 86400.0
"""Seconds. Of builds in this time the master looks, after its start, for those that it has not noted."""
_AT_ONCE = 200
YEAR = 365 * 86400.0
_NO_RESULT = (RETRY, SKIPPED)
"""Buildbot's results of builds that are taken up again, or had nothing to do."""


class History:
    """Questions about the results until now. Each is a query or two over an index, in a thread."""

    def __init__(self, master: Any) -> None:
        self.master = master

    async def _ask(self, question: Any, *arguments: Any, **settings: Any) -> Any:
        return await self.master.db.pool.do(question, *arguments, **settings)

    async def results_of(
        self, cell: str, branch: str | None, limit: int, *, counted: bool = True, before: int | None = None
    ) -> list[Result]:
        """The last results of a cell, the newest first. `branch` None: of any. `counted`: without experiments, and
        without forced and patched builds. `before`: only builds with a smaller id than this.
        """
        found: list[Result] = await self._ask(table.results_of, cell, branch, limit, counted=counted, before=before)
        return found

    async def result_of(self, build: int) -> Result | None:
        """The result of a build, by its id."""
        found: Result | None = await self._ask(table.result_of_build, build)
        return found

    async def last_judged(self, cell: str, branch: str, scheduler: str) -> Result | None:
        """The last result on a branch of what this scheduler asked for, if it passed or failed."""
        found: Result | None = await self._ask(table.last_judged, cell, branch, scheduler)
        return found

    async def judged(self, cell: str, identity: str, farm: str) -> list[Result]:
        """The cell's results of a source by the same farm that passed or failed, the newest first."""
        found: list[Result] = await self._ask(table.judged, cell, identity, farm)
        return found

    async def seen(self, signature: str, cell: str | None = None, before: int | None = None) -> Seen:
        """How often a failure was seen, and its first and its last result."""
        found: Seen = await self._ask(table.seen, signature, cell, before)
        return found

    async def flake_rate(self, cell: str, signature: str | None = None, last: int = 50) -> Rate:
        """Of the last runs of the cell that passed or failed, how many were flaky with this signature."""
        found: Rate = await self._ask(table.flake_rate, cell, signature, last)
        return found

    async def has_flaked(self, cell: str) -> bool:
        """Whether a red of the cell ever turned green without any change."""
        return bool(await self._ask(table.has_flaked, cell))

    async def flakes(self, since: float, most: int = 200) -> list[Flake]:
        """The failures that have come and gone since that time (Unix), the last one first."""
        found: list[Flake] = await self._ask(table.flakes, since, most)
        return found

    async def shown(self, reference: str) -> tuple[Shown, ...]:
        """The cells in which a known issue has shown, with the run that cured it."""
        return tuple(await self._ask(table.shown, reference))


class HistoryService(service.BuildbotService):
    """Notes the result of every build when it ends, and after a start those that a killed master could not note."""

    name = HISTORY_SERVICE
    issues: tuple[KnownIssue, ...] = ()
    _consumer: Any = None
    _one_by_one: defer.DeferredLock

    async def reconfigService(self, issues: tuple[KnownIssue, ...]) -> None:
        self.issues = issues
        if self._consumer is None:
            self._one_by_one = defer.DeferredLock()
            await self.master.db.pool.do_with_engine(table.create)
            self._consumer = await self.master.mq.startConsuming(self._ended, ("builds", None, "finished"))
            defer.ensureDeferred(self._catch_up()).addErrback(log.err, "results of builds before the start")

    async def stopService(self) -> None:
        if self._consumer is not None:
            consumer, self._consumer = self._consumer, None
            await defer.maybeDeferred(consumer.stopConsuming)
        await super().stopService()

    def _ended(self, _key: Any, build: dict[str, Any]) -> Any:
        """What goes wrong here the next start notes. (Buildbot's queue of messages awaits no coroutine.)"""
        noted = defer.ensureDeferred(self.note(build["buildid"]))
        return noted.addErrback(log.err, f"the result of the build {build['buildid']} could not be noted")

    async def note(self, number: int) -> None:
        """Note a finished build, unless it is noted already or is taken up again."""
        if (result := await self._result(number)) is not None:
            await self._add([result])

    async def _add(self, results: list[Result]) -> None:
        """A build is noted once, also where two ask for it at the same time."""
        await self._one_by_one.run(self.master.db.pool.do, table.add, results)

    async def _result(self, number: int) -> Result | None:
        build = await self.master.data.get(("builds", number))
        if not build or not build["complete"] or build["results"] in _NO_RESULT:
            return None
        builder = await self.master.data.get(("builders", build["builderid"]))
        said = await self.master.data.get(("builds", number, "properties"))
        return result_of(build, builder["name"], {name: value for name, (value, _) in said.items()}, self.issues)

    async def _catch_up(self) -> None:
        pool, since = self.master.db.pool, time.time() - _KEPT
        await pool.do(table.forget, since)
        missing = await pool.do(table.not_noted, self.master.db.model, _NO_RESULT, since)
        for begin in range(0, len(missing), _AT_ONCE):
            found = [await self._result_or_none(number) for number in missing[begin : begin + _AT_ONCE]]
            if self._consumer is None:  # the master ends: the next start goes on
                return
            await self._add([result for result in found if result is not None])

    async def _result_or_none(self, number: int) -> Result | None:
        """One build that cannot be read keeps no other from being noted."""
        try:
            return await self._result(number)
        except Exception as error:
            log.err(error, f"the result of the build {number} could not be noted")
            return None


async def note_now(master: Any, *builds: int) -> None:
    """Note finished builds now: who asks about them next wants them counted."""
    service = master.service_manager.namedServices.get(HISTORY_SERVICE)
    for number in builds if service is not None else ():
        await service.note(number)
