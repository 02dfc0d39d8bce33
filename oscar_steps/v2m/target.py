"""Which machines a command is about: a profile's file, some names out of it, and the system that they belong to."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import click
from click.shell_completion import CompletionItem

from oscar_steps.errors import FarmError, UserError
from oscar_steps.v2m.daemon.state import DEFAULT_SYSTEM, SYSTEM_NAME, System, all_systems
from oscar_steps.v2m.reading import load
from oscar_steps.v3m.profiles.cluster import ClusterProfile
from oscar_steps.v3m.profiles.vm import VMProfile, beside

Command = TypeVar("Command", bound=Callable[..., Any])
_PLAIN_LENGTH = 48


@dataclass(frozen=True, slots=True)
class Target:
    """The machines of a file that are meant, the head node first. Files in their profiles are absolute.

    `source` is the file as the user wrote it; `file` the same, absolute: what a machine is known to come from.
    """

    system: System
    source: str
    file: Path
    machines: tuple[VMProfile, ...]


def find(file: Path, names: tuple[str, ...], system: str | None) -> Target:
    """The machines `names` of `file`, all of them where there are no names.

    Raises ProfileError for a file that is not valid, UserError for a name that is not in it, or that another file's
    machine has.
    """
    profiles = load(file)
    if isinstance(profiles, ClusterProfile):
        machines, own = profiles.machines, _system_of(profiles.name)
    else:
        machines, own = profiles, DEFAULT_SYSTEM
    known = [machine.name for machine in machines]
    source = click.format_filename(file)
    for name in names:
        if name not in known:
            raise UserError(f"{source} has no machine '{name}'; there are: {', '.join(known) or 'none'}")
    place = file.parent.resolve()  # whichever way leads there, it is one file
    chosen = [beside(place, machine) for machine in machines if not names or machine.name in names]
    target = Target(System(system or own), source, place / file.name, tuple(chosen))
    _check_strangers(target)
    return target


def one(target: Target) -> VMProfile:
    """The only machine that is meant. Raises UserError where there are several."""
    if len(target.machines) != 1:
        names = ", ".join(machine.name for machine in target.machines) or "none"
        raise UserError(f"{target.source} has the machines {names}", hint="say which one: --machine NAME")
    return target.machines[0]


def _system_of(cluster: str) -> str:
    """The cluster's name, where it can be a system's. What is left of another one, two clusters may share."""
    if SYSTEM_NAME.fullmatch(cluster) and cluster != DEFAULT_SYSTEM:
        return cluster
    plain = re.sub(r"[^A-Za-z0-9._+-]+", "-", cluster).strip("._+-")[:_PLAIN_LENGTH]
    return f"{plain or 'cluster'}-{hashlib.sha256(cluster.encode()).hexdigest()[:8]}"


def _check_strangers(target: Target) -> None:
    records = target.system.records()
    for machine in target.machines:
        record = records.get(machine.name)
        # A file that is gone was renamed; or it lies on the host that the machine came from.
        if record is None or not Path(record.profile).exists() or _is_same(Path(record.profile), target.file):
            continue
        if record.on_since_boot is not None or record.made is not None:
            what = f"the system {target.system.name} has a machine {machine.name} already, from {record.profile}"
            hint = "give the other one another name or another system (--system NAME), or destroy the first one"
            raise UserError(what, hint=hint)


def _is_same(known: Path, file: Path) -> bool:
    return known == file or (file.exists() and known.samefile(file))


# --- options of commands ---------------------------------------------------------------------------------------------


def machine_names(context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """The machines of the file that is on the command line already."""
    # While an option lacks its value click does not get as far as to give FILE its name.
    file = context.params.get("file") or next(iter(context.args), None)
    try:
        profiles = load(Path(file)) if file else ()
    except FarmError:
        return []
    machines = profiles.machines if isinstance(profiles, ClusterProfile) else profiles
    return [CompletionItem(machine.name) for machine in machines if machine.name.startswith(incomplete)]


def _systems(_context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    try:
        systems = all_systems()
    except FarmError:
        return []
    return [CompletionItem(system.name) for system in systems if system.name.startswith(incomplete)]


system_option = click.option(
    "--system",
    metavar="NAME",
    shell_complete=_systems,
    help=f"The machines that belong together. Without it: the cluster's name, or '{DEFAULT_SYSTEM}'.",
)
json_option = click.option("--json", "as_json", is_flag=True, help="JSON on standard output, an object per machine.")
file_argument = click.argument("file", metavar="FILE", type=click.Path(path_type=Path))


def about_machines(command: Command) -> Command:
    """For a command on all machines of a file, or some: FILE, --machine (several), --system."""
    option = click.option(
        "-m", "--machine", "names", metavar="NAME", multiple=True, shell_complete=machine_names,
        help="Only this machine of FILE; may be there several times.",
    )  # fmt: skip
    return file_argument(option(system_option(command)))


def about_one(command: Command) -> Command:
    """For a command on one machine: FILE, --machine, --system."""
    option = click.option(
        "-m",
        "--machine",
        "name",
        metavar="NAME",
        shell_complete=machine_names,
        help="Which machine, where FILE has several.",
    )
    return file_argument(option(system_option(command)))


def find_one(file: Path, name: str | None, system: str | None) -> tuple[Target, VMProfile]:
    """`find` for the commands on one machine."""
    target = find(file, () if name is None else (name,), system)
    return target, one(target)
