"""Standing problems: what was wrong in each branch before its last commit, kept in a file of the master's own folder.

Each has the commit that introduced it, where the farm has seen that commit; no mail is sent about them.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from twisted.python import log

from oscar_steps.judgement import Judgement, ReportedProblem
from oscar_steps.textio import read_regular, write_atomically

STANDING_FILE = "standing.json"
GATED_BEFORE = "gated_before"
"""Build property: logins of those whose commit was kept from its cells by a problem that this build's commit mends."""
MAX_BRANCHES = 200
MAX_HIDDEN = 500
_lock = threading.Lock()


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Stands(_Model):
    """A problem, and since when. `revision` 0: an older one than `seen`, at which the farm first saw it."""

    file: str
    line: int
    what: str
    right: str
    gates: bool = False
    of_answers: bool = False
    of_change: bool = False
    """No judgement lists it as standing: it stands until one lists it as mended, or its user is gone."""
    revision: int = 0
    author: str = ""
    date: str = ""
    seen: int


class Branch(_Model):
    """A branch as it was when it was checked last. `first`: the first revision that was checked."""

    revision: int
    first: int
    looked_at: float
    problems: dict[str, Stands] = Field(default_factory=dict)
    hidden: dict[str, Stands] = Field(default_factory=dict)
    """Neither there nor mended: a compiler is silent behind an error. Each keeps its commit until it is seen again."""
    gated_before: tuple[str, ...] = ()


class Standing(_Model):
    """All branches. `begun_anew`: when a file that could not be read was given up (seconds since the epoch)."""

    branches: dict[str, Branch] = Field(default_factory=dict)
    begun_anew: float = 0.0


def load(folder: Path) -> Standing:
    """What is known. Raises OSError or ValueError where the file cannot be used."""
    try:
        return Standing.model_validate_json(read_regular(folder / STANDING_FILE))
    except FileNotFoundError:
        return Standing()


def take(standing: Standing, branch: str, judgement: Judgement, now: float) -> tuple[str, ...]:
    """Add a judgement of the first tier. Gives the authors of gating problems that are mended now.

    A judgement of an older revision than the last one changes nothing; the same revision may be judged again.
    """
    known = standing.branches.get(branch)
    if known is not None and judgement.revision < known.revision:
        return ()
    old = {**known.hidden, **known.problems} if known is not None else _of_others(standing)
    problems = {
        problem.key: _went_on(problem, old.get(problem.was) or old.get(problem.key), judgement)
        for problem in judgement.standing
    }
    problems |= {
        problem.key: _stands(problem, judgement.revision, problem.revision, problem.author, problem.date)
        for problem in judgement.new
    }
    seen = {*problems, *(problem.was for problem in judgement.standing), *(problem.key for problem in judgement.mended)}
    mended = [old.get(problem.key) for problem in judgement.mended]
    hidden = list[tuple[str, Stands]]()
    for key, entry in old.items() if known is not None else ():
        if key in seen:
            continue
        if entry.of_change and _use_of(entry) in judgement.dropped:
            mended.append(entry)
        elif entry.of_change and known is not None and key in known.problems and entry.file not in judgement.dropped:
            problems[key] = entry
        else:
            hidden.append((key, entry))
    gated = {entry.author for entry in mended if entry and entry.gates and entry.revision and entry.author}
    if known is not None and known.revision == judgement.revision:
        gated |= {*known.gated_before}
    standing.branches[branch] = Branch(
        revision=judgement.revision,
        first=known.first if known else judgement.revision,
        looked_at=now,
        problems=problems,
        hidden=dict(hidden[-MAX_HIDDEN:]),
        gated_before=tuple(sorted(gated)),
    )
    for name in sorted(standing.branches, key=lambda name: standing.branches[name].looked_at)[:-MAX_BRANCHES]:
        del standing.branches[name]
    return tuple(sorted(gated))


def _use_of(entry: Stands) -> str:
    return f"{entry.file}: {entry.what.partition(',')[0]}"


def _of_others(standing: Standing) -> Mapping[str, Stands]:
    """A new branch has the problems of the one that it was copied from."""
    found = dict[str, Stands]()
    for branch in standing.branches.values():
        for key, entry in branch.problems.items():
            if key not in found or (entry.revision and not found[key].revision):
                found[key] = entry
    return found


def _went_on(problem: ReportedProblem, before: Stands | None, judgement: Judgement) -> Stands:
    if before is None:
        return _stands(problem, judgement.revision, 0, "", "")
    return _stands(problem, before.seen, before.revision, before.author, before.date)


def _stands(problem: ReportedProblem, seen: int, revision: int, author: str, date: str) -> Stands:
    words = problem.model_dump(include={"file", "line", "what", "right", "gates", "of_answers", "of_change"})
    return Stands(**words, seen=seen, revision=revision, author=author, date=date)


def note_judgement(folder: Path, branch: str, judgement: Judgement) -> tuple[tuple[str, ...], str]:
    """Add a judgement to the file (in any thread). Gives the logins, and a message for the operator.

    A file that cannot be read is renamed, and a new one is begun. Raises OSError where it cannot be written.
    """
    with _lock:
        trouble = ""
        try:
            standing = load(folder)
        except (OSError, ValueError) as error:
            trouble = _put_aside(folder / STANDING_FILE, error)
            standing = Standing(begun_anew=time.time())
        gated = take(standing, branch, judgement, time.time())
        write_atomically(folder / STANDING_FILE, standing.model_dump_json() + "\n")
        return gated, trouble


def _put_aside(path: Path, error: Exception) -> str:
    aside = path.with_suffix(".spoiled")
    path.replace(aside)
    why = error.errors()[0]["msg"] if isinstance(error, ValidationError) else str(error)
    log.msg(f"{path} cannot be used: {why}")
    return f"{path} could not be read ({why[:200]}). It was renamed to {aside}; a new list of standing problems begins."


def page_data(folder: Path) -> dict[str, Any]:
    """What the page shows; `trouble` is a sentence where the file cannot be read."""
    try:
        return {"trouble": "", **load(folder).model_dump()}
    except (OSError, ValueError) as error:
        log.msg(f"{folder / STANDING_FILE} cannot be used: {error}")
        return {"trouble": "the list cannot be read; the next commit starts a new one", **Standing().model_dump()}
