"""What a profile becomes, said without a look at the host: the same file, with another type each time."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from lxml import etree

from oscar_steps.v2m.describe import describe, to_json
from oscar_steps.v3m.host.settings import HostSettings, NetworkSettings, ToHost, VlanKind
from oscar_steps.v3m.profiles.cluster import ClusterProfile, load_cluster
from oscar_steps.v3m.profiles.vm import Hypervisor

SAMPLE = Path(__file__).resolve().parents[3] / "profiles" / "clusters" / "head-and-two-nodes.xml"


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


def test_a_host_with_other_networks_starts_the_same_profile_otherwise() -> None:
    cluster = _of_type("Qemu")
    settings = HostSettings(network=NetworkSettings(vlan=VlanKind.BRIDGE, to_host=ToHost.CUT_OFF))
    shown = [[argument for part in each.becomes.parts for argument in part.arguments] for each in describe(cluster)]
    others = [
        [argument for part in each.becomes.parts for argument in part.arguments]
        for each in describe(cluster, settings=settings)
    ]
    assert [[a for a in line if a.startswith("tap,")] for line in shown] == [[], [], []]
    assert [[a for a in line if a.startswith("tap,")] for line in others] == [
        ["tap,id=net1,fd=4"], ["tap,id=net0,fd=5"], ["tap,id=net0,fd=6"]
    ]  # fmt: skip
    assert any("restrict=on" in argument for argument in others[0])


@pytest.mark.parametrize(
    ("to_host", "run", "single"), [(None, True, False), (ToHost.OPEN, False, False), (ToHost.CUT_OFF, True, True)]
)
def test_a_run_has_its_head_node_restricted_unless_the_host_is_open(
    to_host: ToHost | None, run: bool, single: bool
) -> None:
    cluster = _of_type("Qemu")
    settings = HostSettings(network=NetworkSettings(to_host=to_host))
    for profiles, restricted in ((cluster, run), ((cluster.head,), single)):
        head = describe(profiles, settings=settings)[0].becomes
        arguments = [argument for part in head.parts for argument in part.arguments]
        users = [argument for argument in arguments if argument.startswith("user,")]
        assert ["restrict=on" in argument for argument in users] == [restricted]
