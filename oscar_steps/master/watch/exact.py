"""From what a build was asked for to the exact source that it tests."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from oscar_steps.errors import SourceError
from oscar_steps.master.watch.asking import exact_revision
from oscar_steps.master.watch.copy import Copy
from oscar_steps.master.watch.externals import externals_at
from oscar_steps.master.watch.released import is_tarball, place_of, tarball_source
from oscar_steps.repositories import kind_of
from oscar_steps.site import Site
from oscar_steps.sources.source import Source
from oscar_steps.textio import one_line, some


@dataclass(frozen=True)
class Asked:
    """What Buildbot's source stamp and properties say of a build. `repository` '' is the site's own."""

    repository: str
    branch: str
    revision: str
    folder: Path
    """The master's own folder."""
    properties: Any = None
    """Gives a property of the build by its name, as `getProperty`."""
    running: set[Any] = field(default_factory=set)
    """The programs that run meanwhile, so that they can be ended."""
    oscar_names: tuple[str, ...] = ()
    """OSCAR's names of the cell (DISTRO-VERSION-ARCH), the best one first."""


def url_of(site: Site, asked: Asked) -> str:
    """The address of what is asked for, before its revision is known. Raises SourceError."""
    if is_tarball(asked.branch):
        return place_of(site, asked.branch).url
    branch = site.branch_called(asked.branch)
    if git := site.git_of(branch.name):
        return git.url
    if site.repository is None or kind_of(branch.name) == "git":
        known = some(site.branch_names)
        raise SourceError(f"farm.toml has no repository for the branch '{one_line(branch.name)}'; there are: {known}")
    return site.repository.source_url(branch.name)


async def exact_source(reactor: Any, site: Site, asked: Asked) -> Source:
    """Raises SourceError where there is no such thing, HostError where it cannot be found out."""
    if is_tarball(asked.branch):
        return tarball_source(site, asked.folder, asked.branch, asked.revision, asked.oscar_names)
    url, branch = url_of(site, asked), site.branch_called(asked.branch).name
    if git := site.git_of(branch):
        copy = Copy(git.copy_below(asked.folder), url, reactor, asked.running)
        is_named = asked.revision not in ("", "HEAD")
        revision = await (copy.resolve(asked.revision) if is_named else copy.tip(branch.removeprefix(git.prefix)))
        return Source(kind="git", url=url, revision=revision, branch=branch)
    logins = site.svn_logins(asked.folder)
    revision = await exact_revision(reactor, url, asked.revision or None, asked.running, logins)
    externals = await externals_at(reactor, url, revision, asked.folder, asked.running, logins)
    return Source(url=url, revision=revision, branch=branch, externals=externals)
