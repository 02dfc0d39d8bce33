"""What a virtualization host must have, checked before a run begins: everything that is missing is said at once."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

import psutil

from oscar_steps.errors import HostError, ToolMissing
from oscar_steps.v3m.accelerator import QEMU, Accelerator, find_accelerator
from oscar_steps.v3m.ledger import LedgerEntry, end_leftovers, find_leftovers

__all__ = [
    "Check",
    "LedgerEntry",
    "check_accelerator",
    "check_host",
    "check_space",
    "end_leftovers",
    "find_leftovers",
    "require",
]

OVERHEAD_MIB = 256
"""What the host itself, and QEMU beside the guests' memory, need."""
DEFAULT_DISK_MIB = 4096

_TOOLS = {
    QEMU: "qemu-system-x86",
    "qemu-img": "qemu-utils",
    "mmdebstrap": "mmdebstrap",
    "setpriv": "util-linux",
}


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at. `hint` says how to get what is missing; empty when all is well."""

    name: str
    ok: bool
    sentence: str
    hint: str = ""
    tool: bool = False

    def __str__(self) -> str:
        mark = "ok     " if self.ok else "MISSING"
        return f"{mark} {self.name}: {self.sentence}{f' ({self.hint})' if self.hint else ''}"


def check_host(directory: Path, memory_mib: int, disk_mib: int = DEFAULT_DISK_MIB) -> list[Check]:
    """Whether a cluster of `memory_mib` can run here with its files in `directory` (or the nearest one that exists)."""
    return [
        *(_tool(name, package) for name, package in _TOOLS.items()),
        _memory(memory_mib),
        check_space(directory, "a run", disk_mib),
    ]


async def check_accelerator(cache_dir: Path, kernel: Path | None = None) -> tuple[Check, Accelerator | None]:
    """Which accelerator works, found by trying; the first time on a host it takes up to a quarter of a minute."""
    try:
        found = await find_accelerator(cache_dir, kernel)
    except HostError as error:
        return Check("accelerator", False, error.sentence, error.hint), None
    return Check("accelerator", True, f"{found.name}: {found.reason}"), found


def require(checks: list[Check]) -> None:
    """Raise for the first check that is not well, naming the others: ToolMissing for a program, else HostError."""
    missing = [check for check in checks if not check.ok]
    if not missing:
        return
    first = missing[0]
    also = "".join(f"; also: {check.sentence}" for check in missing[1:])
    hints = "; ".join(dict.fromkeys(check.hint for check in missing if check.hint))
    error = ToolMissing if first.tool else HostError
    raise error(f"this host cannot run the cluster: {first.sentence}{also}", hint=hints)


def _tool(name: str, package: str) -> Check:
    path = shutil.which(name)
    if path is None:
        return Check(name, False, f"the program {name} is missing", f"install it: apt-get install {package}", tool=True)
    return Check(name, True, path, tool=True)


def _memory(wanted_mib: int) -> Check:
    """Available memory, by the smaller of what the host has and what our control group allows us."""
    available = _cgroup_available_mib(psutil.virtual_memory().available >> 20)
    needed = wanted_mib + OVERHEAD_MIB
    sentence = f"{available} MiB of memory are free, the cluster needs {needed} MiB"
    if available >= needed:
        return Check("memory", True, sentence)
    return Check(
        "memory", False, sentence, "end other programs, or give the machines less <memory> in the cluster profile"
    )


def _cgroup_available_mib(host_mib: int) -> int:
    """`host_mib`, or less where a container's limit (control groups, version 2) lies below it."""
    try:
        limit = Path("/sys/fs/cgroup/memory.max").read_text(encoding="ascii").strip()
        used = int(Path("/sys/fs/cgroup/memory.current").read_text(encoding="ascii"))
    except (OSError, ValueError):
        return host_mib
    return host_mib if limit == "max" else min(host_mib, max(0, int(limit) - used) >> 20)


def check_space(directory: Path, what: str, wanted_mib: int = DEFAULT_DISK_MIB) -> Check:
    """Whether the file system of `directory` (or of the nearest one that exists) has room for `what`."""
    existing = next(path for path in (directory.absolute(), *directory.absolute().parents) if path.is_dir())
    try:
        free = shutil.disk_usage(existing).free >> 20
    except OSError as error:
        return Check("disk", False, f"the free space of {existing} cannot be read: {error.strerror}")
    sentence = f"{free} MiB are free in {existing}, {what} needs {wanted_mib} MiB"
    if not os.access(existing, os.W_OK):
        return Check("disk", False, f"{existing} may not be written to by this user", "choose another directory")
    if free >= wanted_mib:
        return Check("disk", True, sentence)
    return Check("disk", False, sentence, "delete old runs, or choose a directory on a bigger file system")
