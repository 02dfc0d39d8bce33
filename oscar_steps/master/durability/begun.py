"""A build whose worker goes away in the wrong moment ends anyway, and its request is taken up again.

Buildbot's own stumbles where the worker is lost while the build is being prepared, or while its end is being written
down: it is left as running for ever, its request with it, and a planned restart waits for it until it is killed.
"""

from __future__ import annotations

import time
from typing import Any

from buildbot.process.build import Build
from buildbot.process.factory import BuildFactory
from buildbot.process.results import RETRY, SKIPPED, SUCCESS
from twisted.internet import defer
from twisted.python import log

from oscar_steps.master.fair import memory_of

NOTHING_TO_DO = "nothing_to_do"
"""Build property: why nothing was tested, in words. The build's result is SKIPPED: it says nothing about the cell."""


class FarmBuild(Build):
    """A build that always comes to an end."""

    def startBuild(self, workerforbuilder: Any) -> Any:
        return defer.ensureDeferred(self._start(workerforbuilder))

    def buildFinished(self, text: Any, results: int) -> Any:
        return defer.ensureDeferred(self._finish(text, results))

    async def _start(self, workerforbuilder: Any) -> None:
        try:
            await super().startBuild(workerforbuilder)
        except Exception as error:  # broad on purpose: whatever it is, nobody else would end this build
            log.err(error, f"{self} could not begin; its request is taken up again")
            if self in self.builder.building and not self.finished:
                self.results = RETRY
                await self.buildFinished(["worker", "lost"], RETRY)

    async def _finish(self, text: Any, results: int) -> None:
        if results == SUCCESS and (why := self.getProperty(NOTHING_TO_DO)):
            text, results = [str(why)], SKIPPED
            self.results = SKIPPED
        await super().buildFinished(text, results)
        memory_of(self.master).noted(self.builder.name, results, time.time())
        if self in self.builder.building:
            log.msg(f"{self}: its worker went away while its end was written down")
            self.workerforbuilder.buildFinished()
            self.builder.buildFinished(self, self.workerforbuilder)
            self._tryScheduleBuildsAfterLockUnlock(build_finished=True)


class FarmFactory(BuildFactory):
    """Makes such builds."""

    buildClass = FarmBuild
