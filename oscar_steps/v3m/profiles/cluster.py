"""A virtual cluster: a head node and its compute nodes, as one XML file.

It is checked as a whole: names, MACs and disks are there once, and every compute node shares a VLAN with the head node.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path

from lxml import etree

from oscar_steps.errors import ProfileError
from oscar_steps.v3m.profiles import xmlfile
from oscar_steps.v3m.profiles.unique import check_unique
from oscar_steps.v3m.profiles.vm import (
    BootDevice,
    Hypervisor,
    Nic,
    VMProfile,
    mac_address,
    profile_from_element,
    profile_to_element,
    to_text,
)
from oscar_steps.v3m.profiles.xmlfile import Document
from oscar_steps.words import Architecture

CLUSTER_DTD = "v3m_cluster.dtd"


@dataclass(frozen=True, slots=True)
class ClusterProfile:
    """A head node and its compute nodes, in the order in which they are defined to OSCAR."""

    name: str
    head: VMProfile
    nodes: tuple[VMProfile, ...]
    boot: BootDevice = BootDevice.CDROM
    """How a node with a blank disk reaches OSCAR's installer: CD or network."""

    @property
    def machines(self) -> tuple[VMProfile, ...]:
        """All of them, the head node first."""
        return (self.head, *self.nodes)

    @property
    def memory_mib(self) -> int:
        """What all machines may use together."""
        return sum(machine.memory_mib for machine in self.machines)

    def resized(self, count: int) -> ClusterProfile:
        """The same cluster with `count` compute nodes: the last ones go, or more are made after the last one.

        A new node has the next number in its name and its file's name, and the next MACs that are free. Raises
        ProfileError where the last node's name has no number at its end.
        """
        if count < 1:
            raise ProfileError(f"the cluster {self.name} cannot have {count} compute nodes; it needs at least 1")
        nodes = list(self.nodes[:count])
        taken = {nic.mac for machine in self.machines for nic in machine.nics}
        names = {machine.name for machine in self.machines}
        while len(nodes) < count:
            node = _next(nodes[-1], taken)
            if node.name in names:
                raise ProfileError(f"the cluster {self.name} has no room for a new node: {node.name} is taken")
            taken.update(nic.mac for nic in node.nics)
            nodes.append(node)
        return replace(self, nodes=tuple(nodes))

    def with_architecture(self, architecture: Architecture) -> ClusterProfile:
        """All machines whose profiles name no architecture have this one: one cluster file does for every cell."""
        head, *nodes = (
            vm if vm.architecture is not None else replace(vm, architecture=architecture) for vm in self.machines
        )
        return replace(self, head=head, nodes=tuple(nodes))

    def with_boot(self, boot: BootDevice) -> ClusterProfile:
        """The same cluster whose nodes reach the installer by `boot`."""
        return replace(self, boot=boot)

    def with_type(self, hypervisor: Hypervisor) -> ClusterProfile:
        """The same cluster on another hypervisor, all machines of it."""
        nodes = tuple(replace(node, type=hypervisor) for node in self.nodes)
        return replace(self, head=replace(self.head, type=hypervisor), nodes=nodes)


def load_cluster(path: Path) -> ClusterProfile:
    """Read a cluster. Raises ProfileError with file, line and column."""
    return parse_cluster(xmlfile.read(path), str(path))


def parse_cluster(text: str | bytes, source: str) -> ClusterProfile:
    """`text` as a cluster; errors call it `source`. Raises ProfileError."""
    return _cluster_from_document(xmlfile.parse(text, source, CLUSTER_DTD, ("cluster",)))


Profiles = ClusterProfile | tuple[VMProfile, ...]


def parse_any(text: str | bytes, source: str) -> Profiles:
    """`text` as whatever it is: a cluster, one profile or a set of them. Raises ProfileError."""
    document = xmlfile.parse(text, source, CLUSTER_DTD, ("profile", "profiles", "cluster"))
    return _cluster_from_document(document) if document.root.tag == "cluster" else _profiles_from_document(document)


def _profiles_from_document(document: Document) -> tuple[VMProfile, ...]:
    root = document.root
    elements = [root] if root.tag == "profile" else list(root)
    profiles = tuple(profile_from_element(document, element) for element in elements)
    check_unique(document, zip(elements, profiles, strict=True))
    return profiles


def _cluster_from_document(document: Document) -> ClusterProfile:
    root = document.root
    name = str(root.get("name"))
    if not name.strip() or not name.isprintable():
        document.fail(root, f"the cluster's name '{xmlfile.shown(name)}' has to be printable, and not empty")
    head, nodes = root[0], root[1]
    elements = [head[0], *nodes]
    machines = [profile_from_element(document, element) for element in elements]
    check_unique(document, zip(elements, machines, strict=True))
    vlans = {nic.vlan for nic in machines[0].vlan_nics}
    if not vlans:
        document.fail(head[0], f"the head node {machines[0].name} has no NIC of type VLAN to reach its nodes by")
    for element, machine in zip(elements[1:], machines[1:], strict=True):
        if not machine.vlan_nics:
            document.fail(element, f"the node {machine.name} has no NIC of type VLAN to reach the head node by")
        for nic in machine.vlan_nics:
            if nic.vlan not in vlans:
                there_are = ", ".join(sorted(vlan or "the one without a name" for vlan in vlans))
                its = nic.vlan or "without a name"
                what = f"the node {machine.name} is on the VLAN {its}, the head node on: {there_are}"
                document.fail(_mac_elements(element, nic)[0], what)
    return ClusterProfile(name, machines[0], tuple(machines[1:]), BootDevice(nodes.get("boot", "cdrom")))


def cluster_to_xml(cluster: ClusterProfile) -> str:
    """The cluster as XML; `parse_cluster` of it gives an equal cluster."""
    root = etree.Element("cluster", {"name": cluster.name})
    etree.SubElement(root, "head").append(profile_to_element(cluster.head))
    nodes = etree.SubElement(root, "nodes", {"boot": cluster.boot.value})
    nodes.extend([profile_to_element(node) for node in cluster.nodes])
    return to_text(root, CLUSTER_DTD)


def _mac_elements(machine: etree._Element, nic: Nic) -> list[etree._Element]:
    return [element for element in machine.iter("mac") if mac_address(xmlfile.text_of(element)) == nic.mac]


def _next(node: VMProfile, taken: set[str]) -> VMProfile:
    """A node like `node` with the next number in its name."""
    match = re.fullmatch(r"(.*?)([0-9]+)", node.name)
    if match is None:
        raise ProfileError(
            f"no node can be made after {node.name}: its name does not end with a number, as oscarnode1 does"
        )
    name = f"{match[1]}{int(match[2]) + 1:0{len(match[2])}d}"
    image = Path(node.image.path)
    path = image.with_name(image.name.replace(node.name, name) if node.name in image.name else f"{name}{image.suffix}")
    used = set(taken)
    nics: list[Nic] = []
    for nic in node.nics:
        mac = _next_mac(nic.mac, used)
        used.add(mac)
        nics.append(replace(nic, mac=mac))
    return replace(node, name=name, image=replace(node.image, path=str(path)), nics=tuple(nics))


def _next_mac(mac: str, taken: set[str]) -> str:
    """The first free MAC above `mac`, within its maker's part (the upper 24 bits stay)."""
    maker, number = mac[:9], int(mac[9:].replace(":", ""), 16)
    for candidate in range(number + 1, 1 << 24):
        digits = f"{candidate:06x}"
        text = f"{maker}{digits[0:2]}:{digits[2:4]}:{digits[4:6]}"
        if text not in taken:
            return text
    raise ProfileError(f"no MAC is left above {mac}")
