"""A terminal on a machine's serial console."""

from __future__ import annotations

import contextlib
import os
import select
import socket
import sys
import termios
import tty
from collections.abc import Callable, Iterator
from pathlib import Path

from oscar_steps.daemon import connect
from oscar_steps.errors import HostError
from oscar_steps.v3m.consoleview import Typed

ESCAPE = b"\x1d"
"""Ctrl-], as telnet and virsh have it."""


def talk(path: Path, *, raw: bool = False) -> None:
    """Pass on what is typed, and print what comes, until Ctrl-] or until the machine ends.

    Without `raw` the guest's words only: it gives the terminal no orders.

    Where standard input is no terminal its end only ends the typing. Raises HostError where nothing listens at `path`.
    """
    with socket.socket(socket.AF_UNIX) as console:
        try:
            connect(console, path)
        except OSError as error:
            raise HostError(f"the console's socket {path} cannot be reached: {error.strerror}") from None
        with _raw(), contextlib.suppress(ConnectionError):
            _exchange(console, bytes if raw else Typed().feed)


def _exchange(console: socket.socket, shown: Callable[[bytes], bytes]) -> None:
    sources: list[int] = [console.fileno(), sys.stdin.fileno()]
    while True:
        ready, _, _ = select.select(sources, [], [])
        if console.fileno() in ready:
            data = console.recv(1 << 16)
            if not data:
                return
            sys.stdout.buffer.write(shown(data))
            sys.stdout.buffer.flush()
        if sys.stdin.fileno() in ready:
            typed = os.read(sys.stdin.fileno(), 1 << 10)
            console.sendall(typed.split(ESCAPE)[0])
            if ESCAPE in typed:
                return
            if not typed:
                sources.remove(sys.stdin.fileno())


@contextlib.contextmanager
def _raw() -> Iterator[None]:
    """Each key goes to the guest as it is, also Ctrl-C; the terminal is put back afterwards."""
    if not sys.stdin.isatty():
        yield
        return
    before = termios.tcgetattr(sys.stdin)
    tty.setraw(sys.stdin)
    try:
        yield
    finally:
        termios.tcsetattr(sys.stdin, termios.TCSADRAIN, before)
