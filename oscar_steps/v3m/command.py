"""QEMU's command line of one boot of one machine: a pure function of profile, network and boot.

All paths are relative to the run directory, in which QEMU is started: socket paths may have 107 bytes only.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from oscar_steps.errors import ProfileError
from oscar_steps.v3m.accelerator import Accelerator
from oscar_steps.v3m.cluster import Boot
from oscar_steps.v3m.disks import image_format
from oscar_steps.v3m.network import MachineNetwork
from oscar_steps.v3m.profile import VMProfile

_FIRST_NIC_SLOT = 0x03
_SCSI_SLOT = 0x12
_SEED_SLOT = 0x14
_RNG_SLOT = 0x15
_PVPANIC_SLOT = 0x16
_FIRST_DISK_SLOT = 0x17


@dataclass(frozen=True, slots=True)
class DirectKernel:
    """A kernel that QEMU loads itself, without firmware and boot loader. Meant for tests and probes."""

    kernel: Path
    initrd: Path | None = None
    parameters: str = "console=ttyS0"


@dataclass(frozen=True, slots=True)
class BootPlan:
    """How this boot is done. `cdrom` is the installer's CD; `medium` None: from the disk alone."""

    medium: Boot | None = None
    cdrom: Path | None = None
    seed: Path | None = None
    kernel: DirectKernel | None = None


def qemu_arguments(
    profile: VMProfile, network: MachineNetwork, accelerator: Accelerator, boot: BootPlan, *, console: str, qmp_fd: int
) -> list[str]:
    """Everything after the program's name. The machine starts stopped (`-S`), so that no event is missed."""
    arguments = ["-name", _escape(profile.name), "-nodefaults", "-no-user-config", "-display", "none", "-S"]
    arguments += ["-machine", "pc", "-accel", accelerator.name, "-cpu", accelerator.cpu]
    arguments += ["-smp", str(profile.cpu), "-m", str(profile.memory_mib), "-rtc", "base=utc"]
    arguments += ["-boot", "strict=on,menu=off", "-action", f"panic=pause,reboot={_on_reboot(boot)}"]
    arguments += ["-chardev", f"socket,id=qmp,fd={qmp_fd}", "-mon", "chardev=qmp,mode=control"]
    arguments += ["-chardev", f"file,id=console,path={_escape(console)},append=on", "-serial", "chardev:console"]
    arguments += ["-device", "VGA,addr=0x02"]
    arguments += _nics(profile, network, boot)
    arguments += _disks(profile)
    if boot.medium is Boot.CDROM:
        arguments += _cdrom(profile, boot)
    if boot.seed is not None:
        arguments += ["-drive", f"if=none,id=seed,format=raw,readonly=on,file={_escape(str(boot.seed))}"]
        arguments += ["-device", f"virtio-blk-pci,drive=seed,serial=seed,addr={_SEED_SLOT:#x}"]
    arguments += ["-device", f"virtio-rng-pci,addr={_RNG_SLOT:#x}", "-device", f"pvpanic-pci,addr={_PVPANIC_SLOT:#x}"]
    if boot.kernel is not None:
        arguments += ["-kernel", str(boot.kernel.kernel), "-append", boot.kernel.parameters]
        arguments += ["-initrd", str(boot.kernel.initrd)] if boot.kernel.initrd is not None else []
    return arguments


def _on_reboot(boot: BootPlan) -> str:
    """A reboot ends an install boot: without its CD, and after a look at the disk, the machine is started anew."""
    return "reset" if boot.medium is None else "shutdown"


def _nics(profile: VMProfile, network: MachineNetwork, boot: BootPlan) -> list[str]:
    """NICs to the host come first in the PCI slots, so that eth0 is always the one to the host where there is one."""
    arguments = list(network.arguments)
    order = sorted(range(len(profile.nics)), key=lambda number: (profile.nics[number].is_vlan, number))
    first_vlan = profile.vlan_nics[0] if profile.vlan_nics else None
    for slot, number in enumerate(order, start=_FIRST_NIC_SLOT):
        nic = profile.nics[number]
        # The ROM is iPXE: only the NIC that boots needs it, every other would cost seconds at each power-on.
        boots = boot.medium is Boot.NETWORK and nic == first_vlan
        rom = ",bootindex=3" if boots else ",romfile="
        arguments += ["-device", f"virtio-net-pci,netdev={network.netdevs[number]},mac={nic.mac},addr={slot:#x}{rom}"]
    if boot.medium is Boot.NETWORK and first_vlan is None:
        raise ProfileError(f"{profile.name} cannot boot from the network: it has no NIC of type VLAN")
    return arguments


def _disks(profile: VMProfile) -> list[str]:
    """The profile's disk, first in boot order (index 0 is taken by a kernel that QEMU loads itself), and its others.

    Nothing is synced: a run's disks outlive no crash of the host.
    """
    arguments = ["-drive", _drive("disk0", profile.image.path, "qcow2")]
    match profile.disk_bus:
        case "virtio":
            arguments += ["-device", f"virtio-blk-pci,drive=disk0,bootindex=1,addr={_FIRST_DISK_SLOT:#x}"]
        case "scsi":
            arguments += ["-device", f"virtio-scsi-pci,id=scsi,addr={_SCSI_SLOT:#x}"]
            arguments += ["-device", "scsi-hd,bus=scsi.0,drive=disk0,bootindex=1"]
        case "ide":
            arguments += ["-device", "ide-hd,bus=ide.0,unit=0,drive=disk0,bootindex=1"]
    for number, disk in enumerate(profile.virtual_disks, start=1):
        arguments += ["-drive", _drive(f"disk{number}", disk.path, image_format(Path(disk.path)))]
        arguments += ["-device", _extra_disk(profile, number, disk.id)]
    return arguments


def _extra_disk(profile: VMProfile, number: int, name: str) -> str:
    if profile.disk_bus == "scsi":
        return f"scsi-hd,bus=scsi.0,drive=disk{number}"
    if profile.disk_bus == "virtio":
        return f"virtio-blk-pci,drive=disk{number},addr={_FIRST_DISK_SLOT + number:#x}"
    places = {"hdb": (0, 1), "hdc": (1, 0), "hdd": (1, 1)}
    if name not in places:
        raise ProfileError(
            f"{profile.name}: there is no place '{name}' for a disk; on IDE there are: {', '.join(places)}"
        )
    if name == "hdc" and profile.cdrom is not None:
        raise ProfileError(f"{profile.name}: the disk 'hdc' is where the CD-ROM is; use hdb or hdd")
    bus, unit = places[name]
    return f"ide-hd,bus=ide.{bus},unit={unit},drive=disk{number}"


def _cdrom(profile: VMProfile, boot: BootPlan) -> list[str]:
    if boot.cdrom is None:
        raise ProfileError(f"{profile.name} cannot boot from a CD: neither its profile nor the caller names one")
    arguments = ["-drive", f"if=none,id=cdrom,media=cdrom,format=raw,readonly=on,file={_escape(str(boot.cdrom))}"]
    return [*arguments, "-device", "ide-cd,bus=ide.1,unit=0,drive=cdrom,bootindex=2"]


def _drive(identity: str, path: str, image: str) -> str:
    return f"if=none,id={identity},format={image},cache=unsafe,discard=unmap,detect-zeroes=unmap,file={_escape(path)}"


def _escape(text: str) -> str:
    """QEMU separates options by commas; a doubled one stands for itself."""
    return text.replace(",", ",,")
