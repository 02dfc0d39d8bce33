"""OSCAR's checks of the head node (`scripts/system-sanity`): which failed, and what each of them had said before.

A check that failed says nothing of the run: OSCAR of 2007 ends with it, later ones go on. So the checks are kept until
OSCAR has said what it makes of them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from oscar_steps.oscar.failure import Cause

# A detection module that does not know the distribution may have printed its name, and no line end.
_RESULT = re.compile(r"(?:OCA::OS_Detect::\w+-)?(?P<how>Success|Warning|Failure): (?P<what>\S.*)")
_LEFT_OUT = "not executable "
_CHECKS = 50
# Constants of a module that is written for an older Perl are bare words in a newer one, and every word is 0 there: a
# check that passed is reported as 'Failure', one that failed as something that can never be.
_MISREAD = re.compile(
    r"Crazy case -- should never see this|Argument \"[A-Z]+\" isn't numeric .* at \S*system-sanity line"
)
REFUSED = "ERROR: There are basic system configuration issues"
"""With this OSCAR ends because of its checks. Nothing else that is said while they run is OSCAR's last word."""

_TOO_NEW = "this perl is too new for this OSCAR: it takes constants' names for words, so no check's result is right"
_TOO_NEW_HINT = "It then reports a check that passed as 'Failure'. This OSCAR wants a distribution of its own time."


@dataclass(frozen=True, slots=True)
class Check:
    """A check that failed: its name, the line that says so, the cause that it had printed before (None: not one)."""

    name: str
    number: int
    cause: Cause | None


class HeadNodeChecks:
    """The results so far. What was said since the last one belongs to the next; a check that passed takes it away."""

    def __init__(self) -> None:
        self.failed: list[Check] = []
        self.heard: list[str] = []
        """What is wrong with the sources, as they said on the way; a later stage may stumble over the same."""
        self.misread: Cause | None = None
        """Why no result of them can be believed, where that has been seen."""

    def take(self, number: int, text: str, said: list[Cause]) -> bool:
        """Whether `text` is the result of a check. `said` are the causes since the last one; it is emptied then."""
        result = _RESULT.fullmatch(text)
        if result is None and _MISREAD.search(text) is None:
            return False
        if result is None:
            self.misread = self.misread or Cause(number, _TOO_NEW, _TOO_NEW_HINT, "distribution", "environment", 6)
        if result and result["how"] == "Failure" and not result["what"].startswith(_LEFT_OUT):
            cause = max(said, key=lambda cause: cause.detail, default=None)
            if len(self.failed) < _CHECKS:
                self.failed.append(Check(result["what"], number, cause if cause and cause.detail > 0 else None))
        source = next((cause.clause for cause in said if cause.group == "source"), "")
        if source and source not in self.heard and len(self.heard) < _CHECKS:
            self.heard.append(source)
        said.clear()
        return True

    def context(self) -> str:
        """What they found although OSCAR went on, to be added to a later failure's hint; '' where that is nothing."""
        names = ", ".join(check.name for check in self.failed)
        failed = (
            f"checks of the head node that failed, and OSCAR went on: {names}" if names and not self.misread else ""
        )
        heard = f"the checks had said: {', '.join(self.heard[:3])}" if self.heard else ""
        return "; ".join(filter(None, (failed, heard)))


def verdict_of(checks: HeadNodeChecks) -> Cause | None:
    """All that the checks say, as one cause; None where none failed. It begins with the first one's reason."""
    failed = checks.failed
    if checks.misread or not failed:
        return checks.misread
    reasons = [
        f"{check.cause.clause} ({check.name})" if check.cause else f"the check {check.name} failed" for check in failed
    ]
    hints = [check.cause.hint for check in failed if check.cause and check.cause.hint]
    places = ", ".join(f"scripts/system-sanity.d/{check.name}" for check in failed)
    hints.append(f"The check itself is {places}." if len(failed) == 1 else f"The checks that failed are {places}.")
    # One of them may be the farm's doing, and then the run says nothing about the commit.
    blamed = [check.cause.category for check in failed if check.cause]
    category = next((category for category in blamed if category != "oscar"), "oscar")
    first = failed[0].cause.number if failed[0].cause else failed[0].number
    return Cause(first, ", ".join(reasons), " ".join(hints), category, "environment", 6)
