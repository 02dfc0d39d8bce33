"""Serial consoles: files that QEMU writes, followed here as they grow, and their last lines."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import BinaryIO

from oscar_steps.testdriver.lines import LineSplitter
from oscar_steps.textio import printable

# QEMU writes the console to a file, because a socket that is not read stops the guest in the middle of a line. A file
# has no event for 'grown'; looking at the size of a handful of files five times a second costs nothing measurable.
LOOK_SECONDS = 0.2
TAIL_BYTES = 1 << 16


async def follow_console(path: Path) -> AsyncIterator[str]:
    """The lines of a console, from its beginning, as they become whole. Also a line without end that stands for a while
    (a prompt waits for input and never ends its line) comes, once more when it is whole.

    Of a console that was cut meanwhile (`consolelog`) it goes on with what is new.
    """
    splitter = LineSplitter()
    position, shown = 0, ""
    while True:
        size = path.stat().st_size if path.exists() else 0
        position = min(position, size)
        if size > position:
            with path.open("rb") as file:
                file.seek(position)
                chunk = file.read(1 << 20)
            position += len(chunk)
            for line in splitter.feed(chunk):
                yield line
            shown = ""
        elif (rest := splitter.rest()) and rest != shown:
            shown = rest
            yield rest
        await asyncio.sleep(LOOK_SECONDS)


def last_lines(path: Path, count: int = 15) -> tuple[int, tuple[str, ...]]:
    """The last lines of a console that say something: (number of the first of them, the lines)."""
    if not path.exists():
        return 1, ()
    with path.open("rb") as file:
        size = file.seek(0, 2)
        file.seek(max(size - TAIL_BYTES, 0))
        tail = file.read()
        file.seek(0)
        before = _newlines(file, max(size - TAIL_BYTES, 0))
    lines = [line.rstrip() for line in tail.decode("utf-8", "replace").split("\n")]
    while lines and not lines[-1]:
        lines.pop()
    cut = max(len(lines) - count, 0)
    return before + cut + 1, tuple(printable(line) for line in lines[cut:])


def _newlines(file: BinaryIO, end: int) -> int:
    count = 0
    while (left := end - file.tell()) > 0 and (block := file.read(min(left, 1 << 20))):
        count += block.count(b"\n")
    return count
