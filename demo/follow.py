"""A build's progress, line by line, while it runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from time import monotonic, sleep

from demo.errors import NotReady
from demo.rest import RESULT_NAMES, Build, Master

STRUCTURED = "@@oscar"
_BUILDBOTS_OWN = ("worker_preparation", "locks_acquire")
"""Steps that say nothing."""
_CHUNK = 2000
_POLL = 0.7


@dataclass
class _Step:
    announced: bool = False
    finished: bool = False
    read: dict[int, int] = field(default_factory=dict)
    """Lines already shown, by log."""


class Follower:
    """Shows each step's name, the lines of its output (not the structured ones), and how it ended, each once."""

    def __init__(self, master: Master, build: Build, show: Callable[[str], None]) -> None:
        self._master = master
        self._build = build
        self._show = show
        self._steps: dict[int, _Step] = {}

    def to_the_end(self, seconds: float) -> Build:
        """Follow until the build is complete. Raises NotReady after `seconds`."""
        deadline = monotonic() + seconds
        while True:
            build = self._master.build(self._build.build_id)  # before the lines: what is complete is then read wholly
            self._read_steps()
            if build.complete:
                return build
            if monotonic() > deadline:
                raise NotReady(f"the build was not complete after {seconds:.0f} s: {build.page}")
            sleep(_POLL)

    def _read_steps(self) -> None:
        for entry in self._master.steps(self._build.build_id):
            step = self._steps.setdefault(entry["stepid"], _Step())
            ours = entry["name"] not in _BUILDBOTS_OWN
            if step.finished or entry["started_at"] is None or entry.get("hidden") or not ours:
                continue
            if not step.announced:
                step.announced = True
                self._show(f"== {entry['name']}")
            for line in self._new_lines(entry["stepid"], step):
                self._show(f"   {line}")
            if entry["complete"]:
                step.finished = True
                if entry["results"]:
                    self._show(f"   {entry['name']}: {RESULT_NAMES[entry['results']]}: {entry['state_string']}")

    def _new_lines(self, step_id: int, step: _Step) -> Iterator[str]:
        """Lines that came since the last look, of commands' outputs (type 's': a stream's letter leads each line)."""
        for log in self._master.logs(step_id):
            if log["type"] != "s":
                continue
            first = step.read.get(log["logid"], 0)
            while first < log["num_lines"]:
                lines = self._master.lines(log["logid"], first, _CHUNK)
                if not lines:
                    break
                first += len(lines)
                step.read[log["logid"]] = first
                yield from (line[1:] for line in lines if _is_output(line))


def _is_output(line: str) -> bool:
    return line[:1] in ("o", "e") and bool(line[1:].strip()) and not line[1:].startswith(STRUCTURED)
