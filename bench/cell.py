"""Where the time of a run goes: wall and CPU seconds per stage, and the share that is the farm's own.

    python -m bench.cell RUN [RUN ...]      finished runs (their directories)

The driver writes its own CPU seconds and those of the guests' processes at the end of every stage into `events.jsonl`;
this only reads them. Do a run with an empty image store (`--images`) to see the image being built.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from oscar_steps.testdriver.record.events import Event, read_events
from oscar_steps.verdict import Stage, Verdict


@dataclass(frozen=True)
class StageCost:
    """Seconds that one stage took: on the clock, of the driver's CPU, of its tools' CPU, of the guests' CPU.

    Tools are known for create-image alone (mmdebstrap and its like): later the VMs that ended are among the children.
    """

    stage: str
    wall: float
    driver: float
    tools: float
    guests: float


def stage_costs(events: list[Event]) -> list[StageCost]:
    """The cost of every stage that ran. CPU seconds in the diary are sums; a stage's are differences."""
    costs, driver, guests = [], 0.0, 0.0
    for event in events:
        if event.kind != "stage-ended" or "driver_cpu" not in event.data:
            continue
        data = event.data
        tools = data.get("children_cpu", 0.0) if data["stage"] == Stage.CREATE_IMAGE else 0.0
        of_guests = max(data["guest_cpu"] - guests, 0.0)
        costs.append(StageCost(data["stage"], data["seconds"], data["driver_cpu"] - driver, tools, of_guests))
        driver, guests = data["driver_cpu"], max(data["guest_cpu"], guests)
    return costs


def without_guests(events: list[Event]) -> float:
    """Seconds on the clock during which no guest ran: all that the farm adds by itself."""
    running: set[str] = set()
    alone, since = 0.0, 0.0
    for event in events:
        if event.kind == "vm" and event.data["what"] in ("started", "ended"):
            was_running = bool(running)
            (running.add if event.data["what"] == "started" else running.discard)(event.data["machine"])
            if running and not was_running:
                alone += event.elapsed - since
            elif was_running and not running:
                since = event.elapsed
    return alone + (events[-1].elapsed - since if events and not running else 0.0)


def report(run_directory: Path, console: Console) -> None:
    """Print one run."""
    events, verdict = read_events(run_directory), Verdict.load(run_directory)
    costs = stage_costs(events)
    table = Table(title=f"{verdict.run_id}: {verdict.outcome}, {len(verdict.nodes)} nodes")
    for name in ("stage", "wall s", "driver CPU s", "tools CPU s", "guests CPU s"):
        table.add_column(name, justify="left" if name == "stage" else "right")
    for cost in costs:
        table.add_row(cost.stage, f"{cost.wall:.1f}", f"{cost.driver:.2f}", f"{cost.tools:.1f}", f"{cost.guests:.1f}")
    rows = ((cost.wall, cost.driver, cost.tools, cost.guests) for cost in costs)
    wall, driver, tools, guests = (sum(column) for column in zip(*rows, strict=True))
    table.add_row("in all", f"{wall:.1f}", f"{driver:.2f}", f"{tools:.1f}", f"{guests:.1f}", style="bold")
    console.print(table)
    of_all = 100 * driver / (driver + guests)
    console.print(f"driver's CPU: {100 * driver / wall:.2f} % of the run's wall time, {of_all:.2f} % of its CPU")
    console.print(f"no guest was running for {without_guests(events):.1f} s of {wall:.1f} s")
    for event in events:
        if event.kind == "barrier-open":
            console.print(f"last node's first SSH banner to the barrier's opening: {event.data['after_last_banner']} s")
        if event.kind == "accelerator":
            console.print(f"accelerator {event.data['accelerator']}, probe {event.data['seconds']:.1f} s")


def main() -> int:
    """Print every run named on the command line."""
    if len(sys.argv) < 2:
        print(__doc__)
        return 64
    for name in sys.argv[1:]:
        try:
            report(Path(name), Console())
        except FileNotFoundError:
            print(f"{name}: no run that has come to its end is here", file=sys.stderr)
            return 64
    return 0


if __name__ == "__main__":
    sys.exit(main())
