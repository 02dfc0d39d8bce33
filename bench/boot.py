"""What the farm costs a head node while it boots: the machine as a run starts it, beside a QEMU without all that.

    python -m bench.boot [--rounds N]

Both boot the same image from the same seed with the same arguments, in turns, to the login prompt. The bare QEMU has no
control socket, no sandbox, no limits and root's privileges; nobody looks at it but at its console. Seconds are of the
clock, and of the processor as the kernel counted them for QEMU. Compare the ratios of one run: machines are noisy, and
the processor's seconds are less so.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from oscar_steps.errors import FarmError, HostError
from oscar_steps.images.seed import write_seed
from oscar_steps.images.store import ImageStore
from oscar_steps.matrix.cells import load_matrix
from oscar_steps.oscar.logs.nodeconsole import SignKind, classify
from oscar_steps.testdriver.head.console import follow_console, last_lines
from oscar_steps.v3m.boot import BootPlan
from oscar_steps.v3m.host import ledger
from oscar_steps.v3m.host.accelerator import Accelerator, emulator, find_accelerator
from oscar_steps.v3m.host.confinement import SANDBOX
from oscar_steps.v3m.profiles.cluster import ClusterProfile, load_cluster
from oscar_steps.v3m.qemu.command import qemu_arguments
from oscar_steps.v3m.qemu.machine import QemuMachine
from oscar_steps.v3m.qemu.network import VLAN_DIRECTORY, MachineNetwork, plan

CHECKOUT = Path(__file__).parent.parent
LIMIT = 600.0
QMP_FD = 3
"""Named in the arguments that the bare QEMU does not get."""
Started = tuple[int, Coroutine[Any, Any, object]]
"""QEMU's pid, and what waits for its end."""


@dataclass(frozen=True)
class Cost:
    """Seconds of one boot, from the start of the process to the login prompt."""

    wall: float
    cpu: float


@dataclass(frozen=True)
class Bench:
    """What all boots share."""

    cluster: ClusterProfile
    image: Path
    seed: Path
    accelerator: Accelerator
    directory: Path

    async def cost(self, way: str, number: int) -> Cost:
        """Boot once. Raises HostError where the login prompt does not come."""
        directory = self.directory / f"{way}-{number}"
        for folder in ("console", VLAN_DIRECTORY):
            (directory / folder).mkdir(mode=0o700, parents=True)
        head = self.cluster.head
        lines = plan(self.cluster)[head.name]
        machine = QemuMachine(head, directory, self.accelerator, lines, base_image=self.image, seed=self.seed)
        await machine.create()
        start = _farms(machine) if way == "farm" else self._bare(machine, lines, directory)
        began = time.monotonic()
        async with start as (pid, ended):
            try:
                async with asyncio.timeout(LIMIT):
                    await _login_prompt(machine.console, ended)
            except TimeoutError:
                raise HostError(f"{way}: timed out after {LIMIT:.0f} s waiting for the login prompt") from None
            return Cost(time.monotonic() - began, _cpu_seconds(pid))

    @asynccontextmanager
    async def _bare(self, machine: QemuMachine, lines: MachineNetwork, directory: Path) -> AsyncIterator[Started]:
        console = str(machine.console.relative_to(directory))
        boot = BootPlan(seed=self.seed)
        arguments = qemu_arguments(
            machine.profile, lines, self.accelerator, boot, console=console, qmp_fd=QMP_FD, directory=directory
        )
        process = await asyncio.create_subprocess_exec(
            *ledger.owned([emulator(), *_without_ours(arguments)]),
            cwd=directory,
            stdin=asyncio.subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            yield process.pid, process.wait()
        finally:
            if process.returncode is None:
                process.kill()
            await process.wait()


@asynccontextmanager
async def _farms(machine: QemuMachine) -> AsyncIterator[Started]:
    try:
        await machine.boot()
        assert machine.pid is not None
        yield machine.pid, machine.wait_ended()
    finally:
        await machine.destroy()


def _without_ours(arguments: list[str]) -> list[str]:
    """The same machine, which starts by itself, without the control socket and the sandbox. Raises ValueError where
    one of them is not among the arguments."""
    left = list(arguments)
    monitor = ("-chardev", f"socket,id=qmp,fd={QMP_FD}", "-mon", "chardev=qmp,mode=control")
    for ours in (("-S",), monitor, SANDBOX):
        at = next(i for i in range(len(left)) if tuple(left[i : i + len(ours)]) == ours)
        del left[at : at + len(ours)]
    return left


async def _login_prompt(console: Path, ended: Coroutine[Any, Any, object]) -> None:
    """Wait for it. Raises HostError where QEMU ends before."""
    prompt, end = asyncio.create_task(_prompt_of(console)), asyncio.create_task(ended)
    try:
        await asyncio.wait({prompt, end}, return_when=asyncio.FIRST_COMPLETED)
        if not prompt.done():
            raise HostError(f"QEMU ended before the login prompt; its console ends with {last_lines(console, 3)[1]}")
        prompt.result()
    finally:
        prompt.cancel()
        end.cancel()


async def _prompt_of(console: Path) -> None:
    async for line in follow_console(console):
        sign = classify(line)
        if sign and sign.kind is SignKind.LOGIN_PROMPT:
            return


def _cpu_seconds(pid: int) -> float:
    """Of the process so far, user and system."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def measure(rounds: int, directory: Path) -> dict[str, list[Cost]]:
    """The costs of each way, in turns. Raises HostError, ToolMissing, ImageBuildFailed."""
    matrix = load_matrix(CHECKOUT / "profiles")
    cell = matrix.cells[0]
    image = await ImageStore().ensure(matrix.image(cell), print)
    cluster = load_cluster(matrix.cluster_path(cell)).resized(1)
    seed = directory / "seed.img"
    write_seed(
        seed,
        hostname="oscarhead",
        domain="oscardomain",
        head_address="10.0.0.1",
        netmask="255.255.255.0",
        network="ifupdown",
    )
    accelerator = await find_accelerator(directory / "cache", image.kernel)
    print(f"{cell.name}, {accelerator.name}, {rounds} rounds, load {os.getloadavg()[0]:.1f}", flush=True)
    bench = Bench(cluster, image.path, seed, accelerator, directory)
    costs: dict[str, list[Cost]] = {"bare": [], "farm": []}
    for number in range(rounds):
        for way in sorted(costs, reverse=number % 2 == 1):
            cost = await bench.cost(way, number)
            costs[way].append(cost)
            print(f"{number} {way}: {cost.wall:.1f} s, processor {cost.cpu:.1f} s", flush=True)
    return costs


def table(costs: dict[str, list[Cost]]) -> Table:
    """Medians; the ratios are those of each round's pair, of which the median is shown."""
    shown = Table(title="a head node's boot, to its login prompt")
    for heading in ("way", "wall s", "ratio", "processor s", "ratio"):
        shown.add_column(heading, justify="left" if heading == "way" else "right")
    for way, these in costs.items():
        cells = [way]
        for seconds in (_walls, _cpus):
            pairs = zip(seconds(these), seconds(costs["bare"]), strict=True)
            ratio = statistics.median(one / other for one, other in pairs)
            cells += [f"{statistics.median(seconds(these)):.1f}", f"{ratio:.3f}"]
        shown.add_row(*cells)
    return shown


def _walls(costs: list[Cost]) -> list[float]:
    return [cost.wall for cost in costs]


def _cpus(costs: list[Cost]) -> list[float]:
    return [cost.cpu for cost in costs]


def main() -> int:
    """Prints a table; ends with status 20 where the host does not let us measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="boots of each way (%(default)s)")
    rounds = parser.parse_args().rounds
    if rounds < 1:
        parser.error("--rounds has to be 1 or more")
    try:
        with tempfile.TemporaryDirectory(prefix="bench-boot-") as directory:
            Console().print(table(asyncio.run(measure(rounds, Path(directory)))))
    except FarmError as error:
        print(error.explain(), file=sys.stderr)
        return 20
    return 0


if __name__ == "__main__":
    sys.exit(main())
