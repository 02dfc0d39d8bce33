"""What a profile becomes, said without a look at the host: the same file, with another type each time."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from lxml import etree

from oscar_steps.v3m.cluster import ClusterProfile, load_cluster
from oscar_steps.v3m.describe import describe, to_json
from oscar_steps.v3m.profile import Hypervisor

SAMPLE = Path(__file__).resolve().parents[2] / "profiles" / "clusters" / "head-and-two-nodes.xml"


def _of_type(kind: Hypervisor) -> ClusterProfile:
    cluster = load_cluster(SAMPLE)
    return replace(
        cluster, head=replace(cluster.head, type=kind), nodes=tuple(replace(node, type=kind) for node in cluster.nodes)
    )


@pytest.mark.parametrize("kind", ["Qemu", "Kvm"])
def test_qemu_is_started_by_its_command_line(kind: Hypervisor) -> None:
    for each in describe(_of_type(kind)):
        assert each.becomes.program == "qemu-system-x86_64"
        assert each.becomes.parts
        assert not each.becomes.definition


@pytest.mark.parametrize("kind", ["Xen", "XenHVM", "VMWare"])
def test_the_other_types_are_libvirts_domains_whose_nodes_share_the_heads_vlan(kind: Hypervisor) -> None:
    vlans = set()
    for each in describe(_of_type(kind), directory=Path("/where/it/lies")):
        assert not each.becomes.refused
        root = etree.fromstring(each.becomes.definition)
        assert root.findtext("name") == each.profile.name
        assert root.find("devices/disk/source").get("file").startswith("/where/it/lies/disks/")  # type: ignore[union-attr]
        vlans.add(root.findall("devices/interface/source")[-1].get("bridge"))
    assert len(vlans) == 1


def test_a_para_virtual_node_cannot_be_shown_as_installed_from_a_cd() -> None:
    head, *nodes = describe(_of_type("Xen"), install=True)
    assert head.becomes.definition
    for node in nodes:
        assert "has no firmware to boot from a CD" in node.becomes.refused


def test_a_script_gets_the_definition() -> None:
    cluster = _of_type("XenHVM")
    machines = to_json(cluster, describe(cluster))["machines"]
    assert isinstance(machines, list)
    assert machines[0]["becomes"]["definition"].startswith("<domain")
