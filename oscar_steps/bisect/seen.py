"""What one run says of the fault that is looked for, and by what a fault is known again in another run."""

from __future__ import annotations

import re

from oscar_steps.bisect.search import Seen
from oscar_steps.verdict import Category, Outcome, Stage, StageResult, Verdict

_NOT_THE_COMMITS = (Category.FARM, Category.HOST)
_VARIES = re.compile(r"[0-9a-f]{8,}|(?<![A-Za-z])\d+(?:\.\d+)?|/tmp/\S+")
"""What differs in a sentence from run to run: numbers, digests, scratch files."""


def signature_of(verdict: Verdict) -> str:
    """By what the same fault is known again: where the run failed, and its sentence without what varies."""
    place = f"{verdict.stage or '-'}/{verdict.oscar_stage or '-'}"
    return f"{place}: {_VARIES.sub('#', verdict.sentence)}"


def is_fault(verdict: Verdict) -> bool:
    """Whether a run has a fault that can be searched for: OSCAR's, the distribution's or the answers'."""
    red = verdict.outcome in (Outcome.FAILED, Outcome.INFRASTRUCTURE)
    return red and verdict.category not in _NOT_THE_COMMITS


def seen(verdict: Verdict, bad: Verdict | None) -> Seen:
    """What a run says of the fault of the run `bad`; None: no run has shown it yet."""
    if verdict.outcome is Outcome.PASSED:
        return Seen.GOOD
    if not is_fault(verdict):
        # The tree is not there, or has nothing that could be installed: no other run will have it.
        no_tree = verdict.stage is Stage.CHECKOUT and verdict.category is Category.FARM
        return Seen.UNTESTABLE if no_tree else Seen.LOST
    if bad is None or signature_of(verdict) == signature_of(bad):
        return Seen.BAD
    return Seen.GOOD if _got_past(verdict, bad) else Seen.OTHER


def _got_past(verdict: Verdict, bad: Verdict) -> bool:
    """Whether the run, which failed, has passed what the bad one failed at: a second fault behind the first."""
    if bad.oscar_stage:
        return any(each.stage == bad.oscar_stage and each.result == "passed" for each in verdict.installer)
    return any(each.stage == bad.stage and each.result is StageResult.PASSED for each in verdict.stages)
