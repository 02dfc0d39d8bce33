"""Virtual clusters: read, checked as a whole, made bigger and smaller."""

from __future__ import annotations

from pathlib import Path

import pytest

from oscar_steps.errors import ProfileError
from oscar_steps.v3m.profiles.cluster import ClusterProfile, cluster_to_xml, load_cluster, parse_cluster
from oscar_steps.v3m.profiles.vm import BootDevice
from oscar_steps.v3m.profiles.xmlfile import DTD_DIRECTORY

PROFILES = Path(__file__).resolve().parents[4] / "profiles"
SAMPLE = PROFILES / "clusters" / "head-and-two-nodes.xml"


@pytest.fixture
def cluster() -> ClusterProfile:
    return load_cluster(SAMPLE)


def test_the_sample_is_a_head_node_and_two_nodes(cluster: ClusterProfile) -> None:
    assert [machine.name for machine in cluster.machines] == ["oscar-headnode", "oscarnode1", "oscarnode2"]
    assert cluster.boot is BootDevice.CDROM
    assert cluster.memory_mib == 2048
    assert len(cluster.head.host_nics) == 1


def test_a_cluster_survives_being_written_and_read(cluster: ClusterProfile) -> None:
    for each in (cluster, cluster.with_boot(BootDevice.NETWORK), cluster.resized(5)):
        assert parse_cluster(cluster_to_xml(each), "again.xml") == each


@pytest.mark.parametrize("name", ["v3m_profile.dtd", "v3m_cluster.dtd"])
def test_the_grammar_beside_the_profiles_is_the_one_that_is_used(name: str) -> None:
    assert (PROFILES / name).read_bytes() == (DTD_DIRECTORY / name).read_bytes()


def test_fewer_nodes_are_the_first_ones(cluster: ClusterProfile) -> None:
    assert cluster.resized(1).nodes == cluster.nodes[:1]
    assert cluster.resized(2) == cluster


def test_a_cluster_without_nodes_is_none(cluster: ClusterProfile) -> None:
    with pytest.raises(ProfileError, match="it needs at least 1"):
        cluster.resized(0)


def test_more_nodes_go_on_with_number_mac_and_file(cluster: ClusterProfile) -> None:
    added = cluster.resized(12).nodes[-1]
    assert added.name == "oscarnode12"
    assert added.nics[0].mac == "52:54:00:00:00:1c"
    assert added.image.path == "disks/oscarnode12.qcow2"
    assert added.image.size_mib == 1536


def test_many_nodes_have_macs_and_names_of_their_own(cluster: ClusterProfile) -> None:
    big = cluster.resized(128)
    assert len({nic.mac for machine in big.machines for nic in machine.nics}) == 130
    assert len({machine.name for machine in big.machines}) == 129


def test_padding_of_numbers_is_kept() -> None:
    text = SAMPLE.read_text(encoding="utf-8").replace("oscarnode2", "node09").replace("oscarnode1", "node08")
    assert parse_cluster(text, "x.xml").resized(3).nodes[2].name == "node10"


def test_a_node_whose_name_has_no_number_cannot_be_multiplied() -> None:
    text = SAMPLE.read_text(encoding="utf-8").replace("oscarnode2", "last")
    with pytest.raises(ProfileError, match="last: its name does not end with a number"):
        parse_cluster(text, "x.xml").resized(3)


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        (">oscarnode2<", ">oscarnode1<", "the name oscarnode1 appears twice"),
        ("00:00:00:12", "00:00:00:11", "the MAC 52:54:00:00:00:11 of oscarnode2 appears twice (oscarnode1 has it)"),
        (
            "<nic2><type>VLAN</type><mac>52:54:00:00:00:02</mac></nic2>",
            "",
            "the head node oscar-headnode has no NIC of type VLAN",
        ),
        (
            "<nic1><type>VLAN</type><mac>52:54:00:00:00:12</mac></nic1>",
            "<nic1><type>TUN/TAP</type><mac>52:54:00:00:00:12</mac></nic1>",
            "the node oscarnode2 has no NIC of type VLAN",
        ),
        ("<nic1><type>VLAN", '<nic1 vlan="b"><type>VLAN', "the node oscarnode1 is on the VLAN b, the head node on: "),
        ('boot="cdrom"', 'boot="floppy"', "boot='floppy' in <nodes> is not known; there are: cdrom, network"),
        ('<cluster name="head-and-two-nodes">', "<cluster>", "<cluster> lacks the attribute 'name'"),
    ],
)
def test_an_error_names_file_line_and_what_would_be_right(old: str, new: str, sentence: str) -> None:
    text = SAMPLE.read_text(encoding="utf-8")
    assert old in text
    with pytest.raises(ProfileError, match=r"^c\.xml:[0-9]+:[0-9]+: ") as error:
        parse_cluster(text.replace(old, new), "c.xml")
    assert sentence in str(error.value)
