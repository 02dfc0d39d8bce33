"""The daemon: the process that owns the machines of one system, so that they live on when a command has ended.

The first command that powers a machine on starts it. It ends by itself when no machine is on any more. Its machines die
with it, however it dies: QEMU is forked from its main thread and gets SIGKILL from the kernel.

Protocol, one JSON object a line, over a Unix socket that only the owner can reach. The daemon greets with
{"daemon": PID}. A request is {"do": WORD, "machine": NAME, …}; the answer {"done": {…}}, or {"error": {"class",
"sentence", "hint"}}. Until then {"alive": true} comes every few seconds: a silent daemon hangs. A request that
takes a machine over gets {"event": {…}} lines. A request goes on to its end although its client has gone.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import traceback
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from oscar_steps.daemon import report_ready
from oscar_steps.errors import FarmError, HostError, ImpossibleTransition, UserError
from oscar_steps.textio import json_line, json_object
from oscar_steps.v2m.daemon.client import PASSED_ERRORS
from oscar_steps.v2m.daemon.machines import Machines, log
from oscar_steps.v2m.daemon.migration import Migrations
from oscar_steps.v2m.daemon.state import System
from oscar_steps.v3m.boot import BootPlan, InstallMedia, oscar_medium
from oscar_steps.v3m.disks import check_kind
from oscar_steps.v3m.host import eventloop, ledger
from oscar_steps.v3m.machine import DiskFingerprint, Installation, Machine, MachineState
from oscar_steps.v3m.profiles.vm import BootDevice, VMProfile, parse_profile
from oscar_steps.v3m.qemu.machine import QemuMachine
from oscar_steps.v3m.qemu.state import SAVED_STATES

ALIVE_SECONDS = 2.0
LINE_BYTES = 4 << 20
"""A profile may have 2 MiB."""

Request = dict[str, Any]
Answer = dict[str, Any]
Handler = Callable[[Request], Awaitable[Answer]]


class Daemon:
    """Serves the machines of one system."""

    def __init__(self, system: System) -> None:
        self.system = system
        self.machines = Machines(system)
        self._migrations = Migrations(self.machines)
        self._work: set[asyncio.Task[None]] = set()
        self._ending = False
        self._handlers: dict[str, Handler] = {
            "boot": self._boot,
            "install": self._install,
            "status": self._status,
            "pause": self._held("paused", lambda machine, _: machine.pause()),
            "unpause": self._held("unpaused", lambda machine, _: machine.unpause()),
            "reset": self._held("reset", lambda machine, _: machine.reset()),
            "shut-down": self._shut_down,
            "power-off": self._power_off,
            "save": self._save,
            "restore": self._restore,
            "insert-cd": self._held("given a CD", lambda machine, asked: machine.insert_cd(Path(asked["cdrom"]))),
            "eject-cd": self._held("asked for its CD", lambda machine, _: machine.eject_cd()),
            "screenshot": self._screenshot,
            "terminal": self._terminal,
            "migrate": self._migrations.migrate,
        }

    # --- its life ----------------------------------------------------------------------------------------------------

    async def live(self, ready: int) -> None:
        """Serve until nothing is on any more. `ready`: a descriptor that gets a byte when the socket listens."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._on_signal)
        for left in (*self.system.directory.glob("*.sock"), *self.system.directory.glob("console/*.sock")):
            left.unlink(missing_ok=True)  # of a daemon that was killed
        os.chdir(self.system.directory)  # the path of a socket may have 107 bytes only
        server = await asyncio.start_unix_server(self._serve, self.system.socket.name, limit=LINE_BYTES)
        self.system.socket.chmod(0o600)
        report_ready(ready)
        # The command that started us holds the start lock until we have greeted it: from then on its request counts.
        while True:
            # Where nothing is needed any more only the start lock can keep us alive: no event reports its release.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(None if self._is_needed() else 1.0):
                    await self.machines.changed.wait()
            self.machines.changed.clear()
            if not self._is_needed() and await self._ends(server):
                return

    def _is_needed(self) -> bool:
        return not self._ending and bool(self.machines.all() or self._work or self._migrations.holds_lines)

    async def _ends(self, server: asyncio.Server) -> bool:
        """End, unless a command is about to connect: it holds the start lock until we have accepted it."""
        try:
            with self.system.starting(seconds=0):
                if self._is_needed():
                    return False
                server.close()
                self.system.socket.unlink(missing_ok=True)
                await self.machines.close()
                return True
        except TimeoutError:
            return False

    def _on_signal(self) -> None:
        self._ending = True
        self.machines.changed.set()

    # --- the socket --------------------------------------------------------------------------------------------------

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._work.add(task)
        try:
            await _say(writer, {"daemon": os.getpid()})
            while line := await reader.readline():
                await self._answer(line, writer)
        except (ConnectionError, ValueError):
            pass  # the client is gone, or its line has no end
        finally:
            self._work.discard(task)
            self.machines.changed.set()
            writer.close()

    async def _answer(self, line: bytes, writer: asyncio.StreamWriter) -> None:
        alive = asyncio.create_task(_stay_alive(writer))
        try:
            answer = {"done": await self._do(json_object(line), lambda event: _write(writer, {"event": event}))}
        except FarmError as error:
            kind = next((c.__name__ for c in type(error).__mro__ if c.__name__ in PASSED_ERRORS), "HostError")
            answer = _refusal(kind, error.sentence, error.hint)
        except OSError as error:  # a place of the user's, or the host's disk is full
            log(traceback.format_exc())
            where = "" if error.filename is None else f"{error.filename}: "
            what = f"{where}{error.strerror or repr(error)}"
            answer = _refusal("HostError", what, f"the v2m daemon's log says more: {self.system.log}")
        except Exception:  # a bug of ours must not end the machines: its traceback is in the log, and that is said
            log(traceback.format_exc())
            hint = f"its log has the traceback: {self.system.log}"
            answer = _refusal("HostError", "internal error in the v2m daemon", hint)
        finally:
            alive.cancel()
        await _say(writer, answer)

    async def _do(self, request: Request, tell: Callable[[Answer], None]) -> Answer:
        if request.get("do") == "receive":
            return await self._migrations.receive(request, tell)
        handler = self._handlers.get(str(request.get("do")))
        if handler is None:
            raise HostError(
                f"the v2m daemon of the system {self.system.name} does not know '{request.get('do')}'",
                hint="another version started it; power its machines off, and it ends",
            )
        return await handler(request)

    # --- what can be asked for ---------------------------------------------------------------------------------------

    async def _boot(self, request: Request) -> Answer:
        profile = parse_profile(request["profile"], request["file"], literal=True)
        async with self.machines.hold(profile.name):
            machine = await self._power_on(request, profile)
        return await _look(machine)

    async def _power_on(self, request: Request, profile: VMProfile) -> Machine:
        """The caller holds the name."""
        media, source = InstallMedia(cdrom=_path(request.get("cdrom"))), request.get("install")
        install = oscar_medium(profile, media) if source == "oscar" else source and BootDevice(source)
        machine = await self.machines.make(profile)
        await self.machines.started(machine, machine.boot(install=install, media=media))
        self.machines.adopt(machine, request["file"])
        return machine

    async def _install(self, request: Request) -> Answer:
        profile = parse_profile(request["profile"], request["file"], literal=True)
        async with self.machines.hold(profile.name):
            blank = await self.machines.make(profile)
            try:
                blank.check_can_start()
                before = await blank.fingerprint()
            finally:
                await self.machines.vlan_hub.release(profile.name)
            if before.bootable:
                what = f"{profile.name} cannot be installed: its disk has a system already"
                hint = "boot it; or, to install it anew, delete its disk and make another: v2m destroy, v2m create"
                raise ImpossibleTransition(what, hint=hint)
            machine = await self._power_on(request, profile)
        if not request.get("wait", True):
            return await _look(machine)
        try:
            async with asyncio.timeout(request.get("limit")):
                ended = await machine.wait_ended()
        except TimeoutError:
            await machine.power_off()
            ended = await machine.wait_ended()
        after = await machine.fingerprint()
        return _installed(Installation(ended, before, after))

    async def _status(self, request: Request) -> Answer:
        names = request.get("machines")
        wanted = [machine for machine in self.machines.all() if names is None or machine.name in names]
        return {"machines": [await _look(machine) for machine in wanted]}

    def _held(self, what: str, act: Callable[[Machine, Request], Awaitable[None]]) -> Handler:
        """Holds the name meanwhile: a machine that is being moved may run elsewhere already, or lose the change."""

        async def handle(request: Request) -> Answer:
            async with self.machines.hold(request["machine"]):
                machine = self.machines.require(request["machine"], what)
                await act(machine, request)
                return await _look(machine)

        return handle

    async def _shut_down(self, request: Request) -> Answer:
        machine = self.machines.require(request["machine"], "shut down")
        await machine.shut_down()
        return await _look(machine)

    async def _power_off(self, request: Request) -> Answer:
        name = request["machine"]
        machine = self.machines.get(name)
        if machine is None:
            async with self.machines.hold(name):  # it may be just being booted, or received
                machine = self.machines.get(name)
        if machine is not None:
            await machine.power_off()
        await self.machines.until_ended(name)
        return _off(name)

    async def _save(self, request: Request) -> Answer:
        machine = self.machines.require(request["machine"], "saved")
        _refuse_others(machine, Path(request["state"]))
        async with self.machines.hold(machine.name):
            if isinstance(machine, QemuMachine):
                cdrom, drive = machine.plan.cdrom, machine.plan.drive
                self.system.update(machine.name, cdrom=None if cdrom is None else str(cdrom), drive=drive)
            await machine.save(Path(request["state"]))
        await self.machines.until_ended(machine.name)
        return _off(machine.name)

    async def _restore(self, request: Request) -> Answer:
        profile = parse_profile(request["profile"], request["file"], literal=True)
        async with self.machines.hold(profile.name):
            machine = await self.machines.make(profile)
            record = self.system.records().get(profile.name)
            if isinstance(machine, QemuMachine):
                cdrom = None if profile.cdrom is None else Path(profile.cdrom)
                if record is not None and record.drive:
                    cdrom = _path(record.cdrom)
                has_drive = cdrom is not None or (record is not None and record.drive)
                medium = None if record is None or record.medium is None else BootDevice(record.medium)
                machine.plan = BootPlan(medium=medium, cdrom=cdrom, drive=has_drive, durable=True)
            await self.machines.started(machine, machine.restore(Path(request["state"])))
            self.machines.adopt(machine, request["file"])
        return await _look(machine)

    async def _terminal(self, request: Request) -> Answer:
        machine = self.machines.require(request["machine"], "connected to")
        if not isinstance(machine, QemuMachine):
            raise HostError(
                f"{machine.name} has no terminal: its type is not Qemu",
                hint="`v2m console` shows its output",
            )
        return {"machine": machine.name, "socket": str(await machine.open_terminal())}

    async def _screenshot(self, request: Request) -> Answer:
        machine = self.machines.require(request["machine"], "captured in a screenshot")
        _refuse_disk(machine, Path(request["picture"]))
        await machine.screenshot(Path(request["picture"]))
        return await _look(machine)


async def _look(machine: Machine) -> Answer:
    state = machine.state
    with contextlib.suppress(HostError):  # it may end just now
        state = await machine.status()
    ssh = None
    with contextlib.suppress(FarmError):
        # libvirt's machines ask virsh, and wait for it.
        waits = not isinstance(machine, QemuMachine)
        host, port = await asyncio.to_thread(machine.ssh_endpoint) if waits else machine.ssh_endpoint()
        ssh = {"host": host, "port": port}
    used = machine.accelerator if isinstance(machine, QemuMachine) else None
    return {
        "machine": machine.name,
        "state": state.value,
        "pid": machine.pid,
        "ssh": ssh,
        "accelerator": used and {"name": used.name, "reason": used.reason, "tried": used.tried},
    }


def _off(name: str) -> Answer:
    return {"machine": name, "state": MachineState.OFF.value, "pid": None, "ssh": None, "accelerator": None}


def _refusal(kind: str, sentence: str, hint: str) -> Answer:
    return {"error": {"class": kind, "sentence": sentence, "hint": hint}}


def _refuse_disk(machine: Machine, path: Path) -> None:
    """Raise UserError where the file to be written is a disk of the machine's, or its CD."""
    profile = machine.profile
    files = [profile.image.path, *(disk.path for disk in profile.virtual_disks), profile.cdrom]
    if isinstance(machine, QemuMachine):
        files.append(None if machine.plan.cdrom is None else str(machine.plan.cdrom))
    for file in files:
        if file is not None and (path == Path(file) or _is_same(path, Path(file))):
            raise UserError(f"{path} is a disk or the CD of {machine.name}; name another file")


def _refuse_others(machine: Machine, state: Path) -> None:
    """Raise UserError where a file would be lost that is no saved state."""
    _refuse_disk(machine, state)
    begin = b""
    with contextlib.suppress(OSError):  # the write itself will say what is wrong
        check_kind(state)
        with state.open("rb") as file:
            begin = file.read(16)
    if begin and not begin.startswith(SAVED_STATES):
        raise UserError(f"{state} exists and is not a saved state; name another file")


def _is_same(one: Path, other: Path) -> bool:
    with contextlib.suppress(OSError):
        return one.samefile(other)
    return False


def _installed(installation: Installation) -> Answer:
    def fields(fingerprint: DiskFingerprint) -> Answer:
        return asdict(fingerprint)

    return {
        "succeeded": installation.succeeded,
        "ended": installation.ended.reason.value,
        "detail": installation.ended.detail,
        "before": fields(installation.before),
        "after": fields(installation.after),
    }


def _path(text: object) -> Path | None:
    return None if text is None else Path(str(text))


async def _say(writer: asyncio.StreamWriter, message: Answer) -> None:
    _write(writer, message)
    await writer.drain()


def _write(writer: asyncio.StreamWriter, message: Answer) -> None:
    writer.write(json_line(message))


async def _stay_alive(writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError):
        while True:
            await asyncio.sleep(ALIVE_SECONDS)
            await _say(writer, {"alive": True})


def main() -> None:
    """`python -m oscar_steps.v2m.daemon.server ROOT SYSTEM READY`, as `client` starts it."""
    root, name, ready = sys.argv[1:]
    system = System(name, Path(root))
    with system.kept():
        ledger.end_leftovers(system.directory)
        eventloop.run(Daemon(system).live(int(ready)))


if __name__ == "__main__":
    main()
