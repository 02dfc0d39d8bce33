"""QEMU's command line of one boot of one machine: a pure function of profile, network and boot.

All paths are relative to the run directory, in which QEMU is started: socket paths may have 107 bytes only.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from oscar_steps.errors import HostError, ProfileError
from oscar_steps.v3m.boards import Board, board_of, uefi_of
from oscar_steps.v3m.boot import BootPlan, DirectKernel
from oscar_steps.v3m.disks import image_format
from oscar_steps.v3m.host.accelerator import Accelerator
from oscar_steps.v3m.host.confinement import SANDBOX
from oscar_steps.v3m.profiles.vm import BootDevice, Nic, VMProfile
from oscar_steps.v3m.qemu import firmware
from oscar_steps.v3m.qemu.network import MachineNetwork

_FIRST_NIC_SLOT = 0x03
_SCSI_SLOT = 0x12
_RNG_SLOT = 0x15
_PVPANIC_SLOT = 0x16
_FIRST_DISK_SLOT = 0x17

_SCSI = f"virtio-scsi-pci,id=scsi,addr={_SCSI_SLOT:#x}"

CD_DRIVE = "cd"
"""The drive's name in QMP."""

_MAX_NICS = _SCSI_SLOT - _FIRST_NIC_SLOT
_MAX_VIRTUAL_DISKS = {"virtio": 0x1F - _FIRST_DISK_SLOT, "scsi": 200, "ide": 3}


@dataclass(frozen=True, slots=True)
class Part:
    """Some of QEMU's arguments, and what they are for, in words for people."""

    purpose: str
    arguments: tuple[str, ...]


def qemu_arguments(
    profile: VMProfile,
    network: MachineNetwork,
    accelerator: Accelerator,
    boot: BootPlan,
    *,
    console: str,
    qmp_fd: int,
    directory: Path | None = None,
) -> list[str]:
    """Everything after the program's name; see `qemu_parts`."""
    parts = qemu_parts(profile, network, accelerator, boot, console=console, qmp_fd=qmp_fd, directory=directory)
    return [argument for part in parts for argument in part.arguments]


def qemu_parts(
    profile: VMProfile,
    network: MachineNetwork,
    accelerator: Accelerator,
    boot: BootPlan,
    *,
    console: str,
    qmp_fd: int,
    directory: Path | None = None,
) -> list[Part]:
    """QEMU's arguments, each with its purpose. The machine starts stopped (`-S`), so that no event is missed.

    `directory`: the run directory, where the formats of further disks are looked up; None: they are taken for raw, and
    no file has to be there. Raises ProfileError for what this back-end cannot do, HostError for a disk that is missing.
    """
    check(profile)
    board = board_of(profile)
    accelerated = board.accelerator(accelerator.name)
    order = _boot_order(profile, boot)
    serial = ["-chardev", f"file,id=console,path={_escape(console)},append=on", "-serial", "chardev:console"]
    parts = [
        Part(
            "its name; no default devices; stopped until the run starts it",
            ("-name", f"guest={_escape(profile.name)}", "-nodefaults", "-no-user-config", "-display", "none", "-S"),
        ),
        Part("sandbox: system calls that it may not make, such as starting a program", SANDBOX),
        Part(
            "board and processor",
            ("-machine", board.machine(profile.machine), "-accel", accelerated, "-cpu", board.processor(accelerated)),
        ),
        Part(
            "processors, memory, clock", ("-smp", str(profile.cpu), "-m", str(profile.memory_mib), "-rtc", "base=utc")
        ),
        *_firmware(profile, boot),
        Part(
            "boot order by bootindex only; actions on panic and reboot",
            ("-boot", "strict=on,menu=off", "-action", f"panic=pause,reboot={_on_reboot(boot)}"),
        ),
        Part(
            "control, on a socket that the run holds",
            ("-chardev", f"socket,id=qmp,fd={qmp_fd}", "-mon", "chardev=qmp,mode=control"),
        ),
        Part("serial console, into a file", tuple(serial)),
        *(() if board.screen is None else (Part("screen", ("-device", board.screen)),)),
        *_nics(profile, network, order),
        *_disks(profile, order, directory, boot),
    ]
    if BootDevice.CDROM in order or boot.cdrom is not None or boot.drive:
        parts.append(_cdrom(profile, boot, order.get(BootDevice.CDROM)))
    if boot.seed is not None:
        parts.append(_seed(boot.seed, board))
    parts.append(Part("source of random numbers", ("-device", f"virtio-rng-pci,addr={_RNG_SLOT:#x}")))
    parts.append(Part("reports a panic of the guest's kernel", ("-device", f"pvpanic-pci,addr={_PVPANIC_SLOT:#x}")))
    if boot.incoming:
        parts.append(Part("waits for incoming state, from another process or a file", ("-incoming", "defer")))
    if boot.kernel is not None:
        parts.append(_kernel(boot.kernel))
    return parts


def check(profile: VMProfile) -> None:
    """Raise ProfileError for what this back-end cannot do: better before a run than in the middle of it."""
    name = profile.name
    board = board_of(profile)
    if profile.machine not in (None, *board.machines):
        raise ProfileError(f"{name} has the machine {profile.machine}; here there are: {', '.join(board.machines)}")
    if profile.cpu > board.max_cpus:
        raise ProfileError(
            f"{name} has {profile.cpu} processors; the machine {_machine(profile)} takes {board.max_cpus}"
        )
    if profile.firmware not in (None, *_firmwares(board)):
        raise ProfileError(
            f"{name} has the firmware {profile.firmware}; with {board.name} there is: {', '.join(_firmwares(board))}"
        )
    if profile.disk_bus == "ide" and not board.ide:
        raise ProfileError(
            f'{name} has its disk on the bus ide, which {_machine(profile)} does not have; write bus="virtio" or "scsi"'
        )
    if BootDevice.NETWORK in profile.boot and not profile.vlan_nics:
        raise ProfileError(_no_network_boot(profile))
    _check_nics(profile)
    # A seed behind the disks takes the place of the last one.
    limit = _MAX_VIRTUAL_DISKS[profile.disk_bus] - (board.seed_slot > _FIRST_DISK_SLOT)
    if len(profile.virtual_disks) > limit:
        count = len(profile.virtual_disks)
        raise ProfileError(f"{name} has {count} virtual disks; the bus {profile.disk_bus} takes {limit}")
    identities = [disk.id for disk in profile.virtual_disks]
    for number, disk in enumerate(profile.virtual_disks, start=1):
        if disk.id in identities[: number - 1]:
            raise ProfileError(f"{name} has two virtual disks with the id '{disk.id}'; each needs its own")
        _extra_disk(profile, number, disk.id)


def _check_nics(profile: VMProfile) -> None:
    name, macs = profile.name, [nic.mac for nic in profile.nics]
    if len(macs) > _MAX_NICS:
        raise ProfileError(f"{name} has {len(macs)} NICs; the machine {_machine(profile)} has places for {_MAX_NICS}")
    for number, nic in enumerate(profile.nics):
        if nic.mac in macs[:number]:
            raise ProfileError(f"{name} has two NICs with the MAC {nic.mac}; every NIC needs its own")
        if int(nic.mac[:2], 16) & 1:
            raise ProfileError(f"{name} has the multicast MAC {nic.mac} (first pair is odd); use, e.g., 52:54:00:…")


def _machine(profile: VMProfile) -> str:
    return profile.machine or board_of(profile).machines[0]


def _firmwares(board: Board) -> list[str]:
    return [*(["BIOS"] if board.bios else []), *(["UEFI"] if board.uefi else [])]


def _firmware(profile: VMProfile, boot: BootPlan) -> Iterator[Part]:
    """Nothing for a BIOS, which QEMU has in itself."""
    uefi = uefi_of(profile)
    if uefi is not None and uefi.variables is None:
        if boot.kernel is None:
            yield Part("firmware: a boot loader that knows UEFI, in a kernel's place", ("-kernel", str(uefi.code)))
    elif uefi is not None:
        flash = "if=pflash,format=raw"
        code = ("-drive", f"{flash},unit=0,readonly=on,file={uefi.code}")
        own = ("-drive", f"{flash},unit=1,file={_escape(firmware.variables(profile))}")
        yield Part("firmware: UEFI, with the machine's own variables", (*code, *own))


def _boot_order(profile: VMProfile, boot: BootPlan) -> dict[BootDevice, int]:
    """What is booted from, with its boot index. An installation tries the disk first: a blank one falls through."""
    match boot.medium:
        case BootDevice.CDROM:
            return {BootDevice.DISK: 1, BootDevice.CDROM: 2}
        case BootDevice.NETWORK:
            return {BootDevice.DISK: 1, BootDevice.NETWORK: 3}
        case _:
            return {device: index for index, device in enumerate(profile.boot or (BootDevice.DISK,), start=1)}


def _on_reboot(boot: BootPlan) -> str:
    """A reboot ends an install boot: without its CD, and after a look at the disk, the machine is started anew."""
    return "reset" if boot.medium is None else "shutdown"


def _nics(profile: VMProfile, network: MachineNetwork, order: dict[BootDevice, int]) -> list[Part]:
    """NICs to the host come first in the PCI slots, so that eth0 is always the one to the host where there is one."""
    parts = [Part("network back-ends", network.arguments)] if network.arguments else []
    numbers = sorted(range(len(profile.nics)), key=lambda number: (profile.nics[number].is_vlan, number))
    first_vlan = profile.vlan_nics[0] if profile.vlan_nics else None
    for slot, number in enumerate(numbers, start=_FIRST_NIC_SLOT):
        nic = profile.nics[number]
        boots = BootDevice.NETWORK in order and nic == first_vlan
        # The ROM is iPXE: only the NIC that boots needs it, every other would cost seconds at each power-on.
        rom = "" if boots and board_of(profile).network_rom else ",romfile="
        rom += f",bootindex={order[BootDevice.NETWORK]}" if boots else ""
        device = f"virtio-net-pci,netdev={network.netdevs[number]},mac={nic.mac},addr={slot:#x}{rom}"
        parts.append(Part(f"nic{number + 1}: {_where(nic)}", ("-device", device)))
    if BootDevice.NETWORK in order and first_vlan is None:
        raise ProfileError(_no_network_boot(profile))
    return parts


def _where(nic: Nic) -> str:
    if nic.is_vlan:
        return f"the VLAN {nic.vlan}" if nic.vlan else "the VLAN"
    return "to the host"


def _no_network_boot(profile: VMProfile) -> str:
    return f"{profile.name} cannot boot from the network: it has no NIC of type VLAN"


def _disks(profile: VMProfile, order: dict[BootDevice, int], directory: Path | None, boot: BootPlan) -> list[Part]:
    """The profile's disk (boot index 0 is taken by a kernel that QEMU boots directly), and its others."""
    image = "qcow2" if directory is None else _format(f"{profile.name}: its disk", directory / profile.image.path)
    arguments = ["-drive", _drive("disk0", profile.image.path, image, boot)]
    index = f",bootindex={order[BootDevice.DISK]}" if BootDevice.DISK in order else ""
    match profile.disk_bus:
        case "virtio":
            arguments += ["-device", f"virtio-blk-pci,drive=disk0{index},addr={_FIRST_DISK_SLOT:#x}"]
        case "scsi":
            arguments += ["-device", _SCSI]
            arguments += ["-device", f"scsi-hd,bus=scsi.0,drive=disk0{index}"]
        case "ide":
            arguments += ["-device", f"ide-hd,{_ide(profile, 'hda')},drive=disk0{index}"]
    parts = [Part("its disk", tuple(arguments))]
    for number, disk in enumerate(profile.virtual_disks, start=1):
        what = f"{profile.name}: the virtual disk {disk.id}"
        image = "raw" if directory is None else _format(what, directory / disk.path)
        drive = ("-drive", _drive(f"disk{number}", disk.path, image, boot))
        parts.append(Part(f"virtual disk {disk.id}", (*drive, "-device", _extra_disk(profile, number, disk.id))))
    return parts


def _format(what: str, path: Path) -> str:
    try:
        return image_format(path)
    except OSError as error:
        why = error.strerror or "cannot be read"
        raise HostError(f"{what}, {path}, cannot be used: {why}") from None


def _extra_disk(profile: VMProfile, number: int, name: str) -> str:
    if profile.disk_bus == "scsi":
        return f"scsi-hd,bus=scsi.0,drive=disk{number}"
    if profile.disk_bus == "virtio":
        return f"virtio-blk-pci,drive=disk{number},addr={_FIRST_DISK_SLOT + number:#x}"
    places = [place for place in board_of(profile).ide[_machine(profile)] if place != "hda"]
    if name not in places:
        raise ProfileError(
            f"{profile.name}: there is no place '{name}' for a disk; on IDE there are: {', '.join(places)}"
        )
    if name == "hdc" and profile.cdrom is not None:
        raise ProfileError(f"{profile.name}: the disk 'hdc' has the place of the CD-ROM; use hdb or hdd")
    return f"ide-hd,{_ide(profile, name)},drive=disk{number}"


def _ide(profile: VMProfile, name: str) -> str:
    bus, unit = board_of(profile).ide[_machine(profile)][name]
    return f"bus=ide.{bus},unit={unit}"


def _cdrom(profile: VMProfile, boot: BootPlan, index: int | None) -> Part:
    if boot.cdrom is None and index is not None and not boot.incoming:
        raise ProfileError(
            f"{profile.name} cannot boot from a CD: there is none; add <cdrom> to its profile, or pass --cdrom ISO"
        )
    if profile.disk_bus == "ide" and any(disk.id == "hdc" for disk in profile.virtual_disks):
        raise ProfileError(f"{profile.name}: the disk 'hdc' has the place of the CD-ROM; use hdb or hdd")
    if board_of(profile).ide:
        controller: tuple[str, ...] = ()
        device = f"ide-cd,id={CD_DRIVE},{_ide(profile, 'hdc')}"
    else:
        controller = () if profile.disk_bus == "scsi" else ("-device", _SCSI)
        device = f"scsi-cd,id={CD_DRIVE},bus=scsi.0"
    device += "" if index is None else f",bootindex={index}"
    if boot.cdrom is None:
        return Part("a CD drive, empty", (*controller, "-device", device))
    drive = f"if=none,id=cdrom,media=cdrom,format=raw,readonly=on,file={_escape(str(boot.cdrom))}"
    return Part("the CD in its drive", (*controller, "-drive", drive, "-device", f"{device},drive=cdrom"))


def _seed(seed: Path, board: Board) -> Part:
    drive = f"if=none,id=seed,format=raw,readonly=on,file={_escape(str(seed))}"
    device = f"virtio-blk-pci,drive=seed,serial=seed,addr={board.seed_slot:#x}"
    return Part("the run's seed (names, keys, answers), a read-only disk", ("-drive", drive, "-device", device))


def _kernel(kernel: DirectKernel) -> Part:
    initrd = () if kernel.initrd is None else ("-initrd", str(kernel.initrd))
    arguments = ("-kernel", str(kernel.kernel), "-append", kernel.parameters, *initrd)
    return Part("a kernel that QEMU boots directly", arguments)


def _drive(identity: str, path: str, image: str, boot: BootPlan) -> str:
    cache = "writeback" if boot.durable else "unsafe"
    return f"if=none,id={identity},format={image},cache={cache},discard=unmap,detect-zeroes=unmap,file={_escape(path)}"


def _escape(text: str) -> str:
    """QEMU separates options by commas; a doubled one stands for itself."""
    return text.replace(",", ",,")
