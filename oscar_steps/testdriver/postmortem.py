"""What the next command says about a run whose process was killed: everything it needs is in the run directory."""

from __future__ import annotations

import fcntl
from pathlib import Path

from oscar_steps.errors import UserError
from oscar_steps.job import JOB_FILE, Job
from oscar_steps.testdriver.events import Event, read_events
from oscar_steps.testdriver.owner import LOCK_FILE
from oscar_steps.testdriver.perishables import remove_perishables
from oscar_steps.testdriver.verdicts import replay_command
from oscar_steps.v3m.ledger import end_leftovers
from oscar_steps.verdict import Category, Outcome, Stage, StageReport, StageResult, Verdict


def is_running(run_directory: Path) -> bool:
    """Whether the run's process is there (it holds the directory's lock)."""
    try:
        with (run_directory / LOCK_FILE).open(encoding="utf-8") as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)  # shared: two who ask at once do not see each other
    except BlockingIOError:
        return True
    except FileNotFoundError:
        return False
    return False


def require_run(run_directory: Path) -> None:
    """Raises UserError where the directory holds no run."""
    if not (run_directory / JOB_FILE).exists():
        hint = "`oscar-testdriver status` lists the runs of this host; `stage create-image --job JOB.json` starts one"
        raise UserError(f"{run_directory}: there is no run here", hint=hint)


def verdict_of_dead_run(run_directory: Path) -> Verdict:
    """The verdict of a run that ended, however it ended.

    Where its process was killed before it could write one: VMs of the run's ledger that are left are ended (there are
    none, since they die with their parent; this is the proof), and the verdict is `infrastructure`. Raises UserError
    where the directory holds no run.
    """
    require_run(run_directory)
    try:
        return Verdict.load(run_directory)
    except FileNotFoundError:
        job = Job.load(run_directory / JOB_FILE)
    events = read_events(run_directory)
    if not events:
        raise UserError(f"{run_directory}: this run has not begun yet")
    left = end_leftovers(run_directory)
    remove_perishables(run_directory)
    stage, step = _where(events)
    last = events[-1] if events else None
    when = f"{last.stamp[11:19]}, {last.elapsed:.0f} s into it" if last else "its very beginning"
    found = f"; {len(left)} VMs were left and have been ended" if left else "; no VM was left"
    doing = f", while waiting for {step}" if step else ""
    verdict = Verdict(
        run_id=job.run_id,
        cell=job.cell,
        source=job.source.url,
        revision=job.source.revision,
        outcome=Outcome.INFRASTRUCTURE,
        sentence=f"the run's process was killed in the stage {stage}{doing} (last sign of life: {when}){found}",
        hint="this says nothing about OSCAR; run it again",
        stage=stage,
        category=Category.HOST,
        stages=_stages(events, stage),
        seconds=round(last.elapsed, 1) if last else 0.0,
        replay=replay_command(job),
    )
    verdict.save(run_directory)
    return verdict


def _where(events: list[Event]) -> tuple[Stage | None, str]:
    stage: Stage | None = None
    steps: list[str] = []
    for event in events:
        if event.kind == "stage-started":
            stage, steps = Stage(event.data["stage"]), []
        elif event.kind == "step":
            steps.append(event.text)
        elif event.kind in ("step-done", "step-broken") and steps:
            steps.pop()
    return stage, steps[-1] if steps else ""


def _stages(events: list[Event], killed_in: Stage | None) -> tuple[StageReport, ...]:
    ended = {Stage(event.data["stage"]): event for event in events if event.kind == "stage-ended"}
    reports = []
    for stage in Stage:
        if stage in ended:
            data = ended[stage].data
            reports.append(
                StageReport(stage=stage, result=StageResult(data["result"]), seconds=data.get("seconds", 0.0))
            )
        else:
            result = StageResult.INFRASTRUCTURE if stage is killed_in else StageResult.NOT_REACHED
            reports.append(StageReport(stage=stage, result=result))
    return tuple(reports)
