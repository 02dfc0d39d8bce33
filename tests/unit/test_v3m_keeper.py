"""The keeper's parts without a machine: lines into a VLAN, disks that are not what they were, a state on its way."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from oscar_steps.errors import HostError, ProfileError
from oscar_steps.v3m import network
from oscar_steps.v3m.backend import make_libvirts
from oscar_steps.v3m.keeper import Keeper
from oscar_steps.v3m.keeperstate import System
from oscar_steps.v3m.machine import Ended, EndReason
from oscar_steps.v3m.moving import Mover
from oscar_steps.v3m.profile import DiskImage, Nic, VMProfile

NICS = (
    Nic("VLAN", "52:54:00:00:00:01"),
    Nic("TUN/TAP", "52:54:00:00:00:02"),
    Nic("VLAN", "52:54:00:00:00:03", "storage"),
)


@pytest.fixture
def profile(tmp_path: Path) -> VMProfile:
    return VMProfile("vm1", "Qemu", DiskImage(str(tmp_path / "vm1.img")), nics=NICS)


@pytest.fixture
def system(tmp_path: Path) -> System:
    system = System("default", tmp_path)
    system.make()
    return system


def test_a_joining_machine_has_a_line_for_each_nic_on_a_vlan(profile: VMProfile) -> None:
    joined = network.joining(profile, ["vlan/n7", "/tmp/far.sock"])
    lines = [argument for argument in joined.arguments if argument.startswith("stream,")]
    assert lines == [
        "stream,id=line0,server=off,addr.type=unix,addr.path=vlan/n7",
        "stream,id=line2,server=off,addr.type=unix,addr.path=/tmp/far.sock",
    ]
    assert joined.netdevs == ("net0", "net1", "net2")


def test_a_raw_disk_that_turns_into_qcow2_is_refused(profile: VMProfile, system: System) -> None:
    """Otherwise a guest could write the name of a file of the host's into it, and read that file at its next boot."""
    disk = Path(profile.image.path)
    disk.write_bytes(b"QFI\xfb" + bytes(600))
    system.update("vm1", profile="vm1.xml", disk=str(disk), disk_format="raw")
    with pytest.raises(HostError, match=r"vm1\.img of vm1 was raw, and now begins as qcow2 does"):
        asyncio.run(Keeper(system).new_machine(profile))


def test_a_machine_of_libvirts_has_no_vlan_for_itself_alone(profile: VMProfile, tmp_path: Path) -> None:
    with pytest.raises(ProfileError, match="vm1 is of type Xen and on a VLAN"):
        make_libvirts(replace(profile, type="Xen"), tmp_path, lambda _event: None)


class Qemu:
    """Answers as QEMU does whose move ends by `status`."""

    name = "vm1"

    def __init__(self, status: str) -> None:
        self.mover = Mover(self)
        self.asked: list[str] = []
        self._status = status

    async def execute(self, command: str, arguments: dict[str, object] | None = None) -> object:
        del arguments
        self.asked.append(command)
        if command == "migrate":
            self.mover.on_status("active")
            self.mover.on_status(self._status)
        return {"error-desc": "Broken pipe"} if command == "query-migrate" else {}

    def pass_descriptor(self, descriptor: int) -> None:
        self.asked.append(f"descriptor {descriptor}")

    async def wait_ended(self) -> Ended:
        await asyncio.Event().wait()
        return Ended(EndReason.CRASHED, 1)

    def last_error(self) -> str:
        return ""


def test_a_state_that_was_sent_leaves_the_machine_standing() -> None:
    qemu = Qemu("completed")
    asyncio.run(qemu.mover.send(7, EndReason.MIGRATED))
    assert qemu.asked[-3:] == ["descriptor 7", "getfd", "migrate"]
    assert "cont" not in qemu.asked
    assert not qemu.mover.is_moving


@pytest.mark.parametrize("stop_first", [True, False])
def test_a_state_that_could_not_be_sent_is_told_with_the_reason_and_the_machine_runs_on(stop_first: bool) -> None:
    qemu = Qemu("failed")
    with pytest.raises(HostError, match="vm1 could not be migrated: Broken pipe"):
        asyncio.run(qemu.mover.send(7, EndReason.MIGRATED, stop_first=stop_first))
    assert ("stop" in qemu.asked) == stop_first
    assert (qemu.asked[-1] == "cont") == stop_first  # what was not stopped QEMU itself lets run on
    assert not qemu.mover.is_moving
