"""Archives from guests: unpacked with suspicion. What a guest sends is evidence, never a path outside its folder."""

from __future__ import annotations

import io
import tarfile
import zlib
from contextlib import suppress
from pathlib import Path
from typing import IO

from oscar_steps.errors import HostError
from oscar_steps.textio import printable_name

MAX_FILE_BYTES = 32 << 20
MAX_FILES = 2000
MAX_TOTAL_BYTES = 512 << 20
MAX_NAME, MAX_DEPTH = 255, 12
"""Bytes of a name, and folders above it: together they stay below what Linux takes for a path."""


def unpack_logs(archive: bytes, into: Path) -> int:
    """Unpack the plain files of a tar (gzip'ed or not) below `into`; returns how many.

    Names are a guest's bytes: they are kept as `textio.printable_name` writes them. Links, devices, sparse files and
    names that lead outside or cannot be are left out; a file over MAX_FILE_BYTES keeps its first and last half.
    Raises HostError where it is no tar at all.
    """
    into.mkdir(parents=True, exist_ok=True)
    count, room = 0, MAX_TOTAL_BYTES
    try:
        with tarfile.open(fileobj=io.BytesIO(archive), encoding="utf-8", errors="surrogateescape") as tar:
            for member in tar:
                if count >= MAX_FILES or room <= 0:
                    break
                if not member.isfile() or member.issparse() or (target := _inside(into, member.name)) is None:
                    continue
                with suppress(ValueError, FileExistsError, NotADirectoryError, IsADirectoryError, FileNotFoundError):
                    room -= _write(tar.extractfile(member), target)
                    count += 1
    except (tarfile.TarError, EOFError, OSError, zlib.error) as error:
        # An archive that was cut off in the middle still gives what came before.
        if not count:
            raise HostError(f"the logs that came for {into.name} are no archive: {error}") from error
    return count


def _inside(into: Path, name: str) -> Path | None:
    parts = [printable_name(part) for part in Path(name).parts if part not in ("/", ".")]
    impossible = ".." in parts or not parts or "\0" in name or any(len(part.encode()) > MAX_NAME for part in parts)
    return None if impossible or len(parts) > MAX_DEPTH else into.joinpath(*parts)


def _write(source: IO[bytes] | None, target: Path) -> int:
    """Copy piece by piece: a small archive may hold a file that fits into no memory."""
    if source is None:
        return 0
    half = MAX_FILE_BYTES // 2
    target.parent.mkdir(parents=True, exist_ok=True)
    with target.open("wb") as file:
        written = file.write(source.read(half))
        tail, left_out = bytearray(), 0
        while chunk := source.read(1 << 16):
            tail += chunk
            if len(tail) > 2 * half:
                left_out += len(tail) - half
                del tail[:-half]
        if len(tail) > half:
            left_out += len(tail) - half
            del tail[:-half]
        if left_out:
            file.write(f"\n[... {left_out} bytes left out by the farm ...]\n".encode())
        return written + file.write(tail)
