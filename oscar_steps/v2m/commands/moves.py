"""`v2m migrate`: a machine moves to another host while it runs."""

from __future__ import annotations

import os
import shlex
import socket
import sys
import threading
from pathlib import Path
from typing import Any

import click

from oscar_steps.daemon import connect
from oscar_steps.errors import FarmError, HostError, UserError
from oscar_steps.textio import json_line, json_object
from oscar_steps.v2m.daemon.state import DEFAULT_SYSTEM, System
from oscar_steps.v2m.requests import daemon_of, living_daemon_of
from oscar_steps.v2m.target import about_one, find_one


@click.command()
@about_one
@click.argument("host", metavar="HOST")
@click.option("--ssh", default="ssh", show_default=True, metavar="COMMAND", help="With options, e.g. 'ssh -p 2222'.")
@click.option("--v2m", "v2m", default="v2m", show_default=True, metavar="COMMAND", help="The v2m command on HOST.")
def migrate(file: Path, name: str | None, system: str | None, host: str, ssh: str, v2m: str) -> None:
    """Move a machine to HOST while it runs.

    Both hosts need v2m, and SSH from here to HOST must work without a password. Both hosts must see the machine's
    disks and the CD in its drive under the same paths. The command checks this first. The guest stands still for a
    moment and keeps its connections on a VLAN, which lead back to this host through SSH as long as it runs on HOST.
    Connections by a NIC that reaches the host end. The guest gets another port for SSH (v2m status, on HOST).

    If the move fails, the machine runs on here. A paused machine stays paused.

    \b
    Examples:
      v2m migrate vm.xml host2
      v2m migrate cluster.xml root@host2 --machine oscarnode1
      v2m migrate vm.xml host2 --ssh 'ssh -p 2222 -i key' --v2m /opt/oscar-farm/bin/v2m

    \b
    Exit status:
       0  it runs on HOST
       2  the command line itself is wrong
       3  the machine is off
      20  it could not be moved, and runs on here (if that is not certain, it says so)
      64  FILE is not valid, or has several machines and --machine does not say which
    """
    target, machine = find_one(file, name, system)
    try:
        ssh_words = shlex.split(ssh)
    except ValueError as error:
        raise UserError(f"--ssh '{ssh}' is not a command: {error}") from None
    with living_daemon_of(target, "moved") as link:
        link.ask(
            {
                "do": "migrate",
                "machine": machine.name,
                "host": host,
                "ssh": ssh_words,
                "v2m": v2m,
                "system": target.system.name,
                "agent": os.environ.get("SSH_AUTH_SOCK"),
            }
        )
    click.echo(f"{machine.name}: runs on {host}")


@click.command(hidden=True)
@click.option("--system", default=DEFAULT_SYSTEM)
def receive(system: str) -> None:
    """The other end of `migrate`, started by SSH: takes a machine from standard input."""
    try:
        luggage = json_object(_line(0))
        with daemon_of(System(system), start=True) as link:
            assert link is not None
            link.ask({"do": "receive", **luggage}, _pass_on)
    except FarmError as error:
        _say({"error": {"sentence": error.sentence, "hint": error.hint}})
        sys.exit(1)
    except (ValueError, OSError) as error:
        _say({"error": {"sentence": f"the description of the incoming machine cannot be read: {error}", "hint": ""}})
        sys.exit(1)


def _pass_on(event: dict[str, Any]) -> None:
    """Pass the daemon's events on to the other host; 'socket' is for us."""
    if "socket" not in event:
        _say(event)
        return
    stream = socket.socket(socket.AF_UNIX)
    try:
        connect(stream, Path(event["socket"]))
    except OSError as error:
        raise HostError(f"the v2m daemon's socket {event['socket']} cannot be reached: {error.strerror}") from None
    threading.Thread(target=_pump, args=(stream,), daemon=True).start()


def _pump(stream: socket.socket) -> None:
    """Standard input, which is a machine's memory, to the daemon, to its end."""
    with stream:
        try:
            while data := os.read(0, 1 << 18):
                stream.sendall(data)
        except OSError:
            return  # the daemon has seen it, too, and says why


def _line(descriptor: int) -> bytes:
    """The first line, and not a byte more of what comes behind it."""
    line = b""
    while not line.endswith(b"\n"):
        byte = os.read(descriptor, 1)
        if not byte:
            raise ValueError("it is cut short")
        line += byte
    return line


def _say(message: dict[str, Any]) -> None:
    sys.stdout.buffer.write(json_line(message))
    sys.stdout.flush()
