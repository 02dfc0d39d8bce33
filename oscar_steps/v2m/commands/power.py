"""The life of machines: made, powered on, installed, stopped, destroyed."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

import click

from oscar_steps.errors import HostError, ProfileError
from oscar_steps.v2m.exits import EXIT_NOT_INSTALLED
from oscar_steps.v2m.requests import (
    OFF,
    Answer,
    ask_each,
    cd_file,
    daemon_of,
    print_json,
    profile_request,
    state_line,
)
from oscar_steps.v2m.target import Target, about_machines, find, json_option
from oscar_steps.v3m import disks
from oscar_steps.v3m.host import eventloop
from oscar_steps.v3m.profiles.vm import VMProfile
from oscar_steps.v3m.qemu import firmware

_INSTALL_SECONDS = 3600.0
cdrom_option = click.option(
    "--cdrom", metavar="ISO", type=click.Path(path_type=Path), help="The CD in the drive, in place of the profile's."
)


@click.command()
@about_machines
@json_option
def create(file: Path, names: tuple[str, ...], system: str | None, as_json: bool) -> None:
    """Make the blank disks that FILE names, of the size that it gives.

    Disks are in qcow2 format. A Xen guest's disk is raw if its name does not end in .qcow2, because Xen reads it so.
    The command never overwrites a disk. It records the disks that it makes, and `v2m destroy` deletes them.

    \b
    Examples:
      v2m create vm.xml
      v2m create cluster.xml --machine oscarnode1
      v2m create --json vm.xml | jq -r '.[].disk'

    \b
    Exit status:
       0  every disk was made
       2  the command line itself is wrong
      20  a disk is there already or cannot be made; earlier ones of FILE are made
      64  FILE is not valid, or does not say how big a disk is to be
    """
    target = find(file, names, system)
    made: list[Answer] = []
    try:
        for machine in target.machines:
            make_disk(target, machine)
            made.append({"machine": machine.name, "disk": machine.image.path, "size_mib": machine.image.size_mib})
            if not as_json:
                click.echo(f"{machine.name}: made {machine.image.path} ({machine.image.size_mib} MiB)")
    finally:
        if as_json:
            print_json(target.system, made)


def make_disk(target: Target, machine: VMProfile) -> None:
    """Make a machine's disk and write that down. Raises ProfileError without a size, HostError where it cannot be."""
    image = machine.image
    if image.size_mib is None:
        what = f"{target.source}: the disk {image.path} of {machine.name} cannot be made: its size is missing"
        raise ProfileError(what, hint='add it, in MiB: <image size="4096">')
    if machine.type == "VMWare":
        what = f"{target.source}: {machine.name} is a VMware guest, and its disk {image.path} is missing"
        raise ProfileError(what, hint=f"make it: qemu-img create -f vmdk {image.path} {image.size_mib}M")
    from oscar_steps.v3m.libvirt.domain import disk_format, is_libvirts  # with them come the host's settings

    target.system.make()
    form = disk_format(image.path) if is_libvirts(machine) else "qcow2"
    eventloop.run(disks.create_disk(Path(image.path), image.size_mib, form))
    made_file = disks.file_identity(Path(image.path))
    target.system.update(machine.name, profile=str(target.file), made=image.path, made_file=made_file)


@click.command()
@about_machines
@cdrom_option
@json_option
def boot(file: Path, names: tuple[str, ...], system: str | None, cdrom: Path | None, as_json: bool) -> None:
    """Power machines on: all of FILE, the head node of a cluster first.

    The command returns when the processors run; `v2m console` shows how far the guests have booted. The machines go on
    after this command. The v2m daemon of their system owns them, and ends with the last of them. Machines of one
    system see each other on their VLANs, from whichever file and in whatever order they are booted.

    \b
    Examples:
      v2m boot vm.xml
      v2m boot headnode.xml && v2m boot oscarnode1.xml      both on the VLAN of the system 'default'
      v2m boot cluster.xml --machine oscar-headnode
      v2m boot --system other vm.xml
      v2m boot --json vm.xml | jq -r '.[].ssh.port'

    \b
    Exit status:
       0  all run
       2  the command line itself is wrong
       3  one is on already, or its disk has not been made
      20  the host's fault, e.g. QEMU did not start
      64  FILE is not valid, or asks for what this host does not have
    """
    target = find(file, names, system)
    _ask_to_start(target, "boot", state_line, as_json, cdrom=_iso(cdrom))


def _ask_to_start(
    target: Target, do: str, line: Callable[[Answer], str], as_json: bool, **more: object
) -> list[Answer]:
    """Ask the daemon, and say for each machine what came of it, also where the next one is refused."""
    answers: list[Answer] = []
    try:
        with daemon_of(target.system, start=True) as link:
            assert link is not None
            for machine in target.machines:
                answer = link.ask(profile_request(target, machine, do, **more))
                answers.append({"machine": machine.name, **answer})
                if not as_json:
                    click.echo(line(answers[-1]))
                if (used := answer.get("accelerator")) and not used["tried"]:
                    click.echo(f"{machine.name}: {used['reason']}", err=True)
    finally:
        if as_json:
            print_json(target.system, answers)
    return answers


@click.command()
@about_machines
@click.option(
    "--from", "source", required=True, type=click.Choice(["cdrom", "network", "oscar"]),
    help="cdrom: the CD; network: the network boot of the first NIC on a VLAN; oscar: OSCAR's CD where there is one, "
    "else the network.",
)  # fmt: skip
@cdrom_option
@click.option("--limit", type=click.FloatRange(min=1), default=_INSTALL_SECONDS, show_default=True, help="Seconds.")
@click.option("--no-wait", is_flag=True, help="Return when the installer boots; do not look at the disk.")
@json_option
def install(
    file: Path,
    names: tuple[str, ...],
    system: str | None,
    source: str,
    cdrom: Path | None,
    limit: float,
    no_wait: bool,
    as_json: bool,
) -> None:
    """Install machines from a CD, from the network, or by OSCAR, one after the other, and check the result.

    The command makes a missing disk first. The machine tries its blank disk, and then boots from the CD or the network.
    Its first reboot or power-off ends the installation. The command then checks that the disk has changed and is
    bootable. `v2m boot` starts what was installed. If you interrupt this command, the installation goes on.

    \b
    Examples:
      v2m install vm.xml --from cdrom                          the CD that the profile names
      v2m install vm.xml --from cdrom --cdrom debian.iso
      v2m install cluster.xml --from oscar -m oscarnode1       its head node runs, and waits for it
      v2m install node.xml --from network --limit 900

    \b
    Exit status:
       0  all are installed (with --no-wait: their installers boot)
       1  one has ended, or was ended after --limit, and is not installed; it is off
       2  the command line itself is wrong
       3  one is on, or its disk has a system already
      20  the host's fault
      64  FILE is not valid, or there is nothing to install from
    """
    target, more = find(file, names, system), {"install": source, "cdrom": _iso(cdrom)}
    for machine in target.machines:
        if not Path(machine.image.path).exists() and machine.image.size_mib is not None:
            make_disk(target, machine)
            click.echo(f"{machine.name}: made {machine.image.path} ({machine.image.size_mib} MiB)", err=as_json)
    if no_wait:
        _ask_to_start(target, "install", state_line, as_json, **more, wait=False)
        return
    answers = _ask_to_start(target, "install", _installation_line, as_json, **more, limit=limit)
    if not all(answer["succeeded"] for answer in answers):
        sys.exit(EXIT_NOT_INSTALLED)


def _installation_line(answer: Answer) -> str:
    if answer["succeeded"]:
        return f"{answer['machine']}: installed"
    ended = f"its boot ended by {answer['ended']}"
    if answer["after"]["first_mib_sha256"] == answer["before"]["first_mib_sha256"]:
        return f"{answer['machine']}: not installed: {ended}, and its disk is as it was"
    bootable = "" if answer["after"]["bootable"] else ", and its disk is not bootable"
    return f"{answer['machine']}: not installed: {ended}{bootable}"


def _simple(name: str, do: str, done: str, text: str, then: str = "") -> click.Command:
    """A command that asks one thing of machines that are on. `then`: what it says beside their state."""

    @click.command(name, help=text)
    @about_machines
    @json_option
    def command(file: Path, names: tuple[str, ...], system: str | None, as_json: bool) -> None:
        ask_each(find(file, names, system), do, done, as_json=as_json, then=then)

    return command


_SIMPLE_EXITS = """
    \b
    Exit status:
       0  done
       2  the command line itself is wrong
       3  a machine is off, or otherwise in no state for it
      20  the host's fault, e.g. the daemon does not answer
      64  FILE is not valid
"""

pause = _simple(
    "pause", "pause", "paused",
    """Stop the processors of machines; their memory stays. `v2m unpause` resumes them.

    \b
    Examples:
      v2m pause vm.xml
      v2m pause cluster.xml --machine oscarnode1
""" + _SIMPLE_EXITS,
)  # fmt: skip
unpause = _simple(
    "unpause", "unpause", "unpaused",
    """Resume machines after `v2m pause`.

    \b
    Examples:
      v2m unpause vm.xml
""" + _SIMPLE_EXITS,
)  # fmt: skip
reset = _simple(
    "reset", "reset", "reset",
    """Press the reset button of machines: their guests get no warning.

    \b
    Examples:
      v2m reset vm.xml
""" + _SIMPLE_EXITS,
)  # fmt: skip
shut_down = _simple(
    "shut-down", "shut-down", "shut down",
    """Press the power button of machines: a guest may power itself off, or not. This command does not wait for it.

    It prints the state right after that, which most often is still running; `v2m status` later says what came of it.

    \b
    Examples:
      v2m shut-down vm.xml
""" + _SIMPLE_EXITS,
    then="; its power button was pressed, and its guest has to do the rest (v2m power-off pulls the plug)",
)  # fmt: skip


@click.command("power-off")
@about_machines
@json_option
def power_off(file: Path, names: tuple[str, ...], system: str | None, as_json: bool) -> None:
    """Pull the plug of machines. Disks stay. Nothing happens to one that is off.

    \b
    Examples:
      v2m power-off vm.xml
      v2m power-off cluster.xml --machine oscarnode2

    \b
    Exit status:
       0  all are off
       2  the command line itself is wrong
      20  the host's fault, e.g. the daemon does not answer
      64  FILE is not valid
    """
    target = find(file, names, system)
    answers = _switched_off(target)
    if as_json:
        print_json(target.system, answers)
        return
    for answer in answers:
        click.echo(state_line(answer))


def _switched_off(target: Target) -> list[Answer]:
    with daemon_of(target.system, start=False) as link:
        if link is not None:
            # The last in the profile first: a head node serves its nodes.
            for machine in reversed(target.machines):
                link.ask({"do": "power-off", "machine": machine.name})
    return [{"machine": machine.name, **OFF} for machine in target.machines]


@click.command()
@about_machines
@json_option
def destroy(file: Path, names: tuple[str, ...], system: str | None, as_json: bool) -> None:
    """Pull the plug of machines, and delete the disks that `v2m create` made.

    The command keeps a disk that `v2m create` did not make, also where it has replaced one that `v2m create` made, and
    says so. You can repeat the command at any time.

    \b
    Examples:
      v2m destroy vm.xml
      v2m destroy cluster.xml

    \b
    Exit status:
       0  the machines are gone
       2  the command line itself is wrong
      20  the host's fault, e.g. the daemon does not answer
      64  FILE is not valid
    """
    target = find(file, names, system)
    _switched_off(target)
    records = target.system.records()
    answers: list[Answer] = []
    for machine in target.machines:
        disk, record = Path(machine.image.path), records.get(machine.name)
        deleted = record is not None and record.has_made(machine.image.path)
        if deleted:
            _delete(machine, disk)
        (target.system.directory / firmware.variables(machine)).unlink(missing_ok=True)
        if record is not None:
            target.system.forget(machine.name)
        answers.append({"machine": machine.name, "disk": str(disk), "deleted": deleted, "kept": os.path.lexists(disk)})
        if not as_json:
            click.echo(f"{machine.name}: destroyed; {_fate(answers[-1])}")
    if as_json:
        print_json(target.system, answers)


def _delete(machine: VMProfile, disk: Path) -> None:
    if disk.is_file() and eventloop.run(disks.is_used(disk)):
        what = f"the disk {disk} of {machine.name} is not deleted: another machine uses it"
        raise HostError(what, hint="`v2m status` lists all systems; power that machine off first")
    try:
        disk.unlink(missing_ok=True)
    except OSError as error:
        raise HostError(f"the disk {disk} of {machine.name} cannot be deleted: {error.strerror}") from None


def _fate(answer: Answer) -> str:
    if answer["deleted"]:
        return f"its disk {answer['disk']} is deleted"
    if answer["kept"]:
        return f"its disk {answer['disk']} is kept, since `v2m create` did not make it"
    return f"it has no disk {answer['disk']}"


def _iso(cdrom: Path | None) -> str | None:
    return None if cdrom is None else cd_file(cdrom)
