"""The catalogue of what OSCAR's installer says when something goes wrong; the texts are in `signatures.toml`."""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass
from enum import StrEnum
from functools import cache, lru_cache
from importlib.resources import files
from typing import Any

from oscar_steps.oscar.pattern import compiled, longest_piece
from oscar_steps.oscar.stages import InstallStage
from oscar_steps.oscar.terminal import die_line

_LOOP_REPEATS = 2000


class Group(StrEnum):
    """What a failure has to do with; for the order in reports."""

    ENVIRONMENT = "environment"
    PACKAGES = "packages"
    DATABASE = "database"
    SOURCE = "source"
    ANSWERS = "answers"
    SERVICES = "services"
    DEPLOYMENT = "deployment"
    CLUSTER = "cluster"

    @property
    def blame(self) -> str:
        """Whose fault it mostly is, in the words of a verdict's category."""
        if self is Group.ENVIRONMENT:
            return "farm"
        return "answers" if self is Group.ANSWERS else "oscar"


class Weight(StrEnum):
    """What follows for the run: failed now; failed at its end at the latest; or nothing, it only explains."""

    CERTAIN = "certain"
    SPOILS = "spoils"
    CAUSE = "cause"


@dataclass(frozen=True, slots=True)
class Signature:
    """One entry of the catalogue: see the head of `signatures.toml`."""

    id: str
    pattern: re.Pattern[str]
    fixed: str
    stages: frozenset[InstallStage]
    scoped: bool
    group: Group
    blame: str
    effect: str
    weight: Weight
    detail: int
    sentence: str
    hint: str

    def explain(self, line: str) -> tuple[str, str]:
        """Sentence and hint for a line that it matches."""
        died = die_line(line)
        found = (self.pattern.search(died.text) if died else None) or self.pattern.search(line)
        words = [group.lstrip(" :").rstrip(" .:)") for group in found.groups()] if found else []
        return " ".join(self.sentence.format(*words).split()).rstrip(" :"), self.hint.format(*words)


@dataclass(frozen=True, slots=True)
class Loop:
    """An endless loop that OSCAR is known to fall into."""

    text: str
    stages: frozenset[InstallStage]
    blame: str
    sentence: str
    hint: str
    repeats: int


def match(line: str, stage: InstallStage | None = None) -> Signature | None:
    """The signature of a cleaned line, or None. With a stage, that stage's own signatures come first."""
    return _match(line, stage)


def match_loop(lines: tuple[str, ...], stage: InstallStage) -> Loop | None:
    """The endless loop that the last lines of a log show, or None."""
    for loop in _catalogue()[1]:
        if (not loop.stages or stage in loop.stages) and any(loop.text in line for line in lines):
            return loop
    return None


def signatures() -> tuple[Signature, ...]:
    """The whole catalogue."""
    return _catalogue()[0]


@lru_cache(maxsize=512)  # A flood repeats the same few lines a million times.
def _match(line: str, stage: InstallStage | None) -> Signature | None:
    # All their longest pieces at once: nearly every line has none of them.
    if not _any_piece().search(line):
        return None
    elsewhere = None
    for signature in _catalogue()[0]:
        # The plain search first: it is ten times cheaper than the pattern.
        if signature.fixed not in line or not signature.pattern.search(line):
            continue
        if stage is None or not signature.stages or stage in signature.stages:
            return signature
        if not signature.scoped and elsewhere is None:
            elsewhere = signature
    return elsewhere


@cache
def _any_piece() -> re.Pattern[str]:
    return re.compile("|".join(re.escape(piece) for piece in sorted({signature.fixed for signature in signatures()})))


@cache
def _catalogue() -> tuple[tuple[Signature, ...], tuple[Loop, ...]]:
    text = files("oscar_steps.oscar").joinpath("signatures.toml").read_text(encoding="utf-8")
    value = tomllib.loads(text)
    return tuple(_signature(entry) for entry in value["signature"]), tuple(_loop(entry) for entry in value["loop"])


def _signature(entry: dict[str, Any]) -> Signature:
    group = Group(entry["category"])
    return Signature(
        id=entry["id"],
        pattern=compiled(entry["text"]),
        fixed=longest_piece(entry["text"]),
        stages=frozenset(InstallStage(name) for name in entry.get("stages", ())),
        scoped=entry.get("scoped", False),
        group=group,
        blame=entry.get("blame", group.blame),
        effect=entry["effect"],
        weight=Weight(entry["weight"]),
        detail=entry["detail"],
        sentence=entry.get("sentence", ""),
        hint=entry.get("hint", ""),
    )


def _loop(entry: dict[str, Any]) -> Loop:
    return Loop(
        text=entry["text"],
        stages=frozenset(InstallStage(name) for name in entry.get("stages", ())),
        blame=entry["blame"],
        sentence=entry["sentence"],
        hint=entry.get("hint", ""),
        repeats=entry.get("repeats", _LOOP_REPEATS),
    )
