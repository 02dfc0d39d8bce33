"""The back-end for `Xen` and `XenHVM`: one transient machine of libvirt's, driven by virsh. `VMWare` it refuses.

Such a machine is no child of ours: a guard ends it when we are gone (`guard`). What happens to it is reported by
libvirt's events, which are listened to before it is made. On the hypervisor it has a name and a UUID that belong to its
run directory, so that machines of other runs, and other people's, are never meant.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import subprocess
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

from qemu.qmp import QMPClient, QMPError

from oscar_steps.environment import libvirt_environment
from oscar_steps.errors import (
    FarmError,
    HostError,
    ImpossibleTransition,
    LibvirtRefused,
    MachineLost,
    NotOffered,
    ProfileError,
)
from oscar_steps.v3m import disks
from oscar_steps.v3m.boot import NO_MEDIA, BootPlan, DirectKernel, InstallMedia
from oscar_steps.v3m.consolelog import cut
from oscar_steps.v3m.libvirt import guard
from oscar_steps.v3m.libvirt.client import (
    EventStream,
    LifecycleEvent,
    TerminalReader,
    open_console,
    virsh,
    virsh_command,
)
from oscar_steps.v3m.libvirt.domain import check, disk_format, domain_xml
from oscar_steps.v3m.libvirt.guard import Guard, HostVlans
from oscar_steps.v3m.libvirt.networks import Networks, connection_uri, plan_networks
from oscar_steps.v3m.machine import DiskFingerprint, Ended, EndReason, EventKind, Listener, Machine, MachineState
from oscar_steps.v3m.profiles.vm import BootDevice, VMProfile

START_LIMIT = 300.0
"""Seconds that it may take to make a machine: emulated Xen needs ten, and on a busy host eighty."""
END_LIMIT = 180.0
MOVE_LIMIT = 600.0
ASK_SECONDS = 30.0

_CPU_TIME = re.compile(r"^CPU time: +([0-9.]+)s$", re.MULTILINE)
_LEASE = re.compile(r"\sipv4\s+([0-9.]+)/")

_KEPT = (EndReason.GUEST_PANIC, EndReason.GUEST_RESET, EndReason.CRASHED)
"""After these the hypervisor may still have the machine."""

_STATES = {
    "running": MachineState.RUNNING,
    "idle": MachineState.RUNNING,
    "in shutdown": MachineState.RUNNING,
    "crashed": MachineState.PANICKED,
    "shut off": MachineState.OFF,
}


class LibvirtMachine(Machine):
    """A machine of libvirt's at `uri` (None: this host).

    `networks`: those of the whole cluster, whose VLANs `HostVlans` holds; None: it is alone, and its
    VLANs come and go with each boot. `kernel`: loaded in every boot, for tests.
    """

    def __init__(
        self,
        profile: VMProfile,
        run_directory: Path,
        *,
        uri: str | None = None,
        networks: Networks | None = None,
        base_image: Path | None = None,
        seed: Path | None = None,
        on_event: Listener | None = None,
        kernel: DirectKernel | None = None,
    ) -> None:
        super().__init__(profile, run_directory, base_image, on_event)
        check(profile, BootPlan(kernel=kernel))
        self._uri = uri or connection_uri(profile.type)
        scope = guard.scope_of(self._directory)
        self._own_vlans = HostVlans(self._uri, self._directory) if networks is None else None
        self._networks = networks or plan_networks((profile,), scope=f"{scope}/{profile.name}")
        self._domain = f"{scope}-{profile.name}"
        self._uuid = guard.domain_uuid(self._directory, profile.name)
        self._seed = seed
        self._kernel = kernel
        self._plan = BootPlan(kernel=kernel)
        self._guard: Guard | None = None
        self._events: EventStream | None = None
        self._terminal: TerminalReader | None = None
        self._life: asyncio.Task[Ended] | None = None
        self._resumed = asyncio.Event()
        self._ending = asyncio.Lock()
        self._power_off_asked = False
        self._moving: EndReason | None = None
        self._written = 0
        self._cpu_seconds = 0.0
        self._cpu_this_boot = 0.0

    @property
    def pid(self) -> int | None:
        """None, always: the hypervisor's guests are no processes of this host's."""
        return None

    @property
    def uuid(self) -> str:
        """The machine's UUID on the hypervisor, and in its guest's firmware tables."""
        return self._uuid

    @property
    def _is_a(self) -> str:
        words = {"Xen": "a para-virtual Xen guest", "XenHVM": "a fully virtual Xen guest"}
        return f"{self.name} is {words.get(self.profile.type or '', 'a VMware guest')}"

    async def create(self) -> None:
        self._check_offered()
        form = disk_format(self.profile.image.path)
        if self._base_image is not None and form == "raw":
            raise ProfileError(f"the disk of {self.name}, {self.disk}, is an overlay: its name has to end in .qcow2")
        await disks.create(self.name, self.disk, self._base_image, self.profile.image.size_mib, form)

    # --- power -------------------------------------------------------------------------------------------------------

    async def boot(self, *, install: BootDevice | None = None, media: InstallMedia = NO_MEDIA) -> None:
        self.check_can_start()
        plan = self._boot_plan(install, media)
        definition = domain_xml(self.profile, self._directory, plan, self._networks, name=self._domain, uuid=self._uuid)
        self._plan = plan
        async with self._starting():
            await guard.create(self._uri, "create", definition, "--paused", seconds=START_LIMIT)
            await self._come_alive()

    def _check_offered(self) -> None:
        if self.profile.type == "VMWare":
            why = "which can be defined (see `v2m show`), but not run: libvirt's driver for VMware reports no events"
            raise NotOffered(f"{self._is_a}, {why}; set the type Qemu or Xen")

    def check_can_start(self) -> None:
        self._check_offered()
        if self._guard is not None:
            raise ImpossibleTransition(f"{self.name} cannot be booted: it is {self._state}")
        if not self.disk.exists():
            raise ImpossibleTransition(f"{self.name} cannot be booted: its disk {self.disk} has not been made")

    def _boot_plan(self, install: BootDevice | None, media: InstallMedia) -> BootPlan:
        if self.profile.type == "Xen":
            return self._para_virtual_plan(install, media)
        cdrom = media.cdrom or (None if self.profile.cdrom is None else self._directory / self.profile.cdrom)
        return BootPlan(
            medium=install,
            cdrom=None if cdrom is None else cdrom.resolve(),
            drive=cdrom is not None,
            seed=self._seed,
            kernel=self._kernel,
        )

    def _para_virtual_plan(self, install: BootDevice | None, media: InstallMedia) -> BootPlan:
        """It has no firmware that would ask the network or read a CD, so it is started with the installer's kernel."""
        if install is None:
            return BootPlan(seed=self._seed, kernel=_telling_panics(self._kernel))
        if install is BootDevice.CDROM:
            raise NotOffered(f"{self._is_a}, which has no firmware to boot a CD with: install it from the network")
        kernel = media.kernel or self._kernel
        if kernel is None:
            what = "which has no firmware to ask the network for its installer"
            raise ProfileError(f"{self._is_a}, {what}: name the installer's kernel, and its initrd")
        return BootPlan(medium=BootDevice.NETWORK, seed=self._seed, kernel=_telling_panics(kernel))

    @contextlib.asynccontextmanager
    async def _starting(self) -> AsyncIterator[None]:
        """Guard, VLANs and events first; where the start fails, all of it is taken back."""
        (self._directory / "console").mkdir(exist_ok=True)
        self._life = None
        self._power_off_asked = False
        self._moving = None
        self._written = 0
        self._resumed.clear()
        try:
            self._guard = await Guard.start(self._directory, self.name, virsh_command(self._uri, "destroy", self._uuid))
            if self._own_vlans is not None:
                await self._own_vlans.start(guard.vlan_bridges(self._networks))
            self._events = await EventStream.start(self._uri, self._domain)
            yield
        except BaseException:
            if self._life is None:
                await self._let_go(is_gone=await self._discard())
            else:
                await self.power_off()
            raise

    async def _come_alive(self) -> None:
        """It is there, and paused: its console and its events first, so that nothing is missed."""
        assert self._events is not None
        await self._open_console()
        self._state = MachineState.PAUSED
        self._life = asyncio.create_task(self._live(self._events), name=f"life of {self.name}")
        await virsh(self._uri, "resume", self._uuid)
        try:
            async with asyncio.timeout(START_LIMIT):
                resumed = asyncio.create_task(self._resumed.wait())
                await asyncio.wait({resumed, self._life}, return_when=asyncio.FIRST_COMPLETED)
                resumed.cancel()
        except TimeoutError:
            raise MachineLost(
                f"timed out after {START_LIMIT:.0f} s waiting for libvirt at {self._uri} to start {self.name}"
            ) from None
        if not self._resumed.is_set():
            raise MachineLost(f"{self.name} did not start: {(await self._life).detail or 'it ended at once'}")

    async def _open_console(self) -> None:
        if self._terminal is not None:
            await self._terminal.end()
        self._terminal = await open_console(self._uri, self._uuid, self._write_console)

    def _write_console(self, data: bytes) -> None:
        with self.console.open("ab") as file:
            file.write(data)
        cut(self.console)

    async def wait_ended(self) -> Ended:
        if self._life is None:
            raise ImpossibleTransition(f"{self.name} cannot end: it was never booted")
        return await asyncio.shield(self._life)

    async def power_off(self) -> None:
        if self._life is None or self._life.done():
            return
        self._power_off_asked = True
        await self._sample_cpu()
        await self._discard()
        try:
            async with asyncio.timeout(END_LIMIT):
                await asyncio.shield(self._life)
        except TimeoutError:
            raise MachineLost(
                f"timed out after {END_LIMIT:.0f} s waiting for libvirt at {self._uri} to end {self.name}"
            ) from None

    async def destroy(self) -> None:
        await self.power_off()
        self.disk.unlink(missing_ok=True)

    async def shut_down(self) -> None:
        await self._ask("shutdown")

    async def reset(self) -> None:
        raise NotOffered(f"{self._is_a}, which libvirt cannot reset: power it off, and boot it")

    async def pause(self) -> None:
        await self._ask("suspend")

    async def unpause(self) -> None:
        if self._state is MachineState.PANICKED:
            raise ImpossibleTransition(f"{self.name} cannot go on: its kernel has panicked")
        await self._ask("resume")

    async def _ask(self, command: str, *arguments: str, seconds: float | None = None) -> str:
        """A command about this machine. Raises ImpossibleTransition when it is off."""
        if self._life is None or self._life.done():
            raise ImpossibleTransition(f"{self.name} cannot do '{command}': it is {self._state}")
        return await virsh(self._uri, command, self._uuid, *arguments, seconds=seconds)

    # --- moving it ---------------------------------------------------------------------------------------------------

    async def save(self, state: Path) -> None:
        if state.exists() and not state.is_file():
            raise HostError(f"{self.name} cannot be saved: {state} is not a file", hint="name a new file")
        state.parent.mkdir(parents=True, exist_ok=True)
        await self._leave(EndReason.SAVED, "save", str(state.resolve()))

    async def restore(self, state: Path) -> None:
        self.check_can_start()
        if not state.is_file():
            raise HostError(f"{self.name} cannot be restored: there is no file {state}", hint="`save` makes it")
        saved = guard.saved_uuid(state)
        if saved != self._uuid:
            whose = "not a saved state" if saved is None else f"the state of another machine, {saved}"
            raise HostError(f"the state of {self.name} could not be taken over: {state} is {whose}")
        async with self._starting():
            await virsh(self._uri, "restore", str(state.resolve()), "--paused", seconds=MOVE_LIMIT)
            await self._come_alive()

    async def migrate(self, target: Self) -> None:
        if target.profile != self.profile:
            raise ProfileError(f"{self.name} cannot migrate to {target.name}: its profile is another one")
        if target._uri == self._uri:
            raise NotOffered(f"{self._is_a}; it only migrates to another host")
        raise NotOffered(f"{self._is_a}; its migration to another host is untested and not offered")

    async def _leave(self, reason: EndReason, command: str, *arguments: str) -> None:
        """End here, and go on elsewhere. Raises HostError where it fails; the machine then runs on."""
        self._moving = reason
        try:
            await self._ask(command, *arguments, seconds=MOVE_LIMIT)
        except FarmError:
            self._moving = None
            raise
        await self.wait_ended()

    # --- its CD drive ------------------------------------------------------------------------------------------------

    async def insert_cd(self, iso: Path) -> None:
        if not iso.exists():
            raise HostError(f"the CD {iso} cannot be put into the drive of {self.name}: there is no such file")
        await self._change_cd(str(iso.resolve()), "--update")
        self._plan = replace(self._plan, cdrom=iso.resolve())

    async def eject_cd(self) -> None:
        await self._change_cd("--eject")
        self._plan = replace(self._plan, cdrom=None)

    async def _change_cd(self, *arguments: str) -> None:
        if self.profile.type != "XenHVM":
            raise NotOffered(f"{self._is_a}, whose drive, if any, keeps its CD while it runs")
        if not self._plan.drive:
            raise ProfileError(f"{self.name} has no CD drive: give its profile a <cdrom>, or a CD to its boot")
        await self._ask("change-media", "hdc", *arguments, "--live", "--force")

    # --- looking at it -----------------------------------------------------------------------------------------------

    async def status(self) -> MachineState:
        if self._life is None or self._life.done():
            return MachineState.OFF
        return await self._domain_state()

    async def _domain_state(self) -> MachineState:
        """What the hypervisor says. A machine that it does not know is off."""
        try:
            word = (await virsh(self._uri, "domstate", self._uuid)).strip()
        except LibvirtRefused:
            return MachineState.OFF
        return _STATES.get(word, MachineState.PAUSED)

    async def screenshot(self, path: Path) -> None:  # noqa: ARG002 - none is written
        what = "which has no screen" if self.profile.type == "Xen" else "of which libvirt takes no screenshots"
        raise NotOffered(f"{self._is_a}, {what}: read its console {self.console}")

    async def fingerprint(self) -> DiskFingerprint:
        if self._guard is not None:
            raise ImpossibleTransition(f"the disk of {self.name} cannot be looked at: the machine is {self._state}")
        return await disks.fingerprint(self.disk, disk_format(self.profile.image.path))

    async def bytes_written(self) -> int:
        """As in the interface; when the machine has just ended, what was seen last (0 after a new boot)."""
        if not self._uri.startswith("xen:///"):
            raise NotOffered(f"{self._is_a} at {self._uri}, where libvirt does not report how much it writes")
        with contextlib.suppress(HostError):
            self._written = await written_by(await self._ask("domid"), self.name)
        return self._written

    def ssh_endpoint(self) -> tuple[str, int]:
        """The address that libvirt's network has given to it, as libvirt reports it: this waits for virsh.

        Raises ImpossibleTransition until the guest has asked the network for an address.
        """
        if not self.profile.host_nics:
            raise ProfileError(f"{self.name} cannot be reached by SSH from the host: it has no NIC of type TUN/TAP+NAT")
        if self._state is MachineState.OFF:
            raise ImpossibleTransition(f"{self.name} cannot be reached by SSH: it is {self._state}")
        nic = self.profile.host_nics[0]
        if nic.type == "BRIDGED_TAP":
            raise NotOffered(f"{self._is_a}; libvirt knows no address on a network that others manage")
        command = virsh_command(self._uri, "net-dhcp-leases", self._networks.nat, "--mac", nic.mac)
        try:
            leases = subprocess.run(
                command,
                timeout=ASK_SECONDS,
                check=False,
                capture_output=True,
                text=True,
                errors="replace",
                env=libvirt_environment(),
            ).stdout
        except subprocess.TimeoutExpired:
            raise MachineLost(f"libvirt at {self._uri} did not report the address of {self.name}") from None
        found = _LEASE.search(leases)
        if found is None:
            raise ImpossibleTransition(f"{self.name} cannot be reached by SSH yet: its guest has asked for no address")
        return found[1], 22

    def cpu_seconds(self) -> float:
        """Of all boots together, as far as was asked: libvirt forgets a machine's time with the machine."""
        return self._cpu_seconds + self._cpu_this_boot

    async def _sample_cpu(self) -> None:
        with contextlib.suppress(HostError):
            self._cpu_this_boot = cpu_time(await virsh(self._uri, "dominfo", self._uuid))

    # --- its life ----------------------------------------------------------------------------------------------------

    async def _live(self, events: EventStream) -> Ended:
        """Follow one boot from its first event to its last, and report it."""
        self._emit(EventKind.STARTED, f"{self._domain} at {self._uri}")
        try:
            ended = await self._until_last(events)
        except HostError as error:  # libvirt does not answer any more
            ended = Ended(EndReason.CRASHED, -1, error.sentence)
        is_kept = ended.reason in _KEPT
        await self._let_go(is_gone=not is_kept or await self._discard())
        self._cpu_seconds += self._cpu_this_boot
        self._cpu_this_boot = 0.0
        self._emit(EventKind.ENDED, f"{ended.reason}{f': {ended.detail}' if ended.detail else ''}")
        return ended

    async def _until_last(self, events: EventStream) -> Ended:
        async for event in events:
            ended = await self._on_event_of(event)
            if ended is not None:
                return ended
        return Ended(EndReason.CRASHED, -1, f"libvirt's events ended: {events.last_words or 'it said nothing'}")

    async def _on_event_of(self, event: LifecycleEvent) -> Ended | None:
        """What an event means; not None when it was the machine's last."""
        match event.what, event.detail:
            case "Resumed", _ if not self._resumed.is_set():
                self._state = MachineState.RUNNING
                self._resumed.set()
            case (("Suspended" | "Resumed"), _) if self._moving is not None:
                pass
            case "Suspended", _ if self._state is MachineState.RUNNING and self._resumed.is_set():
                self._state = MachineState.PAUSED
                self._emit(EventKind.PAUSED)
            case "Resumed", _ if self._state is MachineState.PAUSED:
                self._state = MachineState.RUNNING
                self._emit(EventKind.RESUMED)
            case "Stopped", "Shutdown":
                return await self._after_shutdown()
            case ("Stopped", "Crashed") | ("Crashed", _):
                self._state = MachineState.PANICKED
                self._emit(EventKind.PANICKED)
                return Ended(EndReason.GUEST_PANIC, 0)
            case "Stopped", _:
                return self._judge(event.detail)
        return None

    async def _after_shutdown(self) -> Ended | None:
        """The guest has rebooted or powered itself off, which is one event of libvirt's: what is left shows which.

        Powered off, it is gone from the hypervisor. Rebooted in an install boot, it is kept (`on_reboot`). Rebooted in
        any other, it runs again, under the same UUID, with another console.
        """
        if self._power_off_asked:
            return Ended(EndReason.HOST_POWER_OFF, 0)
        try:
            word = (await virsh(self._uri, "domstate", self._uuid)).strip()
        except LibvirtRefused:
            self._emit(EventKind.GUEST_SHUTDOWN)
            return Ended(EndReason.GUEST_SHUTDOWN, 0)
        self._emit(EventKind.GUEST_RESET)
        if word == "shut off" and self._plan.medium is not None:
            return Ended(EndReason.GUEST_RESET, 0)
        await self._open_console()
        return None

    def _judge(self, detail: str) -> Ended:
        if self._moving is not None:
            return Ended(self._moving, 0)
        if self._power_off_asked:
            return Ended(EndReason.HOST_POWER_OFF, 0)
        if detail == "Destroyed":
            return Ended(EndReason.HOST_SIGNAL, 0, "another process on the host ended it, not this run")
        return Ended(EndReason.CRASHED, 0, f"libvirt says: {detail}")

    async def _discard(self) -> bool:
        """End what may be left of it on the hypervisor; whether nothing is.

        One at a time: the end of its life and `power_off` may both come here.
        """
        async with self._ending:
            try:
                await virsh(self._uri, "destroy", self._uuid, seconds=END_LIMIT)
            except LibvirtRefused:  # it is not there (any more)
                return True
            except HostError:
                return False
            return True

    async def _let_go(self, *, is_gone: bool) -> None:
        """We have done with this boot. What is left on the hypervisor (it did not answer) is the guard's."""
        if self._terminal is not None:
            await self._terminal.end()
        if self._events is not None:
            await self._events.end()
        if self._own_vlans is not None:
            await self._own_vlans.end()
        if self._guard is not None:
            await (self._guard.release() if is_gone else self._guard.abandon())
        self._terminal = self._events = self._guard = None
        self._state = MachineState.OFF


def _telling_panics(kernel: DirectKernel | None) -> DirectKernel | None:
    """Without this word a para-virtual Linux reports a panic to Xen as an ordinary reboot, or not at all."""
    return None if kernel is None else replace(kernel, parameters=f"{kernel.parameters} xen_legacy_crash")


def cpu_time(dominfo: str) -> float:
    """Seconds of CPU, out of what `virsh dominfo` prints; 0 where it does not say."""
    match = _CPU_TIME.search(dominfo)
    return float(match[1]) if match else 0.0


async def written_by(domain_id: str, machine: str) -> int:
    """What a guest has written to its disks, asked of the QEMU that serves them on this host.

    libvirt's Xen driver counts only for disks that are devices of the host. Raises MachineLost.
    """
    socket = f"/run/xen/qmp-libxl-{domain_id.strip()}"
    qmp = QMPClient(machine)
    try:
        async with asyncio.timeout(ASK_SECONDS):
            await qmp.connect(socket)
            answer: Any = await qmp.execute("query-blockstats")
    except (TimeoutError, QMPError, OSError) as error:
        raise MachineLost(f"the QEMU that serves the disks of {machine} did not answer at {socket}: {error}") from None
    finally:
        with contextlib.suppress(QMPError, OSError, EOFError):
            await qmp.disconnect()
    return sum(int(disk["stats"]["wr_bytes"]) for disk in answer)
