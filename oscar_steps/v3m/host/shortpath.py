"""Unix sockets whose directory lies deep: an address has 107 bytes, a path may have more."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def short_path(socket: Path) -> Iterator[str]:
    """A path to `socket` that fits into a socket's address, however deep its directory lies. Raises OSError."""
    directory = os.open(socket.parent, os.O_PATH | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{directory}/{socket.name}"
    finally:
        os.close(directory)
