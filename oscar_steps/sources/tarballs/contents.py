"""What is in a release's tarball: checked member by member, and written anew as a plain tar that holds no trick.

The head node's `tar` unpacks only what this module has written: names, types and modes of its own making. A tarball
that could write outside its folder, or that fills a disk from a few bytes, is refused as a whole: no release of
OSCAR's looks like that, so whatever made it went wrong.
"""

from __future__ import annotations

import posixpath
import re
import tarfile
import unicodedata
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, cast

from oscar_steps.archive import BROKEN, GLOBAL_HEADERS, HEADER, Bounded, Limits
from oscar_steps.errors import Finding
from oscar_steps.textio import printable_name

LIMITS = Limits(files=200_000, total_bytes=8 << 30, file_bytes=2 << 30, depth=40)
"""The largest of OSCAR's releases had some 20,000 files and 1 GiB."""
_VERSION_BYTES = 1 << 16
_LATEST = 1 << 33
_LONGEST_PATH = 1000
_SETID = 0o6000


class BadTarball(Finding):
    """A tarball of the release cannot be used; the sentence names it and says what is wrong with it."""

    def __init__(self, sentence: str, *, hint: str = "") -> None:
        super().__init__(sentence, hint=hint)


class _Refused(Exception):
    """What is wrong with a member."""


@dataclass
class Contents:
    """What a tarball holds."""

    tops: set[str] = field(default_factory=set)
    """The names at its top."""
    files: int = 0
    total_bytes: int = 0
    version_text: str | None = None
    """The text of the file VERSION in its top folder; None where there is none."""

    def folder(self, archive: str) -> str:
        """The one folder that it unpacks to. Raises BadTarball where there are several, or none."""
        if len(self.tops) == 1:
            return next(iter(self.tops))
        shown = ", ".join(f"'{printable_name(top)}'" for top in sorted(self.tops)[:3]) or "nothing"
        raise BadTarball(f"{archive} has to hold one folder, and holds {shown}{' ...' * (len(self.tops) > 3)}")


def checked_copy(archive: Path, copy: Path | None, limits: Limits = LIMITS, *, strip: bool = False) -> Contents:
    """Check the whole of a tarball, and write it anew as a plain tar. Raises BadTarball at the first trick.

    `strip`: names in the copy are without the folder at the top; no tar of whatever age has to do that.

    OSError is the host's own: `copy` cannot be written. The archive may be packed with gzip, bzip2, xz, or not at all.
    """
    try:
        with archive.open("rb") as raw, Bounded(raw, _most(limits), every_kind=True) as source:
            if copy is None:
                return _walked(source, None, limits, strip=False)
            with (
                copy.open("wb") as target,
                tarfile.open(
                    fileobj=target, mode="w|", format=tarfile.GNU_FORMAT, encoding="utf-8", errors="surrogateescape"
                ) as out,
            ):
                return _walked(source, out, limits, strip=strip)
    except _Refused as refused:
        raise BadTarball(f"{archive.name} is refused: {refused}") from None


def _most(limits: Limits) -> int:
    """Bytes that are read through: what is kept, and a kilobyte of headers for each file."""
    return limits.total_bytes + limits.files * 1024 + (1 << 20)


def _walked(source: Bounded, out: tarfile.TarFile | None, limits: Limits, *, strip: bool) -> Contents:
    found, seen = Contents(), _Seen(2 * limits.files)
    try:
        with tarfile.open(
            fileobj=cast("IO[bytes]", source), mode="r|", encoding="utf-8", errors="surrogateescape"
        ) as tar:
            while (member := tar.next()) is not None:
                tar.members.clear()  # type: ignore[attr-defined]  # millions of headers fit into no memory
                source.next_stop = None
                if len(tar.pax_headers) > GLOBAL_HEADERS:
                    raise _Refused("it has global headers without end")
                clean = _clean(member, seen, limits)
                if clean is not None:
                    found.files += 1
                    found.total_bytes += clean.size
                    _within(found, limits)
                    _keep(tar, member, clean, out, found, strip=strip)
                if tar.fileobj:
                    tar.fileobj.seek(tar.offset)
                source.next_stop = source.position + HEADER
    except BROKEN as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise  # of the copy: the disk is full
        raise _Refused(f"it is cut off, damaged or no tar archive ({error})") from None
    if not found.files:
        raise _Refused("it holds no file")
    return found


def _within(found: Contents, limits: Limits) -> None:
    if found.files > limits.files:
        raise _Refused(f"it holds more than {limits.files} files")
    if found.total_bytes > limits.total_bytes:
        raise _Refused(f"it unpacks to more than {limits.total_bytes >> 20} MiB")


@dataclass
class _Seen:
    """What the archive had so far: path to 'file', 'link' or 'folder'."""

    most: int
    kinds: dict[str, str] = field(default_factory=dict)

    def add(self, path: str, kind: str, shown: str) -> None:
        """Raises _Refused where a member would go through a link or a file, or would change what is there."""
        parent = posixpath.dirname(path)
        while parent:
            before = self.kinds.setdefault(parent, "folder")
            if before != "folder":
                raise _Refused(f"{shown} lies below '{printable_name(parent)}', which is a {before}")
            parent = posixpath.dirname(parent)
        if len(self.kinds) > self.most:
            raise _Refused("it holds too many folders")
        if self.kinds.get(path, kind) != kind or (kind == "link" and path in self.kinds):
            raise _Refused(f"{shown} is there twice, the first time as a {self.kinds[path]}")
        self.kinds[path] = kind


def _clean(member: tarfile.TarInfo, seen: _Seen, limits: Limits) -> tarfile.TarInfo | None:
    """A header of our own for what `member` says; None for the archive's own top. Raises _Refused."""
    shown = f"'{printable_name(member.name[:200])}'"
    path = _path(member.name, shown, limits.depth)
    if member.issparse():
        raise _Refused(f"{shown} is a sparse file")
    if member.size < 0 or member.size > limits.file_bytes:
        raise _Refused(f"{shown} has {member.size} bytes; a file may have {limits.file_bytes}")
    if not path:
        if member.isdir():
            return None
        raise _Refused(f"{shown} is no name of a file")
    if "/" not in path and not member.isdir():
        raise _Refused(f"{shown} is not in the folder that the tarball makes")
    clean = tarfile.TarInfo(path)
    clean.mtime = min(max(int(member.mtime), 0), _LATEST)
    if member.isdir():
        clean.type, clean.mode = tarfile.DIRTYPE, (member.mode & 0o777) | 0o700
        seen.add(path, "folder", shown)
    elif member.issym():
        clean.type, clean.mode, clean.linkname = tarfile.SYMTYPE, 0o777, _target(member, path, shown, limits.depth)
        seen.add(path, "link", shown)
    elif member.islnk():
        clean.type, clean.linkname = tarfile.LNKTYPE, _path(member.linkname, f"the target of {shown}", limits.depth)
        if seen.kinds.get(clean.linkname) != "file":
            raise _Refused(f"{shown} is a hard link to '{printable_name(member.linkname[:200])}', no file before it")
        seen.add(path, "file", shown)
    elif member.isreg():
        if member.mode & _SETID:
            raise _Refused(f"{shown} is setuid or setgid")
        clean.mode, clean.size = (member.mode & 0o777) | 0o600, member.size
        seen.add(path, "file", shown)
    else:
        raise _Refused(f"{shown} is a device, a pipe or something else that is no file")
    return clean


def _path(name: str, shown: str, depth: int) -> str:
    """The path of a member, without './' and the like. Raises _Refused where it is none below the archive's folder."""
    if name.startswith("/"):
        raise _Refused(f"{shown} has an absolute path")
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if ".." in parts:
        raise _Refused(f"{shown} leads out of its folder")
    long = len(name) > _LONGEST_PATH or any(len(part.encode("utf-8", "surrogateescape")) > 255 for part in parts)
    if long or len(parts) > depth:
        raise _Refused(f"{shown} is a path that is too long or too deep")
    if any(unicodedata.category(character) in ("Cc", "Cf", "Zl", "Zp") for character in name):
        raise _Refused(f"{shown} has control characters in its name")
    return "/".join(parts)


def _target(member: tarfile.TarInfo, path: str, shown: str, depth: int) -> str:
    """Where a symbolic link leads: to somewhere in the same top folder. Raises _Refused."""
    target = member.linkname
    # '..' behind another part may lead elsewhere than it seems, as that part may be a link.
    climbs = ".." in re.sub(r"^(?:\.{1,2}/+)*(?:\.\.\Z)?", "", target).split("/")
    there = posixpath.normpath(posixpath.join(posixpath.dirname(path), target))
    inside = there == path.partition("/")[0] or there.startswith(path.partition("/")[0] + "/")
    if not target or target.startswith("/") or not inside or climbs:
        raise _Refused(f"{shown} is a link out of the tree, to '{printable_name(target[:200])}'")
    _path(there, shown, depth)
    return target


def _keep(
    tar: tarfile.TarFile,
    member: tarfile.TarInfo,
    clean: tarfile.TarInfo,
    out: tarfile.TarFile | None,
    found: Contents,
    *,
    strip: bool,
) -> None:
    """Write a member anew, and note what the tarball says of itself."""
    top, rest = _split(clean.name)
    found.tops.add(top)
    content = tar.extractfile(member) if clean.isreg() else None
    if content is not None and rest == "VERSION" and clean.size <= _VERSION_BYTES:
        data = content.read()
        found.version_text = data.decode("utf-8", "replace")
        content = cast("IO[bytes]", _Bytes(data))
    if out is not None and (rest or not strip):
        out.addfile(_stripped(clean) if strip else clean, content)


def _stripped(clean: tarfile.TarInfo) -> tarfile.TarInfo:
    """The same without the folder at the top of its name, and of the name of the file that a hard link leads to."""
    clean.name = _split(clean.name)[1]
    if clean.islnk():
        clean.linkname = _split(clean.linkname)[1]
    return clean


def _split(path: str) -> tuple[str, str]:
    top, _, rest = path.partition("/")
    return top, rest


class _Bytes:
    """What has been read already, to be read once more."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def read(self, size: int) -> bytes:
        data, self._data = self._data[:size], self._data[size:]
        return data
