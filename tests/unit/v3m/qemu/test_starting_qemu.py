"""A start that fails half way leaves no process behind, and a look at a disk opens nothing that its guest has named."""

from __future__ import annotations

import asyncio
import errno
import subprocess
from pathlib import Path

import psutil
import pytest

from oscar_steps.errors import HostError
from oscar_steps.v2m.daemon import vlan_hub
from oscar_steps.v2m.daemon.vlan_hub import VlanHub
from oscar_steps.v3m import disks
from oscar_steps.v3m.boot import BootPlan
from oscar_steps.v3m.host import ledger
from oscar_steps.v3m.host.accelerator import Accelerator
from oscar_steps.v3m.machine import EndReason
from oscar_steps.v3m.profiles.vm import DiskImage, Nic, VMProfile
from oscar_steps.v3m.qemu import machine as qemu
from oscar_steps.v3m.qemu import network
from oscar_steps.v3m.qemu.machine import QemuMachine

PROFILE = VMProfile("vm1", "Qemu", DiskImage("vm1.img"), nics=(Nic("VLAN", "52:54:00:00:00:01"),))


@pytest.fixture
def a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """QEMU is there, and nothing can be written down about it."""
    emulator = tmp_path / "qemu"
    emulator.write_text("#!/bin/sh\nexec sleep 1000\n", encoding="utf-8")
    emulator.chmod(0o755)
    for module in (qemu, vlan_hub):
        monkeypatch.setattr(module, "emulator", lambda *_board: str(emulator))

    def full(*_words: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(ledger, "record", full)
    monkeypatch.setattr(ledger, "forget", full)


@pytest.fixture
def machine(tmp_path: Path) -> QemuMachine:
    (tmp_path / "vm1.img").write_bytes(bytes(1 << 20))
    return QemuMachine(PROFILE, tmp_path, Accelerator("tcg", "", 1.0), network.plan_single(PROFILE))


def children() -> list[str]:
    return [child.name() for child in psutil.Process().children(recursive=True)]


@pytest.mark.usefixtures("a_full_disk")
def test_a_machine_that_cannot_be_written_down_is_ended(machine: QemuMachine) -> None:
    for _ in range(2):
        with pytest.raises(OSError, match="No space left"):
            asyncio.run(machine.boot())
        assert machine.pid is None
        assert "sleep" not in children()


@pytest.mark.usefixtures("a_full_disk")
def test_vlans_that_cannot_be_written_down_can_be_asked_for_again(tmp_path: Path) -> None:
    board = VlanHub(tmp_path)
    for _ in range(2):
        with pytest.raises(OSError, match="No space left"):
            asyncio.run(board.lines_of(PROFILE))
        assert board.pid is None
        assert "sleep" not in children()


def test_a_machine_that_is_restored_and_cannot_run_is_ended(
    machine: QemuMachine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another machine has its disk, say: QEMU takes a state without a look at that, and then refuses to run."""
    asked: list[str] = []

    async def receive(_machine: QemuMachine, _plan: BootPlan, _descriptor: int) -> None:
        asked.append("receive")

    async def refuse(_machine: QemuMachine) -> None:
        raise HostError('Failed to get "write" lock')

    async def power_off(_machine: QemuMachine) -> None:
        asked.append("power-off")

    monkeypatch.setattr(QemuMachine, "receive_state", receive)
    monkeypatch.setattr(QemuMachine, "_go", refuse)
    monkeypatch.setattr(QemuMachine, "power_off", power_off)
    (tmp_path / "vm1.state").write_bytes(b"QEVM")
    with pytest.raises(HostError, match="write"):
        asyncio.run(machine.restore(tmp_path / "vm1.state"))
    assert asked == ["receive", "power-off"]


def test_a_reset_by_the_host_in_an_installation_is_no_crash(machine: QemuMachine) -> None:
    """QEMU ends by it as by a reboot of the guest's."""
    machine._shutdown_reason = "host-qmp-system-reset"
    ended = machine._judge(0)
    assert (ended.reason, ended.detail) == (
        EndReason.HOST_POWER_OFF,
        "its reset button was pressed, which ends an install boot",
    )


def test_a_backing_file_that_a_guest_has_written_into_its_raw_disk_is_not_opened(tmp_path: Path) -> None:
    secret, disk, hostile = tmp_path / "secret", tmp_path / "disk.img", tmp_path / "hostile.qcow2"
    secret.write_bytes(b"the host's".ljust(1 << 20, b"\0"))
    create = ["qemu-img", "create", "-q", "-f", "qcow2", "-b", str(secret), "-F", "raw", str(hostile)]
    subprocess.run(create, check=True)
    disk.write_bytes(bytes(1 << 20))
    before = asyncio.run(disks.fingerprint(disk, "raw"))
    with disk.open("r+b") as file:
        file.write(hostile.read_bytes())
    after = asyncio.run(disks.fingerprint(disk, "raw"))
    of_secret = asyncio.run(disks.fingerprint(secret, "raw"))
    assert len({found.first_mib_sha256 for found in (before, after, of_secret)}) == 3
