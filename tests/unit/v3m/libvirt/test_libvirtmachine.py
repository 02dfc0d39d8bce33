"""Machines of libvirt's, with a virsh of ours: what its events mean, what is refused, what is undone."""

from __future__ import annotations

import asyncio
import os
import pty
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from oscar_steps.errors import HostError, ImpossibleTransition, NotOffered, ProfileError
from oscar_steps.v3m.boot import NO_MEDIA, DirectKernel, InstallMedia, oscar_medium
from oscar_steps.v3m.host import ledger
from oscar_steps.v3m.host.accelerator import Accelerator
from oscar_steps.v3m.libvirt import guard as libvirtguard
from oscar_steps.v3m.libvirt.client import LifecycleEvent, parse_event
from oscar_steps.v3m.libvirt.guard import Guard, domain_uuid, saved_uuid
from oscar_steps.v3m.libvirt.machine import LibvirtMachine, cpu_time
from oscar_steps.v3m.machine import Ended, EndReason, EventKind, Machine, MachineEvent, MachineState
from oscar_steps.v3m.profiles.cluster import ClusterProfile
from oscar_steps.v3m.profiles.vm import BootDevice, DiskImage, Hypervisor, Nic, VMProfile
from oscar_steps.v3m.runtime import VirtualCluster

LIMIT = 20.0
TCG = Accelerator("tcg", "tried", 2.0)
NODE = VMProfile("node", "Xen", DiskImage("node.qcow2", 16), nics=(Nic("VLAN", "52:54:00:00:00:11"),))
KERNEL = DirectKernel(Path("/k"), Path("/i"), "console=hvc0")

# libvirt, as far as its client tells: events come out of a file that everybody appends to.
VIRSH = """\
#!/bin/sh
cd {directory}; shift 3
tell() {{ echo "2026-11-22 23:41:00.122+0000: event 'lifecycle' for domain '$(cat name)': $*" >> events; }}
here() {{ [ -e state ] || {{ echo "error: failed to get domain '$1'" >&2; exit 1; }}; }}
echo "$*" >> asked
case $1 in
    event) exec tail -n +1 -f events ;;
    create) sed -n 's:.*<name>\\(.*\\)</name>.*:\\1:p' $2 > name; echo paused > state; tell Started Booted ;;
    resume) echo running > state; tell Resumed Unpaused ;;
    suspend) echo paused > state; tell Suspended Paused ;;
    destroy) here $2; rm state; tell Stopped Destroyed ;;
    save) rm state; tell Stopped Saved ;;
    domstate) here $2; cat state ;;
    net-create) touch bridge ;;
    net-destroy) rm bridge ;;
    dominfo) echo 'CPU time:       1.5s' ;;
    ttyconsole) cat tty ;;
    console) echo "GUEST speaks"; exec sleep 1000 ;;
    *) echo "error: no such command here: $1" >&2; exit 1 ;;
esac
"""


class Libvirt:
    """What the test does to the machine from the other side."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.console = 0
        (directory / "events").touch()

    def give_console(self) -> None:
        """The guest's console is a terminal of this host's, and the guest has said something there."""
        self.console, guests = pty.openpty()
        (self.directory / "tty").write_text(os.ttyname(guests), encoding="ascii")
        os.write(self.console, b"GUEST speaks\n")

    def tell(self, words: str, state: str | None) -> None:
        """An event, and what `domstate` says from then on (None: that there is no such machine)."""
        file = self.directory / "state"
        if state is None:
            file.unlink(missing_ok=True)
        else:
            file.write_text(state, encoding="ascii")
        name = (self.directory / "name").read_text(encoding="ascii").strip()
        with (self.directory / "events").open("a", encoding="ascii") as events:
            events.write("event 'lifecycle' for domain 'other': Stopped Destroyed\n")
            events.write(f"2026: event 'lifecycle' for domain '{name}': {words}\n")

    @property
    def asked(self) -> list[str]:
        return (self.directory / "asked").read_text(encoding="ascii").splitlines()


@pytest.fixture
def libvirt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Libvirt]:
    directory = tmp_path / "libvirt"
    directory.mkdir()
    virsh = directory / "virsh"
    virsh.write_text(VIRSH.format(directory=directory), encoding="ascii")
    virsh.chmod(0o755)
    monkeypatch.setenv("PATH", f"{directory}:{os.environ['PATH']}")
    libvirt = Libvirt(directory)
    libvirt.give_console()
    yield libvirt
    os.close(libvirt.console)


def machine(directory: Path, events: list[MachineEvent] | None = None, kernel: DirectKernel | None = KERNEL) -> Machine:
    (directory / "node.qcow2").touch()
    listener = None if events is None else events.append
    return LibvirtMachine(NODE, directory, on_event=listener, kernel=kernel)


def play(
    directory: Path, act: Callable[[Machine], Awaitable[object]], install: BootDevice | None = None
) -> tuple[Ended, list[EventKind]]:
    """Boot, let `act` happen, and wait for the end: how it ended, and what was told."""
    events: list[MachineEvent] = []

    async def scenario() -> Ended:
        node = machine(directory, events)
        await node.boot(install=install)
        await act(node)
        async with asyncio.timeout(LIMIT):
            ended = await node.wait_ended()
        assert node.state is await node.status() is MachineState.OFF
        assert node.console.read_bytes().startswith(b"GUEST speaks\n")
        return ended

    ended = asyncio.run(scenario())
    assert ledger.find_leftovers(directory) == []
    return ended, [event.kind for event in events]


@pytest.mark.parametrize(
    ("line", "event"),
    [
        (
            "2026-11-22 23:41:00.122+0000: event 'lifecycle' for domain 'a-b.1': Started Booted",
            LifecycleEvent("a-b.1", "Started", "Booted"),
        ),
        ("event 'lifecycle' for domain 'x': Crashed Panicked\r", LifecycleEvent("x", "Crashed", "Panicked")),
        ("event 'lifecycle' for domain 'x': Stopped", LifecycleEvent("x", "Stopped", "")),
        ("event 'lifecycle' for domain 'it's': Stopped Failed", LifecycleEvent("it's", "Stopped", "Failed")),
        ("event 'reboot' for domain 'x'", None),
        ("error: Disconnected from xen:///system due to end of file", None),
    ],
)
def test_a_line_of_virsh_event_is_read(line: str, event: LifecycleEvent | None) -> None:
    assert parse_event(line) == event


@pytest.mark.parametrize(
    ("words", "state", "install", "reason", "told"),
    [
        ("Stopped Shutdown", None, None, EndReason.GUEST_SHUTDOWN, [EventKind.GUEST_SHUTDOWN]),
        ("Stopped Shutdown", None, BootDevice.NETWORK, EndReason.GUEST_SHUTDOWN, [EventKind.GUEST_SHUTDOWN]),
        ("Stopped Shutdown", "shut off", BootDevice.NETWORK, EndReason.GUEST_RESET, [EventKind.GUEST_RESET]),
        ("Stopped Crashed", "crashed", None, EndReason.GUEST_PANIC, [EventKind.PANICKED]),
        ("Stopped Destroyed", None, None, EndReason.HOST_SIGNAL, []),
        ("Stopped Failed", None, None, EndReason.CRASHED, []),
    ],
)
def test_how_a_machine_ended(
    libvirt: Libvirt, tmp_path: Path, words: str, state: str | None, install: BootDevice | None,
    reason: EndReason, told: list[EventKind],
) -> None:  # fmt: skip
    async def act(_: Machine) -> None:
        libvirt.tell(words, state)

    ended, kinds = play(tmp_path, act, install)
    assert ended.reason is reason
    assert kinds == [EventKind.STARTED, *told, EventKind.ENDED]
    assert not (libvirt.directory / "state").exists(), "what the hypervisor has kept has to be ended"
    assert not (libvirt.directory / "bridge").exists()


def test_a_reboot_in_place_is_reported_and_the_machine_goes_on_with_its_console(
    libvirt: Libvirt, tmp_path: Path
) -> None:
    async def act(node: Machine) -> None:
        libvirt.tell("Started Booted", "running")
        libvirt.tell("Stopped Shutdown", "running")
        console = f"ttyconsole {domain_uuid(tmp_path, 'node')}"
        while libvirt.asked.count(console) < 2:  # noqa: ASYNC110 - a file sends no event
            await asyncio.sleep(0.02)
        assert node.state is MachineState.RUNNING
        await node.power_off()

    ended, kinds = play(tmp_path, act)
    assert ended.reason is EndReason.HOST_POWER_OFF
    assert kinds == [EventKind.STARTED, EventKind.GUEST_RESET, EventKind.ENDED]


def test_a_console_that_cannot_be_read_here_is_passed_on_by_libvirt(libvirt: Libvirt, tmp_path: Path) -> None:
    (libvirt.directory / "tty").write_text("/dev/null", encoding="ascii")

    async def act(node: Machine) -> None:
        while not node.console.exists():  # noqa: ASYNC110 - a file sends no event
            await asyncio.sleep(0.02)
        await node.power_off()

    play(tmp_path, act)
    assert f"console --force {domain_uuid(tmp_path, 'node')}" in libvirt.asked


@pytest.mark.usefixtures("libvirt")
def test_pause_and_unpause_are_reported_by_libvirt(tmp_path: Path) -> None:
    async def act(node: Machine) -> None:
        await node.pause()
        assert await node.status() is MachineState.PAUSED
        await node.unpause()
        assert await node.status() is MachineState.RUNNING
        with pytest.raises(ImpossibleTransition, match="node cannot be booted: it is"):
            await node.boot()
        await node.power_off()
        assert node.cpu_seconds() == 1.5
        with pytest.raises(ImpossibleTransition, match="node cannot do 'suspend': it is off"):
            await node.pause()

    _, kinds = play(tmp_path, act)
    assert kinds == [EventKind.STARTED, EventKind.PAUSED, EventKind.RESUMED, EventKind.ENDED]


def test_a_machine_whose_events_stop_is_ended_and_called_crashed(libvirt: Libvirt, tmp_path: Path) -> None:
    async def act(node: Machine) -> None:
        assert isinstance(node, LibvirtMachine) and node._events is not None and node._events._child is not None
        assert node._events._child._process is not None
        os.killpg(node._events._child._process.pid, signal.SIGKILL)

    ended, _ = play(tmp_path, act)
    assert ended.reason is EndReason.CRASHED
    assert not (libvirt.directory / "state").exists()


def test_a_start_that_libvirt_refuses_leaves_nothing(libvirt: Libvirt, tmp_path: Path) -> None:
    script = libvirt.directory / "virsh"
    script.write_text(
        script.read_text(encoding="ascii").replace("    create)", "    create) exit 1 ;; x)"), encoding="ascii"
    )

    async def scenario() -> None:
        node = machine(tmp_path)
        with pytest.raises(HostError, match="refuses virsh create"):
            await node.boot()
        assert node.state is MachineState.OFF

    asyncio.run(scenario())
    assert ledger.find_leftovers(tmp_path) == []


@pytest.mark.parametrize(
    ("act", "sentence"),
    [
        (lambda node: node.reset(), "node is a para-virtual Xen guest, which libvirt cannot reset"),
        (lambda node: node.screenshot(Path("x.png")), "node is a para-virtual Xen guest, which has no screen"),
        (lambda node: node.insert_cd(Path("/dev/null")), "node is a para-virtual Xen guest, whose drive"),
        (lambda node: node.eject_cd(), "node is a para-virtual Xen guest, whose drive"),
        (
            lambda node: node.boot(install=BootDevice.CDROM, media=InstallMedia(Path("x.iso"))),
            "node is a para-virtual Xen guest, which has no firmware to boot a CD with",
        ),
        (lambda node: node.migrate(node), "it only migrates to another host"),
    ],
)
def test_what_a_para_virtual_guest_cannot_do_is_refused(
    libvirt: Libvirt, tmp_path: Path, act: Callable[[Machine], Awaitable[None]], sentence: str
) -> None:
    with pytest.raises(NotOffered) as caught:
        asyncio.run(_await(act(machine(tmp_path))))
    assert sentence in caught.value.sentence
    assert not (libvirt.directory / "asked").exists()


def test_a_vmware_guest_is_defined_and_not_run(tmp_path: Path) -> None:
    node = LibvirtMachine(replace(NODE, type="VMWare", image=DiskImage("node.vmdk", 16)), tmp_path)
    for ask in (node.create, node.boot):
        with pytest.raises(
            NotOffered, match=r"node is a VMware guest, which can be defined .* but not run: .*; set the"
        ):
            asyncio.run(_await(ask()))


async def _await(something: Awaitable[None]) -> None:
    await something


@pytest.mark.usefixtures("libvirt")
def test_a_para_virtual_guest_is_installed_by_the_installers_kernel(tmp_path: Path) -> None:
    with pytest.raises(ProfileError, match="which has no firmware to ask the network for its installer: name the"):
        asyncio.run(machine(tmp_path, kernel=None).boot(install=oscar_medium(replace(NODE, type="Xen"), NO_MEDIA)))
    node = machine(tmp_path, kernel=None)
    assert isinstance(node, LibvirtMachine)
    plan = node._boot_plan(oscar_medium(node.profile, InstallMedia(kernel=KERNEL)), InstallMedia(kernel=KERNEL))
    assert plan.kernel is not None
    assert plan.kernel.kernel == KERNEL.kernel
    assert plan.kernel.parameters.split() == ["console=hvc0", "xen_legacy_crash"]


# --- guards ----------------------------------------------------------------------------------------------------------


def _until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + LIMIT
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_a_guard_undoes_when_its_owner_is_killed(tmp_path: Path) -> None:
    undone = tmp_path / "undone"
    program = textwrap.dedent(f"""
        import asyncio, sys, time
        from pathlib import Path
        from oscar_steps.v3m.libvirt.guard import Guard
        async def main():
            guard = await Guard.start(Path({str(tmp_path)!r}), "node", ["touch", {str(undone)!r}])
            print(guard.pid, flush=True)
            time.sleep(1000)
        asyncio.run(main())
        """)
    root = Path(__file__).resolve().parents[4]
    with subprocess.Popen([sys.executable, "-c", program], cwd=root, stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout is not None
        guard = int(owner.stdout.readline())
        os.kill(guard, signal.SIGTERM)  # a service manager says it to all: no reason to go
        assert [entry.pid for entry in ledger.find_leftovers(tmp_path)] == [guard]
        assert not undone.exists()
        owner.kill()
    _until(undone.exists)
    _until(lambda: ledger.find_leftovers(tmp_path) == [])


def test_a_guard_that_is_released_undoes_nothing(tmp_path: Path) -> None:
    async def scenario() -> None:
        guard = await Guard.start(tmp_path, "node", ["touch", str(tmp_path / "undone")])
        await guard.release()

    asyncio.run(scenario())
    assert not (tmp_path / "undone").exists()
    assert ledger.end_leftovers(tmp_path) == []


def test_what_a_killed_guard_has_guarded_is_undone_by_the_next_command(tmp_path: Path) -> None:
    async def scenario() -> int:
        guard = await Guard.start(tmp_path, "node", ["mv", str(tmp_path / "machine"), str(tmp_path / "gone")])
        os.kill(guard.pid, signal.SIGKILL)
        await guard._process.wait()
        return guard.pid

    (tmp_path / "machine").touch()
    guard = asyncio.run(scenario())
    assert [entry.pid for entry in ledger.end_leftovers(tmp_path)] == [guard]
    assert (tmp_path / "gone").exists()
    assert ledger.end_leftovers(tmp_path) == []


# --- what is read ----------------------------------------------------------------------------------------------------


def test_a_state_says_whose_it_is(tmp_path: Path) -> None:
    definition = f"<domain type='xen'><name>x</name><uuid>{domain_uuid(tmp_path, 'node')}</uuid></domain>".encode()
    header = b"libvirt-xml\n \0 \r" + (2).to_bytes(4, "little") + len(definition).to_bytes(4, "little") + bytes(40)
    state = tmp_path / "state"
    state.write_bytes(header + definition + b"memory <uuid>other</uuid>")
    assert saved_uuid(state) == domain_uuid(tmp_path, "node")
    for rubbish in (b"", bytes(4096), header[:20]):
        state.write_bytes(rubbish)
        assert saved_uuid(state) is None


def test_a_state_of_another_machine_is_not_restored(libvirt: Libvirt, tmp_path: Path) -> None:
    (tmp_path / "state").write_bytes(bytes(4096))
    with pytest.raises(HostError, match=r"the state of node could not be taken over: \S+ is not a saved state"):
        asyncio.run(machine(tmp_path).restore(tmp_path / "state"))
    assert not (libvirt.directory / "asked").exists()


def test_machines_of_two_runs_have_different_names_and_uuids(tmp_path: Path) -> None:
    runs = [tmp_path / "a", tmp_path / "b"]
    assert len({libvirtguard.scope_of(run) for run in runs}) == 2
    assert len({domain_uuid(run, name) for run in runs for name in ("node", "head")}) == 4


def test_cpu_time_is_read_from_dominfo() -> None:
    assert cpu_time("State:          running\nCPU(s):         1\nCPU time:       77.5s\n") == 77.5
    assert cpu_time("no such line") == 0.0


def _cluster_of(*types: Hypervisor) -> ClusterProfile:
    head, *nodes = (
        replace(NODE, name=f"vm{number}", type=kind, nics=(Nic("VLAN", f"52:54:00:00:00:{number:02x}"),))
        for number, kind in enumerate(types)
    )
    return ClusterProfile("c", head, tuple(nodes))


def test_a_clusters_vlan_is_one_bridge_that_comes_and_goes_with_it(libvirt: Libvirt, tmp_path: Path) -> None:
    async def scenario() -> None:
        cluster = VirtualCluster(_cluster_of("Xen", "Xen", "XenHVM"), tmp_path, TCG, None, kernel=KERNEL)
        try:
            await cluster.create()
            assert (libvirt.directory / "bridge").exists()
            assert all((tmp_path / machine.profile.image.path).is_file() for machine in cluster.machines)
            await cluster.nodes[0].boot()
            assert cluster.nodes[0].state is MachineState.RUNNING
        finally:
            await cluster.destroy()
        assert not (libvirt.directory / "bridge").exists()

    asyncio.run(scenario())
    assert [words.split()[0] for words in libvirt.asked].count("net-create") == 1
    assert ledger.find_leftovers(tmp_path) == []


def test_a_cluster_of_two_hypervisors_is_refused_before_anything_is_made(tmp_path: Path) -> None:
    with pytest.raises(ProfileError, match="the cluster c has machines of QEMU and of libvirt, which cannot share"):
        VirtualCluster(_cluster_of("Qemu", "Xen"), tmp_path, TCG, None)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("ending", "magic"), [("qcow2", b"QFI\xfb"), ("img", bytes(4))])
def test_a_xen_disk_is_made_as_what_its_definition_takes_it_for(tmp_path: Path, ending: str, magic: bytes) -> None:
    node = LibvirtMachine(replace(NODE, image=DiskImage(f"node.{ending}", 16)), tmp_path)
    asyncio.run(node.create())
    assert node.disk.read_bytes()[:4] == magic


def test_an_overlay_for_xen_has_to_say_what_it_is(tmp_path: Path) -> None:
    (tmp_path / "base").touch()
    node = LibvirtMachine(replace(NODE, image=DiskImage("node.img", 16)), tmp_path, base_image=tmp_path / "base")
    with pytest.raises(ProfileError, match=r"node\.img, is an overlay: its name has to end in \.qcow2"):
        asyncio.run(node.create())
