"""The first step of every build: it finds the exact revision, names the run after it, and makes room on the worker."""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath
from typing import Any

from buildbot.process import buildstep, remotecommand
from buildbot.process.results import EXCEPTION, statusToString
from twisted.internet import threads

from oscar_steps.errors import HostError, SourceError
from oscar_steps.master.durability.restarts import CutShort, cut_short
from oscar_steps.master.schedules.names import ASKERS_MISTAKE, MISTAKE, PATCH_OF
from oscar_steps.master.steps.results import EXACT_REVISION, RUN_ID, SOURCE_URL, TESTED, VERDICT, RunIdentity, is_run_of
from oscar_steps.master.watch.exact import Asked, exact_source, url_of
from oscar_steps.site import Site
from oscar_steps.sources.diffs import changes_of
from oscar_steps.sources.source import MAX_PATCH_BYTES, MAX_STRIP, Patch, Source
from oscar_steps.textio import one_line
from oscar_steps.verdict import Category, Outcome


class OfCell:
    """Mixin of steps that all cells share: the cell is the build's. `lint` counts as one."""

    @property
    def cell(self: Any) -> str:
        return str(self.build.builder.name)

    def __str__(self: Any) -> str:
        return f"<{type(self).__name__} {self.name}>"  # Buildbot's has all that the step was made of: it is logged

    __repr__ = __str__


class FirstStep(OfCell, CutShort, buildstep.BuildStep):
    """What keeps a build from its run is the verdict that this step leaves; otherwise `begin` goes on."""

    haltOnFailure = True
    updateBuildSummaryPolicy = False  # the build's own line is the verdict, which the report step has

    def __init__(self, site: Site, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.site = site
        self.svn: set[Any] = set()
        self.summary = ""

    async def begin(self, source: Source, run_id: str, directory: str) -> int:
        """Begin the run in its directory on the worker, which does not exist yet. Gives the step's result."""
        raise NotImplementedError

    @property
    def oscar_names(self) -> tuple[str, ...]:
        """OSCAR's names of the cell; none: of no cell."""
        return ()

    async def check(self) -> None:
        """Raise HostError where no run may begin."""

    async def run(self) -> int:
        if self.build.stopped and (cut := cut_short(self)) is not None:
            return cut
        asked = asked_of(self)
        try:
            self.setProperty(SOURCE_URL, url_of(self.site, asked), self.name)
            await self.check()
            patch = await patch_of(self)
            source = await exact_source(self.master.reactor, self.site, asked)
        except (SourceError, HostError) as error:
            return cut if (cut := cut_short(self)) is not None else self._no_run(error)
        if (cut := cut_short(self)) is not None:
            return cut
        source = source.model_copy(update={"patch": patch})
        run_id = f"{self.cell}-{source.short}-b{self.getProperty('buildnumber')}"
        self.setProperty(EXACT_REVISION, source.revision, self.name)
        self.setProperty(TESTED, source.without_text().model_dump(mode="json"), self.name)
        self.setProperty(RUN_ID, run_id, self.name)
        directory = str(self.site.driver.runs / run_id)
        await self._remove_old_runs(directory)
        return await self.begin(source, run_id, directory)

    def _no_run(self, error: SourceError | HostError) -> int:
        self.summary = one_line(error.sentence)
        if isinstance(error, SourceError):
            self.setProperty(ASKERS_MISTAKE, True, self.name)
        category = Category.FARM if isinstance(error, SourceError) else Category.HOST
        identity = RunIdentity.of_build(self.cell, self.getProperty("buildnumber"), self.getProperty)
        verdict = identity.verdict(Outcome.INFRASTRUCTURE, error.sentence, hint=error.hint, category=category)
        self.setProperty(VERDICT, verdict.model_dump(mode="json"), self.name)
        return int(EXCEPTION)

    async def _remove_old_runs(self, directory: str) -> None:
        """Keep the newest `driver.keep` run directories of this cell on the worker; `directory` goes in any case.

        A directory of a new run's name is of an earlier life of the master: build numbers began again with its
        database.
        """
        command = await on_worker(self, "glob", path=str(self.site.driver.runs / f"{self.cell}-*-b*"))
        found = command.updates.get("files", [[]])[-1] if command.rc == 0 else []
        found = [path for path in found if is_run_of(self.cell, PurePosixPath(path).name)]
        for path in {*superseded(found, self.site.driver.keep), directory}:
            await on_worker(self, "rmdir", dir=path)

    def getResultSummary(self) -> dict[str, str]:
        return {"step": self.summary or f"{self.name}: {statusToString(self.results)}"}


def asked_of(step: Any) -> Asked:
    """What the build of a step was asked for."""
    return Asked(
        repository=step.getProperty("repository") or "",
        branch=step.getProperty("branch") or "",
        revision=step.getProperty("revision") or "",
        properties=step.getProperty,
        running=step.svn,
        folder=Path(step.master.basedir),
        oscar_names=step.oscar_names,
    )


async def patch_of(step: Any) -> Patch | None:
    """The developer's patch that a build is to test. Raises SourceError for one that cannot be used."""
    if mistake := step.getProperty(MISTAKE):
        raise SourceError(str(mistake))
    stamp = step.build.getSourceStamp("")
    if stamp is None or not stamp.patch:
        return None
    level, content, _folder = stamp.patch
    if len(content) > MAX_PATCH_BYTES:
        raise SourceError(f"the patch has {len(content)} bytes; the farm takes {MAX_PATCH_BYTES}")
    who = str(step.getProperty(PATCH_OF) or step.getProperty("owner") or "somebody")
    patch = Patch.of_bytes(content, who, min(max(int(level or 0), 0), MAX_STRIP))
    await threads.deferToThread(changes_of, patch)
    return patch


async def on_worker(step: Any, name: str, **arguments: Any) -> Any:
    """Have the worker do `name`, one of its built-in commands."""
    command = remotecommand.RemoteCommand(name, {"logEnviron": False, **arguments}, ignore_updates=False)
    await step.runCommand(command)
    return command


async def upload(step: Any, directory: str, file: str, writer: Any, limit: int) -> bool:
    """Have the worker send a file of `directory`, of at most `limit` bytes; whether it came."""
    command = await on_worker(
        step,
        "uploadFile",
        workdir=directory,
        workersrc=file,
        writer=writer,
        maxsize=limit,
        blocksize=256 * 1024,
        keepstamp=False,
    )
    return bool(command.rc == 0)


def superseded(runs: list[str], keep: int) -> list[str]:
    """Those of the run directories that are older than the newest `keep`, by the numbers of their builds."""
    numbered = [(int(match[1]), path) for path in runs if (match := re.search(r"-b(\d+)$", PurePosixPath(path).name))]
    return [path for _, path in sorted(numbered, reverse=True)[keep:]]
