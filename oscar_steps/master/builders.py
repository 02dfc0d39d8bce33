"""One builder per cell, and the builder `lint`. A cell's build has a job, the stages of a run, and a report."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from buildbot.plugins import util, worker
from buildbot.process.factory import BuildFactory
from buildbot.process.results import EXCEPTION
from twisted.python import log

from oscar_steps.job import CellPlan
from oscar_steps.master.again import IMAGE_FAILED, may_begin_here, next_build, next_newest
from oscar_steps.master.durability.begun import FarmFactory
from oscar_steps.master.fitting import CellFits, Describing
from oscar_steps.master.scale.slots import SlotWorker
from oscar_steps.master.schedules.commit import start_cells
from oscar_steps.master.schedules.names import ASKERS_MISTAKE
from oscar_steps.master.schedules.patches import StartAsked
from oscar_steps.master.steps.already import AlreadyStep
from oscar_steps.master.steps.lint import LintStep
from oscar_steps.master.steps.report import ReportStep
from oscar_steps.master.steps.stages import JobStep, StageStep
from oscar_steps.matrix.cells import Cell, Matrix
from oscar_steps.site import Site
from oscar_steps.verdict import LINT, Stage
from oscar_steps.words import UNSTABLE, Label, Stability

_KEEPALIVE = 60
_MISSING_AFTER = 600


class HostWorker(Describing, SlotWorker):
    """After an exception Buildbot gives a worker nothing for 10 s, then 20, 40, up to an hour; a good build ends that.

    Five minutes are enough to spare the queue of a host that is broken, and short enough to notice that it was mended.
    """

    quarantine_max_timeout = 300
    _without_image = ""
    """The cell whose image could not be had here last, if no other build has ended well since."""

    def putInQuarantine(self) -> None:
        """A person's mistake (a revision that does not exist) is no fault of the worker's; nor is one cell that gets no
        further than its image. A second cell without an image, with nothing good between them, is the host's.
        """
        ending = [
            build
            for builder in self.botmaster.getBuildersForWorker(self.name)
            for build in builder.building
            if build.finished and build.results == EXCEPTION and build.workerforbuilder.worker is self
        ]
        if not ending or not all(self._is_blameless(build) for build in ending):
            super().putInQuarantine()

    def _is_blameless(self, build: Any) -> bool:
        if build.getProperty(ASKERS_MISTAKE):
            return True
        if not build.getProperty(IMAGE_FAILED) or self._without_image not in ("", build.builder.name):
            return False
        self._without_image = build.builder.name
        return True

    def resetQuarantine(self) -> None:
        self._without_image = ""
        super().resetQuarantine()

    async def attached(self, conn: Any) -> None:
        """Buildbot's own notes the error of an attachment that failed (a full disk, a locked database) and keeps the
        connection, whose keep-alives make the worker believe that all is well. A worker without one connects again.
        """
        self.hear_of_host(conn.info)
        try:
            await super(worker.Worker, self).attached(conn)
        except Exception as error:
            log.err(
                error, f"the worker {self.name} cannot be attached; its connection is cut, so that it connects again"
            )
            conn.loseConnection()
        if conn.mind is not None and conn.mind.broker.disconnected:
            # Twisted reports no connection that ended before its login was complete: the worker would be
            # 'connected' until it comes again.
            conn.detached(conn.mind)


def build_workers(site: Site) -> list[Any]:
    """The site's workers. `builds` of each is its capacity: how many clusters fit; `_clusters` holds that.

    One build more, so that a commit is checked within seconds also where clusters are being installed.
    """
    made = []
    for host in site.worker:
        # Not util.Secret: a new secret does not exist yet when a reconfiguration asks for it, and a changed one has the
        # same name, so that Buildbot would see no difference.
        made.append(
            HostWorker(
                host.name,
                site.secrets.read(f"worker-{host.name}", f"password of the worker {host.name}"),
                max_builds=host.builds + 1,
                keepalive_interval=_KEEPALIVE,
                notify_on_missing=[site.mail.operator] if site.mail else [],
                missing_timeout=_MISSING_AFTER,
            )
        )
    return made


def build_plans(site: Site, matrix: Matrix) -> tuple[CellPlan, ...]:
    """A plan for every cell of the matrix. Raises ConfigError, with file and line, where one cannot be used."""
    site.check_against(matrix)
    return tuple(CellPlan.of(matrix, cell, site.timeouts) for cell in matrix.cells)


def cell_factories(plans: Iterable[CellPlan], site: Site) -> dict[float, BuildFactory]:
    """The steps of a build, for each time-out factor. All cells share them: a step finds its cell by its build's name.

    Steps for each cell by itself would take seconds and tens of MiB with 1,500 of them.
    """
    of_cell = {plan.name: plan for plan in plans}
    return {
        factor: FarmFactory(
            [
                JobStep(of_cell, site),
                AlreadyStep(site),
                *(StageStep(stage, site, factor) for stage in Stage),
                ReportStep(site),
            ]
        )
        for factor in {plan.cell.timeout_factor for plan in of_cell.values()}
    }


def _clusters(site: Site) -> Any:
    """How many clusters a worker has at a time."""
    return util.WorkerLock("clusters", maxCount=1, maxCountForWorker={host.name: host.builds for host in site.worker})


_UNPROVEN = " (its image is unproven: no run of it was ever green, and it runs only when somebody forces it)"


def tags_of(cell: Cell, *, unproven: bool = False) -> list[str]:
    """By which the pages of the farm pick cells."""
    marks = [*([cell.stability.value] if cell.stability is Stability.UNSTABLE else []), *(["unproven"] * unproven)]
    return [cell.distribution, cell.architecture, *([cell.variant] if cell.variant else []), *cell.labels, *marks]


def description_of(cell: Cell, *, unproven: bool = False) -> str:
    """What the page of a cell says of it."""
    variant = f", {cell.variant}" if cell.variant else ""
    marks = (f" ({UNSTABLE})" if cell.stability is Stability.UNSTABLE else "") + _UNPROVEN * unproven
    return f"OSCAR on {cell.distribution} {cell.version}, {cell.architecture}{variant}: {cell.cluster}{marks}"


def _builder(plan: CellPlan, site: Site, factory: BuildFactory, clusters: Any) -> Any:
    cell = plan.cell
    return util.BuilderConfig(
        name=plan.name,
        workernames=list(site.workers_for(plan.name)),
        factory=factory,
        nextBuild=next_newest if site.schedule.busy == "newest" else next_build,
        canStartBuild=CellFits(plan.need, may_begin_here),
        locks=[clusters.access("counting")],
        tags=tags_of(cell, unproven=plan.image.unproven),
        description=description_of(cell, unproven=plan.image.unproven),
    )


def build_builders(site: Site, plans: tuple[CellPlan, ...]) -> list[Any]:
    """A builder for every cell, and one for the first tier."""
    clusters, factories = _clusters(site), cell_factories(plans, site)
    cells = (_builder(plan, site, factories[plan.cell.timeout_factor], clusters) for plan in plans)
    return [*cells, _lint(site, plans)]


def _lint(site: Site, plans: tuple[CellPlan, ...]) -> Any:
    steps = [LintStep(site), ReportStep(site)]
    if any(Label.SMOKE in plan.cell.labels for plan in plans):
        steps.append(start_cells())
    steps.append(StartAsked())
    return util.BuilderConfig(
        name=LINT,
        workernames=[host.name for host in site.worker],
        factory=FarmFactory(steps),
        nextBuild=next_build,
        tags=[Label.SMOKE],
        description="Every script of a commit, in seconds, without a cluster",
    )
