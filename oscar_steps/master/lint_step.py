"""The first tier's builder: one step that looks at a revision for seconds, without a cluster, then the report."""

from __future__ import annotations

from typing import Any

from buildbot.process import buildstep
from buildbot.process.results import EXCEPTION, statusToString

from oscar_steps.errors import HostError, SourceError
from oscar_steps.master.plans import run_directory
from oscar_steps.master.restarts import CutShort, cut_short
from oscar_steps.master.sources import exact_revision
from oscar_steps.master.steps import (
    ASKERS_MISTAKE,
    EXACT_REVISION,
    RUN_DIRECTORY,
    RUN_ID,
    SOURCE_URL,
    SummaryObserver,
    clean,
    identity_of,
    remove_old_runs,
)
from oscar_steps.master.verdicts import RESULT_OF_STATUS, VERDICT
from oscar_steps.site import Site
from oscar_steps.verdict import LINT, Category, Outcome

_MAX_SECONDS = 900


class LintStep(CutShort, buildstep.ShellMixin, buildstep.BuildStep):
    """Runs `oscar-testdriver lint`, which leaves its verdict in a run directory, as a run does."""

    haltOnFailure = True
    updateBuildSummaryPolicy = False

    def __init__(self, site: Site, **kwargs: Any) -> None:
        kwargs = self.setupShellMixin(
            {"name": LINT, "logEnviron": False, "timeout": None, "maxTime": _MAX_SECONDS, "sigtermTime": 10, **kwargs},
            prohibitArgs=["command"],
        )
        super().__init__(**kwargs)
        self.site = site
        self.svn: set[Any] = set()
        self._told = ""

    async def run(self) -> int:
        if self.build.stopped and (cut := cut_short(self)) is not None:
            return cut
        url = self.site.repository.source_url(self.getProperty("branch") or self.site.repository.trunk)
        self.setProperty(SOURCE_URL, url, self.name)
        try:
            wanted = self.getProperty("revision") or None
            revision = await exact_revision(self.master.reactor, url, wanted, self.svn)
        except (SourceError, HostError) as error:
            if (cut := cut_short(self)) is not None:
                return cut
            return self._nothing_to_look_at(error)
        run_id = f"{LINT}-r{revision}-b{self.getProperty('buildnumber')}"
        directory = run_directory(self.site, run_id)
        self.setProperty(EXACT_REVISION, revision, self.name)
        self.setProperty(RUN_ID, run_id, self.name)
        self.setProperty(RUN_DIRECTORY, str(directory), self.name)
        await remove_old_runs(self, LINT, self.site, also=str(directory))
        self.addLogObserver("stdio", SummaryObserver(self._show))
        words = [*self.site.driver.command, LINT, revision, "--url", url, "--run", str(directory)]
        command = await self.makeRemoteShellCommand(command=words)
        await self.runCommand(command)
        if (cut := cut_short(self)) is not None:
            return cut
        return EXCEPTION if self.timed_out else RESULT_OF_STATUS.get(command.rc, EXCEPTION)

    def _nothing_to_look_at(self, error: SourceError | HostError) -> int:
        self._told = clean(error.sentence)
        if isinstance(error, SourceError):
            self.setProperty(ASKERS_MISTAKE, True, self.name)
        category = Category.FARM if isinstance(error, SourceError) else Category.HOST
        verdict = identity_of(self, LINT).verdict(
            Outcome.INFRASTRUCTURE, error.sentence, hint=error.hint, category=category
        )
        self.setProperty(VERDICT, verdict.model_dump(mode="json"), self.name)
        return int(EXCEPTION)

    def _show(self, summary: str) -> None:
        self._told = summary

    def getCurrentSummary(self) -> dict[str, str]:
        return {"step": "compiling every script"}

    def getResultSummary(self) -> dict[str, str]:
        return {"step": self._told or f"{LINT}: {statusToString(self.results)}"}
