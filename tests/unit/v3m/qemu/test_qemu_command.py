"""What a profile's further values become on QEMU's command line, and what is refused before anything is started."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from oscar_steps.errors import HostError, ProfileError
from oscar_steps.v3m.boot import BootPlan
from oscar_steps.v3m.host.accelerator import Accelerator
from oscar_steps.v3m.host.settings import HostSettings, NetworkSettings, ToHost
from oscar_steps.v3m.profiles.cluster import ClusterProfile, load_cluster
from oscar_steps.v3m.profiles.vm import BootDevice, DiskImage, Nic, VirtualDisk, VMProfile
from oscar_steps.v3m.qemu import network
from oscar_steps.v3m.qemu.command import qemu_arguments, qemu_parts
from oscar_steps.v3m.qemu.machine import QemuMachine
from oscar_steps.v3m.runtime import VirtualCluster

SAMPLE = Path(__file__).resolve().parents[4] / "profiles" / "clusters" / "head-and-two-nodes.xml"
TCG = Accelerator("tcg", "tried", 2.0)
VM = VMProfile("vm", "Qemu", DiskImage("disks/vm.qcow2", 500), nics=(Nic("VLAN", "52:54:00:00:00:01"),))


def arguments(vm: VMProfile, boot: BootPlan | None = None, directory: Path | None = None) -> list[str]:
    plan = boot or BootPlan()
    nets = network.plan_single(vm)
    return qemu_arguments(vm, nets, TCG, plan, console="console/vm.log", qmp_fd=7, directory=directory)


def boot_indices(line: list[str]) -> dict[str, str]:
    """The kind of device (e.g. 'ide-hd') to its boot index."""
    devices = [argument for argument in line if "bootindex=" in argument]
    return {device.split(",")[0]: device.partition("bootindex=")[2].split(",")[0] for device in devices}


def nics(count: int) -> tuple[Nic, ...]:
    return tuple(Nic("VLAN", f"52:54:00:00:00:{number:02x}") for number in range(count))


def disks(count: int) -> tuple[VirtualDisk, ...]:
    return tuple(VirtualDisk(f"vd{number}", f"d{number}") for number in range(count))


@pytest.fixture
def cluster() -> ClusterProfile:
    return load_cluster(SAMPLE)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"architecture": "ia64"}, "vm has the architecture ia64; here there are: x86_64, i386, aarch64, riscv64"),
        ({"architecture": "aarch64"}, 'vm has its disk on the bus ide, which virt does not have; write bus="virtio"'),
        ({"architecture": "aarch64", "machine": "pc"}, "vm has the machine pc; here there are: virt"),
        ({"architecture": "aarch64", "firmware": "BIOS"}, "vm has the firmware BIOS; with aarch64 there is: UEFI"),
        ({"architecture": "aarch64", "cpu": 124}, "vm has 124 processors; the machine virt takes 123"),
        ({"machine": "virt"}, "vm has the machine virt; here there are: pc, q35"),
        ({"cpu": 256}, "vm has 256 processors; the machine pc takes 255"),
        ({"option": "eth0"}, "vm names the host's interface 'eth0' to bridge or NAT (option); QEMU's user network"),
        ({"nics": (Nic("BRIDGED_TAP", "52:54:00:00:00:01", None, "eth1"),)}, "vm names the host's interface 'eth1'"),
        ({"nics": nics(16)}, "vm has 16 NICs; the machine pc has places for 15"),
        ({"nics": nics(1) * 2}, "vm has two NICs with the MAC 52:54:00:00:00:00; every NIC needs its own"),
        ({"nics": (Nic("VLAN", "33:33:00:00:00:01"),)}, "vm has the multicast MAC 33:33:00:00:00:01 (first pair"),
        (
            {"nics": (Nic(None, "52:54:00:00:00:01"),), "boot": ("network",)},
            "vm cannot boot from the network: it has no",
        ),
        ({"virtual_disks": (VirtualDisk("hdb", "a"), VirtualDisk("hdb", "b"))}, "vm has two virtual disks with the id"),
        (
            {"virtual_disks": (VirtualDisk("hda", "a"),)},
            "vm: there is no place 'hda' for a disk; on IDE there are: hdb",
        ),
        (
            {"virtual_disks": (VirtualDisk("hdc", "a"),), "cdrom": "cd.iso"},
            "vm: the disk 'hdc' has the place of the CD-ROM",
        ),
        ({"virtual_disks": disks(9), "disk_bus": "virtio"}, "vm has 9 virtual disks; the bus virtio takes 8"),
    ],
)
def test_what_qemu_cannot_honour_is_refused_where_the_cluster_is_made(
    cluster: ClusterProfile, tmp_path: Path, changes: dict[str, Any], sentence: str
) -> None:
    vm = replace(VM, **changes)
    with pytest.raises(ProfileError) as error:
        VirtualCluster(replace(cluster, nodes=(vm,)), tmp_path, TCG, base_image=None)
    assert sentence in str(error.value)
    assert list(tmp_path.iterdir()) == []


def test_the_head_node_of_a_cluster_is_restricted_unless_the_settings_open_it(
    cluster: ClusterProfile, tmp_path: Path
) -> None:
    made = []
    for settings in (HostSettings(), HostSettings(network=NetworkSettings(to_host=ToHost.OPEN))):
        head = VirtualCluster(cluster, tmp_path, TCG, base_image=None, settings=settings).head
        assert isinstance(head, QemuMachine)
        made.append([word for word in head._network.arguments if word.startswith("user,")])
    forward = "hostfwd=tcp:127.0.0.1:0-:22"
    assert made == [[f"user,id=net0,ipv6=off,restrict=on,{forward}"], [f"user,id=net0,ipv6=off,{forward}"]]


@pytest.mark.parametrize(
    "changes",
    [
        {"architecture": "x86_64", "machine": "pc", "firmware": "BIOS", "boot": ("disk",)},
        {"architecture": "i386"},
    ],
)
def test_saying_what_is_the_rule_anyway_changes_nothing(changes: dict[str, Any]) -> None:
    assert arguments(replace(VM, **changes)) == arguments(VM)


@pytest.mark.parametrize("bus", ["ide", "scsi", "virtio"])
def test_as_many_nics_and_disks_as_are_taken_have_places_of_their_own(bus: Any) -> None:
    extra = disks(8) if bus != "ide" else tuple(VirtualDisk(name, name) for name in ("hdb", "hdd"))
    vm = replace(VM, nics=nics(15), virtual_disks=extra, disk_bus=bus)
    line = arguments(vm, BootPlan(BootDevice.CDROM, Path("cd.iso"), Path("seed.tar")))
    slots = [word for argument in line for word in argument.split(",") if word.startswith("addr=0x")]
    assert len(slots) == len(set(slots))
    assert max(int(slot.removeprefix("addr="), 16) for slot in slots) < 32


def test_an_ordinary_boot_follows_the_profiles_order() -> None:
    vm = replace(VM, boot=("network", "cdrom", "disk"))
    line = arguments(vm, BootPlan(cdrom=Path("cd.iso")))
    assert boot_indices(line) == {"virtio-net-pci": "1", "ide-cd": "2", "ide-hd": "3"}
    assert "panic=pause,reboot=reset" in line


def test_an_order_without_the_disk_leaves_the_disk_in_the_machine() -> None:
    line = arguments(replace(VM, boot=("network",)))
    assert boot_indices(line) == {"virtio-net-pci": "1"}
    assert "ide-hd,bus=ide.0,unit=0,drive=disk0" in line


def test_an_installation_tries_the_disk_first_whatever_the_profiles_order_is() -> None:
    vm = replace(VM, boot=("network", "disk"))
    assert arguments(vm, BootPlan(BootDevice.CDROM, Path("cd.iso"))) == arguments(
        VM, BootPlan(BootDevice.CDROM, Path("cd.iso"))
    )


def test_an_order_with_a_cd_that_nobody_names_is_a_mistake_of_the_profile() -> None:
    with pytest.raises(
        ProfileError, match="vm cannot boot from a CD: there is none; add <cdrom> to its profile, or pass --cdrom ISO"
    ):
        arguments(replace(VM, boot=("cdrom",)))


def test_the_format_of_a_disk_is_looked_up_in_the_run_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, elsewhere = tmp_path / "run", tmp_path / "elsewhere"
    for folder, content in ((run, b"QFI\xfb"), (elsewhere, b"raw")):
        (folder / "disks").mkdir(parents=True)
        (folder / "data.img").write_bytes(content)
        (folder / VM.image.path).write_bytes(content)
    monkeypatch.chdir(elsewhere)
    line = arguments(replace(VM, virtual_disks=(VirtualDisk("hdb", "data.img"),)), directory=run)
    drives = [argument for argument in line if "file=data.img" in argument or f"file={VM.image.path}" in argument]
    assert len(drives) == 2
    assert all("format=qcow2" in drive for drive in drives)


def test_a_virtual_disk_that_is_not_there_is_one_sentence(tmp_path: Path) -> None:
    vm = replace(VM, virtual_disks=(VirtualDisk("hdb", "data.img"),))
    (tmp_path / "disks").mkdir()
    (tmp_path / VM.image.path).touch()
    with pytest.raises(HostError, match=r"vm: the virtual disk hdb, .*/data\.img, cannot be used: No such file"):
        arguments(vm, directory=tmp_path)


def test_two_nics_of_the_head_node_on_one_vlan_share_its_hub() -> None:
    vm = replace(VM, nics=(Nic("VLAN", "52:54:00:00:00:01"), Nic("VLAN", "52:54:00:00:00:02", "b"), *nics(1)))
    hubs = [word for argument in arguments(vm) for word in argument.split(",") if word.startswith("hubid=")]
    assert hubs == ["hubid=0", "hubid=1", "hubid=0"]


def test_every_argument_has_a_purpose(cluster: ClusterProfile) -> None:
    for vm in cluster.machines:
        nets = network.plan(cluster)[vm.name]
        parts = qemu_parts(vm, nets, TCG, BootPlan(), console="c", qmp_fd=3)
        assert all(part.purpose and part.arguments and part.arguments[0].startswith("-") for part in parts)


def test_uefi_is_a_flash_that_all_share_and_one_with_the_machines_own_variables() -> None:
    flash = [argument for argument in arguments(replace(VM, firmware="UEFI")) if "if=pflash" in argument]
    assert ["readonly=on" in part for part in flash] == [True, False]
    assert flash[1].endswith("file=firmware/vm.fd")
    assert not [argument for argument in arguments(replace(VM, firmware="BIOS")) if "pflash" in argument]


def test_on_q35_every_disk_and_the_cd_have_a_cable_of_their_own() -> None:
    vm = replace(VM, machine="q35", virtual_disks=(VirtualDisk("hdb", "b.img"), VirtualDisk("hdd", "d.img")))
    line = arguments(vm, BootPlan(BootDevice.CDROM, Path("cd.iso")))
    assert line[line.index("-machine") + 1] == "q35"
    places = re.findall(r"ide-(?:hd|cd).*?bus=ide\.(\d),unit=(\d)", "\n".join(line))
    assert places == [("0", "0"), ("1", "0"), ("3", "0"), ("2", "0")]


def test_a_name_with_signs_of_qemus_own_is_still_one_name() -> None:
    line = arguments(replace(VM, name="a=b,c"))
    assert line[line.index("-name") + 1] == "guest=a=b,,c"
