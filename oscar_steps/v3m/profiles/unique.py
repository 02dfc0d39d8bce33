"""What machines of one file must not have in common: a name, a MAC, a disk."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import PurePath

from lxml import etree

from oscar_steps.v3m.profiles import xmlfile
from oscar_steps.v3m.profiles.vm import VMProfile, is_left_open
from oscar_steps.v3m.profiles.xmlfile import Document, shown


def check_unique(document: Document, machines: Iterable[tuple[etree._Element, VMProfile]]) -> None:
    """Raise ProfileError at the second one: two machines of a name, two NICs of a MAC, two disks that are one file.

    A CD may be in many drives. Files are compared as they are written: nothing is looked for on this host.
    """
    names: set[str] = set()
    macs: dict[str, str] = {}
    files: dict[PurePath, str] = {}
    for element, machine in machines:
        if machine.name in names:
            document.fail(element, f"the name {machine.name} appears twice; every machine needs its own")
        names.add(machine.name)
        for where, mac in _macs(element, machine):
            if mac in macs:
                what = f"the MAC {mac} of {machine.name} appears twice ({macs[mac]} has it)"
                document.fail(where, f"{what}; every NIC needs its own")
            macs[mac] = machine.name
        for where, path in _disks(element, machine):
            if path in files:
                what = f"the disk {shown(str(path))} of {machine.name} appears twice ({files[path]} has it)"
                document.fail(where, f"{what}; every disk needs a file of its own")
            files[path] = machine.name


def _macs(element: etree._Element, machine: VMProfile) -> Iterator[tuple[etree._Element, str]]:
    nics = [child for child in element if xmlfile.tag_of(child).startswith("nic") and not is_left_open(child)]
    for nic, known in zip(nics, machine.nics, strict=True):
        yield nic[-1], known.mac


def _disks(element: etree._Element, machine: VMProfile) -> Iterator[tuple[etree._Element, PurePath]]:
    paths = [machine.image.path, *(disk.path for disk in machine.virtual_disks)]
    yield from zip(element.iter("image", "virtual_disk"), map(PurePath, paths), strict=True)
