"""How the looks at something that is watched end: the operator gets a mail when several fail, and when all is well."""

from __future__ import annotations

import time
from typing import Any, NamedTuple

from oscar_steps.master.operator_mail import notify_operator

FAILURES_BEFORE_MAIL = 3
"""So many looks must fail in a row before the operator gets a mail: a server may be restarted."""


class Letter(NamedTuple):
    """A mail to the operator."""

    subject: str
    text: str


def unreadable(url: str, said: str, seconds: float) -> Letter:
    """About a repository that cannot be polled."""
    text = (
        f"The last {FAILURES_BEFORE_MAIL} polls of the repository {url} failed ({seconds} s apart):\n\n"
        f"  {said}\n\n"
        "No commit is tested until the repository can be read again; none is lost. You will get a mail then.\n"
    )
    return Letter("the repository cannot be read", text)


def readable_again(url: str) -> Letter:
    """About a repository that could not be polled."""
    text = f"The repository {url} can be read again. Commits made in the meantime are tested now.\n"
    return Letter("the repository can be read again", text)


class Looks:
    """Mixin of a change source: what the page of the farm's health shows of it."""

    trouble = ""
    """Why the last looks have failed, in one sentence; '' while all is well."""
    last_success: float | None = None
    """When a look ended well (Unix time)."""
    _failures = 0

    def ended_well(self: Any, mended: Letter) -> None:
        """A look has ended well; the operator learns it if the last ones had not."""
        self._failures, self.last_success = 0, time.time()
        if self.trouble:
            self.trouble = ""
            notify_operator(self.master, *mended)

    def ended_badly(self: Any, said: str, letter: Letter) -> None:
        """A look has failed; the operator learns it when several have."""
        self._failures += 1
        if self._failures < FAILURES_BEFORE_MAIL:
            return
        first, self.trouble = not self.trouble, said
        if first:
            notify_operator(self.master, *letter)
