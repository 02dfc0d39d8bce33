"""The conformance suite: what every back-end's machines do, tried on real ones. Back-ends' tests inherit it.

Some tests try several operations on one machine, since a boot costs seconds.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
import zlib
from pathlib import Path

import pytest

from oscar_steps.errors import HostError, ImpossibleTransition
from oscar_steps.v3m.boot import DirectKernel, InstallMedia, oscar_medium
from oscar_steps.v3m.machine import EndReason, EventKind, Machine, MachineState
from oscar_steps.v3m.profiles.vm import BootDevice
from tests.vm.conformance_rig import GUEST_CASES, GUEST_MODULES, HEAD, NODE, Rig, Wanted, own_process, proves
from tests.vm.tiny_guest import counted, make_cd, make_guest, parameters


class MachineConformance:
    """The operations of the interface `Machine`, and what each promises."""

    @proves("definition")
    async def test_the_profile_with_another_type_is_a_machine_of_it(self, rig: Rig) -> None:
        with rig.trying("definition"):
            machine = rig.machine("do=poweroff")
            assert machine.profile.type == rig.backend.type
            assert machine.state is MachineState.OFF

    @proves("create a blank disk", "create refuses to overwrite", "create an overlay on an image", "disk fingerprint")
    async def test_disks(self, rig: Rig) -> None:
        blank = rig.machine("do=poweroff")
        with rig.trying("create a blank disk"):
            await blank.create()
        with rig.trying("create refuses to overwrite"), pytest.raises(HostError, match="is there already"):
            await blank.create()
        before = await blank.fingerprint()
        await blank.destroy()

        base = rig.directory / "base.raw"
        base.write_bytes(bytes(510) + b"\x55\xaa" + bytes(1 << 20))
        overlay = rig.machine("do=poweroff", base)
        with rig.trying("create an overlay on an image"):
            await overlay.create()
        with rig.trying("disk fingerprint"):
            after = await overlay.fingerprint()
            assert (before.bootable, after.bootable) == (False, True)
            assert before.first_mib_sha256 != after.first_mib_sha256

    @proves(
        "boot", "status", "console", "screenshot", "pause, unpause", "reset", "impossible transitions",
        "power off", "destroy",
    )  # fmt: skip
    async def test_a_life(self, rig: Rig) -> None:
        machine = rig.machine("do=life")
        await machine.create()
        disk = rig.directory / machine.profile.image.path
        assert disk.is_file()
        with rig.trying("boot"):
            await machine.boot()
            assert rig.kinds(machine) == [EventKind.STARTED]
            await rig.says(machine, "GUEST counts 3")
        with rig.trying("status"):
            assert await machine.status() is MachineState.RUNNING
        with rig.trying("screenshot"):
            await machine.screenshot(rig.directory / "screen.png")
            assert _different_lines(rig.directory / "screen.png") > 5
        with rig.trying("pause, unpause"):
            await _pauses(rig, machine)
        with rig.trying("reset"):
            await machine.reset()
            await rig.until(lambda: counted(machine.console).count(3) == 2)
        with rig.trying("impossible transitions"):
            with pytest.raises(ImpossibleTransition, match="is running"):
                await machine.boot()
            with pytest.raises(ImpossibleTransition, match="is running"):
                await machine.fingerprint()
        with rig.trying("power off"):
            await machine.power_off()
            assert machine.state is await machine.status() is MachineState.OFF
            assert (await rig.ended(machine)).reason is EndReason.HOST_POWER_OFF
            assert machine.cpu_seconds() > 0.1
            assert rig.kinds(machine)[-1] is EventKind.ENDED
            await machine.power_off()  # and nothing happens
            assert rig.kinds(machine).count(EventKind.ENDED) == 1
            with pytest.raises(ImpossibleTransition, match="is off"):
                await machine.pause()
        with rig.trying("console"):
            first = machine.console.read_bytes()
            boots = counted(machine.console).count(1)
            await machine.boot()
            await rig.until(lambda: counted(machine.console).count(1) == boots + 1)
            assert machine.console.read_bytes().startswith(first)
        with rig.trying("destroy"):
            await machine.destroy()
            assert machine.state is MachineState.OFF
            assert not disk.exists()
            assert machine.console.read_bytes().startswith(first)

    @proves("event: guest shutdown")
    async def test_a_guest_powers_itself_off(self, rig: Rig) -> None:
        machine = rig.machine("do=poweroff")
        await machine.create()
        with rig.trying("event: guest shutdown"):
            await machine.boot()
            ended = await rig.ended(machine)
            assert (ended.reason, ended.by_guest) == (EndReason.GUEST_SHUTDOWN, True)
            assert rig.kinds(machine) == [EventKind.STARTED, EventKind.GUEST_SHUTDOWN, EventKind.ENDED]

    @proves("event: panic")
    async def test_a_guest_panics(self, rig: Rig) -> None:
        machine = rig.machine("do=panic")
        await machine.create()
        with rig.trying("event: panic"):
            await machine.boot()
            ended = await rig.ended(machine)
            assert (ended.reason, ended.by_guest) == (EndReason.GUEST_PANIC, False)
            assert EventKind.PANICKED in rig.kinds(machine)
            assert "sysrq triggered crash" in machine.console.read_text(errors="replace")
            if "screenshot" not in rig.backend.refused:
                assert _different_lines(rig.directory / "screens" / f"{machine.name}-panic.png") > 2

    @proves("event: reboot", "event: killed")
    async def test_a_guest_reboots_in_place_and_is_killed(self, rig: Rig) -> None:
        machine = rig.machine("do=reboot")
        await machine.create()
        with rig.trying("event: reboot"):
            await machine.boot()
            await rig.until(lambda: EventKind.GUEST_RESET in rig.kinds(machine))
            assert await machine.status() is MachineState.RUNNING
            await asyncio.sleep(0.5)  # Linux tries several ways to reset in a row: it is told once
            assert rig.kinds(machine) == [EventKind.STARTED, EventKind.GUEST_RESET]
        with rig.trying("event: killed"):
            await rig.backend.kill(machine)
            ended = await rig.ended(machine)
            assert (ended.reason, ended.by_guest) == (EndReason.HOST_SIGNAL, False)
            assert rig.kinds(machine)[-1] is EventKind.ENDED
            await machine.boot()  # it can be started again
            assert machine.state is MachineState.RUNNING

    @proves("bytes written", "SSH endpoint", "CD in and out", "power button")
    async def test_a_guest_with_hands(self, rig: Rig) -> None:
        has_drive = "CD in and out" not in rig.backend.refused
        machine = rig.machine(f"do=hands cd={'yes' if has_drive else 'no'}")
        await machine.create()
        await machine.boot(media=InstallMedia(_cd(rig.directory, "first CD") if has_drive else None))
        with rig.trying("bytes written"):
            await rig.says(machine, "GUEST has written")
            assert await machine.bytes_written() >= 1 << 20
        with rig.trying("SSH endpoint"):
            endpoint = await _endpoint(rig, machine)
            await rig.until(lambda: _banner(endpoint) == b"SSH-2.0-tiny\n")
        with rig.trying("CD in and out"):
            if has_drive:
                await _sees_cd(rig, machine, "first CD")
            await machine.insert_cd(_cd(rig.directory, "second CD"))
            await _sees_cd(rig, machine, "second CD")
            await machine.eject_cd()
            await _sees_cd(rig, machine, "none")
            await machine.insert_cd(_cd(rig.directory, "third CD"))
            await _sees_cd(rig, machine, "third CD")
        with rig.trying("power button"):
            await machine.shut_down()
            assert (await rig.ended(machine)).reason is EndReason.GUEST_SHUTDOWN

    @proves("install from CD-ROM")
    async def test_installs_from_a_cd(self, rig: Rig) -> None:
        with rig.trying("install from CD-ROM"):
            await _installs(rig, rig.machine(), BootDevice.CDROM, _media(rig))

    @proves("install with OSCAR")
    async def test_installs_as_oscar_does(self, rig: Rig) -> None:
        """The caller gives all media that there are, and OSCAR takes what a machine of this type can boot."""
        with rig.trying("install with OSCAR"):
            machine, media = rig.machine(), _media(rig)
            await _installs(rig, machine, oscar_medium(machine.profile, media), media)

    @proves("install from network")
    async def test_installs_from_the_network(self, rig: Rig) -> None:
        with rig.trying("install from network"):
            kernel = rig.kernel("do=serve", _server(rig))
            server, node = rig.machines(Wanted(rig.profile(HEAD), kernel), Wanted(rig.profile(NODE)))
            if rig.backend.has_firmware:  # others are given the kernel by the host
                await server.create()
                await server.boot()
                await rig.says(server, "GUEST is up")
            await _installs(rig, node, BootDevice.NETWORK, InstallMedia(kernel=rig.kernel("do=install")))

    @proves("save and restore")
    async def test_a_saved_machine_goes_on_where_it_was(self, rig: Rig) -> None:
        machine, state = rig.machine("do=count"), rig.directory / "state" / "machine"
        await machine.create()
        await machine.boot()
        await rig.says(machine, "GUEST counts 3")
        with rig.trying("save and restore"):
            await machine.save(state)
            assert machine.state is MachineState.OFF
            assert (await rig.ended(machine)).reason is EndReason.SAVED
            before = len(counted(machine.console))
            await machine.restore(state)
            assert await machine.status() is MachineState.RUNNING
            await rig.until(lambda: len(counted(machine.console)) > before + 3)
            _has_only_counted_on(counted(machine.console))
            assert EventKind.PAUSED not in rig.kinds(machine)

    @proves("migrate")
    async def test_a_machine_that_migrates_keeps_its_connections(self, rig: Rig) -> None:
        peer, source = rig.machines(
            Wanted(rig.profile(HEAD), rig.kernel("do=ping")), Wanted(rig.profile(NODE), rig.kernel("do=ping"))
        )
        with rig.trying("migrate"):
            target = rig.twin(source)
            if "migrate" in rig.backend.refused:  # in whatever state
                await source.migrate(target)
            for machine in (peer, source):
                await machine.create()
            await peer.boot()
            await rig.says(peer, "GUEST is up")
            await source.boot()
            await rig.says(source, "seq=10 ")
            await source.migrate(target)
            assert (await rig.ended(source)).reason is EndReason.MIGRATED
            assert (await rig.ended(target)).reason is EndReason.GUEST_SHUTDOWN
            said = target.console.read_text(errors="replace")
            assert "seq=0 " not in said  # it has gone on, not begun anew
            received = re.search(r"60 packets transmitted, (\d+) packets received", said)
            assert received
            assert int(received[1]) >= 57

    @proves("dies with its owner")
    async def test_nothing_outlives_a_kill_of_its_owner(self, rig: Rig) -> None:
        booted = rig.directory / "booted"
        with rig.trying("dies with its owner"):
            rig.machine()  # says at once where there is none
            owner = own_process(rig.backend, Wanted(rig.profile(HEAD), rig.kernel("do=sleep")), booted)
            try:
                await rig.until(booted.exists)
                assert rig.backend.left()
            finally:
                owner.kill()
            await rig.until(lambda: not rig.backend.left())
            owner.join()


async def _pauses(rig: Rig, machine: Machine) -> None:
    await machine.pause()
    await rig.until(lambda: rig.kinds(machine)[-1] is EventKind.PAUSED)
    assert (machine.state, await machine.status()) == (MachineState.PAUSED, MachineState.PAUSED)
    stood = len(counted(machine.console))
    await asyncio.sleep(1.0)  # five of the guest's beats
    assert len(counted(machine.console)) <= stood + 1
    await machine.unpause()
    await rig.until(lambda: len(counted(machine.console)) > stood + 3)
    assert rig.kinds(machine)[-1] is EventKind.RESUMED
    assert (machine.state, await machine.status()) == (MachineState.RUNNING, MachineState.RUNNING)
    _has_only_counted_on(counted(machine.console))


async def _installs(rig: Rig, machine: Machine, source: BootDevice, media: InstallMedia) -> None:
    await machine.create()
    async with asyncio.timeout(2 * rig.backend.seconds):
        installation = await machine.install(source, media)
    assert installation.ended.reason is EndReason.GUEST_RESET
    assert not installation.before.bootable
    assert installation.succeeded


def _media(rig: Rig) -> InstallMedia:
    """One installer on each medium that there is."""
    words = parameters("do=install", rig.backend.console)
    return InstallMedia(make_cd(rig.directory, rig.guest, words), rig.kernel("do=install"))


def _server(rig: Rig) -> DirectKernel:
    """The guest that gives the guest to machines which boot from its network."""
    assert rig.guest.initrd is not None
    files = {"/www/vmlinuz": rig.guest.kernel, "/www/initrd": rig.guest.initrd}
    return make_guest(rig.directory / "server", modules=GUEST_MODULES, cases=GUEST_CASES, files=files)


def _cd(directory: Path, words: str) -> Path:
    path = directory / f"{words.replace(' ', '-')}.iso"
    path.write_bytes(words.encode().ljust(1 << 16, b"\0"))
    return path


async def _sees_cd(rig: Rig, machine: Machine, words: str) -> None:
    """Until that is what the guest sees, and still sees a second later: while CDs change it may see none."""

    def last() -> bool:
        return re.findall(r"GUEST sees CD: (.*?)\r?\n", machine.console.read_text(errors="replace"))[-1:] == [words]

    await rig.until(last)
    await asyncio.sleep(1.0)
    assert last()


def _has_only_counted_on(numbers: list[int]) -> None:
    """It has neither rebooted nor skipped anything."""
    assert numbers == list(range(1, len(numbers) + 1))


async def _endpoint(rig: Rig, machine: Machine) -> tuple[str, int]:
    """Where SSH is. Some back-ends know it only when the guest has asked its network for an address."""
    async with asyncio.timeout(rig.backend.seconds):
        while True:
            with contextlib.suppress(ImpossibleTransition):
                return machine.ssh_endpoint()
            await asyncio.sleep(1.0)


def _banner(endpoint: tuple[str, int]) -> bytes:
    """What a server says first; nothing while there is none."""
    try:
        with socket.create_connection(endpoint, timeout=5.0) as connection:
            return connection.recv(64)
    except OSError:
        return b""


def _different_lines(png: Path) -> int:
    """How many different lines of pixels a PNG has; one of a single colour has two at most, as they are stored."""
    data = png.read_bytes()
    assert data.startswith(b"\x89PNG\r\n\x1a\n")
    place, compressed, width, bytes_per_pixel = 8, b"", 0, 0
    while place < len(data):
        length, kind = int.from_bytes(data[place : place + 4], "big"), data[place + 4 : place + 8]
        body = data[place + 8 : place + 8 + length]
        if kind == b"IHDR":
            width, bytes_per_pixel = int.from_bytes(body[:4], "big"), {2: 3, 6: 4}[body[9]]
        if kind == b"IDAT":
            compressed += body
        place += 12 + length
    pixels, step = zlib.decompress(compressed), 1 + width * bytes_per_pixel
    return len({pixels[begin : begin + step] for begin in range(0, len(pixels), step)})
