"""Makes the verdict from the files of a run directory.

`verdict_of` serves a run at its end, a run that was killed, and a run in an archive. The same files give the same
verdict, to the byte.
"""

from __future__ import annotations

import shlex
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from oscar_steps.errors import (
    Cancelled,
    FarmError,
    Finding,
    ImageBuildFailed,
    InstallerFailed,
    InstallerHung,
    OutsideUnknown,
    PatchRefused,
    SourceError,
    StageTimeout,
    UserError,
)
from oscar_steps.job import JOB_FILE, Job
from oscar_steps.oscar.failure import Failure
from oscar_steps.oscar.known import remarks
from oscar_steps.sources.diffs import PATCH_FILE
from oscar_steps.sources.git import url_words
from oscar_steps.testdriver.record.event_history import EventHistory, Recorded, read_event_history
from oscar_steps.testdriver.record.rejudge import TERMINAL_FILE, Judgement, judge
from oscar_steps.testdriver.wanted import Wanted
from oscar_steps.verdict import (
    MAX_EVIDENCE_LINES,
    Category,
    Evidence,
    InstallReport,
    Outcome,
    Stage,
    StageResult,
    Verdict,
)

_INSTALLER_ERRORS = (InstallerFailed.__name__, InstallerHung.__name__)
_IMAGE_ERRORS = (ImageBuildFailed.__name__, OutsideUnknown.__name__)


def outcome_of(error: FarmError | None) -> Outcome:
    """The outcome of a run that ended with `error`. Only a finding about OSCAR itself is a failure."""
    if error is None:
        return Outcome.PASSED
    if isinstance(error, Cancelled):
        return Outcome.CANCELLED
    return _outcome(_category_of(error))


def _outcome(category: Category) -> Outcome:
    return Outcome.FAILED if category is Category.OSCAR else Outcome.INFRASTRUCTURE


def _category_of(error: FarmError) -> Category:
    if isinstance(error, Cancelled):
        return Category.NONE
    if isinstance(error, Finding):
        return Category(error.category)
    return Category.FARM if isinstance(error, SourceError) else Category.HOST


def record_of(error: FarmError) -> dict[str, Any]:
    """What the run's events keep of an error, beside its text. `verdict_of` reads it again."""
    kept: dict[str, Any] = {
        "error": type(error).__name__,
        "outcome": outcome_of(error).value,
        "category": _category_of(error).value,
    }
    if isinstance(error, Finding):
        kept["oscar_stage"] = error.oscar_stage
        kept["evidence"] = [asdict(_last_lines(piece)) for piece in error.evidence]
        kept["facts"] = error.facts
    elif isinstance(error, PatchRefused):
        kept["evidence"] = [asdict(_last_lines(piece)) for piece in error.evidence]
    return kept


def _last_lines(evidence: Evidence) -> Evidence:
    """At most the last MAX_EVIDENCE_LINES lines of it."""
    cut = max(len(evidence.lines) - MAX_EVIDENCE_LINES, 0)
    return Evidence(evidence.file, evidence.first_line + cut, evidence.lines[cut:])


def replay_command(job: Job) -> str:
    """The command that repeats this run with a laptop's profiles and time limits. The job itself is in `JOB_FILE`."""
    words = ["oscar-testdriver", "run", "--cell", job.cell]
    if job.source.kind == "tarball":
        words += [word for file in job.source.files for word in ("--tarball", file.url)]
    else:
        words += [*url_words(job.source), "--revision", job.source.revision]
    if job.nodes is not None:
        words += ["--nodes", str(job.nodes)]
    if job.boot is not None:
        words += ["--boot", job.boot]
    if patch := job.source.patch:
        words += ["--patch", PATCH_FILE, *(["--strip", str(patch.strip)] if patch.strip else [])]
    return shlex.join(words)


def verdict_of(run_directory: Path) -> Verdict:
    """The verdict of a run that is over or was killed; see the module's docstring. Only reads.

    Raises UserError where the directory holds no run that has begun, or its job has a profile that cannot be used.
    """
    job = Job.load(run_directory / JOB_FILE)
    history = read_event_history(run_directory)
    if history is None:
        raise UserError(f"{run_directory}: this run has not begun yet")
    judgement = None
    if history.flavour is not None:
        facts = history.failure.facts if history.failure else {}
        wanted = Wanted.of(job, history.flavour, f"the cluster profile in {run_directory / JOB_FILE}")
        judgement = judge(run_directory, wanted, job.answers.oscar_home, facts)
    cause = _cause(history, judgement)
    return Verdict(
        run_id=job.run_id,
        cell=job.cell,
        source=job.source.url,
        revision=job.source.revision,
        tested=job.source.without_text(),
        outcome=cause.outcome,
        sentence=cause.sentence,
        hint=_hint(cause, job, history),
        stage=cause.stage,
        oscar_stage=cause.oscar_stage,
        category=cause.category,
        stability=job.stability,
        evidence=cause.evidence,
        nodes=history.node_reports(),
        stages=history.stage_reports(),
        installer=_install_reports(cause, history, judgement),
        image=history.image,
        image_failed=_image_failed(history),
        seconds=round(history.last.elapsed, 1),
        replay=replay_command(job),
    )


@dataclass(frozen=True)
class _Cause:
    """Why a run ended as it did. `of_installer`: what OSCAR's installer itself shows of it."""

    outcome: Outcome
    sentence: str
    hint: str = ""
    stage: Stage | None = None
    oscar_stage: str = ""
    category: Category = Category.NONE
    evidence: tuple[Evidence, ...] = ()
    of_installer: Failure | None = None


def _cause(history: EventHistory, judgement: Judgement | None) -> _Cause:
    """A run is good only if nothing went wrong, every stage passed, and its installer's lines prove OSCAR's success."""
    if history.failure:
        return _failed(history.failure, judgement)
    if not history.is_over:
        return _killed(history)
    bad = next((report for report in history.stages.values() if report.result is not StageResult.PASSED), None)
    if bad is not None:
        sentence = f"the stage {bad.stage} ended as '{bad.result}', and no event of the run says why"
        hint = "the virtualization host's disk may have been full, so that events could not be written"
        return _Cause(Outcome.INFRASTRUCTURE, sentence, hint, bad.stage, category=Category.HOST)
    if judgement is None:
        sentence = "the run directory has no output of OSCAR's installer, so nothing proves that it succeeded"
        hint = f"{TERMINAL_FILE} is missing" if history.flavour else "the event 'installer-started' is missing"
        return _Cause(Outcome.INFRASTRUCTURE, sentence, hint, category=Category.HOST)
    if judgement.failure:
        return _of_installer(judgement, judgement.failure, Stage(judgement.failure.stage.farm_stage))
    count = len(history.nodes)
    nodes = f"{count} compute node" if count == 1 else f"{count} compute nodes"
    return _Cause(Outcome.PASSED, f"OSCAR installed a head node and {nodes}, and tested the cluster")


def _image_failed(history: EventHistory) -> bool:
    failure = history.failure
    late = failure is not None and failure.error == StageTimeout.__name__ and failure.stage is Stage.CREATE_IMAGE
    own = failure is not None and failure.error in _IMAGE_ERRORS
    return history.image is None and (own or late)


def _failed(failure: Recorded, judgement: Judgement | None) -> _Cause:
    again = judgement is not None and judgement.file == TERMINAL_FILE and failure.error in _INSTALLER_ERRORS
    if judgement and judgement.failure and again:
        cause = _of_installer(judgement, judgement.failure, failure.stage)
        also = failure.facts.get("also")  # what the head node itself showed when it was looked at
        return replace(cause, sentence=f"{cause.sentence}; {also}") if also else cause
    outcome = Outcome.INFRASTRUCTURE if failure.outcome is Outcome.PASSED else failure.outcome
    return _Cause(
        outcome, failure.sentence, failure.hint, failure.stage, failure.oscar_stage, failure.category, failure.evidence
    )


def _of_installer(judgement: Judgement, failure: Failure, stage: Stage) -> _Cause:
    category = Category(failure.category)
    evidence = Evidence(file=judgement.file, first_line=failure.first_line, lines=failure.lines)
    return _Cause(
        outcome=_outcome(category),
        sentence=failure.sentence,
        hint=failure.hint,
        stage=stage,
        oscar_stage=failure.stage.value,
        category=category,
        evidence=(_last_lines(evidence),) if failure.lines else (),
        of_installer=failure,
    )


def _killed(history: EventHistory) -> _Cause:
    last = history.last
    where = f"in the stage {history.stage}" if history.stage else "at its very beginning"
    doing = f", while waiting for {history.steps[-1]}" if history.steps else ""
    left = {None: "", 0: "; no VM was left"}.get(
        history.vms_left, f"; {history.vms_left} VMs were left and have been ended"
    )
    return _Cause(
        Outcome.INFRASTRUCTURE,
        f"the run's process was killed {where}{doing} "
        f"(its last event was at {last.stamp[11:19]}, {last.elapsed:.0f} s after its beginning){left}",
        "this says nothing about OSCAR; run it again",
        history.stage,
        category=Category.HOST,
    )


def _hint(cause: _Cause, job: Job, history: EventHistory) -> str:
    if cause.outcome in (Outcome.PASSED, Outcome.CANCELLED):
        return cause.hint
    lines = (cause.sentence, *(line for piece in cause.evidence for line in piece.lines))
    return "; ".join(filter(None, (*remarks(job.known_issues, job.cell, lines, history.day), cause.hint)))


def _install_reports(cause: _Cause, history: EventHistory, judgement: Judgement | None) -> tuple[InstallReport, ...]:
    if judgement is None:
        return ()
    # An installer that was ended from outside has not failed where it stood: only what was certain before counts.
    results = judgement.log.results(cause.of_installer or judgement.log.failure)
    return tuple(
        InstallReport(stage=stage.value, result=result.value, seconds=history.install_seconds(stage))
        for stage, result in results.items()
    )
