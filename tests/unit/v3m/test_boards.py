"""Machines of another architecture: the same profile on another board, and what a host lacks for it."""

from __future__ import annotations

import asyncio
import json
import platform
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest

from oscar_steps.errors import HostError, ProfileError, ToolMissing
from oscar_steps.matrix.cells import default_profiles
from oscar_steps.v3m import boards
from oscar_steps.v3m.boards import BOARDS, Uefi, board_of
from oscar_steps.v3m.boot import BootPlan, DirectKernel
from oscar_steps.v3m.host import accelerator, checks
from oscar_steps.v3m.host.accelerator import Accelerator, find_accelerator
from oscar_steps.v3m.profiles.cluster import load_cluster
from oscar_steps.v3m.profiles.vm import BootDevice, DiskImage, Nic, VirtualDisk, VMProfile
from oscar_steps.v3m.qemu import firmware, network
from oscar_steps.v3m.qemu.command import qemu_arguments
from oscar_steps.v3m.runtime import check_backend

PC = VMProfile(
    "vm", "Qemu", DiskImage("disks/vm.qcow2", 500), disk_bus="virtio", architecture="x86_64", firmware="UEFI",
    nics=(Nic(None, "52:54:00:00:00:01"), Nic("VLAN", "52:54:00:00:00:02")),
)  # fmt: skip
ARM = replace(PC, architecture="aarch64", firmware=None)
KVM = Accelerator("kvm", "tried", 1.0)
TCG = Accelerator("tcg", "tried", 2.0)


def arguments(vm: VMProfile, plan: BootPlan | None = None, with_: Accelerator = TCG) -> list[str]:
    return qemu_arguments(vm, network.plan_single(vm), with_, plan or BootPlan(), console="c", qmp_fd=7)


def value(line: list[str], option: str) -> str:
    return line[line.index(option) + 1]


def devices(line: list[str]) -> list[str]:
    return [word for option, word in pairwise(line) if option == "-device"]


@pytest.fixture
def x86_host(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")


def test_network_cards_have_the_same_places_in_the_same_order_on_every_board() -> None:
    def cards(vm: VMProfile) -> list[tuple[str, str]]:
        words = [device.split(",") for device in devices(arguments(vm)) if device.startswith("virtio-net-pci")]
        return [(word[2], word[3]) for word in words]

    assert cards(ARM) == cards(PC) == [("mac=52:54:00:00:00:01", "addr=0x3"), ("mac=52:54:00:00:00:02", "addr=0x4")]


@pytest.mark.usefixtures("x86_host")
def test_another_architecture_is_emulated_also_where_kvm_works() -> None:
    line = arguments(ARM, with_=KVM)
    assert (value(line, "-accel"), value(line, "-cpu")) == ("tcg", "cortex-a57")
    assert value(line, "-machine").startswith("virt")
    line = arguments(PC, with_=KVM)
    assert (value(line, "-accel"), value(line, "-cpu")) == ("kvm", "host")


def test_a_host_of_that_architecture_uses_its_own_kvm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "aarch64")
    line = arguments(replace(ARM, architecture=None), with_=KVM)
    assert (value(line, "-accel"), value(line, "-cpu")) == ("kvm", "host")
    assert value(arguments(PC, with_=KVM), "-accel") == "tcg"


def test_a_board_without_a_bios_starts_with_uefi_and_its_own_variables() -> None:
    flash = [word for word in arguments(ARM) if "if=pflash" in word]
    assert flash == [
        "if=pflash,format=raw,unit=0,readonly=on,file=/usr/share/AAVMF/AAVMF_CODE.fd",
        "if=pflash,format=raw,unit=1,file=firmware/vm.fd",
    ]


@pytest.mark.parametrize("bus", ["virtio", "scsi"])
def test_a_board_without_ide_has_its_cd_on_the_one_scsi_controller(bus: str) -> None:
    line = arguments(replace(ARM, disk_bus=bus), BootPlan(BootDevice.CDROM, Path("/cd.iso")))  # type: ignore[arg-type]
    assert [device for device in devices(line) if device.startswith("virtio-scsi-pci")] == [
        "virtio-scsi-pci,id=scsi,addr=0x12"
    ]
    assert "scsi-cd,id=cd,bus=scsi.0,bootindex=2,drive=cdrom" in devices(line)
    assert not [device for device in devices(line) if device.startswith(("ide", "VGA"))]


def test_uefi_boots_from_the_network_by_itself_so_no_card_has_a_rom() -> None:
    """The ROM that QEMU brings is a program for a PC."""
    plan = BootPlan(BootDevice.NETWORK)
    (card,) = [device for device in devices(arguments(ARM, plan)) if "bootindex=3" in device]
    assert "romfile=," in f"{card},"
    (card,) = [device for device in devices(arguments(PC, plan)) if "bootindex=3" in device]
    assert "romfile" not in card


@pytest.mark.usefixtures("x86_host")
def test_a_type_that_promises_kvm_is_refused_for_another_architecture() -> None:
    with pytest.raises(HostError, match="of type Kvm and aarch64, which this host can only emulate"):
        check_backend(replace(ARM, type="Kvm"), KVM)


def test_variables_are_copied_once_and_their_zeros_take_no_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    template, code = tmp_path / "VARS.fd", tmp_path / "CODE.fd"
    contents = b"boot" + bytes(8 << 20) + b"entries" + bytes(4 << 20)
    template.write_bytes(contents)
    code.touch()
    monkeypatch.setattr(boards, "BOARDS", {"aarch64": replace(BOARDS["aarch64"], uefi=Uefi(code, template, "efi"))})
    firmware.prepare(ARM, tmp_path)
    own = tmp_path / firmware.variables(ARM)
    assert own.read_bytes() == contents
    assert own.stat().st_blocks * 512 < 4 << 20
    own.write_bytes(b"an entry of the guest's")
    firmware.prepare(ARM, tmp_path)
    assert own.read_bytes() == b"an entry of the guest's"
    assert [path.name for path in own.parent.iterdir()] == ["vm.fd"]


def test_a_firmware_that_is_missing_is_named_with_the_package_that_brings_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lost = Uefi(tmp_path / "CODE.fd", tmp_path / "VARS.fd", "qemu-efi-aarch64")
    monkeypatch.setattr(boards, "BOARDS", {"aarch64": replace(BOARDS["aarch64"], uefi=lost)})
    with pytest.raises(ToolMissing) as error:
        firmware.prepare(ARM, tmp_path)
    assert "CODE.fd is missing" in error.value.sentence
    assert error.value.hint == "install it: apt-get install qemu-efi-aarch64"  # there is no BIOS to fall back to
    found = [check for check in checks.check_host(tmp_path, 1, 1, [ARM]) if check.name == "firmware"]
    assert [(check.ok, check.hint) for check in found] == [(False, error.value.hint)]


def test_a_host_is_asked_for_the_emulators_of_its_machines_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))

    def asked(*machines: VMProfile) -> list[tuple[str, str]]:
        found = checks.check_host(tmp_path, 1, 1, machines)
        return [(check.name, check.hint) for check in found if check.name.startswith("qemu-system")]

    arm = ("qemu-system-aarch64", "install it: apt-get install qemu-system-arm")
    x86 = ("qemu-system-x86_64", "install it: apt-get install qemu-system-x86")
    assert asked(ARM, replace(ARM, name="other")) == [arm]
    assert asked(PC, replace(PC, architecture="i386", name="other")) == [x86]


@pytest.mark.usefixtures("x86_host")
def test_other_architectures_are_a_note_not_a_must(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    (check,) = [check for check in checks.check_architectures() if check.name == "aarch64"]
    assert check.ok
    assert "aarch64 cannot be emulated here without qemu-system-aarch64" in check.sentence
    assert "qemu-system-arm" in check.hint


@pytest.mark.parametrize(
    ("architecture", "head"), [("x86_64", bytes(0x202) + b"HdrS"), ("aarch64", bytes(0x38) + b"ARMd")]
)
def test_a_kernel_is_tried_on_its_own_board_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, architecture: str, head: bytes
) -> None:
    tried: list[str] = []

    async def probe(board: boards.Board, name: str, kernel: Path, _limit: float) -> accelerator._Probe:
        tried.append(f"{board.name} {name} {kernel.parent.name}")
        return accelerator._Probe(True, 3.0, "")

    async def key(board: boards.Board) -> str:
        return board.name

    monkeypatch.setattr(accelerator, "_probe", probe)
    monkeypatch.setattr(accelerator, "_host_key", key)
    monkeypatch.setattr(accelerator, "_KERNELS", ())
    monkeypatch.setattr(platform, "machine", lambda: "s390x")  # so that neither is the host's own
    (tmp_path / "image").mkdir()
    (tmp_path / "image/vmlinuz").write_bytes(head)
    (tmp_path / "other").mkdir()
    (tmp_path / "other/vmlinuz").write_bytes(b"something else")
    found = asyncio.run(find_accelerator(tmp_path, architecture=architecture))
    assert (found.name, found.seconds, found.tried) == ("tcg", 3.0, True)
    assert tried == [f"{architecture} tcg image"]
    (other,) = {"x86_64", "aarch64"} - {architecture}
    untried = asyncio.run(find_accelerator(tmp_path, architecture=other))
    assert (untried.name, untried.tried) == ("tcg", False)


@pytest.mark.usefixtures("x86_host")
def test_how_fast_an_architecture_is_is_kept_for_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def probe(board: boards.Board, _name: str, _kernel: Path, _limit: float) -> accelerator._Probe:
        return accelerator._Probe(True, {"x86_64": 2.0, "aarch64": 5.0}[board.name], "")

    async def key(_board: boards.Board) -> str:
        return "this boot"

    monkeypatch.setattr(accelerator, "_probe", probe)
    monkeypatch.setattr(accelerator, "_host_key", key)
    for architecture, seconds in (("x86_64", 2.0), ("aarch64", 5.0), ("x86_64", 2.0), ("aarch64", 5.0)):
        assert asyncio.run(find_accelerator(tmp_path, Path("/k"), architecture)).seconds == seconds
    files = {path.name: json.loads(path.read_bytes())["seconds"] for path in tmp_path.iterdir()}
    assert files == {"accelerator.json": 2.0, "accelerator-aarch64.json": 5.0}


def test_a_board_knows_the_kernels_of_its_own_and_no_short_file(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    assert not board_of(ARM).is_kernel(tmp_path / "empty")


def test_one_cluster_file_does_for_every_architecture_and_what_it_says_itself_stands() -> None:
    sample = load_cluster(default_profiles() / "clusters/head-and-two-nodes.xml")
    own = replace(sample, nodes=(replace(sample.nodes[0], architecture="x86_64"), *sample.nodes[1:]))
    assert [vm.architecture for vm in own.with_architecture("aarch64").machines] == ["aarch64", "x86_64", "aarch64"]
    for vm in sample.with_architecture("aarch64").machines:
        check_backend(vm, TCG)


def test_a_firmware_that_starts_the_first_disk_of_all_finds_the_machines_own_and_not_the_seed() -> None:
    most = tuple(VirtualDisk(f"/d{number}", f"d{number}") for number in range(7))
    riscv = replace(ARM, architecture="riscv64", virtual_disks=most)
    check_backend(riscv, TCG)
    devices = [word for option, word in pairwise(arguments(riscv, BootPlan(seed=Path("/seed")))) if option == "-device"]
    slots = {word.split(",")[1]: int(word.rpartition("addr=")[2], 16) for word in devices if "virtio-blk" in word}
    assert min(slots, key=lambda name: slots[name]) == "drive=disk0"
    assert len({*slots.values()}) == len(slots) == 9
    with pytest.raises(ProfileError, match="has 8 virtual disks; the bus virtio takes 7"):
        check_backend(replace(riscv, virtual_disks=(*most, VirtualDisk("/e", "e"))), TCG)


def test_a_boot_loader_in_place_of_a_firmware_is_started_unless_a_kernel_is_and_has_no_variables(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    riscv = replace(ARM, architecture="riscv64")
    assert value(arguments(riscv), "-kernel").endswith("uboot.elf")
    direct = arguments(riscv, BootPlan(kernel=DirectKernel(Path("/vmlinuz"))))
    assert [word for option, word in pairwise(direct) if option == "-kernel"] == ["/vmlinuz"]
    assert not [word for word in arguments(riscv) if "pflash" in word]
    loader = tmp_path / "uboot.elf"
    loader.touch()
    monkeypatch.setattr(boards, "BOARDS", {"riscv64": replace(BOARDS["riscv64"], uefi=Uefi(loader, None, "u-boot"))})
    firmware.prepare(riscv, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["uboot.elf"]
