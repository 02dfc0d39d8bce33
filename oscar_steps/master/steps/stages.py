"""The steps of a build: `job` sends the worker what is tested, then there is one thin step per stage of the run.

A stage's step attaches to the run: `oscar-testdriver stage NAME --run DIR` prints what happens, and its exit
status is the result. Nothing is decided from the lines that it prints; they may arrive 5 seconds late.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path, PurePosixPath
from typing import Any, get_args

from buildbot.process import buildstep, logobserver, remotetransfer
from buildbot.process.results import EXCEPTION, RETRY, SKIPPED, SUCCESS, statusToString
from buildbot.reporters import utils

from oscar_steps.errors import HostError
from oscar_steps.job import JOB_FILE, CellPlan, Job, Source
from oscar_steps.master.again import FINAL
from oscar_steps.master.durability.restarts import RESTARTED, CutShort, cut_short
from oscar_steps.master.fitting import nodes_wished
from oscar_steps.master.history.record import FARM, RECIPE, farm_of, recipe_of
from oscar_steps.master.operator_mail import MAIL_SERVICE
from oscar_steps.master.schedules.busy import all_changes
from oscar_steps.master.schedules.names import CHANGES, IMAGE_WANTED, KEEP_HOURS
from oscar_steps.master.steps.first import FirstStep, OfCell, on_worker
from oscar_steps.master.steps.results import CELL_OWNER, EXACT_REVISION, RUN_DIRECTORY, stage_result
from oscar_steps.master.watch.released import kept_tarball
from oscar_steps.site import Site
from oscar_steps.sources.source import TarFile
from oscar_steps.textio import json_object, one_line
from oscar_steps.verdict import Stage
from oscar_steps.words import MARK, MAX_KEEP_HOURS, TARBALL_FOLDER, NodeBoot

MAX_TRIES = 3
LOST = "lost connection"
"""Buildbot's words in the state of a build whose worker went away."""
_TERM_SECONDS = 60


KEPT = """\
The cluster is kept for {hours} h at most, and takes a place of the worker {worker} meanwhile.
The build so far: {so_far}. Its mail comes when the cluster has ended.

On {worker}, as the worker's user:

    oscar-testdriver ssh {directory}
    oscar-testdriver destroy {directory}

The first logs in to the head node, the second ends the cluster and keeps the result.

{url}
"""


def keep_hours(step: Any) -> int:
    """So long a person keeps the cluster of a forced build."""
    hours = step.getProperty(KEEP_HOURS) or 0
    return min(hours, MAX_KEEP_HOURS) if isinstance(hours, int) and hours > 0 else 0


def has_run(step: Any) -> bool:
    """Whether the worker has this build's job (for `doStepIf`)."""
    return bool(step.getProperty(RUN_DIRECTORY))


class JobStep(FirstStep):
    """Writes the job into a fresh run directory on the worker."""

    name = "job"

    def __init__(self, plans: Mapping[str, CellPlan], site: Site, **kwargs: Any) -> None:
        super().__init__(site, **kwargs)
        self.plans = plans

    async def check(self) -> None:
        """When its worker is lost Buildbot begins a build anew, without limit: a cell that kills workers never ends."""
        lost = 0
        for build in await self.master.data.get(("buildrequests", self.build.requests[0].id, "builds")):
            if build["results"] == RETRY and LOST in str(build["state_string"]):
                properties = await self.master.data.get(("builds", build["buildid"], "properties"))
                lost += RESTARTED not in properties
        if changes := await all_changes(self):
            self.setProperty(CHANGES, changes, self.name)
        if lost >= MAX_TRIES:
            self.setProperty(FINAL, True, self.name)
            raise HostError(
                f"the connection to the worker was lost {MAX_TRIES} times during this build; it is not retried"
            )

    def _wish(self) -> dict[str, Any]:
        """What a person who forces a build may ask for."""
        boot = self.getProperty("boot")
        return {
            "boot": boot if boot in get_args(NodeBoot) else None,
            "nodes": nodes_wished(self),
        }

    @property
    def oscar_names(self) -> tuple[str, ...]:
        cell = self.plans[self.cell].cell
        names = (cell.real or f"{cell.distribution}-{cell.version}", cell.compatible)
        return tuple(dict.fromkeys(f"{name}-{cell.architecture}" for name in names if name))

    async def begin(self, source: Source, run_id: str, directory: str) -> int:
        plan = self.plans[self.cell]
        self.setProperty(CELL_OWNER, plan.cell.owner, self.name)
        job = plan.job(run_id, source, **self._wish())
        self.setProperty(FARM, farm_of(job), self.name)
        self.setProperty(RECIPE, recipe_of(job), self.name)
        if wanted := self.getProperty(IMAGE_WANTED):
            job = Job.model_validate(dict(job) | wanted)
        text = job.model_dump_json(indent=2) + "\n"
        path = PurePosixPath(directory) / JOB_FILE
        command = await on_worker(
            self,
            "downloadFile",
            workdir=directory,
            workerdest=str(path),
            reader=remotetransfer.StringFileReader(text),
            maxsize=None,
            blocksize=64 * 1024,
            mode=0o600,
        )
        await self.addCompleteLog(JOB_FILE, text)
        if (result := cut_short(self)) is not None:
            return result
        if command.rc != 0:
            self.summary = f"the worker cannot write {path}"
            return EXCEPTION
        for file in source.files:
            if not await self._send_tarball(source.branch, file, directory):
                return EXCEPTION
        if (result := cut_short(self)) is not None:
            return result
        self.setProperty(RUN_DIRECTORY, directory, self.name)
        self.summary = f"{job.cell} {job.source.short}, run {job.run_id}"
        return SUCCESS

    async def _send_tarball(self, branch: str, file: TarFile, directory: str) -> bool:
        """Whether the worker has the file now, or will fetch it itself because the master does not keep it any more."""
        kept = kept_tarball(Path(self.master.basedir), branch, file.sha256)
        if not kept.is_file():
            return True
        path = str(PurePosixPath(directory) / TARBALL_FOLDER / file.name)
        with kept.open("rb") as opened:
            command = await on_worker(
                self,
                "downloadFile",
                workdir=directory,
                workerdest=path,
                reader=remotetransfer.FileReader(opened),
                maxsize=None,
                blocksize=256 * 1024,
                mode=0o600,
            )
        if command.rc != 0:
            self.summary = f"the worker cannot write {path}"
        return bool(command.rc == 0)

    def getCurrentSummary(self) -> dict[str, str]:
        return {"step": "looking up the revision"}


class SummaryObserver(logobserver.LogLineObserver):
    """Reads the driver's structured lines. What cannot be read is ignored: they are for display."""

    def __init__(self, show: Callable[[str], None]) -> None:
        super().__init__()
        self._show = show

    def outLineReceived(self, line: str) -> None:
        if not line.startswith(MARK):
            return
        try:
            said = json_object(line.removeprefix(MARK))
        except ValueError:
            return
        if isinstance(said.get("summary"), str):
            self._show(one_line(said["summary"]))


class StageStep(OfCell, CutShort, buildstep.ShellMixin, buildstep.BuildStep):
    """One stage of the run, attached to the run's process."""

    updateBuildSummaryPolicy = False

    def __init__(self, stage: Stage, site: Site, factor: float = 1.0, **kwargs: Any) -> None:
        kwargs = self.setupShellMixin(
            {
                "name": stage.value,
                "haltOnFailure": not stage.always_runs,
                "alwaysRun": stage.always_runs,
                "doStepIf": has_run,
                "logEnviron": False,
                # The driver's own deadlines come first; these two only catch a driver that is broken itself.
                "timeout": None,
                "maxTime": site.driver.hours * 3600 * factor,
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
        if hours := keep_hours(self):
            words += ["--keep", str(hours)] if self.stage is Stage.CREATE_IMAGE else []
            await self._tell_who_keeps(hours)
        command = await self.makeRemoteShellCommand(command=words)
        await self.runCommand(command)
        if (cut := cut_short(self)) is not None:
            return cut
        result = stage_result(self.stage, None if self.timed_out else command.rc, self.build.results)
        if self.stage is Stage.CHECKOUT and result == SUCCESS:
            self.setProperty("got_revision", self.getProperty(EXACT_REVISION), self.name)
        return result

    async def _tell_who_keeps(self, hours: int) -> None:
        """How to reach the cluster before it is ended, in a mail to the person who wanted it and to the operator."""
        booted = [step for step in self.build.executedSteps if step.name == Stage.BOOT_HEADNODE.value]
        if self.stage is not Stage.TEARDOWN or not booted or booted[0].results == SKIPPED:
            return
        self.maxTime += hours * 3600
        mail = self.master.service_manager.namedServices.get(MAIL_SERVICE)
        if mail is None:
            return
        directory, worker = self.getProperty(RUN_DIRECTORY), self.getProperty("workername")
        builder = await self.build.getBuilderId()
        text = KEPT.format(
            hours=hours,
            worker=worker,
            directory=directory,
            so_far=statusToString(self.build.results),
            url=utils.getURLForBuild(self.master, builder, self.build.number),
        )
        subject = f"{self.cell}: the cluster of your build is kept on {worker} for {hours} h at most"
        name = f"kept-{self.build.buildid}"
        await mail.send_to_logins(name, subject, text, [str(self.getProperty("owner") or "")])

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
