"""Tarballs of one version, as a release comes: in several files, one after the other."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Protocol

from oscar_steps.sources.tarballs.names import BASE, COMMON, MAIN_PARTS, TarName, Version


class Held(Protocol):
    """A file whose content is known."""

    @property
    def name(self) -> str: ...
    @property
    def sha256(self) -> str: ...


def by_version(names: Iterable[TarName]) -> dict[Version, dict[str, TarName]]:
    """The files of each version by their parts, the oldest version first. Of one part in two files the first counts."""
    found = dict[Version, dict[str, TarName]]()
    for name in sorted(names, key=lambda name: (name.version, name.text)):
        found.setdefault(name.version, {}).setdefault(name.part, name)
    return dict(sorted(found.items()))


def missing(parts: Iterable[str], wanted: Sequence[str]) -> tuple[str, ...]:
    """What a set with these parts still waits for: one that holds an installer, then each pattern of `wanted`.

    The tarballs until 4.x, and today's, are one file that holds all: such a one waits for nothing.
    """
    there = [*parts]
    main = next((part for part in MAIN_PARTS if part in there), None)
    if main is None:
        return (BASE, *(pattern for pattern in wanted if pattern != BASE and not _among(pattern, there)))
    if main != BASE:
        return ()
    return tuple(pattern for pattern in wanted if not _among(pattern, there))


def fitting(parts: Mapping[str, Held], names: Sequence[str]) -> tuple[str, ...]:
    """The parts that a cell needs, if the set has them: an installer, the common packages, and of its distribution's
    repositories the first of `names` (OSCAR's own names of the cell, such as rhel-4-x86_64)."""
    main = next((part for part in MAIN_PARTS if part in parts), None)
    own = next((f"repo-{name}" for name in names if f"repo-{name}" in parts), None)
    return tuple(part for part in (main, COMMON, own) if part is not None and part in parts)


def identity(files: Iterable[Held]) -> str:
    """A digest of what a set holds: equal for the same files under the same names, and for no others."""
    lines = sorted(f"{file.sha256}  {file.name}\n" for file in files)
    return hashlib.sha256("".join(lines).encode()).hexdigest()


@dataclass(frozen=True)
class Waiting:
    """A set that is not complete."""

    version: str
    there: tuple[str, ...]
    missing: tuple[str, ...]
    since: float
    """Unix time at which its first file was seen."""

    def __str__(self) -> str:
        has = ", ".join(self.there) or "nothing that can be used"
        return f"OSCAR {self.version} waits for {', '.join(self.missing)}; there is {has}"


def _among(pattern: str, parts: Iterable[str]) -> bool:
    return any(fnmatchcase(part, pattern) for part in parts)
