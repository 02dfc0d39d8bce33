"""Lines of text, out of bytes that come in pieces."""

from __future__ import annotations

from collections.abc import Callable

MAX_LINE_BYTES = 1 << 16


def decoded(data: bytes) -> str:
    """The text of a file of OSCAR's: UTF-8, or else Latin-1 (OSCAR is that old)."""
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return data.decode("latin-1")


class LineSplitter:
    """Turns chunks of bytes into lines, as they become whole; hands the bytes to `keep` as they came."""

    def __init__(self, keep: Callable[[bytes], object] | None = None) -> None:
        self._rest = b""
        self._keep = keep
        self.total = 0

    def feed(self, chunk: bytes) -> list[str]:
        """The lines that `chunk` completed, without their line ends."""
        self.total += len(chunk)
        if self._keep:
            self._keep(chunk)
        *lines, self._rest = (self._rest + chunk).split(b"\n")
        if len(self._rest) > MAX_LINE_BYTES:  # a line without an end is handed out in pieces
            lines.append(self._rest)
            self._rest = b""
        return [line.decode("utf-8", "replace").rstrip("\r") for line in lines]

    def rest(self) -> str:
        """What came after the last line end."""
        return self._rest.decode("utf-8", "replace")
