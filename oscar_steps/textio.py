"""Text and files: state that survives a power cut, and what guests write, made fit to be read by people."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import stat
import tempfile
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

PRIVATE_UMASK = 0o077
_OTHERS = 0o077
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
# ECMA-48's forms. A string (OSC, DCS, SOS, PM, APC) without an end hides nothing: only its introducer is left out.
_SEQUENCE = re.compile(
    r"(?:\x1b\[|\x9b)(?P<csi>[0-?]*[ -/]*[@-~]?)"
    r"|\x1b\](?:P[0-9A-Fa-f]{7}|R)"  # the Linux console's palette
    r"|(?:\x1b[\]PX^_]|[\x9d\x90\x98\x9e\x9f])[^\x07\x18\x1a\x1b\x90\x98\x9c-\x9f]*(?:\x07|\x18|\x1a|\x1b\\|\x9c)"
    r"|\x1b[ -/]+[0-~]?"  # designates a character set: ESC ( B
    r"|\x1b[0-~]?"
)
_NOT_TYPED = re.compile(r"[\x00-\x06\x0b\x0c\x0e-\x1f\x7f-\x9f]")
"""Bell, backspace, tab, line feed and carriage return are left."""
_LONGEST_SEQUENCE = 4096
_LOOKED_AT = 1 << 16
_UNFINISHED = re.compile(
    # A string, also one that stands before the second half of its end.
    r"(?:\x1b[\]PX^_]|[\x9d\x90\x98\x9e\x9f])[^\x07\x18\x1a\x1b\x90\x98\x9c-\x9f]*\x1b?\Z"
    r"|(?:\x1b\[|\x9b)[0-?]*[ -/]*\Z"
    r"|\x1b[ -/]*\Z"
)
_TO_BEGINNING = re.compile(r"[01]?G|2K")
_TO_THE_RIGHT = re.compile(r"\d*[CG`a]")


def seen_line(line: str) -> str:
    """`line` as a person would have seen it on a terminal: without sequences, overwritten text and trailing blanks.

    Of a line that begins anew (CR, a cursor that goes to column 1) the last part that has text is what was seen; what
    stood behind a shorter last part is taken for erased. Total and linear for any text; what it gives has no control
    characters but tabs and line feeds.
    """
    if not _CONTROL.search(line):
        return line.rstrip()
    parts = _SEQUENCE.sub(_drawn, line.rstrip("\r\n")).split("\r")
    text = next((part for part in map(_overwritten, reversed(parts)) if part.strip()), "")
    return text.rstrip()


def without_sequences(text: str) -> str:
    """`text` for a terminal that somebody types on: no sequence, and of control only what moves within the line."""
    return _NOT_TYPED.sub("", _SEQUENCE.sub("", text))


def split_unfinished(text: str) -> tuple[str, str]:
    """`text` up to a sequence that may go on behind its end, and from there; one without end is taken for text."""
    found = _UNFINISHED.search(text, max(0, len(text) - _LONGEST_SEQUENCE))
    return (text[: found.start()], found[0]) if found else (text, "")


def _drawn(sequence: re.Match[str]) -> str:
    code = sequence["csi"] or ""
    if _TO_BEGINNING.fullmatch(code):
        return "\r"
    return " " if _TO_THE_RIGHT.fullmatch(code) else ""


def _overwritten(text: str) -> str:
    """`text` with its backspaces carried out: they move, and what comes next overwrites."""
    if "\b" not in text:
        return _CONTROL.sub("", text)
    cells, at = list[str](), 0
    for character in text:
        if character == "\b":
            at = max(at - 1, 0)
        elif not _CONTROL.match(character):
            cells[at : at + 1] = [character]
            at += 1
    return "".join(cells)


def keep_private() -> None:
    """Whatever this process and its children make from now on is for their user alone, whatever umask they came with.

    The one rule for all that the farm writes; each of its programs begins with this. What others are meant to read has
    a mode of its own where it is made.
    """
    os.umask(PRIVATE_UMASK)


def open_to_others(path: Path) -> bool:
    """Whether group or others have any right to `path`."""
    return bool(path.stat().st_mode & _OTHERS)


def shared_with_group(folder: Path) -> bool:
    """Whether an administrator shares a folder of ours with its group: the setgid bit (`chmod g+s`) says so."""
    return bool(folder.stat().st_mode & stat.S_ISGID)


def close_to_others(path: Path, *, group: bool = True) -> None:
    """Take others, and the group, their rights to a file or folder of ours.

    What belongs to somebody else, or has just gone, stays as it is; a link is not followed.
    """
    taken = _OTHERS if group else _OTHERS & stat.S_IRWXO
    with suppress(FileNotFoundError):
        found = path.lstat()
        if found.st_mode & taken and found.st_uid == os.geteuid() and not stat.S_ISLNK(found.st_mode):
            path.chmod(stat.S_IMODE(found.st_mode) & ~taken)


def write_atomically(path: Path, content: str | bytes, *, mode: int = 0o600, durable: bool = True) -> None:
    """Write `path` in one step: a reader finds the old content or the new, also after a power cut, never half of it.

    Text is written as UTF-8. `mode` holds whatever the caller's umask is. Raises OSError (a full disk, a missing
    folder); the old file is untouched then. Not `durable`: it does not wait for the disk, and a power cut may leave
    half of it.
    """
    data = content.encode("utf-8") if isinstance(content, str) else content
    descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name[:64]}.", suffix=".tmp", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fchmod(file.fileno(), mode)
            if durable:
                os.fsync(file.fileno())
        os.replace(temporary, path)  # noqa: PTH105 (the temporary name is a string)
    except BaseException:
        with suppress(FileNotFoundError):
            os.unlink(temporary)  # noqa: PTH108
        raise
    if durable:
        sync_folder(path.parent)


def open_regular(path: Path, flags: int = os.O_RDONLY) -> int:
    """A descriptor of a regular file. Raises OSError, also for a pipe or a device, at which one may wait for ever."""
    descriptor = os.open(path, flags | os.O_CLOEXEC | os.O_NONBLOCK, 0o666)
    mode = os.fstat(descriptor).st_mode
    if not stat.S_ISREG(mode):
        os.close(descriptor)
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        raise OSError(errno.EINVAL, "it is not a regular file", str(path))
    return descriptor


def read_regular(path: Path) -> bytes:
    """The bytes of a regular file. Raises OSError as `open_regular` does."""
    with os.fdopen(open_regular(path), "rb") as file:
        return file.read()


def read_own(path: Path) -> bytes:
    """The same of a file whose content we act on: it has to be our own. Raises PermissionError where it is not."""
    with os.fdopen(open_regular(path), "rb") as file:
        if (owner := os.fstat(file.fileno()).st_uid) != os.geteuid():
            raise PermissionError(errno.EPERM, f"it belongs to the user with the number {owner}", str(path))
        return file.read()


def sync_folder(folder: Path) -> None:
    """Make the names in `folder` last: a rename is on the disk only once its folder is synced."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def json_line(value: object) -> bytes:
    """`value` as one line of JSON, as it is sent through sockets and kept in files."""
    return json.dumps(value).encode() + b"\n"


def json_object(line: bytes | str) -> dict[str, Any]:
    """The JSON object that somebody else has written. Raises ValueError for whatever else it is."""
    try:
        value = json.loads(line)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    if not isinstance(value, dict):
        raise ValueError(f"it is {type(value).__name__}, not a JSON object")  # noqa: TRY004 (one error for the caller)
    return value


def printable(text: str) -> str:
    """`text` of a guest without what a terminal would obey: it must not be able to write over our own lines."""
    return "".join(character if character.isprintable() else " " for character in text)


def one_line(text: str, length: int = 160) -> str:
    """`text` of a guest or a server as one printable line, of at most `length` characters."""
    seen = " ".join(seen_line(line) for line in text[:_LOOKED_AT].split("\n"))
    line = " ".join(printable(seen).split())
    return line if len(line) <= length else line[: length - 3] + "..."


def printable_name(name: bytes | str) -> str:
    """A file's name as text that can be printed, stored and sent anywhere: a guest's names are bytes, of any kind.

    What is no printable character of UTF-8 becomes `%E9`, byte for byte, and `%` becomes `%25`, as in a URL. A name
    as Python reads it from a folder or an archive (surrogates for odd bytes) is taken too.
    """
    text = name.decode("utf-8", "surrogateescape") if isinstance(name, bytes) else name
    return "".join(
        character if character.isprintable() and character != "%" else _escaped(character) for character in text
    )


def _escaped(character: str) -> str:
    octets = (
        character.encode("utf-8", "surrogateescape")
        if "\udc80" <= character <= "\udcff"
        else character.encode("utf-8", "surrogatepass")
    )
    return "".join(f"%{octet:02X}" for octet in octets)


def some(names: Iterable[str], most: int = 30) -> str:
    """Names for a sentence, the first of many."""
    names = list(names)
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def sha256_of(path: Path) -> str:
    """The digest of a file. Raises OSError."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
