"""The machines of one system: each is made, started, kept until it ends, and written down in the system's directory."""

from __future__ import annotations

import asyncio
import sys
import traceback
from collections.abc import Awaitable
from contextlib import suppress

from oscar_steps.environment import cache_directory
from oscar_steps.errors import HostError, ImpossibleTransition
from oscar_steps.v2m.daemon.raw_disks import RawDisks
from oscar_steps.v2m.daemon.state import System
from oscar_steps.v2m.daemon.vlan_hub import VlanHub
from oscar_steps.v3m.backend import check_machine, make_libvirts, make_machine
from oscar_steps.v3m.boot import BootPlan
from oscar_steps.v3m.host import ledger
from oscar_steps.v3m.host.accelerator import Accelerator, find_accelerator
from oscar_steps.v3m.host.reservations import Held, Reservations, Room, find_place
from oscar_steps.v3m.host.settings import load_settings
from oscar_steps.v3m.libvirt.domain import is_libvirts
from oscar_steps.v3m.machine import EventKind, Machine, MachineEvent, MachineState
from oscar_steps.v3m.profiles.vm import VMProfile
from oscar_steps.v3m.qemu.machine import QemuMachine


class Machines:
    """The register of the machines that are on."""

    def __init__(self, system: System) -> None:
        self.system = system
        self.vlan_hub = VlanHub(system.directory)
        self.changed = asyncio.Event()
        """Set when something has ended: the daemon may be needed no more."""
        self._raw_disks = RawDisks(system.directory.parent)
        self._machines: dict[str, Machine] = {}
        self._farewells: dict[str, asyncio.Task[None]] = {}
        self._locks: dict[str, asyncio.Lock] = {}
        self._accelerator: Accelerator | None = None
        self._trying = asyncio.Lock()

    def all(self) -> list[Machine]:
        """The machines that are on, or about to be forgotten."""
        return list(self._machines.values())

    def get(self, name: str) -> Machine | None:
        """The machine of this name, None where it is off."""
        machine = self._machines.get(name)
        return None if machine is None or machine.state is MachineState.OFF else machine

    def require(self, name: str, what: str) -> Machine:
        """The machine of this name, which is to be `what`. Raises ImpossibleTransition where it is off."""
        machine = self.get(name)
        if machine is None:
            raise ImpossibleTransition(f"{name} cannot be {what}: it is off", hint="`v2m boot` powers it on")
        return machine

    def hold(self, name: str) -> asyncio.Lock:
        """Held by the one request that powers a machine of this name on or moves it."""
        return self._locks.setdefault(name, asyncio.Lock())

    async def make(self, profile: VMProfile, sockets: list[str] | None = None) -> Machine:
        """A machine that is off. `sockets`: where its NICs on VLANs lead; without them to our own VLAN hub."""
        before = self.get(profile.name)
        if before is not None:
            raise ImpossibleTransition(f"{profile.name} cannot be booted: it is {before.state}")
        await self.until_ended(profile.name)
        disks = (profile.image.path, *(disk.path for disk in profile.virtual_disks))
        await asyncio.to_thread(self._raw_disks.check, profile.name, disks)  # one may be on a storage that hangs
        if is_libvirts(profile):
            return make_libvirts(profile, self.system.directory, self._listen)
        accelerator = await self.find_accelerator()
        settings = check_machine(profile, accelerator, load_settings())
        lines = await self.vlan_hub.lines_of(profile) if sockets is None else sockets
        try:
            return make_machine(profile, self.system.directory, accelerator, settings, lines, self._listen)
        except BaseException:
            await self.vlan_hub.release(profile.name)
            raise

    async def started(self, machine: Machine, starting: Awaitable[None]) -> None:
        """Wait until it is on; where that fails, its lines are given back."""
        try:
            await starting
        except BaseException:
            await self.vlan_hub.release(machine.name)
            raise

    def adopt(self, machine: Machine, profile_file: str) -> None:
        """Keep a machine that is on, until it ends."""
        plan = machine.plan if isinstance(machine, QemuMachine) else BootPlan()
        self._machines[machine.name] = machine
        self._farewells[machine.name] = asyncio.create_task(self._farewell(machine))
        # A machine may have ended already; what its last event has written down stays then.
        is_on = machine.state is not MachineState.OFF
        self.system.update(
            machine.name,
            profile=profile_file,
            cdrom=None if plan.cdrom is None else str(plan.cdrom),
            drive=plan.drive,
            medium=plan.medium,
            **({"on_since_boot": ledger.boot_id(), "ended": ""} if is_on else {}),
        )

    async def _farewell(self, machine: Machine) -> None:
        room = await _noted(machine)
        try:
            await machine.wait_ended()
        except Exception:  # it has ended, whatever was wrong: the next boot of that name must not hear of it
            log(traceback.format_exc())
        finally:
            if room is not None:
                room.release()
            await self.vlan_hub.release(machine.name)
            if self._machines.get(machine.name) is machine:
                del self._machines[machine.name]
            if self._farewells.get(machine.name) is asyncio.current_task():
                del self._farewells[machine.name]
            self.changed.set()

    async def until_ended(self, name: str) -> None:
        """Wait until nothing is left of a machine that ends."""
        if farewell := self._farewells.get(name):
            await asyncio.shield(farewell)

    async def close(self) -> None:
        """Power everything off."""
        for machine in self.all():
            await machine.power_off()
        await asyncio.gather(*self._farewells.values())
        await self.vlan_hub.close()

    def _listen(self, event: MachineEvent) -> None:
        log(f"{event.time:.3f} {event.machine} {event.kind} {event.detail}")
        if event.kind is EventKind.ENDED:
            try:
                self.system.update(event.machine, on_since_boot=None, ended=event.detail)
            except (HostError, OSError) as error:  # the host's disk is full, say: a machine has ended all the same
                log(f"{self.system.directory}/machines.json cannot be written: {error}")

    async def find_accelerator(self) -> Accelerator:
        """What QEMU runs with here; tried when it is asked for first, and again after a trial on a busy host."""
        async with self._trying:
            if self._accelerator is None or self._accelerator.was_busy:
                self._accelerator = await find_accelerator(cache_directory())
        return self._accelerator


async def _noted(machine: Machine) -> Held | None:
    """Let the runs of this host see what the machine takes. It waits for nobody: a person has asked for it now."""
    if not isinstance(machine, QemuMachine):
        return None  # its memory is not one of this process's
    wanted = Room(machine.profile.memory_mib, machine.profile.cpu)
    try:
        return await Reservations(find_place(), wanted).note(f"machine {machine.name} of v2m", wanted)
    except HostError as error:
        log(f"{machine.name} is not among the host's reservations: {error.sentence}")
        return None


def log(text: str) -> None:
    """Into the daemon's log. Where the host's disk is full, the line is lost, and nothing else."""
    with suppress(OSError):
        print(text.rstrip("\n"), file=sys.stderr, flush=True)
