"""The first tier's builder: one step that looks at a revision for seconds, without a cluster, then the report."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from buildbot.process import buildstep, remotetransfer
from buildbot.process.results import EXCEPTION
from twisted.internet import threads
from twisted.python import log

from oscar_steps.judgement import LINT_FILE, MAX_BYTES, Judgement
from oscar_steps.master.durability.restarts import cut_short
from oscar_steps.master.operator_mail import notify_operator
from oscar_steps.master.schedules.names import ASKERS_MISTAKE, CHANGES
from oscar_steps.master.steps.first import FirstStep, on_worker, upload
from oscar_steps.master.steps.results import LINT_RESULT_OF_STATUS, RUN_DIRECTORY
from oscar_steps.master.steps.stages import SummaryObserver
from oscar_steps.master.web.standing import GATED_BEFORE, note_judgement
from oscar_steps.master.web.standing_page import STANDING
from oscar_steps.site import Site
from oscar_steps.sources.diffs import PATCH_FILE
from oscar_steps.sources.git import FULL_ID
from oscar_steps.sources.source import Patch, Source
from oscar_steps.verdict import LINT, ExitStatus

_MAX_SECONDS = 900


class LintStep(FirstStep, buildstep.ShellMixin, buildstep.BuildStep):
    """Runs `oscar-testdriver lint`, which leaves its verdict in a run directory, as a run does."""

    def __init__(self, site: Site, **kwargs: Any) -> None:
        kwargs = self.setupShellMixin(
            {"name": LINT, "logEnviron": False, "timeout": None, "maxTime": _MAX_SECONDS, "sigtermTime": 10, **kwargs},
            prohibitArgs=["command"],
        )
        super().__init__(site, **kwargs)

    async def begin(self, source: Source, run_id: str, directory: str) -> int:  # noqa: ARG002
        self.setProperty(RUN_DIRECTORY, directory, self.name)
        self.addLogObserver("stdio", SummaryObserver(self._show))
        words = [*self.site.driver.command, LINT, source.revision, "--url", source.url, "--run", directory]
        if source.kind == "git":
            words.append("--git")
        if source.patch is not None:
            words += await self._bring_patch(source.patch, directory)
        else:
            words += await self._first_of_several(source)
        command = await self.makeRemoteShellCommand(command=words)
        await self.runCommand(command)
        if (cut := cut_short(self)) is not None:
            return cut
        result = EXCEPTION if self.timed_out else LINT_RESULT_OF_STATUS.get(command.rc, EXCEPTION)
        if source.patch is None:
            await self._note_what_stands(directory, source.url)
        elif command.rc == ExitStatus.USAGE:
            self.setProperty(ASKERS_MISTAKE, True, self.name)
        return result

    async def _bring_patch(self, patch: Patch, directory: str) -> list[str]:
        """Send the worker a developer's patch; gives the words that name it."""
        command = await on_worker(
            self,
            "downloadFile",
            workdir=directory,
            workerdest=f"{directory}/{PATCH_FILE}",
            reader=remotetransfer.StringFileReader(patch.content),
            maxsize=None,
            blocksize=64 * 1024,
            mode=0o600,
        )
        if command.rc != 0:
            log.msg(f"the worker could not keep the patch in {directory}")  # lint says so
        return ["--patch", f"{directory}/{PATCH_FILE}", "--strip", str(patch.strip), f"--patch-of={patch.who}"]

    async def _first_of_several(self, source: Source) -> list[str]:
        """A build may be for several commits that came one after the other: all that they brought is new."""
        numbers = sorted(self.getProperty(CHANGES) or [])
        changes = [await self.master.data.get(("changes", number)) for number in numbers]
        revisions = [str(change["revision"]) for change in changes if change]
        if source.kind == "git":  # they were stored in the branch's order
            first = next(filter(FULL_ID.fullmatch, revisions), source.revision)
            return ["--first", first] if first != source.revision else []
        last = int(source.revision)
        number = min((int(revision) for revision in revisions if revision.isdecimal()), default=last)
        return ["--first", str(number)] if 0 < number < last else []

    async def _note_what_stands(self, directory: str, url: str) -> None:
        """Whatever goes wrong here is noted, and never changes the result."""
        try:
            writer = remotetransfer.StringFileWriter()
            if not await upload(self, directory, LINT_FILE, writer, MAX_BYTES):
                return  # nothing was judged: the verdict says why
            judgement = Judgement.model_validate_json(writer.buffer)
            branch = self.getProperty("branch") or self.site.main.name
            folder = Path(self.master.basedir)
            if judgement.url == url:
                newest = max(self.getProperty(CHANGES) or (), default=0)
                gated, trouble = await threads.deferToThread(note_judgement, folder, branch, judgement, newest)
                self.setProperty(GATED_BEFORE, list(gated), self.name)
                if trouble:
                    notify_operator(self.master, "the list of standing problems was reset", trouble)
                await self.addURL("standing problems", f"{self.master.config.buildbotURL}plugins/{STANDING}/")
        except Exception as error:  # broad on purpose: see above
            log.err(error, "the standing problems could not be noted")

    def _show(self, summary: str) -> None:
        self.summary = summary

    def getCurrentSummary(self) -> dict[str, str]:
        return {"step": "checking every script"}
