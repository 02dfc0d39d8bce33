"""How machines are: what their keepers say, and what is written down."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import click

from oscar_steps.v2m.asking import OFF, Answer, keeper_of, state_line
from oscar_steps.v2m.target import Target, find, json_option, machine_names, system_option
from oscar_steps.v3m.keeperstate import MachineRecord, System, all_systems
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
    """Say how machines are: those of FILE, or all that are known.

    \b
    Examples:
      v2m status
      v2m status cluster.xml
      v2m status --json vm.xml | jq -r '.[0].state'

    \b
    States: off, running, paused, panicked. The JSON has for each machine: system, machine,
    state, pid, ssh (null, or host and port), profile (its file), disk (null, or file, exists,
    made: whether `v2m destroy` deletes it), console (a file), ended (how its last boot ended).

    \b
    Exit status:
       0  whatever the states are
       2  the command line itself is wrong
      20  the host's fault, e.g. a keeper does not answer
      64  FILE is not valid
    """
    if file is None:
        rows = [row for each in _systems(system) for row in _rows(each, None)]
    else:
        target = find(file, names, system)
        rows = _rows(target.system, target)
    if as_json:
        click.echo(json.dumps(rows, indent=2))
        return
    for row in rows:
        where = "" if file else f"{row['system']} "
        made = "" if row["disk"] is None or row["disk"]["exists"] else "; its disk has not been made"
        ended = f"; {row['ended']}" if row["ended"] and row["state"] == MachineState.OFF else ""
        click.echo(f"{where}{state_line(row)}{ended}{made}")
    if not rows:
        click.echo("no machine is known", err=True)


def _systems(name: str | None) -> list[System]:
    return all_systems() if name is None else [System(name)]


def _rows(system: System, target: Target | None) -> list[dict[str, Any]]:
    """What is known of a system's machines: of all of them, or of those that are meant."""
    with keeper_of(system, start=False) as link:
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
