"""What a profile of type Xen, XenHVM or VMWare becomes for libvirt, and what is refused. No hypervisor, no libvirt."""

from __future__ import annotations

import asyncio
import os
import time
from dataclasses import replace
from pathlib import Path

import pytest
from lxml import etree

from oscar_steps.errors import ConfigError, HostError, ProfileError, ToolMissing
from oscar_steps.v3m.boot import BootPlan, DirectKernel
from oscar_steps.v3m.host import ledger
from oscar_steps.v3m.libvirt import client
from oscar_steps.v3m.libvirt.domain import check, domain_xml, refuse
from oscar_steps.v3m.libvirt.networks import Networks, connection_uri, plan_networks, vlan_network_xml
from oscar_steps.v3m.profiles.vm import BootDevice, DiskBus, DiskImage, Hypervisor, Nic, VirtualDisk, VMProfile
from tests import libvirt_converters as converters

RUN = Path("/run/of/mine")
VLAN = Nic("VLAN", "52:54:00:00:00:11")
HOST = Nic("TUN/TAP", "52:54:00:00:00:12")
BRIDGED = Nic("BRIDGED_TAP", "52:54:00:00:00:13")
TYPES: tuple[Hypervisor, ...] = ("Xen", "XenHVM", "VMWare")
NODE = VMProfile("oscarnode1", "XenHVM", DiskImage("disks/oscarnode1.vmdk"), nics=(VLAN,))
KERNEL = BootPlan(medium=BootDevice.NETWORK, kernel=DirectKernel(Path("/k"), Path("i"), "console=hvc0"))


def definition(profile: VMProfile, plan: BootPlan | None = None, **more: object) -> etree._Element:
    return etree.fromstring(domain_xml(profile, RUN, plan or BootPlan(), **more))  # type: ignore[arg-type]


def disks(root: etree._Element) -> list[tuple[str, str, str, str]]:
    """(device, name in the guest, bus, file) of each."""
    found = []
    for disk in root.iterfind("devices/disk"):
        target, source = disk.find("target"), disk.find("source")
        assert target is not None and source is not None
        file = source.get("file", source.get("dev"))
        found.append((str(disk.get("device")), str(target.get("dev")), str(target.get("bus")), str(file)))
    return found


def nics(root: etree._Element) -> list[tuple[str, str, str | None]]:
    """(MAC, kind of network, the host's network) of each."""
    found = []
    for nic in root.iterfind("devices/interface"):
        kind, mac, source = str(nic.get("type")), nic.find("mac"), nic.find("source")
        assert mac is not None
        found.append((str(mac.get("address")), kind, None if source is None else source.get(kind)))
    return found


@pytest.mark.parametrize("hypervisor", TYPES)
def test_name_memory_and_processors_are_the_profiles(hypervisor: Hypervisor) -> None:
    root = definition(replace(NODE, name="a <b> & 'c'", type=hypervisor, memory_mib=300, cpu=3))
    memory = root.find("memory")
    assert root.findtext("name") == "a <b> & 'c'"
    assert memory is not None and (memory.text, memory.get("unit")) == ("300", "MiB")
    assert root.findtext("vcpu") == "3"


@pytest.mark.parametrize(
    ("hypervisor", "domain", "os_type", "machine"),
    [("Xen", "xen", "linux", "xenpv"), ("XenHVM", "xen", "hvm", "xenfv"), ("VMWare", "vmware", "hvm", None)],
)
@pytest.mark.parametrize(("architecture", "word"), [(None, "x86_64"), ("x86_64", "x86_64"), ("i386", "i686")])
def test_the_type_picks_the_kind_of_guest(
    hypervisor: Hypervisor, domain: str, os_type: str, machine: str | None, architecture: str | None, word: str
) -> None:
    root = definition(replace(NODE, type=hypervisor, architecture=architecture))  # type: ignore[arg-type]
    kind = root.find("os/type")
    assert kind is not None
    assert (root.get("type"), kind.text, kind.get("arch"), kind.get("machine")) == (domain, os_type, word, machine)


@pytest.mark.parametrize(
    ("hypervisor", "bus", "expected"),
    [
        ("Xen", "ide", ["xvda xen", "xvdb xen", "xvdc xen"]),
        ("Xen", "scsi", ["xvda xen", "xvdb xen", "xvdc xen"]),
        ("Xen", "virtio", ["xvda xen", "xvdb xen", "xvdc xen"]),
        ("XenHVM", "ide", ["hda ide", "hdb ide", "hdc ide"]),
        ("XenHVM", "scsi", ["sda scsi", "sdb scsi", "hdc ide"]),
        ("XenHVM", "virtio", ["xvda xen", "xvdb xen", "hdc ide"]),
        ("VMWare", "ide", ["hda ide", "hdb ide", "hdc ide"]),
        ("VMWare", "scsi", ["sda scsi", "sdb scsi", "hdc ide"]),
        ("VMWare", "virtio", ["sda scsi", "sdb scsi", "hdc ide"]),
    ],
)
def test_disks_and_cd_have_the_hypervisors_names(hypervisor: Hypervisor, bus: DiskBus, expected: list[str]) -> None:
    profile = replace(
        NODE, type=hypervisor, disk_bus=bus, virtual_disks=(VirtualDisk("hdb", "/d/b.vmdk"),), cdrom="cd.iso"
    )
    files = [f"{RUN}/disks/oscarnode1.vmdk", "/d/b.vmdk", f"{RUN}/cd.iso"]
    found = disks(definition(profile))
    assert [f"{name} {word}" for _, name, word, _ in found] == expected
    assert [file for *_, file in found] == files
    assert [device for device, *_ in found] == ["disk", "disk", "cdrom"]


def test_a_disk_with_any_other_id_gets_the_next_free_place_where_the_bus_has_names_for_all() -> None:
    more = tuple(VirtualDisk(name, f"/d/{name}") for name in ("data", "sdb", "scratch"))
    found = disks(definition(replace(NODE, disk_bus="virtio", virtual_disks=more, cdrom="cd.iso")))
    assert [(name, file) for _, name, _, file in found[1:4]] == [
        ("xvdd", "/d/data"), ("xvdb", "/d/sdb"), ("xvde", "/d/scratch"),
    ]  # fmt: skip


def test_the_callers_cd_takes_the_place_of_the_profiles() -> None:
    root = definition(replace(NODE, cdrom="old.iso"), BootPlan(BootDevice.CDROM, Path("new.iso")))
    assert [file for device, *_, file in disks(root) if device == "cdrom"] == [f"{RUN}/new.iso"]


@pytest.mark.parametrize(
    ("file", "image"), [("a.qcow2", "qcow2"), ("a.img", "raw"), ("a", "raw"), ("/dev/vg/a", "raw")]
)
def test_the_format_of_a_xen_disk_goes_by_its_name(file: str, image: str) -> None:
    driver = definition(replace(NODE, image=DiskImage(file))).find("devices/disk/driver")
    assert driver is not None and driver.get("type") == image


def test_the_runs_second_disk_is_the_last_one_and_read_only() -> None:
    root = definition(replace(NODE, disk_bus="virtio"), BootPlan(seed=Path("seed.img")))
    assert disks(root)[-1] == ("disk", "xvdz", "xen", f"{RUN}/seed.img")
    assert root.find("devices/disk[last()]/readonly") is not None


@pytest.mark.parametrize(
    ("hypervisor", "nic", "kind", "network"),
    [
        ("Xen", replace(HOST, type=None), "network", "default"),
        ("Xen", HOST, "network", "default"),
        ("Xen", replace(HOST, type="TUN/TAP+NAT"), "network", "default"),
        ("Xen", BRIDGED, "bridge", "xenbr0"),
        ("Xen", replace(BRIDGED, option="br-lab"), "bridge", "br-lab"),
        ("Xen", VLAN, "bridge", "vlan"),
        ("XenHVM", replace(VLAN, vlan="storage"), "bridge", "vlan-storage"),
        ("VMWare", HOST, "user", None),
        ("VMWare", replace(HOST, type="TUN/TAP+NAT"), "user", None),
        ("VMWare", BRIDGED, "bridge", "vmnet0"),
        ("VMWare", replace(BRIDGED, option="vmnet7"), "bridge", "vmnet7"),
        ("VMWare", VLAN, "bridge", "vmnet2"),
    ],
)
def test_each_kind_of_nic_is_on_its_network_of_the_host(
    hypervisor: Hypervisor, nic: Nic, kind: str, network: str | None
) -> None:
    assert nics(definition(replace(NODE, type=hypervisor, nics=(nic,)))) == [(nic.mac, kind, network)]


def test_the_interface_to_bridge_may_stand_at_the_machine() -> None:
    profile = replace(NODE, option="eth1", nics=(BRIDGED, replace(BRIDGED, mac="52:54:00:00:00:14", option="eth0")))
    assert [network for *_, network in nics(definition(profile))] == ["eth1", "eth0"]


@pytest.mark.parametrize("hypervisor", TYPES)
def test_nics_to_the_host_come_first_in_the_guest(hypervisor: Hypervisor) -> None:
    root = definition(replace(NODE, type=hypervisor, nics=(VLAN, HOST, BRIDGED)))
    assert [mac for mac, *_ in nics(root)] == [HOST.mac, BRIDGED.mac, VLAN.mac]


@pytest.mark.parametrize(
    ("boot", "medium", "expected"),
    [
        ((), None, ["hd"]),
        (("network", "disk"), None, ["network", "hd"]),
        (("cdrom",), None, ["cdrom"]),
        (("network",), BootDevice.CDROM, ["hd", "cdrom"]),
        ((), BootDevice.NETWORK, ["hd", "network"]),
    ],
)
def test_a_fully_virtual_guest_boots_in_the_profiles_order_and_is_installed_disk_first(
    boot: tuple[str, ...], medium: BootDevice | None, expected: list[str]
) -> None:
    root = definition(replace(NODE, boot=boot, cdrom="cd.iso"), BootPlan(medium))  # type: ignore[arg-type]
    assert [str(device.get("dev")) for device in root.iterfind("os/boot")] == expected


def test_a_reboot_ends_a_xen_guest_in_its_install_boot_only() -> None:
    assert definition(NODE).findtext("on_reboot") == "restart"
    assert definition(NODE, BootPlan(BootDevice.NETWORK)).findtext("on_reboot") == "preserve"


def test_a_para_virtual_guest_boots_by_pygrub_from_its_disk() -> None:
    root = definition(replace(NODE, type="Xen"))
    assert root.findtext("bootloader") == "pygrub"
    assert root.find("os/boot") is None and root.find("os/kernel") is None


def test_a_para_virtual_guest_is_installed_by_a_kernel_that_is_given() -> None:
    root = definition(replace(NODE, type="Xen"), KERNEL)
    assert root.find("bootloader") is None
    assert [root.findtext(f"os/{tag}") for tag in ("kernel", "initrd", "cmdline")] == [
        "/k", f"{RUN}/i", "console=hvc0",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("hypervisor", "console", "expected"),
    [
        ("Xen", None, ("console", "pty", None)),
        ("Xen", Path("console/a.log"), ("console", "pty", None)),
        ("XenHVM", None, ("serial", "pty", None)),
        ("XenHVM", Path("console/a.log"), ("serial", "file", f"{RUN}/console/a.log")),
        ("VMWare", Path("console/a.log"), ("serial", "file", f"{RUN}/console/a.log")),
    ],
)
def test_the_console_is_a_file_where_the_hypervisor_can(
    hypervisor: Hypervisor, console: Path | None, expected: tuple[str, str, str | None]
) -> None:
    devices = definition(replace(NODE, type=hypervisor), console=console).find("devices")
    assert devices is not None
    (found,) = [device for device in devices if device.tag in ("console", "serial")]
    source = found.find("source")
    assert (found.tag, found.get("type"), None if source is None else source.get("path")) == expected


def test_uefi_is_a_loader_for_a_fully_virtual_guest() -> None:
    assert definition(replace(NODE, firmware="BIOS")).find("os/loader") is None
    assert str(definition(replace(NODE, firmware="UEFI")).findtext("os/loader")).endswith("ovmf.bin")


DISK_B = VirtualDisk("hdb", "/d/b.vmdk")
REFUSED: list[tuple[VMProfile, BootPlan, str]] = [
    (replace(NODE, type="Xen", firmware="UEFI"), BootPlan(), "such a guest has no firmware"),
    (replace(NODE, type="Xen", firmware="BIOS"), BootPlan(), "set the type XenHVM"),
    (replace(NODE, type="VMWare", firmware="UEFI"), BootPlan(), "there is only: BIOS"),
    (replace(NODE, architecture="aarch64"), BootPlan(), "architecture aarch64; there are: x86_64, i386"),
    (replace(NODE, machine="q35"), BootPlan(), "machine q35; there is only: xenfv, pc"),
    (replace(NODE, type="Xen", machine="pc"), BootPlan(), "there is only: xenpv"),
    (replace(NODE, cpu=129), BootPlan(), "129 processors; it can have 128"),
    (replace(NODE, type="VMWare", cpu=9), BootPlan(), "it can have 8"),
    (replace(NODE, boot=("cdrom",)), BootPlan(), "there is none; add <cdrom> to its profile, or pass --cdrom ISO"),
    (replace(NODE, nics=(HOST,), boot=("network",)), BootPlan(), "no NIC of type VLAN"),
    (replace(NODE, type="Xen", boot=("network", "disk")), BootPlan(), "no firmware to boot from a CD or the network"),
    (replace(NODE, type="Xen", cdrom="/cd.iso"), BootPlan(BootDevice.CDROM), "set the type XenHVM"),
    (replace(NODE, type="VMWare"), KERNEL, "starts no kernel from outside"),
    (
        replace(NODE, type="VMWare", boot=("network", "disk")),
        BootPlan(),
        "in this order; libvirt cannot set the order 'network disk'",
    ),
    (replace(NODE, type="VMWare", image=DiskImage("a.qcow2")), BootPlan(), "'a.qcow2' does not: convert it"),
    (replace(NODE, type="VMWare", image=DiskImage("/dev/a.vmdk")), BootPlan(), "files that end in .vmdk"),
    (replace(NODE, type="VMWare", cdrom="/cd.img"), BootPlan(), "'/cd.img' does not"),
    (replace(NODE, type="VMWare"), BootPlan(seed=Path("s")), "no place for the run's second disk"),
    (replace(NODE, virtual_disks=(DISK_B, DISK_B)), BootPlan(), "two virtual disks with the id 'hdb'"),
    (replace(NODE, virtual_disks=(DISK_B, replace(DISK_B, id="sdb"))), BootPlan(), "no place 'sdb'"),
    (replace(NODE, virtual_disks=(replace(DISK_B, id="hda"),)), BootPlan(), "left: hdb, hdc, hdd"),
    (replace(NODE, virtual_disks=(replace(DISK_B, id="data"),)), BootPlan(), "no place 'data'"),
    (replace(NODE, virtual_disks=(replace(DISK_B, id="hdc"),), cdrom="/c"), BootPlan(), "has the place of the CD-ROM"),
    (
        replace(NODE, type="Xen", virtual_disks=(replace(DISK_B, id="hdc"),), cdrom="/c"),
        BootPlan(),
        "has the place of the CD-ROM",
    ),
    (
        replace(NODE, disk_bus="scsi", virtual_disks=tuple(VirtualDisk(f"d{n}", "/d") for n in range(7))),
        BootPlan(),
        "no place 'd6' for a disk; a fully virtual Xen guest has left: none",
    ),
    (replace(NODE, nics=(VLAN, replace(HOST, mac=VLAN.mac))), BootPlan(), "two NICs with the MAC"),
    (
        replace(NODE, nics=(replace(VLAN, mac="53:54:00:00:00:11"),)),
        BootPlan(),
        "has the multicast MAC 53:54:00:00:00:11",
    ),
    (
        replace(NODE, type="VMWare", nics=tuple(replace(VLAN, mac=f"52:54:00:00:00:{n:02x}") for n in range(11))),
        BootPlan(),
        "11 NICs; it can have 10",
    ),
    (replace(NODE, nics=(replace(HOST, option="eth0"),)), BootPlan(), "only a NIC of type BRIDGED_TAP"),
    (replace(NODE, option="eth0"), BootPlan(), "only a NIC of type BRIDGED_TAP"),
    (replace(NODE, option="br0,model=x", nics=(BRIDGED,)), BootPlan(), "not the name of an interface"),
    (replace(NODE, option="a-name-of-16-cha", nics=(BRIDGED,)), BootPlan(), "up to 15"),
    (replace(NODE, type="VMWare", option="eth0", nics=(BRIDGED,)), BootPlan(), "e.g., vmnet0"),
]


@pytest.mark.parametrize(("profile", "plan", "reason"), REFUSED, ids=[reason for *_, reason in REFUSED])
def test_what_the_hypervisor_cannot_do_is_refused_in_one_sentence(
    profile: VMProfile, plan: BootPlan, reason: str
) -> None:
    with pytest.raises(ProfileError) as caught:
        domain_xml(profile, RUN, plan)
    assert reason in caught.value.sentence and profile.name in caught.value.sentence
    assert "\n" not in caught.value.sentence


def test_a_relative_path_needs_a_directory_that_is_absolute() -> None:
    with pytest.raises(ProfileError, match=r"'disks/oscarnode1\.vmdk' is not an absolute path"):
        domain_xml(NODE, Path("here"))


def test_vmm_hpc_is_refused_with_the_reason_and_what_there_is_instead() -> None:
    profile = replace(NODE, type="VMM-HPC")
    for refused in (refuse, check):
        with pytest.raises(ProfileError) as caught:
            refused(profile)
        sentence = caught.value.sentence
        assert "research prototype of 2007" in sentence and "no longer available" in sentence
        assert all(word in sentence for word in ("oscarnode1", "Qemu", "Kvm", "Xen", "XenHVM", "VMWare"))


@pytest.mark.parametrize(("hypervisor", "said"), [("Qemu", "is of type Qemu"), ("Kvm", "Kvm"), (None, "has no type")])
def test_a_type_that_is_not_libvirts_is_refused(hypervisor: Hypervisor | None, said: str) -> None:
    with pytest.raises(ProfileError, match=said):
        check(replace(NODE, type=hypervisor))


# --- networks and connections ----------------------------------------------------------------------------------------

STORAGE = replace(VLAN, mac="52:54:00:00:00:21", vlan="storage")
LONG = replace(VLAN, mac="52:54:00:00:00:22", vlan="a-very-long-name-of-a-vlan")


def test_machines_of_one_cluster_share_their_vlans_and_each_vlan_has_a_network_of_its_own() -> None:
    for hypervisor in TYPES:
        head = replace(NODE, name="head", type=hypervisor, nics=(HOST, VLAN, STORAGE))
        node = replace(NODE, type=hypervisor, nics=(LONG, STORAGE))
        vlans = plan_networks((head, node)).vlans
        assert set(vlans) == {None, "storage", "a-very-long-name-of-a-vlan"}
        assert len(set(vlans.values())) == 3
        assert all(0 < len(name) <= 15 for name in vlans.values())


def test_clusters_with_the_same_vlans_are_distinguished() -> None:
    machines = (replace(NODE, nics=(VLAN, STORAGE)),)
    first, second = (set(plan_networks(machines, scope=scope).vlans.values()) for scope in ("run-1", "run-2"))
    assert not first & second
    vmware = tuple(replace(machine, type="VMWare") for machine in machines)
    assert set(plan_networks(vmware, first_vmware=7).vlans.values()) == {"vmnet7", "vmnet9"}  # vmnet8 is VMware's NAT


def test_a_vlan_without_a_name_and_one_named_vlan_are_two() -> None:
    assert len(set(plan_networks((replace(NODE, nics=(VLAN, replace(STORAGE, vlan="vlan"))),)).vlans.values())) == 2


def test_networks_that_lack_a_machines_vlan_are_refused() -> None:
    with pytest.raises(ProfileError, match=r"oscarnode1 is on the VLAN storage; the host has networks for: lab"):
        domain_xml(replace(NODE, nics=(STORAGE,)), RUN, networks=Networks(vlans={"lab": "br-lab"}))


def test_vmware_has_so_many_networks_only() -> None:
    with pytest.raises(ProfileError, match="there are 2 VLANs; VMware has 1 networks from vmnet255 on"):
        plan_networks((replace(NODE, type="VMWare", nics=(VLAN, STORAGE)),), first_vmware=255)


def test_vmware_and_xen_share_no_vlan() -> None:
    with pytest.raises(ProfileError, match="give all machines one type"):
        plan_networks((replace(NODE, type="VMWare"), replace(NODE, type="Xen")))


def test_a_vlans_network_has_no_way_out() -> None:
    root = etree.fromstring(vlan_network_xml("vlan-storage"))
    assert [child.tag for child in root] == ["name", "bridge"]


@pytest.mark.parametrize(
    ("hypervisor", "host", "user", "uri"),
    [
        ("Xen", None, None, "xen:///system"),
        ("XenHVM", "xen1.example.org", None, "xen+ssh://xen1.example.org/system"),
        ("Xen", "[fe80::1]", "root", "xen+ssh://root@[fe80::1]/system"),
        ("Xen", "192.0.2.1", "a b@c/d", "xen+ssh://a%20b%40c%2Fd@192.0.2.1/system"),
        ("VMWare", None, None, "vmwareplayer:///session"),
        ("VMWare", "esx1", None, "esx://root@esx1/"),
        ("VMWare", "esx1", "farm", "esx://farm@esx1/"),
    ],
)
def test_connection_uris(hypervisor: Hypervisor, host: str | None, user: str | None, uri: str) -> None:
    assert connection_uri(hypervisor, host, user) == uri


@pytest.mark.parametrize(
    ("hypervisor", "host", "user", "reason"),
    [
        ("Qemu", None, None, "not reached by libvirt"),
        (None, None, None, "not reached by libvirt"),
        ("Xen", None, "root", "none is named"),
        ("Xen", "", None, "not a host name"),
        ("Xen", "-oProxyCommand=x", None, "not a host name"),
        ("Xen", "a/b", None, "not a host name"),
        ("Xen", "a", "", "not a user name"),
        ("Xen", "a", "-l", "not a user name"),
    ],
)
def test_what_cannot_be_in_a_connection_uri_is_refused(
    hypervisor: Hypervisor | None, host: str | None, user: str | None, reason: str
) -> None:
    with pytest.raises(ConfigError, match=reason):
        connection_uri(hypervisor, host, user)


# --- libvirt's tools, when they are missing, hang or complain ---------------------------------------------------------


def fake_virsh(directory: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    virsh = directory / "virsh"
    virsh.write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
    virsh.chmod(0o755)
    monkeypatch.setenv("PATH", f"{directory}:{os.environ['PATH']}")


def test_a_virsh_that_hangs_is_ended_with_what_it_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_virsh(tmp_path, monkeypatch, f"sleep 1000 & echo $! > {tmp_path}/child; wait")
    monkeypatch.setattr(client, "VIRSH_SECONDS", 5.0)  # until it has started its child
    with pytest.raises(HostError, match=r"timed out after 5 s waiting for virsh domxml-to-native at xen:///system"):
        asyncio.run(converters.to_xl("<domain/>"))
    child = int((tmp_path / "child").read_text(encoding="ascii"))
    end = time.monotonic() + 5
    while ledger.start_time(child) is not None:  # killed, but not by its parent: nobody can wait for it
        assert time.monotonic() < end, "the child of virsh is still alive"
        time.sleep(0.01)


def test_virshs_last_complaint_is_the_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_virsh(tmp_path, monkeypatch, "printf 'error: first\\nerror: the cause\\n\\n' >&2; exit 1")
    with pytest.raises(converters.DefinitionRefused, match=r"xen:///system refuses virsh domxml-to-native: the cause$"):
        asyncio.run(converters.to_xl("<domain/>"))


def test_tools_that_are_missing_are_named_with_their_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ToolMissing) as caught:
        asyncio.run(converters.to_xl("<domain/>"))
    assert caught.value.hint.endswith("apt-get install libvirt-clients")
    with pytest.raises(ToolMissing) as caught:
        converters.validate("<domain/>", tmp_path / "domain.rng")
    assert caught.value.hint.endswith("apt-get install libvirt0")
