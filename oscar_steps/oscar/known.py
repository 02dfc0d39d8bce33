"""Known issues: faults that somebody has in hand. A verdict that shows one says so; it stays as red as it is.

They are reviewed data (`profiles/known-issues.toml`), each with its owner's reference and a last day: after it the
issue is reported as expired, and no verdict is milder because of it.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterable
from fnmatch import fnmatchcase

from pydantic import BaseModel, ConfigDict, Field, field_validator

from oscar_steps.oscar.pattern import ANYTHING, compiled

_LEAST_TEXT = 8


class KnownIssue(BaseModel):
    """One known issue. `text` is written as in `signatures.toml`: … stands for anything, ^ for the line's beginning."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    text: str
    reference: str = Field(min_length=1)
    """The owner's ticket: its number or address."""
    expires: datetime.date
    """The last day on which it is known."""
    cells: str = "*"
    """The cells that have it, with shell wildcards."""
    note: str = ""
    """What it is, in a few words."""

    @field_validator("text")
    @classmethod
    def _says_something(cls, text: str) -> str:
        if max(map(len, text.removeprefix("^").split(ANYTHING))) < _LEAST_TEXT:
            raise ValueError(f"'{text}' fits almost every line; quote at least {_LEAST_TEXT} characters in a row")
        return text

    def shows_in(self, cell: str, lines: Iterable[str]) -> bool:
        """Whether one of `lines` of a run of `cell` shows it."""
        pattern = compiled(self.text)
        return fnmatchcase(cell, self.cells) and any(pattern.search(line) for line in lines)

    def remark(self, today: datetime.date) -> str:
        """What a verdict says of it, on the day of the run."""
        what = f"{self.reference}: {self.note}" if self.note else self.reference
        if today > self.expires:
            return f"this was a known issue ({what}), which expired on {self.expires}: it counts as a new one"
        return f"known issue ({what}), until {self.expires}"


def remarks(issues: Iterable[KnownIssue], cell: str, lines: Iterable[str], today: datetime.date) -> tuple[str, ...]:
    """The remarks of all issues that show in `lines`; those that still hold come first."""
    lines = tuple(lines)
    shown = [issue for issue in issues if issue.shows_in(cell, lines)]
    return tuple(issue.remark(today) for issue in sorted(shown, key=lambda issue: today > issue.expires))
