"""Releases that the master knows: from the branch and the revision of a build to the exact tarballs."""

from __future__ import annotations

from pathlib import Path

from oscar_steps.errors import SourceError
from oscar_steps.repositories import TARBALLS, Tarballs, kind_of
from oscar_steps.site import Site
from oscar_steps.sources.source import Source
from oscar_steps.sources.tarballs.memory import Shelf
from oscar_steps.sources.tarballs.names import TarName
from oscar_steps.sources.tarballs.sets import fitting
from oscar_steps.textio import one_line

NO_PATCH_ON_A_RELEASE = (
    "a patch is tested on a revision of the repository, not on a release; give the branch that the release was made of"
)


def is_tarball(branch: str | None) -> bool:
    """Whether a build is of a release's tarballs."""
    return kind_of(branch or "") == "tarball"


def place_of(site: Site, branch: str) -> Tarballs:
    """Raises SourceError where the site has no such place (any more)."""
    for place in site.tarballs:
        if place.branch == branch:
            return place
    known = ", ".join(place.branch for place in site.tarballs) or "none"
    raise SourceError(f"farm.toml has no place with releases for '{one_line(branch)}'; there are: {known}")


def tarball_source(site: Site, folder: Path, branch: str, revision: str, oscar_names: tuple[str, ...]) -> Source:
    """The files of a release that a cell with these names of OSCAR's needs; without names: all of them.

    `folder` is the master's. Without a revision the last release is meant. Raises SourceError, HostError.
    """
    place = place_of(site, branch)
    sets = Shelf(folder, place.name).load().sets
    with_files = [name for name, note in sets.items() if note.files]
    wanted = revision or (with_files[-1] if with_files else "")
    if wanted not in with_files:
        known = ", ".join(with_files[-5:]) or "none"
        raise SourceError(f"{place.url} has no release '{one_line(wanted)}' that the farm took; there are: {known}")
    parts = {TarName.parse(file.name).part: file for file in sets[wanted].files}
    chosen = fitting(parts, oscar_names) if oscar_names else tuple(parts)
    files = tuple(parts[part] for part in chosen)
    return Source(kind="tarball", url=place.url, revision=wanted, branch=branch, files=files)


def kept_tarball(folder: Path, branch: str, sha256: str) -> Path:
    """Where the master keeps a file of a release, if it still does."""
    return Shelf(folder, branch.removeprefix(TARBALLS)).file(sha256)
