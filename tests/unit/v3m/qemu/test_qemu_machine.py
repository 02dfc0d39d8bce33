"""QEMU's command line, networks, and the words about what a machine did, without starting anything."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path

import pytest

from oscar_steps.errors import HostError, ProfileError
from oscar_steps.v3m.boot import BootPlan
from oscar_steps.v3m.host.accelerator import Accelerator
from oscar_steps.v3m.profiles.cluster import ClusterProfile, load_cluster
from oscar_steps.v3m.profiles.vm import BootDevice, Nic, VMProfile
from oscar_steps.v3m.qemu import network
from oscar_steps.v3m.qemu.command import qemu_arguments
from oscar_steps.v3m.runtime import VirtualCluster, at_home, check_backend

SAMPLE = Path(__file__).resolve().parents[4] / "profiles" / "clusters" / "head-and-two-nodes.xml"
TCG = Accelerator("tcg", "tried", 2.0)


@pytest.fixture
def cluster() -> ClusterProfile:
    return load_cluster(SAMPLE)


def arguments(cluster: ClusterProfile, vm: VMProfile, boot: BootPlan) -> list[str]:
    return qemu_arguments(vm, network.plan(cluster)[vm.name], TCG, boot, console="console/vm.log", qmp_fd=7)


def values(arguments: list[str], option: str) -> list[str]:
    return [value for name, value in itertools.pairwise(arguments) if name == option]


def test_the_head_node_holds_a_star_with_one_socket_for_each_node(cluster: ClusterProfile) -> None:
    netdevs = values(arguments(cluster, cluster.head, BootPlan()), "-netdev")
    assert "user,id=net0,ipv6=off,hostfwd=tcp:127.0.0.1:0-:22" in netdevs
    assert "hubport,id=net1,hubid=0" in netdevs
    for number, node in enumerate(cluster.nodes):
        assert f"stream,id=spoke{number},server=on,addr.type=unix,addr.path=vlan/n{number}" in netdevs
        assert f"hubport,id=hub{number},hubid=0,netdev=spoke{number}" in netdevs
        own = values(arguments(cluster, node, BootPlan()), "-netdev")
        assert own == [
            f"stream,id=line0,server=off,addr.type=unix,addr.path=vlan/n{number}",
            "hubport,id=plug0,hubid=0,netdev=line0",
            "hubport,id=net0,hubid=0",
            "hubport,id=sink0,hubid=0",
        ]


def test_two_vlans_are_two_hubs(cluster: ClusterProfile) -> None:
    head = replace(cluster.head, nics=(*cluster.head.nics, Nic("VLAN", "52:54:00:00:00:03", "storage")))
    node = replace(cluster.nodes[0], nics=(*cluster.nodes[0].nics, Nic("VLAN", "52:54:00:00:00:21", "storage")))
    plan = network.plan(replace(cluster, head=head, nodes=(node, cluster.nodes[1])))
    spokes = [argument for argument in plan[head.name].arguments if argument.startswith("hubport,id=hub")]
    assert [spoke.split(",")[2] for spoke in spokes] == ["hubid=0", "hubid=1", "hubid=0"]
    assert plan[node.name].netdevs == ("net0", "net1")


def test_the_nic_to_the_host_has_the_lowest_slot_wherever_it_stands_in_the_profile(cluster: ClusterProfile) -> None:
    head = replace(cluster.head, nics=tuple(reversed(cluster.head.nics)))
    nics = [v for v in values(arguments(replace(cluster, head=head), head, BootPlan()), "-device") if "mac=" in v]
    assert "mac=52:54:00:00:00:01,addr=0x3," in nics[0]
    assert "mac=52:54:00:00:00:02,addr=0x4," in nics[1]


def test_an_install_boot_from_cd_tries_the_disk_first_and_ends_at_a_reboot(cluster: ClusterProfile) -> None:
    line = arguments(cluster, cluster.nodes[0], BootPlan(BootDevice.CDROM, Path("/run/boot.iso")))
    devices = values(line, "-device")
    assert "scsi-hd,bus=scsi.0,drive=disk0,bootindex=1" in devices
    assert "ide-cd,id=cd,bus=ide.1,unit=0,bootindex=2,drive=cdrom" in devices
    assert "panic=pause,reboot=shutdown" in line


def test_an_install_boot_from_the_network_has_a_rom_on_the_vlan_nic_only(cluster: ClusterProfile) -> None:
    devices = values(arguments(cluster, cluster.nodes[0], BootPlan(BootDevice.NETWORK)), "-device")
    assert any("mac=52:54:00:00:00:11" in device and "bootindex=3" in device for device in devices)
    assert not any("cdrom" in device for device in devices)


def test_an_ordinary_boot_has_no_cd_drive_unless_somebody_names_a_cd(cluster: ClusterProfile) -> None:
    line = arguments(cluster, cluster.nodes[0], BootPlan())
    assert not [device for device in values(line, "-device") if "cd" in device]


def test_an_ordinary_boot_boots_from_the_disk_whatever_lies_in_the_drive(cluster: ClusterProfile) -> None:
    line = arguments(cluster, cluster.nodes[0], BootPlan(cdrom=Path("/run/boot.iso")))
    assert "ide-cd,id=cd,bus=ide.1,unit=0,drive=cdrom" in values(line, "-device")
    assert [d for d in values(line, "-device") if "bootindex" in d] == ["scsi-hd,bus=scsi.0,drive=disk0,bootindex=1"]
    assert "panic=pause,reboot=reset" in line


def test_an_install_boot_without_a_cd_is_a_mistake_of_the_profile(cluster: ClusterProfile) -> None:
    with pytest.raises(ProfileError, match="oscarnode1 cannot boot from a CD"):
        arguments(cluster, cluster.nodes[0], BootPlan(BootDevice.CDROM))


def test_the_seed_is_a_disk_that_cannot_be_written(cluster: ClusterProfile) -> None:
    line = arguments(cluster, cluster.head, BootPlan(seed=Path("/run/seed,1.tar")))
    assert "if=none,id=seed,format=raw,readonly=on,file=/run/seed,,1.tar" in line
    assert any(device.startswith("virtio-blk-pci,drive=seed,serial=seed") for device in values(line, "-device"))


def test_pci_slots_are_never_used_twice(cluster: ClusterProfile) -> None:
    line = arguments(cluster, cluster.head, BootPlan(BootDevice.CDROM, Path("cd.iso"), Path("seed.tar")))
    slots = [option for device in values(line, "-device") for option in device.split(",") if option.startswith("addr=")]
    assert len(slots) == len({int(slot.removeprefix("addr="), 16) for slot in slots})


def test_the_forwarded_port_is_read_from_what_qemu_says() -> None:
    said = (
        "Hub -1 (net0):\r\n  Protocol[State]    FD  Source Address  Port   Dest. Address  Port RecvQ SendQ\r\n"
        "  TCP[HOST_FORWARD]  13       127.0.0.1 38823       10.0.2.15    22     0     0\r\n"
    )
    assert network.ssh_port(said) == 38823
    assert network.ssh_port("nothing") is None


def test_a_type_without_back_end_and_kvm_that_does_not_work_are_reported(cluster: ClusterProfile) -> None:
    check_backend(cluster.head, TCG)
    check_backend(replace(cluster.head, type="Xen"), TCG)
    with pytest.raises(ProfileError, match="is of type VMWare, which can be defined but not run: libvirt's driver"):
        check_backend(at_home(replace(cluster.head, type="VMWare")), TCG)
    with pytest.raises(HostError, match="type Kvm, but KVM does not work here: tried"):
        check_backend(replace(cluster.head, type="Kvm"), TCG)
    check_backend(replace(cluster.head, type="Kvm"), Accelerator("kvm", "tried", 1.0))


def test_a_run_keeps_every_disk_in_its_own_directory(cluster: ClusterProfile, tmp_path: Path) -> None:
    node = replace(cluster.nodes[0], image=replace(cluster.nodes[0].image, path="/somewhere/else.img"))
    running = VirtualCluster(replace(cluster, nodes=(node,)), tmp_path, TCG, base_image=None)
    assert running.nodes[0].profile.image.path == "disks/oscarnode1.qcow2"
