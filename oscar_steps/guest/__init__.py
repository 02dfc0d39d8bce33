"""What runs inside guests, as files: `head/` on the head node, `image/` in base images, `apt/` to make those of Debian.

A test reads them with shellcheck and `perl -c`. What is known only later stands in them as `@NAME@`.
"""

from __future__ import annotations

import re
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
