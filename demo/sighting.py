"""When a fault could be known: the first line in a run's files that shows it, seen while the run goes on.

Consoles and the terminal have no time stamps of their own, so they are watched from outside.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path

from pydantic import BaseModel, ConfigDict

SIGHTING_FILE = "sighting.json"
_FILES = ("installer/terminal.log", "console/*.log", "events.jsonl")


class Sighting(BaseModel):
    """The line that showed the fault, and when it was there (a tenth of a second late at most)."""

    model_config = ConfigDict(frozen=True)

    time: datetime
    file: str
    line: str

    @classmethod
    def load(cls, run_directory: Path) -> Sighting | None:
        """What was seen in a run; None: nothing."""
        path = run_directory / SIGHTING_FILE
        return cls.model_validate_json(path.read_bytes()) if path.exists() else None

    def save(self, run_directory: Path) -> None:
        (run_directory / SIGHTING_FILE).write_text(self.model_dump_json(indent=2) + "\n", encoding="utf-8")


class Lookout:
    """Looks through what has been written since the last look, until the line is there."""

    def __init__(self, run_directory: Path, pattern: str) -> None:
        self._run = run_directory
        self._pattern = re.compile(pattern) if pattern else None
        self._read: dict[Path, int] = {}
        self._rest: dict[Path, bytes] = {}
        self.sighting: Sighting | None = None

    def look(self) -> None:
        """Take notice of the line if it has come."""
        for path in self._files():
            for line in self._new_lines(path):
                if self._pattern and self._pattern.search(line):
                    file = str(path.relative_to(self._run))
                    self.sighting = Sighting(time=datetime.now().astimezone(), file=file, line=line[:500])
                    return

    def _files(self) -> Iterable[Path]:
        if self._pattern is None or self.sighting is not None:
            return ()
        return (path for name in _FILES for path in sorted(self._run.glob(name)) if not path.name.endswith(".qemu.log"))

    def _new_lines(self, path: Path) -> Iterable[str]:
        start = self._read.get(path, 0)
        with path.open("rb") as file:
            file.seek(start)
            new = file.read()
        self._read[path] = start + len(new)
        *lines, self._rest[path] = (self._rest.get(path, b"") + new).split(b"\n")
        return (line.decode("utf-8", "replace").rstrip("\r") for line in lines)


def seconds_until(sighting: Sighting | None, stamp: str) -> float | None:
    """From the sighting to the event with time `stamp`, never below 0 (the driver may read a line before we do)."""
    if sighting is None:
        return None
    return max((datetime.fromisoformat(stamp) - sighting.time).total_seconds(), 0.0)


def wait(seconds: float = 0.1) -> None:
    """Until the next look: the files are on this host, and a look costs a few system calls."""
    time.sleep(seconds)
