"""The last step: the run's verdict becomes the build's result, and the run's files go to the master's web pages."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from buildbot.process import buildstep, remotecommand, remotetransfer
from buildbot.process.results import CANCELLED, SUCCESS, WARNINGS, worst_status
from twisted.internet import threads
from twisted.python import log

from oscar_steps.master.again import ask_again, note_image
from oscar_steps.master.durability.begun import NOTHING_TO_DO
from oscar_steps.master.durability.once import REPEAT_OF
from oscar_steps.master.durability.restarts import CutShort, cut_short
from oscar_steps.master.history.record import SAME_AS
from oscar_steps.master.history.repeat import ask_repetition
from oscar_steps.master.steps import evidence
from oscar_steps.master.steps.first import OfCell, upload
from oscar_steps.master.steps.results import (
    RESULT_OF_OUTCOME,
    RUN_DIRECTORY,
    VERDICT,
    RunIdentity,
    agreed,
    read_verdict,
)
from oscar_steps.master.steps.stages import has_run
from oscar_steps.master.web.run_files import RUNS, run_url
from oscar_steps.site import Site
from oscar_steps.textio import one_line
from oscar_steps.verdict import VERDICT_FILE, Outcome, Stability, Verdict

_MAX_VERDICT_BYTES = 2**20
_NOTE_LENGTH = 1000
_WARNING_LENGTH = 130
GO_ON = "the clusters are installed anyway"


class ReportStep(OfCell, CutShort, buildstep.BuildStep):
    """Fetches the verdict and the evidence. Its result is the verdict's, so the build's result agrees with it."""

    name = "report"
    alwaysRun = True
    warnOnWarnings = True

    def __init__(self, site: Site, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.site = site
        self.summary = "no verdict"

    async def run(self) -> int:
        if (cut := self._cut_short()) is not None:
            return cut
        if self.getProperty(NOTHING_TO_DO):
            self.summary = str(self.getProperty(NOTHING_TO_DO))
            return int(SUCCESS)
        identity = RunIdentity.of_build(self.cell, self.getProperty("buildnumber"), self.getProperty)
        verdict = await self._verdict(identity)
        if (cut := self._cut_short()) is not None:
            return cut
        self.setProperty(VERDICT, verdict.model_dump(mode="json"), self.name)
        self.summary = headline(verdict)
        if verdict.outcome is Outcome.PASSED and self.getProperty(REPEAT_OF):
            self.summary = "passed: flaky, for the build before it was red and is the same"
        if self.getProperty(SAME_AS):
            self.summary += f"; {verdict.hint}"
        if has_run(self):
            await self._fetch_evidence(verdict)
        if (cut := self._cut_short()) is not None:
            return cut
        note_image(self, self.cell, verdict)
        verdict = await ask_again(self, self.cell, verdict, self.site.schedule.again)
        verdict = await ask_repetition(self, self.cell, verdict)
        self.setProperty(VERDICT, verdict.model_dump(mode="json"), self.name)
        return RESULT_OF_OUTCOME[verdict.outcome]

    def _cut_short(self) -> int | None:
        """A person who stops a build in its last step still gets the verdict's result; lost ones are made again."""
        cut = cut_short(self)
        return None if cut == CANCELLED else cut

    async def _verdict(self, identity: RunIdentity) -> Verdict:
        earlier = self.getProperty(VERDICT)  # the job step's, when there could be no run
        if earlier is None and not has_run(self):
            text = f"the build ended before its run began, at the step {self._worst_step()}"
            earlier = identity.verdict(Outcome.INFRASTRUCTURE, text).model_dump(mode="json")
        if earlier is not None:
            return agreed(Verdict.model_validate(earlier), self.build.results, self._worst_step())
        writer = remotetransfer.StringFileWriter()
        came = await upload(self, self.getProperty(RUN_DIRECTORY), VERDICT_FILE, writer, _MAX_VERDICT_BYTES)
        verdict = read_verdict(identity, writer.buffer if came else None)
        return agreed(verdict, self.build.results, self._worst_step())

    def _worst_step(self) -> str:
        for step in self.build.executedSteps:
            if step is self or step.results in (None, SUCCESS, WARNINGS):
                continue
            if worst_status(step.results, self.build.results) == step.results:
                return str(step.name)
        return "the build"

    async def _fetch_evidence(self, verdict: Verdict) -> None:
        """Whatever goes wrong here is noted, and never changes the verdict."""
        try:
            await self._show_evidence(verdict)
        except Exception as error:  # broad on purpose: see above
            log.err(error, "the run's files could not be fetched or shown")
            await self._note(f"the run's files could not be fetched or shown: {error}")

    async def _note(self, words: str) -> None:
        try:
            await self.addCompleteLog("note", one_line(words, _NOTE_LENGTH) + "\n")
        except Exception as error:  # broad on purpose: the note of a trouble is no reason for another result
            log.err(error, "a note could not be written into the build's log")

    async def _show_evidence(self, verdict: Verdict) -> None:
        names = await self._fetched_files(verdict.run_id)
        await self.addCompleteLog("files", "".join(f"{name}\n" for name in names))
        base = self.master.config.buildbotURL
        await self.addURL("files of the run", run_url(base, verdict.run_id))
        for file in dict.fromkeys(item.file for item in verdict.evidence):
            if file in names:
                await self.addURL(one_line(file), run_url(base, verdict.run_id, file))

    async def _fetched_files(self, run_id: str) -> list[str]:
        runs = Path(self.master.basedir) / RUNS
        directory = self.getProperty(RUN_DIRECTORY)
        pack = remotecommand.RemoteShellCommand(directory, ["sh", "-c", evidence.PACK, directory], logEnviron=False)
        stdio = await self.addLog("stdio")
        pack.useLog(stdio, True)
        await self.runCommand(pack)
        archive = runs / f".{run_id}.tar.gz"
        writer = remotetransfer.FileWriter(str(archive), evidence.MAX_ARCHIVE_BYTES, 0o600)
        try:
            came = await upload(self, directory, evidence.ARCHIVE, writer, evidence.MAX_ARCHIVE_BYTES)
        finally:
            writer.cancel()
        try:
            if not came:
                raise OSError(
                    f"the worker did not deliver {evidence.ARCHIVE}, or it is over {evidence.MAX_ARCHIVE_BYTES} bytes"
                )
            names: list[str] = await threads.deferToThread(evidence.unpack, archive, runs / run_id)
        finally:
            archive.unlink(missing_ok=True)
        await threads.deferToThread(evidence.prune, runs, self.cell, self.site.master.keep)
        return names

    def getResultSummary(self) -> dict[str, str]:
        # The build's page puts the result's own word before the build's text.
        return {"step": self.summary, "build": self.summary.partition(" ")[2] or self.summary}


def headline(verdict: Verdict) -> str:
    """The verdict in one line, as a mail's subject and the build's page have it; its first word is the outcome."""
    if verdict.outcome is Outcome.PASSED:
        return one_line(f"passed; {verdict.mended[0]}") if verdict.mended else "passed"
    if verdict.outcome is Outcome.WARNING:
        return f"{one_line(f'warning: {verdict.sentence}', _WARNING_LENGTH)}; {GO_ON}"
    place = f" at {verdict.stage.value}" if verdict.stage else ""
    unstable = verdict.outcome is Outcome.FAILED and verdict.stability is Stability.UNSTABLE
    return one_line(f"{verdict.outcome.value}{place}{' (unstable cell)' if unstable else ''}: {verdict.sentence}")
