"""Files of a release, fetched by name: from a folder of this host, by HTTP(S) or by FTP, within limits.

`curl` speaks to the servers. It follows a redirection to HTTP(S) only, five times at most, and it ends when its time is
up, whatever a server sends. These functions block: call them in a thread. `stop` ends them early.
"""

from __future__ import annotations

import hashlib
import os
import re
import select
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import IO
from urllib.parse import unquote, urlsplit

from oscar_steps.environment import tool_environment
from oscar_steps.errors import Cancelled, HostError, ToolMissing
from oscar_steps.textio import one_line, open_regular

SCHEMES = ("http", "https", "ftp", "file")
_CHUNK = 1 << 16
_TICK = 0.25
_STALLED = 60
_NEVER = Event()
_REDIRECTS = 5


@dataclass(frozen=True)
class Fetched:
    """A file that has come whole."""

    sha256: str
    size: int
    tag: str
    """What changes with the file where it lies, as its server or its folder says it (see `tag_of`); FTP: ''."""


@dataclass(frozen=True)
class Limit:
    """How much may come, and in what time."""

    most_bytes: int
    seconds: float
    stop: Event = _NEVER


def local_path(url: str) -> Path | None:
    """The path that a file: URL names, or a path that is written as such; None for an address of a server."""
    if url.startswith("/"):
        return Path(url)
    parts = urlsplit(url)
    return Path(unquote(parts.path)) if parts.scheme == "file" and parts.netloc in ("", "localhost") else None


def download(url: str, target: Path, limit: Limit) -> Fetched:
    """Fetch `url` into `target`. Raises HostError with the reason, Cancelled where `limit.stop` was set."""
    with target.open("wb") as file:
        path = local_path(url)
        fetched = _copy(path, file, limit) if path is not None else _fetch(url, file, limit)
        file.flush()
        os.fsync(file.fileno())  # before anybody notes that it has come
        return fetched


def page(url: str, limit: Limit, *words: str) -> tuple[bytes, str]:
    """What `url` answers, and its address after redirections; `words` are curl's. Raises HostError as `download`."""
    data = bytearray()
    said = _curl([url], [*words, "--write-out", "%{stderr}@@ %{url_effective}\\n"], limit, data.extend)
    found = re.search(r"^@@ (\S+)$", said, re.MULTILINE)
    return bytes(data), found[1] if found else url


def headers(urls: Sequence[str], limit: Limit) -> list[dict[str, str] | None]:
    """What servers say of files without sending them: None for one that is not there. Names are in small letters."""
    if not urls:
        return []
    data = bytearray()
    _curl(urls, ["--head", "--write-out", "\\n@@ %{http_code}\\n"], limit, data.extend, lenient=True)
    answers = re.split(r"^@@ (\d+)\r?$", data.decode("latin-1"), flags=re.MULTILINE)
    # An FTP server's last code is that of some question between.
    codes = ["2" if urls[0].startswith("ftp:") else code for code in answers[1::2]]
    parts = zip(answers[: 2 * len(codes) : 2], codes, strict=True)
    found = [_fields(text) or None if code.startswith("2") else None for text, code in parts]
    if len(found) != len(urls):
        raise HostError(f"{_shown(urls[0])}: the server answered {len(found)} of {len(urls)} questions")
    return found


def tag_of(fields: dict[str, str]) -> str:
    """What is remembered of a file's headers, to see whether it has changed."""
    return "|".join(fields.get(name, "")[:200] for name in ("content-length", "last-modified", "etag"))


def file_tag(status: os.stat_result) -> str:
    """The same of a file of this host."""
    return f"{status.st_size}|{status.st_mtime_ns}|{status.st_ino}"


def _copy(path: Path, target: IO[bytes], limit: Limit) -> Fetched:
    end, digest, size = time.monotonic() + limit.seconds, hashlib.sha256(), 0
    try:
        with os.fdopen(open_regular(path, os.O_RDONLY | os.O_NOFOLLOW), "rb") as source:
            before = file_tag(os.fstat(source.fileno()))
            while chunk := source.read(_CHUNK):
                size += len(chunk)
                _check(str(path), size, end, limit)
                digest.update(chunk)
                target.write(chunk)
            after = file_tag(os.fstat(source.fileno()))
    except OSError as error:
        raise HostError(f"{path} cannot be read: {error.strerror or error}") from None
    if before != after:
        raise HostError(f"{path} changed while it was read")
    return Fetched(digest.hexdigest(), size, after)


def _fetch(url: str, target: IO[bytes], limit: Limit) -> Fetched:
    digest, size = hashlib.sha256(), 0

    def take(chunk: bytes) -> None:
        nonlocal size
        size += len(chunk)
        digest.update(chunk)
        target.write(chunk)

    with tempfile.NamedTemporaryFile(prefix="farm-headers-") as file:
        _curl([url], ["--dump-header", file.name], limit, take)
        fields = _fields(Path(file.name).read_text(encoding="latin-1"))
    length = fields.get("content-length", "")
    if length.isdecimal() and int(length) != size:
        raise HostError(f"{_shown(url)}: {size} of {length} bytes came")
    return Fetched(digest.hexdigest(), size, tag_of(fields) if url.startswith("http") else "")


def _check(what: str, size: int, end: float, limit: Limit) -> None:
    if size > limit.most_bytes:
        raise HostError(f"{what} has more than {limit.most_bytes} bytes, which is more than the farm takes")
    if time.monotonic() > end:
        raise HostError(f"timed out after {limit.seconds:.0f} s waiting for {what}")
    if limit.stop.is_set():
        raise Cancelled(f"the farm stopped waiting for {what}")


def _curl(
    urls: Sequence[str], words: Sequence[str], limit: Limit, take: Callable[[bytes], object], *, lenient: bool = False
) -> str:
    """Run curl for `urls`, whose answers `take` gets; gives what it wrote to standard error. `lenient`: a file that is
    not there is no error. Raises HostError."""
    if shutil.which("curl") is None:
        raise ToolMissing("there is no curl on this host", hint="apt-get install curl")
    end, size = time.monotonic() + limit.seconds, 0
    secure = all(url.startswith("https:") for url in urls)
    command = [
        # It dies with the thread that waits for it here, however that ends: no download outlives a killed master.
        *("setpriv", "--pdeathsig", "KILL", "--"),
        *("curl", "-q", "--silent", "--show-error", "--fail", "--location", "--globoff", "--netrc-optional"),
        *("--proto", "=http,https,ftp", "--proto-redir", "=https" if secure else "=http,https"),
        *("--max-redirs", str(_REDIRECTS), "--connect-timeout", "30", "--max-time", str(max(1, int(limit.seconds)))),
        *("--speed-time", str(_STALLED), "--speed-limit", "1", *words, "--config", "-"),
    ]
    config = "".join(f'url = "{_quoted(url)}"\n' for url in urls)
    with tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, env=tool_environment()
        )
        try:
            assert process.stdin is not None and process.stdout is not None
            process.stdin.write(config.encode())
            process.stdin.close()
            while True:
                _check(_shown(urls[0]), size, end, limit)
                if not select.select([process.stdout], [], [], _TICK)[0]:
                    continue
                if not (chunk := os.read(process.stdout.fileno(), _CHUNK)):
                    break
                size += len(chunk)
                take(chunk)
            status = process.wait(_STALLED)
        except (OSError, subprocess.TimeoutExpired) as error:
            raise HostError(f"{_shown(urls[0])} cannot be fetched: {error}") from None
        finally:
            process.kill()
            process.wait()
            if process.stdout is not None:
                process.stdout.close()
        errors.seek(0)
        said = errors.read(1 << 16).decode("utf-8", "replace")
    missing = lenient and status in (22, 78)  # of HTTP's and of FTP's files
    if status and not missing:
        why = re.sub(r"^curl: \(\d+\) ", "", next((line for line in said.splitlines() if "curl: " in line), said))
        raise HostError(f"{_shown(urls[0])} cannot be read: {one_line(why) or f'curl ended with status {status}'}")
    return said


def _fields(text: str) -> dict[str, str]:
    """The headers of the last answer: those of redirections come before it."""
    last = re.split(r"^HTTP/[^\n]*$", text, flags=re.MULTILINE)[-1]
    lines = (line.partition(":") for line in last.splitlines())
    return {name.strip().lower(): value.strip() for name, colon, value in lines if colon}


def _quoted(url: str) -> str:
    """As curl's file of settings wants it. What no URL may hold is refused before."""
    if not url.isprintable() or " " in url or not url.startswith(tuple(f"{scheme}://" for scheme in SCHEMES[:3])):
        raise HostError(f"'{_shown(url)}' is no address that the farm fetches from")
    return url.replace("\\", "\\\\").replace('"', '\\"')


def _shown(url: str) -> str:
    return one_line(re.sub(r"//[^/@]*@", "//", url), 200)
