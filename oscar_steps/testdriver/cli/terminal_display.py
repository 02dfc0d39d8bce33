"""What a person at a terminal sees of a run."""

from __future__ import annotations

from rich.console import Console
from rich.markup import escape
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from oscar_steps.testdriver.record.events import Event
from oscar_steps.textio import printable


class TerminalDisplay:
    """For a terminal: the same lines, and below them what is being waited for, with a running clock."""

    def __init__(self) -> None:
        self._console = Console(highlight=False)
        columns = (SpinnerColumn(), TimeElapsedColumn(), TextColumn("{task.description}", markup=False))
        self._progress = Progress(*columns, console=self._console, transient=True)
        self._task = self._progress.add_task("starting", total=None)
        self._steps: list[str] = []

    def __enter__(self) -> TerminalDisplay:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def __call__(self, event: Event) -> None:
        if event.kind == "step":
            self._steps.append(event.text)
            self._progress.reset(self._task, description=f"waiting for {event.text}")
        elif event.kind in ("step-done", "step-broken") and self._steps:
            self._steps.pop()
            self._progress.reset(self._task, description=f"waiting for {self._steps[-1]}" if self._steps else "")
        elif summary := event.data.get("summary"):
            self._progress.update(self._task, description=str(summary))
        if event.kind != "step":
            style = {"failure": "bold red", "stage-started": "bold", "stage-ended": "bold"}.get(event.kind, "")
            for line in event.text.splitlines():
                self._console.print(f"{event.stamp[11:19]} {escape(printable(line))}", style=style)
