"""What this host can run, as tried: for a person, and for the worker, which carries it to the master."""

from __future__ import annotations

import shutil
from pathlib import Path

import click

from oscar_steps.capacity import INFO_FILE, Host, gib
from oscar_steps.environment import default_runs, default_store
from oscar_steps.errors import HostError
from oscar_steps.testdriver.cli.common import directory as _directory
from oscar_steps.testdriver.cli.common import explained as _explained
from oscar_steps.textio import write_atomically
from oscar_steps.v3m.boards import BOARDS, Board
from oscar_steps.v3m.host import eventloop
from oscar_steps.v3m.host.reservations import Reservation, Reservations, host_room
from oscar_steps.v3m.host.settings import load_settings
from oscar_steps.v3m.hypervisors import check_hypervisors


@click.command()
@click.option("--images", type=_directory(), default=default_store, help="Store of base images.")
@click.option("--runs", type=_directory(), default=default_runs, help="Folder with the run directories.")
@click.option("--json", "as_json", is_flag=True, help="What the host can run, as JSON.")
@click.option("--info", type=_directory(exists=True), help="A worker's folder `info`: write it there, for the master.")
@_explained
def host(images: Path, runs: Path, as_json: bool, info: Path | None) -> None:
    """Say what this host can run (architectures, hypervisors, memory, disk), and what is reserved of it.

    KVM is tried by booting a kernel, once per boot of the host.
    """
    found = eventloop.run(look(images, runs))
    if info is not None:
        write_atomically(info / INFO_FILE, found.model_dump_json() + "\n")
        write_atomically(info / "host", f"{found}\n")  # Buildbot's page of the worker shows this one
    elif as_json:
        click.echo(found.model_dump_json(indent=2))
    else:
        click.echo("\n".join([*lines_of(found), *_reserved(found)]))


async def look(images: Path, runs: Path) -> Host:
    """What the host can run. Raises ConfigError for its settings, HostError where no machine runs here at all."""
    checks = await check_hypervisors(images)
    works = [each.type for each in checks if each.works or (each.works is None and each.type == "Qemu")]
    by = "kvm" if "Kvm" in works else "tcg"
    room = host_room(load_settings(), emulated=by == "tcg")
    boards = {name: board.accelerator(by) for name, board in BOARDS.items() if _is_here(board)}
    if not boards or not works:
        why = next((f"{each.sentence}" for each in checks if each.type == "Qemu"), "QEMU is missing")
        raise HostError(
            f"no machine runs on this host: {why}", hint="`oscar-testdriver check-host` says what is missing"
        )
    return Host.model_validate(
        {
            "architectures": boards,
            "hypervisors": works,
            "memory_mib": room.memory_mib,
            "processors": int(room.processors),
            "runs_free_mib": _free_mib(runs),
            "store_free_mib": _free_mib(images),
        }
    )


def _is_here(board: Board) -> bool:
    """Whether QEMU's program is there, and the firmware without which no machine of the board starts."""
    return shutil.which(board.program) is not None and (board.bios or board.uefi is None or board.uefi.is_here)


def _free_mib(folder: Path) -> int:
    existing = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.is_dir())
    try:
        return shutil.disk_usage(existing).free >> 20
    except OSError:
        return 0


def lines_of(found: Host) -> list[str]:
    """For a person."""
    names = ", ".join(f"{name} ({'KVM' if by == 'kvm' else 'emulated'})" for name, by in found.architectures.items())
    return [
        f"architectures  {names}",
        f"hypervisors    {', '.join(found.hypervisors)}",
        f"memory         {gib(found.memory_mib)} for machines",
        f"processors     {found.processors} of guests at a time",
        f"disk           {gib(found.runs_free_mib)} free for runs, {gib(found.store_free_mib)} for base images",
    ]


def _reserved(found: Host) -> list[str]:
    there = eventloop.run(Reservations.of_host(emulated="kvm" not in found.architectures.values()).all())
    return [f"reserved       {_line(each)}" for each in there] or ["reserved       nothing"]


def _line(each: Reservation) -> str:
    waits = "" if each.granted else ", waits for it"
    return f"{each} (process {each.pid}): {gib(each.memory_mib)}, {each.processors:g} processors{waits}"
