"""From what a build was asked for to the exact source that it tests."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from oscar_steps.master.watch.asking import exact_revision
from oscar_steps.master.watch.externals import externals_at
from oscar_steps.master.watch.released import is_tarball, place_of, tarball_source
from oscar_steps.site import Site
from oscar_steps.sources.source import Source


@dataclass(frozen=True)
class Asked:
    """What Buildbot's source stamp and properties say of a build. `repository` '' is the site's own."""

    repository: str
    branch: str
    revision: str
    properties: Any = None
    """Gives a property of the build by its name, as `getProperty`."""
    running: set[Any] = field(default_factory=set)
    """The programs that run meanwhile, so that they can be ended."""
    folder: Path = Path()
    """The master's own folder."""
    oscar_names: tuple[str, ...] = ()
    """OSCAR's names of the cell (DISTRO-VERSION-ARCH), the best one first."""


def url_of(site: Site, asked: Asked) -> str:
    """The address of what is asked for, before its revision is known. Raises SourceError."""
    if is_tarball(asked.branch):
        return place_of(site, asked.branch).url
    return site.repository.source_url(asked.branch or site.repository.trunk)


async def exact_source(reactor: Any, site: Site, asked: Asked) -> Source:
    """Raises SourceError where there is no such thing, HostError where it cannot be found out."""
    if is_tarball(asked.branch):
        return tarball_source(site, asked.folder, asked.branch, asked.revision, asked.oscar_names)
    url = url_of(site, asked)
    revision = await exact_revision(reactor, url, asked.revision or None, asked.running)
    externals = await externals_at(reactor, url, revision, asked.folder, asked.running)
    return Source(url=url, revision=revision, branch=asked.branch or site.repository.trunk, externals=externals)
