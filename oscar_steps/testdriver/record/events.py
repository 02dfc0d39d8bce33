"""The run's diary: it writes `events.jsonl`, one JSON object a line, and prints every progress line.

Every wait of the driver is inside `with diary.step("what we wait for"):`. That gives the log line, the duration, the
event and, for an error, the place where it happened.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from oscar_steps.textio import read_regular

EVENTS_FILE = "events.jsonl"


@dataclass(frozen=True)
class Event:
    """One line of the diary. `elapsed` is seconds since the run began; `text` is what a person is shown (may be '')."""

    kind: str
    text: str
    elapsed: float
    stamp: str
    data: dict[str, Any] = field(default_factory=dict)

    def as_json(self) -> str:
        value = {"time": self.stamp, "elapsed": round(self.elapsed, 3), "kind": self.kind, "text": self.text}
        return json.dumps(value | self.data, ensure_ascii=False)

    @classmethod
    def from_json(cls, line: str) -> Event:
        value = json.loads(line)
        kind, text, elapsed, stamp = (value.pop(key) for key in ("kind", "text", "elapsed", "time"))
        return cls(kind=str(kind), text=str(text), elapsed=float(elapsed), stamp=str(stamp), data=value)


Listener = Callable[[Event], None]


class Diary:
    """Writer of `events.jsonl`. Each line is written whole and at once, so that a kill -9 costs none of them.

    The file is open only while a line is written: nobody has to close a diary.
    """

    def __init__(self, run_directory: Path) -> None:
        self._path = run_directory / EVENTS_FILE
        self._start = time.monotonic()
        self._listeners: list[Listener] = []
        self._steps: list[str] = []
        self.past: list[Event] = []

    @property
    def elapsed(self) -> float:
        """Seconds since the run began."""
        return time.monotonic() - self._start

    @property
    def current_step(self) -> str:
        """What is being waited for right now, innermost first; '' outside of all steps."""
        return self._steps[-1] if self._steps else ""

    def write(self, kind: str, text: str = "", **data: Any) -> Event:
        """Append an event and hand it to all listeners."""
        stamp = datetime.now().astimezone().isoformat(timespec="milliseconds")
        event = Event(kind=kind, text=text, elapsed=self.elapsed, stamp=stamp, data=data)
        # A full disk must not keep the run from ending its cluster.
        with suppress(OSError), self._path.open("a", encoding="utf-8") as file:
            file.write(event.as_json() + "\n")
        self.past.append(event)
        for listener in tuple(self._listeners):
            try:
                listener(event)
            except (OSError, ValueError):
                self._listeners.remove(listener)  # its terminal or pipe is gone; the run goes on without it
        return event

    def say(self, text: str, **data: Any) -> None:
        """A progress line."""
        self.write("progress", text, **data)

    @contextmanager
    def step(self, text: str) -> Iterator[None]:
        """Wraps a wait: says that it begins, and how long it took."""
        started = time.monotonic()
        self._steps.append(text)
        self.write("step", text)
        try:
            yield
        except BaseException as error:
            # Not handled here: only the place is noted, to show where the run ended.
            self.write(
                "step-broken", "", step=text, seconds=round(time.monotonic() - started, 3), error=type(error).__name__
            )
            raise
        else:
            seconds = time.monotonic() - started
            self.write(
                "step-done", f"{text}: {seconds:.1f} s" if seconds >= 1 else "", step=text, seconds=round(seconds, 3)
            )
        finally:
            self._steps.pop()

    @contextmanager
    def listening(self, listener: Listener) -> Iterator[None]:
        """Let `listener` hear every event from now on."""
        self._listeners.append(listener)
        try:
            yield
        finally:
            with suppress(ValueError):
                self._listeners.remove(listener)


def read_events(run_directory: Path) -> list[Event]:
    """The events of a run, dead or alive. A line that was cut off by a crash, or is none of ours, is left out."""
    path = run_directory / EVENTS_FILE
    events = []
    for line in read_regular(path).decode(errors="replace").split("\n") if path.exists() else ():
        with suppress(ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError):
            events.append(Event.from_json(line))
    return events


def append_event(run_directory: Path, kind: str, text: str, **data: Any) -> None:
    """Add an event to a run whose process is gone. In a read-only archive it adds nothing."""
    events = read_events(run_directory)
    stamp = datetime.now().astimezone().isoformat(timespec="milliseconds")
    event = Event(kind=kind, text=text, elapsed=events[-1].elapsed if events else 0.0, stamp=stamp, data=data)
    with suppress(OSError), (run_directory / EVENTS_FILE).open("a", encoding="utf-8") as file:
        file.write(f"\n{event.as_json()}\n")  # the run's own last line may have been cut off
