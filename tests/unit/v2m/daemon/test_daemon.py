"""The daemon's parts without a machine: lines into a VLAN, disks that are not what they were, a state on its way."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest

from oscar_steps.errors import HostError, ImpossibleTransition, ProfileError, UserError
from oscar_steps.v2m.daemon.machines import Machines
from oscar_steps.v2m.daemon.server import Daemon
from oscar_steps.v2m.daemon.state import System
from oscar_steps.v3m.backend import make_libvirts
from oscar_steps.v3m.boot import BootPlan
from oscar_steps.v3m.host.accelerator import Accelerator
from oscar_steps.v3m.machine import DiskFingerprint, Ended, EndReason, EventKind, Machine, MachineEvent, MachineState
from oscar_steps.v3m.profiles.vm import BootDevice, DiskImage, Nic, VirtualDisk, VMProfile, profile_to_xml
from oscar_steps.v3m.qemu import network
from oscar_steps.v3m.qemu.machine import QemuMachine
from oscar_steps.v3m.qemu.state import Mover

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


def test_a_machine_whose_raw_disk_has_turned_into_qcow2_is_refused(profile: VMProfile, system: System) -> None:
    """Otherwise a guest could write the name of a file of the host's into it, and read that file at its next boot."""
    disk = Path(profile.image.path)
    disk.write_bytes(bytes(600))

    async def boot_twice() -> None:
        machines = Machines(system)
        with pytest.raises(ProfileError):  # no VLAN for a machine of libvirt's, which is found out after that look
            await machines.make(replace(profile, type="Xen"))
        disk.write_bytes(b"QFI\xfb" + bytes(600))
        await machines.make(profile)

    with pytest.raises(HostError, match=r"vm1\.img of vm1 was raw, but its content now looks like qcow2"):
        asyncio.run(boot_twice())


def test_what_cannot_be_a_disk_does_not_stop_the_daemon(profile: VMProfile, system: System, tmp_path: Path) -> None:
    """To open a FIFO waits for somebody who writes, to open a terminal for one who types: both for ever."""
    os.mkfifo(tmp_path / "fifo")
    Path(profile.image.path).write_bytes(bytes(600))
    for disk in (str(tmp_path / "fifo"), "/dev/ptmx", "/dev/null", str(tmp_path)):
        machine = replace(profile, virtual_disks=(VirtualDisk("hdb", disk),))
        with pytest.raises(HostError, match=f"vm1 has the disk {disk}, which cannot be used"):
            asyncio.run(Machines(system).make(machine))


class FakeMachine:
    """A machine that ends when it is told to; what a test wants otherwise it replaces."""

    pid = None

    def __init__(self, profile: VMProfile) -> None:
        self.profile, self.name = profile, profile.name
        self.state = MachineState.RUNNING
        self.booted, self.ended = asyncio.Event(), asyncio.Event()

    def check_can_start(self) -> None:
        pass

    async def boot(self, **_how: object) -> None:
        await self.booted.wait()

    async def status(self) -> MachineState:
        return self.state

    async def power_off(self) -> None:
        self.ended.set()

    async def wait_ended(self) -> Ended:
        await self.ended.wait()
        self.state = MachineState.OFF
        return Ended(EndReason.HOST_POWER_OFF, 0)

    async def fingerprint(self) -> DiskFingerprint:
        raise HostError("qemu-img failed")

    def ssh_endpoint(self) -> tuple[str, int]:
        raise ProfileError("it has no NIC")


class FakeDaemon(Daemon):
    """Its machine is a fake one; `released` are those whose lines were given back."""

    def __init__(self, system: System, profile: VMProfile) -> None:
        super().__init__(system)
        self.fake = FakeMachine(profile)
        self.released: list[str] = []
        self.machines.make = self._make  # type: ignore[method-assign]
        self.machines.vlan_hub.release = self._release  # type: ignore[method-assign]
        self.request = {"machine": profile.name, "file": "vm1.xml", "profile": profile_to_xml(profile)}

    async def _make(self, profile: VMProfile, sockets: list[str] | None = None) -> Machine:
        assert (profile.name, sockets) == ("vm1", None)
        return cast(Machine, self.fake)

    async def _release(self, key: str) -> None:
        self.released.append(key)

    async def ask(self, do: str, **more: object) -> dict[str, Any]:
        return await self._do({**self.request, "do": do, **more}, lambda _event: None)


def test_power_off_waits_for_a_machine_that_is_just_being_booted(profile: VMProfile, system: System) -> None:
    async def both() -> None:
        daemon = FakeDaemon(system, profile)
        booting = asyncio.create_task(daemon.ask("boot"))
        await asyncio.sleep(0)
        off = asyncio.create_task(daemon.ask("power-off"))
        await asyncio.sleep(0.01)
        assert not off.done(), "its disk would be deleted while it is booted"
        daemon.fake.booted.set()
        assert (await booting)["state"] == "running"
        assert (await off)["state"] == "off"
        assert daemon.fake.state is MachineState.OFF

    asyncio.run(both())


def test_power_off_of_what_nobody_knows_answers_at_once(profile: VMProfile, system: System) -> None:
    assert asyncio.run(FakeDaemon(system, profile).ask("power-off"))["state"] == "off"


def test_an_installation_whose_disk_cannot_be_looked_at_gives_its_lines_back(
    profile: VMProfile, system: System
) -> None:
    daemon = FakeDaemon(system, profile)
    with pytest.raises(HostError, match="qemu-img failed"):
        asyncio.run(daemon.ask("install"))
    assert daemon.released == ["vm1"]


def test_the_end_of_a_machine_that_could_not_be_written_down_does_not_hinder_the_next_boot(
    profile: VMProfile, system: System, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def twice() -> None:
        daemon = FakeDaemon(system, profile)

        async def fail() -> Ended:
            await daemon.fake.ended.wait()
            raise OSError(errno.ENOSPC, "No space left on device")

        daemon.fake.wait_ended = fail  # type: ignore[method-assign]
        daemon.fake.booted.set()
        for _ in range(2):
            daemon.fake.ended.clear()
            await daemon.ask("boot")
            assert (await daemon.ask("power-off"))["state"] == "off"
            assert not daemon.machines._farewells
        assert daemon.released == ["vm1", "vm1"]

    asyncio.run(twice())

    def full(_name: str, **_changes: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(system, "update", full)
    Machines(system)._listen(MachineEvent("vm1", EventKind.ENDED))


def test_the_daemon_goes_on_while_libvirt_is_asked_for_an_address(profile: VMProfile, system: System) -> None:
    goes_on = threading.Event()

    def ask_virsh() -> tuple[str, int]:
        return "10.0.0.1", 22 if goes_on.wait(10) else 0

    async def look() -> dict[str, Any]:
        daemon = FakeDaemon(system, profile)
        daemon.fake.ssh_endpoint = ask_virsh  # type: ignore[method-assign]
        daemon.fake.booted.set()
        booting = asyncio.create_task(daemon.ask("boot"))
        await asyncio.sleep(0.05)
        goes_on.set()
        answer = await booting
        await daemon.ask("power-off")
        return answer

    assert asyncio.run(look())["ssh"] == {"host": "10.0.0.1", "port": 22}


@pytest.mark.parametrize("do", ["save", "screenshot"])
@pytest.mark.parametrize("name", ["vm1.img", "link.img", "other.img", "cd.iso"])
def test_nothing_is_written_over_a_disk_or_the_cd_of_a_machine(
    profile: VMProfile, system: System, tmp_path: Path, do: str, name: str
) -> None:
    (tmp_path / "vm1.img").touch()
    (tmp_path / "link.img").symlink_to("vm1.img")
    more = {"virtual_disks": (VirtualDisk("hdb", str(tmp_path / "other.img")),), "cdrom": str(tmp_path / "cd.iso")}

    async def ask() -> None:
        daemon = FakeDaemon(system, replace(profile, **more))
        daemon.fake.booted.set()
        await daemon.ask("boot")
        try:
            await daemon.ask(do, state=str(tmp_path / name), picture=str(tmp_path / name))
        finally:
            await daemon.ask("power-off")

    with pytest.raises(UserError, match=f"{name} is a disk or the CD of vm1; name another file"):
        asyncio.run(ask())


class Writer:
    """What the daemon says."""

    def __init__(self) -> None:
        self.said = b""

    def write(self, data: bytes) -> None:
        self.said += data

    async def drain(self) -> None:
        pass


def test_a_fault_of_the_hosts_is_not_called_a_mistake_of_the_daemons(profile: VMProfile, system: System) -> None:
    daemon, writer = FakeDaemon(system, profile), Writer()

    async def fail(_request: object) -> dict[str, Any]:
        raise PermissionError(errno.EACCES, "Permission denied", "/cds/a.iso")

    daemon._handlers["boot"] = fail
    asyncio.run(daemon._answer(b'{"do": "boot"}', cast(asyncio.StreamWriter, writer)))
    error = json.loads(writer.said)["error"]
    assert (error["class"], error["sentence"]) == ("HostError", "/cds/a.iso: Permission denied")


@pytest.fixture
def machine(profile: VMProfile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> QemuMachine:
    """One whose state is b"state"."""

    async def send(_machine: QemuMachine, descriptor: int, _reason: EndReason, *, stop_first: bool) -> None:
        assert stop_first
        os.write(descriptor, b"state")

    async def leave(_machine: QemuMachine, reason: EndReason) -> None:
        assert reason is EndReason.SAVED

    monkeypatch.setattr(QemuMachine, "send_state", send)
    monkeypatch.setattr(QemuMachine, "leave", leave)
    lonely = replace(profile, nics=())
    return QemuMachine(lonely, tmp_path, Accelerator("tcg", "", 1.0), network.plan_single(lonely))


def test_a_saved_state_takes_no_other_files_place(machine: QemuMachine, tmp_path: Path) -> None:
    place = tmp_path / "states"
    place.mkdir()
    (place / "vm1.state.part").write_bytes(b"mine")
    asyncio.run(machine.save(place / "vm1.state"))
    found = {path.name: path.read_bytes() for path in place.iterdir()}
    assert found == {"vm1.state": b"state", "vm1.state.part": b"mine"}


@pytest.mark.parametrize("name", ["file/x", "n" * 300, "/proc/nope/x"])
def test_a_place_that_cannot_be_written_to_is_reported(machine: QemuMachine, tmp_path: Path, name: str) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(HostError, match="vm1 cannot be saved: "):
        asyncio.run(machine.save(tmp_path / name))
    if len(name) < 300:  # such a name QEMU refuses
        with pytest.raises(HostError, match="vm1 cannot be captured in a screenshot: "):
            asyncio.run(machine.screenshot(tmp_path / name))


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
def test_a_state_that_could_not_be_sent_is_reported_with_the_reason_and_the_machine_runs_on(stop_first: bool) -> None:
    qemu = Qemu("failed")
    with pytest.raises(HostError, match="vm1 could not be migrated: Broken pipe"):
        asyncio.run(qemu.mover.send(7, EndReason.MIGRATED, stop_first=stop_first))
    assert ("stop" in qemu.asked) == stop_first
    assert (qemu.asked[-1] == "cont") == stop_first  # what was not stopped QEMU itself lets run on
    assert not qemu.mover.is_moving


class Saved(QemuMachine):
    """A machine that was saved and is restored, without a QEMU."""

    restored = False

    @property
    def state(self) -> MachineState:
        return MachineState.RUNNING if self.restored else MachineState.OFF

    async def restore(self, state: Path) -> None:
        del state
        self.restored = True

    async def wait_ended(self) -> Ended:
        await asyncio.Event().wait()
        return Ended(EndReason.CRASHED, 1)


def test_a_machine_that_was_saved_while_it_was_installed_is_restored_as_that(
    profile: VMProfile, system: System, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its NIC has the ROM that it booted from, and its first reboot still ends the installation."""
    plan = BootPlan(medium=BootDevice.NETWORK, drive=True, durable=True)

    def saved() -> Saved:
        return Saved(profile, tmp_path, Accelerator("tcg", "", 1.0), network.plan_single(profile))

    async def save_and_restore() -> BootPlan:
        daemon, first, second = FakeDaemon(system, profile), saved(), saved()
        first.plan, first.restored = plan, True
        daemon.machines.adopt(first, "vm1.xml")
        del daemon.machines._machines["vm1"]
        monkeypatch.setattr(daemon, "fake", second)
        await daemon.ask("restore", state="vm1.state")
        return second.plan

    assert asyncio.run(save_and_restore()) == plan


@pytest.mark.parametrize(
    ("begin", "is_taken"),
    [(b"", True), (b"QEVM\0\0\0\3", True), (b"libvirt-xml\n", True), (b"<profile>", False), (b"QFI\xfb", False)],
)
def test_a_state_is_written_over_a_state_and_nothing_else(
    profile: VMProfile, system: System, tmp_path: Path, begin: bytes, is_taken: bool
) -> None:
    state = tmp_path / "vm1.state"
    state.write_bytes(begin)
    saved: list[Path] = []

    async def save() -> None:
        daemon = FakeDaemon(system, profile)
        daemon.machines._machines["vm1"] = cast(Machine, daemon.fake)

        async def note(path: Path) -> None:
            saved.append(path)

        daemon.fake.save = note  # type: ignore[attr-defined]
        await daemon.ask("save", state=str(state))

    if is_taken:
        asyncio.run(save())
    else:
        with pytest.raises(UserError, match="exists and is not a saved state"):
            asyncio.run(save())
    assert saved == ([state] if is_taken else [])


def test_a_disk_without_a_file_is_reported_before_an_installation(profile: VMProfile, system: System) -> None:
    lonely = replace(profile, nics=())

    async def install() -> None:
        daemon = Daemon(system)
        daemon.machines._accelerator = Accelerator("tcg", "", 1.0)
        request = {"machine": "vm1", "file": "vm1.xml", "profile": profile_to_xml(lonely), "install": "cdrom"}
        await daemon._do({**request, "do": "install"}, lambda _event: None)

    with pytest.raises(ImpossibleTransition, match=r"vm1 cannot be booted: its disk \S+ has not been made"):
        asyncio.run(install())
