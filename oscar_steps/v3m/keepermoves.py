"""Machines on their way to another host: from the keeper here, through SSH, to the keeper there.

Here `ssh HOST v2m receive` is started, a child of the keeper. Its standard input carries one line of JSON (what the
machine is), QEMU's own stream, and at last 'go'; its standard output says in lines of JSON how far the other side is:
ready, arrived, running, or an error. The processors stand still on both sides between the end of the stream and 'go',
so two of them never write to one disk. Where the connection breaks before 'go' the machine runs on here; where it
breaks between 'go' and 'running' nobody can know, so it stands still here, and that is said.

A machine on a VLAN takes its line along: its socket there leads back, through the same SSH, to the switchboard here,
for as long as the machine runs there.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import secrets
import shlex
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from oscar_steps.errors import FarmError, HostError
from oscar_steps.v3m import ledger
from oscar_steps.v3m.cluster import Boot
from oscar_steps.v3m.command import BootPlan
from oscar_steps.v3m.machine import EndReason, ImpossibleTransition, MachineState
from oscar_steps.v3m.profile import VMProfile, parse_profile, profile_to_xml
from oscar_steps.v3m.qemu import QemuMachine

if TYPE_CHECKING:
    from oscar_steps.v3m.keeper import Keeper

CONNECT_SECONDS = 20
READY_LIMIT = 120.0
"""Seconds until the other keeper is there and has looked at the machine's files."""
LAST_WORD_LIMIT = 60.0
COMPLAINT_SECONDS = 10.0
_SSH_OPTIONS = {
    "BatchMode": "yes",
    "ConnectTimeout": str(CONNECT_SECONDS),
    "ExitOnForwardFailure": "yes",
    "ServerAliveInterval": "15",
    "ServerAliveCountMax": "4",
}
Request = dict[str, Any]
Tell = Callable[[Request], None]


class Moves:
    """The moves of one keeper's machines, out and in."""

    def __init__(self, keeper: Keeper) -> None:
        self._keeper = keeper
        self._lines: set[asyncio.Task[None]] = set()
        self._guests: set[str] = set()

    @property
    def holds_lines(self) -> bool:
        """Whether a machine that runs elsewhere has its VLAN here."""
        return bool(self._lines)

    # --- out ---------------------------------------------------------------------------------------------------------

    async def migrate(self, request: Request) -> Request:
        """Move a machine to `request["host"]`. Raises HostError where it does not work; it then runs on here."""
        keeper = self._keeper
        machine, host = keeper.machine(request, "moved"), str(request["host"])
        if not isinstance(machine, QemuMachine):
            raise HostError(f"{machine.name} cannot be moved: only machines of the types Qemu and Kvm can")
        if machine.name in self._guests:
            what = f"{machine.name} came from another host, which holds its VLAN, and cannot be moved again"
            raise ImpossibleTransition(what, hint="power it off, and boot it where it is to be")
        async with keeper.hold(machine.name):
            return await self._move(machine, host, request)

    async def _move(self, machine: QemuMachine, host: str, request: Request) -> Request:
        keeper, name = self._keeper, machine.name
        key = f"{name} at {host}"
        marker = Path(machine.profile.image.path)
        marker = marker.with_name(f".{marker.name}.{secrets.token_hex(8)}")
        try:
            marker.touch()
        except OSError as error:
            raise HostError(f"{name} cannot be moved: {marker.parent}: {error.strerror}") from None
        try:
            lines = await keeper.switchboard.lines_of(machine.profile, key)
            there = [f"/tmp/v2m-{secrets.token_hex(8)}.sock" for _ in lines]
            forwards = [word for pair in zip(there, lines, strict=True) for word in ("-R", ":".join(pair))]
            journey = await Journey.begin(name, host, request, forwards, keeper.system.directory)
            try:
                await journey.send(await _luggage(keeper, machine, marker, there))
                await self._send(machine, journey)
            except BaseException:
                await journey.end()
                raise
        except BaseException:
            await keeper.switchboard.release(key)
            raise
        finally:
            marker.unlink(missing_ok=True)
        keeper.system.update(name, made=None, ended=f"migrated to {host}")  # its disk is the other keeper's affair now
        task = asyncio.create_task(self._hold_line(journey, key, wanted=bool(lines)))
        self._lines.add(task)
        task.add_done_callback(self._lines.discard)
        return {"machine": name, "state": MachineState.OFF.value, "pid": None, "ssh": None, "host": host}

    async def _send(self, machine: QemuMachine, journey: Journey) -> None:
        name = machine.name
        await journey.until("ready", READY_LIMIT)
        try:
            await machine.send_state(journey.descriptor, EndReason.MIGRATED)
        except HostError:
            await journey.complain()  # what the other side has to say about it says more
            raise
        try:
            await journey.until("arrived", LAST_WORD_LIMIT)
            await asyncio.to_thread(_write_back, machine.profile)
            await journey.send(b"go\n")
        except BaseException:
            await machine.go_on()
            raise
        try:
            await journey.until("running", LAST_WORD_LIMIT)
        except FarmError as error:
            raise HostError(
                f"whether {name} runs on {journey.host} is not known: {error.sentence}; here it stands still",
                hint="ask `v2m status` there; only if it is not on there, `v2m unpause` lets it go on here",
            ) from None
        await machine.leave(EndReason.MIGRATED)

    async def _hold_line(self, journey: Journey, key: str, *, wanted: bool) -> None:
        """Until the machine has ended there: then the other side hangs up."""
        try:
            if wanted:
                await journey.wait()
            await journey.end()
        finally:
            await self._keeper.switchboard.release(key)
            self._keeper.look_again()

    # --- in ----------------------------------------------------------------------------------------------------------

    async def receive(self, request: Request, tell: Tell) -> Request:
        """Take over a machine from another host. `tell` gets 'socket' (where its stream is expected) and each step.

        A machine whose VLAN is on the other host is waited for to its end.
        """
        keeper = self._keeper
        profile = parse_profile(request["profile"], request["file"])
        async with keeper.hold(profile.name):
            machine = await self._arrive(profile, request, tell)
            keeper.adopt(machine, request["file"])
            keeper.system.update(profile.name, made=request["made"])
        tell({"running": True})
        if request["sockets"]:
            self._guests.add(profile.name)
            try:
                await machine.wait_ended()
            finally:
                self._guests.discard(profile.name)
                for path in request["sockets"]:
                    Path(path).unlink(missing_ok=True)
        return {"machine": machine.name, "state": machine.state.value}

    async def _arrive(self, profile: VMProfile, request: Request, tell: Tell) -> QemuMachine:
        keeper = self._keeper
        _check_luggage(profile, request)
        machine = await keeper.new_machine(profile, request["sockets"])
        accelerator = await keeper.find_accelerator()
        if accelerator.name != request["accelerator"]:
            what = f"it runs with {request['accelerator']}, and here there is {accelerator.name}"
            raise HostError(f"{what}: a running machine cannot change that")
        assert isinstance(machine, QemuMachine)
        path = Path(f"in-{secrets.token_hex(4)}.sock")
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(path))
            listener.listen(1)
            listener.setblocking(False)
            tell({"socket": str(keeper.system.directory / path)})
            try:
                async with asyncio.timeout(LAST_WORD_LIMIT):
                    stream, _ = await asyncio.get_running_loop().sock_accept(listener)
            except TimeoutError:
                raise HostError(f"the stream of {profile.name} did not come") from None
            finally:
                path.unlink(missing_ok=True)
        with stream:
            stream.setblocking(True)
            tell({"ready": True})
            try:
                await machine.receive_state(_plan(request["plan"]), stream.fileno())
                tell({"arrived": True})
                await self._wait_for_go(profile.name, stream)
                await asyncio.to_thread(_forget_cached, profile)
                await machine.go_on()
            except BaseException:
                await machine.power_off()
                raise
            return machine

    async def _wait_for_go(self, name: str, stream: socket.socket) -> None:
        stream.setblocking(False)
        words = b""
        with contextlib.suppress(TimeoutError, OSError):
            async with asyncio.timeout(LAST_WORD_LIMIT):
                while not words.endswith(b"\n"):
                    data = await asyncio.get_running_loop().sock_recv(stream, 16)
                    if not data:
                        break
                    words += data
        if words != b"go\n":
            raise HostError(f"{name} was not taken over: the connection broke before its last word")


class Journey:
    """One `ssh HOST v2m receive`."""

    def __init__(self, name: str, host: str, process: asyncio.subprocess.Process, stream: socket.socket) -> None:
        self._name = name
        self.host = host
        self._process = process
        self._stream = stream

    @classmethod
    async def begin(cls, name: str, host: str, request: Request, forwards: list[str], directory: Path) -> Journey:
        """Start ssh in `directory`, which paths in `forwards` are relative to."""
        options = [word for option, value in _SSH_OPTIONS.items() for word in ("-o", f"{option}={value}")]
        # What is to be run there is for the shell there.
        remote = f"{request['v2m']} receive --system {shlex.quote(str(request['system']))}"
        agent = {"SSH_AUTH_SOCK": request["agent"]} if request.get("agent") else {}
        ours, theirs = socket.socketpair()
        with theirs:
            process = await asyncio.create_subprocess_exec(
                *ledger.owned([*request["ssh"], *options, *forwards, "--", host, remote]),
                cwd=directory,
                env={**os.environ, **agent},
                stdin=theirs.fileno(),
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
            )
        return cls(name, host, process, ours)

    @property
    def descriptor(self) -> int:
        """What is written here arrives on the other host."""
        return self._stream.fileno()

    async def send(self, data: bytes) -> None:
        """Send something of ours. Raises HostError."""
        try:
            await asyncio.to_thread(self._stream.sendall, data)
        except OSError:
            await self.complain()
            raise HostError(f"{self._name} could not be moved to {self.host}: the connection broke") from None

    async def until(self, word: str, seconds: float) -> None:
        """Wait until the other side says `word`. Raises HostError where it says something else, or nothing."""
        try:
            async with asyncio.timeout(seconds):
                await self._listen(word)
        except TimeoutError:
            what = f"{self._name} could not be moved to {self.host}: it did not say '{word}' within {seconds:.0f} s"
            raise HostError(what) from None

    async def complain(self) -> None:
        """Hang up, and raise what the other side says is wrong; return where it says nothing."""
        self._stream.close()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(COMPLAINT_SECONDS):
                await self._listen(None)

    async def _listen(self, word: str | None) -> None:
        assert self._process.stdout is not None
        while line := await self._process.stdout.readline():
            message = _message(line)
            if word in message:
                return
            if "error" in message:
                error = message["error"]
                sentence = f"{self._name} could not be moved to {self.host}: {error['sentence']}"
                raise HostError(sentence, hint=error["hint"])
        raise HostError(f"{self._name} could not be moved to {self.host}: {await self._last_words()}")

    async def wait(self) -> None:
        """Wait until the other side hangs up."""
        await self._process.wait()

    async def end(self) -> None:
        """Hang up."""
        self._stream.close()
        try:
            async with asyncio.timeout(10.0):
                await self._process.wait()
        except TimeoutError:
            self._process.kill()
            await self._process.wait()

    async def _last_words(self) -> str:
        assert self._process.stderr is not None
        words = (await self._process.stderr.read()).decode(errors="replace").strip().splitlines()
        return words[-1] if words else "the connection broke"


def _message(line: bytes) -> Request:
    """A line of the other side's; a shell that greets is no message."""
    with contextlib.suppress(ValueError):
        message = json.loads(line)
        if isinstance(message, dict):
            return message
    print(f"said by the other host: {line!r}", file=sys.stderr, flush=True)
    return {}


async def _luggage(keeper: Keeper, machine: QemuMachine, marker: Path, sockets: list[str]) -> bytes:
    """What the other side has to know before the stream, as a line."""
    plan = machine.plan
    record = keeper.system.records()[machine.name]
    return (
        json.dumps(
            {
                "profile": profile_to_xml(machine.profile),
                "file": record.profile,
                "made": record.made,
                "accelerator": (await keeper.find_accelerator()).name,
                "plan": {
                    "medium": plan.medium,
                    "cdrom": None if plan.cdrom is None else str(plan.cdrom),
                    "drive": plan.drive,
                },
                "marker": str(marker),
                "sockets": sockets,
            }
        ).encode()
        + b"\n"
    )


def _check_luggage(profile: VMProfile, request: Request) -> None:
    """Raise HostError where its files are not those of the other host."""
    marker = Path(request["marker"])
    if not marker.exists():
        sentence = f"the disk {profile.image.path} is not on storage that both hosts see"
        raise HostError(sentence, hint="share its directory, e.g. by NFS, and mount it at the same path")
    cdrom = request["plan"]["cdrom"]
    if cdrom is not None and not Path(cdrom).exists():
        raise HostError(f"its CD {cdrom} is not there", hint="eject it (`v2m eject-cd`), or share its directory")


def _plan(fields: Request) -> BootPlan:
    cdrom = fields["cdrom"]
    medium = None if fields["medium"] is None else Boot(fields["medium"])
    return BootPlan(
        medium=medium, cdrom=None if cdrom is None else Path(cdrom), drive=bool(fields["drive"]), durable=True
    )


def _disks(profile: VMProfile) -> list[Path]:
    return [Path(profile.image.path), *(Path(disk.path) for disk in profile.virtual_disks)]


def _write_back(profile: VMProfile) -> None:
    """What the guest has not synced, this host may have in its memory alone: it is written to the shared storage."""
    for path in _disks(profile):
        with path.open("rb") as file:
            os.fsync(file.fileno())


def _forget_cached(profile: VMProfile) -> None:
    """What this host has read of the disks before they were given up is read again."""
    for path in _disks(profile):
        with path.open("rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
