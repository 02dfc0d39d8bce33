"""A red build with several candidates, and what the builds of its search have said so far.

All of it is read from Buildbot's database each time it is wanted. So a master may end at any moment.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from buildbot.data import resultspec
from buildbot.process.results import CANCELLED, FAILURE, RETRY

from oscar_steps.bisect.search import Run, Seen
from oscar_steps.bisect.seen import is_fault, seen
from oscar_steps.master.durability.once import REPEAT_OF
from oscar_steps.master.history.record import NOT_COUNTED, VERDICT, Result, verdict_in
from oscar_steps.master.history.store import History
from oscar_steps.master.schedules.names import BISECT, CHANGES, FORCE, PATCH_OF
from oscar_steps.master.watch.copy import Copy
from oscar_steps.repositories import Git
from oscar_steps.sources.git import person
from oscar_steps.sources.source import short_name
from oscar_steps.verdict import LINT, Category, Outcome, Stability, Verdict

MAX_CANDIDATES = 300
_LOOK_BACK = 100
_MANY = 1000
_STOPPED = Verdict(
    run_id="-", cell="-", source="-", revision="-", outcome=Outcome.CANCELLED, sentence="it was cancelled"
)
_NO_VERDICT = _STOPPED.model_copy(
    update={
        "outcome": Outcome.INFRASTRUCTURE,
        "category": Category.FARM,
        "sentence": "the build ended without a verdict",
    }
)
STOPPED = "a person stopped it"
_SAYS_SOMETHING = (Outcome.PASSED.value, Outcome.FAILED.value)


@dataclass(frozen=True)
class Candidate:
    """A commit that may have done it."""

    revision: str
    author: str
    message: str = ""

    def __str__(self) -> str:
        return f"{short_name(self.revision)} ({person(self.author)})"


@dataclass(frozen=True)
class Asked:
    """A person's wish: to search for what broke a build. `good`: the revision to begin at ('': the last good one).

    `after`: buildsets up to this one are of earlier searches for the same build.
    """

    who: str
    good: str = ""
    after: int = 0


@dataclass(frozen=True)
class Case:
    """A red build, the last result of its cell before it, which was good, and the commits between."""

    build: int
    number: int
    cell: str
    builder: int
    verdict: Verdict
    good: Result
    candidates: tuple[Candidate, ...]
    stamp: Mapping[str, Any]
    """What the builds of the search are made for, without the revision."""
    wishes: Mapping[str, Any]
    """What the red build was asked for beside it: nodes, boot."""
    asked: Asked | None = None
    """Who asked for the search; None: the farm began it by itself."""

    @property
    def revisions(self) -> tuple[str, ...]:
        """The positions of the search."""
        return (self.good.revision, *(each.revision for each in self.candidates))

    @property
    def names(self) -> tuple[str, ...]:
        return (short_name(self.good.revision), *map(str, self.candidates))


@dataclass(frozen=True)
class Step:
    """A build of a search. `verdict` None: it has not ended."""

    position: int
    verdict: Verdict | None = None
    build: int = 0
    of_image: bool = False
    """The position is one of the search over images."""


async def case_of(master: Any, build_id: int, git: Sequence[Git] = (), asked: Asked | None = None) -> Case | None:
    """The case that this build is; None: nothing is to be searched for. `git`: the git repositories of the site.

    What a person has asked for needs less.
    """
    build = await master.data.get(("builds", build_id))
    if not build or not build["complete"]:
        return None
    said = values_of(await master.data.get(("builds", build_id, "properties")))
    verdict = verdict_in(said.get(VERDICT))
    if verdict is None:
        return None
    by_itself = build["results"] == FAILURE and _is_a_commits(verdict) and _counts(said)
    if not (is_fault(verdict) if asked else by_itself):
        return None
    branch = str(said.get("branch") or "")
    good = await (
        _good_as_asked(master, verdict, build_id, branch, asked)
        if asked
        else _good_before(master, verdict, build_id, branch)
    )
    if good is None:
        return None
    stamp = await _stamp(master, build["buildrequestid"])
    place = next((each for each in git if str(stamp["branch"]).startswith(each.prefix)), None)
    if place is not None:
        candidates = await _on_branch(master, place, good.revision, verdict.revision)
    else:
        candidates = await _between(master, stamp, good, verdict, said)
    if not (0 if asked else 1) < len(candidates) <= MAX_CANDIDATES:
        return None
    return Case(
        build_id,
        build["number"],
        verdict.cell,
        build["builderid"],
        verdict,
        good,
        candidates,
        {name: stamp[name] for name in ("codebase", "repository", "branch", "project")},
        {name: said[name] for name in ("nodes", "boot") if said.get(name)},
        asked,
    )


def values_of(properties: Mapping[str, Any]) -> dict[str, Any]:
    """Buildbot's properties without where they are from."""
    return {name: value for name, (value, _source) in properties.items()}


def _is_a_commits(verdict: Verdict) -> bool:
    """Whether commits are to be blamed for it: not the farm, not the distribution, and not an unstable cell's."""
    stable = verdict.stability is Stability.STABLE
    return verdict.cell != LINT and stable and (verdict.outcome, verdict.category) == (Outcome.FAILED, Category.OSCAR)


def _counts(said: Mapping[str, Any]) -> bool:
    """Whether the farm made the build by itself, for the first time."""
    by_hand = said.get("owner") or said.get(PATCH_OF) or said.get("scheduler") == FORCE
    return not (by_hand or said.get(BISECT) or said.get(NOT_COUNTED) or said.get(REPEAT_OF))


async def _good_before(master: Any, verdict: Verdict, build_id: int, branch: str) -> Result | None:
    """The last result of the cell before this one; None: it was red, too, or the same source was good."""
    identity = verdict.tested.identity if verdict.tested else ""
    for result in await History(master).results_of(verdict.cell, branch, _LOOK_BACK, before=build_id):
        if result.outcome in _SAYS_SOMETHING:
            good = result.outcome == Outcome.PASSED.value and result.identity != identity
            return result if good else None
    return None


async def _good_as_asked(master: Any, verdict: Verdict, build_id: int, branch: str, asked: Asked) -> Result | None:
    """The revision that the person has named, or the last one that passed before this build."""
    results = await History(master).results_of(verdict.cell, branch, _MANY, before=build_id)
    passed = [each for each in results if each.outcome == Outcome.PASSED.value]
    if asked.good:
        passed = [each for each in passed if each.revision == asked.good] or [_as_said(verdict, branch, asked.good)]
    return next(iter(passed), None)


def _as_said(verdict: Verdict, branch: str, revision: str) -> Result:
    """A revision that a person calls good; the farm knows no result of it."""
    return Result(
        build=0, number=0, request=0, cell=verdict.cell, branch=branch, identity="", source=short_name(revision),
        url=verdict.source, revision=revision, outcome=Outcome.PASSED.value,
    )  # fmt: skip


async def _stamp(master: Any, request: int) -> dict[str, Any]:
    found = await master.data.get(("buildrequests", request))
    buildset = await master.data.get(("buildsets", found["buildsetid"]))
    return dict(buildset["sourcestamps"][0])


async def _between(
    master: Any, stamp: Mapping[str, Any], good: Result, verdict: Verdict, said: Mapping[str, Any]
) -> tuple[Candidate, ...]:
    """The commits on the branch after the good revision, up to the one that was tested, the oldest first."""
    same = [resultspec.Filter(name, "eq", [stamp[name]]) for name in ("repository", "branch")]
    rows = list(await master.data.get(("changes",), filters=same, order=["-changeid"], limit=2 * MAX_CANDIDATES))
    rows.sort(key=lambda row: row["changeid"])
    first, last = good.revision, verdict.revision
    if first.isdecimal() and last.isdecimal() and len(first) < 12:
        rows = [row for row in rows if str(row["revision"]).isdecimal() and _within(first, row["revision"], last)]
        rows.sort(key=lambda row: int(row["revision"]))
    else:
        names = [str(row["revision"]) for row in rows]
        if first not in names or last not in names:
            rows = [row for row in rows if row["changeid"] in (said.get(CHANGES) or ())]
        else:
            rows = rows[names.index(first) + 1 : names.index(last) + 1]
    found = [Candidate(str(row["revision"]), str(row["author"]), str(row["comments"])) for row in rows]
    return tuple(found)


async def _on_branch(master: Any, place: Git, first: str, last: str) -> tuple[Candidate, ...]:
    """The same, of git. A good commit that is not on the branch any more, as after a forced push, says nothing of it;
    nor does a red one that is gone. Raises HostError.
    """
    copy = Copy(place.copy_below(Path(master.basedir)), place.url, master.reactor)
    if not await copy.has(last):
        return ()
    names = await copy.between(last, [first])
    if len(names) > MAX_CANDIDATES:
        return ()
    commits = await copy.told(names)
    if not commits or commits[0].parents[:1] != (first,):
        return ()
    return tuple(Candidate(commit.revision, commit.author, commit.message) for commit in commits)


def _within(first: str, revision: Any, last: str) -> bool:
    return int(first) < int(revision) <= int(last)


async def steps_of(master: Any, build_id: int, after: int = 0) -> list[Step]:
    """The builds that were asked for in the search for this red build, the oldest first; only later than `after`."""
    rows = await master.db.pool.do(_asked_for, master.db.model)
    found = list[Step]()
    for buildset, (case, position, *image) in rows:
        if case == build_id and buildset > after:
            requests = await master.data.get(("buildrequests",), filters=[_of("buildsetid", buildset)])
            found += [Step(position, *await _result(master, request), bool(image)) for request in requests]
    return found


async def last_buildset(master: Any) -> int:
    """The newest buildset of any search; 0: there is none."""
    return max((buildset for buildset, _ in await master.db.pool.do(_asked_for, master.db.model)), default=0)


def _of(name: str, value: Any) -> Any:
    return resultspec.Filter(name, "eq", [value])


async def _result(master: Any, request: Mapping[str, Any]) -> tuple[Verdict | None, int]:
    """How the request's last build ended, and its id. The build may have its result before the request has it."""
    builds = await master.data.get(("buildrequests", request["buildrequestid"], "builds"))
    for build in sorted(builds, key=lambda each: -each["buildid"]):
        if build["complete"] and build["results"] != RETRY:
            said = values_of(await master.data.get(("builds", build["buildid"], "properties")))
            verdict = _STOPPED if build["results"] == CANCELLED else verdict_in(said.get(VERDICT)) or _NO_VERDICT
            return verdict, build["buildid"]
    return (_STOPPED if request["complete"] else None), 0


def runs_of(case: Case, steps: list[Step]) -> list[Run]:
    """What the builds that ended say of the case's fault."""
    over = [step for step in steps if not step.of_image]
    return [Run(step.position, seen(step.verdict, case.verdict)) for step in over if step.verdict is not None]


def is_bad(case: Case, verdict: Verdict) -> bool:
    """Whether a run shows the case's fault."""
    return seen(verdict, case.verdict) is Seen.BAD


def verdict_beside(
    case: Case, steps: list[Step], position: int, wanted: Seen, *, of_image: bool = False
) -> Verdict | None:
    """The last run at this position that said so."""
    at = [step for step in steps if (step.position, step.of_image) == (position, of_image)]
    ended = [step.verdict for step in at if step.verdict is not None]
    return next((each for each in reversed(ended) if seen(each, case.verdict) is wanted), None)


def _asked_for(connection: Any, model: Any) -> list[tuple[int, tuple[Any, ...]]]:
    """Of each buildset of a search: its id, and the value of BISECT."""
    table = model.buildset_properties.c
    query = (
        sa.select(table.buildsetid, table.property_value)
        .where(table.property_name == BISECT)
        .order_by(table.buildsetid)
    )
    rows = connection.execute(query).fetchall()
    return [(int(number), tuple(json.loads(value)[0])) for number, value in rows]


async def open_cases(master: Any) -> list[int]:
    """Red builds for which any build was asked for."""
    return sorted({case for _, (case, *_) in await master.db.pool.do(_asked_for, master.db.model)})
