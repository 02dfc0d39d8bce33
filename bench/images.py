"""What a base image costs: cold, warm, one file of ours changed, one package more, many at once, a store that is full.

    python -m bench.images [--recipe RECIPE.toml] [--rounds N] [--markdown]

Beside it, in turns with the cold builds: mmdebstrap alone of the same packages, with and without those of the pool, and
debvm-create. The ratios are those of one run, so they hold on busy machines, too. A run takes a quarter of an hour.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import resource
import shlex
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console
from rich.table import Table

from oscar_steps.errors import FarmError, ImageBuildFailed
from oscar_steps.guest import guest_path
from oscar_steps.images import lease, room
from oscar_steps.images.jail import run_jailed
from oscar_steps.images.kinds.bootstrap import host_sources, sources_for
from oscar_steps.images.store import BaseImage, ImageStore
from oscar_steps.matrix.recipes import BootstrapRecipe, load_recipe
from oscar_steps.v3m import disks

CHECKOUT = Path(__file__).parent.parent
REFERENCE = "mmdebstrap alone, packages and pool"
EXTRA = "htop"


@dataclass(frozen=True)
class Cost:
    """Seconds."""

    wall: float
    cpu: float


@dataclass
class Costs:
    """Way to its costs, one for each round, and what else there is to say of it."""

    of: dict[str, list[Cost]] = field(default_factory=dict)
    notes: dict[str, str] = field(default_factory=dict)

    @contextmanager
    def measured(self, way: str) -> Iterator[None]:
        wall, cpu = time.monotonic(), _cpu()
        yield
        cost = Cost(time.monotonic() - wall, _cpu() - cpu)
        self.of.setdefault(way, []).append(cost)
        print(f"{way}: {cost.wall:.2f} s, processor {cost.cpu:.2f} s", flush=True)


def _cpu() -> float:
    """Processor seconds of this process and of its children that have ended."""
    usages = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def _quiet(_line: str) -> None:
    pass


async def mmdebstrap(recipe: BootstrapRecipe, place: Path, costs: Costs, *, pool: bool) -> None:
    """What our build starts, without anything of ours."""
    hook = f'sh {shlex.quote(str(guest_path("apt/pool.sh")))} "$1" {recipe.pool_folder} {shlex.join(recipe.pool)}'
    command = [
        *("mmdebstrap", "--mode=root", "--variant=minbase", f"--architectures={recipe.native}"),
        *("--dpkgopt=force-unsafe-io", '--aptopt=Acquire::Check-Valid-Until "false"'),
        f"--include={','.join(recipe.packages)}",
        *((f"--customize-hook={hook}",) if pool else ()),
        *(recipe.suite, str(place / "plain.tar"), *sources_for(recipe, await host_sources())),
    ]
    with costs.measured(REFERENCE if pool else "mmdebstrap alone, packages"):
        await run_jailed(command, place / "plain.log")
    (place / "plain.tar").unlink()


async def debvm(recipe: BootstrapRecipe, place: Path, costs: Costs) -> None:
    """debvm-create of the same packages; where it does not end well, why."""
    way, disk = "debvm-create, packages", place / "debvm.img"
    if shutil.which("debvm-create") is None:
        costs.notes[way] = "not installed"
        return
    command = ["debvm-create", "-r", recipe.suite, "-o", str(disk), "-z", f"{recipe.disk_mib}M", "--"]
    command += [f"--include={','.join(recipe.packages)}", '--aptopt=Acquire::Check-Valid-Until "false"']
    try:
        with costs.measured(way):
            await run_jailed(command, place / "debvm.log")
    except ImageBuildFailed as failure:
        costs.notes[way] = failure.sentence
    disk.unlink(missing_ok=True)


async def ours(recipe: BootstrapRecipe, place: Path, costs: Costs) -> None:
    """Cold, then what a store that has the image makes of small changes."""
    store = ImageStore(place / "store")

    async def image(way: str, changed: BootstrapRecipe) -> BaseImage:
        with costs.measured(way):
            return await store.ensure(changed, _quiet)

    await image("cold", recipe)
    await store.ensure(recipe, _quiet)  # the mirror's answer may be too old by now
    with costs.measured("warm, with an overlay"):
        again = await store.ensure(recipe, _quiet)
        await disks.create_overlay(again.path, place / "overlay.qcow2")
    (place / "overlay.qcow2").unlink()
    mine = recipe.model_copy(update={"masked_units": recipe.masked_units[:-1]})
    more = recipe.model_copy(update={"packages": (*recipe.packages, EXTRA)})
    for way, changed in (("one file of ours changed", mine), (f"one package more ({EXTRA})", more)):
        made = await image(way, changed)
        if not made.record.base:
            costs.notes[way] = "not made on a layer"
    del again, made
    shutil.rmtree(place / "store", onerror=_made_writable)


def _made_writable(remove: object, path: str, _error: object) -> None:
    Path(path).parent.chmod(0o700)
    Path(path).chmod(0o700)
    if callable(remove):
        remove(path)


async def eight_at_once(recipe: BootstrapRecipe, place: Path, costs: Costs) -> None:
    """Eight processes that want two images, in an empty store."""
    way = "eight at once, of two keys"
    files = []
    for number in range(2):
        files.append(place / f"recipe-{number}.json")
        changed = recipe.model_copy(update={"name": f"{recipe.name}-{number}"})
        files[-1].write_text(changed.model_dump_json())
    with costs.measured(way):
        builders = [_builder(files[number % 2], place / "store") for number in range(8)]
        ended = [builder.wait() for builder in builders]
    built = len(room.entries(place / "store"))
    costs.notes[way] = f"{built} images built, {ended.count(0)} of 8 got theirs"


_BUILDER = """
import asyncio, sys
from pathlib import Path
from oscar_steps.images.store import ImageStore
from oscar_steps.matrix.recipes import BootstrapRecipe
recipe = BootstrapRecipe.model_validate_json(Path(sys.argv[1]).read_bytes())
asyncio.run(ImageStore(Path(sys.argv[2])).ensure(recipe, lambda line: None))
"""


def _builder(recipe: Path, store: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", _BUILDER, recipe, store], cwd=CHECKOUT)


async def full_store(recipe: BootstrapRecipe, place: Path, costs: Costs) -> None:
    """Two builds more in the store of `eight_at_once`, the second with room for three images only. The least recently
    used one is in use."""
    store = ImageStore(place / "store")
    used = room.entries(store.directory)[0]
    held = lease.lease(used.folder)
    third, fourth = (recipe.model_copy(update={"masked_units": recipe.masked_units[:-less]}) for less in (1, 2))
    made = (await store.ensure(third, _quiet)).digest  # nobody uses it any more
    way, said = "one more in a full store, the oldest in use", list[str]()
    taken = room.used_bytes(room.entries(store.directory))
    os.environ[room.LIMIT_VARIABLE] = f"{1.05 * taken / 2**30:f}"  # no two images are of the very same size
    with costs.measured(way):
        last = await store.ensure(fourth, said.append)
    del os.environ[room.LIMIT_VARIABLE]
    gone = [line for line in said if line.startswith("to make room")]
    left = {entry.key for entry in room.entries(store.directory)}
    right = held is not None and left == {used.key, made, last.digest}
    which = "the oldest of the others" if right else "THE WRONG ONE"
    costs.notes[way] = f"{which} went, {len(gone)} of 4"
    shutil.rmtree(store.directory, onerror=_made_writable)


async def measure(recipe: BootstrapRecipe, rounds: int, place: Path) -> Costs:
    costs = Costs()
    print(f"{recipe.name}, {rounds} rounds, load {os.getloadavg()[0]:.1f}", flush=True)
    steps: list[Awaitable[None]] = []
    for number in range(rounds):
        both = [mmdebstrap(recipe, place, costs, pool=True), ours(recipe, place, costs)]
        steps += both if number % 2 == 0 else reversed(both)
    steps += [mmdebstrap(recipe, place, costs, pool=False), debvm(recipe, place, costs)]
    steps += [eight_at_once(recipe, place, costs), full_store(recipe, place, costs)]
    for step in steps:
        await step
    return costs


def rows(costs: Costs) -> list[tuple[str, ...]]:
    """Medians, and their ratios to the reference."""
    reference = Cost(*_medians(costs.of[REFERENCE]))
    found = list[tuple[str, ...]]()
    for way in dict.fromkeys((*costs.of, *costs.notes)):
        these = costs.of.get(way, [])
        numbers = ("-", "-", "-", "-")
        if these:
            wall, cpu = _medians(these)
            numbers = (f"{wall:.2f}", f"{wall / reference.wall:.3f}", f"{cpu:.2f}", f"{cpu / reference.cpu:.3f}")
        found.append((way, *numbers, costs.notes.get(way, "")))
    return found


def _medians(these: list[Cost]) -> tuple[float, float]:
    return statistics.median(cost.wall for cost in these), statistics.median(cost.cpu for cost in these)


HEADINGS = ("way", "wall s", "ratio", "processor s", "ratio", "")


def main() -> int:
    """Prints a table; ends with status 20 where the host does not let us measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    default = CHECKOUT / "profiles/images/debian-12-x86_64.toml"
    parser.add_argument("--recipe", type=Path, default=default, help="a recipe of the kind 'bootstrap'")
    parser.add_argument("--rounds", type=int, default=1, help="cold builds, in turns with mmdebstrap (%(default)s)")
    parser.add_argument("--markdown", action="store_true", help="the table in Markdown")
    words = parser.parse_args()
    if words.rounds < 1:
        parser.error("--rounds has to be 1 or more")
    try:
        recipe = load_recipe(words.recipe)
        if not isinstance(recipe, BootstrapRecipe):
            parser.error("the recipe has to be of the kind 'bootstrap'")
        with tempfile.TemporaryDirectory(prefix="bench-images-", ignore_cleanup_errors=True) as place:
            found = rows(asyncio.run(measure(recipe, words.rounds, Path(place))))
    except FarmError as error:
        print(error.explain(), file=sys.stderr)
        return 20
    if words.markdown:
        lines = [HEADINGS, ("---", "---:", "---:", "---:", "---:", "---"), *found]
        print("\n".join(f"| {' | '.join(line)} |" for line in lines))
        return 0
    table = Table(title=f"the base image {recipe.name}; ratio: to {REFERENCE}")
    for heading in HEADINGS:
        table.add_column(heading, justify="right" if heading in HEADINGS[1:5] else "left")
    for line in found:
        table.add_row(*line)
    with suppress(BrokenPipeError):
        Console().print(table)
    return 0


if __name__ == "__main__":
    sys.exit(main())
