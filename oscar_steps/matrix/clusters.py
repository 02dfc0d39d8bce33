"""What the matrix has to know of a cluster profile. The driver on the workers reads all of it; the master cannot."""

from __future__ import annotations

from functools import lru_cache

from lxml import etree

from oscar_steps.capacity import Need
from oscar_steps.matrix.model import Frozen

_DEFAULT_MIB = 128
"""Of a machine whose profile says nothing, as `v3m.profiles` has it."""


class MachineFacts(Frozen):
    """What one machine takes of its host."""

    memory_mib: int
    processors: int
    hypervisor: str


class ClusterFacts(Frozen):
    """How many compute nodes it has, what the last one is called, and the first one that is on no private network."""

    nodes: int = 0
    last_node: str = ""
    without_vlan: tuple[int, str] | None = None
    """Its line and its name."""
    machines: tuple[MachineFacts, ...] = ()
    """The head node first."""

    def need(self, architecture: str, nodes: int | None = None, hypervisor: str | None = None) -> Need:
        """What the cluster needs of its host, with as many nodes, all of one type of machine. (None: as it says.)"""
        machines = list(self.machines if nodes is None else self.machines[: nodes + 1])
        if nodes is not None and self.nodes:
            machines += [machines[-1]] * (nodes - self.nodes)
        types = [hypervisor] if hypervisor else [each.hypervisor for each in machines if each.hypervisor]
        return Need(
            architecture=architecture,
            hypervisors=tuple(dict.fromkeys(types)),
            memory_mib=sum(each.memory_mib for each in machines),
            processors=sum(each.processors for each in machines),
        )


@lru_cache(maxsize=256)
def cluster_facts(xml: str) -> ClusterFacts:
    """What is in a cluster profile. One that is not well-formed has nothing: others report that."""
    parser = etree.XMLParser(resolve_entities=False, no_network=True, load_dtd=False)
    try:
        root = etree.fromstring(xml.encode(), parser)
    except etree.XMLSyntaxError:
        return ClusterFacts()
    heads, profiles = root.findall("head/profile"), root.findall("nodes/profile")
    names = [_text(profile, "name") for profile in profiles]
    without = [
        (profile.sourceline or 1, name)
        for profile, name in zip(profiles, names, strict=True)
        if not any(_text(nic, "type") == "VLAN" for nic in profile if str(nic.tag).startswith("nic"))
    ]
    return ClusterFacts(
        nodes=len(profiles),
        last_node=names[-1] if names else "",
        without_vlan=without[0] if without else None,
        machines=tuple(_machine(each) for each in (*heads[:1], *profiles)),
    )


def _machine(profile: etree._Element) -> MachineFacts:
    memory, processors = _number(profile, "memory", _DEFAULT_MIB), _number(profile, "cpu", 1)
    return MachineFacts(memory_mib=memory, processors=processors, hypervisor=_text(profile, "type"))


def _number(profile: etree._Element, tag: str, default: int) -> int:
    """A number that the driver would refuse is the driver's to report."""
    text = _text(profile, tag).lstrip("0")
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 10 else default


def _text(element: etree._Element, tag: str) -> str:
    return (element.findtext(tag) or "").strip()
