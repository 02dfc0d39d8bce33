"""What goes into a machine and comes out of it: CDs, its console, screenshots, its state."""

from __future__ import annotations

import os
import sys
from functools import partial
from pathlib import Path

import click

from oscar_steps.errors import ImpossibleTransition, ProfileError
from oscar_steps.v2m import terminal
from oscar_steps.v2m.requests import ask_each, cd_file, daemon_of, living_daemon_of, profile_request, state_line
from oscar_steps.v2m.target import Target, about_one, find_one
from oscar_steps.v3m import consoleview

_END = """
    \b
    Exit status:
       0  done
       2  the command line itself is wrong
       3  the machine's state forbids it
      20  the host's fault, e.g. a file cannot be written
      64  FILE is not valid, or has several machines and --machine does not say which
"""


def _with_exits(text: str) -> str:
    return text + _END


@click.command(
    help=_with_exits("""Print what the machine has written to its serial console, in all boots.

    The output has no colours, cursor movements and other control sequences, unless you give --raw. A full-screen
    program needs --raw. The log keeps 16 MiB: its beginning and its end.

    \b
    Examples:
      v2m console vm.xml
      v2m console vm.xml --lines 20
      v2m console vm.xml --follow               until the machine is off, or Ctrl-C
      v2m console vm.xml --type                 log in on it; Ctrl-] leaves it
      v2m console vm.xml --type --raw           the same, with colours, for a guest that you trust
    """)
)
@about_one
@click.option("-f", "--follow", is_flag=True, help="Follow the console until the machine is off.")
@click.option("-n", "--lines", type=click.IntRange(min=0), help="Only the last lines.")
@click.option("-t", "--type", "types", is_flag=True, help="What you type goes to the machine; Ctrl-] leaves it.")
@click.option("--raw", is_flag=True, help="Also pass on the guest's control sequences to your terminal.")
def console(
    file: Path, name: str | None, system: str | None, follow: bool, lines: int | None, types: bool, raw: bool
) -> None:
    target, machine = find_one(file, name, system)
    if types:
        with living_daemon_of(target, "connected to") as link:
            answer = link.ask({"do": "terminal", "machine": machine.name})
            terminal.talk(Path(answer["socket"]), raw=raw)
        return
    path = target.system.directory / "console" / f"{machine.name}.log"
    if not path.is_file():
        raise ImpossibleTransition(
            f"{machine.name} has no console: it was never booted", hint="`v2m boot` powers it on"
        )
    is_on = partial(_is_on, target, machine.name)
    consoleview.show(path, sys.stdout.buffer, raw=raw, lines=lines, goes_on=is_on if follow else None)


def _is_on(target: Target, name: str) -> bool:
    if not target.system.is_kept():
        return False
    record = target.system.records().get(name)
    return record is not None and record.on_since_boot is not None


@click.command(
    help=_with_exits("""Write what the machine's screen shows to PICTURE, as PNG.

    \b
    Examples:
      v2m screenshot vm.xml now.png
      v2m screenshot cluster.xml -m oscarnode1 node.png
    """)
)
@about_one
@click.argument("picture", type=click.Path(path_type=Path, dir_okay=False))
def screenshot(file: Path, name: str | None, system: str | None, picture: Path) -> None:
    target, machine = find_one(file, name, system)
    with living_daemon_of(target, "captured in a screenshot") as link:
        link.ask({"do": "screenshot", "machine": machine.name, "picture": str(picture.absolute())})
    click.echo(f"{machine.name}: {click.format_filename(picture)}")


@click.command(
    "insert-cd",
    help=_with_exits("""Put the CD ISO into the drive of a machine that is on, in place of the one that is in it.

    A machine has a drive when its profile names a <cdrom>, or its boot did (v2m boot --cdrom).

    \b
    Examples:
      v2m insert-cd vm.xml second.iso
    """),
)
@about_one
@click.argument("iso", type=click.Path(path_type=Path))
def insert_cd(file: Path, name: str | None, system: str | None, iso: Path) -> None:
    target, _ = find_one(file, name, system)
    ask_each(target, "insert-cd", "given a CD", cdrom=cd_file(iso))


@click.command(
    "eject-cd",
    help=_with_exits("""Take the CD out of the drive of a machine that is on, also where its guest has locked the drive.

    \b
    Examples:
      v2m eject-cd vm.xml
    """),
)
@about_one
def eject_cd(file: Path, name: str | None, system: str | None) -> None:
    target, _ = find_one(file, name, system)
    ask_each(target, "eject-cd", "asked for its CD")


@click.command(
    help=_with_exits("""Write a machine's memory and devices to the file STATE, and power it off.

    `v2m restore` continues at the very next instruction. Until then do not use its disk: the saved state no longer
    fits a disk that another boot has changed.

    \b
    Examples:
      v2m save vm.xml vm.state
    """)
)
@about_one
@click.argument("state", type=click.Path(path_type=Path))
def save(file: Path, name: str | None, system: str | None, state: Path) -> None:
    target, machine = find_one(file, name, system)
    with living_daemon_of(target, "saved") as link:
        answer = link.ask({"do": "save", "machine": machine.name, "state": str(state.absolute())})
    click.echo(f"{state_line(answer)}; its state is in {click.format_filename(state)}")


@click.command(
    help=_with_exits("""Resume a machine where `v2m save` stopped it.

    \b
    Examples:
      v2m restore vm.xml vm.state
    """)
)
@about_one
@click.argument("state", type=click.Path(path_type=Path))
def restore(file: Path, name: str | None, system: str | None, state: Path) -> None:
    target, machine = find_one(file, name, system)
    if not os.access(state, os.R_OK):
        raise ProfileError(f"the state {click.format_filename(state)} cannot be read", hint="`v2m save` makes it")
    with daemon_of(target.system, start=True) as link:
        assert link is not None
        answer = link.ask(profile_request(target, machine, "restore", state=str(state.absolute())))
    click.echo(state_line(answer))
