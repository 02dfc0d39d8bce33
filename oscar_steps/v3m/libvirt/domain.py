"""libvirt's definition of a virtual machine of type `Xen`, `XenHVM` or `VMWare`: a pure function of its profile.

What each type, disk bus and kind of NIC becomes is in `docs/hypervisors.md`, how far each was tried in
`docs/hypervisors-proof.md`. What a profile asks for and a hypervisor does not have is refused; nothing is left out in
silence.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NoReturn

from lxml import etree

from oscar_steps.errors import NotOffered, ProfileError
from oscar_steps.v3m.boot import BootPlan
from oscar_steps.v3m.libvirt.networks import INTERFACE, VMWARE_NETWORK, Networks, plan_networks
from oscar_steps.v3m.profiles.vm import BootDevice, DiskBus, Firmware, Nic, VMProfile

_ORDINARY_BOOT = BootPlan()
_LETTERS = "abcdefghijklmnopqrstuvwxyz"
_CD_LETTER = "c"
_DISK_ID = re.compile(r"(?:h|s|v|xv)d([a-z])")
_ARCHITECTURES = {None: "x86_64", "x86_64": "x86_64", "i386": "i686"}
_BOOT_WORDS: dict[BootDevice, str] = {
    BootDevice.DISK: "hd",
    BootDevice.CDROM: "cdrom",
    BootDevice.NETWORK: "network",
}


@dataclass(frozen=True, slots=True)
class _Bus:
    """A bus as libvirt calls it, the beginning of its disks' names, and how many disks it takes."""

    word: str
    prefix: str
    places: int
    controller: str | None = None

    @property
    def shares_the_cd_drive(self) -> bool:
        """Whether its third disk would be where the CD is. Xen's first four disks are IDE disks for the firmware."""
        return self.word != "scsi"


@dataclass(frozen=True, slots=True)
class _Hypervisor:
    """What libvirt calls a hypervisor's guests, and what they can have."""

    words: str
    domain: str
    os_type: str
    machine: str | None
    machines: tuple[str | None, ...]
    firmwares: Mapping[Firmware | None, str | None]
    """To the loader's file, for firmware that is one."""
    buses: Mapping[DiskBus, _Bus]
    cd_bus: _Bus
    nic_model: str | None
    max_cpus: int
    """Xen's by its own support statement; VMware's of the hardware version 7 that libvirt writes for Player."""
    max_nics: int


_IDE = _Bus("ide", "hd", 4)
_XEN_BUS = _Bus("xen", "xvd", len(_LETTERS))
_HYPERVISORS = {
    "Xen": _Hypervisor(
        words="a para-virtual Xen guest",
        domain="xen",
        os_type="linux",
        machine="xenpv",
        machines=(None, "xenpv"),
        firmwares={None: None},
        buses={"ide": _XEN_BUS, "scsi": _XEN_BUS, "virtio": _XEN_BUS},
        cd_bus=_XEN_BUS,
        nic_model=None,
        max_cpus=8192,
        max_nics=32,
    ),
    "XenHVM": _Hypervisor(
        words="a fully virtual Xen guest",
        domain="xen",
        os_type="hvm",
        machine="xenfv",
        machines=(None, "xenfv", "pc"),
        firmwares={None: None, "BIOS": None, "UEFI": "/usr/lib/xen/boot/ovmf.bin"},
        buses={"ide": _IDE, "scsi": _Bus("scsi", "sd", 7), "virtio": _XEN_BUS},
        cd_bus=_IDE,
        nic_model="e1000",
        max_cpus=128,
        max_nics=32,
    ),
    "VMWare": _Hypervisor(
        words="a VMware guest",
        domain="vmware",
        os_type="hvm",
        machine=None,
        machines=(None, "pc"),
        firmwares={None: None, "BIOS": None},
        buses={
            "ide": _IDE,
            "scsi": _Bus("scsi", "sd", 15, "lsilogic"),
            "virtio": _Bus("scsi", "sd", 15, "vmpvscsi"),
        },
        cd_bus=_IDE,
        nic_model="e1000",
        max_cpus=8,
        max_nics=10,
    ),
}


def domain_xml(
    profile: VMProfile,
    directory: Path,
    plan: BootPlan = _ORDINARY_BOOT,
    networks: Networks | None = None,
    *,
    console: Path | None = None,
    name: str | None = None,
    uuid: str | None = None,
) -> str:
    """The definition of `profile` for one boot. `directory`: the absolute one that its relative paths start from.

    `networks`: those of the whole cluster; None: of this machine alone. `console`: the file for the serial console;
    None, and always for a para-virtual guest: a terminal of the hypervisor's. (VMware has none, and gets no console.)
    The kernel in a `plan` gets its console by its parameters: a para-virtual guest's is hvc0.
    `name`, `uuid`: under which libvirt knows it; None: the profile's name, and a UUID of libvirt's choice.

    Raises ProfileError for what the hypervisor cannot do.
    """
    check(profile, plan)
    kind = _kind(profile)
    root = etree.Element("domain", {"type": kind.domain})
    _add(root, "name", name or profile.name)
    if uuid is not None:
        _add(root, "uuid", uuid)
    for tag in ("memory", "currentMemory"):
        _add(root, tag, str(profile.memory_mib), unit="MiB")
    _add(root, "vcpu", str(profile.cpu))
    _add_boot(root, profile, plan, kind, directory)
    _add(root, "clock", offset="utc")
    if kind.domain == "xen":
        _add(root, "on_poweroff", "destroy")
        # Kept, so that a reboot differs from a power-off: libvirt's event is the same.
        _add(root, "on_reboot", "restart" if plan.medium is None else "preserve")
        _add(root, "on_crash", "preserve")
    devices = _add(root, "devices")
    _add_disks(devices, profile, plan, kind, directory)
    networks = plan_networks((profile,)) if networks is None else networks
    for nic in _in_guest_order(profile):
        _add_nic(devices, profile, nic, kind, networks)
    _add_console(devices, kind, None if console is None else _absolute(profile, str(console), directory))
    return etree.tostring(root, pretty_print=True, encoding="unicode")


def is_libvirts(profile: VMProfile) -> bool:
    """Whether its type is one of libvirt's; all others are QEMU's, or refused."""
    return profile.type in _HYPERVISORS


def disk_format(path: str) -> Literal["qcow2", "raw"]:
    """What a Xen guest's disk is, by its name."""
    return "qcow2" if path.endswith(".qcow2") else "raw"


def refuse(profile: VMProfile) -> NoReturn:
    """Raise ProfileError for a type that nothing here can start, and say why."""
    if profile.type == "VMM-HPC":
        why = "a research prototype of 2007 whose tools are no longer available"
        raise NotOffered(
            f"{profile.name} is of type VMM-HPC, {why}; set the type Qemu, Kvm, Xen, XenHVM or VMWare instead"
        )
    what = "has no type" if profile.type is None else f"is of type {profile.type}"
    raise ProfileError(
        f"{profile.name} {what}, which QEMU runs without libvirt; that is for: {', '.join(_HYPERVISORS)}"
    )


def check(profile: VMProfile, plan: BootPlan = _ORDINARY_BOOT) -> None:
    """Raise ProfileError for what the profile's hypervisor cannot do: better before a run than in the middle of it."""
    kind = _kind(profile)
    is_a = f"{profile.name} is {kind.words}"
    if profile.architecture not in _ARCHITECTURES:
        raise ProfileError(f"{is_a} with the architecture {profile.architecture}; there are: x86_64, i386")
    if profile.machine not in kind.machines:
        known = ", ".join(word for word in kind.machines if word)
        raise ProfileError(f"{is_a} with the machine {profile.machine}; there is only: {known}")
    _check_firmware(profile, kind)
    if profile.cpu > kind.max_cpus:
        raise ProfileError(f"{is_a} with {profile.cpu} processors; it can have {kind.max_cpus}")
    _check_boot(profile, plan)
    _check_nics(profile, kind)
    _disk_letters(profile, kind, has_cd=_cdrom(profile, plan) is not None)
    if profile.type == "VMWare":
        _check_vmware_files(profile, plan)


def _kind(profile: VMProfile) -> _Hypervisor:
    kind = _HYPERVISORS.get(profile.type or "")
    return refuse(profile) if kind is None else kind


# --- booting ---------------------------------------------------------------------------------------------------------


def _check_firmware(profile: VMProfile, kind: _Hypervisor) -> None:
    if profile.firmware in kind.firmwares:
        return
    is_a = f"{profile.name} is {kind.words} with the firmware {profile.firmware}"
    if profile.type == "Xen":
        raise ProfileError(f"{is_a}; such a guest has no firmware: leave it out, or set the type XenHVM")
    raise ProfileError(f"{is_a}; libvirt refuses to define that, there is only: BIOS")


def _check_boot(profile: VMProfile, plan: BootPlan) -> None:
    name, order = profile.name, _boot_order(profile, plan)
    if BootDevice.CDROM in order and _cdrom(profile, plan) is None:
        raise ProfileError(
            f"{name} cannot boot from a CD: there is none; add <cdrom> to its profile, or pass --cdrom ISO"
        )
    if BootDevice.NETWORK in order and not profile.vlan_nics:
        raise ProfileError(f"{name} cannot boot from the network: it has no NIC of type VLAN")
    if profile.type == "Xen" and plan.kernel is None and order != (BootDevice.DISK,):
        what = "a para-virtual Xen guest, which has no firmware to boot from a CD or the network with"
        raise ProfileError(f"{name} is {what}: give it the installer's kernel and initrd, or set the type XenHVM")
    if profile.type == "VMWare" and plan.kernel is not None:
        raise ProfileError(f"{name} is a VMware guest, which starts no kernel from outside of its disks")
    if profile.type == "VMWare" and order != tuple(each for each in BootDevice if each in {BootDevice.DISK, *order}):
        what = "is a VMware guest, which tries disk, cdrom, network in this order; libvirt cannot set the order"
        raise ProfileError(f"{name} {what} '{' '.join(order)}'")


def _boot_order(profile: VMProfile, plan: BootPlan) -> tuple[BootDevice, ...]:
    """As the other back-ends have it: an installation tries the disk first, and a blank one falls through."""
    match plan.medium:
        case BootDevice.CDROM:
            return (BootDevice.DISK, BootDevice.CDROM)
        case BootDevice.NETWORK:
            return (BootDevice.DISK, BootDevice.NETWORK)
        case _:
            return profile.boot or (BootDevice.DISK,)


def _add_boot(root: etree._Element, profile: VMProfile, plan: BootPlan, kind: _Hypervisor, directory: Path) -> None:
    """`<bootloader>`, `<os>` and `<features>`. pygrub reads the boot menu on a para-virtual guest's disk."""
    if kind.os_type == "linux" and plan.kernel is None:
        _add(root, "bootloader", "pygrub")
    os = _add(root, "os")
    _add(os, "type", kind.os_type, arch=_ARCHITECTURES[profile.architecture], machine=kind.machine)
    loader = kind.firmwares[profile.firmware]
    if loader is not None:
        _add(os, "loader", loader, readonly="yes", type="pflash")
    if plan.kernel is not None:
        _add(os, "kernel", _absolute(profile, str(plan.kernel.kernel), directory))
        if plan.kernel.initrd is not None:
            _add(os, "initrd", _absolute(profile, str(plan.kernel.initrd), directory))
        _add(os, "cmdline", plan.kernel.parameters)
    if kind.os_type == "hvm":
        for device in _boot_order(profile, plan):
            _add(os, "boot", dev=_BOOT_WORDS[device])
        features = _add(root, "features")
        for word in ("acpi", "apic", "pae"):
            _add(features, word)


# --- disks -----------------------------------------------------------------------------------------------------------


def _cdrom(profile: VMProfile, plan: BootPlan) -> str | None:
    return profile.cdrom if plan.cdrom is None else str(plan.cdrom)


def _check_vmware_files(profile: VMProfile, plan: BootPlan) -> None:
    """libvirt's converter goes by a file's ending, which VMware does, too."""
    for path in (profile.image.path, *(disk.path for disk in profile.virtual_disks)):
        if path.startswith("/dev/") or not path.lower().endswith(".vmdk"):
            what = f"is a VMware guest, whose disks are files that end in .vmdk; '{path}' does not"
            raise ProfileError(f"{profile.name} {what}: convert it by qemu-img convert -O vmdk")
    cdrom = _cdrom(profile, plan)
    if cdrom is not None and not cdrom.startswith("/dev/") and not cdrom.lower().endswith(".iso"):
        raise ProfileError(
            f"{profile.name} is a VMware guest, whose CD is a file that ends in .iso; '{cdrom}' does not"
        )


def _disk_letters(profile: VMProfile, kind: _Hypervisor, *, has_cd: bool) -> dict[str, str]:
    """The last letter in the guest's name of each virtual disk, by the disk's id. The profile's own disk is 'a'.

    An id such as hdb keeps its letter, whatever the bus; any other id, which IDE does not take, gets the next free one.
    """
    bus = kind.buses[profile.disk_bus]
    cd = _CD_LETTER if has_cd and bus.shares_the_cd_drive else ""
    free = [letter for letter in _LETTERS[: bus.places] if letter not in f"a{cd}"]
    own = {disk.id: match[1] for disk in profile.virtual_disks if (match := _DISK_ID.fullmatch(disk.id))}
    letters: dict[str, str] = {}
    for identity in sorted((disk.id for disk in profile.virtual_disks), key=lambda identity: identity not in own):
        if identity in letters:
            raise ProfileError(f"{profile.name} has two virtual disks with the id '{identity}'; each needs its own")
        any_free = free[:1] if bus.word != "ide" else []
        letter = own.get(identity) or "".join(any_free)
        if cd and letter == cd:
            raise ProfileError(f"{profile.name}: the disk '{identity}' has the place of the CD-ROM; use another letter")
        if letter not in free:
            left = ", ".join(f"{bus.prefix}{letter}" for letter in free) or "none"
            what = f"there is no place '{identity}' for a disk; {kind.words} has left: {left}"
            raise ProfileError(f"{profile.name}: {what}")
        free.remove(letter)
        letters[identity] = letter
    return letters


def _add_disks(devices: etree._Element, profile: VMProfile, plan: BootPlan, kind: _Hypervisor, directory: Path) -> None:
    bus, cdrom = kind.buses[profile.disk_bus], _cdrom(profile, plan)
    letters = _disk_letters(profile, kind, has_cd=cdrom is not None)
    if bus.controller is not None:
        _add(devices, "controller", type="scsi", index="0", model=bus.controller)
    disks = [("a", profile.image.path), *((letters[disk.id], disk.path) for disk in profile.virtual_disks)]
    for letter, path in disks:
        _add_disk(devices, kind, bus, letter, _absolute(profile, path, directory))
    if cdrom is not None:
        _add_disk(devices, kind, kind.cd_bus, _CD_LETTER, _absolute(profile, cdrom, directory), device="cdrom")
    if plan.seed is not None:
        _add_seed(devices, profile, kind, bus, {letter for letter, _ in disks}, str(plan.seed), directory)


def _add_seed(
    devices: etree._Element,
    profile: VMProfile,
    kind: _Hypervisor,
    bus: _Bus,
    taken: set[str],
    seed: str,
    directory: Path,
) -> None:
    """What is personal to a run, as the last disk there is place for, read-only. VMware takes no raw disk."""
    free = [letter for letter in _LETTERS[: bus.places] if letter not in taken and letter != _CD_LETTER]
    if kind.domain != "xen" or not free:
        raise ProfileError(f"{profile.name} is {kind.words}, which has no place for the run's second disk")
    disk = _add_disk(devices, kind, bus, free[-1], _absolute(profile, seed, directory))
    _add(disk, "readonly")


def _add_disk(
    devices: etree._Element, kind: _Hypervisor, bus: _Bus, letter: str, path: str, *, device: str = "disk"
) -> etree._Element:
    """A disk or CD. A file of the host's `/dev` is a device, e.g. its CD drive or a logical volume."""
    is_device = path.startswith("/dev/")
    disk = _add(devices, "disk", type="block" if is_device else "file", device=device)
    if kind.domain == "xen":
        _add(disk, "driver", name="qemu", type=disk_format(path))
    _add(disk, "source", **{"dev" if is_device else "file": path})
    _add(disk, "target", dev=f"{bus.prefix}{letter}", bus=bus.word)
    if device == "cdrom":
        _add(disk, "readonly")
    return disk


def _absolute(profile: VMProfile, path: str, directory: Path) -> str:
    absolute = directory / path
    if not absolute.is_absolute():
        raise ProfileError(f"{profile.name}: '{path}' is not an absolute path, which libvirt needs; begin it with /")
    return str(absolute)


# --- NICs and console ------------------------------------------------------------------------------------------------


def _in_guest_order(profile: VMProfile) -> Iterator[Nic]:
    """NICs to the host come first, as with QEMU, so that eth0 is the same one whatever the type."""
    yield from profile.host_nics
    yield from profile.vlan_nics


def _check_nics(profile: VMProfile, kind: _Hypervisor) -> None:
    name, macs = profile.name, [nic.mac for nic in profile.nics]
    if len(macs) > kind.max_nics:
        raise ProfileError(f"{name} is {kind.words} with {len(macs)} NICs; it can have {kind.max_nics}")
    for number, nic in enumerate(profile.nics):
        if nic.mac in macs[:number]:
            raise ProfileError(f"{name} has two NICs with the MAC {nic.mac}; every NIC needs its own")
        if int(nic.mac[:2], 16) & 1:
            raise ProfileError(f"{name} has the multicast MAC {nic.mac} (first pair is odd); use, e.g., 52:54:00:…")
        if nic.type != "BRIDGED_TAP" and nic.option is not None:
            raise ProfileError(_option_unused(name, nic.option))
    bridged = [nic for nic in profile.nics if nic.type == "BRIDGED_TAP"]
    if profile.option is not None and not bridged:
        raise ProfileError(_option_unused(name, profile.option))
    for option in [option for nic in bridged if (option := nic.option or profile.option) is not None]:
        _check_option(profile, option)


def _option_unused(name: str, option: str) -> str:
    what = "only a NIC of type BRIDGED_TAP can have one; for NAT the host's network decides: leave the option out"
    return f"{name} names the host's interface '{option}' (option), but {what}"


def _check_option(profile: VMProfile, option: str) -> None:
    if profile.type == "VMWare" and not VMWARE_NETWORK.fullmatch(option):
        what = "VMware bridges by networks of its own; write, e.g., vmnet0"
        raise ProfileError(f"{profile.name} names the host's interface '{option}' to bridge (option), but {what}")
    if not INTERFACE.fullmatch(option):
        what = "that is not the name of an interface: up to 15 letters, digits, '.', '_' and '-'"
        raise ProfileError(f"{profile.name} names the host's interface '{option}' to bridge (option), but {what}")


def _add_nic(devices: etree._Element, profile: VMProfile, nic: Nic, kind: _Hypervisor, networks: Networks) -> None:
    vmware = kind.domain == "vmware"
    match nic.type:
        case "VLAN":
            kind_of_network, source = "bridge", networks.vlan(profile.name, nic.vlan)
        case "BRIDGED_TAP":
            kind_of_network, source = "bridge", nic.option or profile.option or networks.bridge
        case _:
            kind_of_network, source = ("user", "") if vmware else ("network", networks.nat)
    interface = _add(devices, "interface", type=kind_of_network)
    _add(interface, "mac", address=nic.mac)
    if kind_of_network != "user":
        _add(interface, "source", **{kind_of_network: source})
    if vmware and kind_of_network == "bridge":
        _add(interface, "target", dev=source)  # only this makes the converter write the network's name for Player
    if kind.nic_model is not None:
        _add(interface, "model", type=kind.nic_model)


def _add_console(devices: etree._Element, kind: _Hypervisor, path: str | None) -> None:
    if kind.os_type == "linux":
        _add(_add(devices, "console", type="pty"), "target", type="xen", port="0")
    elif path is not None:
        serial = _add(devices, "serial", type="file")
        _add(serial, "source", path=path)
        _add(serial, "target", port="0")
    elif kind.domain == "xen":
        _add(_add(devices, "serial", type="pty"), "target", port="0")


def _add(parent: etree._Element, tag: str, text: str | None = None, **attributes: str | None) -> etree._Element:
    """A child; attributes that are None are left out."""
    element = etree.SubElement(parent, tag, {name: value for name, value in attributes.items() if value is not None})
    element.text = text
    return element
