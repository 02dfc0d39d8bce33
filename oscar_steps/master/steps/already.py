"""Nothing is installed for nothing: a night in which nothing has changed, a commit that this cell has judged already.

The same is: the same source (`Source.identity`), the same farm (`farm_of`), and the base image of today, of which the
worker says the key without building it. Where the key is not known (the mirror is away) the build goes on.
"""

from __future__ import annotations

import re
from typing import Any

from buildbot.process import buildstep
from buildbot.process.results import SUCCESS
from buildbot.reporters import utils
from twisted.python import log

from oscar_steps.job import JOB_FILE
from oscar_steps.master.again import with_hint
from oscar_steps.master.durability.begun import NOTHING_TO_DO
from oscar_steps.master.durability.once import AGAIN_OF, REPEAT_OF
from oscar_steps.master.durability.restarts import CutShort, cut_short
from oscar_steps.master.history.record import FARM, SAME_AS, Result, verdict_in
from oscar_steps.master.history.store import History
from oscar_steps.master.schedules.names import CHANGES, NIGHTLY, PER_COMMIT, WEEKLY
from oscar_steps.master.steps.first import OfCell, on_worker
from oscar_steps.master.steps.results import EXACT_REVISION, RUN_DIRECTORY, TESTED, VERDICT
from oscar_steps.master.steps.stages import has_run
from oscar_steps.site import Site
from oscar_steps.sources.source import Source

_MAX_SECONDS = 120


class AlreadyStep(OfCell, CutShort, buildstep.ShellMixin, buildstep.BuildStep):
    """Ends the build where its answer is known. Whatever goes wrong here, the build goes on."""

    haltOnFailure = True
    updateBuildSummaryPolicy = False

    def __init__(self, site: Site, **kwargs: Any) -> None:
        kwargs = self.setupShellMixin(
            {
                "name": "already tested",
                "doStepIf": has_run,
                "hideStepIf": lambda _results, step: not step.shows,
                "logEnviron": False,
                "timeout": None,
                "maxTime": _MAX_SECONDS,
                "sigtermTime": 10,
                **kwargs,
            },
            prohibitArgs=["command"],
        )
        super().__init__(**kwargs)
        self.site = site
        self.summary = ""

    @property
    def shows(self) -> bool:
        """Whether the page of the build has this step."""
        return bool(self.summary)

    async def run(self) -> int:
        if self.build.stopped and (cut := cut_short(self)) is not None:
            return cut
        try:
            same = await self._same()
            if same is not None and cut_short(self) is None:
                await self._end_like(same)
        except Exception as error:  # broad on purpose: see the class
            log.err(error, f"whether {self.cell} has been tested already is not known")
        return cut if (cut := cut_short(self)) is not None else int(SUCCESS)

    async def _same(self) -> Result | None:
        """The result that this build would have again; None: that is not known."""
        at_night = self.getProperty("scheduler") in (NIGHTLY, WEEKLY) and self.site.schedule.nightly == "changes"
        for_commit = self.getProperty("scheduler") == PER_COMMIT and bool(self.getProperty(CHANGES))
        if not (at_night or for_commit) or await _asked_on_purpose(self):
            return None
        source = Source.model_validate(self.getProperty(TESTED))
        if not source.is_exact:
            return None
        identity, farm, history = source.identity, str(self.getProperty(FARM)), History(self.master)
        if at_night:
            branch = self.getProperty("branch") or source.branch
            last = await history.last_judged(self.cell, branch, self.getProperty("scheduler"))
            found = [last] if last and (last.identity, last.farm) == (identity, farm) else []
        else:
            found = await history.judged(self.cell, identity, farm)
        known = [result for result in found if result.image]
        key = await self._image_key() if known else ""
        same = [result for result in known if result.image == key]
        # Red and green of the same: it is flaky, and another run is not for nothing.
        return same[0] if len({result.outcome for result in same}) == 1 else None

    async def _image_key(self) -> str:
        """The key of the base image of today; '': the worker cannot say it."""
        job = f"{self.getProperty(RUN_DIRECTORY)}/{JOB_FILE}"
        words = [*self.site.driver.command, "images", "key", job]
        command = await self.makeRemoteShellCommand(command=words, collectStdout=True)
        await self.runCommand(command)
        said = str(command.stdout).strip()
        if command.rc == 0 and re.fullmatch("[0-9a-f]{64}", said):
            return said
        self.summary = "the packages of today are not known, so the cell is tested"
        return ""

    async def _end_like(self, same: Result) -> None:
        """End this build with the result that is known: of a commit, or with none in a night."""
        before = f"build {same.number}"
        if self.getProperty("scheduler") == PER_COMMIT:
            said = await self.master.data.get(("builds", same.build, "properties"))
            verdict = verdict_in((said or {}).get(VERDICT, (None,))[0])
            if verdict is None:
                return
            tested = Source.model_validate(self.getProperty(TESTED))
            verdict = verdict.model_copy(update={"source": tested.url, "revision": tested.revision, "tested": tested})
            verdict = with_hint(verdict, f"this was tested already, by {before}, with the same packages")
            self.setProperty(SAME_AS, same.build, self.name)
            self.setProperty(VERDICT, verdict.model_dump(mode="json"), self.name)
            self.setProperty("got_revision", self.getProperty(EXACT_REVISION), self.name)
            self.summary = f"tested already: {before} {same.outcome}"
        else:
            self.summary = f"nothing changed since {before} ({same.outcome})"
            self.setProperty(NOTHING_TO_DO, self.summary, self.name)
        directory = self.getProperty(RUN_DIRECTORY)
        self.setProperty(RUN_DIRECTORY, "", self.name)  # so no stage runs
        builder = await self.build.getBuilderId()
        await self.addURL(before, utils.getURLForBuild(self.master, builder, same.number))
        await on_worker(self, "rmdir", dir=directory)

    def getCurrentSummary(self) -> dict[str, str]:
        return {"step": "asking for the packages of today"}

    def getResultSummary(self) -> dict[str, str]:
        return {"step": self.summary or "it is tested now"}


async def _asked_on_purpose(step: Any) -> bool:
    """Whether a person, or the farm itself, wants this very thing once more."""
    if any(step.getProperty(name) for name in (AGAIN_OF, REPEAT_OF, "owner")):
        return True
    buildset = await step.master.data.get(("buildsets", step.build.requests[0].bsid))
    return buildset["rebuilt_buildid"] is not None
