"""Machines on their way to another host: from the daemon here, through SSH, to the daemon there.

Here `ssh HOST v2m receive` is started, a child of the daemon. Its standard input carries one line of JSON (what the
machine is), QEMU's own stream, and at last 'go'; its standard output says in lines of JSON how far the other side is:
ready, arrived, running, or given-up and an error. The processors stand still on both sides between the end of the
stream and 'go', so two of them never write to one disk. Where the connection breaks before 'go' the machine runs on
here, and so it does where the other side gives up; where it breaks between 'go' and 'running' nothing is known, so it
stays stopped here, and the error says so.

A machine on a VLAN takes its line along: its socket there leads back, through the same SSH, to the VLAN hub here,
for as long as the machine runs there.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import re
import secrets
import shlex
import socket
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from oscar_steps.environment import tool_environment
from oscar_steps.errors import FarmError, HostError, ImpossibleTransition, MachineLost
from oscar_steps.textio import json_line, json_object
from oscar_steps.v2m.daemon.machines import Machines
from oscar_steps.v2m.daemon.state import MachineRecord
from oscar_steps.v3m.boot import BootPlan
from oscar_steps.v3m.disks import image_format
from oscar_steps.v3m.host import ledger
from oscar_steps.v3m.machine import EndReason, MachineState
from oscar_steps.v3m.profiles.vm import BootDevice, VMProfile, parse_profile, profile_to_xml
from oscar_steps.v3m.qemu.machine import QemuMachine

CONNECT_SECONDS = 20
READY_LIMIT = 120.0
"""Seconds until the other daemon is there and has looked at the machine's files."""
LAST_WORD_LIMIT = 60.0
TAKE_BACK_LIMIT = 90.0
"""Seconds until the other side has let go of the disks: its LAST_WORD_LIMIT, and the end of its QEMU."""
TAKE_BACK_PAUSE = 0.5
COMPLAINT_SECONDS = 10.0
CD_BEGIN_BYTES = 1 << 20
_SSH_OPTIONS = {
    "BatchMode": "yes",
    "ConnectTimeout": str(CONNECT_SECONDS),
    "ExitOnForwardFailure": "yes",
    "ServerAliveInterval": "15",
    "ServerAliveCountMax": "4",
}
Request = dict[str, Any]
Tell = Callable[[Request], None]


class Migrations:
    """The migrations of one system's machines, out and in."""

    def __init__(self, machines: Machines) -> None:
        self._machines = machines
        self._lines: set[asyncio.Task[None]] = set()
        self._guests: set[str] = set()
        self._leaving: set[str] = set()

    @property
    def holds_lines(self) -> bool:
        """Whether a machine that runs elsewhere has its VLAN here."""
        return bool(self._lines)

    # --- out ---------------------------------------------------------------------------------------------------------

    async def migrate(self, request: Request) -> Request:
        """Move a machine to `request["host"]`. Raises HostError where it does not work; it then runs on here."""
        machine, host = self._machines.require(request["machine"], "moved"), str(request["host"])
        if not isinstance(machine, QemuMachine):
            raise HostError(f"{machine.name} cannot be moved: only machines of the types Qemu and Kvm can")
        if machine.name in self._guests:
            what = f"{machine.name} came from another host, which holds its VLAN, and cannot be moved again"
            raise ImpossibleTransition(what, hint="power it off, and boot it on the host where it should run")
        async with self._machines.hold(machine.name):
            self._leaving.add(machine.name)
            try:
                return await self._move(machine, host, request)
            finally:
                self._leaving.discard(machine.name)

    async def _move(self, machine: QemuMachine, host: str, request: Request) -> Request:
        machines, name = self._machines, machine.name
        key = f"{name} at {host}"
        try:
            with _marked(machine.profile) as marker:
                luggage = await _luggage(machines, machine, marker)
                lines = await machines.vlan_hub.lines_of(machine.profile, key)
                transfer = await SshTransfer.begin(name, host, request, lines, machines.system.directory)
                try:
                    await transfer.send(json_line({**luggage, "sockets": transfer.sockets}))
                    await self._send(machine, transfer, paused=luggage["paused"])
                except BaseException:
                    await transfer.end()
                    raise
        except BaseException:
            await machines.vlan_hub.release(key)
            raise
        task = asyncio.create_task(self._hold_line(transfer, key, wanted=bool(lines)))
        self._lines.add(task)
        task.add_done_callback(self._line_is_given_back)
        try:
            machines.system.update(name, ended=f"migrated to {host}")
        except (HostError, OSError) as error:  # it runs there: this is no failure
            print(
                f"{name} has migrated to {host}, but this could not be written down: {error}",
                file=sys.stderr,
                flush=True,
            )
        off = {"state": MachineState.OFF.value, "pid": None, "ssh": None, "accelerator": None}
        return {"machine": name, **off, "host": host}

    async def _send(self, machine: QemuMachine, transfer: SshTransfer, *, paused: bool) -> None:
        name = machine.name
        record = self._machines.system.records()[name]
        await transfer.until("ready", READY_LIMIT)
        # While it still runs, so that little is left to write when it stands still.
        await asyncio.to_thread(_write_back, machine.profile)
        try:
            await machine.send_state(transfer.descriptor, EndReason.MIGRATED)
        except HostError as ours:
            try:
                await transfer.complain()
            except HostError as theirs:  # either may be the cause
                raise HostError(f"{theirs.sentence}; here: {ours.sentence}", hint=theirs.hint) from None
            raise
        try:
            await transfer.until("arrived", LAST_WORD_LIMIT)
            await asyncio.to_thread(_write_back, machine.profile)
            # From 'go' on its disk is the other daemon's affair: whatever comes, `destroy` here must not delete it.
            self._machines.system.update(name, made=None)
            await transfer.send(b"go\n")
        except BaseException as error:
            await self._take_back(machine, transfer, error, record, paused=paused)
            raise
        try:
            await transfer.until("running", LAST_WORD_LIMIT)
        except FarmError as error:
            if transfer.given_up:
                await self._take_back(machine, transfer, error, record, paused=paused)
                raise
            raise HostError(
                f"it is unknown whether {name} runs on {transfer.host}: {error.sentence}; it is stopped here",
                hint="ask `v2m status` on that host; only if it is off there, `v2m unpause` resumes it here",
            ) from None
        await machine.leave(EndReason.MIGRATED)

    async def _take_back(
        self, machine: QemuMachine, transfer: SshTransfer, why: BaseException, record: MachineRecord, *, paused: bool
    ) -> None:
        try:
            await _take_back(machine, transfer, why, paused=paused)
        finally:
            with contextlib.suppress(HostError, OSError):  # then `destroy` will keep its disk: no harm
                self._machines.system.update(machine.name, made=record.made, made_file=record.made_file)

    async def _hold_line(self, transfer: SshTransfer, key: str, *, wanted: bool) -> None:
        """Until the machine has ended there: then the other side hangs up."""
        try:
            if wanted:
                await transfer.wait()
            await transfer.end()
        finally:
            await self._machines.vlan_hub.release(key)

    def _line_is_given_back(self, task: asyncio.Task[None]) -> None:
        # Not within the task: the daemon would look while the task still counts, and nothing would wake it again.
        self._lines.discard(task)
        self._machines.changed.set()

    # --- in ----------------------------------------------------------------------------------------------------------

    async def receive(self, request: Request, tell: Tell) -> Request:
        """Take over a machine from another host. `tell` gets 'socket' (where its stream is expected) and each step.

        A machine whose VLAN is on the other host is waited for to its end.
        """
        machines = self._machines
        profile = parse_profile(request["profile"], request["file"], literal=True)
        if profile.name in self._leaving:  # that move holds the name, and waits for us
            raise HostError("it runs on that host already", hint="name another one")
        async with machines.hold(profile.name):
            machine = await self._arrive(profile, request, tell)
            try:
                machines.system.update(profile.name, made=request["made"])
            except (HostError, OSError) as error:  # it runs here: this is no failure
                print(f"the disk of {profile.name} will not be deleted here: {error}", file=sys.stderr, flush=True)
        tell({"running": True})
        if request["sockets"]:
            self._guests.add(profile.name)
            try:
                await machine.wait_ended()
            finally:
                self._guests.discard(profile.name)
        return {"machine": machine.name, "state": machine.state.value}

    async def _arrive(self, profile: VMProfile, request: Request, tell: Tell) -> QemuMachine:
        machines = self._machines
        _check_luggage(profile, request)
        machine = await machines.make(profile, request["sockets"])
        accelerator = await machines.find_accelerator()
        if accelerator.name != request["accelerator"]:
            what = f"it runs with {request['accelerator']}, but this host has {accelerator.name}"
            raise HostError(f"{what}: a running machine cannot change that")
        missing = sorted({*request["processor"]} - {*_processor_flags()})
        if accelerator.name == "kvm" and missing:
            what = f"its guest uses the CPU features {', '.join(missing)}, which this host's processor lacks"
            raise HostError(
                f"{what}: a running machine cannot change that", hint="shut it down, and boot it on this host"
            )
        assert isinstance(machine, QemuMachine)
        path = Path(f"in-{secrets.token_hex(4)}.sock")
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(path))
            listener.listen(1)
            listener.setblocking(False)
            tell({"socket": str(machines.system.directory / path)})
            try:
                async with asyncio.timeout(LAST_WORD_LIMIT):
                    stream, _ = await asyncio.get_running_loop().sock_accept(listener)
            except TimeoutError:
                raise HostError(
                    f"timed out after {LAST_WORD_LIMIT:.0f} s waiting for the state of {profile.name}"
                ) from None
            finally:
                path.unlink(missing_ok=True)
        with stream:
            stream.setblocking(True)
            tell({"ready": True})
            touched = False
            try:
                await machine.receive_state(_plan(request["plan"]), stream.fileno())
                _check_formats(profile, await _formats(machine), request)
                tell({"arrived": True})
                await self._wait_for_go(profile.name, stream)
                await asyncio.to_thread(_forget_cached, profile)
                # What may still fail comes before its first instruction: behind that there is no way back.
                machines.adopt(machine, request["file"])
                if not request["paused"]:
                    touched = True
                    await machine.go_on()
            except BaseException as error:
                await machine.power_off()
                refused = isinstance(error, HostError) and not isinstance(error, MachineLost)
                if refused or not touched:
                    tell({"given-up": True})  # the guest has done nothing here
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
            raise HostError(f"{name} was not taken over: the connection broke before the other host said 'go'")


class SshTransfer:
    """One `ssh HOST v2m receive`."""

    def __init__(
        self, name: str, host: str, process: asyncio.subprocess.Process, stream: socket.socket, sockets: list[str]
    ) -> None:
        self._name = name
        self.host = host
        self._process = process
        self._stream = stream
        self.sockets = sockets
        """There, each leads to one of the lines."""
        self.given_up = False
        """Whether the other side has said that its QEMU is gone and the guest has done nothing there."""

    @classmethod
    async def begin(cls, name: str, host: str, request: Request, lines: list[str], directory: Path) -> SshTransfer:
        """Start ssh in `directory`, which the sockets `lines` are relative to."""
        sockets = [f"/tmp/v2m-{secrets.token_hex(8)}.sock" for _ in lines]
        forwards = [word for pair in zip(sockets, lines, strict=True) for word in ("-R", ":".join(pair))]
        options = [word for option, value in _SSH_OPTIONS.items() for word in ("-o", f"{option}={value}")]
        # What is to be run there is for the shell there. sshd leaves its sockets, also where there is no v2m.
        remote = f"{request['v2m']} receive --system {shlex.quote(str(request['system']))}"
        if sockets:
            remote += f"; rm -f {' '.join(sockets)}"
        agent = {"SSH_AUTH_SOCK": request["agent"]} if request.get("agent") else {}
        ours, theirs = socket.socketpair()
        with contextlib.ExitStack() as unused, theirs:
            unused.enter_context(ours)
            process = await asyncio.create_subprocess_exec(
                *ledger.owned([*request["ssh"], *options, *forwards, "--", host, remote]),
                cwd=directory,
                env=tool_environment(**agent),
                stdin=theirs.fileno(),
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
            )
            unused.pop_all()
        return cls(name, host, process, ours, sockets)

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
            raise HostError(f"{self._name} could not be moved to {self.host}: {await self._last_words()}") from None

    async def until(self, word: str, seconds: float) -> None:
        """Wait until the other side says `word`. Raises HostError where it says something else, or nothing."""
        try:
            async with asyncio.timeout(seconds):
                await self._listen(word)
        except TimeoutError:
            what = (
                f"{self._name} could not be moved to {self.host}: timed out after {seconds:.0f} s waiting for '{word}'"
            )
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
            if "given-up" in message:
                self.given_up = True
            if "error" in message:
                error = message["error"]
                sentence = f"{self._name} could not be moved to {self.host}: {error['sentence']}"
                raise HostError(sentence, hint=error["hint"])
        if word is not None:
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
        words: list[str] = []
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(COMPLAINT_SECONDS):
                words = (await self._process.stderr.read()).decode(errors="replace").strip().splitlines()
        return words[-1] if words else "the connection broke"


def _message(line: bytes) -> Request:
    """A line of the other side's; a shell that greets is no message."""
    with contextlib.suppress(ValueError):
        return json_object(line)
    print(f"the other host said: {line!r}", file=sys.stderr, flush=True)
    return {}


async def _take_back(machine: QemuMachine, transfer: SshTransfer, why: BaseException, *, paused: bool) -> None:
    """Let it go on here after its state was sent, as soon as the QEMU there has let go of its disks.

    Raises HostError where that does not happen in time; a machine that was powered off meanwhile stays so.
    """
    await transfer.end()
    end = time.monotonic() + TAKE_BACK_LIMIT
    while True:
        try:
            await machine.go_on()
            if paused:
                await machine.pause()
        except (ImpossibleTransition, MachineLost):
            return
        except HostError as error:
            if time.monotonic() > end:
                sentence = f"{why}; {machine.name} is stopped here, because it cannot be resumed: {error.sentence}"
                raise HostError(sentence, hint="`v2m unpause` tries again") from None
            await asyncio.sleep(TAKE_BACK_PAUSE)  # no event reports that a lock has become free
        else:
            return


@contextlib.contextmanager
def _marked(profile: VMProfile) -> Iterator[str]:
    """The name of a file that lies beside each disk meanwhile: a host that sees it there sees the same storage."""
    name = f".v2m-{secrets.token_hex(8)}"
    marks = [path.resolve().with_name(name) for path in _disks(profile)]
    try:
        for mark in marks:
            try:
                mark.touch()
            except OSError as error:
                raise HostError(f"{profile.name} cannot be moved: {mark.parent}: {error.strerror}") from None
        yield name
    finally:
        for mark in marks:
            with contextlib.suppress(OSError):
                mark.unlink()


async def _luggage(machines: Machines, machine: QemuMachine, marker: str) -> Request:
    """What the other side has to know before the stream."""
    plan = machine.plan
    record = machines.system.records()[machine.name]
    try:
        cd = None if plan.cdrom is None else _cd_mark(plan.cdrom)
    except OSError as error:
        raise HostError(f"{machine.name} cannot be moved: its CD {plan.cdrom}: {error.strerror}") from None
    return {
        "profile": profile_to_xml(machine.profile),
        "file": record.profile,
        "made": record.made,
        "accelerator": (await machines.find_accelerator()).name,
        "processor": _processor_flags(),
        "plan": {
            "medium": plan.medium,
            "cdrom": None if plan.cdrom is None else str(plan.cdrom),
            "drive": plan.drive,
        },
        "paused": await machine.status() is MachineState.PAUSED,
        "formats": await _formats(machine),
        "marker": marker,
        "cd": cd,
    }


def _check_luggage(profile: VMProfile, request: Request) -> None:
    """Raise HostError where its files are not those of the other host."""
    formats = []
    for path in _disks(profile):
        if not path.resolve().with_name(request["marker"]).exists():
            sentence = f"the disk {path} is not on storage that both hosts see"
            raise HostError(sentence, hint="share its directory, e.g. by NFS, and mount it at the same path")
        try:
            formats.append(image_format(path))
        except OSError as error:
            raise HostError(f"the disk {path} cannot be read there: {error.strerror}") from None
    _check_formats(profile, formats, request)
    cdrom = request["plan"]["cdrom"]
    if cdrom is None:
        return
    hint = "eject it (`v2m eject-cd`), or share its directory"
    try:
        if _cd_mark(Path(cdrom)) != request["cd"]:
            raise HostError(f"the CD {cdrom} there has other content", hint=hint)
    except OSError as error:
        raise HostError(f"its CD {cdrom} cannot be read there: {error.strerror}", hint=hint) from None


def _check_formats(profile: VMProfile, formats: list[str], request: Request) -> None:
    """A guest can write the first bytes of a qcow2 file, with the name of a host's file in it, to a raw disk."""
    for path, found, sent in zip(_disks(profile), formats, request["formats"], strict=True):
        if found != sent:
            raise HostError(
                f"its disk {path} is used as {sent}, but its content looks like {found}; the guest may have done it"
            )


async def _formats(machine: QemuMachine) -> list[str]:
    """What its QEMU takes its disks for, in the order of `_disks`: what a guest has written since changes nothing."""
    answer: Any = await machine.execute("query-block")
    drivers = {block["device"]: str(block["inserted"]["drv"]) for block in answer if "inserted" in block}
    return [drivers[f"disk{number}"] for number in range(len(_disks(machine.profile)))]


def _processor_flags() -> list[str]:
    """What this host's processor can do, in the kernel's words; with KVM its guests see it as it is."""
    match = re.search(r"^flags\s*: (.*)$", Path("/proc/cpuinfo").read_text(encoding="utf-8"), re.MULTILINE)
    return match[1].split() if match else []


def _cd_mark(path: Path) -> str:
    """Which CD it is: its size, and its beginning, where a volume has its name and date. Raises OSError."""
    with path.open("rb") as file:
        begin = hashlib.sha256(file.read(CD_BEGIN_BYTES)).hexdigest()
        return f"{file.seek(0, os.SEEK_END)} bytes, {begin}"


def _plan(fields: Request) -> BootPlan:
    cdrom = fields["cdrom"]
    medium = None if fields["medium"] is None else BootDevice(fields["medium"])
    return BootPlan(
        medium=medium, cdrom=None if cdrom is None else Path(cdrom), drive=bool(fields["drive"]), durable=True
    )


def _disks(profile: VMProfile) -> list[Path]:
    return [Path(profile.image.path), *(Path(disk.path) for disk in profile.virtual_disks)]


def _write_back(profile: VMProfile) -> None:
    """What the guest has not synced, this host may have in its memory alone: it is written to the shared storage."""
    for path in _disks(profile):
        try:
            with path.open("rb") as file:
                os.fsync(file.fileno())
        except OSError as error:
            raise HostError(f"{profile.name} could not be moved: {path}: {error.strerror}") from None


def _forget_cached(profile: VMProfile) -> None:
    """What this host has read of the disks before they were given up is read again."""
    for path in _disks(profile):
        with path.open("rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
