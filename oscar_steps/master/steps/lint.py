"""The first tier's builder: one step that looks at a revision for seconds, without a cluster, then the report."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from buildbot.process import buildstep, remotetransfer
from buildbot.process.results import EXCEPTION, statusToString
from twisted.internet import threads
from twisted.python import log

from oscar_steps.errors import HostError, SourceError
from oscar_steps.judgement import LINT_FILE, MAX_BYTES, Judgement
from oscar_steps.master.durability.restarts import CutShort, cut_short
from oscar_steps.master.operator_mail import tell_operator
from oscar_steps.master.plans import run_directory
from oscar_steps.master.pollers import exact_revision
from oscar_steps.master.schedulers import CHANGES
from oscar_steps.master.steps.results import LINT_RESULT_OF_STATUS, VERDICT
from oscar_steps.master.steps.stages import (
    ASKERS_MISTAKE,
    EXACT_REVISION,
    RUN_DIRECTORY,
    RUN_ID,
    SOURCE_URL,
    SummaryObserver,
    clean,
    identity_of,
    on_worker,
    remove_old_runs,
)
from oscar_steps.master.web.standing import GATED_BEFORE, note_judgement
from oscar_steps.master.web.standing_page import STANDING
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
        words += await self._first_of_several(revision)
        command = await self.makeRemoteShellCommand(command=words)
        await self.runCommand(command)
        if (cut := cut_short(self)) is not None:
            return cut
        result = EXCEPTION if self.timed_out else LINT_RESULT_OF_STATUS.get(command.rc, EXCEPTION)
        await self._note_what_stands(str(directory), url)
        return result

    async def _first_of_several(self, last: str) -> list[str]:
        """A build may be for several commits that came one after the other: all that they brought is new."""
        changes = [await self.master.data.get(("changes", number)) for number in self.getProperty(CHANGES) or []]
        revisions = [int(change["revision"]) for change in changes if change and str(change["revision"]).isdigit()]
        first = min(revisions, default=int(last))
        return ["--first", str(first)] if 0 < first < int(last) else []

    async def _note_what_stands(self, directory: str, url: str) -> None:
        """Whatever goes wrong here is noted, and never changes the result."""
        try:
            writer = remotetransfer.StringFileWriter()
            command = await on_worker(
                self, "uploadFile", workdir=directory, workersrc=LINT_FILE, writer=writer, maxsize=MAX_BYTES,
                blocksize=256 * 1024, keepstamp=False,
            )  # fmt: skip
            if command.rc != 0:
                return  # nothing was judged: the verdict says why
            said = Judgement.model_validate_json(writer.buffer)
            branch = self.getProperty("branch") or self.site.repository.trunk
            folder = Path(self.master.basedir)
            if said.url == url:
                gated, trouble = await threads.deferToThread(note_judgement, folder, branch, said)
                self.setProperty(GATED_BEFORE, list(gated), self.name)
                if trouble:
                    tell_operator(self.master, "the list of standing problems begins anew", trouble)
                await self.addURL("standing problems", f"{self.master.config.buildbotURL}plugins/{STANDING}/")
        except Exception as error:  # broad on purpose: see above
            log.err(error, "what stands could not be noted")

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
