"""Requests to the daemon of a system, and its answers for people and scripts."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import click

from oscar_steps.errors import ImpossibleTransition, ProfileError
from oscar_steps.v2m.daemon.client import DaemonLink, greet
from oscar_steps.v2m.daemon.state import System
from oscar_steps.v2m.target import Target
from oscar_steps.v3m.disks import check_kind
from oscar_steps.v3m.machine import MachineState
from oscar_steps.v3m.profiles.vm import VMProfile, profile_to_xml

Answer = dict[str, Any]
OFF: Answer = {"state": MachineState.OFF.value, "pid": None, "ssh": None, "accelerator": None}
"""What there is to say of a machine that is off."""


@contextmanager
def daemon_of(system: System, *, start: bool) -> Iterator[DaemonLink | None]:
    """A link to the system's daemon, None where nothing is on. Prints which machines a killed daemon took along."""
    link, dead = greet(system, start=start)
    with nullcontext() if link is None else closing(link):
        if dead:
            what = f"the v2m daemon of the system {system.name} was killed; its machines died with it"
            click.echo(f"{what}: {', '.join(dead)}", err=True)
        yield link


@contextmanager
def living_daemon_of(target: Target, what: str) -> Iterator[DaemonLink]:
    """As `daemon_of`, for what only a machine that is on can do. Raises ImpossibleTransition where all are off."""
    with daemon_of(target.system, start=False) as link:
        if link is None:
            name = target.machines[0].name if target.machines else target.source
            raise ImpossibleTransition(f"{name} cannot be {what}: it is off", hint="`v2m boot` powers it on")
        yield link


def ask_each(target: Target, do: str, what: str, *, as_json: bool = False, then: str = "", **more: object) -> None:
    """Ask the same of every machine that is meant, and say how each is then; the first that refuses ends it.

    `then`: added to the line with its state.
    """
    answers: list[Answer] = []
    try:
        with living_daemon_of(target, what) as link:
            for machine in target.machines:
                answers.append(link.ask({"do": do, "machine": machine.name, **more}))
                if not as_json:
                    click.echo(state_line(answers[-1]) + then)
    finally:
        if as_json:
            print_json(target.system, answers)


def profile_request(target: Target, machine: VMProfile, do: str, **more: object) -> dict[str, object]:
    """A request with the whole profile: the daemon reads no profile itself."""
    return {"do": do, "machine": machine.name, "file": str(target.file), "profile": profile_to_xml(machine), **more}


def cd_file(cdrom: Path) -> str:
    """A CD as the daemon has to know it: absolute, and there. Raises ProfileError."""
    try:
        check_kind(cdrom)
    except FileNotFoundError:
        raise ProfileError(f"the CD {click.format_filename(cdrom)} is not there") from None
    except OSError as error:
        raise ProfileError(f"the CD {click.format_filename(cdrom)} cannot be used: {error.strerror}") from None
    return str(cdrom.absolute())


def state_line(answer: Answer) -> str:
    """A machine's state, for people."""
    more = [] if answer.get("pid") is None else [f"process {answer['pid']}"]
    if used := answer.get("accelerator"):
        more.append(used["name"])
    if ssh := answer.get("ssh"):
        more.append(f"ssh -p {ssh['port']} root@{ssh['host']}")
    return f"{answer['machine']}: {answer['state']}" + (f" ({', '.join(more)})" if more else "")


def print_json(system: System, answers: Sequence[Answer]) -> None:
    """Answers for a script."""
    click.echo(json.dumps([{"system": system.name, **answer} for answer in answers], indent=2))
