"""One run: one process that owns the whole cluster, from the first file to the last.

Each stage is a module in `stages/`. The first thing that goes wrong is the run's failure. It ends the stage that is
running. The stages up to `finalize` are then not reached. The logs are extracted and the cluster is ended in any case.
"""

from __future__ import annotations

import asyncio
import time
import traceback
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from oscar_steps.errors import BugInTheFarm, Cancelled, FarmError
from oscar_steps.job import JOB_FILE, Job
from oscar_steps.testdriver.head.check import with_full_disk
from oscar_steps.testdriver.head.installer import Installer
from oscar_steps.testdriver.head.link import explained
from oscar_steps.testdriver.reached import Begun, Booted, Booting, Installing
from oscar_steps.testdriver.record.events import Diary
from oscar_steps.testdriver.record.verdicts import outcome_of, record_of, verdict_of
from oscar_steps.verdict import Outcome, Stage, StageReport, StageResult, Verdict


class Gate:
    """Lets the run go on: stage by stage, as attached commands ask for it, or to its end (`open`)."""

    def __init__(self, *, open_: bool) -> None:
        self._open = open_
        self._permitted: set[Stage] = set()
        self._changed = asyncio.Condition()

    async def permit(self, stage: Stage) -> None:
        """Let the run go on to the end of `stage`."""
        async with self._changed:
            self._permitted |= {other for other in Stage if list(Stage).index(other) <= list(Stage).index(stage)}
            self._changed.notify_all()

    async def open(self) -> None:
        """Let it go on to its end."""
        async with self._changed:
            self._open = True
            self._changed.notify_all()

    async def wait_for(self, stage: Stage) -> None:
        async with self._changed:
            await self._changed.wait_for(lambda: self._open or stage in self._permitted)


@dataclass(frozen=True)
class RunOptions:
    """Options of this run that are not part of the job: they do not change its meaning."""

    image_store: Path
    keep: float = 0.0
    """Hours for which the VMs are kept at the run's end, unless somebody ends it before; `math.inf`: until then."""


@dataclass
class Run:
    """The state of a run. `reached`: what its stages have made so far."""

    directory: Path
    job: Job
    options: RunOptions
    gate: Gate
    diary: Diary = field(init=False)
    results: dict[Stage, StageReport] = field(default_factory=dict, init=False)
    failure: FarmError | None = field(default=None, init=False)
    cancelled: asyncio.Event = field(default_factory=asyncio.Event, init=False)
    reached: Begun = field(default=Begun(), init=False)

    def __post_init__(self) -> None:
        self.diary = Diary(self.directory)
        self._alarm: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.done: dict[Stage, asyncio.Event] = {stage: asyncio.Event() for stage in Stage}
        self._background: set[asyncio.Task[None]] = set()
        self._held: set[asyncio.Future[None]] = set()
        self._held_back: tuple[type[FarmError], ...] = ()
        self._later: FarmError | None = None
        self.ending = False
        self.job.save(self.directory / JOB_FILE)

    def raise_alarm(self, failure: FarmError) -> None:
        """End the running stage with `failure`. Background tasks call this. Only the first failure counts."""
        if isinstance(failure, self._held_back):
            self._later = self._later or failure
        elif not self._alarm.done() and self.failure is None:
            self._alarm.set_exception(failure)

    @contextmanager
    def holding_back(self, *kinds: type[FarmError]) -> Iterator[None]:
        """Hold back alarms of these kinds until the block ends: they belong to the next stage."""
        self._held_back = kinds
        try:
            yield
        finally:
            self._held_back = ()
            if self._later is not None:
                self.raise_alarm(self._later)

    @property
    def running_installer(self) -> Installer | None:
        """OSCAR's installer, from its start to its end."""
        reached = self.reached
        return reached.installer if isinstance(reached, Installing) and not reached.installer.ended.is_set() else None

    def _alarm_error(self) -> FarmError:
        error = self._alarm.exception()
        assert isinstance(error, FarmError)
        return error

    def check_alarm(self) -> None:
        """Raise the failure that a background task has found, if any. A stage calls this before it ends well."""
        if self._alarm.done():
            self._alarm.result()

    def in_background(self, work: Coroutine[Any, Any, None]) -> None:
        """Run `work` beside the stages. An error in it ends the run. It is cancelled before the cluster ends."""
        task = asyncio.create_task(work)
        self._background.add(task)
        task.add_done_callback(self._background_done)

    def _background_done(self, task: asyncio.Task[None]) -> None:
        if task.cancelled() or (error := task.exception()) is None:
            return
        if not isinstance(error, FarmError):
            traceback.print_exception(error)
            error = BugInTheFarm(
                f"the farm has a bug: {type(error).__name__}: {error}", hint="driver.log has the traceback"
            )
        self.raise_alarm(error)

    def hold(self, task: asyncio.Future[None]) -> None:
        """Keep a task alive to its end (the loop itself holds only a weak reference)."""
        self._held.add(task)
        task.add_done_callback(self._held.discard)

    async def end_background(self) -> None:
        """Cancel the background tasks. From here on the cluster is being ended, and its machines may end."""
        self.ending = True
        for task in self._background:
            task.cancel()
        await asyncio.gather(*self._background, return_exceptions=True)

    async def cancel(self, reason: str) -> None:
        """End the run now: no more logs, only the teardown."""
        self.raise_alarm(Cancelled(reason))
        self.cancelled.set()
        self.diary.say(f"the run is being ended: {reason}")
        await self.gate.open()

    async def execute(self, handlers: dict[Stage, Callable[[Run], Awaitable[None]]]) -> Verdict:
        """Run all stages, one after the other. An error in a stage becomes the run's failure and is not raised."""
        self.diary.write(
            "run-started",
            f"run {self.job.run_id}: {self.job.cell}, OSCAR from {self.job.source}",
            process=psutil.Process().pid,
            born=psutil.Process().create_time(),
        )
        for stage in Stage:
            await self.gate.wait_for(stage)
            await self._stage(stage, handlers[stage])
            self.done[stage].set()
        return self.conclude()

    async def _stage(self, stage: Stage, handler: Callable[[Run], Awaitable[None]]) -> None:
        if self.failure is None and self._alarm.done() and (self.cancelled.is_set() or stage is Stage.EXTRACT_LOGS):
            self._failed(stage, self._alarm_error())  # raised between two stages: the next one would have met it
        if (self.failure and not stage.always_runs) or (self.cancelled.is_set() and stage is not Stage.TEARDOWN):
            self.results[stage] = StageReport(stage=stage, result=StageResult.NOT_REACHED)
            self.diary.write("stage-ended", "", stage=stage, result=StageResult.NOT_REACHED)
            return
        self.diary.write("stage-started", f"== {stage}", stage=stage)
        begun = time.monotonic()
        result = StageResult.PASSED
        try:
            await self._until_alarm(stage, handler)
        except FarmError as error:
            if not stage.always_runs and not self.cancelled.is_set():
                error = await self._explained(error)
            result = self._failed(stage, error)
        except Exception as error:
            traceback.print_exc()
            what = f"{type(error).__name__}: {error}"
            result = self._failed(
                stage,
                BugInTheFarm(f"the farm has a bug in the stage {stage}: {what}", hint="driver.log has the traceback"),
            )
        seconds = time.monotonic() - begun
        self.results[stage] = StageReport(stage=stage, result=result, seconds=round(seconds, 3))
        self.diary.write(
            "stage-ended", f"== {stage}: {result.value} after {seconds:.1f} s",
            stage=stage, result=result, seconds=round(seconds, 3), **self.cpu_seconds(),
        )  # fmt: skip

    async def _explained(self, error: FarmError) -> FarmError:
        """`error` with what the head node, and the other witnesses, show of its cause."""
        reached = self.reached
        if not isinstance(reached, Booted):
            return error
        if (installer := self.running_installer) and not self.ending:
            error = await explained(error, reached.head, reached.cluster.head, installer, self.diary.current_step)
        await with_full_disk(reached.head, error)
        return error

    async def _until_alarm(self, stage: Stage, handler: Callable[[Run], Awaitable[None]]) -> None:
        if not stage.always_runs:
            self.check_alarm()
        work = asyncio.ensure_future(handler(self))
        stop: asyncio.Future[Any]
        if stage is Stage.TEARDOWN:
            stop = asyncio.get_running_loop().create_future()
        elif stage.always_runs:
            stop = asyncio.ensure_future(self.cancelled.wait())
        else:
            stop = self._alarm
        await asyncio.wait({work, stop}, return_when=asyncio.FIRST_COMPLETED)
        if not work.done():
            work.cancel()
            await asyncio.wait({work})
        if stop is not self._alarm:
            stop.cancel()
        if stop is self._alarm and stop.done() and (work.cancelled() or work.exception()):
            raise self._alarm_error()  # the first cause, not what the work said while it was being ended
        if not work.cancelled():
            work.result()
        else:
            raise Cancelled("the run was ended while this stage was running")

    def _failed(self, stage: Stage, error: FarmError) -> StageResult:
        if self.failure is None:
            self.failure = error
        self.diary.write("failure", error.explain(), stage=stage, **record_of(error))
        return StageResult[outcome_of(error).name]

    def cpu_seconds(self) -> dict[str, float]:
        """CPU seconds so far: of the driver itself, of children that have ended (image build, dead VMs), of the VMs."""
        times = psutil.Process().cpu_times()
        machines = self.reached.cluster.machines if isinstance(self.reached, Booting) else ()
        guests = sum(machine.cpu_seconds() for machine in machines)
        own = times.user + times.system
        children = times.children_user + times.children_system
        return {"driver_cpu": round(own, 2), "children_cpu": round(children, 2), "guest_cpu": round(float(guests), 2)}

    def conclude(self) -> Verdict:
        """Make the verdict from the run's own files, as `oscar-testdriver verdict` does later, and write it."""
        verdict = verdict_of(self.directory)
        verdict.save(self.directory)
        words = "passed" if verdict.outcome is Outcome.PASSED else f"{verdict.outcome} at {verdict.stage}"
        self.diary.write("verdict", f"== verdict: {words}: {verdict.sentence}", outcome=verdict.outcome)
        return verdict
