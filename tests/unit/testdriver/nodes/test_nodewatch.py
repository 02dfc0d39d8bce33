"""One node watched from power-on to its login, on a machine that is played: what ends the wait, in which words."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from oscar_steps.errors import FarmError, Finding, HostError, NodeFailed
from oscar_steps.job import Timeouts
from oscar_steps.testdriver.deadline import HostSpeed
from oscar_steps.testdriver.head.check import HeadFacts
from oscar_steps.testdriver.nodes import watch as nodewatch
from oscar_steps.testdriver.nodes.board import NodeBoard, NodeState
from oscar_steps.testdriver.nodes.head_logs import take_dhcp_line, take_rsyncd_line
from oscar_steps.testdriver.nodes.watch import NodeWatch
from oscar_steps.v3m.boot import NO_MEDIA, InstallMedia
from oscar_steps.v3m.machine import DiskFingerprint, Ended, EndReason, MachineState
from oscar_steps.v3m.profiles.vm import BootDevice

MAC = "52:54:00:00:00:11"


class Machine:
    """A machine that does what the test says: `console`, `end`."""

    name = "oscarnode1"

    def __init__(self, directory: Path) -> None:
        self.console = directory / "console" / "oscarnode1.log"
        self.console.parent.mkdir()
        self.console.touch()
        self.disk = DiskFingerprint("blank", 0, False)
        self.boots: asyncio.Queue[bool] = asyncio.Queue()
        self.ended: asyncio.Future[Ended] = asyncio.get_running_loop().create_future()
        self.state = MachineState.RUNNING
        self.written = 0

    async def fingerprint(self) -> DiskFingerprint:
        return self.disk

    async def boot(self, *, install: BootDevice | None = None, media: InstallMedia = NO_MEDIA) -> None:
        assert media.cdrom is None
        self.ended = asyncio.get_running_loop().create_future()
        self.boots.put_nowait(install is not None)

    async def wait_ended(self) -> Ended:
        return await asyncio.shield(self.ended)

    async def bytes_written(self) -> int:
        return self.written

    def say(self, text: str) -> None:
        with self.console.open("a", encoding="utf-8") as file:
            file.write(text + "\n")

    def end(self, reason: EndReason) -> None:
        self.ended.set_result(Ended(reason, 0))

    def install(self) -> None:
        self.disk = DiskFingerprint("full", 1 << 20, True)


class World:
    """What surrounds the watch of one node."""

    def __init__(self, directory: Path, timeouts: Timeouts, facts: HeadFacts | None) -> None:
        self.now = 0.0
        self.board = NodeBoard({"oscarnode1": "10.0.0.2", "oscarnode2": "10.0.0.3"}, lambda: self.now)
        self.board.learn_macs({"oscarnode1": MAC})
        self.node = self.board.nodes["oscarnode1"]
        self.machine = Machine(directory)
        self.alarm: asyncio.Future[FarmError] = asyncio.get_running_loop().create_future()
        self.asked: asyncio.Queue[str] = asyncio.Queue()

        async def look() -> HeadFacts | None:
            return facts

        async def ask(node: Any) -> None:
            self.asked.put_nowait(node.address)

        async def read(_command: str) -> bytes:
            return b""

        self.watch = NodeWatch(
            self.machine, self.board, SimpleNamespace(read=read),  # type: ignore[arg-type]
            SimpleNamespace(look=look), SimpleNamespace(ask=ask),  # type: ignore[arg-type]
            timeouts=timeouts, speed=HostSpeed(0), directory=directory, cd=None, alarm=self.alarm.set_result,
        )  # fmt: skip

    def rsync(self, path: str) -> None:
        take_rsyncd_line(f"2026/01/02 03:04:05 [77] rsync on {path} from UNKNOWN (10.0.0.2)", self.board)

    async def installed(self) -> None:
        """The node goes through a good installation and is started from its disk."""
        await self.machine.boots.get()
        self.rsync("scripts/imaging_complete")
        self.machine.install()
        self.machine.end(EndReason.GUEST_RESET)
        assert await self.machine.boots.get() is False


Play = Callable[[World], Awaitable[None]]
GOOD = HeadFacts()


def played(directory: Path, play: Play, facts: HeadFacts | None = GOOD, **limits: float) -> FarmError:
    """What the watch raised while `play` was going on."""

    async def run() -> FarmError:
        world = World(directory, Timeouts(**limits), facts)
        watch = asyncio.create_task(world.watch.watch())
        try:
            async with asyncio.timeout(10):
                await play(world)
                return await world.alarm
        finally:
            watch.cancel()
            await asyncio.gather(watch, return_exceptions=True)

    return asyncio.run(run())


@pytest.fixture(autouse=True)
def _look_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nodewatch, "LOOK_SECONDS", 0.01)


async def panics_in_mid_pull(world: World) -> None:
    await world.machine.boots.get()
    world.rsync("oscarimage/")
    world.machine.say("[ 9.5] Kernel panic - not syncing: sysrq triggered crash")


async def panics_and_the_hypervisor_says_so_first(world: World) -> None:
    await world.machine.boots.get()
    world.rsync("oscarimage/")
    world.machine.console.write_text("[ 9.5] Kernel panic - not syncing: sysrq triggered crash\n---[ end\n")
    world.machine.end(EndReason.GUEST_PANIC)


async def oopses(world: World) -> None:
    await world.machine.boots.get()
    world.machine.say("BUG: unable to handle page fault for address: 0000000000000008")


async def disk_is_too_small(world: World) -> None:
    await world.machine.boots.get()
    world.rsync("scripts/")
    world.machine.say("The disk /dev/sda has 1536 MB, the partition file asks for 2148 MB.")
    world.machine.say("Killing off running processes.\nInstallation failed!! Stopping report task.")


async def image_has_no_init(world: World) -> None:
    await world.installed()
    world.machine.say("Kernel panic - not syncing: Attempted to kill init! exitcode=0x00000100")


async def is_given_the_other_nodes_address(world: World) -> None:
    await world.machine.boots.get()
    await asyncio.sleep(0)
    take_dhcp_line(f"DHCPACK on 10.0.0.3 to {MAC} via eth1", world.board)


async def reboots_without_a_word(world: World) -> None:
    await world.machine.boots.get()
    world.rsync("scripts/")
    world.machine.end(EndReason.GUEST_RESET)


async def ends_instead_of_coming_up(world: World) -> None:
    await world.installed()
    world.machine.end(EndReason.GUEST_SHUTDOWN)


async def dies_after_it_was_up(world: World) -> None:
    await world.installed()
    world.node.reach(NodeState.UP)
    world.machine.say("Installation failed!!")  # somebody greps for it; a node that is up may say what it likes
    world.machine.say("Kernel panic - not syncing: Fatal exception")


@pytest.mark.parametrize(
    ("play", "sentence"),
    [
        (
            panics_in_mid_pull,
            "kernel panicked while it was pulling its image: [ 9.5] Kernel panic - not syncing: sysrq triggered crash",
        ),
        (
            panics_and_the_hypervisor_says_so_first,
            "kernel panicked while it was pulling its image: [ 9.5] Kernel panic - not syncing: sysrq triggered crash",
        ),
        (oopses, "its kernel oopsed while it was starting its installer: BUG: unable to handle page fault"),
        (
            disk_is_too_small,
            "its installer gave up: The disk /dev/sda has 1536 MB, the partition file asks for 2148 MB.",
        ),
        (
            image_has_no_init,
            "kernel panicked while it was coming up from its disk: Kernel panic - not syncing: Attempted to kill init!",
        ),
        (is_given_the_other_nodes_address, f"oscarnode1 ({MAC}) was given oscarnode2's address 10.0.0.3 by DHCP"),
        (reboots_without_a_word, "its VM ended while it was 'installer booted', and nothing was written to its disk"),
        (ends_instead_of_coming_up, "it was started from its disk and ended (guest-shutdown) instead of coming up"),
        (dies_after_it_was_up, "its kernel panicked while it was up: Kernel panic - not syncing: Fatal exception"),
    ],
)
def test_each_end_is_told_at_once_and_in_its_own_words(play: Play, sentence: str, tmp_path: Path) -> None:
    error = played(tmp_path, play)
    assert isinstance(error, NodeFailed)
    assert sentence in error.sentence
    assert error.oscar_stage == ("complete" if play is dies_after_it_was_up else "barrier")


def test_a_machine_that_the_host_ended_is_the_hosts(tmp_path: Path) -> None:
    async def crash(world: World) -> None:
        await world.machine.boots.get()
        world.machine.end(EndReason.CRASHED)

    error = played(tmp_path, crash)
    assert isinstance(error, HostError) and not isinstance(error, Finding)


def test_a_good_node_is_asked_for_ssh_once_it_runs_from_its_disk(tmp_path: Path) -> None:
    async def good(world: World) -> None:
        await world.installed()
        assert await world.asked.get() == "10.0.0.2"
        world.node.reach(NodeState.ANSWERING)
        world.node.reach(NodeState.UP)
        world.now = 1e6  # a node that is up has no limit
        await asyncio.sleep(0.1)
        assert not world.alarm.done()
        world.machine.end(EndReason.GUEST_SHUTDOWN)

    assert "it was up, and then its VM ended" in played(tmp_path, good).sentence


async def refused_by_rsync(world: World) -> None:
    await world.machine.boots.get()
    world.machine.say(
        "rsync: [Receiver] failed to connect to 10.0.0.1: Connection refused (111)\nrsync of scripts/ failed."
    )
    world.machine.say("Installation failed!! Stopping report task.")


async def no_address(world: World) -> None:
    await world.machine.boots.get()
    world.machine.say("No DHCP server answers on eth0.\nInstallation failed!! Stopping report task.")


async def no_address_though_heard(world: World) -> None:
    await world.machine.boots.get()
    await asyncio.sleep(0)
    take_dhcp_line(f"DHCPDISCOVER from {MAC} via eth1", world.board)
    world.machine.say("No DHCP server answers on eth0.\nInstallation failed!! Stopping report task.")


async def stuck_at_power_on(world: World) -> None:
    await world.machine.boots.get()
    take_dhcp_line("Server starting service.", world.board)
    world.now = 76


@pytest.mark.parametrize(
    ("play", "facts", "words"),
    [
        (refused_by_rsync, HeadFacts(rsync_daemon=False), "; no rsync daemon runs on the head node"),
        (refused_by_rsync, GOOD, "; the rsync daemon on the head node does not answer"),
        (refused_by_rsync, None, "; the rsync daemon on the head node does not answer"),
        (no_address, HeadFacts(dhcp_server=False), "; no answer from DHCP: no DHCP server runs on the head node"),
        (
            no_address_though_heard,
            GOOD,
            f"; no answer from DHCP: the head node's server received a request from {MAC} and did not answer",
        ),
        (stuck_at_power_on, GOOD, f"; the head node's DHCP server runs and has received no request from {MAC}"),
        (stuck_at_power_on, None, "it was 'powered on' for 75 s, waiting for its installer to boot and to ask"),
        (stuck_at_power_on, HeadFacts(full=("/: 100 %",)), "; the head node's disk is full (/: 100 %)"),
    ],
)
def test_what_the_head_node_has_to_do_with_it_is_said(
    play: Play, facts: HeadFacts | None, words: str, tmp_path: Path
) -> None:
    assert words in played(tmp_path, play, facts, node_boot=75).sentence


def test_a_node_that_writes_nothing_while_it_pulls_is_stopped(tmp_path: Path) -> None:
    async def stop(world: World) -> None:
        await world.machine.boots.get()
        world.rsync("oscarimage/")
        world.machine.written = 7_000_000
        while world.watch._written != world.machine.written:  # noqa: ASYNC110 - no event tells
            await asyncio.sleep(0.01)
        world.now = 46.0

    sentence = played(tmp_path, stop).sentence
    assert sentence.startswith("oscarnode1 failed: it stopped in the middle of pulling its image")
    assert "46 s (7 MB so far)" in sentence
