"""A serial console on a person's terminal: the guest's text, without its control sequences.

A terminal obeys what is written to it: it changes colours and titles, and some answer, as if the person had typed. So
sequences of control are left out (`textio.seen_line`, for a stream `Typed`), unless the person asks for them (`raw`).
"""

from __future__ import annotations

import codecs
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from oscar_steps.textio import seen_line, split_unfinished, without_sequences

LOOK_SECONDS = 0.2
_CHUNK = 1 << 20
_LONGEST_LINE = 1 << 16


def show(
    path: Path,
    out: BinaryIO,
    *,
    raw: bool = False,
    lines: int | None = None,
    goes_on: Callable[[], bool] | None = None,
) -> None:
    """Write what is in the console's file to `out`: all, or the last `lines`; then what comes, while `goes_on`."""
    view = _Raw(out) if raw else _Seen(out)
    with path.open("rb") as log:
        text = log.read()
        view.write(text if lines is None else _last(text, lines))
        while goes_on is not None:
            view.flush()
            more = goes_on()
            _catch_up(log, view)  # after the look whether it is on: also what came just before its end
            if not more:
                break
            time.sleep(LOOK_SECONDS)  # a file says nothing when it grows
    view.end()


def _catch_up(log: BinaryIO, view: _Raw) -> None:
    if os.fstat(log.fileno()).st_size < log.tell():  # it has been cut (`consolelog`)
        log.seek(0, os.SEEK_END)
    while chunk := log.read(_CHUNK):
        view.write(chunk)


def _last(text: bytes, lines: int) -> bytes:
    return b"".join(text.splitlines(keepends=True)[-lines:] if lines else [])


class _Raw:
    """Bytes as they are."""

    def __init__(self, out: BinaryIO) -> None:
        self._out = out

    def write(self, data: bytes) -> None:
        self._out.write(data)

    def flush(self) -> None:
        """Show what has come so far."""
        self._out.flush()

    def end(self) -> None:
        """Nothing will come any more."""
        self.flush()


class _Seen(_Raw):
    """Lines as a person would have seen them. One that is not whole yet is shown where nothing else comes: a prompt."""

    def __init__(self, out: BinaryIO) -> None:
        super().__init__(out)
        self._rest = b""
        self._shown = ""

    def write(self, data: bytes) -> None:
        *lines, self._rest = (self._rest + data).split(b"\n")
        if len(self._rest) > _LONGEST_LINE:  # a guest that ends no line: it is shown anew at each look
            lines.append(self._rest)
            self._rest = b""
        for line in lines:
            self._show(line)
            self._out.write(b"\n")
            self._shown = ""

    def flush(self) -> None:
        self._show(self._rest)
        super().flush()

    def end(self) -> None:
        self.flush()
        if self._shown:
            self._out.write(b"\n")
        super().flush()

    def _show(self, line: bytes) -> None:
        """Go on with the line that stands there where it begins so, else begin it anew on the next."""
        seen = seen_line(line.decode("utf-8", "replace"))
        if not seen.startswith(self._shown):
            self._out.write(b"\n")
            self._shown = ""
        self._out.write(seen[len(self._shown) :].encode())
        self._shown = seen


class Typed:
    """What a guest sends to a person who types: text, and what moves within the line; bytes in, bytes out."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._unfinished = ""

    def feed(self, data: bytes) -> bytes:
        """What of `data` can be shown; a sequence that is not whole yet is kept for the next time."""
        text, self._unfinished = split_unfinished(self._unfinished + self._decoder.decode(data))
        return without_sequences(text).encode()
