"""What the farm remembers of a finished build, and how it is made of the build and its verdict."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import Any

from buildbot.process.results import CANCELLED, FAILURE, SUCCESS, WARNINGS
from pydantic import ValidationError

from oscar_steps.job import Job
from oscar_steps.master.durability.once import REPEAT_OF
from oscar_steps.master.schedules.names import CHANGES, FORCE
from oscar_steps.oscar.known import KnownIssue
from oscar_steps.signature import signature_of
from oscar_steps.sources.source import Source, short_name
from oscar_steps.textio import one_line
from oscar_steps.verdict import Outcome, Verdict

VERDICT = "verdict"
"""Build property: the run's verdict, as JSON."""
TESTED = "tested"
"""Build property: the `Source` that is tested, as JSON, without the text of a patch."""
FARM = "farm"
"""Build property: a digest of the farm's own program and of all that it gave to the run, except source and image."""
RECIPE = "recipe"
"""Build property: a digest of the recipe of the run's base image."""
NOT_COUNTED = "not_counted"
"""Build property: an experiment (a step of a bisect). It says nothing about how a cell usually does."""
_LONGEST = 500
"""Characters. PostgreSQL indexes no row of more than 2.7 kB."""
SAME_AS = "same_as"
"""Build property: the id of the build that has tested the same before, whose result this one has. It is no run."""
_OUTCOMES = {SUCCESS: Outcome.PASSED, WARNINGS: Outcome.WARNING, FAILURE: Outcome.FAILED, CANCELLED: Outcome.CANCELLED}


@dataclass(frozen=True, slots=True)
class Result:
    """How one build of a cell ended. `counts`: it makes rates; no forced, patched or bisecting one does, and none that
    only has the result of an earlier one."""

    build: int
    number: int
    request: int
    cell: str
    branch: str
    identity: str
    """Of the source: equal for the same thing; '' where nobody can say so."""
    source: str
    """The source in short, for people: 'r5916'."""
    url: str
    revision: str
    outcome: str
    stage: str = ""
    oscar_stage: str = ""
    category: str = ""
    signature: str = ""
    sentence: str = ""
    image: str = ""
    """The key of the base image."""
    packages: str = ""
    """The digest of the image's list of packages."""
    farm: str = ""
    worker: str = ""
    scheduler: str = ""
    ended: float = 0.0
    changes: tuple[int, ...] = ()
    known: tuple[str, ...] = ()
    """The references of the known issues that it showed."""
    repeat_of: int = 0
    """The request whose red build it repeats."""
    counts: bool = True
    flaky: bool = False
    """It was red, and the same cell has also passed with the same source, image and farm."""


def result_of(build: Mapping[str, Any], cell: str, said: Mapping[str, Any], issues: Iterable[KnownIssue]) -> Result:
    """Of a finished build, as Buildbot's data has it; `said` are its properties."""
    verdict = _verdict(build, said)
    source = _source(verdict, said)
    lines = [verdict.sentence, *(line for piece in verdict.evidence for line in piece.lines)] if verdict else []
    outcome = verdict.outcome if verdict else _OUTCOMES.get(build["results"], Outcome.INFRASTRUCTURE)
    patched = source is not None and source.patch is not None
    changes = said.get(CHANGES)
    image = verdict.image if verdict else None
    bad = outcome in (Outcome.FAILED, Outcome.INFRASTRUCTURE)
    return Result(
        build=build["buildid"],
        number=build["number"],
        request=build["buildrequestid"],
        cell=cell,
        branch=storable(said.get("branch") or (source.branch if source else "")),
        identity=source.identity if source and source.is_exact else "",
        source=storable(source.short if source else short_name(str(said.get("revision") or ""))),
        url=storable(source.url if source else ""),
        revision=storable(source.revision if source else said.get("revision")),
        outcome=outcome.value,
        stage=verdict.stage.value if verdict and verdict.stage else "",
        oscar_stage=storable(verdict.oscar_stage if verdict else ""),
        category=verdict.category.value if verdict else "",
        signature=signature_of(verdict) if verdict else "",
        sentence=one_line(verdict.sentence if verdict else "the build ended without a verdict", 300),
        image=storable(image.key if image else ""),
        packages=storable(image.manifest if image else ""),
        farm=storable(said.get(FARM)),
        worker=storable(said.get("workername")),
        scheduler=storable(said.get("scheduler")),
        ended=build["complete_at"].timestamp(),
        changes=tuple(n for n in changes if isinstance(n, int)) if isinstance(changes, list) else (),
        known=tuple(dict.fromkeys(issue.reference for issue in issues if bad and issue.shows_in(cell, lines))),
        repeat_of=_number(said.get(REPEAT_OF)),
        counts=not (patched or said.get("scheduler") == FORCE or any(map(said.get, ("owner", NOT_COUNTED, SAME_AS)))),
    )


def verdict_in(value: Any) -> Verdict | None:
    """The verdict that the property VERDICT of a build holds; None: it has none, or one that cannot be read."""
    try:
        return Verdict.model_validate(value)
    except ValidationError:
        return None


def source_in(value: Any) -> Source | None:
    """The source that the property TESTED of a build holds; None: it has none, or one that cannot be read."""
    try:
        return Source.model_validate(value)
    except ValidationError:
        return None


def storable(value: Any) -> str:
    """As text that every database takes, in every index."""
    return one_line(str(value or ""), _LONGEST)


def _number(value: Any) -> int:
    """The id of something of Buildbot's; 0: it is none."""
    return value if type(value) is int and 0 < value < 2**31 else 0


def _verdict(build: Mapping[str, Any], said: Mapping[str, Any]) -> Verdict | None:
    verdict = verdict_in(said.get(VERDICT))
    # A build that a person stopped after its verdict was there.
    stopped = build["results"] == CANCELLED and verdict is not None and verdict.outcome is not Outcome.CANCELLED
    return None if stopped else verdict


def _source(verdict: Verdict | None, said: Mapping[str, Any]) -> Source | None:
    """The exact source; of a build from before the farm noted it, what its verdict says."""
    source = source_in(said.get(TESTED)) or (verdict.tested if verdict else None)
    if source is None and verdict is not None and verdict.source and verdict.revision.isdecimal():
        source = Source(url=verdict.source, revision=verdict.revision)
    return source


def farm_of(job: Job) -> str:
    """Equal for two runs that the same farm would do in the same way; source, image and known issues are left out."""
    rest = job.model_dump_json(exclude={"run_id", "source", "known_issues", "image", "image_key", "image_versions"})
    return _short_digest(f"{_program()}\n{rest}")


def recipe_of(job: Job) -> str:
    """Equal for two jobs with the same recipe of the base image. That a run has proven it makes no difference."""
    return _short_digest(job.image.model_copy(update={"unproven": False}).model_dump_json())


def _short_digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()[:16]


@cache
def _program() -> str:
    """A digest of the farm's program, as it was when the master first asked."""
    digest = hashlib.sha256()
    for name, content in _tree(files("oscar_steps"), ""):
        digest.update(f"{name}\n{len(content)}\n".encode() + content)
    return digest.hexdigest()


def _tree(folder: Traversable, prefix: str) -> Iterable[tuple[str, bytes]]:
    for entry in sorted(folder.iterdir(), key=lambda entry: entry.name):
        if entry.is_dir() and entry.name != "__pycache__":
            yield from _tree(entry, f"{prefix}{entry.name}/")
        elif entry.is_file():
            yield prefix + entry.name, entry.read_bytes()
