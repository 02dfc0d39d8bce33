"""A VM profile: what one virtual machine is, as a small XML file that a person can read and write.

The grammar is V3M's of 2007 (see `dtd/v3m_profile.dtd`): a profile of that time loads unchanged and means the same.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast, get_args

from lxml import etree

from oscar_steps.v3m import xmlfile

PROFILE_DTD = "v3m_profile.dtd"
DEFAULT_MEMORY_MIB = 512

Hypervisor = Literal["Qemu", "Kvm", "Xen", "XenHVM", "VMWare", "VMM-HPC"]
NicType = Literal["TUN/TAP", "TUN/TAP+NAT", "BRIDGED_TAP", "VLAN"]
DiskBus = Literal["virtio", "scsi", "ide"]

_NAME = re.compile(r"[^/\x00-\x1f\x7f.-][^/\x00-\x1f\x7f]{0,63}")
_MAC = re.compile(r"(?:[0-9a-f]{2}:){5}[0-9a-f]{2}")


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
    """A network card. `mac` is in lower case. Without a type it reaches the host, as TUN/TAP does."""

    type: NicType | None
    mac: str
    vlan: str | None = None

    @property
    def is_vlan(self) -> bool:
        """Whether it is on a private VLAN; otherwise it reaches the host."""
        return self.type == "VLAN"


@dataclass(frozen=True, slots=True)
class VMProfile:
    """One virtual machine. `type` None: whatever hypervisor the host has. `option`: the host's interface to bridge."""

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

    @property
    def vlan_nics(self) -> tuple[Nic, ...]:
        return tuple(nic for nic in self.nics if nic.is_vlan)

    @property
    def host_nics(self) -> tuple[Nic, ...]:
        return tuple(nic for nic in self.nics if not nic.is_vlan)


def load_profile(path: Path) -> VMProfile:
    """Read one VM profile. Raises ProfileError with file and line."""
    return parse_profile(xmlfile.read(path), str(path))


def parse_profile(text: str | bytes, source: str) -> VMProfile:
    """`text` as a VM profile; errors call it `source`. Raises ProfileError."""
    return profile_from_element(xmlfile.parse(text, source, PROFILE_DTD, ("profile",)), source)


def parse_profiles(text: str | bytes, source: str) -> tuple[VMProfile, ...]:
    """`text` as one profile or as V3M's set of them (root `profiles`). Raises ProfileError."""
    root = xmlfile.parse(text, source, PROFILE_DTD, ("profile", "profiles"))
    elements = [root] if root.tag == "profile" else list(root)
    return tuple(profile_from_element(element, source) for element in elements)


def profile_from_element(element: etree._Element, source: str) -> VMProfile:
    """A `<profile>` that is valid by the DTD; its values are checked here. Raises ProfileError."""
    values = {str(child.tag): child for child in element}
    name = xmlfile.text_of(values["name"])
    if not _NAME.fullmatch(name):
        xmlfile.fail(
            values["name"],
            source,
            f"the name '{name}' cannot name files: 1 to 64 characters, no '/', no '.' or '-' first",
        )
    image = values["image"]
    size = image.get("size")
    disks = [
        VirtualDisk(_required(str(d.get("id")), d, source), _path(d, source)) for d in values.get("virtual_disks", ())
    ]
    machine_type = values.get("type")
    return VMProfile(
        name=name,
        type=None if machine_type is None else cast(Hypervisor, _one_of(machine_type, Hypervisor, source, "type")),
        option=None if machine_type is None else machine_type.get("option"),
        cpu=_number(values.get("cpu"), 1, source),
        memory_mib=_number(values.get("memory"), DEFAULT_MEMORY_MIB, source),
        image=DiskImage(_path(image, source), None if size is None else _positive(size, image, source, "size")),
        virtual_disks=tuple(disks),
        cdrom=_path(values["cdrom"], source) if "cdrom" in values else None,
        nics=tuple(_nic(child, source) for tag, child in values.items() if tag.startswith("nic")),
        disk_bus=cast(DiskBus, image.get("bus", "ide")),
    )


def profile_to_element(profile: VMProfile) -> etree._Element:
    """The profile as an element, valid by the DTD."""
    root = etree.Element("profile")
    etree.SubElement(root, "name").text = profile.name
    if profile.type is not None:
        machine_type = etree.SubElement(root, "type", {"option": profile.option} if profile.option is not None else {})
        machine_type.text = profile.type
    etree.SubElement(root, "cpu").text = str(profile.cpu)
    etree.SubElement(root, "memory").text = str(profile.memory_mib)
    image = etree.SubElement(root, "image", {"bus": profile.disk_bus})
    image.text = profile.image.path
    if profile.image.size_mib is not None:
        image.set("size", str(profile.image.size_mib))
    if profile.virtual_disks:
        disks = etree.SubElement(root, "virtual_disks")
        for disk in profile.virtual_disks:
            etree.SubElement(disks, "virtual_disk", {"id": disk.id}).text = disk.path
    if profile.cdrom is not None:
        etree.SubElement(root, "cdrom").text = profile.cdrom
    for number, nic in enumerate(profile.nics, start=1):
        element = etree.SubElement(root, f"nic{number}", {} if nic.vlan is None else {"vlan": nic.vlan})
        if nic.type is not None:
            etree.SubElement(element, "type").text = nic.type
        etree.SubElement(element, "mac").text = nic.mac
    return root


def to_text(root: etree._Element, dtd_name: str) -> str:
    """A whole document, with declaration and DOCTYPE."""
    doctype = f'<!DOCTYPE {xmlfile.tag_of(root)} SYSTEM "{dtd_name}">'
    text = etree.tostring(root, pretty_print=True, xml_declaration=True, encoding="UTF-8", doctype=doctype)
    return text.decode()


def profile_to_xml(profile: VMProfile) -> str:
    """The profile as XML; `parse_profile` of it gives an equal profile."""
    return to_text(profile_to_element(profile), PROFILE_DTD)


def _nic(element: etree._Element, source: str) -> Nic:
    values = {str(child.tag): child for child in element}
    nic_type = cast(NicType, _one_of(values["type"], NicType, source, "NIC type")) if "type" in values else None
    mac = xmlfile.text_of(values["mac"]).lower()
    if not _MAC.fullmatch(mac):
        xmlfile.fail(values["mac"], source, f"'{mac}' is not a MAC address; right would be, e.g., 52:54:00:00:00:11")
    if mac[:2] in ("01", "ff"):
        xmlfile.fail(
            values["mac"], source, f"the MAC {mac} begins with 01 or FF, which no NIC may; use, e.g., 52:54:00:…"
        )
    vlan = element.get("vlan")
    if vlan is not None and nic_type != "VLAN":
        xmlfile.fail(element, source, f"vlan='{vlan}' stands on a NIC whose type is not VLAN")
    return Nic(nic_type, mac, vlan)


def _path(element: etree._Element, source: str) -> str:
    path = xmlfile.text_of(element).removeprefix("file://").strip()
    return _required(path, element, source)


def _required(text: str, element: etree._Element, source: str) -> str:
    if not text:
        xmlfile.fail(element, source, f"<{xmlfile.tag_of(element)}> is empty; it has to name a file")
    if any(ord(character) < 32 for character in text):
        xmlfile.fail(
            element, source, f"there is a line break inside <{xmlfile.tag_of(element)}>; it has to name one file"
        )
    return text


def _one_of(element: etree._Element, words: object, source: str, what: str) -> str:
    word, known = xmlfile.text_of(element), get_args(words)
    if word not in known:
        xmlfile.fail(element, source, f"the {what} '{word}' is not known; there are: {', '.join(known)}")
    return word


def _number(element: etree._Element | None, default: int, source: str) -> int:
    if element is None:
        return default
    return _positive(xmlfile.text_of(element), element, source, str(element.tag))


def _positive(text: str, element: etree._Element, source: str, what: str) -> int:
    if not (text.isascii() and text.isdigit() and 0 < int(text) < 1 << 31):
        xmlfile.fail(element, source, f"{what} is '{text}'; it has to be a whole number above 0")
    return int(text)
