"""VM profiles: those of 2007 load unchanged, ours too, and what is wrong is told with file and line."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oscar_steps.errors import InvalidProfile, ProfileError
from oscar_steps.v3m.profiles.cluster import parse_any
from oscar_steps.v3m.profiles.vm import (
    Architecture,
    BootDevice,
    DiskImage,
    Firmware,
    Nic,
    VirtualDisk,
    VMProfile,
    load_profile,
    parse_profile,
    profile_to_xml,
    profiles_to_xml,
)

WITHOUT_TYPE = """<?xml version="1.0"?>
<!DOCTYPE profile PUBLIC "" "xen_vm.dtd">
<profile>
  <name>test</name>
  <image size="500">
    /home/somebody/test.img
  </image>
  <nic1>
    <mac>00:02:03:04:05:06</mac>
  </nic1>
</profile>
"""

HEADNODE = """<?xml version="1.0" encoding="ISO-8859-1"?>
<!DOCTYPE profile PUBLIC "" "/etc/v3m/v3m_profile.dtd">
<profile>
  <name> oscar-headnode </name>
  <type option="eth0">Qemu</type>
  <memory>256</memory>
  <image size="4000">file:///vm/head.img</image>
  <virtual_disks><virtual_disk id="hdb">/vm/data.img</virtual_disk></virtual_disks>
  <cdrom>/dev/cdrom</cdrom>
  <nic1><type>TUN/TAP</type><mac>00:02:03:04:05:0A</mac></nic1>
  <nic2><type>VLAN</type><mac>00:02:03:04:05:0B</mac></nic2>
</profile>
"""


def test_a_profile_without_type_and_nic_type_means_the_hosts_hypervisor_and_a_nic_to_the_host() -> None:
    profile = parse_profile(WITHOUT_TYPE, "test.xml")
    assert profile.type is None
    assert profile.image == DiskImage("/home/somebody/test.img", 500)
    assert profile.nics == (Nic(None, "00:02:03:04:05:06"),)
    assert profile.host_nics == profile.nics
    assert profile.disk_bus == "ide"


def test_an_old_head_node_keeps_every_value() -> None:
    profile = parse_profile(HEADNODE, "head.xml")
    assert profile.name == "oscar-headnode"
    assert (profile.type, profile.option, profile.cpu, profile.memory_mib) == ("Qemu", "eth0", 1, 256)
    assert profile.image == DiskImage("/vm/head.img", 4000)
    assert profile.virtual_disks == (VirtualDisk("hdb", "/vm/data.img"),)
    assert profile.cdrom == "/dev/cdrom"
    assert [nic.mac for nic in profile.vlan_nics] == ["00:02:03:04:05:0b"]


@pytest.mark.parametrize("name", ["xen_vm.dtd", "v2m_profile.dtd", "v3m_profile.dtd", "/etc/libv3m/v3m_profile.dtd"])
def test_the_doctype_is_not_followed(name: str) -> None:
    assert parse_profile(WITHOUT_TYPE.replace("xen_vm.dtd", name), "test.xml").name == "test"


def test_bytes_are_read_in_the_encoding_that_they_declare(tmp_path: Path) -> None:
    path = tmp_path / "vm.xml"
    path.write_bytes(HEADNODE.replace("oscar-headnode", "tête").encode("iso-8859-1"))
    assert load_profile(path).name == "tête"


def test_a_set_of_profiles_is_read_in_its_order() -> None:
    body = HEADNODE[HEADNODE.index("<profile>") :]
    other = body.replace("oscar-headnode", "other").replace("<mac>00:", "<mac>02:").replace("/vm/", "/vm/other/")
    machines = parse_any(f"<profiles>{body}{other}</profiles>", "set.xml")
    assert isinstance(machines, tuple)
    assert [profile.name for profile in machines] == ["oscar-headnode", "other"]


@pytest.mark.parametrize(
    ("old", "new", "line", "sentence"),
    [
        (
            "<memory>256</memory>",
            "<memory>plenty</memory>",
            6,
            "memory is 'plenty'; it has to be a whole number above 0",
        ),
        ("<memory>256</memory>", "<memory>0</memory>", 6, "memory is '0'"),
        ("<memory>256</memory>", "<ram>256</ram>", 6, "<ram> is not known in <profile>; it may hold: name, type, cpu"),
        (
            "<memory>256</memory>",
            "<memory>1</memory><cpu>2</cpu>",
            6,
            "<cpu> is out of order in <profile>; the order is: ",
        ),
        ("<memory>256</memory>", "<memory>1</memory><memory>2</memory>", 6, "<memory> appears twice in <profile>"),
        ("<memory>256</memory>", "much memory", 3, "there is bare text in <profile>"),
        ("Qemu", "qemu", 5, "the type 'qemu' is not known; there are: Qemu, Kvm"),
        (
            ">VLAN<",
            ">VLan<",
            11,
            "the NIC type 'VLan' is not known; there are: TUN/TAP, TUN/TAP+NAT, BRIDGED_TAP, VLAN",
        ),
        (
            "00:02:03:04:05:0B",
            "01:02:03:04:05:0B",
            11,
            "a NIC cannot have the multicast MAC 01:02:03:04:05:0b: its first pair is odd",
        ),
        ("00:02:03:04:05:0B", "Ff:02:03:04:05:0B", 11, "a NIC cannot have the multicast MAC"),
        ("00:02:03:04:05:0B", "33:33:00:00:00:01", 11, "a NIC cannot have the multicast MAC"),
        ("00:02:03:04:05:0B", "3:0:0:0:0:1", 11, "a NIC cannot have the multicast MAC 03:00:00:00:00:01"),
        ("00:02:03:04:05:0B", "53-54-00-00-00-01", 11, "a NIC cannot have the multicast MAC"),
        (
            "00:02:03:04:05:0B",
            "00:00:00:00:00:00",
            11,
            "a NIC cannot have the MAC 00:00:00:00:00:00: a hypervisor would replace it",
        ),
        ("00:02:03:04:05:0B", "0-0-0-0-0-0", 11, "a NIC cannot have the MAC 00:00:00:00:00:00"),
        ("<memory>256", "<cpu>256</cpu><memory>256", 6, "cpu is 256; QEMU's machines take 1 to 255"),
        ("<memory>256", "<cpu>0</cpu><memory>256", 6, "cpu is '0'; it has to be a whole number above 0"),
        ("<memory>256", "<cpu>99999999999</cpu><memory>256", 6, "cpu is '99999999999'"),
        ("00:02:03:04:05:0B", "00:02:03", 11, "'00:02:03' is not a MAC address; write"),
        ("<mac>00:02:03:04:05:0B</mac>", "", 11, "<nic2> lacks <mac>"),
        ('id="hdb"', "", 8, "<virtual_disk> lacks the attribute 'id'"),
        ('size="4000"', 'sise="4000"', 7, "<image> has no attribute 'sise'; there are: size, bus"),
        ('size="4000"', 'bus="sata"', 7, "bus='sata' in <image> is not known; there are: ide, scsi, virtio"),
        ('size="4000"', 'size="4G"', 7, "size is '4G'"),
        ("file:///vm/head.img", " ", 7, "<image> is empty; it has to name a file"),
        (" oscar-headnode ", "../head", 4, "the name '../head' cannot name files"),
        ("<nic1>", '<nic1 vlan="a">', 10, "vlan='a' stands on a NIC whose type is not VLAN"),
        ("</profile>", "", 13, "this is not well-formed XML"),
    ],
)
def test_an_error_names_file_line_and_what_would_be_right(old: str, new: str, line: int, sentence: str) -> None:
    assert old in HEADNODE
    with pytest.raises(ProfileError) as error:
        parse_profile(HEADNODE.replace(old, new), "head.xml")
    assert re.match(rf"head\.xml:{line}:[0-9]+: ", str(error.value))
    assert sentence in str(error.value)
    assert "\n" not in str(error.value)


def test_entities_are_refused_and_no_file_of_the_host_is_read() -> None:
    text = (
        '<!DOCTYPE profile [<!ENTITY secret SYSTEM "file:///etc/hostname">]>\n<profile><name>&secret;</name></profile>'
    )
    with pytest.raises(ProfileError, match="declares entities"):
        parse_profile(text, "evil.xml")


def test_a_missing_file_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(ProfileError, match=r"nothing\.xml: the profile cannot be read: No such file"):
        load_profile(tmp_path / "nothing.xml")


def test_another_root_is_refused() -> None:
    with pytest.raises(ProfileError, match=r"x\.xml:1:1: the root is <domain>; it has to be <profile>"):
        parse_profile("<domain/>", "x.xml")


@pytest.mark.parametrize(
    ("text", "column"),
    [
        ("<profile><name>a</name><type>qemu</type><image>i</image></profile>", 24),
        ("<profile>\n  <name>tête</name><memory>x</memory><image>i</image></profile>", 20),
        ("<profile>\n\t<name>a</name>\n\t<image\n\tsize='x'>i</image></profile>", 2),
    ],
)
def test_the_column_is_where_the_element_begins_in_characters_from_1(text: str, column: int) -> None:
    with pytest.raises(InvalidProfile) as error:
        parse_profile(text, "x.xml")
    assert error.value.column == column


@pytest.mark.parametrize("nothing", ["<type/>", "<type></type>", "<type> </type>", "<type>N/A</type>"])
def test_a_nic_whose_type_says_nothing_is_not_there(nothing: str) -> None:
    text = WITHOUT_TYPE.replace("<mac>00:02:03:04:05:06</mac>", f"{nothing}<mac>N/A</mac>")
    assert parse_profile(text, "test.xml").nics == ()


def test_the_interface_to_bridge_is_kept_where_libv3m_had_it_too_at_the_nic() -> None:
    text = HEADNODE.replace("<type>TUN/TAP</type>", '<type option="eth1">BRIDGED_TAP</type>')
    assert parse_profile(text, "head.xml").nics[0] == Nic("BRIDGED_TAP", "00:02:03:04:05:0a", None, "eth1")


@pytest.mark.parametrize("written", ["disk network", "disk, network", "disk,network", "\n disk\n network\n"])
def test_the_boot_order_is_words_with_blanks_or_commas(written: str) -> None:
    text = HEADNODE.replace("<image", f"<boot>{written}</boot><image")
    assert parse_profile(text, "head.xml").boot == ("disk", "network")


macs = st.lists(st.integers(0, 255), min_size=5, max_size=5).map(lambda t: "52:" + ":".join(f"{n:02x}" for n in t))
options = st.sampled_from([None, "eth0", "br0:1", "a <b> & 'c'"])
nics = st.one_of(
    st.builds(Nic, st.none(), macs),
    st.builds(Nic, st.sampled_from(["TUN/TAP", "TUN/TAP+NAT", "BRIDGED_TAP"]), macs, st.none(), options),
    st.builds(Nic, st.just("VLAN"), macs, st.sampled_from([None, "storage", "a.b_c-d+2"]), options),
)
words = st.from_regex(r"[A-Za-z0-9_/,&<> ]{0,20}[A-Za-z0-9]", fullmatch=True).map(str.strip)
profiles = st.builds(
    VMProfile,
    name=st.from_regex(r"[a-z][a-z0-9.-]{0,20}", fullmatch=True),
    type=st.sampled_from([None, "Qemu", "Kvm", "Xen", "XenHVM", "VMWare", "VMM-HPC"]),
    image=st.builds(DiskImage, words, st.one_of(st.none(), st.integers(1, 10**6))),
    cpu=st.integers(1, 64),
    memory_mib=st.integers(1, 10**6),
    virtual_disks=st.lists(st.builds(VirtualDisk, st.sampled_from(["hdb", "hdd"]), words), max_size=2).map(tuple),
    cdrom=st.one_of(st.none(), words),
    nics=st.lists(nics, max_size=32).map(tuple),
    disk_bus=st.sampled_from(["virtio", "scsi", "ide"]),
    architecture=st.sampled_from([None, *get_args(Architecture)]),
    machine=st.sampled_from([None, "pc", "q35", "pc-i440fx-7.2", "virt"]),
    firmware=st.sampled_from([None, *get_args(Firmware)]),
    boot=st.lists(st.sampled_from(BootDevice), unique=True).map(tuple),
)


@given(profiles, options)
def test_every_profile_survives_being_written_and_read(profile: VMProfile, option: str | None) -> None:
    profile = replace(profile, option=option if profile.type else None)
    assert parse_profile(profile_to_xml(profile), "again.xml") == profile


def apart(machines: list[VMProfile]) -> tuple[VMProfile, ...]:
    """The same machines with names, MACs and disks of their own."""
    return tuple(
        replace(
            machine,
            name=f"vm{number}",
            image=replace(machine.image, path=f"{number}/disk"),
            virtual_disks=tuple(replace(disk, path=f"{number}/{n}") for n, disk in enumerate(machine.virtual_disks)),
            nics=tuple(replace(nic, mac=f"02:00:00:00:{number:02x}:{n:02x}") for n, nic in enumerate(machine.nics)),
        )
        for number, machine in enumerate(machines)
    )


@settings(max_examples=25)
@given(st.lists(profiles, max_size=3).map(apart))
def test_every_set_of_profiles_survives_being_written_and_read(machines: tuple[VMProfile, ...]) -> None:
    assert parse_any(profiles_to_xml(machines), "again.xml") == machines


PLACES = ("image", "virtual_disk", "cdrom")


def with_file(place: str, text: str) -> str:
    old = {"image": "file:///vm/head.img", "virtual_disk": "/vm/data.img", "cdrom": "/dev/cdrom"}[place]
    assert old in HEADNODE
    return HEADNODE.replace(old, text)


def file_of(place: str, profile: VMProfile) -> str | None:
    return {
        "image": profile.image.path,
        "virtual_disk": profile.virtual_disks[0].path,
        "cdrom": profile.cdrom,
    }[place]


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("file:///vm/a.img", "/vm/a.img"),
        ("FILE:///vm/a.img", "/vm/a.img"),
        ("File:/vm/a.img", "/vm/a.img"),
        ("file://localhost/vm/a.img", "/vm/a.img"),
        ("fIlE://LOCALHOST/vm/a.img", "/vm/a.img"),
        ("file://file:///vm/a.img", "/vm/a.img"),
        ("file:// /vm/a.img", "/vm/a.img"),
        ("file://a.img", "a.img"),
        ("file://./disks/a.img", "./disks/a.img"),
        ("file://../a.img", "../a.img"),
        ("~/vm/a.img", "/home/ann/vm/a.img"),
        ("file://~/a.img", "/home/ann/a.img"),
        ("~a.img", "~a.img"),
        ("vm/~/a.img", "vm/~/a.img"),
        ("./~ann/a.img", "./~ann/a.img"),
        ("price$5.img", "price$5.img"),
        ("a.img$", "a.img$"),
    ],
)
def test_a_file_is_a_path_or_one_below_the_home_or_a_url_of_this_host(
    monkeypatch: pytest.MonkeyPatch, place: str, written: str, meant: str
) -> None:
    monkeypatch.setenv("HOME", "/home/ann")
    assert file_of(place, parse_profile(with_file(place, written), "head.xml")) == meant


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize(
    ("written", "sentence"),
    [
        ("file://storage/vm/a.img", "names a file of another host, storage; on this one it would be file:///vm/a.img"),
        ("FILE://Storage.example.org/a", "names a file of another host, Storage.example.org"),
        ("file://127.0.0.1/a", "names a file of another host, 127.0.0.1"),
        ("file:a.img", "is not the URL of a file; write, e.g., file:///vm/vm1.qcow2"),
        ("file://localhost", "is empty; it has to name a file"),
        ("file://localhost/", "a directory; it has to name a file"),
        ("http://example.org/a.iso", "is a URL; it has to name a file of this host"),
        ("nfs://storage/a.img", "is a URL"),
        ("~ann/a.img", "begins with ~ann, and only ~/ is replaced here; write the whole path"),
        ("~", "is the home directory; it has to name a file"),
        ("~//", "is the home directory"),
        ("$HOME/a.img", "has $HOME in it, and no variable is replaced here; write the whole path"),
        ("${HOME}/a.img", "has ${HOME} in it"),
        ("${HOME", "has ${HOME in it"),
        ("/srv/$USER/a.img", "has $USER in it"),
        ("$(pwd)/a.img", "has $( in it"),
        ("file://$HOME/a.img", "has $HOME in it"),
        ("file:///srv/$X/a.img", "has $X in it"),
    ],
)
def test_what_would_become_a_folder_of_that_name_is_refused_with_its_line(
    place: str, written: str, sentence: str
) -> None:
    line = {"image": 7, "virtual_disk": 8, "cdrom": 9}[place]
    with pytest.raises(InvalidProfile) as error:
        parse_profile(with_file(place, written), "head.xml")
    assert error.value.line == line
    assert sentence in str(error.value)
    assert f"<{place}>" in str(error.value)


def test_a_file_below_the_home_of_a_user_without_one_is_refused_with_its_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "")
    monkeypatch.setattr("os.getuid", lambda: 54321)
    with pytest.raises(InvalidProfile, match=r"head\.xml:7:.* begins with ~/, and there is no home directory"):
        parse_profile(with_file("image", "~/a.img"), "head.xml")


@pytest.mark.parametrize("path", ["/vm/$HOME/a.img", "~ann/a.img", "file://x/y", "/vm/${X"])
def test_what_a_program_of_ours_wrote_is_taken_as_it_is(path: str) -> None:
    profile = parse_profile(WITHOUT_TYPE, "test.xml")
    profile = replace(profile, image=DiskImage(path))
    assert parse_profile(profile_to_xml(profile), "again.xml", literal=True) == profile


def test_more_processors_than_qemu_takes_are_another_hypervisors_matter() -> None:
    text = HEADNODE.replace('<type option="eth0">Qemu</type>', "<type>Xen</type><cpu>300</cpu>")
    assert parse_profile(text, "head.xml").cpu == 300


@pytest.mark.parametrize(
    ("old", "new"), [("52:54:00:00:00:12", "00:00:00:00:00:00"), ("52:54:00:00:00:12", "33:54:00:00:00:12")]
)
def test_a_cluster_has_the_same_rules(old: str, new: str) -> None:
    path = Path(__file__).resolve().parents[4] / "profiles" / "clusters" / "head-and-two-nodes.xml"
    text = path.read_text(encoding="utf-8")
    line = text[: text.index(old)].count("\n") + 1
    with pytest.raises(InvalidProfile, match=f"a NIC cannot have the (multicast )?MAC {new}: ") as error:
        parse_any(text.replace(old, new), "cluster.xml")
    assert error.value.line == line
    with pytest.raises(InvalidProfile, match=r"has \$HOME in it"):
        parse_any(re.sub(r"(<image[^>]*>)", r"\1$HOME/", text), "cluster.xml")
