"""What the master costs with many cells: a real master, and one worker whose driver does nothing, on loopback.

    python -m bench.master [--cells 15,150,1500] [--builds 150] [--slots 4] [--json FILE] [--before FILE] [--markdown]

For each number of cells a farm of its own: checkconfig, start, a worker that attaches, a reconfiguration that changes
one cell, then a night: builds of all cells are asked for at once, and `--builds` of them are waited for. CPU seconds
are the master's process alone, user and system; each is counted until the master is idle again. Compare them, and not
the seconds of the clock: the worker and its driver share the machine. `--json` keeps the figures, and `--before` puts
such a file's beside this run's, with the ratio. Everything that is started here ends here.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from time import monotonic, sleep

import httpx
import psutil
import pytest
from rich.console import Console
from rich.table import Table

import demo.farm
from demo.errors import NotReady
from demo.farm import CHECKOUT, Farm
from oscar_steps.errors import FarmError
from oscar_steps.master.schedules.force import LABEL
from oscar_steps.master.schedules.names import FORCE
from oscar_steps.matrix.cells import load_matrix
from oscar_steps.verdict import VERDICT_FILE, Outcome, Verdict
from oscar_steps.words import Label

_IDLE = 0.15
"""CPU seconds within one second: a master that takes less has done what it had to do."""
_START_SECONDS = 600.0
_NIGHT_SECONDS = 300.0
"""After so long without a build that ends, the night is over."""
_MIB = 2**20
_DRIVER = Path(__file__).with_name("light_driver.py")
_CELL = """
[[cell]]
distribution = "debian"
version = "{number}"
architecture = "x86_64"
image = "{image}"
cluster = "{cluster}"
answers = "{answers}"
labels = {labels}
"""
Figures = dict[str, float | None]
"""By what was measured; None: it did not happen."""


def write_profiles(folder: Path, cells: int, *, changed: int = 0) -> None:
    """A folder of profiles with so many cells of one image, cluster and answers; the cell `changed` is not nightly."""
    shutil.copytree(CHECKOUT / "profiles", folder, dirs_exist_ok=True)
    first = load_matrix(CHECKOUT / "profiles").cells[0]
    names = {"image": first.image, "cluster": first.cluster, "answers": first.answers}
    rows = (
        _CELL.format(number=number, labels='["candidate"]' if number == changed else '["nightly"]', **names)
        for number in range(1, cells + 1)
    )
    (folder / "matrix.toml").write_text("".join(rows), encoding="utf-8")


class BenchFarm(Farm):
    """A farm of many cells that notes what its own start costs."""

    patience = _START_SECONDS

    def __init__(self, directory: Path, profiles: Path, slots: int) -> None:
        super().__init__(directory, driver=[sys.executable, "-I", "-S", str(_DRIVER)])
        self.profiles, self.slots = profiles, slots
        self.figures: Figures = {}

    def _start_master(self) -> None:
        begun = monotonic()
        super()._start_master()
        self.figures["start, s"] = monotonic() - begun
        self.settle()
        self.figures["start, CPU s"] = self.cpu()

    def _start_worker(self) -> None:
        before, begun = self.cpu(), monotonic()
        super()._start_worker()
        quiet = self.settle()
        self.figures["a worker attaches, s"] = quiet - begun
        self.figures["a worker attaches, CPU s"] = self.cpu() - before

    def _site(self, web_port: int, master_port: int) -> str:
        site = super()._site(web_port, master_port)
        for old, new in (("always = true", "always = false"), ("poll = 2", "poll = 10")):
            if old not in site:
                raise NotReady(f"the demo's farm.toml has no '{old}' any more")
            site = site.replace(old, new)
        return f"{site}builds = {self.slots}\n"

    def cpu(self) -> float:
        """The master's CPU seconds so far, without its children's."""
        times = psutil.Process(self.master_server.pid).cpu_times()
        return float(times.user + times.system)

    def memory(self) -> float:
        return float(psutil.Process(self.master_server.pid).memory_info().rss / _MIB)

    def settle(self) -> float:
        """Wait until the master is idle; since when it is."""
        deadline, before = monotonic() + _START_SECONDS, self.cpu()
        while monotonic() < deadline:
            sleep(1)
            if (now := self.cpu()) - before < _IDLE:
                return monotonic() - 1
            before = now
        raise NotReady(f"the master was not idle within {_START_SECONDS:.0f} s")

    def count(self, query: str) -> int:
        """What a query of the master's database counts, past the master."""
        with closing(sqlite3.connect(self.directory / "master/state.sqlite", timeout=30)) as connection:
            return int(connection.execute(query).fetchone()[0])

    def ask_for_all(self) -> None:
        """Press the button 'all cells of the label nightly'."""
        first = self.master._get("builders", "builders", name="debian-1-x86_64")[0]["builderid"]
        wish = {"builderid": str(first), "branch": "trunk", "revision": "1", LABEL: Label.NIGHTLY}
        order = {"id": 1, "jsonrpc": "2.0", "method": FORCE, "params": wish}
        url = f"{self.master.base}api/v2/forceschedulers/{FORCE}"
        httpx.post(url, json=order, trust_env=False, timeout=_NIGHT_SECONDS).raise_for_status()

    def requests(self) -> int:
        return self.count("SELECT count(*) FROM buildrequests")

    def ended(self) -> int:
        """How many builds of cells have ended."""
        return self.count(
            "SELECT count(*) FROM builds JOIN builders ON builders.id = builderid "
            "WHERE builders.name != 'lint' AND builds.complete_at IS NOT NULL AND results = 0"
        )


def measure(directory: Path, cells: int, builds: int, slots: int) -> Figures:
    """All figures of a farm of so many cells."""
    profiles = directory / "profiles"
    write_profiles(profiles, cells)
    (directory / "tree").mkdir()
    (directory / "tree/README").write_text("A tree that is never installed.\n", encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(demo.farm, "STANDIN", directory)
        with BenchFarm(directory / "farm", profiles, slots) as farm:
            passed = Verdict(run_id="x", cell="x", source="x", revision="1", outcome=Outcome.PASSED, sentence="passed")
            passed.save(farm.directory)
            (farm.directory / VERDICT_FILE).rename(farm.directory / "verdict")
            found = {"checkconfig, CPU s": _checkconfig(farm)} | farm.figures
            found |= _reconfigure(farm, cells)
            found["memory, MiB"] = farm.memory()
            found |= _night(farm, cells, builds)
            found["memory after the builds, MiB"] = farm.memory()
            found |= _restart(farm)
            return found


def _checkconfig(farm: BenchFarm) -> float:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [str(Path(sys.executable).parent / "buildbot"), "checkconfig", str(farm.directory / "master")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=_START_SECONDS)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        raise NotReady(f"checkconfig ended with status {done.returncode}: {(done.stdout + done.stderr)[-500:]}")
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def _reconfigure(farm: BenchFarm, cells: int) -> Figures:
    """One cell is taken out of the night."""
    write_profiles(farm.profiles, cells, changed=cells // 2)
    log = farm.directory / "master.log"
    size, before, begun = log.stat().st_size, farm.cpu(), monotonic()
    os.kill(farm.master_server.pid, signal.SIGHUP)
    _wait(lambda: b"configuration update complete" in log.read_bytes()[size:], "the reconfiguration")
    seconds = monotonic() - begun
    farm.settle()
    return {"one cell changes, s": seconds, "one cell changes, CPU s": farm.cpu() - before}


def _night(farm: BenchFarm, cells: int, builds: int) -> Figures:
    """From the first build that has ended to the last of so many; a request waits for every other cell."""
    before, begun = farm.cpu(), monotonic()
    farm.ask_for_all()
    wanted = cells - 1  # one has been taken out
    _wait(lambda: farm.requests() >= wanted, "a request for every cell", _NIGHT_SECONDS)
    print(f"  {wanted} requests after {monotonic() - begun:.0f} s, {farm.cpu() - before:.1f} CPU s", flush=True)
    nothing: Figures = {"builds per minute": 0.0, "CPU s per build": None}
    try:
        _wait(lambda: farm.ended() > 0, "a first build", _NIGHT_SECONDS)
    except NotReady:
        return nothing
    first, cpu, begun = farm.ended(), farm.cpu(), monotonic()
    wanted = min(first + builds, wanted)
    try:
        _wait(lambda: farm.ended() >= wanted, f"{wanted} builds", _NIGHT_SECONDS)
    except NotReady as error:
        print(f"  {error.sentence}", flush=True)
    ended = farm.ended() - first
    if not ended:
        return nothing
    return {"builds per minute": ended * 60 / (monotonic() - begun), "CPU s per build": (farm.cpu() - cpu) / ended}


def _restart(farm: BenchFarm) -> Figures:
    """Of a master with a history, whose requests wait: until its page answers."""
    if not farm.master_server.stop(_START_SECONDS):
        raise NotReady(f"the master did not end within {_START_SECONDS:.0f} s")
    farm.worker.stop(15)
    begun = monotonic()
    farm.master_server.start_again()
    farm.master_server.wait_until(farm.master.answers, "serving its web page", _START_SECONDS)
    seconds = monotonic() - begun
    farm.settle()
    return {"restart, s": seconds, "restart, CPU s": farm.cpu()}


def _wait(ready: Callable[[], bool], what: str, seconds: float = _START_SECONDS) -> None:
    deadline = monotonic() + seconds
    while not ready():
        if monotonic() > deadline:
            raise NotReady(f"timed out after {seconds:.0f} s waiting for {what}")
        sleep(0.2)


def rows(found: dict[int, Figures], before: dict[int, Figures]) -> list[list[str]]:
    """A heading, then a line for each measure; beside each figure that of `before`, and the ratio."""
    heading = ["measure"]
    for cells in found:
        old = [f"{cells} cells before"] if cells in before else []
        heading += [*old, f"{cells} cells", *(["ratio"] if old else [])]
    lines = [heading]
    for name in next(iter(found.values()), {}):
        line = [name]
        for cells, figures in found.items():
            now = figures.get(name)
            if cells in before:
                old_one = before[cells].get(name)
                line += [_shown(old_one), _shown(now), f"{now / old_one:.2f}" if now and old_one else "-"]
            else:
                line.append(_shown(now))
        lines.append(line)
    return lines


def _shown(figure: float | None) -> str:
    return "-" if figure is None else f"{figure:.0f}" if figure >= 100 else f"{figure:.2f}"


def show(lines: Sequence[Sequence[str]], *, markdown: bool) -> None:
    """Print them as a table."""
    heading, *others = lines
    if markdown:
        print("\n".join(f"| {' | '.join(line)} |" for line in (heading, ["---"] * len(heading), *others)))
        return
    table = Table(title=f"the master; one worker, load {os.getloadavg()[0]:.1f}")
    for column in heading:
        table.add_column(column, justify="left" if column == "measure" else "right")
    for line in others:
        table.add_row(*line)
    Console().print(table)


def main() -> int:
    """Prints a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", default="15,150,1500", help="numbers of cells, with commas (%(default)s)")
    parser.add_argument("--builds", type=int, default=150, help="builds that are waited for (%(default)s)")
    parser.add_argument("--slots", type=int, default=4, help="clusters at a time on the worker (%(default)s)")
    parser.add_argument("--json", type=Path, help="keep the figures in this file")
    parser.add_argument("--before", type=Path, help="figures of an earlier run")
    parser.add_argument("--markdown", action="store_true", help="print the table as Markdown")
    options = parser.parse_args()
    before: dict[int, Figures] = {}
    if options.before:
        before = {int(cells): figures for cells, figures in json.loads(options.before.read_text()).items()}
    found: dict[int, Figures] = {}
    try:
        for cells in (int(word) for word in options.cells.split(",")):
            print(f"{cells} cells, load {os.getloadavg()[0]:.1f}", flush=True)
            with tempfile.TemporaryDirectory(prefix="bench-master-") as directory:
                found[cells] = measure(Path(directory), cells, options.builds, options.slots)
            print(f"  {found[cells]}", flush=True)
            if options.json:
                options.json.write_text(json.dumps(found, indent=1), encoding="utf-8")
    except FarmError as error:
        print(error.explain(), file=sys.stderr)
        return 20
    show(rows(found, before), markdown=options.markdown)
    return 0


if __name__ == "__main__":
    sys.exit(main())
