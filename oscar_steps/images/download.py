"""A large file from elsewhere, known by its SHA-256: resumed where an earlier try ended, never used unchecked."""

from __future__ import annotations

import asyncio
import re
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from filelock import AsyncFileLock

from oscar_steps.errors import ImageBuildFailed
from oscar_steps.images.jail import output_of, run_jailed
from oscar_steps.images.kind import Report
from oscar_steps.textio import sha256_of

TOOLS = {"curl": "curl", "prlimit": "util-linux"}

_CONNECT_SECONDS = 60
_SLOW_SECONDS = 60
"""So long a server may send next to nothing."""
_SLOW = 1000
"""Bytes in a second: less is next to nothing."""
_LONGEST_SECONDS = 6 * 3600
"""Then a download ends in any case; the next try goes on where it was."""
_SPARE_MIB = 1024
"""What a download leaves free on the disk."""
_PROGRESS = 5.0
"""Seconds between two lines about how far it is."""
_CURL = ("curl", "--silent", "--show-error", "--fail", "--location", "--proto", "=http,https,file")
_NOT_RESUMED = re.compile(r"byte ranges|returned error: 416|[Cc]ouldn't resume|HTTP range|offset")
"""What curl says of a server that cannot send the rest alone."""


class _NotResumed(ImageBuildFailed):
    """The rest of a file cannot be had alone."""


@asynccontextmanager
async def downloaded(
    url: str, sha256: str, folder: Path, log: Path, report: Report, most: tuple[int, str]
) -> AsyncIterator[Path]:
    """The file at `url`, checked, for as long as the block runs. Until it is there, what has come of it stays in
    `folder` as `download-SHA256`, for the next try. `most`: MiB that it may have, and why no more.

    Raises ImageBuildFailed with a sentence that names the URL."""
    path = folder / f"download-{sha256}"
    async with AsyncFileLock(folder / f"{path.name}.lock", mode=0o600, run_in_executor=False):
        if not await _whole(path, sha256):
            await _complete(url, path, sha256, log, report, most)
        try:
            yield path
        finally:
            path.unlink(missing_ok=True)


async def _complete(url: str, path: Path, sha256: str, log: Path, report: Report, most: tuple[int, str]) -> None:
    if path.exists() and path.stat().st_size > 0:
        with suppress(_NotResumed):
            await _fetch(url, path, log, report, most)
            if await _whole(path, sha256):
                return
        # A server that cannot resume, or another file than the one whose first part is here.
        report(f"{url} could not be resumed; downloading it from the beginning")
        path.unlink(missing_ok=True)
    await _fetch(url, path, log, report, most)
    await _verify(url, path, sha256)


async def _fetch(url: str, path: Path, log: Path, report: Report, most: tuple[int, str]) -> None:
    report(f"downloading {url}")
    headers = log.with_name("headers")
    proxy = await _proxy()
    words = [*_CURL, *(["--proxy", proxy] if proxy else []), "--dump-header", str(headers)]
    words += ["--connect-timeout", str(_CONNECT_SECONDS), "--max-time", str(_LONGEST_SECONDS)]
    words += ["--speed-time", str(_SLOW_SECONDS), "--speed-limit", str(_SLOW)]
    here = path.stat().st_size if path.exists() else 0
    room = here + max(0, shutil.disk_usage(path.parent).free - (_SPARE_MIB << 20))
    limit = ["prlimit", f"--fsize={min(most[0] << 20, room)}"]
    follows = asyncio.create_task(_follow(path, headers, report))
    try:
        await run_jailed([*limit, *words, "--continue-at", "-", "--output", str(path), "--url", url], log)
    except ImageBuildFailed as failure:
        why = failure.sentence.rpartition("curl: ")[2]
        if path.exists() and path.stat().st_size >= most[0] << 20:
            path.unlink()
            raise ImageBuildFailed(f"{url} has more than {most[0]} MiB; {most[1]}") from failure
        if why.startswith("(23)") or (path.exists() and path.stat().st_size >= room):
            # The disk is full: what has come must not keep it so for everybody else.
            path.unlink(missing_ok=True)
            why = "No space left on device for it"
        kind = _NotResumed if here and _NOT_RESUMED.search(why) else ImageBuildFailed
        raise kind(f"{url} could not be downloaded: {re.sub(r'^[(][0-9]+[)] ', '', why)}") from failure
    finally:
        follows.cancel()
        headers.unlink(missing_ok=True)


async def _follow(path: Path, headers: Path, report: Report) -> None:
    """Say now and then how much has come."""
    said = ""
    while True:
        with suppress(OSError):
            line = f"{path.stat().st_size >> 20} MiB{_total(headers)} have come"
            if line != said:
                report(line)
            said = line
        await asyncio.sleep(_PROGRESS)


def _total(headers: Path) -> str:
    """' of 350 MiB', as the server says it; '' where it does not."""
    text = headers.read_text(encoding="latin-1")
    ranges = re.findall(r"(?im)^content-range:.*/(\d{1,15})\s*$", text)
    found = ranges or re.findall(r"(?im)^content-length:\s*(\d{1,15})\s*$", text)
    return f" of {int(found[-1]) >> 20} MiB" if found else ""


async def _whole(path: Path, sha256: str) -> bool:
    """Whether the file is here, and the one that is wanted: a killed run may have left it."""
    return path.exists() and await asyncio.to_thread(sha256_of, path) == sha256


async def _verify(url: str, path: Path, sha256: str) -> None:
    found = await asyncio.to_thread(sha256_of, path)
    if found != sha256:
        path.unlink(missing_ok=True)
        what = f"{url} has the SHA-256 {found}, not that of the recipe, {sha256}; it was not used"
        hint = "has the vendor published another image? Then the recipe needs that one's SHA-256"
        raise ImageBuildFailed(what, hint=hint)


async def _proxy() -> str:
    """The host's proxy, as its apt knows it; '' for none."""
    if shutil.which("apt-config") is None:
        return ""
    printed = await output_of("apt-config", "dump", "--format", "%v%n", "Acquire::http::Proxy")
    return printed.strip()
