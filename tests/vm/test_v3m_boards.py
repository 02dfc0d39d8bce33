"""Boards and firmware other than the usual: UEFI, and the machine q35 with its SATA disks."""

from __future__ import annotations

import asyncio
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from oscar_steps.v3m.boot import DirectKernel
from oscar_steps.v3m.host.accelerator import Accelerator
from oscar_steps.v3m.machine import EndReason
from oscar_steps.v3m.profiles.vm import DiskBus, DiskImage, Firmware, VMProfile
from oscar_steps.v3m.qemu import network
from oscar_steps.v3m.qemu.machine import QemuMachine
from tests.vm.tiny_guest import LIMIT, MODULES, make_guest, parameters, unpacked_packages

STUB = Path("usr/lib/systemd/boot/efi/linuxx64.efi.stub")
LOOK = '[ -d /sys/firmware/efi ] && say "has UEFI" || say "has a BIOS"; say "has the disk $(disk)"; poweroff -f'


@pytest.fixture(scope="module")
def looking(tmp_path_factory: pytest.TempPathFactory) -> DirectKernel:
    """A guest that says what firmware and what disk it sees."""
    directory = tmp_path_factory.mktemp("guest")
    return make_guest(directory, modules=(*MODULES, "ata_piix"), cases={"look": LOOK})


def _booted(directory: Path, accelerator: Accelerator, vm: VMProfile, kernel: DirectKernel | None) -> str:
    """What the guest says until it powers itself off; without a kernel from outside, of what is on its disk."""

    async def scenario() -> str:
        machine = QemuMachine(vm, directory, accelerator, network.plan_single(vm), kernel=kernel)
        if kernel is not None:
            await machine.create()
        try:
            await machine.boot()
            async with asyncio.timeout(LIMIT):
                assert (await machine.wait_ended()).reason is EndReason.GUEST_SHUTDOWN
        finally:
            await machine.power_off()
        said = machine.console.read_text(errors="replace")
        await machine.destroy()
        assert not list(directory.rglob("*.fd"))
        return said

    return asyncio.run(scenario())


@pytest.mark.parametrize(("firmware", "word"), [("UEFI", "UEFI"), ("BIOS", "a BIOS")])
def test_a_guest_on_q35_finds_the_firmware_and_the_disk_of_its_profile(
    run_directory: Path, accelerator: Accelerator, looking: DirectKernel, firmware: Firmware, word: str
) -> None:
    vm = VMProfile("vm", "Qemu", DiskImage("vm.qcow2", 8), memory_mib=256, machine="q35", firmware=firmware)
    vm = replace(vm, disk_bus="virtio")  # the tiny guest's kernel has no driver for SATA
    said = _booted(run_directory, accelerator, vm, replace(looking, parameters=parameters("do=look")))
    assert f"GUEST has {word}" in said
    assert "GUEST has the disk /dev/vda" in said


@pytest.mark.parametrize("bus", ["virtio", "ide"])
def test_a_machine_with_uefi_boots_from_its_disk(
    run_directory: Path, accelerator: Accelerator, looking: DirectKernel, bus: DiskBus
) -> None:
    vm = VMProfile("vm", "Qemu", DiskImage("vm.raw"), memory_mib=384, firmware="UEFI", disk_bus=bus)
    _efi_disk(run_directory, looking)
    said = _booted(run_directory, accelerator, vm, None)
    assert "GUEST has UEFI" in said
    assert f"GUEST has the disk /dev/{'vda' if bus == 'virtio' else 'sda'}" in said


def _efi_disk(directory: Path, guest: DirectKernel) -> None:
    """`vm.raw`: a file system with kernel, initrd and parameters in one EFI program, where a firmware looks for it."""
    assert guest.initrd is not None
    stub = unpacked_packages("systemd-boot-efi", "systemd-boot-efi")
    (directory / "words").write_text(parameters("do=look"), encoding="ascii")
    sections = {"cmdline": (directory / "words", 0x30000), "linux": (guest.kernel, 0x2000000)}
    sections["initrd"] = (guest.initrd, 0x4000000)
    options = [word for name, (file, at) in sections.items() for word in _section(name, file, at)]
    subprocess.run(["objcopy", *options, str(stub / STUB), str(directory / "boot.efi")], check=True)
    disk = str(directory / "vm.raw")
    for command in (
        ["mformat", "-i", disk, "-C", "-T", str(64 << 11), "::"],
        ["mmd", "-i", disk, "::EFI", "::EFI/BOOT"],
        ["mcopy", "-i", disk, str(directory / "boot.efi"), "::EFI/BOOT/BOOTX64.EFI"],
    ):
        subprocess.run(command, check=True, capture_output=True)


def _section(name: str, file: Path, address: int) -> list[str]:
    return ["--add-section", f".{name}={file}", "--change-section-vma", f".{name}={address:#x}"]
