"""A VM profile: what one virtual machine is, as a small XML file that a person can read and write.

The grammar is V3M's of 2007 (see `v3m_profile.dtd`) and more: a profile of that time loads unchanged and means the
same. What libv3m wrote for 'nothing', an empty element or `N/A`, is read as nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Literal, cast, get_args

from lxml import etree

from oscar_steps.v3m.profiles import xmlfile
from oscar_steps.v3m.profiles.filename import local_path
from oscar_steps.v3m.profiles.xmlfile import Document, shown
from oscar_steps.words import Architecture, HypervisorType

PROFILE_DTD = "v3m_profile.dtd"
DEFAULT_MEMORY_MIB = 128
"""As in libv3m: a profile without `memory` means this."""

Hypervisor = HypervisorType
NicType = Literal["TUN/TAP", "TUN/TAP+NAT", "BRIDGED_TAP", "VLAN"]
DiskBus = Literal["virtio", "scsi", "ide"]
Firmware = Literal["BIOS", "UEFI"]


class BootDevice(StrEnum):
    """What a machine boots from: in a profile's order, for an install boot, for the nodes of a cluster."""

    DISK = "disk"
    CDROM = "cdrom"
    NETWORK = "network"


_NAME = re.compile(r"[^/.-][^/]{0,63}")
_NAME_BYTES = 200
"""A file's name has 255, and ours have endings."""
_WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,63}")
_MAC = re.compile(r"[0-9a-f]{1,2}(?:[:-][0-9a-f]{1,2}){5}")
_NOTHING = ("", "N/A")
_NO_MAC = "00:00:00:00:00:00"
QEMU_MAX_CPUS = 255
"""What its boards for a PC take."""


@dataclass(frozen=True, slots=True)
class DiskImage:
    """The VM's disk: a file, and its size in MiB for when it has to be made (None: it is there)."""

    path: str
    size_mib: int | None = None


@dataclass(frozen=True, slots=True)
class VirtualDisk:
    """One more disk; `id` is the guest's old name of it, e.g. 'hdb'."""

    id: str
    path: str


@dataclass(frozen=True, slots=True)
class Nic:
    """A network card. `mac` is in lower case. Without a type it reaches the host, as TUN/TAP does.

    `option`: the host's interface to bridge or NAT.
    """

    type: NicType | None
    mac: str
    vlan: str | None = None
    option: str | None = None

    @property
    def is_vlan(self) -> bool:
        """Whether it is on a private VLAN; otherwise it reaches the host."""
        return self.type == "VLAN"


@dataclass(frozen=True, slots=True)
class VMProfile:
    """One virtual machine. Of type, architecture, machine and firmware, None means: as the host's hypervisor has it.

    `boot`: what an ordinary boot tries, in this order; empty: the disk alone. `option`: the host's interface to bridge.
    """

    name: str
    type: Hypervisor | None
    image: DiskImage
    option: str | None = None
    cpu: int = 1
    memory_mib: int = DEFAULT_MEMORY_MIB
    virtual_disks: tuple[VirtualDisk, ...] = ()
    cdrom: str | None = None
    nics: tuple[Nic, ...] = ()
    disk_bus: DiskBus = "ide"
    architecture: Architecture | None = None
    machine: str | None = None
    firmware: Firmware | None = None
    boot: tuple[BootDevice, ...] = ()

    @property
    def vlan_nics(self) -> tuple[Nic, ...]:
        return tuple(nic for nic in self.nics if nic.is_vlan)

    @property
    def host_nics(self) -> tuple[Nic, ...]:
        return tuple(nic for nic in self.nics if not nic.is_vlan)


def beside(directory: Path, profile: VMProfile) -> VMProfile:
    """The profile with absolute files: a relative one means beside the profile's own file, in `directory`."""
    cdrom = None if profile.cdrom is None else str(directory / profile.cdrom)
    disks = tuple(replace(disk, path=str(directory / disk.path)) for disk in profile.virtual_disks)
    image = DiskImage(str(directory / profile.image.path), profile.image.size_mib)
    return replace(profile, image=image, virtual_disks=disks, cdrom=cdrom)


def load_profile(path: Path) -> VMProfile:
    """Read one VM profile. Raises ProfileError with file, line and column."""
    return parse_profile(xmlfile.read(path), str(path))


def parse_profile(text: str | bytes, source: str, *, literal: bool = False) -> VMProfile:
    """`text` as a VM profile; errors call it `source`. Raises ProfileError.

    `literal`: a program of ours wrote it, with the files as they are: neither `~` nor a URL is meant in them.
    """
    document = xmlfile.parse(text, source, PROFILE_DTD, ("profile",))
    return _ProfileReader(document, document.root, literal=literal).profile()


def profile_from_element(document: Document, element: etree._Element) -> VMProfile:
    """A `<profile>` that is valid by the DTD; its values are checked here. Raises ProfileError."""
    return _ProfileReader(document, element).profile()


def mac_address(text: str) -> str | None:
    """`text` as a MAC address of two lower-case digits each, with colons; None where it is none.

    QEMU of 2007 took single digits, too.
    """
    digits = re.split("[:-]", text.lower())
    return ":".join(pair.zfill(2) for pair in digits) if _MAC.fullmatch(text.lower()) else None


class _ProfileReader:
    """Reads one `<profile>`; the error names the place of the first value that is wrong."""

    def __init__(self, document: Document, element: etree._Element, *, literal: bool = False) -> None:
        self._document = document
        self._literal = literal
        self._values = {str(child.tag): child for child in element}

    def profile(self) -> VMProfile:
        values = self._values
        image = values["image"]
        size = _something(image.get("size"))
        return VMProfile(
            name=self._name(values["name"]),
            type=cast(Hypervisor | None, self._choice("type", Hypervisor)),
            option=self._option(values.get("type")),
            cpu=self._cpu(),
            memory_mib=self._number("memory", DEFAULT_MEMORY_MIB),
            image=DiskImage(self._path(image), None if size is None else self._positive(size, image, "size")),
            virtual_disks=tuple(self._virtual_disk(disk) for disk in values.get("virtual_disks", ())),
            cdrom=self._cdrom(),
            nics=tuple(
                self._nic(child) for tag, child in values.items() if tag.startswith("nic") and not is_left_open(child)
            ),
            disk_bus=cast(DiskBus, image.get("bus", "ide")),
            architecture=cast(Architecture | None, self._choice("architecture", Architecture)),
            machine=self._machine(),
            firmware=cast(Firmware | None, self._choice("firmware", Firmware)),
            boot=self._boot(),
        )

    def _name(self, element: etree._Element) -> str:
        name = xmlfile.text_of(element)
        if not (_NAME.fullmatch(name) and name.isprintable() and len(name.encode()) <= _NAME_BYTES):
            what = "cannot name files; write 1 to 64 printable characters, no '/', no '.' or '-' first"
            self._document.fail(element, f"the name '{shown(name)}' {what}")
        return name

    def _choice(self, tag: str, words: object) -> str | None:
        return self._one_of(self._values[tag], words, tag) if tag in self._values else None

    def _one_of(self, element: etree._Element, words: object, what: str) -> str:
        word, known = xmlfile.text_of(element), get_args(words)
        if word not in known:
            self._document.fail(element, f"the {what} '{shown(word)}' is not known; there are: {', '.join(known)}")
        return word

    def _option(self, element: etree._Element | None) -> str | None:
        option = None if element is None else _something(element.get("option"))
        if element is not None and option is not None and not option.isprintable():
            self._document.fail(element, f"option='{shown(option)}' has to name an interface of the host, e.g. eth0")
        return option

    def _machine(self) -> str | None:
        element = self._values.get("machine")
        if element is None:
            return None
        word = xmlfile.text_of(element)
        if not _WORD.fullmatch(word):
            self._document.fail(element, f"the machine '{shown(word)}' is not one word; write, e.g., pc or q35")
        return word

    def _boot(self) -> tuple[BootDevice, ...]:
        element = self._values.get("boot")
        if element is None:
            return ()
        words, known = xmlfile.text_of(element).replace(",", " ").split(), [*BootDevice]
        if not words or len(set(words)) < len(words) or not set(words) <= set(known):
            what = f"the boot order '{shown(' '.join(words))}' has to be one or more of {', '.join(known)}, each once"
            self._document.fail(element, what)
        return tuple(map(BootDevice, words))

    def _virtual_disk(self, element: etree._Element) -> VirtualDisk:
        identity = str(element.get("id")).strip()
        if not _WORD.fullmatch(identity):
            what = f"the disk's id '{shown(identity)}' is not one word; write, e.g., hdb"
            self._document.fail(element, what)
        return VirtualDisk(identity, self._path(element))

    def _cdrom(self) -> str | None:
        element = self._values.get("cdrom")
        return None if element is None or _something(element.text) is None else self._path(element)

    def _nic(self, element: etree._Element) -> Nic:
        values = {str(child.tag): child for child in element}
        nic_type = cast(NicType, self._one_of(values["type"], NicType, "NIC type")) if "type" in values else None
        vlan = element.get("vlan")
        if vlan is not None and nic_type != "VLAN":
            self._document.fail(element, f"vlan='{shown(vlan)}' stands on a NIC whose type is not VLAN")
        if vlan is not None and not _WORD.fullmatch(vlan):
            what = f"vlan='{shown(vlan)}' is not a name of letters, digits, '.', '_', '+' and '-', e.g. storage"
            self._document.fail(element, what)
        return Nic(nic_type, self._mac(values["mac"]), vlan, self._option(values.get("type")))

    def _mac(self, element: etree._Element) -> str:
        text = xmlfile.text_of(element)
        mac = mac_address(text)
        if mac is None:
            what = f"'{shown(text)}' is not a MAC address; write, e.g., 52:54:00:00:00:11"
            self._document.fail(element, what)
        if int(mac[:2], 16) & 1:
            what = f"a NIC cannot have the multicast MAC {mac}: its first pair is odd; use, e.g., 52:54:00:…"
            self._document.fail(element, what)
        if mac == _NO_MAC:
            what = f"a NIC cannot have the MAC {mac}: a hypervisor would replace it; use, e.g., 52:54:00:…"
            self._document.fail(element, what)
        return mac

    def _path(self, element: etree._Element) -> str:
        # libv3m took line breaks out of a path; one beside white space cannot be meant as a part of it.
        path = re.sub(r"(?<![ \t])\n(?![ \t])", "", xmlfile.text_of(element))
        tag = xmlfile.tag_of(element)
        if not self._literal:
            try:
                path = local_path(path)
            except ValueError as error:
                self._document.fail(element, f"<{tag}> '{shown(path)}' {error}")
        if path in _NOTHING:
            self._document.fail(element, f"<{tag}> is empty; it has to name a file")
        if any(ord(character) < 32 or ord(character) == 127 for character in path):
            self._document.fail(element, f"there is a line break or tab inside <{tag}>; it has to name one file")
        if not Path(path).name:
            self._document.fail(element, f"<{tag}> is '{shown(path)}', a directory; it has to name a file")
        return path

    def _cpu(self) -> int:
        count, kind = self._number("cpu", 1), self._values.get("type")
        if count > QEMU_MAX_CPUS and (kind is None or xmlfile.text_of(kind) in ("Qemu", "Kvm")):
            self._document.fail(self._values["cpu"], f"cpu is {count}; QEMU's machines take 1 to {QEMU_MAX_CPUS}")
        return count

    def _number(self, tag: str, default: int) -> int:
        element = self._values.get(tag)
        return default if element is None else self._positive(xmlfile.text_of(element), element, tag)

    def _positive(self, text: str, element: etree._Element, what: str) -> int:
        digits = text.strip().lstrip("0")
        if not (digits.isascii() and digits.isdigit() and len(digits) <= 10 and int(digits) < 1 << 31):
            self._document.fail(element, f"{what} is '{shown(text)}'; it has to be a whole number above 0")
        return int(digits)


def _something(text: str | None) -> str | None:
    """None for what libv3m wrote for nothing."""
    stripped = (text or "").strip()
    return None if stripped in _NOTHING else stripped


def is_left_open(nic: etree._Element) -> bool:
    """Whether libv3m had no such NIC: its type is there, and says nothing. (A NIC without `<type>` is there.)"""
    nic_type = nic.find("type")
    return nic_type is not None and _something(nic_type.text) is None


# --- writing ---------------------------------------------------------------------------------------------------------


def profile_to_element(profile: VMProfile) -> etree._Element:
    """The profile as an element, valid by the DTD."""
    root = etree.Element("profile")
    _add(root, "name", profile.name)
    if profile.type is not None:
        _add(root, "type", profile.type, option=profile.option)
    _add(root, "cpu", str(profile.cpu))
    _add(root, "memory", str(profile.memory_mib))
    for tag, value in (
        ("architecture", profile.architecture),
        ("machine", profile.machine),
        ("firmware", profile.firmware),
        ("boot", " ".join(profile.boot)),
    ):
        if value:
            _add(root, tag, value)
    size = None if profile.image.size_mib is None else str(profile.image.size_mib)
    _add(root, "image", profile.image.path, bus=profile.disk_bus, size=size)
    if profile.virtual_disks:
        disks = etree.SubElement(root, "virtual_disks")
        for disk in profile.virtual_disks:
            _add(disks, "virtual_disk", disk.path, id=disk.id)
    if profile.cdrom is not None:
        _add(root, "cdrom", profile.cdrom)
    for number, nic in enumerate(profile.nics, start=1):
        element = _add(root, f"nic{number}", None, vlan=nic.vlan)
        if nic.type is not None:
            _add(element, "type", nic.type, option=nic.option)
        _add(element, "mac", nic.mac)
    return root


def _add(parent: etree._Element, tag: str, text: str | None, **attributes: str | None) -> etree._Element:
    """A child; attributes that are None are left out."""
    element = etree.SubElement(parent, tag, {name: value for name, value in attributes.items() if value is not None})
    element.text = text
    return element


def to_text(root: etree._Element, dtd_name: str) -> str:
    """A whole document, with declaration and DOCTYPE."""
    doctype = f'<!DOCTYPE {xmlfile.tag_of(root)} SYSTEM "{dtd_name}">'
    text = etree.tostring(root, pretty_print=True, xml_declaration=True, encoding="UTF-8", doctype=doctype)
    return text.decode()


def profile_to_xml(profile: VMProfile) -> str:
    """The profile as XML; `parse_profile` of it gives an equal profile."""
    return to_text(profile_to_element(profile), PROFILE_DTD)


def profiles_to_xml(profiles: Iterable[VMProfile]) -> str:
    """A set of profiles as XML; `cluster.parse_any` of it gives equal ones."""
    root = etree.Element("profiles")
    root.extend([profile_to_element(profile) for profile in profiles])
    return to_text(root, PROFILE_DTD)
