"""The kind `rpm`: AlmaLinux, Rocky, Fedora, openSUSE and their like, by the host's dnf, with a pool of packages.

Where the packages come from is in the recipe alone: its mirror, which a site sets, and the keys that sign it. Nothing
of the host's own dnf is used.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from functools import partial
from http.client import HTTPException
from pathlib import Path
from typing import Any

from oscar_steps.errors import ConfigError, ImageBuildFailed, OutsideUnknown
from oscar_steps.guest import guest_path
from oscar_steps.images import disk, foreign, root
from oscar_steps.images.jail import run_jailed
from oscar_steps.images.kind import Build, require_tools
from oscar_steps.manifest import MANIFEST_FILE
from oscar_steps.matrix.recipes import RpmRecipe
from oscar_steps.textio import one_line

_FOLDER = "rpm"
"""The folder of our scripts."""
_DATABASE = "/var/lib/farm-rpm"
"""Where rpm's database is until the guest's own rpm takes it over."""
_CACHE = "/var/cache/farm-dnf"
"""Where dnf has its cache, in each root that it fills."""
_SECONDS = 60
"""So long a mirror may be silent."""
_MAX_INDEX = 1 << 20
"""A repomd.xml has some 5 kB."""

_SETTINGS = """\
[main]
gpgcheck=1
repo_gpgcheck={signed}
install_weak_deps=0
tsflags=nodocs
reposdir={folder}/none
cachedir={cache}
persistdir=/var/lib/dnf
logdir=/var/log
{platform}plugins=0
assumeyes=1
color=never
retries=3
timeout={seconds}
"""
_REPOSITORY = """
[{name}]
name={name}
baseurl={url}
gpgkey={keys}
"""


def urls(recipe: RpmRecipe) -> tuple[str, ...]:
    """The addresses of the recipe's repositories, with dnf's variables put in."""
    whole = (each if "://" in each else f"{recipe.mirror.rstrip('/')}/{each}" for each in recipe.repositories)
    return tuple(
        each.replace("$releasever", recipe.release).replace("$basearch", recipe.native).rstrip("/") for each in whole
    )


def settings(recipe: RpmRecipe, folder: Path) -> str:
    """The whole of dnf's configuration; `folder` holds the keys, and is dnf's own."""
    keys = " ".join(f"file://{folder}/keys/{name}" for name in recipe.keys)
    platform = f"module_platform_id={recipe.module_platform}\n" if recipe.module_platform else ""
    main = _SETTINGS.format(
        signed=int(recipe.signed_metadata), platform=platform, folder=folder, cache=_CACHE, seconds=_SECONDS
    )
    named = enumerate(urls(recipe))
    return main + "".join(_REPOSITORY.format(name=f"farm-{n}", url=url, keys=keys) for n, url in named)


class Rpm:
    """Satisfies `Kind[RpmRecipe]`."""

    tools: Mapping[str, str] = {"dnf": "dnf", "rpm": "rpm", "createrepo_c": "createrepo-c", **root.TOOLS}

    def check(self, recipe: RpmRecipe) -> None:
        _require_sources(recipe)
        require_tools({**self.tools, **disk.tools(recipe.boot)})
        foreign.require(recipe.architecture)

    def own_contents(self, recipe: RpmRecipe) -> dict[str, str]:
        return root.own_contents(recipe, guest_path(_FOLDER).iterdir())

    async def outside(self, recipe: RpmRecipe) -> dict[str, str]:
        _require_sources(recipe)
        indexes = [f"{url}/repodata/repomd.xml" for url in urls(recipe)]
        texts = await asyncio.gather(*(asyncio.to_thread(_read, url) for url in indexes))
        return {
            f"package index {url}": hashlib.sha256(text).hexdigest() for url, text in zip(indexes, texts, strict=True)
        }

    def layer(self, _recipe: RpmRecipe) -> dict[str, Any]:
        return {}

    async def build(self, build: Build[RpmRecipe]) -> None:
        build.report(f"installing {len(build.recipe.packages)} packages from {build.recipe.mirror} and what they need")
        await root.build_from_root(build, partial(_install, build))


def _require_sources(recipe: RpmRecipe) -> None:
    """Raises ConfigError where the site has not said yet where the packages come from."""
    file = f"profiles/images/{recipe.name}.toml"
    if not recipe.mirror and any("://" not in each for each in recipe.repositories):
        raise ConfigError(f'the image {recipe.name} has no mirror: set mirror = "https://..." in {file}')
    if missing := [name for name in recipe.keys if name not in recipe.key_texts]:
        raise ConfigError(
            f"the image {recipe.name} needs the public keys of its distribution: put them into profiles/images/keys "
            f"as {', '.join(missing)}"
        )


def _read(url: str) -> bytes:
    """An index; the host's proxy settings do not count, as with the build itself."""
    try:
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(url, timeout=_SECONDS) as answer:
            return _within_time(answer)
    except (OSError, ValueError, HTTPException) as error:
        reason = one_line(str(error.reason if isinstance(error, urllib.error.URLError) else error))
        raise OutsideUnknown(f"the package index {url} cannot be read: {reason}") from None


def _within_time(answer: Any) -> bytes:
    """What a mirror sends. Raises TimeoutError for one that sends a little now and then, without end."""
    end, text = time.monotonic() + _SECONDS, b""
    while len(text) < _MAX_INDEX and (part := answer.read1(_MAX_INDEX - len(text))):
        text += part
        if time.monotonic() > end:
            raise TimeoutError(f"timed out after {_SECONDS} s waiting for its end")
    return text


async def _install(build: Build[RpmRecipe], folder: Path, overlay: Path) -> None:
    """Make `folder`: the recipe's packages and pool, and before them the files of `overlay`."""
    recipe, home = build.recipe, build.work / "dnf"
    (home / "keys").mkdir(parents=True)
    (home / "dnf.conf").write_text(settings(recipe, home), encoding="utf-8")
    (home / ".rpmmacros").write_text(f"%_dbpath {_DATABASE}\n", encoding="ascii")
    for name in recipe.keys:
        (home / "keys" / name).write_text(recipe.key_texts[name], encoding="utf-8")
    script = {name: str(guest_path(f"{_FOLDER}/{name}.sh")) for name in ("install", "pool", "finish")}
    pool = f"{folder}{recipe.pool_folder}"
    common = (recipe.release, recipe.native)
    await run_jailed(
        ["sh", script["install"], str(home), str(folder), str(overlay), *common, *recipe.packages], build.log
    )
    await run_jailed(["sh", script["pool"], str(home), pool, *common, *recipe.pool], build.log)
    _require_unchanged(build, [folder, *([home / "nothing"] if recipe.pool else [])])
    manifest = str(build.directory / MANIFEST_FILE)
    await run_jailed(["sh", script["finish"], str(home), str(folder), recipe.pool_folder, manifest], build.log)


def _require_unchanged(build: Build[RpmRecipe], roots: Sequence[Path]) -> None:
    """Raises ImageBuildFailed where dnf had other indexes than the image's key says. It keeps them in each root."""
    differs = []
    for number, url in enumerate(urls(build.recipe)):
        name = f"package index {url}/repodata/repomd.xml"
        pattern = f"{_CACHE.lstrip('/')}/farm-{number}-*/repodata/repomd.xml"
        used = [{hashlib.sha256(file.read_bytes()).hexdigest() for file in root.glob(pattern)} for root in roots]
        if name in build.outside and any(each != {build.outside[name]} for each in used):
            differs.append(name)
    if differs:
        what = f"the mirror changed while the image was being built: {', '.join(differs)}"
        raise ImageBuildFailed(what, hint="The next build takes what the mirror has then.")
