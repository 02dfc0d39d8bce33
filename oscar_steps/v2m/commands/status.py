"""`v2m status`: the state of machines, as their daemons say and as their records have it."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import click

from oscar_steps.errors import FarmError
from oscar_steps.v2m.daemon.state import MachineRecord, System, all_systems
from oscar_steps.v2m.exits import EXIT_HOST
from oscar_steps.v2m.requests import OFF, Answer, daemon_of, state_line
from oscar_steps.v2m.target import Target, find, json_option, machine_names, system_option
from oscar_steps.v3m.machine import MachineState


@click.command()
@click.argument("file", metavar="[FILE]", required=False, type=click.Path(path_type=Path))
@click.option(
    "-m", "--machine", "names", metavar="NAME", multiple=True, shell_complete=machine_names,
    help="Only this machine of FILE.",
)  # fmt: skip
@system_option
@json_option
def status(file: Path | None, names: tuple[str, ...], system: str | None, as_json: bool) -> None:
    """Show the state of the machines of FILE, or of all machines.

    \b
    Examples:
      v2m status
      v2m status cluster.xml
      v2m status --json vm.xml | jq -r '.[0].state'

    \b
    States: off, running, paused, panicked. The JSON has for each machine: system, machine,
    state, pid, ssh (null, or host and port), accelerator (null, or name: kvm, or tcg, which is
    emulation; reason: how it was found; tried: whether a kernel was booted with it), profile
    (its file), disk (null, or file, exists, made: whether `v2m destroy` deletes it), console
    (a file), ended (how its last boot ended).

    \b
    Exit status:
       0  whatever the states are
       2  the command line itself is wrong
      20  the host's fault, e.g. a daemon does not answer; the other systems are shown all the same
      64  FILE is not valid
    """
    broken = False
    if file is None and system is None:
        rows, broken = _rows_of_all()
    elif file is None:
        rows = _rows(System(system or ""), None)
    else:
        target = find(file, names, system)
        rows = _rows(target.system, target)
    if as_json:
        click.echo(json.dumps(rows, indent=2))
    for row in () if as_json else rows:
        where = "" if file else f"{row['system']} "
        made = "" if row["disk"] is None or row["disk"]["exists"] else "; its disk has not been made"
        ended = f"; {row['ended']}" if row["ended"] and row["state"] == MachineState.OFF else ""
        click.echo(f"{where}{state_line(row)}{ended}{made}")
    if broken:
        sys.exit(EXIT_HOST)
    if not rows and not as_json:
        click.echo("no machine is known", err=True)


def _rows_of_all() -> tuple[list[dict[str, Any]], bool]:
    """What is known of all machines, and whether a system is broken: an error names it, and the others are shown."""
    rows, broken = [], False
    for system in all_systems():
        try:
            rows += _rows(system, None)
        except FarmError as error:
            click.echo(error.explain(), err=True)
            broken = True
        except OSError as error:
            where = error.filename or system.directory
            click.echo(f"{click.format_filename(where)}: {error.strerror or error}", err=True)
            broken = True
    return rows, broken


def _rows(system: System, target: Target | None) -> list[dict[str, Any]]:
    """What is known of a system's machines: of all of them, or of those that are meant."""
    with daemon_of(system, start=False) as link:
        answers = [] if link is None else link.ask({"do": "status"})["machines"]
    alive = {answer["machine"]: answer for answer in answers}
    records = system.records()
    if target is None:
        return [_row(system, record, alive.get(name), None) for name, record in records.items()]
    return [
        _row(
            system,
            records.get(machine.name, MachineRecord(machine.name, str(target.file))),
            alive.get(machine.name),
            machine.image.path,
        )
        for machine in target.machines
    ]


def _row(system: System, record: MachineRecord, answer: Answer | None, disk: str | None) -> dict[str, Any]:
    disk = disk or record.made
    return {
        "system": system.name,
        "machine": record.name,
        **{key: value for key, value in (answer or OFF).items() if key != "machine"},
        "profile": record.profile,
        "disk": disk and {"file": disk, "exists": os.access(disk, os.F_OK), "made": record.has_made(disk)},
        "console": str(system.directory / "console" / f"{record.name}.log"),
        "ended": record.ended,
    }
