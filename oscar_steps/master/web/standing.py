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
from oscar_steps.sources.git import person
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
    """A problem, and since when. `revision` 0: an older one than `seen`, at which the farm first saw it.

    Of git the numbers are places on the branch; `commit` and `seen_commit` are the ids.
    """

    file: str
    line: int
    what: str
    right: str
    gates: bool = False
    of_answers: bool = False
    of_change: bool = False
    """No judgement lists it as standing: it stands until one lists it as mended, or its user is gone."""
    revision: int = 0
    commit: str = ""
    author: str = ""
    date: str = ""
    seen: int
    seen_commit: str = ""


class Branch(_Model):
    """A branch as it was when it was checked last. `first`: the first revision that was checked."""

    revision: int
    first: int
    commit: str = ""
    first_commit: str = ""
    """Of git: their ids."""
    change: int = 0
    """Of git: the newest change of the commits that were checked. A forced push begins the branch anew."""
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


def take(standing: Standing, branch: str, judgement: Judgement, now: float, change: int = 0) -> tuple[str, ...]:
    """Add a judgement of the first tier. Gives the authors of gating problems that are mended now.

    A judgement of an older revision than the last one changes nothing; the same revision may be judged again. `change`:
    the newest of the changes that the build was for (0: a person asked for it).
    """
    last = standing.branches.get(branch)
    if last is not None and _is_older(judgement, last, change):
        return ()
    known = last if last is not None and _goes_on(judgement, last) else None
    old = {**_of_others(standing), **(last.problems if last else {})}
    if known is not None:
        old = {**known.hidden, **known.problems}
    problems = {
        problem.key: _went_on(problem, old.get(problem.was) or old.get(problem.key), judgement)
        for problem in judgement.standing
    }
    problems |= {
        problem.key: _stands(
            problem,
            seen=judgement.revision,
            seen_commit=judgement.commit,
            revision=problem.revision,
            commit=problem.commit,
            author=problem.author,
            date=problem.date,
        )
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
    if known is not None and (known.revision, known.commit) == (judgement.revision, judgement.commit):
        gated |= {*known.gated_before}
    standing.branches[branch] = Branch(
        revision=judgement.revision,
        first=known.first if known else judgement.revision,
        commit=judgement.commit,
        first_commit=known.first_commit if known else judgement.commit,
        change=max(change, last.change if last else 0),
        looked_at=now,
        problems=problems,
        hidden=dict(hidden[-MAX_HIDDEN:]),
        gated_before=tuple(sorted(gated)),
    )
    for name in sorted(standing.branches, key=lambda name: standing.branches[name].looked_at)[:-MAX_BRANCHES]:
        del standing.branches[name]
    return tuple(sorted(gated))


def _is_older(judgement: Judgement, last: Branch, change: int) -> bool:
    """Whether a later revision was checked already. Of git what goes on is later, or what was pushed later."""
    if judgement.commit and last.commit:
        return not _goes_on(judgement, last) and change <= last.change
    return judgement.revision < last.revision


def _goes_on(judgement: Judgement, last: Branch) -> bool:
    """Whether the branch still has what was checked last: nobody has pushed with force since."""
    return not (judgement.commit and last.commit) or last.commit in (judgement.commit, *judgement.chain)


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
        return _stands(problem, seen=judgement.revision, seen_commit=judgement.commit)
    return _stands(problem, **before.model_dump(include={*_SINCE}))


_SINCE = ("seen", "seen_commit", "revision", "commit", "author", "date")


def _stands(problem: ReportedProblem, **since: Any) -> Stands:
    words = problem.model_dump(include={"file", "line", "what", "right", "gates", "of_answers", "of_change"})
    return Stands(**words, **since)


def note_judgement(folder: Path, branch: str, judgement: Judgement, change: int = 0) -> tuple[tuple[str, ...], str]:
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
        gated = take(standing, branch, judgement, time.time(), change)
        write_atomically(folder / STANDING_FILE, standing.model_dump_json() + "\n")
        return gated, trouble


def _put_aside(path: Path, error: Exception) -> str:
    aside = path.with_suffix(".spoiled")
    path.replace(aside)
    why = error.errors()[0]["msg"] if isinstance(error, ValidationError) else str(error)
    log.msg(f"{path} cannot be used: {why}")
    return f"{path} could not be read ({why[:200]}). It was renamed to {aside}; a new list of standing problems begins."


def page_data(folder: Path) -> dict[str, Any]:
    """What the page shows; `trouble` is a sentence where the file cannot be read. Authors have no addresses."""
    try:
        standing = load(folder)
        for branch in standing.branches.values():
            branch.gated_before = tuple(map(person, branch.gated_before))
            for entry in (*branch.problems.values(), *branch.hidden.values()):
                entry.author = person(entry.author)
        return {"trouble": "", **standing.model_dump()}
    except (OSError, ValueError) as error:
        log.msg(f"{folder / STANDING_FILE} cannot be used: {error}")
        return {"trouble": "the list cannot be read; the next commit starts a new one", **Standing().model_dump()}
