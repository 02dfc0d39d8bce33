"""Text and files: state that survives a power cut, and what guests write, made fit to be read by people."""

from __future__ import annotations

import os
import tempfile
from contextlib import suppress
from pathlib import Path
from urllib.parse import unquote_to_bytes


def write_atomically(path: Path, content: str | bytes, *, mode: int = 0o644) -> None:
    """Write `path` in one step: a reader finds the old content or the new, also after a power cut, never half of it.

    Text is written as UTF-8. `mode` holds whatever the caller's umask is. Raises OSError (a full disk, a missing
    folder); the old file is untouched then.
    """
    data = content.encode("utf-8") if isinstance(content, str) else content
    descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name[:64]}.", suffix=".tmp", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fchmod(file.fileno(), mode)
            os.fsync(file.fileno())
        os.replace(temporary, path)  # noqa: PTH105 (the temporary name is a string)
    except BaseException:
        with suppress(FileNotFoundError):
            os.unlink(temporary)  # noqa: PTH108
        raise
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make the names in `folder` last: a rename is on the disk only once its folder is synced."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def printable_name(name: bytes | str) -> str:
    """A file's name as text that can be printed, stored and sent anywhere: a guest's names are bytes, of any kind.

    What is no printable character of UTF-8 becomes `%E9`, byte for byte, and `%` becomes `%25`, so that `name_bytes`
    gives the name back. A name as Python reads it from a folder or an archive (surrogates for odd bytes) is taken too.
    """
    text = name.decode("utf-8", "surrogateescape") if isinstance(name, bytes) else name
    return "".join(
        character if character.isprintable() and character != "%" else _escaped(character) for character in text
    )


def name_bytes(printable: str) -> bytes:
    """The bytes of the name that `printable_name` made printable."""
    return unquote_to_bytes(printable)


def _escaped(character: str) -> str:
    octets = (
        character.encode("utf-8", "surrogateescape")
        if "\udc80" <= character <= "\udcff"
        else character.encode("utf-8", "surrogatepass")
    )
    return "".join(f"%{octet:02X}" for octet in octets)
