"""What the matrix has to know of a cluster profile. The driver on the workers reads all of it; the master cannot."""

from __future__ import annotations

from lxml import etree

from oscar_steps.matrix.model import Frozen


class ClusterFacts(Frozen):
    """How many compute nodes it has, what the last one is called, and the first one that is on no private network."""

    nodes: int = 0
    last_node: str = ""
    without_vlan: tuple[int, str] | None = None
    """Its line and its name."""


def cluster_facts(xml: str) -> ClusterFacts:
    """What is in a cluster profile. One that is not well-formed has nothing: others report that."""
    parser = etree.XMLParser(resolve_entities=False, no_network=True, load_dtd=False)
    try:
        profiles = etree.fromstring(xml.encode(), parser).findall("nodes/profile")
    except etree.XMLSyntaxError:
        return ClusterFacts()
    names = [_text(profile, "name") for profile in profiles]
    without = [
        (profile.sourceline or 1, name)
        for profile, name in zip(profiles, names, strict=True)
        if not any(_text(nic, "type") == "VLAN" for nic in profile if str(nic.tag).startswith("nic"))
    ]
    return ClusterFacts(
        nodes=len(profiles), last_node=names[-1] if names else "", without_vlan=without[0] if without else None
    )


def _text(element: etree._Element, tag: str) -> str:
    return (element.findtext(tag) or "").strip()
