"""The packages of a base image, as its package manager lists them: what changed in the distribution between two runs.

A manifest has a line for each package, 'NAME VERSION ARCHITECTURE', sorted; what the package pool holds beside them
has a fourth word, 'pool'.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from oscar_steps.textio import one_line, read_regular

MANIFEST_FILE = "image-packages.txt"
"""In an image's folder, in a run's directory, and among the files that the master keeps of a run."""
MAX_BYTES = 4 << 20
"""A desktop with everything has 4,000 packages, of 60 bytes each."""
_SHOWN = 4
PACKAGE_NAME = r"^[A-Za-z0-9][A-Za-z0-9+._-]{0,200}$"
PACKAGE_VERSION = r"^[A-Za-z0-9][A-Za-z0-9.+:~^_-]{0,200}$"

Packages = Mapping[tuple[str, ...], tuple[str, ...]]
"""(name, architecture[, 'pool']) to versions: a kernel may be there in more than one."""


@dataclass(frozen=True)
class Change:
    """A package in two manifests. `old` or `new` is empty where only one of them has it."""

    name: str
    old: str
    new: str

    def __str__(self) -> str:
        if self.old and self.new:
            return f"{self.name} {self.old} -> {self.new}"
        return f"{self.name} {self.new} is new" if self.new else f"{self.name} {self.old} is gone"


@dataclass(frozen=True)
class Upgrade:
    """Packages that went from one version to another together: most come of one source."""

    names: tuple[str, ...]
    old: str
    new: str

    def __str__(self) -> str:
        more = f" and {len(self.names) - 1} more of its version" if len(self.names) > 1 else ""
        return f"{self.names[0]} {self.old} -> {self.new}{more}"


def read_manifest(path: Path) -> str | None:
    """The text of a manifest; None where there is none that could be read."""
    try:
        if path.stat().st_size > MAX_BYTES:
            return None
        return read_regular(path).decode("utf-8", "replace")
    except OSError:
        return None


def digest(text: str) -> str:
    """By which a verdict names a manifest."""
    return hashlib.sha256(text.encode()).hexdigest()


def packages(text: str) -> Packages:
    """The packages in a manifest. Lines that are no package's are left out."""
    found: dict[tuple[str, ...], set[str]] = {}
    for line in text[:MAX_BYTES].splitlines():
        words = line.split()
        if len(words) in (3, 4):
            found.setdefault((words[0], *words[2:]), set()).add(words[1])
    return {key: tuple(sorted(versions)) for key, versions in found.items()}


def changes(old: str, new: str) -> list[Change]:
    """What differs between two manifests, by name. A package that is installed is not named again for the pool, and
    one that is installed in both is neither new nor gone because the pool has it no more.
    """
    before, after = packages(old), packages(new)
    found = dict[tuple[str, str, str], Change]()
    for key in sorted(before.keys() | after.keys(), key=lambda key: (key[0], len(key), key)):
        was, now = (", ".join(side.get(key, ())) for side in (before, after))
        kept = "pool" in key[2:] and key[:2] in before and key[:2] in after and not (was and now)
        if was != now and not kept:
            found.setdefault((key[0], was, now), Change(*(one_line(word) for word in (key[0], was, now))))
    return list(found.values())


def summary(found: Sequence[Change]) -> str:
    """The changes in one sentence: '14 packages of the distribution changed: a 1 -> 2, b 3 -> 4, and 12 more'."""
    if not found:
        return "no package of the distribution changed"
    names = len({change.name for change in found})
    shown = "; ".join(str(change) for change in found[:_SHOWN])
    more = f"; and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
    return f"{names} package{'s' if names > 1 else ''} of the distribution changed: {shown}{more}"


def upgrades(old: str, new: str) -> list[Upgrade]:
    """What a search goes over, of two manifests. A package that only one of them has is no upgrade."""
    together = dict[tuple[str, str], list[str]]()
    for change in changes(old, new):
        if re.match(PACKAGE_NAME, change.name) and all(re.match(PACKAGE_VERSION, v) for v in (change.old, change.new)):
            names = together.setdefault((change.old, change.new), [])
            if change.name not in names:
                names.append(change.name)
    return [Upgrade(tuple(names), *versions) for versions, names in together.items()]


def versions_of(wanted: Iterable[Upgrade]) -> dict[str, str]:
    """Name to new version, of all packages in them."""
    return {name: each.new for each in wanted for name in each.names}
