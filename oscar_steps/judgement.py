"""What the first tier says of a commit, as a worker sends it to the master: `lint.json` in the run directory."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from oscar_steps.textio import write_atomically

LINT_FILE = "lint.json"
MAX_LISTED = 2000
"""So many problems of a kind are listed. A tree with more is none that anybody reads a list of."""
MAX_WORDS = 500
MAX_BYTES = 16 * 2**20
"""The master reads no more of a judgement."""


MAX_CHAIN = 1000
COMMIT = r"^([0-9a-f]{40})?$"

_LISTS = ("new", "mended", "standing", "dropped")


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ReportedProblem(_Frozen):
    """A problem of a tree. `key` names it among the problems of its tree, `was` in the tree before."""

    key: str = Field(max_length=3 * MAX_WORDS)
    was: str = Field(default="", max_length=3 * MAX_WORDS)
    file: str = Field(max_length=MAX_WORDS)
    line: int = Field(ge=0)
    what: str = Field(max_length=MAX_WORDS)
    right: str = Field(max_length=MAX_WORDS)
    gates: bool = False
    of_answers: bool = False
    of_change: bool = False
    """Only the comparison of two trees shows it: no later judgement lists it as standing."""
    revision: int = 0
    """The commit that brought a new problem, its author and date; no author: one of several up to this revision."""
    commit: str = Field(default="", pattern=COMMIT)
    """Of git: its id; `revision` is its place on the branch."""
    author: str = Field(default="", max_length=MAX_WORDS)
    date: str = Field(default="", max_length=MAX_WORDS)


class Judgement(_Frozen):
    """A commit (or several in a row) against the revision before it; `base` 0: there is none."""

    url: str
    revision: int = Field(ge=0)
    base: int = Field(default=0, ge=0)
    commit: str = Field(default="", pattern=COMMIT)
    """Of git: its id. The numbers are places on the branch, which a forced push gives to other commits."""
    chain: tuple[Annotated[str, Field(pattern=COMMIT)], ...] = Field(default=(), max_length=MAX_CHAIN)
    """Of git: the branch's last commits, the newest first."""
    new: tuple[ReportedProblem, ...] = Field(default=(), max_length=MAX_LISTED)
    mended: tuple[ReportedProblem, ...] = Field(default=(), max_length=MAX_LISTED)
    standing: tuple[ReportedProblem, ...] = Field(default=(), max_length=MAX_LISTED)
    dropped: tuple[str, ...] = Field(default=(), max_length=MAX_LISTED)
    """Files that are gone, and 'FILE: uses X' (calls, starts, names) of what the files use no more."""

    def save(self, run_directory: Path) -> None:
        """Write `lint.json` in one step. Lists that the master would not read to their ends are shortened."""
        said, listed = self, MAX_LISTED
        while len((text := said.model_dump_json() + "\n").encode()) > MAX_BYTES and listed:
            listed //= 2
            said = said.model_copy(update={name: getattr(said, name)[:listed] for name in _LISTS})
        write_atomically(run_directory / LINT_FILE, text)
