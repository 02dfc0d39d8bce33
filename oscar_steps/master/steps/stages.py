"""The steps of a build: `job` decides what is tested and tells the worker, then one thin step per stage of the run.

A stage's step is a window: it runs `oscar-testdriver stage NAME --run DIR`, shows what that prints, and takes its exit
status. Nothing is decided from the lines; they may arrive 5 seconds late.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import PurePosixPath
from typing import Any

from buildbot.process import buildstep, logobserver, remotecommand, remotetransfer
from buildbot.process.results import EXCEPTION, RETRY, SUCCESS, statusToString

from oscar_steps.errors import HostError, SourceError
from oscar_steps.job import JOB_FILE, CellPlan, Job, Source
from oscar_steps.master.again import FINAL
from oscar_steps.master.durability.restarts import RESTARTED, CutShort, cut_short
from oscar_steps.master.plans import run_directory
from oscar_steps.master.pollers import exact_revision
from oscar_steps.master.steps.results import VERDICT, RunIdentity, stage_result
from oscar_steps.site import Site
from oscar_steps.textio import seen_line
from oscar_steps.verdict import Category, Outcome, Stage

RUN_ID = "run_id"
RUN_DIRECTORY = "run_directory"
"""Build property: where the worker keeps this run. Set once the worker has the job; without it no stage can run."""
SOURCE_URL = "source_url"
EXACT_REVISION = "exact_revision"
ASKERS_MISTAKE = "askers_mistake"
"""Build property: what was asked for does not exist. No worker is at fault."""
MARK = "@@oscar "
MAX_TRIES = 3
LOST = "lost connection"
"""Buildbot's words in the state of a build whose worker went away."""
_TERM_SECONDS = 60
_SUMMARY_LENGTH = 160
_LOOKED_AT = 1 << 16


def clean(text: str, length: int = _SUMMARY_LENGTH) -> str:
    """One printable line out of text that may come from a guest."""
    text = " ".join(seen_line(line) for line in text[:_LOOKED_AT].split("\n"))
    line = "".join(character if character.isprintable() else " " for character in text)
    line = re.sub(r" +", " ", line).strip()
    return line if len(line) <= length else line[: length - 3] + "..."


def identity_of(step: Any, cell: str) -> RunIdentity:
    """Who this build's run is, as far as it is known yet."""
    return RunIdentity(
        run_id=step.getProperty(RUN_ID) or f"{cell}-b{step.getProperty('buildnumber')}",
        cell=cell,
        source=step.getProperty(SOURCE_URL) or "",
        revision=step.getProperty(EXACT_REVISION) or step.getProperty("revision") or "",
    )


def has_run(step: Any) -> bool:
    """Whether the worker has this build's job (for `doStepIf`)."""
    return bool(step.getProperty(RUN_DIRECTORY))


class JobStep(CutShort, buildstep.BuildStep):
    """Finds the exact revision, writes the job into a fresh run directory on the worker, removes old ones."""

    name = "job"
    haltOnFailure = True
    updateBuildSummaryPolicy = False  # the build's own line is the verdict, which the report step has

    def __init__(self, plan: CellPlan, site: Site, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.plan = plan
        self.site = site
        self.svn: set[Any] = set()
        self._told = ""

    async def run(self) -> int:
        if self.build.stopped and (result := cut_short(self)) is not None:
            return result
        url = self.site.repository.source_url(self.getProperty("branch") or self.site.repository.trunk)
        self.setProperty(SOURCE_URL, url, self.name)
        try:
            await self._refuse_endless_tries()
            wanted = self.getProperty("revision") or None
            revision = await exact_revision(self.master.reactor, url, wanted, self.svn)
        except (SourceError, HostError) as error:
            if (result := cut_short(self)) is not None:
                return result
            self._told = clean(error.sentence)
            if isinstance(error, SourceError):
                self.setProperty(ASKERS_MISTAKE, True, self.name)
            category = Category.FARM if isinstance(error, SourceError) else Category.HOST
            verdict = identity_of(self, self.plan.name).verdict(
                Outcome.INFRASTRUCTURE, error.sentence, hint=error.hint, category=category
            )
            self.setProperty(VERDICT, verdict.model_dump(mode="json"), self.name)
            return EXCEPTION
        if (result := cut_short(self)) is not None:
            return result
        self.setProperty(EXACT_REVISION, revision, self.name)
        run_id = f"{self.plan.name}-r{revision}-b{self.getProperty('buildnumber')}"
        job = self.plan.job(run_id, Source(url=url, revision=revision), **self._wish())
        self.setProperty(RUN_ID, job.run_id, self.name)
        return await self._hand_over(job)

    async def _refuse_endless_tries(self) -> None:
        """When its worker is lost Buildbot begins a build anew, without limit: a cell that kills workers never ends."""
        lost = 0
        for build in await self.master.data.get(("buildrequests", self.build.requests[0].id, "builds")):
            if build["results"] == RETRY and LOST in str(build["state_string"]):
                properties = await self.master.data.get(("builds", build["buildid"], "properties"))
                lost += RESTARTED not in properties
        if lost >= MAX_TRIES:
            self.setProperty(FINAL, True, self.name)
            raise HostError(f"the worker was lost {MAX_TRIES} times under this build: it is not tried again")

    def _wish(self) -> dict[str, Any]:
        """What a person who forces a build may ask for."""
        boot = self.getProperty("boot")
        nodes = int(self.getProperty("nodes") or 0)
        return {
            "boot": boot if boot in ("cdrom", "network") else None,
            "nodes": min(nodes, 128) if nodes > 0 else None,
        }

    async def _hand_over(self, job: Job) -> int:
        directory = run_directory(self.site, job.run_id)
        await remove_old_runs(self, self.plan.name, self.site, also=str(directory))
        text = job.model_dump_json(indent=2) + "\n"
        reader = remotetransfer.StringFileReader(text)
        command = await on_worker(
            self,
            "downloadFile",
            workdir=str(directory),
            workerdest=str(directory / JOB_FILE),
            reader=reader,
            maxsize=None,
            blocksize=64 * 1024,
            mode=0o600,
        )
        await self.addCompleteLog(JOB_FILE, text)
        if (result := cut_short(self)) is not None:
            return result
        if command.rc != 0:
            self._told = f"the worker cannot write {directory / JOB_FILE}"
            return EXCEPTION
        self.setProperty(RUN_DIRECTORY, str(directory), self.name)
        self._told = f"{job.cell} r{job.source.revision}, run {job.run_id}"
        return SUCCESS

    def getCurrentSummary(self) -> dict[str, str]:
        return {"step": "finding the revision"}

    def getResultSummary(self) -> dict[str, str]:
        return {"step": self._told or f"job: {statusToString(self.results)}"}


async def on_worker(step: Any, name: str, **arguments: Any) -> Any:
    """Have the worker do `name`, one of its built-in commands."""
    command = remotecommand.RemoteCommand(name, {"logEnviron": False, **arguments}, ignore_updates=False)
    await step.runCommand(command)
    return command


async def remove_old_runs(step: Any, cell: str, site: Site, *, also: str) -> None:
    """Keep the newest `driver.keep` run directories of this cell on the worker; `also` goes in any case.

    A directory of a new run's name is of an earlier life of the master: build numbers began again with its database.
    """
    command = await on_worker(step, "glob", path=str(site.driver.runs / f"{cell}-r*-b*"))
    found = command.updates.get("files", [[]])[-1] if command.rc == 0 else []
    for path in {*superseded(list(found), site.driver.keep), also}:
        await on_worker(step, "rmdir", dir=path)


def superseded(runs: list[str], keep: int) -> list[str]:
    """Those of the run directories that are older than the newest `keep`; age is told by the build's number."""
    numbered = [(int(match[1]), path) for path in runs if (match := re.search(r"-b(\d+)$", PurePosixPath(path).name))]
    return [path for _, path in sorted(numbered, reverse=True)[keep:]]


class SummaryObserver(logobserver.LogLineObserver):
    """Reads the driver's structured lines. What cannot be read is ignored: they are for display."""

    def __init__(self, tell: Callable[[str], None]) -> None:
        super().__init__()
        self._tell = tell

    def outLineReceived(self, line: str) -> None:
        if not line.startswith(MARK):
            return
        try:
            said = json.loads(line.removeprefix(MARK))
        except ValueError:
            return
        if isinstance(said, dict) and isinstance(said.get("summary"), str):
            self._tell(clean(said["summary"]))


class StageStep(CutShort, buildstep.ShellMixin, buildstep.BuildStep):
    """One stage of the run, as a window on the driver's process."""

    updateBuildSummaryPolicy = False

    def __init__(self, stage: Stage, site: Site, **kwargs: Any) -> None:
        kwargs = self.setupShellMixin(
            {
                "name": stage.value,
                "haltOnFailure": not stage.always_runs,
                "alwaysRun": stage.always_runs,
                "doStepIf": has_run,
                "logEnviron": False,
                # The driver's own deadlines come first; these two only catch a driver that is broken itself.
                "timeout": None,
                "maxTime": site.driver.hours * 3600,
                "sigtermTime": _TERM_SECONDS,
                **kwargs,
            },
            prohibitArgs=["command"],
        )
        super().__init__(**kwargs)
        self.stage = stage
        self.site = site
        self._live = ""

    async def run(self) -> int:
        if self.build.stopped and (result := cut_short(self)) is not None:
            return result
        self.addLogObserver("stdio", SummaryObserver(self._show))
        words = [*self.site.driver.command, "stage", self.stage.value, "--run", self.getProperty(RUN_DIRECTORY)]
        command = await self.makeRemoteShellCommand(command=words)
        await self.runCommand(command)
        if (cut := cut_short(self)) is not None:
            return cut
        result = stage_result(self.stage, None if self.timed_out else command.rc, self.build.results)
        if self.stage is Stage.CHECKOUT and result == SUCCESS:
            self.setProperty("got_revision", self.getProperty(EXACT_REVISION), self.name)
        return result

    def _show(self, summary: str) -> None:
        self._live = summary
        self.updateSummary()

    def getCurrentSummary(self) -> dict[str, str]:
        return {"step": self._live or "running"}

    def getResultSummary(self) -> dict[str, str]:
        words = self._live
        if self.results != SUCCESS:
            words = f"{words} ({statusToString(self.results)})".strip()
        return {"step": words or "done"}
