"""The kind `bootstrap`: Debian and its like, by mmdebstrap and apt, with a pool of packages to install from later.

Where the packages come from is not said here: the build uses the repositories, the proxy and the keys of the host's own
apt.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from oscar_steps.errors import ImageBuildFailed
from oscar_steps.guest import guest_path
from oscar_steps.images import aptindex, disk, foreign, root
from oscar_steps.images.jail import output_of, run_jailed
from oscar_steps.images.kind import Base, Build, require_tools
from oscar_steps.manifest import MANIFEST_FILE
from oscar_steps.matrix.recipes import BootstrapRecipe

_FOLDER = "apt"
"""The folder of our scripts."""

_SETTINGS = ("Acquire::http::Proxy", "Acquire::https::Proxy", "Acquire::Check-Valid-Until", "Acquire::Check-Date")
"""Settings of the host's apt that the build's apt takes over: how to get out, and how old a mirror may be."""

_NO_FOLDER = "/proc/self/no-lists/"
"""No process can make it."""


@dataclass(frozen=True)
class AptSource:
    """One repository of the host's apt, as `apt-get indextargets` tells it."""

    site: str
    release: str
    codename: str
    origin: str
    signed_by: str = ""

    def line(self, release: str, components: Sequence[str]) -> str:
        """The sources.list line for `release` of this repository."""
        options = f" [signed-by={self.signed_by}]" if self.signed_by.startswith("/") else ""
        return f"deb{options} {self.site} {release} {' '.join(components)}"


def sources_for(recipe: BootstrapRecipe, known: Sequence[AptSource]) -> tuple[str, ...]:
    """The sources.list lines for the recipe's suite: the host's own for that suite with its pockets, or else the suite
    alone from the host's mirror. Raises ImageBuildFailed where the host's apt knows no mirror of the distribution."""
    suite, components = recipe.suite, recipe.components
    of_it = [source for source in known if source.origin == recipe.origin]
    if any(source.codename == suite for source in of_it):
        wanted = (suite, *(f"{suite}-{pocket}" for pocket in recipe.pockets))
        own = (source.line(source.release, components) for source in of_it if source.codename in wanted)
        return tuple(dict.fromkeys(own))
    mirrors = [source for source in of_it if not source.codename.endswith("-security")]
    if not mirrors:
        raise ImageBuildFailed(
            f"the host's apt has no {recipe.origin} mirror for the suite '{suite}'",
            hint="See `apt-get indextargets`; after a change of the host's sources run `apt-get update`.",
        )
    return (mirrors[0].line(suite, components),)


async def host_sources() -> tuple[AptSource, ...]:
    """The package repositories that the host's apt uses, and has an index of.

    What a repository says of itself is read here, and apt is made to see no lists. It would read those of all packages,
    which takes a second where it may keep no cache.
    """
    found_in = await output_of("apt-config", "shell", "lists", "Dir::State::lists/d")
    lists = Path(shlex.split(found_in.partition("=")[2])[0])
    fields = "$(SITE)|$(RELEASE)|$(SIGNED_BY)|$(METAKEY)|$(FILENAME)"
    options = ("--no-release-info", "-o", f"Dir::State::lists={_NO_FOLDER}", "--format", fields)
    printed = await output_of("apt-get", "indextargets", *options, "Created-By: Packages")
    found = dict[AptSource, None]()  # a repository has an index for each component and architecture
    for site, release, key, name, file in (line.split("|", 4) for line in printed.splitlines()):
        said = aptindex.said_of_itself(lists / Path(file).name, name)
        if said is not None:
            signed_by = "" if key.startswith("$(") else key
            source = AptSource(_mirror(site), release, said.get("Codename", ""), said.get("Origin", ""), signed_by)
            found[source] = None
    return tuple(found)


def _mirror(site: str) -> str:
    """The mirror itself where the host's sources name a file with a list of them: the first one in it."""
    found = re.fullmatch(r"mirror\+file:(?://)?(/.*)", site)
    if found is None:
        return site
    try:
        text = Path(found[1]).read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise ImageBuildFailed(f"the host's list of mirrors {found[1]} cannot be read: {error.strerror}") from None
    mirrors = [words[0] for line in text.splitlines() if (words := line.partition("#")[0].split())]
    if not mirrors:
        raise ImageBuildFailed(f"the host's list of mirrors {found[1]} is empty")
    return mirrors[0]


async def _host_settings() -> list[str]:
    printed = await output_of("apt-config", "dump", *_SETTINGS)
    return [f"--aptopt={line.rstrip(';')}" for line in printed.splitlines() if not line.endswith('"";')]


class Bootstrap:
    """Satisfies `Kind[BootstrapRecipe]`."""

    tools: Mapping[str, str] = {"mmdebstrap": "mmdebstrap", "apt-ftparchive": "apt-utils", **root.TOOLS}

    def check(self, recipe: BootstrapRecipe) -> None:
        require_tools({**self.tools, **disk.tools(recipe.boot)})
        foreign.require(recipe.architecture)

    def own_contents(self, recipe: BootstrapRecipe) -> dict[str, str]:
        return root.own_contents(recipe, guest_path(_FOLDER).iterdir())

    async def outside(self, recipe: BootstrapRecipe) -> dict[str, str]:
        lines = sources_for(recipe, await host_sources())
        return await aptindex.digests(lines, recipe.native)

    async def build(self, build: Build[BootstrapRecipe]) -> Base | None:
        apt = Apt(build)
        return await root.build_from_root(build, apt.install, apt)

    def layer(self, recipe: BootstrapRecipe) -> dict[str, Any]:
        return root.layer(recipe, guest_path(_FOLDER).iterdir())


@dataclass(frozen=True)
class Apt:
    """Satisfies `root.Layers`."""

    build: Build[BootstrapRecipe]

    async def install(self, folder: Path, overlay: Path) -> None:
        recipe = self.build.recipe
        self.build.report(f"installing {len(recipe.packages)} packages of {recipe.suite} and what they need")
        pool = recipe.pool_folder
        fill = f'mkdir -p "$1"{pool} && : > "$1"{pool}/Packages'
        if recipe.pool:
            fill = f'{_script("pool.sh")} "$1" {pool} {shlex.join(recipe.pool)}'
        options = ("--variant=minbase", f"--include={','.join(recipe.packages)}")
        await self._mmdebstrap(folder, *options, _lay(overlay, "essential"), f"--customize-hook={fill}")

    async def add(self, folder: Path, overlay: Path, names: Sequence[str]) -> None:
        # mmdebstrap's custom variant takes the folder as it is, and makes it fit for a package manager to run in. It
        # makes the devices itself, and finds the lists of packages there, which `install` has left: those of the key.
        await run_jailed(["find", f"{folder}/dev", "-mindepth", "1", "-delete"], self.build.log)
        add = f'{_script("add.sh")} "$1" {len(names)} {shlex.join([*names, *self.build.recipe.packages])}'
        # What the lists are signed with was looked at by `install`.
        custom = ("--variant=custom", "--skip=check/empty,check/signed-by,update", _lay(overlay, "customize"))
        await self._mmdebstrap(folder, *custom, f"--customize-hook={add}")

    async def change(self, folder: Path, hook: str) -> None:
        """Run a hook in a root file system that is there already, with the packages that the mirror has today."""
        await run_jailed(["find", f"{folder}/dev", "-mindepth", "1", "-delete"], self.build.log)
        custom = ("--variant=custom", "--skip=check/empty")
        await self._mmdebstrap(folder, *custom, f"--customize-hook={hook}")

    async def finish(self, folder: Path) -> None:
        text = await _manifest(folder, self.build.recipe.pool_folder)
        (self.build.directory / MANIFEST_FILE).write_text(text, encoding="utf-8")
        command = ["sh", str(guest_path("apt/finish.sh")), str(folder), self.build.recipe.pool_folder]
        await run_jailed(command, self.build.log)

    async def _mmdebstrap(self, folder: Path, *options: str) -> None:
        recipe = self.build.recipe
        lines = sources_for(recipe, await host_sources())
        command = [
            *("mmdebstrap", "--mode=root", "--format=directory", f"--architectures={recipe.native}"),
            # The lists stay in the layer; `finish` removes them.
            "--skip=cleanup/apt/lists",
            *await _host_settings(),
            # A head node that lives for minutes needs no fsync at each file, in the build or later, and no manuals.
            *("--dpkgopt=force-unsafe-io", "--dpkgopt=path-exclude=/usr/share/man/*"),
            *("--dpkgopt=path-exclude=/usr/share/locale/*", "--dpkgopt=path-exclude=/usr/share/doc/*"),
            "--dpkgopt=path-include=/usr/share/doc/*/copyright",
            *options,
            *(recipe.suite, str(folder), *lines),
        ]
        await run_jailed(command, self.build.log)
        used = aptindex.used(folder / "var/lib/apt/lists", lines, recipe.native)
        if differs := [name for name, value in self.build.outside.items() if used.get(name) != value]:
            what = f"the mirror changed while the image was being built: {', '.join(differs)}"
            raise ImageBuildFailed(what, hint="The next build takes what the mirror has then.")


def _script(name: str) -> str:
    return f"sh {shlex.quote(str(guest_path(f'{_FOLDER}/{name}')))}"


def _lay(overlay: Path, stage: str) -> str:
    """The option that lays our files over the guest's."""
    return f'--{stage}-hook=cp -a {shlex.quote(str(overlay))}/. "$1"/'


async def _manifest(folder: Path, pool: str) -> str:
    """The list of packages, as `oscar_steps.manifest` reads it."""
    line = "${Package} ${Version} ${Architecture}"
    installed = await output_of("dpkg-query", f"--admindir={folder}/var/lib/dpkg", "--show", f"--showformat={line}\\n")
    stanzas = (folder / pool.lstrip("/") / "Packages").read_text(encoding="utf-8", errors="replace").split("\n\n")
    fields = (dict(re.findall(r"^(Package|Version|Architecture): (\S+)$", stanza, re.MULTILINE)) for stanza in stanzas)
    in_pool = [f"{each['Package']} {each['Version']} {each['Architecture']} pool" for each in fields if len(each) == 3]
    return "".join(f"{each}\n" for each in sorted([*installed.splitlines(), *in_pool]))
