"""What a QEMU may do on the host: what a guest that has broken out of its machine would find.

It has no capability, also where root started it, and gets none back by starting a program; its filter (`SANDBOX`) lets
it start none. Its environment is empty but for its language, so no agent and no password is in it. Its memory ends a
fixed amount above the guest's. What it is to use and may not open itself (a tap, its control socket, a saved state) it
gets as a descriptor.

Where root lacks CAP_SETPCAP, as in a lean container, it cannot give up its bounding set, and a QEMU keeps what the
container has: an ordinary user has no such trouble.

Its files are opened as our user. Root without capabilities is an ordinary user who owns root's files: let an ordinary
user run the farm (`workers/oscar-farm-worker.service`).
"""

from __future__ import annotations

import resource
from pathlib import Path

from oscar_steps.v3m.host import ledger

SANDBOX = ("-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny")
"""QEMU's own filter of system calls. Where QEMU cannot have it, it says so and does not start."""

OWN_MIB = 4096
"""What QEMU takes beside the guest's memory, at most. Emulation translates into a buffer of 1 GiB."""
OWN_MIB_PER_CPU = 16
MAX_FILES = 4096
"""A head node has two sockets for each of its nodes."""

_NO_PRIVILEGES = ("--no-new-privs", "--inh-caps=-all", "--ambient-caps=-all")
_CAP_SETPCAP = 8


def confined(command: list[str], memory_mib: int = 0, cpus: int = 1) -> list[str]:
    """`command` of a QEMU whose guest has `memory_mib`, so that it dies with us (`ledger.owned`) and is confined."""
    data = (memory_mib + OWN_MIB + cpus * OWN_MIB_PER_CPU) << 20
    limits = (
        f"--core={_at_most(resource.RLIMIT_CORE, 0)}",
        f"--nofile={_at_most(resource.RLIMIT_NOFILE, MAX_FILES)}",
        f"--data={_at_most(resource.RLIMIT_DATA, data)}",
    )
    return ledger.owned(["prlimit", *limits, "--", *command], _privileges())


def reading(command: list[str]) -> list[str]:
    """`command` that reads what a guest wrote, confined as a QEMU is but for the filter of system calls.

    May be called from any thread: it dies with that one, however the process ends.
    """
    limits = (f"--core={_at_most(resource.RLIMIT_CORE, 0)}", f"--data={_at_most(resource.RLIMIT_DATA, OWN_MIB << 20)}")
    return ["setpriv", "--pdeathsig", "KILL", *_privileges(), "--", "prlimit", *limits, "--", *command]


def _privileges() -> tuple[str, ...]:
    """setpriv's options. It is the bounding set that takes root's capabilities, at the next start of a program."""
    return (*_NO_PRIVILEGES, "--bounding-set=-all") if _may_give_up() else _NO_PRIVILEGES


def _may_give_up() -> bool:
    """Whether we have CAP_SETPCAP, without which setpriv would end with an error."""
    status = Path("/proc/self/status").read_text(encoding="utf-8", errors="replace")
    effective = next(line.split()[1] for line in status.splitlines() if line.startswith("CapEff:"))
    return bool(int(effective, 16) >> _CAP_SETPCAP & 1)


def _at_most(which: int, wanted: int) -> str:
    """The limit for prlimit, hard and soft: `wanted`, or what is left to us where that is less."""
    hard = resource.getrlimit(which)[1]
    least = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    return f"{least}:{least}"
