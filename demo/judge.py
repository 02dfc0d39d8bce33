"""Whether a build ended as it should: green with its mail, or red at the right stage with a mail that says why."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from demo.faults import Fault
from demo.mailsink import body_of, read_mail
from demo.rest import SUCCESS, Build
from oscar_steps.verdict import LINT, Outcome, Verdict

FIRST_LINES = 12
"""A mail has to say stage and cause within these lines of its body: what fits a small window."""


@dataclass(frozen=True)
class Finished:
    """A build that is over: what the master, the verdict and the committer's mail (if it came) say of it."""

    revision: int
    build: Build
    verdict: Verdict | None
    mail: Path | None


def complaints(finished: Finished, fault: Fault | None) -> list[str]:
    """What is not as it should be, one sentence each; empty when all is well. `fault`: what had been committed."""
    if fault is not None and fault.passes:
        fault = None
    wrong = [] if finished.mail else ["no mail to the committer arrived"]
    if finished.verdict is None:
        return [*wrong, f"the build ended as '{finished.build.result_name}' and has no verdict"]
    if fault is None:
        return wrong + _not_green(finished.build, finished.verdict)
    wrong += _not_red(finished.build, finished.verdict, fault)
    return wrong + (_mail_silent_on(finished.mail, fault) if finished.mail else [])


def _not_green(build: Build, verdict: Verdict) -> list[str]:
    if build.results == SUCCESS and verdict.outcome is Outcome.PASSED:
        return []
    return [f"the build should be green, but it is '{build.result_name}' ({verdict.outcome}): {verdict.sentence}"]


def _not_red(build: Build, verdict: Verdict, fault: Fault) -> list[str]:
    wrong = []
    if build.result_name != "failure" or verdict.outcome is not Outcome.FAILED:
        wrong.append(f"the build should have failed, but it is '{build.result_name}' ({verdict.outcome})")
    if fault.lint and (verdict.cell != LINT or not verdict.sentence.startswith(fault.lint)):
        wrong.append(f"the first tier should have named {fault.lint}, but {verdict.cell} says: {verdict.sentence}")
    elif not fault.lint and verdict.stage is not fault.stage:
        wrong.append(
            f"it should have failed at {fault.stage}, not at {verdict.stage or 'no stage'}: {verdict.sentence}"
        )
    return wrong


def _mail_silent_on(mail: Path, fault: Fault) -> list[str]:
    text = " ".join(body_of(read_mail(mail)).splitlines()[:FIRST_LINES])
    if fault.lint:
        missing = [] if fault.lint in text else [fault.lint]
    else:
        missing = fault.missing_words(text) + ([fault.stage] if fault.stage and fault.stage not in text else [])
    return [f"the first {FIRST_LINES} lines of {mail} do not say '{word}'" for word in missing]
