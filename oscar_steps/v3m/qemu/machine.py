"""The back-end for `Qemu` and `Kvm`: one QEMU process per machine, held by QMP over a socket pair that has no path.

The process is our child, and dies with us, also after a `kill -9`. QEMU's own event says why it ended. The exit of the
process says that it ended. We wait for both, and poll neither.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import tempfile
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Self, cast

import psutil
from qemu.qmp import ConnectError, ExecInterruptedError, ExecuteError, Message, QMPClient, QMPError, Runstate

from oscar_steps.environment import machine_environment
from oscar_steps.errors import HostError, ImpossibleTransition, MachineLost, ProfileError
from oscar_steps.v3m import disks
from oscar_steps.v3m.boards import board_of
from oscar_steps.v3m.boot import NO_MEDIA, BootPlan, DirectKernel, InstallMedia
from oscar_steps.v3m.consolelog import KEPT_BYTES, keep_small
from oscar_steps.v3m.host import ledger
from oscar_steps.v3m.host.accelerator import Accelerator, emulator
from oscar_steps.v3m.host.confinement import confined
from oscar_steps.v3m.machine import DiskFingerprint, Ended, EndReason, EventKind, Listener, Machine, MachineState
from oscar_steps.v3m.profiles.vm import BootDevice, VMProfile
from oscar_steps.v3m.qemu import firmware
from oscar_steps.v3m.qemu.command import CD_DRIVE, qemu_arguments
from oscar_steps.v3m.qemu.network import SINK, VLAN_DIRECTORY, MachineNetwork, has_unanswered_ssh, ssh_port
from oscar_steps.v3m.qemu.state import Mover

QMP_LIMIT = START_LIMIT = 60.0
"""Seconds that QEMU may take to answer, or to greet after its start; a loaded host needs a few."""
QUIT_LIMIT = 20.0
REBOOT_SECONDS = 1.0
"""No guest gets from one reboot to the next in less."""

_HOST_RESET = "host-qmp-system-reset"

_STATES = {"running": MachineState.RUNNING, "guest-panicked": MachineState.PANICKED}


class QemuMachine(Machine):
    """A machine in a QEMU process of ours. `head`: whose VLAN it joins; `kernel`: loaded in every boot, for tests.

    `durable`: its disks are to outlive a crash of the host.
    """

    def __init__(
        self,
        profile: VMProfile,
        run_directory: Path,
        accelerator: Accelerator,
        network: MachineNetwork,
        *,
        head: Machine | None = None,
        base_image: Path | None = None,
        seed: Path | None = None,
        on_event: Listener | None = None,
        kernel: DirectKernel | None = None,
        durable: bool = False,
    ) -> None:
        super().__init__(profile, run_directory, base_image, on_event)
        self.accelerator = accelerator
        self._network = network
        self._head = head
        self._seed = seed
        self._kernel = kernel
        self._process: asyncio.subprocess.Process | None = None
        self._qmp: QMPClient | None = None
        self._life: asyncio.Task[Ended] | None = None
        self._panic: asyncio.Task[None] | None = None
        self._shutdown_reason = ""
        self._power_off_asked = False
        self._moved: EndReason | None = None
        self._durable = durable
        self._plan = BootPlan(kernel=kernel, durable=durable)
        self._mover = Mover(self)
        self._errors_begin = 0
        self._last_reset = 0.0
        self._ssh_port: int | None = None
        self._disk_format: str | None = None
        self._written = 0
        self._terminals = 0
        self._cpu_before = 0.0
        self._cpu_this_boot = 0.0

    @property
    def pid(self) -> int | None:
        return None if self._process is None else self._process.pid

    @property
    def plan(self) -> BootPlan:
        """How the last boot was done, and what is in the drive now: its state fits only a machine with the same."""
        return self._plan

    @plan.setter
    def plan(self, plan: BootPlan) -> None:
        """For `restore` of what another process saved."""
        self._plan = plan

    @property
    def _error_log(self) -> Path:
        return self._directory / "console" / f"{self.name}.qemu.log"

    async def create(self) -> None:
        await disks.create(self.name, self.disk, self._base_image, self.profile.image.size_mib)

    # --- power -------------------------------------------------------------------------------------------------------

    async def boot(self, *, install: BootDevice | None = None, media: InstallMedia = NO_MEDIA) -> None:
        self.check_can_start()
        cdrom = media.cdrom or self._profile_cdrom()
        self._plan = BootPlan(
            medium=install,
            cdrom=None if cdrom is None else cdrom.resolve(),
            drive=cdrom is not None,
            seed=None if self._seed is None else self._seed.resolve(),
            kernel=self._kernel,
            durable=self._durable,
        )
        await self._start(self._plan, self._go)

    def check_can_start(self) -> None:
        if self._process is not None:
            raise ImpossibleTransition(f"{self.name} cannot be booted: it is {self._state}")
        if self._head is not None and self._head.state is MachineState.OFF:
            # QEMU 7.2 would go on without its VLAN, say nothing, and never try again.
            raise ImpossibleTransition(f"{self.name} cannot be booted: {self._head.name}, which holds its VLAN, is off")
        if not self.disk.is_file():
            raise ImpossibleTransition(f"{self.name} cannot be booted: its disk {self.disk} has not been made")

    async def _go(self) -> None:
        await self.execute("cont")

    async def _start(self, plan: BootPlan, and_then: Callable[[], Awaitable[None]]) -> None:
        """Start QEMU; where `and_then` fails, it is ended again."""
        ours, theirs = socket.socketpair()
        try:
            with contextlib.closing(theirs):
                await self._spawn(plan, theirs)
            await self._connect(ours)
            await and_then()
        except BaseException:
            if self._qmp is None:  # no other task has it yet
                ours.close()
            await self._end_process()
            raise

    def _profile_cdrom(self) -> Path | None:
        return None if self.profile.cdrom is None else self._directory / self.profile.cdrom

    async def _spawn(self, plan: BootPlan, qmp: socket.socket) -> None:
        for folder, mode in (("console", 0o755), (VLAN_DIRECTORY, 0o700)):
            (self._directory / folder).mkdir(mode=mode, exist_ok=True)
        # In a thread: it waits for the disk, which on a busy host takes half a minute.
        await asyncio.to_thread(firmware.prepare, self.profile, self._directory)
        self._disk_format = disks.image_format(self.disk)
        console = str(self.console.relative_to(self._directory))
        arguments = qemu_arguments(
            self.profile,
            self._network,
            self.accelerator,
            plan,
            console=console,
            qmp_fd=qmp.fileno(),
            directory=self._directory,
        )
        self._shutdown_reason = ""
        self._power_off_asked = False
        self._moved = None
        self._panic = None
        self._life = None
        self._written = 0
        with self._error_log.open("ab") as errors:
            self._errors_begin = errors.tell()
            self._process = await asyncio.create_subprocess_exec(
                *confined([emulator(board_of(self.profile)), *arguments], self.profile.memory_mib, self.profile.cpu),
                cwd=self._directory,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=errors,
                stderr=errors,
                env=machine_environment(),
                pass_fds=(qmp.fileno(), *self._network.descriptors),
                start_new_session=True,  # Ctrl-C is for us: we end it, in order
            )
        ledger.record(self._directory, self.name, self._process.pid)

    async def _connect(self, ours: socket.socket) -> None:
        assert self._process is not None
        self._qmp = QMPClient(self.name)
        try:
            async with asyncio.timeout(START_LIMIT):
                await self._qmp.connect(ours)
        except TimeoutError:
            ours.close()
            raise MachineLost(f"timed out after {START_LIMIT:.0f} s waiting for QEMU of {self.name} to start") from None
        except ConnectError:
            ours.close()
            await self._process.wait()
            raise MachineLost(f"QEMU of {self.name} did not start: {self.last_error()}") from None
        self._state = MachineState.RUNNING
        self._emit(EventKind.STARTED, f"pid {self._process.pid}, {self.accelerator.name}")
        self._life = asyncio.create_task(self._live(self._qmp, self._process), name=f"life of {self.name}")
        if self.profile.host_nics:
            self._ssh_port = ssh_port(await self._usernet())

    async def _usernet(self) -> str:
        return str(await self.execute("human-monitor-command", {"command-line": "info usernet"}))

    def pass_descriptor(self, descriptor: int) -> None:
        """Hand QEMU a descriptor, for the next command."""
        if self._qmp is None:
            raise ImpossibleTransition(f"{self.name} cannot be given a descriptor: it is {self._state}")
        self._qmp.send_fd_scm(descriptor)

    async def wait_ended(self) -> Ended:
        if self._life is None:
            raise ImpossibleTransition(f"{self.name} cannot end: it was never booted")
        return await asyncio.shield(self._life)

    async def power_off(self) -> None:
        if self._life is None or self._life.done():
            return
        self._power_off_asked = True
        self._sample_cpu()
        try:
            async with asyncio.timeout(QUIT_LIMIT):
                # QEMU may close the connection before it has answered, or have ended just now: an answer, too.
                with contextlib.suppress(MachineLost, ImpossibleTransition):
                    await self.execute("quit")
                await asyncio.shield(self._life)
        except TimeoutError:
            await self._end_process()
            await asyncio.shield(self._life)

    # --- moving it ---------------------------------------------------------------------------------------------------

    async def save(self, state: Path) -> None:
        cannot = f"{self.name} cannot be saved"
        with _host_errors(cannot, state):
            if state.exists() and not state.is_file():
                raise HostError(f"{cannot}: {state} is not a file", hint="name a new file")
            state.parent.mkdir(parents=True, exist_ok=True)
            descriptor, name = tempfile.mkstemp(prefix=".v2m-", dir=state.parent)
        temporary = Path(name)
        try:
            with os.fdopen(descriptor, "wb") as file:
                await self.send_state(file.fileno(), EndReason.SAVED, stop_first=True)
            temporary.replace(state)
        except OSError:
            await self._mover.go_on_here()
            with _host_errors(cannot, state):
                raise
        finally:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)
        await self.leave(EndReason.SAVED)

    async def restore(self, state: Path) -> None:
        if not state.is_file():
            raise HostError(f"{self.name} cannot be restored: there is no file {state}", hint="`save` makes it")
        with state.open("rb") as file:
            await self.receive_state(self._plan, file.fileno())
        try:
            await self._go()
        except BaseException:  # e.g. another machine has its disk
            await self.power_off()
            raise

    async def migrate(self, target: Self) -> None:
        if target.profile != self.profile:
            raise ProfileError(f"{self.name} cannot migrate to {target.name}: its profile is another one")
        if set(self._network.taps) & set(target._network.taps):
            raise HostError(f"{self.name} cannot migrate: its target has the same taps, and a tap has one user only")
        target.check_can_start()
        target._plan = self._plan
        paused = await self.status() is MachineState.PAUSED
        here, there = socket.socketpair()
        with here, there:
            receiving: list[asyncio.Task[None]] = []

            async def receive() -> None:
                receiving.append(asyncio.create_task(target._mover.receive(there.fileno())))
                await self.send_state(here.fileno(), EndReason.MIGRATED)
                await receiving[0]

            try:
                await target._start(replace(self._plan, incoming=True), receive)
            except BaseException:
                if not paused:
                    await self._mover.go_on_here()
                raise
            finally:
                for task in receiving:
                    task.cancel()
                await asyncio.gather(*receiving, return_exceptions=True)
        # The disk is given up here before it is taken there: two QEMUs never write to one.
        await self.leave(EndReason.MIGRATED)
        if paused:
            target._state = MachineState.PAUSED
        else:
            await target._go()

    async def send_state(self, descriptor: int, reason: EndReason, *, stop_first: bool = False) -> None:
        """Send memory and devices into `descriptor`; it stands still then, until `leave` or `go_on`.

        Raises HostError where it fails; the machine then runs on.
        """
        await self._mover.send(descriptor, reason, stop_first=stop_first)

    async def receive_state(self, plan: BootPlan, descriptor: int) -> None:
        """Start with what `send_state` of a machine with the same plan sends; it stands still until `go_on`."""
        self.check_can_start()
        self._plan = plan
        await self._start(replace(plan, incoming=True), lambda: self._mover.receive(descriptor))

    async def go_on(self) -> None:
        """Run after `send_state` or `receive_state`."""
        await self._go()

    async def leave(self, reason: EndReason) -> None:
        """End the process whose machine goes on elsewhere."""
        self._moved = reason
        await self.power_off()

    async def destroy(self) -> None:
        await self.power_off()
        self.disk.unlink(missing_ok=True)
        firmware.forget(self.profile, self._directory)

    async def shut_down(self) -> None:
        await self.execute("system_powerdown")

    async def reset(self) -> None:
        await self.execute("system_reset")

    async def pause(self) -> None:
        await self.execute("stop")

    async def unpause(self) -> None:
        if self._state is MachineState.PANICKED:
            raise ImpossibleTransition(f"{self.name} cannot go on: its kernel has panicked")
        await self.execute("cont")

    # --- its CD drive ------------------------------------------------------------------------------------------------

    async def insert_cd(self, iso: Path) -> None:
        if not iso.exists():
            raise HostError(f"the CD {iso} cannot be put into the drive of {self.name}: there is no such file")
        self._check_has_drive()
        path = iso.resolve()
        arguments = {"id": CD_DRIVE, "filename": str(path), "format": "raw", "read-only-mode": "read-only"}
        await self.execute("blockdev-change-medium", {**arguments, "force": True})
        self._plan = replace(self._plan, cdrom=path)

    async def eject_cd(self) -> None:
        self._check_has_drive()
        await self.execute("eject", {"id": CD_DRIVE, "force": True})
        self._plan = replace(self._plan, cdrom=None)

    def _check_has_drive(self) -> None:
        if self._process is not None and not self._plan.drive:
            raise ProfileError(f"{self.name} has no CD drive: give its profile a <cdrom>, or a CD to its boot")

    # --- looking at it -----------------------------------------------------------------------------------------------

    async def status(self) -> MachineState:
        if self._process is None:
            return MachineState.OFF
        answer: Any = await self.execute("query-status")
        return _STATES.get(str(answer["status"]), MachineState.PAUSED)

    async def screenshot(self, path: Path) -> None:
        with _host_errors(f"{self.name} cannot be captured in a screenshot", path):
            path.parent.mkdir(parents=True, exist_ok=True)
        await self.execute("screendump", {"filename": str(path.resolve()), "format": "png"})

    async def open_terminal(self) -> Path:
        """A socket on the serial console, for the client that connected last. The console's file is written as well.

        An attached client must keep reading, or the guest blocks. With no client, output goes to the file alone.
        """
        # Each time another path: the last one's is removed when its socket goes, after the new one is there.
        self._terminals += 1
        path = Path("console") / f"{self.name}.{self._terminals}.sock"
        address = {"type": "unix", "data": {"path": str(path)}}
        log = {"logfile": str(self.console.relative_to(self._directory)), "logappend": True}
        data = {"addr": address, "server": True, "wait": False, **log}
        backend = {"type": "socket", "data": data}
        await self.execute("chardev-change", {"id": "console", "backend": backend})
        return self._directory / path

    async def fingerprint(self) -> DiskFingerprint:
        if self._process is not None:
            raise ImpossibleTransition(f"the disk of {self.name} cannot be looked at: the machine is {self._state}")
        return await disks.fingerprint(self.disk, self._disk_format or disks.image_format(self.disk))

    async def bytes_written(self) -> int:
        """As in the interface; when the machine has just ended, what was seen last (0 after a new boot)."""
        with contextlib.suppress(MachineLost, ImpossibleTransition):
            answer: Any = await self.execute("query-blockstats")
            self._written = next(int(d["stats"]["wr_bytes"]) for d in answer if d.get("device") == "disk0")
        return self._written

    def ssh_endpoint(self) -> tuple[str, int]:
        if not self._network.forwards_ssh:
            raise ProfileError(f"{self.name} cannot be reached by SSH from the host: it has no NIC of type TUN/TAP+NAT")
        if self._process is None or self._ssh_port is None:
            raise ImpossibleTransition(f"{self.name} cannot be reached by SSH: it is {self._state}")
        return "127.0.0.1", self._ssh_port

    async def has_unanswered_ssh(self) -> bool:
        return has_unanswered_ssh(await self._usernet())

    def cpu_seconds(self) -> float:
        self._sample_cpu()
        return self._cpu_before + self._cpu_this_boot

    def _sample_cpu(self) -> None:
        """The kernel forgets a process's time with the process, so it is noted down whenever something happens."""
        if self._process is not None:
            with contextlib.suppress(psutil.Error):
                times = psutil.Process(self._process.pid).cpu_times()
                self._cpu_this_boot = times.user + times.system

    # --- QMP ---------------------------------------------------------------------------------------------------------

    async def execute(self, command: str, arguments: dict[str, object] | None = None) -> object:
        """A command's answer. Raises MachineLost when QEMU is gone or silent, HostError when it refuses."""
        qmp = self._qmp
        if qmp is None or qmp.runstate is not Runstate.RUNNING:
            raise ImpossibleTransition(f"{self.name} cannot do '{command}': it is {self._state}")
        try:
            async with asyncio.timeout(QMP_LIMIT):
                return await qmp.execute(command, arguments)
        except ExecuteError as error:
            raise HostError(f"QEMU of {self.name} refused '{command}': {error}") from None
        except TimeoutError:
            raise MachineLost(
                f"timed out after {QMP_LIMIT:.0f} s waiting for QEMU of {self.name} to answer '{command}'"
            ) from None
        except (ExecInterruptedError, QMPError, OSError, EOFError):
            raise MachineLost(f"QEMU of {self.name} ended during '{command}'") from None

    async def _live(self, qmp: QMPClient, process: asyncio.subprocess.Process) -> Ended:
        """Follow one boot from its first event to the process's end, and report it."""
        events = asyncio.create_task(self._follow(qmp))
        logs = asyncio.create_task(keep_small((self.console, self._error_log)))
        try:
            exit_status = await process.wait()
            # What QEMU wrote last may still be in the socket: the reader ends only behind it.
            while qmp.runstate is Runstate.RUNNING:
                await qmp.runstate_changed()
            for message in qmp.events.clear():
                self._on_message(message)
        finally:
            events.cancel()
            logs.cancel()
            if self._panic is not None:
                self._panic.cancel()
            with contextlib.suppress(QMPError, OSError, EOFError):
                await qmp.disconnect()
        ended = self._judge(exit_status)
        self._cpu_before += self._cpu_this_boot
        self._cpu_this_boot = 0.0
        self._state = MachineState.OFF
        self._process = None
        self._qmp = None
        self._ssh_port = None
        # Where the host's disk is full its line stays: the process in it has ended, which its start time proves.
        with contextlib.suppress(OSError):
            ledger.forget(self._directory, self.name)
        self._emit(EventKind.ENDED, f"{ended.reason}{f': {ended.detail}' if ended.detail else ''}")
        return ended

    async def _follow(self, qmp: QMPClient) -> None:
        async for message in qmp.events:
            self._sample_cpu()
            self._on_message(message)

    def _on_message(self, message: Message) -> None:
        data = cast(dict[str, object], message.get("data", {}))
        match message["event"]:
            case "MIGRATION":
                self._mover.on_status(str(data["status"]))
            case "STOP" | "RESUME" if self._mover.is_moving or self._moved is not None:
                pass
            case "SHUTDOWN":
                self._shutdown_reason = str(data.get("reason", ""))
                if self._shutdown_reason == EndReason.GUEST_RESET:
                    self._emit(EventKind.GUEST_RESET)
                elif self._shutdown_reason == EndReason.GUEST_SHUTDOWN:
                    self._emit(EventKind.GUEST_SHUTDOWN)
            case "RESET" if data.get("guest"):
                self._on_guest_reset(message)
            case "GUEST_PANICKED":
                self._state = MachineState.PANICKED
                self._emit(EventKind.PANICKED)
                self._panic = asyncio.create_task(self._end_after_panic(), name=f"panic of {self.name}")
            case "BLOCK_IO_ERROR":
                self._emit(EventKind.DISK_ERROR, str(data.get("reason", "")))
            case "STOP" if self._state is MachineState.RUNNING and not self._shutdown_reason:
                self._state = MachineState.PAUSED
                self._emit(EventKind.PAUSED)
            case "RESUME" if self._state is MachineState.PAUSED:
                self._state = MachineState.RUNNING
                self._emit(EventKind.RESUMED)

    def _on_guest_reset(self, message: Message) -> None:
        """Report one reboot once: Linux tries several ways to reset in a row, and QEMU sends an event for each."""
        timestamp = cast(dict[str, int], message["timestamp"])
        now = timestamp["seconds"] + timestamp["microseconds"] / 1e6
        if now - self._last_reset > REBOOT_SECONDS:
            self._emit(EventKind.GUEST_RESET)
            self._last_reset = now

    async def _end_after_panic(self) -> None:
        """Keep a screenshot of the dead machine, then end it."""
        with contextlib.suppress(HostError):
            await self.screenshot(self._directory / "screens" / f"{self.name}-panic.png")
        with contextlib.suppress(HostError):
            await self.execute("quit")

    async def _end_process(self) -> None:
        """Kill QEMU, which is our child: its id cannot have been given to another before we have waited for it."""
        process = self._process
        if process is None:
            return
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
        await process.wait()
        if self._life is None:  # it never came to life; otherwise that task does the rest
            self._process = None
            self._qmp = None
            self._state = MachineState.OFF
            with contextlib.suppress(OSError):  # as above
                ledger.forget(self._directory, self.name)

    def _judge(self, exit_status: int) -> Ended:
        if self._moved is not None:
            return Ended(self._moved, exit_status)
        if self._state is MachineState.PANICKED:
            return Ended(EndReason.GUEST_PANIC, exit_status)
        if self._shutdown_reason in (EndReason.GUEST_RESET, EndReason.GUEST_SHUTDOWN, EndReason.GUEST_PANIC):
            return Ended(EndReason(self._shutdown_reason), exit_status)
        if self._power_off_asked or self._shutdown_reason == _HOST_RESET:
            why = "" if self._power_off_asked else "its reset button was pressed, which ends an install boot"
            return Ended(EndReason.HOST_POWER_OFF, exit_status, why)
        if self._shutdown_reason == EndReason.HOST_SIGNAL or exit_status in (-signal.SIGKILL, -signal.SIGTERM):
            by = signal.Signals(-exit_status).name if exit_status < 0 else "a signal"
            return Ended(EndReason.HOST_SIGNAL, exit_status, f"QEMU was ended by {by}, which was not sent by this run")
        return Ended(EndReason.CRASHED, exit_status, self.last_error())

    def last_error(self) -> str:
        """The last line that QEMU wrote in this boot."""
        with self._error_log.open("rb") as errors:
            errors.seek(min(self._errors_begin, KEPT_BYTES))
            lines = errors.read().decode(errors="replace").strip().splitlines()
        return next((line for line in reversed(lines) if SINK not in line), "it said nothing")


@contextlib.contextmanager
def _host_errors(what: str, path: Path) -> Iterator[None]:
    """What is wrong with a place that the user has named, as HostError."""
    try:
        yield
    except OSError as error:
        raise HostError(f"{what}: {path}: {error.strerror or error}") from None
