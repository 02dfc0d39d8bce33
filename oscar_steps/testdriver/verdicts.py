"""From what happened to the verdict. Deterministic: the same facts give the same verdict."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from oscar_steps.errors import FarmError, Finding, SourceError
from oscar_steps.job import Job
from oscar_steps.testdriver.run import Cancelled
from oscar_steps.verdict import MAX_EVIDENCE_LINES, Category, Evidence, Outcome, Stage, Verdict

if TYPE_CHECKING:
    from oscar_steps.testdriver.run import Run


def outcome_of(error: FarmError | None) -> Outcome:
    """Whose doing it is. Only a finding about OSCAR itself is a failure; the rest is never blamed on a commit."""
    if error is None:
        return Outcome.PASSED
    if isinstance(error, Cancelled):
        return Outcome.CANCELLED
    if isinstance(error, Finding) and error.category == Category.OSCAR:
        return Outcome.FAILED
    return Outcome.INFRASTRUCTURE


def category_of(error: FarmError | None) -> Category:
    if error is None or isinstance(error, Cancelled):
        return Category.NONE
    if isinstance(error, Finding):
        return Category(error.category)
    return Category.FARM if isinstance(error, SourceError) else Category.HOST


def evidence_of(error: FarmError | None) -> tuple[Evidence, ...]:
    """The lines that show it, at most MAX_EVIDENCE_LINES of a file: the last ones say most."""
    pieces = []
    for file, first_line, lines in error.evidence if isinstance(error, Finding) else ():
        cut = max(len(lines) - MAX_EVIDENCE_LINES, 0)
        pieces.append(Evidence(file=file, first_line=first_line + cut, lines=lines[cut:]))
    return tuple(pieces)


def replay_command(job: Job) -> str:
    """What to type to get this very run on a laptop."""
    words = ["oscar-testdriver", "run", "--cell", job.cell, "--url", job.source.url, "--revision", job.source.revision]
    if job.nodes is not None:
        words += ["--nodes", str(job.nodes)]
    if job.boot is not None:
        words += ["--boot", job.boot]
    return shlex.join(words)


def _count(number: int, thing: str) -> str:
    return f"{number} {thing}" if number == 1 else f"{number} {thing}s"


def verdict_of(run: Run) -> Verdict:
    """The verdict of a run whose stages are over."""
    error = run.failure
    outcome = outcome_of(error)
    if outcome is Outcome.PASSED and not all(run.results[stage].result == "passed" for stage in Stage):
        raise AssertionError("a run without a failure must have passed every stage")
    nodes = run.board.reports() if run.board else ()
    return Verdict(
        run_id=run.job.run_id,
        cell=run.job.cell,
        source=run.job.source.url,
        revision=run.job.source.revision,
        outcome=outcome,
        sentence=error.sentence
        if error
        else f"OSCAR installed a head node and {_count(len(nodes), 'compute node')}, and tested the cluster",
        hint=error.hint if error else "",
        stage=run.failed_stage,
        oscar_stage=error.oscar_stage if isinstance(error, Finding) else "",
        category=category_of(error),
        evidence=evidence_of(error),
        nodes=nodes,
        stages=tuple(run.results[stage] for stage in Stage),
        seconds=round(run.diary.elapsed, 1),
        replay=replay_command(run.job),
    )
