"""How a person logs in to the head node of a run: `access.json` in the run directory, readable by its owner only."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import stat
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from oscar_steps.environment import tool_environment
from oscar_steps.errors import HostError, ToolMissing, UserError
from oscar_steps.textio import read_own

if TYPE_CHECKING:
    from oscar_steps.images.seed import Seed

ACCESS_FILE = "access.json"
SSH_DIRECTORY = "ssh"


def save_access(run_directory: Path, host: str, port: int, seed: Seed) -> None:
    """Keep host, port, password and host key for `oscar-testdriver ssh`."""
    value = {"host": host, "port": port, "password": seed.password, "known_hosts": seed.known_hosts_line(host, port)}
    descriptor = os.open(run_directory / ACCESS_FILE, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        json.dump(value, file)


def open_ssh(run_directory: Path, command: tuple[str, ...]) -> NoReturn:
    """Become an ssh client on the head node. Raises UserError where the run has no head node (any more)."""
    try:
        access = json.loads(read_own(run_directory / ACCESS_FILE))
        place, password, known = f"root@{access['host']}", str(access["password"]), str(access["known_hosts"])
        port = int(access["port"])
    except FileNotFoundError:
        raise UserError(f"{run_directory}: this run has no head node to log in to (not yet, or not any more)") from None
    except PermissionError as error:
        hint = "log in as the user whose run it is: sudo -u USER oscar-testdriver ssh RUN"
        raise UserError(f"{run_directory / ACCESS_FILE} cannot be used: {error.strerror}", hint=hint) from None
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
        raise HostError(f"{run_directory / ACCESS_FILE} cannot be used: it does not say how to log in") from None
    if shutil.which("ssh") is None:
        raise ToolMissing("there is no ssh on this host", hint="apt-get install openssh-client")
    # OpenSSH takes a password from a program only. Both files are ours alone, and go with the run.
    directory = run_directory.resolve() / SSH_DIRECTORY
    directory.mkdir(mode=0o700, exist_ok=True)
    known_hosts, ask = directory / "known_hosts", directory / "password"
    known_hosts.write_text(known + "\n", encoding="utf-8")
    ask.write_text(f"#!/bin/sh\nprintf '%s\\n' {shlex.quote(password)}\n", encoding="utf-8")
    ask.chmod(stat.S_IRWXU)
    options = [f"UserKnownHostsFile={known_hosts}", "PreferredAuthentications=password", "NumberOfPasswordPrompts=1"]
    words = ["ssh", "-p", str(port), *(word for option in options for word in ("-o", option))]
    # The shell over there learns from ssh what terminal it has.
    terminal = {name: os.environ[name] for name in ("TERM",) if name in os.environ}
    environment = tool_environment(SSH_ASKPASS=str(ask), SSH_ASKPASS_REQUIRE="force", **terminal)
    os.execvpe("ssh", [*words, place, *command], environment)
