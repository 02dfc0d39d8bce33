"""Archives from guests and workers, read with suspicion: no file of theirs gets outside its folder."""

from __future__ import annotations

import bz2
import errno
import gzip
import io
import lzma
import tarfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, cast

from oscar_steps.errors import HostError
from oscar_steps.textio import printable_name

MAX_NAME = 255
"""Bytes of a part of a name."""
_MOST, _LEAST_BYTES = 16, 1 << 20
"""So many times the bytes that may be kept are read through: a few bytes of gzip may stand for days of zeros."""
HEADER = 1 << 20
"""Bytes that one member's header may have: tarfile reads it as a whole, and its length is the sender's."""
GLOBAL_HEADERS = 100
_ENDS = 16
"""Empty reads at the end. tarfile needs a few to see that there is no more; a skip of endless length needs many."""
_GZIP, _BZIP2, _XZ = b"\x1f\x8b", b"BZh", b"\xfd7zXZ\0"
_XZ_MEMORY = 256 << 20
"""Bytes that unpacking xz may take: its header asks for up to 4 GiB."""
_PIECE = 1 << 16
BROKEN = (
    *(tarfile.TarError, EOFError, OSError, zlib.error, lzma.LZMAError),
    *(ValueError, ArithmeticError, RecursionError),
)
"""What Python's reader raises for archives that were cut off, or written with ill intent."""
_CANNOT_BE = {errno.EEXIST, errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG}
"""What the kernel says of a name that cannot be, or that is there already. A full disk is another matter."""


@dataclass(frozen=True)
class Limits:
    """How much of an archive is read."""

    files: int
    total_bytes: int
    file_bytes: int
    """Of a larger file the first and the last half of this are kept."""
    depth: int = 12
    """Parts of a name."""


@dataclass(frozen=True)
class Member:
    """A plain file of an archive. Its name is a guest's bytes, as Python reads them (surrogates for odd ones)."""

    parts: tuple[str, ...]
    content: bytes
    executable: bool = False


def plain_files(
    archive: bytes | Path, limits: Limits, *, rooted: bool = False, links: bool = False
) -> Iterator[Member]:
    """The plain files of a tar (gzip'ed or not; bzip2 and xz make too much of few bytes), as far as the limits allow.

    Devices, sparse files, hard links, and names that lead outside or cannot be are left out; an archive that was cut
    off or damaged gives what came before. `rooted`: a name that begins with '/' is taken as one below it. `links`: a
    symbolic link counts as an empty file. Raises HostError where it is no tar at all.
    """
    count, room, most = 0, limits.total_bytes, _MOST * max(limits.total_bytes, _LEAST_BYTES)
    try:
        with (
            archive.open("rb") if isinstance(archive, Path) else io.BytesIO(archive) as raw,
            Bounded(raw, most) as source,
            tarfile.open(
                fileobj=cast("IO[bytes]", source), mode="r|", encoding="utf-8", errors="surrogateescape"
            ) as tar,
        ):
            while (member := tar.next()) and len(tar.pax_headers) < GLOBAL_HEADERS:
                tar.members.clear()  # type: ignore[attr-defined]  # millions of headers fit into no memory
                source.next_stop = None
                room -= min(member.size, limits.file_bytes)
                if count >= limits.files or room < 0 or member.size < 0:
                    break
                parts = _parts(member.name, limits.depth, rooted=rooted)
                if parts and ((member.isreg() and not member.issparse()) or (links and member.issym())):
                    file = tar.extractfile(member) if member.isreg() else None
                    content = _shortened(file, limits.file_bytes) if file else b""
                    count += 1
                    yield Member(parts, content, executable=bool(member.mode & 0o100))
                if tar.fileobj:
                    tar.fileobj.seek(tar.offset)
                source.next_stop = source.position + HEADER
    except BROKEN as error:
        if not count:
            raise HostError(f"what was sent is not a tar archive: {error}") from error


class Bounded:
    """An archive, unpacked from gzip, that ends with an error at a limit and does not go on behind its own end.

    `every_kind`: unpacked from bzip2 and xz, too.
    """

    def __init__(self, raw: IO[bytes], limit: int, *, every_kind: bool = False) -> None:
        begins = raw.read(len(_XZ))
        raw.seek(0)
        self._file: IO[bytes] | gzip.GzipFile | _Unpacked = raw
        if begins.startswith(_GZIP):
            self._file = gzip.GzipFile(fileobj=raw)
        elif every_kind and begins.startswith(_BZIP2):
            self._file = _Unpacked(raw, bz2.BZ2Decompressor)
        elif every_kind and begins.startswith(_XZ):
            self._file = _Unpacked(raw, lambda: lzma.LZMADecompressor(memlimit=_XZ_MEMORY))
        self._limit, self._ends = limit, 0
        self.position = 0
        self.next_stop: int | None = HEADER

    def __enter__(self) -> Bounded:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def read(self, size: int) -> bytes:
        data = self._file.read(size)
        self.position += len(data)
        self._ends += not data
        if self._ends > _ENDS:
            raise EOFError("it ends before what it announces")
        if self.position > (self._limit if self.next_stop is None else min(self._limit, self.next_stop)):
            raise EOFError("it is longer than anything that the farm reads")
        return data


class _Unpacked:
    """bzip2 or xz, unpacked piece by piece: a few bytes may stand for very many, and are not unpacked beyond need."""

    def __init__(self, raw: IO[bytes], make: Callable[[], Any]) -> None:
        self._raw, self._make, self._now = raw, make, make()

    def read(self, size: int) -> bytes:
        while True:
            if self._now.eof:  # another stream may follow
                rest = self._now.unused_data or self._raw.read(_PIECE)
                if not rest:
                    return b""
                self._now = self._make()
                data = self._now.decompress(rest, size)
            else:
                packed = self._raw.read(_PIECE) if self._now.needs_input else b""
                if not packed and self._now.needs_input:
                    raise EOFError("it ends in the middle")
                data = self._now.decompress(packed, size)
            if data:
                return bytes(data)

    def close(self) -> None:
        """Nothing is held."""


def unpack(
    archive: bytes | Path,
    into: Path,
    limits: Limits,
    *,
    rooted: bool = False,
    named: Callable[[str], str] = printable_name,
    executable: bool = False,
) -> list[str]:
    """Unpack the plain files of a tar below `into`; gives their names there. A file that is there already stays.

    `named` gives the name of a file or folder in `into` for its name in the archive. `executable`: keep that right.
    Raises HostError as `plain_files` does, OSError where nothing can be written.
    """
    into.mkdir(parents=True, exist_ok=True)
    names = list[str]()
    for member in plain_files(archive, limits, rooted=rooted):
        parts = [named(part) for part in member.parts]
        if any(len(part.encode("utf-8", "surrogateescape")) > MAX_NAME for part in parts):
            continue
        target = into.joinpath(*parts)
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            with target.open("xb") as file:
                file.write(member.content)
        except OSError as error:
            if error.errno not in _CANNOT_BE:
                raise
            continue
        if executable and member.executable:
            target.chmod(0o700)
        names.append(str(target.relative_to(into)))
    return names


def _parts(name: str, depth: int, *, rooted: bool) -> tuple[str, ...]:
    """The parts of a member's name; none where it leads outside or cannot be."""
    if "\0" in name or (name.startswith("/") and not rooted):
        return ()
    parts = tuple(part for part in name.split("/") if part not in ("", "."))
    return () if ".." in parts or len(parts) > depth else parts


def _shortened(source: IO[bytes], limit: int) -> bytes:
    """What `source` holds, read piece by piece: a small archive may hold a file that fits into no memory."""
    half = (limit + 1) // 2
    first = source.read(half)
    tail, left_out = bytearray(), 0
    while chunk := source.read(1 << 16):
        tail += chunk
        if len(tail) > 2 * half:
            left_out += len(tail) - half
            del tail[:-half]
    if len(tail) > half:
        left_out += len(tail) - half
        del tail[:-half]
    note = f"\n[... {left_out} bytes left out by the farm ...]\n".encode() if left_out else b""
    return first + note + tail
