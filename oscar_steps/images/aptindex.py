"""What a suite of Debian's holds today: a digest of its package index, by the InRelease file of the mirror.

It is asked for through the host's own apt (its proxy, its way to the mirror), a few KB for each source. Whether the
mirror may be believed is checked by the build, which accepts no index without a good signature.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from oscar_steps.errors import OutsideUnknown
from oscar_steps.images.jail import build_environment, complaint
from oscar_steps.textio import one_line, read_regular

_HELPER = "/usr/lib/apt/apt-helper"
_SECONDS = 20.0
_MOST_KIB = 4096
"""Debian's own InRelease files have 150 KB."""


async def digests(lines: Sequence[str], architecture: str) -> dict[str, str]:
    """'package index of SUITE' to a digest, for each line of a sources.list; `architecture` is Debian's name of it.

    Raises OutsideUnknown where the mirror does not answer, or has no such suite.
    """
    with tempfile.TemporaryDirectory(prefix="oscar-farm-index-") as place:
        asked = [_index(line, Path(place) / str(number)) for number, line in enumerate(lines)]
        texts = await asyncio.gather(*asked)
    return _named(lines, texts, architecture)


def used(lists: Path, lines: Sequence[str], architecture: str) -> dict[str, str]:
    """The same of the indexes that a build has used, by apt's folder of lists."""
    texts = []
    for line in lines:
        site, suite, _components = _parts(line)
        path = lists / _list_name(f"{site.rstrip('/')}/dists/{suite}/InRelease")
        try:
            texts.append(read_regular(path).decode("utf-8", "replace"))
        except OSError:
            texts.append("")
    return _named(lines, texts, architecture)


def said_of_itself(file: Path, name: str) -> dict[str, str] | None:
    """What a repository says of itself ('Origin', 'Codename'), as apt has kept it beside the index `file`, which the
    repository calls `name`. None: apt has nothing of it yet."""
    beginning = file.name.removesuffix(f"_{_list_name(name)}")
    for last in ("InRelease", "Release"):
        with suppress(OSError):
            text = read_regular(file.with_name(f"{beginning}_{last}")).decode("utf-8", "replace")
            return dict(re.findall(r"^(Origin|Codename): *(\S.*?)\s*$", text, re.MULTILINE))
    return None


def _list_name(url: str) -> str:
    """What apt calls the file of `url` in its folder of lists: no scheme, no user, some characters escaped."""
    bare = re.sub(r"^[a-z0-9+.-]+:(//)?([^/@]*@)?", "", url)
    return re.sub(r'[\\|{}\[\]<>"^~_=!@#$%&*]', lambda found: f"%{ord(found[0]):02x}", bare).replace("/", "_")


def _named(lines: Sequence[str], texts: Sequence[str], architecture: str) -> dict[str, str]:
    found = dict[str, str]()
    for line, text in zip(lines, texts, strict=True):
        site, suite, components = _parts(line)
        name = f"package index of {suite}"
        found[name if name not in found else f"{name} at {site}"] = digest(text, components, architecture)
    return found


def digest(release: str, components: Sequence[str], architecture: str) -> str:
    """A digest of what an InRelease file says of the packages of these components and this architecture.

    Its date, its signature and other architectures are left out: a mirror that signs the same packages again has
    changed nothing. Where nothing is said of such packages, the whole file counts.
    """
    parts = "|".join(map(re.escape, components))
    wanted = re.compile(rf"\s+[0-9a-f]{{32,128}}\s+\d+\s+(?:{parts})/binary-(?:{re.escape(architecture)}|all)/Packages")
    lines = sorted({" ".join(line.split()) for line in release.splitlines() if wanted.match(line)})
    return hashlib.sha256("\n".join(lines or [release]).encode()).hexdigest()


def _parts(line: str) -> tuple[str, str, tuple[str, ...]]:
    """Site, suite and components of a line of a sources.list."""
    site, suite, *components = re.sub(r"^deb(\s+\[[^\]]*\])?\s+", "", line).split()
    return site, suite, tuple(components)


async def _index(line: str, place: Path) -> str:
    """The InRelease file of one source."""
    site, suite, _components = _parts(line)
    url = f"{site.rstrip('/')}/dists/{suite}/InRelease"
    why = await _download(url, place)
    if why:
        raise OutsideUnknown(f"the mirror {site} cannot be asked for '{suite}' ({why})")
    try:
        text = read_regular(place).decode("utf-8", "replace")
    except OSError as error:
        raise OutsideUnknown(f"the mirror {site} cannot be asked for '{suite}' ({error.strerror})") from None
    if not text.strip():  # apt calls an answer without a length that breaks off at once a success
        raise OutsideUnknown(f"the mirror {site} cannot be asked for '{suite}' (its InRelease is empty)")
    return text


async def _download(url: str, place: Path) -> str:
    """Download a file by the host's apt; gives the reason where that fails. No file is bigger than the limit."""
    options = (
        "-o",
        f"Acquire::http::Timeout={max(1, int(_SECONDS) // 2)}",
        "-o",
        "Acquire::Retries=0",
        "-o",
        "APT::Sandbox::User=root",
    )
    command = ("prlimit", f"--fsize={_MOST_KIB << 10}", _HELPER, *options, "download-file", url, str(place))
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
        env=build_environment(),
    )
    try:
        async with asyncio.timeout(_SECONDS):
            _, said = await process.communicate()
    except TimeoutError:
        return f"timed out after {_SECONDS:g} s"
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode == 0:
        return ""
    words = [line for line in said.decode("utf-8", "replace").splitlines() if not line.startswith("W:")]
    errors = [line for line in words if "Failed to fetch" in line] or [complaint(words)]
    return one_line(re.sub(rf"^E:\s+(?:Failed to fetch\s+{re.escape(url)}\s+)?", "", errors[-1]))
