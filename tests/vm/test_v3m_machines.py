"""Real virtual machines, tiny ones: a kernel, and an initrd of busybox that does what its kernel parameters say.

Kernel and busybox are Debian's own packages, fetched once by apt and unpacked in the user's cache directory.
"""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import pytest

from oscar_steps.errors import HostError
from oscar_steps.v3m import ledger, network
from oscar_steps.v3m.accelerator import Accelerator, find_accelerator
from oscar_steps.v3m.cluster import Boot, ClusterProfile, load_cluster
from oscar_steps.v3m.machine import (
    DirectKernel,
    Ended,
    EndReason,
    EventKind,
    ImpossibleTransition,
    InstallFrom,
    InstallMedia,
    MachineEvent,
    MachineState,
)
from oscar_steps.v3m.qemu import QemuMachine
from oscar_steps.v3m.runtime import VirtualCluster

CACHE = Path.home() / ".cache" / "oscar-farm" / "tiny-guest"
SAMPLE = Path(__file__).resolve().parents[2] / "profiles" / "clusters" / "head-and-two-nodes.xml"
LIMIT = 90.0
MODULES = ("virtio_pci", "virtio_net", "virtio_scsi", "sd_mod", "pvpanic-pci")

# $do says what the guest does; machines tell themselves apart by the last byte of their first VLAN NIC's MAC.
INIT = """\
#!/bin/busybox sh
export PATH=/bin
/bin/busybox --install -s /bin
mount -t proc proc /proc; mount -t sysfs sys /sys; mount -t devtmpfs dev /dev
for word in $(cat /proc/cmdline); do case $word in *=*) export "$word" ;; esac; done
for module in $(cat /modules); do insmod "$module"; done
read mac < /sys/class/net/eth${nic:-0}/address
host=$((0x${mac##*:}))
case $do in
    count) while :; do n=$((n + 1)); echo "GUEST counts $n" > /dev/ttyS0; sleep 0.2; done ;;
    sleep) echo "GUEST is up" > /dev/ttyS0; while :; do sleep 1000; done ;;
    reboot) reboot -f ;;
    poweroff) poweroff -f ;;
    panic) echo c > /proc/sysrq-trigger ;;
    install) while ! [ -b /dev/sda ]; do :; done
        printf 'x%509sU\\252' '' | dd of=/dev/sda bs=512 conv=fsync; reboot -f ;;
    ping) [ "$host" = 1 ] && nic=eth1
        ip link set ${nic:-eth0} up; ip address add 10.9.1.$host/16 dev ${nic:-eth0}
        if [ $host = 1 ]; then echo "GUEST is up" > /dev/ttyS0; while :; do sleep 1000; done; fi
        while ! ping -c 1 -w 5 10.9.1.1; do :; done
        ping -c 60 -i 0.2 10.9.1.1 > /dev/ttyS0; echo "GUEST has pinged" > /dev/ttyS0; poweroff -f ;;
    vlan) ip link set eth0 up; ip link set eth1 up; nic=eth0
        [ "$host" = 1 ] && nic=eth1 && host=2
        ip address add 10.9.$net.$host/16 dev $nic
        if [ $host = 2 ]; then echo "GUEST is up" > /dev/ttyS0; while :; do sleep 1000; done; fi
        ping -c 3 -w 20 10.9.$net.2 && echo "GUEST reaches its head node" > /dev/ttyS0
        ping -c 3 -w 3 10.9.$other.2 && echo "GUEST reaches a stranger" > /dev/ttyS0
        poweroff -f ;;
esac
echo "GUEST has nothing to do: $do" > /dev/ttyS0
poweroff -f
"""


def _unpacked() -> Path:
    """Debian's newest cloud kernel and busybox-static, unpacked. Made under another name first: never half of it."""
    if CACHE.is_dir():
        return CACHE
    work = CACHE.with_name(f"{CACHE.name}.{os.getpid()}")
    work.mkdir(parents=True)
    shown = subprocess.run(
        ["apt-cache", "depends", "linux-image-cloud-amd64"], check=True, capture_output=True, text=True
    ).stdout
    kernel = next(line.split()[-1] for line in shown.splitlines() if "Depends: linux-image-" in line)
    subprocess.run(["apt-get", "download", "-qq", kernel, "busybox-static"], check=True, cwd=work)
    for package in work.glob("*.deb"):
        subprocess.run(["dpkg-deb", "-x", package, work], check=True)
        package.unlink()
    work.rename(CACHE)
    return CACHE


def _with_dependencies(modules: dict[str, Path], wanted: Iterable[str]) -> list[Path]:
    """Files of the wanted modules and all that they need, in the order in which they can be loaded.

    A module names what it needs itself; a name without a file is built into the kernel.
    """
    order: list[Path] = []
    for name in wanted:
        path = modules.get(name.replace("-", "_"))
        if path is None or path in order:
            continue
        match = re.search(rb"\0depends=([^\0]*)\0", path.read_bytes())
        needed = match[1].decode().split(",") if match else []
        order += [found for found in _with_dependencies(modules, needed) if found not in order]
        order.append(path)
    return order


@pytest.fixture(scope="session")
def guest(tmp_path_factory: pytest.TempPathFactory) -> DirectKernel:
    """Kernel and initrd of the tiny guest."""
    unpacked = _unpacked()
    kernel = next((unpacked / "boot").glob("vmlinuz-*"))
    tree = tmp_path_factory.mktemp("initrd")
    for folder in ("bin", "proc", "sys", "dev"):
        (tree / folder).mkdir()
    shutil.copy(unpacked / "bin" / "busybox", tree / "bin")
    (tree / "init").write_text(INIT, encoding="ascii")
    (tree / "init").chmod(0o755)
    paths = _with_dependencies({path.stem.replace("-", "_"): path for path in unpacked.rglob("*.ko")}, MODULES)
    for path in paths:
        shutil.copy(path, tree)
    (tree / "modules").write_text("\n".join(path.name for path in paths), encoding="ascii")
    initrd = tree.parent / "initrd.cpio"
    with initrd.open("wb") as file:
        files = "\n".join(str(path.relative_to(tree)) for path in sorted(tree.rglob("*")))
        subprocess.run(
            ["cpio", "--create", "--format=newc", "--quiet"], check=True, cwd=tree, input=files.encode(), stdout=file
        )
    return DirectKernel(kernel, initrd)


@pytest.fixture(scope="session")
def accelerator(guest: DirectKernel, tmp_path_factory: pytest.TempPathFactory) -> Accelerator:
    return asyncio.run(find_accelerator(tmp_path_factory.mktemp("cache"), guest.kernel))


@pytest.fixture
def run_directory(tmp_path: Path) -> Iterator[Path]:
    """A run directory; the test fails when a machine of it is left."""
    yield tmp_path
    assert ledger.end_leftovers(tmp_path) == []


@dataclass
class Farm:
    """Makes clusters of tiny guests and keeps what they told."""

    accelerator: Accelerator
    guest: DirectKernel
    events: list[MachineEvent] = field(default_factory=list)

    def cluster(self, directory: Path, do: str, *, boot: Boot = Boot.CDROM) -> VirtualCluster:
        profile = _tiny(load_cluster(SAMPLE)).with_boot(boot)
        base = directory / "base.raw"
        directory.mkdir(exist_ok=True)
        base.write_bytes(bytes(1 << 20))
        kernel = replace(self.guest, parameters=f"console=ttyS0 quiet panic=-1 {do}")
        return VirtualCluster(profile, directory, self.accelerator, base, on_event=self.events.append, kernel=kernel)

    def kinds(self, machine: str) -> list[EventKind]:
        return [event.kind for event in self.events if event.machine == machine]


def _tiny(cluster: ClusterProfile) -> ClusterProfile:
    """The sample with the memory that a kernel alone needs. MACs end with 01 and 02 (head), 11 and 12 (nodes)."""
    head = replace(cluster.head, memory_mib=192, cpu=1)
    return replace(cluster, head=head, nodes=tuple(replace(node, memory_mib=192) for node in cluster.nodes))


@pytest.fixture
def farm(accelerator: Accelerator, guest: DirectKernel) -> Farm:
    return Farm(accelerator, guest)


async def _until(condition: Callable[[], bool], seconds: float = LIMIT) -> None:
    """For what can only be looked at, again and again."""
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 - a file sends no event
            await asyncio.sleep(0.05)


def _says(console: Path, words: bytes) -> bool:
    return words in console.read_bytes()


def _run(farm: Farm, directory: Path, do: str, *, install: bool = False) -> Ended:
    """Boot the head node (on which nothing hangs) until it ends."""

    async def scenario() -> Ended:
        cluster = farm.cluster(directory, do)
        await cluster.create()
        try:
            await cluster.head.boot(
                install=InstallFrom.CDROM if install else None, media=InstallMedia(directory / "base.raw")
            )
            async with asyncio.timeout(LIMIT):
                return await cluster.head.wait_ended()
        finally:
            await cluster.power_off()

    return asyncio.run(scenario())


def test_the_accelerator_is_tried_and_the_answer_kept(guest: DirectKernel, tmp_path: Path) -> None:
    first = asyncio.run(find_accelerator(tmp_path, guest.kernel))
    assert first.seconds > 0.1
    begin = time.monotonic()
    assert asyncio.run(find_accelerator(tmp_path, guest.kernel)) == first
    assert time.monotonic() - begin < 1.0


def test_a_guest_that_powers_itself_off_ends_by_itself(farm: Farm, run_directory: Path) -> None:
    assert _run(farm, run_directory, "do=poweroff").reason is EndReason.GUEST_SHUTDOWN
    assert farm.kinds("oscar-headnode") == [EventKind.STARTED, EventKind.GUEST_SHUTDOWN, EventKind.ENDED]


def test_a_panic_is_told_and_pictured_and_ends_the_machine(farm: Farm, run_directory: Path) -> None:
    assert _run(farm, run_directory, "do=panic").reason is EndReason.GUEST_PANIC
    assert EventKind.PANICKED in farm.kinds("oscar-headnode")
    assert (run_directory / "screens" / "oscar-headnode-panic.png").read_bytes().startswith(b"\x89PNG")
    assert "sysrq triggered crash" in (run_directory / "console" / "oscar-headnode.log").read_text(errors="replace")


def test_an_install_boot_ends_with_the_reboot_and_leaves_a_bootable_disk(farm: Farm, run_directory: Path) -> None:
    async def scenario() -> None:
        cluster = farm.cluster(run_directory, "do=install")
        node = cluster.nodes[0]
        await cluster.create()
        blank = await node.fingerprint()
        assert not blank.bootable
        try:
            await cluster.head.boot()
            await node.boot(install=InstallFrom.CDROM, media=InstallMedia(run_directory / "base.raw"))
            with pytest.raises(ImpossibleTransition, match="oscarnode1 cannot be booted: it is running"):
                await node.boot()
            async with asyncio.timeout(LIMIT):
                ended = await node.wait_ended()
        finally:
            await cluster.power_off()
        assert ended.by_guest
        assert ended.reason is EndReason.GUEST_RESET
        installed = await node.fingerprint()
        assert installed.bootable
        assert installed.first_mib_sha256 != blank.first_mib_sha256
        assert node.cpu_seconds() > 0.1

    asyncio.run(scenario())


def test_a_reboot_in_place_is_told_once_and_the_machine_goes_on(farm: Farm, run_directory: Path) -> None:
    async def scenario() -> None:
        cluster = farm.cluster(run_directory, "do=reboot")
        await cluster.create()
        try:
            await cluster.head.boot()
            await _until(lambda: EventKind.GUEST_RESET in farm.kinds("oscar-headnode"))
            assert await cluster.head.status() is MachineState.RUNNING
            await cluster.head.pause()
            assert await cluster.head.status() is MachineState.PAUSED
            await cluster.head.unpause()
            assert farm.kinds("oscar-headnode").count(EventKind.GUEST_RESET) == 1
        finally:
            await cluster.destroy()
        assert (await cluster.head.wait_ended()).reason is EndReason.HOST_POWER_OFF
        assert not list((run_directory / "disks").iterdir())

    asyncio.run(scenario())


def test_a_machine_that_somebody_kills_is_told_as_such(farm: Farm, run_directory: Path) -> None:
    async def scenario() -> None:
        cluster = farm.cluster(run_directory, "do=sleep")
        await cluster.create()
        await cluster.head.boot()
        pid = cluster.head.pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        ended = await cluster.head.wait_ended()
        assert (ended.reason, ended.exit_status) == (EndReason.HOST_SIGNAL, -signal.SIGKILL)
        assert farm.kinds("oscar-headnode")[-1] is EventKind.ENDED
        await cluster.head.boot()  # and it can be started again
        assert cluster.head.state is MachineState.RUNNING
        await cluster.destroy()

    asyncio.run(scenario())


def test_a_node_is_not_started_before_its_head_node(farm: Farm, run_directory: Path) -> None:
    async def scenario() -> None:
        cluster = farm.cluster(run_directory, "do=sleep")
        await cluster.create()
        with pytest.raises(
            ImpossibleTransition, match="oscarnode1 cannot be booted: oscar-headnode, which holds its VLAN, is off"
        ):
            await cluster.nodes[0].boot()
        assert cluster.nodes[0].state is MachineState.OFF

    asyncio.run(scenario())


def test_clusters_side_by_side_with_the_same_macs_do_not_see_each_other(farm: Farm, run_directory: Path) -> None:
    async def scenario() -> None:
        clusters = [
            farm.cluster(run_directory / name, f"do=vlan net={own} other={other}")
            for name, own, other in (("a", 1, 2), ("b", 2, 1))
        ]
        try:
            for cluster in clusters:
                await cluster.create()
                await cluster.head.boot()
            ports = {cluster.head.ssh_endpoint() for cluster in clusters}
            assert len(ports) == 2
            for cluster in clusters:
                await _until(partial(_says, cluster.head.console, b"GUEST is up"))
            for cluster in clusters:
                await cluster.nodes[0].boot()
            async with asyncio.timeout(LIMIT):
                ends = [await cluster.nodes[0].wait_ended() for cluster in clusters]
        finally:
            await asyncio.gather(*(cluster.destroy() for cluster in clusters))
        assert [ended.reason for ended in ends] == [EndReason.GUEST_SHUTDOWN] * 2
        for cluster in clusters:
            console = cluster.nodes[0].console.read_text(errors="replace")
            assert "GUEST reaches its head node" in console
            assert "GUEST reaches a stranger" not in console

    asyncio.run(scenario())


def _counted(console: Path) -> list[int]:
    return [int(number) for number in re.findall(rb"GUEST counts (\d+)", console.read_bytes())]


def test_a_saved_machine_goes_on_where_it_was(farm: Farm, run_directory: Path) -> None:
    async def scenario() -> None:
        cluster = farm.cluster(run_directory, "do=count")
        head, state = cluster.head, run_directory / "state" / "head"
        await cluster.create()
        try:
            await head.boot()
            await _until(lambda: len(_counted(head.console)) > 3)
            await head.save(state)
            assert head.state is MachineState.OFF
            assert (await head.wait_ended()).reason is EndReason.SAVED
            before = len(_counted(head.console))
            await head.restore(state)
            assert await head.status() is MachineState.RUNNING
            await _until(lambda: len(_counted(head.console)) > before + 3)
        finally:
            await cluster.destroy()
        counted = _counted(head.console)
        assert counted == list(range(1, len(counted) + 1))  # it has neither rebooted nor skipped anything
        assert EventKind.PAUSED not in farm.kinds("oscar-headnode")

    asyncio.run(scenario())


def test_a_machine_runs_on_where_its_state_cannot_be_written(farm: Farm, run_directory: Path) -> None:
    async def scenario(full: int) -> None:
        cluster = farm.cluster(run_directory, "do=count")
        await cluster.create()
        try:
            await cluster.head.boot()
            await _until(lambda: len(_counted(cluster.head.console)) > 3)
            assert isinstance(cluster.head, QemuMachine)
            with pytest.raises(HostError, match=r"oscar-headnode could not be saved: .*No space left"):
                await cluster.head._send_state(full, EndReason.SAVED, stop_first=True)
            with pytest.raises(HostError, match=r"oscar-headnode cannot be saved: \S+ is no file"):
                await cluster.head.save(run_directory)
            before = len(_counted(cluster.head.console))
            await _until(lambda: len(_counted(cluster.head.console)) > before + 3)
            (run_directory / "rubbish").write_bytes(bytes(4096))
            await cluster.head.power_off()
            with pytest.raises(HostError, match=r"the state of oscar-headnode could not be taken over"):
                await cluster.head.restore(run_directory / "rubbish")
            assert cluster.head.state is MachineState.OFF
        finally:
            await cluster.destroy()

    with Path("/dev/full").open("wb") as full:
        asyncio.run(scenario(full.fileno()))


def test_a_machine_that_migrates_keeps_its_connections(farm: Farm, run_directory: Path) -> None:
    """Two directories stand for two hosts that share the disk and the VLAN."""

    async def scenario() -> None:
        cluster = farm.cluster(run_directory / "here", "do=ping")
        source = cluster.nodes[0]
        there = run_directory / "there"
        there.mkdir()
        (there / "vlan").symlink_to(run_directory / "here" / "vlan")
        (there / "disks").symlink_to(run_directory / "here" / "disks")
        assert isinstance(source, QemuMachine)
        target = QemuMachine(
            source.profile, there, farm.accelerator, network.plan(cluster.profile)[source.name],
            head=cluster.head, on_event=farm.events.append, kernel=farm.guest,
        )  # fmt: skip
        await cluster.create()
        try:
            await cluster.head.boot()
            await _until(partial(_says, cluster.head.console, b"GUEST is up"))
            await source.boot()
            await _until(lambda: source.console.exists() and b"seq=10 " in source.console.read_bytes())
            await source.migrate(target)
            assert (await source.wait_ended()).reason is EndReason.MIGRATED
            async with asyncio.timeout(LIMIT):
                assert (await target.wait_ended()).reason is EndReason.GUEST_SHUTDOWN
        finally:
            await target.power_off()
            await cluster.destroy()
        received = re.search(rb"(\d+) packets received", target.console.read_bytes())
        assert received
        assert int(received[1]) >= 57

    asyncio.run(scenario())


def test_a_blank_disk_falls_through_to_the_cd(farm: Farm, run_directory: Path) -> None:
    """With firmware, without a kernel from outside: the CD's boot loader starts the installer."""
    tree = run_directory / "cd"
    tree.mkdir()
    assert farm.guest.initrd is not None
    for source in (
        Path("/usr/lib/ISOLINUX/isolinux.bin"),
        Path("/usr/lib/syslinux/modules/bios/ldlinux.c32"),
    ):
        shutil.copy(source, tree)
    shutil.copy(farm.guest.kernel, tree / "vmlinuz")
    shutil.copy(farm.guest.initrd, tree / "initrd")
    (tree / "isolinux.cfg").write_text(
        "DEFAULT x\nLABEL x\nKERNEL vmlinuz\nAPPEND initrd=initrd console=ttyS0 quiet do=install\n", encoding="ascii"
    )
    iso = run_directory / "cd.iso"
    options = ["-o", str(iso), "-b", "isolinux.bin", "-c", "boot.cat"]
    options += ["-no-emul-boot", "-boot-load-size", "4", "-boot-info-table", str(tree)]
    subprocess.run(["genisoimage", "-quiet", *options], check=True, capture_output=True)

    async def scenario() -> None:
        profile = _tiny(load_cluster(SAMPLE))
        base = run_directory / "base.raw"
        base.write_bytes(bytes(1 << 20))
        cluster = VirtualCluster(profile, run_directory, farm.accelerator, base, on_event=farm.events.append)
        node = cluster.nodes[0]
        await cluster.create()
        try:
            await cluster.head.boot()
            await node.boot(install=InstallFrom.CDROM, media=InstallMedia(iso))
            async with asyncio.timeout(LIMIT):
                assert (await node.wait_ended()).reason is EndReason.GUEST_RESET
            assert (await node.fingerprint()).bootable
        finally:
            await cluster.destroy()

    asyncio.run(scenario())


def test_nothing_outlives_a_kill_of_the_runs_process(farm: Farm, run_directory: Path) -> None:
    program = textwrap.dedent(f"""
        import asyncio, sys
        from pathlib import Path
        from oscar_steps.v3m.accelerator import Accelerator
        from oscar_steps.v3m.cluster import load_cluster
        from oscar_steps.v3m.runtime import VirtualCluster

        async def main() -> None:
            directory = Path({str(run_directory)!r})
            profile = load_cluster(Path({str(SAMPLE)!r}))
            accelerator = Accelerator({farm.accelerator.name!r}, "", 2.0)
            cluster = VirtualCluster(profile, directory, accelerator, directory / "b")
            await cluster.create()
            for machine in cluster.machines:
                await machine.boot()
            print("booted", flush=True)
            await cluster.head.wait_ended()

        asyncio.run(main())
        """)
    (run_directory / "b").write_bytes(bytes(1 << 20))
    root = Path(__file__).resolve().parents[2]
    with subprocess.Popen([sys.executable, "-c", program], cwd=root, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "booted\n"
        assert len(ledger.find_leftovers(run_directory)) == 3
        process.kill()
    asyncio.run(_until(lambda: ledger.find_leftovers(run_directory) == [], seconds=1.0))
