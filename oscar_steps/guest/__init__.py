"""What runs inside guests, as files. A test reads them with shellcheck and `perl -c`.

`head/`: on the head node. `image/`: in base images. `apt/`: to make those of Debian's packages. `disk/`: how a disk
boots. `network/STYLE/`, `initrd/STYLE/`: files at their own path in a guest; a new style is a new folder.

What is known only later stands in them as `@NAME@`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

_FOLDER = Path(__file__).parent
_PLACEHOLDER = re.compile(r"@([A-Z][A-Z_]*)@")


def guest_path(name: str) -> Path:
    """The file or folder `name`, for a program that reads it itself."""
    return _FOLDER / name


def guest_text(name: str, **values: str) -> str:
    """The file `name` (folder/file) with each `@NAME@` replaced by the value `name`.

    A value is put in as it is; for a shell the caller quotes it. Raises ValueError where a placeholder has no value, or
    a value no placeholder.
    """
    text = guest_path(name).read_text(encoding="utf-8")
    placeholders = sorted({found.lower() for found in _PLACEHOLDER.findall(text)})
    if placeholders != sorted(values):
        raise ValueError(f"{name} has the placeholders {placeholders}, not {sorted(values)}")
    return _PLACEHOLDER.sub(lambda found: values[found[1].lower()], text)


def styles(kind: str) -> list[str]:
    """The styles that the folder `kind` (`network`, `initrd`) has."""
    return sorted(path.name for path in guest_path(kind).iterdir() if path.is_dir())


def guest_folder(name: str, values: Mapping[str, str | None]) -> dict[str, tuple[bytes, int]]:
    """The files below the folder `name`: path below `/` to (contents, mode).

    Each `@NAME@` is replaced by the value `name`; a line whose value is None is left out. Scripts can be executed, and
    NetworkManager reads only a profile that nobody else can read. Raises KeyError for a placeholder without a value.
    """
    folder = guest_path(name)
    files: dict[str, tuple[bytes, int]] = {}
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
        kept = [line for line in lines if all(values[word.lower()] is not None for word in _PLACEHOLDER.findall(line))]
        text = _PLACEHOLDER.sub(lambda found: values[found[1].lower()] or "", "".join(kept))
        mode = 0o755 if text.startswith("#!") else 0o600 if path.suffix == ".nmconnection" else 0o644
        files[str(path.relative_to(folder))] = (text.encode(), mode)
    return files
