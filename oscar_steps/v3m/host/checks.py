"""What a virtualization host must have, checked before a run begins. The check names everything that is missing."""

from __future__ import annotations

import grp
import os
import pwd
import shutil
import stat
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from oscar_steps.capacity import OVERHEAD_MIB
from oscar_steps.errors import HostError, ToolMissing
from oscar_steps.v3m.boards import BOARDS, Board, board_of, missing_firmware, native
from oscar_steps.v3m.host.accelerator import Accelerator, find_accelerator
from oscar_steps.v3m.host.ledger import LedgerEntry, end_leftovers, find_leftovers
from oscar_steps.v3m.host.reservations import find_place, free_memory_mib
from oscar_steps.v3m.host.settings import SETTINGS_FILE, HostSettings, VlanKind, load_settings
from oscar_steps.v3m.profiles.vm import VMProfile

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

DEFAULT_DISK_MIB = 4096
KVM, TUN = Path("/dev/kvm"), Path("/dev/net/tun")

_TOOLS = {
    "qemu-img": "qemu-utils",
    "mmdebstrap": "mmdebstrap",
    "setpriv": "util-linux",
    "prlimit": "util-linux",
}

_QEMU_TYPES = (None, "Qemu", "Kvm")


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at. `hint` says how to get what is missing, or what would be better."""

    name: str
    ok: bool
    sentence: str
    hint: str = ""
    tool: bool = False

    @property
    def mark(self) -> str:
        """How it stands, in a column of seven."""
        return ("note   " if self.hint else "ok     ") if self.ok else "MISSING"

    def __str__(self) -> str:
        return f"{self.mark} {self.name}: {self.sentence}{f' ({self.hint})' if self.hint else ''}"


def check_host(
    directory: Path, memory_mib: int | None, disk_mib: int = DEFAULT_DISK_MIB, machines: Sequence[VMProfile] = ()
) -> list[Check]:
    """Whether a cluster of `memory_mib` can run here with its files in `directory` (or the nearest one that exists).

    Without `memory_mib` memory is not looked at: a run waits for it.
    `machines`: whose architectures and firmware the host has to have; none: those of the host's own architecture.
    Raises ProfileError for an architecture without a board.
    """
    return [
        *_emulators(machines),
        *(_tool(name, package) for name, package in _TOOLS.items()),
        *([] if memory_mib is None else [_memory(memory_mib)]),
        _reservations(),
        check_space(directory, "a run", disk_mib),
        *_devices(load_settings()),
    ]


def check_architectures() -> list[Check]:
    """For each architecture that is not the host's own, whether its machines can be emulated here; none is a must."""
    return [_foreign(board) for board in dict.fromkeys(BOARDS.values()) if not board.is_native]


def missing_for(board: Board) -> list[tuple[str, str]]:
    """What this host lacks to emulate the board, and the package of each."""
    lacks = [] if shutil.which(board.program) else [(board.program, board.package)]
    if board.uefi is not None and not board.bios and not board.uefi.is_here:
        lacks.append((str(board.uefi.code), board.uefi.package))
    return lacks


def _foreign(board: Board) -> Check:
    lacks = missing_for(board)
    if not lacks:
        return Check(board.name, True, f"{board.name} can be emulated here: {board.program}")
    what = " and ".join(name for name, _ in lacks)
    hint = f"only for cells of that architecture: apt-get install {' '.join(package for _, package in lacks)}"
    return Check(board.name, True, f"{board.name} cannot be emulated here without {what}", hint)


async def check_accelerator(cache_dir: Path, kernel: Path | None = None) -> tuple[Check, Accelerator | None]:
    """Which accelerator works, found by trying; the first time on a host it takes up to a quarter of a minute."""
    try:
        found = await find_accelerator(cache_dir, kernel)
    except HostError as error:
        return Check("accelerator", False, error.sentence, error.hint), None
    return Check("accelerator", True, f"{found.name}: {found.reason}"), found


def require(checks: list[Check], what: str = "run the cluster") -> None:
    """Raise for the first check that is not well, naming the others: ToolMissing for a program, else HostError."""
    missing = [check for check in checks if not check.ok]
    if not missing:
        return
    first = missing[0]
    also = "".join(f"; also: {check.sentence}" for check in missing[1:])
    hints = "; ".join(dict.fromkeys(check.hint for check in missing if check.hint))
    error = ToolMissing if first.tool else HostError
    raise error(f"this host cannot {what}: {first.sentence}{also}", hint=hints)


def _tool(name: str, package: str) -> Check:
    path = shutil.which(name)
    if path is None:
        return Check(name, False, f"the program {name} is missing", f"install it: apt-get install {package}", tool=True)
    return Check(name, True, path, tool=True)


def _emulators(machines: Sequence[VMProfile]) -> Iterator[Check]:
    """QEMU's program for each architecture, and the firmware of each."""
    machines = [machine for machine in machines if machine.type in _QEMU_TYPES]
    boards = [board_of(machine) for machine in machines] or [BOARDS[native()]]
    yield from (_tool(program, package) for program, package in {each.program: each.package for each in boards}.items())
    lacks = dict.fromkeys(lack for machine in machines if (lack := missing_firmware(machine)))
    yield from (Check("firmware", False, what, hint, tool=True) for what, hint in lacks)


def _devices(settings: HostSettings) -> Iterator[Check]:
    """KVM, where the kernel has it, is worth a hint; the kernel's network is needed only where the settings want it."""
    if KVM.exists() and not os.access(KVM, os.R_OK | os.W_OK):
        yield Check("kvm", True, f"this user may not open {KVM}: machines are emulated", _group_hint(KVM))
    network = settings.network
    if (network.bridges or network.vlan is VlanKind.BRIDGE) and not os.access(TUN, os.R_OK | os.W_OK):
        # Every VLAN needs it. A bridge of the host's is joined only by a machine that wants one, and checked there.
        needed = network.vlan is VlanKind.BRIDGE
        what = f"this user may not open {TUN}; {SETTINGS_FILE} asks for bridges, which need it"
        yield Check("tun", not needed, what, f"as root: chmod 666 {TUN} (modprobe tun, where it is not there)")


def _group_hint(device: Path) -> str:
    """How root lets this user open the device: by its group."""
    status = device.stat()
    wanted = stat.S_IRGRP | stat.S_IWGRP
    open_it = ""
    if status.st_gid == 0 or status.st_mode & wanted != wanted:
        open_it = f"chgrp kvm {device}; chmod 660 {device}; "
    group = "kvm" if open_it else _name(grp.getgrgid, status.st_gid)
    user = _name(pwd.getpwuid, os.geteuid())
    return f"as root: {open_it}usermod --append --groups {group} {user}; then log in anew"


def _name(ask: Callable[[int], Sequence[object]], number: int) -> str:
    try:
        return str(ask(number)[0])
    except KeyError:
        return str(number)


def _memory(wanted_mib: int) -> Check:
    """Available memory, by the smaller of what the host has and what our control group allows us."""
    available = free_memory_mib()
    needed = wanted_mib + OVERHEAD_MIB
    sentence = f"{available} MiB of memory are free, the cluster needs {needed} MiB"
    if available >= needed:
        return Check("memory", True, sentence)
    return Check(
        "memory", False, sentence, "end other programs, or give the machines less <memory> in the cluster profile"
    )


def _reservations() -> Check:
    """Whether this user may reserve what its machines need, where all users of the host see it."""
    try:
        place = find_place()
    except HostError as error:
        return Check("reservations", False, error.sentence, error.hint)
    if not os.access(place, os.R_OK | os.W_OK | os.X_OK):
        what = f"this user may not write to {place}, where runs reserve memory"
        return Check("reservations", False, what, f"a service of systemd's needs ReadWritePaths={place}")
    return Check("reservations", True, f"reservations of memory are in {place}")


def check_space(directory: Path, what: str, wanted_mib: int = DEFAULT_DISK_MIB) -> Check:
    """Whether the file system of `directory` (or of the nearest one that exists) has room for `what`."""
    existing = next(path for path in (directory.absolute(), *directory.absolute().parents) if path.is_dir())
    try:
        free = shutil.disk_usage(existing).free >> 20
    except OSError as error:
        return Check("disk", False, f"the free space of {existing} cannot be read: {error.strerror}")
    sentence = f"{free} MiB are free in {existing}, {what} needs {wanted_mib} MiB"
    if not os.access(existing, os.W_OK):
        return Check("disk", False, f"this user may not write to {existing}", "choose another directory")
    if free >= wanted_mib:
        return Check("disk", True, sentence)
    return Check("disk", False, sentence, "delete old runs, or choose a directory on a bigger file system")
