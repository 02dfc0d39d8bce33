"""The boards on which QEMU runs machines, one for each architecture: what differs between them, and nothing else.

A new architecture is a new entry here. What an entry says was seen to work, or a comment says how far.
"""

from __future__ import annotations

import platform
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

from oscar_steps.errors import ProfileError
from oscar_steps.v3m.profiles.vm import VMProfile


@dataclass(frozen=True, slots=True)
class Uefi:
    """A UEFI firmware: the code, which all machines share, and the variables that a new machine begins with.

    Without variables it is a boot loader, which QEMU starts in a kernel's place: it knows no boot order.
    """

    code: Path
    variables: Path | None
    package: str

    @property
    def is_here(self) -> bool:
        return self.code.is_file() and (self.variables is None or self.variables.is_file())


@dataclass(frozen=True, slots=True, eq=False)
class Board:
    """One architecture as QEMU has it.

    `program`, `package`: QEMU's program for it, and the Debian package that brings that. `machines`: the boards that a
    profile may name; the first is taken where it names none. `options`: added to the board's name. `cpu`: the processor
    that is emulated. `hosts`: the hosts whose KVM can run it. `console`: the guest's name of its serial console.
    `ide`: bus and unit of each place for an IDE disk, by machine; none: the board has no IDE, and its CD drive is on
    virtio-scsi. `screen`: its graphics card. `bios`: whether it starts without any firmware of ours. `uefi`: its UEFI;
    a board without a BIOS always starts with it. `network_rom`: whether its network cards boot by a ROM of QEMU's;
    otherwise the firmware does that. `kernel_magic`: by which bytes, and where, a kernel for it is recognised.
    `seed_slot`: where on the PCI bus a run's seed is: behind the disks, if the firmware only starts the first of all.
    """

    name: str
    program: str
    package: str
    machines: tuple[str, ...]
    cpu: str
    hosts: tuple[str, ...]
    console: str
    max_cpus: int
    kernel_magic: tuple[int, bytes]
    options: str = ""
    ide: Mapping[str, Mapping[str, tuple[int, int]]] = field(default_factory=dict)
    screen: str | None = None
    bios: bool = False
    uefi: Uefi | None = None
    network_rom: bool = False
    seed_slot: int = 0x14

    @property
    def is_native(self) -> bool:
        """Whether this host's KVM, where it has any, can run it."""
        return platform.machine() in self.hosts

    def accelerator(self, wanted: str) -> str:
        """`wanted`, which is what works for the host's own architecture; another one is always emulated."""
        return wanted if self.is_native else "tcg"

    def processor(self, accelerator: str) -> str:
        """QEMU's CPU model."""
        return "host" if accelerator == "kvm" else self.cpu

    def machine(self, name: str | None = None) -> str:
        """QEMU's word for the machine `name` of this board, with its options."""
        return (name or self.machines[0]) + self.options

    def is_kernel(self, path: Path) -> bool:
        """Whether the file is a kernel for this board, by its first bytes. Raises OSError."""
        offset, magic = self.kernel_magic
        with path.open("rb") as file:
            file.seek(offset)
            return file.read(len(magic)) == magic


def _places(*places: tuple[int, int]) -> Mapping[str, tuple[int, int]]:
    return dict(zip(("hda", "hdb", "hdc", "hdd"), places, strict=True))


_PC = Board(
    name="x86_64",
    program="qemu-system-x86_64",
    package="qemu-system-x86",
    machines=("pc", "q35"),
    cpu="qemu64",  # 'max' costs up to a third more when emulated
    hosts=("x86_64",),
    console="ttyS0",
    max_cpus=255,
    kernel_magic=(0x202, b"HdrS"),
    # Bus and unit: q35 has SATA, where each disk has a cable of its own.
    ide={"pc": _places((0, 0), (0, 1), (1, 0), (1, 1)), "q35": _places((0, 0), (1, 0), (2, 0), (3, 0))},
    screen="VGA,addr=0x02",
    bios=True,
    # Without Secure Boot, which would refuse an installer's unsigned kernel.
    uefi=Uefi(Path("/usr/share/OVMF/OVMF_CODE_4M.fd"), Path("/usr/share/OVMF/OVMF_VARS_4M.fd"), "ovmf"),
    network_rom=True,
)
_ARM = Board(
    name="aarch64",
    program="qemu-system-aarch64",
    package="qemu-system-arm",
    machines=("virt",),
    options=",gic-version=max",  # the older interrupt controller takes eight processors only
    cpu="cortex-a57",
    hosts=("aarch64",),
    console="ttyAMA0",
    max_cpus=123,  # places for them beside the interrupt controller
    kernel_magic=(0x38, b"ARM\x64"),
    uefi=Uefi(Path("/usr/share/AAVMF/AAVMF_CODE.fd"), Path("/usr/share/AAVMF/AAVMF_VARS.fd"), "qemu-efi-aarch64"),
)

_RISCV = Board(
    name="riscv64",
    program="qemu-system-riscv64",
    package="qemu-system-misc",
    machines=("virt",),
    cpu="rv64",
    hosts=("riscv64",),
    console="ttyS0",
    max_cpus=8,
    kernel_magic=(0x38, b"RSC\x05"),
    # QEMU has the part below it, OpenSBI, in itself.
    uefi=Uefi(Path("/usr/lib/u-boot/qemu-riscv64_smode/uboot.elf"), None, "u-boot-qemu"),
    seed_slot=0x1F,
)

BOARDS: Mapping[str, Board] = MappingProxyType({"x86_64": _PC, "i386": _PC, "aarch64": _ARM, "riscv64": _RISCV})
"""By the architecture that a profile names."""


def board_of(profile: VMProfile) -> Board:
    """The board of the machine; without an architecture: the host's. Raises ProfileError where there is none."""
    name = profile.architecture or native()
    if name not in BOARDS:
        raise ProfileError(f"{profile.name} has the architecture {name}; here there are: {', '.join(BOARDS)}")
    return BOARDS[name]


def native() -> str:
    """The host's architecture where it has a board, else a PC's, which is emulated then."""
    return platform.machine() if platform.machine() in BOARDS else _PC.name


def uefi_of(profile: VMProfile) -> Uefi | None:
    """The UEFI that the machine starts with; None: it has a BIOS. Raises ProfileError."""
    board = board_of(profile)
    return board.uefi if profile.firmware == "UEFI" or not board.bios else None


def missing_firmware(profile: VMProfile) -> tuple[str, str] | None:
    """What is missing on this host for the machine's firmware, and how to get it. Raises ProfileError."""
    uefi = uefi_of(profile)
    if uefi is None or uefi.is_here:
        return None
    hint = f"install it: apt-get install {uefi.package}"
    if board_of(profile).bios:
        hint += "; or leave out <firmware>, and the machine has a BIOS"
    return f"{profile.name} has the firmware UEFI, and {uefi.code} is missing", hint
