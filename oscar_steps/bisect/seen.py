"""What one run says of the fault that is looked for."""

from __future__ import annotations

from collections.abc import Iterable

from oscar_steps.bisect.search import Seen
from oscar_steps.signature import signature_of
from oscar_steps.verdict import Category, Outcome, Stage, StageResult, Verdict

NOT_THE_COMMITS = (Category.FARM, Category.HOST)


def is_fault(verdict: Verdict) -> bool:
    """Whether a run has a fault that can be searched for: OSCAR's, the distribution's or the answers'."""
    red = verdict.outcome in (Outcome.FAILED, Outcome.INFRASTRUCTURE)
    return red and verdict.category not in NOT_THE_COMMITS


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


def seen_of_image(verdict: Verdict, bad: Verdict | None) -> Seen:
    """The same, where each position has an image of its own: one that cannot be made is no position to test."""
    return Seen.UNTESTABLE if verdict.image_failed else seen(verdict, bad)


def _got_past(verdict: Verdict, bad: Verdict) -> bool:
    """Whether the run, which failed, has passed what the bad one failed at: a second fault behind the first."""
    if bad.oscar_stage:
        return any(each.stage == bad.oscar_stage and each.result == "passed" for each in verdict.installer)
    return any(each.stage == bad.stage and each.result is StageResult.PASSED for each in verdict.stages)


def other_faults(verdicts: Iterable[Verdict], bad: Verdict | None) -> list[Verdict]:
    """Of each fault that is not the one of the run `bad`, the first run with it: each deserves a search of its own."""
    known = signature_of(bad) if bad else ""
    found = dict[str, Verdict]()
    for verdict in verdicts:
        if is_fault(verdict) and signature_of(verdict) != known:
            found.setdefault(signature_of(verdict), verdict)
    return list(found.values())
