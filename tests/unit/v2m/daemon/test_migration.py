"""Machines on their way to another host, without QEMU: the other side is a script for ssh, or the test itself."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from oscar_steps.errors import HostError, ImpossibleTransition, MachineLost
from oscar_steps.v2m.daemon import migration
from oscar_steps.v2m.daemon.machines import Machines
from oscar_steps.v2m.daemon.migration import Migrations, SshTransfer
from oscar_steps.v2m.daemon.server import Daemon
from oscar_steps.v2m.daemon.state import System
from oscar_steps.v3m.boot import BootPlan
from oscar_steps.v3m.host.accelerator import Accelerator
from oscar_steps.v3m.machine import Ended, EndReason, MachineState
from oscar_steps.v3m.profiles.vm import DiskImage, VirtualDisk, VMProfile, profile_to_xml
from oscar_steps.v3m.qemu.machine import QemuMachine
from oscar_steps.v3m.qemu.network import MachineNetwork

TCG = Accelerator("tcg", "for a test", 1.0)
OTHER_SIDE = """
import json, os, sys
steps = sys.argv[1].split()
def line():
    text = b""
    while not text.endswith(b"\\n"):
        byte = os.read(0, 1)
        if not byte:
            return text
        text += byte
    return text
def say(**message):
    print(json.dumps(message), flush=True)
for step in steps:
    if step == "luggage":
        line()
    elif step == "go":
        assert line() == b"go\\n"
    elif step == "error":
        say(error={"sentence": "it has none of that", "hint": ""})
    elif step == "hang-up":
        os.read(0, 1)
        open(sys.argv[2], "w").close()
    elif step == "words":
        print("Connection reset by host2", file=sys.stderr)
    else:
        say(**{step: True})
"""


class Guest(QemuMachine):
    """A machine whose QEMU is not there: what it is asked for is written down."""

    def __init__(self, profile: VMProfile, directory: Path) -> None:
        super().__init__(profile, directory, TCG, MachineNetwork((), ()))
        self.asked: list[str] = []
        self.state_now = MachineState.RUNNING
        self.formats = ["qcow2", "raw"]
        self.refusals: list[HostError] = []
        self.send_error: HostError | None = None
        self.on_go: Callable[[], None] = lambda: None
        self.on_look: Callable[[], Awaitable[object]] | None = None

    @property
    def state(self) -> MachineState:
        return self.state_now

    async def status(self) -> MachineState:
        if self.on_look is not None:
            await self.on_look()
        return self.state_now

    async def execute(self, command: str, arguments: dict[str, object] | None = None) -> object:
        assert (command, arguments) == ("query-block", None)
        cd = {"device": "cdrom"}
        return [cd, *({"device": f"disk{n}", "inserted": {"drv": drv}} for n, drv in enumerate(self.formats))]

    async def send_state(self, descriptor: int, reason: EndReason, *, stop_first: bool = False) -> None:
        del descriptor, stop_first
        self.asked.append("send")
        assert reason is EndReason.MIGRATED
        if self.send_error is not None:
            raise self.send_error

    async def receive_state(self, plan: BootPlan, descriptor: int) -> None:
        del descriptor
        assert plan.durable
        self.asked.append("receive")

    async def go_on(self) -> None:
        self.asked.append("cont")
        self.on_go()
        if self.refusals:
            raise self.refusals.pop(0)

    async def pause(self) -> None:
        self.asked.append("stop")

    async def power_off(self) -> None:
        self.asked.append("power-off")

    async def leave(self, reason: EndReason) -> None:
        assert reason is EndReason.MIGRATED
        self.asked.append("leave")

    async def wait_ended(self) -> Ended:
        await asyncio.Event().wait()
        return Ended(EndReason.CRASHED, 1)


@pytest.fixture
def profile(tmp_path: Path) -> VMProfile:
    for name, begin in (("vm1.qcow2", b"QFI\xfb"), ("more/data.img", b"")):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(begin + bytes(600))
    disks = (VirtualDisk("hdb", str(tmp_path / "more" / "data.img")),)
    return VMProfile("vm1", "Qemu", DiskImage(str(tmp_path / "vm1.qcow2")), virtual_disks=disks)


@pytest.fixture
def daemon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Daemon:
    async def accelerator(_machines: Machines) -> Accelerator:
        return TCG

    monkeypatch.setattr(Machines, "find_accelerator", accelerator)
    monkeypatch.setattr(migration, "TAKE_BACK_PAUSE", 0.01)
    system = System("default", tmp_path / "state")
    system.make()
    monkeypatch.chdir(system.directory)  # as a daemon does
    return Daemon(system)


@pytest.fixture
def guest(profile: VMProfile, daemon: Daemon) -> Guest:
    return Guest(profile, daemon.system.directory)


async def nothing_open() -> None:
    """asyncio closes the pipes of a process a moment after it has ended; what is left is the loop's own socket."""
    loop: Any = asyncio.get_running_loop()
    while len(loop._selector.get_map()) > 1:  # noqa: ASYNC110 - no event says so
        await asyncio.sleep(0.001)


class Out:
    """The move of `guest` to an other side that does `steps`, one after the other, and then hangs up."""

    def __init__(self, daemon: Daemon, guest: Guest, directory: Path, steps: str) -> None:
        self.hung_up = directory / "hung-up"
        script = directory / "other_side.py"
        script.write_text(OTHER_SIDE, encoding="utf-8")
        words = [sys.executable, str(script), steps, str(self.hung_up)]
        self._request = {"machine": "vm1", "host": "host2", "ssh": words, "v2m": "v2m", "system": "default"}
        self._daemon, self._guest = daemon, guest

    def run(self) -> dict[str, Any]:
        async def move() -> dict[str, Any]:
            self._daemon.machines.adopt(self._guest, "vm1.xml")
            try:
                return await self._daemon._migrations.migrate(self._request)
            finally:
                await asyncio.gather(*self._daemon._migrations._lines)
                await nothing_open()

        return asyncio.run(move())


def test_a_machine_that_runs_there_is_left_here(daemon: Daemon, guest: Guest, tmp_path: Path) -> None:
    assert Out(daemon, guest, tmp_path, "luggage ready arrived go running").run()["host"] == "host2"
    assert guest.asked == ["send", "leave"]
    assert not list(tmp_path.rglob(".v2m-*"))


def test_the_daemon_is_woken_when_the_last_line_it_holds_has_been_given_back(
    daemon: Daemon, guest: Guest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Woken a moment before, it would find the line still there, and wait for ever."""
    seen: list[bool] = []
    monkeypatch.setattr(daemon.machines.changed, "set", lambda: seen.append(daemon._migrations.holds_lines))
    Out(daemon, guest, tmp_path, "luggage ready arrived go running").run()
    assert (len(seen), seen[-1]) == (2, False), "once when the machine has ended here, once when its line is given back"


def test_a_cd_is_changed_before_or_after_a_move_and_not_meanwhile(daemon: Daemon, guest: Guest, tmp_path: Path) -> None:
    """In a machine that is just being sent, the change would be lost."""

    async def both() -> None:
        daemon.machines.adopt(guest, "vm1.xml")
        change = daemon._handlers["insert-cd"]({"machine": "vm1", "cdrom": str(tmp_path / "x.iso")})
        async with daemon.machines.hold("vm1"):
            asking = asyncio.create_task(change)
            await asyncio.sleep(0.05)
            assert not asking.done()
            guest.state_now = MachineState.OFF
        with pytest.raises(ImpossibleTransition, match="vm1 cannot be given a CD: it is off"):
            await asking

    asyncio.run(both())


MADE = {"profile": "vm1.xml", "made": "/vm1.qcow2", "made_file": "7 8.9"}


@pytest.mark.parametrize(
    ("steps", "made"),
    [
        ("luggage ready arrived go running", (None, None)),
        ("luggage ready arrived go", (None, None)),  # nobody knows where it runs
        ("luggage ready error", ("/vm1.qcow2", "7 8.9")),
        ("luggage ready arrived go given-up error", ("/vm1.qcow2", "7 8.9")),
    ],
)
def test_a_disk_that_the_other_host_may_have_is_not_deleted_here(
    daemon: Daemon, guest: Guest, tmp_path: Path, steps: str, made: tuple[str | None, str | None]
) -> None:
    daemon.system.update("vm1", **MADE)
    with contextlib.suppress(HostError):
        Out(daemon, guest, tmp_path, steps).run()
    record = daemon.system.records()["vm1"]
    assert (record.made, record.made_file) == made


def test_a_full_disk_of_the_host_stops_a_move_before_its_last_word_and_harms_none_after_it(
    daemon: Daemon, guest: Guest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    daemon.system.update("vm1", **MADE)
    update, full = System.update, "made"

    def updated(system: System, name: str, **changes: object) -> object:
        if full in changes and "profile" not in changes:
            raise OSError(errno.ENOSPC, "No space left on device")
        return update(system, name, **changes)

    monkeypatch.setattr(System, "update", updated)
    with pytest.raises(OSError, match="No space left"):
        Out(daemon, guest, tmp_path, "luggage ready arrived go running").run()
    assert guest.asked == ["send", "cont"]
    full = "ended"
    assert Out(daemon, guest, tmp_path, "luggage ready arrived go running").run()["host"] == "host2"


@pytest.mark.parametrize(
    ("steps", "said"),
    [
        ("luggage ready words", "vm1 could not be moved to host2: Connection reset by host2"),
        ("luggage ready error", "vm1 could not be moved to host2: it has none of that"),
        ("luggage ready arrived go given-up error", "vm1 could not be moved to host2: it has none of that"),
        ("luggage ready arrived go given-up", "vm1 could not be moved to host2: the connection broke"),
    ],
)
@pytest.mark.parametrize("paused", [False, True])
def test_a_machine_whose_state_could_not_be_used_there_goes_on_here_as_it_was(
    daemon: Daemon, guest: Guest, tmp_path: Path, steps: str, said: str, paused: bool
) -> None:
    """QEMU refuses 'cont' as long as the other one has the disks: it is asked again, and that is not what is told."""
    guest.state_now = MachineState.PAUSED if paused else MachineState.RUNNING
    guest.refusals = [HostError('Failed to get "write" lock')] * 2
    with pytest.raises(HostError) as caught:
        Out(daemon, guest, tmp_path, steps).run()
    assert caught.value.sentence == said
    assert guest.asked == ["send", "cont", "cont", "cont", *(["stop"] if paused else [])]


def test_a_machine_goes_on_here_only_when_the_other_side_has_hung_up(
    daemon: Daemon, guest: Guest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(migration, "LAST_WORD_LIMIT", 0.5)
    out = Out(daemon, guest, tmp_path, "luggage ready hang-up")
    seen: list[bool] = []
    guest.on_go = lambda: seen.append(out.hung_up.exists())
    with pytest.raises(HostError, match=r"timed out after \d+ s waiting for 'arrived'"):
        out.run()
    assert seen == [True]


def test_a_machine_that_cannot_go_on_here_is_reported_with_both_reasons(
    daemon: Daemon, guest: Guest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(migration, "TAKE_BACK_LIMIT", 0.05)
    guest.refusals = [HostError("no lock")] * 1000
    with pytest.raises(
        HostError, match="it has none of that; vm1 is stopped here, because it cannot be resumed: no lock"
    ):
        Out(daemon, guest, tmp_path, "luggage ready error").run()


@pytest.mark.parametrize("steps", ["luggage ready arrived go", "luggage ready arrived go error"])
def test_a_machine_that_may_run_on_either_host_is_stopped_here(
    daemon: Daemon, guest: Guest, tmp_path: Path, steps: str
) -> None:
    """An error alone is no proof: it may be told since the daemon there was killed, after the guest had run."""
    with pytest.raises(HostError, match="it is unknown whether vm1 runs on host2"):
        Out(daemon, guest, tmp_path, steps).run()
    assert guest.asked == ["send"]


@pytest.mark.parametrize(
    ("steps", "said"),
    [
        ("luggage ready", "vm1 could not be migrated: State blocked by device 'x'"),
        (
            "luggage ready error",
            "vm1 could not be moved to host2: it has none of that; here: vm1 could not be migrated: "
            "State blocked by device 'x'",
        ),
    ],
)
def test_what_our_own_qemu_says_is_reported(
    daemon: Daemon, guest: Guest, tmp_path: Path, steps: str, said: str
) -> None:
    guest.send_error = HostError("vm1 could not be migrated: State blocked by device 'x'")
    with pytest.raises(HostError) as caught:
        Out(daemon, guest, tmp_path, steps).run()
    assert caught.value.sentence == said
    assert guest.asked == ["send"]


def test_each_disk_of_a_machine_is_marked_while_it_moves(profile: VMProfile) -> None:
    with migration._marked(profile) as name:
        marked = [Path(path).with_name(name).exists() for path in (profile.image.path, profile.virtual_disks[0].path)]
        assert marked == [True, True]


@pytest.mark.parametrize("v2m", ["true", "no-such-v2m"])
def test_the_sockets_there_go_whether_or_not_there_is_a_v2m(tmp_path: Path, v2m: str) -> None:
    """sshd makes them and leaves them."""
    ssh = tmp_path / "ssh"
    ssh.write_text(
        '#!/bin/sh\nfor word; do case "$word" in /tmp/v2m-*) touch "${word%%:*}";; esac; remote=$word; done\n'
        'ls /tmp/v2m-*.sock; sh -c "$remote"\n',
        encoding="ascii",
    )
    ssh.chmod(0o755)
    request = {"ssh": [str(ssh)], "v2m": v2m, "system": "default"}

    async def go() -> list[Path]:
        transfer = await SshTransfer.begin("vm1", "host2", request, ["vlan/n0", "vlan/n1"], tmp_path)
        await transfer.wait()
        await transfer.end()
        return [Path(path) for path in transfer.sockets]

    sockets = asyncio.run(go())
    assert len(sockets) == 2
    assert not [path for path in sockets if path.exists()]


class In:
    """A machine that comes from another host. `words`: what follows its state."""

    def __init__(self, daemon: Daemon, guest: Guest, monkeypatch: pytest.MonkeyPatch) -> None:
        async def make(_machines: Machines, profile: VMProfile, sockets: list[str] | None = None) -> Guest:
            del sockets
            assert profile == guest.profile
            return guest

        monkeypatch.setattr(Machines, "make", make)
        self._daemon = daemon
        self.told: list[str] = []
        mark = Path(guest.profile.image.path).with_name(".v2m-1")
        self.marks = [mark, mark.parent / "more" / mark.name]
        for path in self.marks:
            path.touch()
        self.cd = mark.with_name("oscar.iso")
        self.cd.write_bytes(b"CD001" + bytes(5000))
        self.luggage: dict[str, Any] = {
            "profile": profile_to_xml(guest.profile), "file": "vm1.xml", "made": guest.profile.image.path,
            "accelerator": "tcg", "processor": [], "paused": False,
            "plan": {"medium": None, "cdrom": str(self.cd), "drive": True},
            "formats": ["qcow2", "raw"], "marker": mark.name, "cd": migration._cd_mark(self.cd), "sockets": [],
        }  # fmt: skip

    def run(self, words: bytes = b"go\n") -> None:
        stream = socket.socket(socket.AF_UNIX)

        def tell(event: dict[str, Any]) -> None:
            self.told += event
            if "socket" in event:
                stream.connect(Path(event["socket"]).name)
            if "arrived" in event:
                stream.sendall(words)
                stream.shutdown(socket.SHUT_WR)

        with stream:
            asyncio.run(self._receive(tell))

    async def _receive(self, tell: Callable[[dict[str, Any]], None]) -> None:
        await Migrations(self._daemon.machines).receive(self.luggage, tell)


@pytest.fixture
def arrival(daemon: Daemon, guest: Guest, monkeypatch: pytest.MonkeyPatch) -> In:
    return In(daemon, guest, monkeypatch)


@pytest.mark.parametrize(("paused", "asked"), [(False, ["receive", "cont"]), (True, ["receive"])])
def test_a_machine_goes_on_there_as_it_was_here(
    arrival: In, guest: Guest, daemon: Daemon, paused: bool, asked: list[str]
) -> None:
    arrival.luggage["paused"] = paused
    arrival.run()
    assert arrival.told == ["socket", "ready", "arrived", "running"]
    assert guest.asked == asked
    record = daemon.system.records()["vm1"]
    assert record.made == guest.profile.image.path


@pytest.mark.parametrize(
    ("accelerator", "seen", "comes"),
    [("kvm", ["fpu"], True), ("kvm", ["fpu", "avx512f"], False), ("tcg", ["fpu", "avx512f"], True)],
)
def test_a_guest_that_has_seen_more_of_a_processor_than_is_here_is_refused(
    arrival: In, guest: Guest, monkeypatch: pytest.MonkeyPatch, accelerator: str, seen: list[str], comes: bool
) -> None:
    """With KVM it sees the host's own, and dies of the first instruction that is missing."""

    async def found(_machines: Machines) -> Accelerator:
        return Accelerator(accelerator, "", 1.0)

    monkeypatch.setattr(Machines, "find_accelerator", found)
    monkeypatch.setattr(migration, "_processor_flags", lambda: ["fpu", "sse2"])
    arrival.luggage.update(accelerator=accelerator, processor=seen)
    if comes:
        arrival.run()
    else:
        with pytest.raises(HostError, match="its guest uses the CPU features avx512f, which this host's processor"):
            arrival.run()
    assert (guest.asked == ["receive", "cont"]) == comes


@pytest.mark.parametrize("words", [b"", b"g"])
def test_a_machine_is_given_up_there_when_the_connection_breaks_before_go(
    arrival: In, guest: Guest, words: bytes
) -> None:
    with pytest.raises(HostError, match="the connection broke before the other host said 'go'"):
        arrival.run(words)
    assert guest.asked == ["receive", "power-off"]
    assert arrival.told[-1] == "given-up"


@pytest.mark.parametrize(("error", "given_up"), [(HostError("no lock"), True), (MachineLost("no answer"), False)])
def test_a_machine_that_may_have_run_there_is_not_given_up(
    arrival: In, guest: Guest, daemon: Daemon, error: HostError, given_up: bool
) -> None:
    """If it went on here then, its disk would be ahead of its memory."""
    guest.refusals = [error]
    with pytest.raises(HostError, match=error.sentence):
        arrival.run()
    assert guest.asked == ["receive", "cont", "power-off"]
    assert ("given-up" in arrival.told) == given_up
    assert daemon.system.records()["vm1"].made is None


def _other_storage(arrival: In, _guest: Guest) -> None:
    arrival.marks[0].unlink()


def _other_storage_of_a_further_disk(arrival: In, _guest: Guest) -> None:
    arrival.marks[1].unlink()


def _other_cd(arrival: In, _guest: Guest) -> None:
    arrival.cd.write_bytes(b"CD001" + bytes(6000))


def _other_cd_of_the_same_size(arrival: In, _guest: Guest) -> None:
    arrival.cd.write_bytes(b"CD002" + bytes(5000))


def _no_cd(arrival: In, _guest: Guest) -> None:
    arrival.cd.unlink()


def _raw_turned_qcow2(_arrival: In, guest: Guest) -> None:
    Path(guest.profile.virtual_disks[0].path).write_bytes(b"QFI\xfb" + bytes(600))


def _raw_turned_qcow2_meanwhile(_arrival: In, guest: Guest) -> None:
    guest.formats = ["qcow2", "qcow2"]


@pytest.mark.parametrize(
    ("spoil", "said", "asked"),
    [
        (_other_storage, r"the disk \S+vm1.qcow2 is not on storage that both hosts see", []),
        (_other_storage_of_a_further_disk, r"the disk \S+data.img is not on storage that both hosts see", []),
        (_other_cd, r"the CD \S+ there has other content", []),
        (_other_cd_of_the_same_size, r"the CD \S+ there has other content", []),
        (_no_cd, r"its CD \S+ cannot be read there: No such file", []),
        (_raw_turned_qcow2, r"its disk \S+data.img is used as raw, but its content looks like qcow2", []),
        (
            _raw_turned_qcow2_meanwhile,
            r"its disk \S+data.img is used as raw, but its content looks",
            ["receive", "power-off"],
        ),
    ],
)
def test_a_machine_whose_files_are_not_the_same_is_refused(
    arrival: In, guest: Guest, spoil: Callable[[In, Guest], None], said: str, asked: list[str]
) -> None:
    spoil(arrival, guest)
    with pytest.raises(HostError, match=said):
        arrival.run()
    assert guest.asked == asked


def test_a_machine_that_is_moved_to_where_it_runs_is_refused_at_once(arrival: In, guest: Guest, daemon: Daemon) -> None:
    async def both() -> None:
        daemon.machines.adopt(guest, "vm1.xml")
        moves = Migrations(daemon.machines)
        guest.on_look = lambda: moves.receive(arrival.luggage, lambda event: arrival.told.extend(event))
        async with asyncio.timeout(5):
            await moves.migrate({"machine": "vm1", "host": "localhost"})

    with pytest.raises(HostError, match="it runs on that host already"):
        asyncio.run(both())
    assert arrival.told == []
    assert guest.asked == []


@pytest.mark.parametrize("word", ["pause", "unpause", "reset"])
def test_a_machine_that_moves_is_left_alone(daemon: Daemon, guest: Guest, word: str) -> None:
    """Behind the end of its state's stream it may run elsewhere; after the move it is off here."""

    async def ask() -> None:
        daemon.machines.adopt(guest, "vm1.xml")
        async with daemon.machines.hold("vm1"):
            asking = asyncio.create_task(daemon._do({"do": word, "machine": "vm1"}, lambda _event: None))
            await asyncio.sleep(0.05)
            guest.state_now = MachineState.OFF
        await asking

    with pytest.raises(HostError, match="it is off"):
        asyncio.run(ask())
    assert guest.asked == []


@pytest.mark.parametrize("paused", [False, True])
def test_a_machine_that_moves_within_this_host_stays_as_it_is(
    profile: VMProfile, daemon: Daemon, monkeypatch: pytest.MonkeyPatch, paused: bool
) -> None:
    machine, target = (Guest(profile, daemon.system.directory) for _ in range(2))
    machine.state_now = MachineState.PAUSED if paused else MachineState.RUNNING

    async def start(plan: BootPlan, _and_then: object) -> None:
        assert plan.incoming

    monkeypatch.setattr(target, "_start", start)
    monkeypatch.setattr(target, "_go", target.go_on)
    asyncio.run(machine.migrate(target))
    assert machine.asked == ["leave"]
    assert target.asked == ([] if paused else ["cont"])
