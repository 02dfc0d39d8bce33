"""Serial consoles: files that QEMU writes, followed here as they grow, and the signs that are looked for in them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

from oscar_steps.testdriver.headnode import LineSplitter

# QEMU writes the console to a file, because a socket that nobody drains stops the guest in the middle of a line. A file
# has no event for 'grown'; looking at the size of a handful of files five times a second costs nothing measurable.
LOOK_SECONDS = 0.2


async def follow_console(path: Path) -> AsyncIterator[str]:
    """The lines of a console, from its beginning, as they become whole. Also a line without end that stands for a while
    (a prompt waits for input and never ends its line) comes, once more when it is whole."""
    splitter = LineSplitter()
    position, shown = 0, ""
    while True:
        grown = path.stat().st_size > position if path.exists() else False
        if grown:
            with path.open("rb") as file:
                file.seek(position)
                chunk = file.read()
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
    lines = [line.rstrip() for line in path.read_bytes().decode("utf-8", "replace").splitlines()]
    while lines and not lines[-1]:
        lines.pop()
    cut = max(len(lines) - count, 0)
    return cut + 1, tuple(lines[cut:])
