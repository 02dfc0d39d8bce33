"""What a guest makes QEMU write into files, its serial console above all, kept from filling the host's disk.

QEMU appends; so a file that is cut while QEMU writes goes on behind the cut. What is kept is the beginning, where a
boot says most, and the end.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from pathlib import Path

MOST_BYTES = 16 << 20
KEPT_BYTES = 8 << 20
"""Of the beginning."""
TAIL_BYTES = 64 << 10
LOOK_SECONDS = 1.0
"""A file has no event for 'grown'. An emulated serial line brings about a hundred kilobytes in that time."""

CUT = f"(here the log was cut: it had more than {MOST_BYTES >> 20} MiB; what follows is its end)"


async def keep_small(files: Sequence[Path]) -> None:
    """Cut the files whenever they have grown too long, until this is cancelled; and then once more."""
    try:
        while True:
            for file in files:
                cut(file)
            await asyncio.sleep(LOOK_SECONDS)
    finally:
        for file in files:
            cut(file)


def cut(path: Path) -> bool:
    """Whether the file had more than `MOST_BYTES`; it is cut down to its beginning, a line that says so, and its end.

    What cannot be cut (the host's disk is broken, the file is gone) is left as it is.
    """
    try:
        if path.stat().st_size <= MOST_BYTES:
            return False
        with path.open("rb+", buffering=0) as file:
            file.seek(-TAIL_BYTES, os.SEEK_END)
            tail = file.read(TAIL_BYTES)
            file.truncate(KEPT_BYTES)
        with path.open("ab", buffering=0) as file:
            file.write(b"\n" + CUT.encode() + b"\n" + tail)
    except OSError:
        return False
    return True
