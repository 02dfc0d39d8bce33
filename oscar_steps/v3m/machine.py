"""The back-end interface: what every hypervisor has to offer, in the words of a real machine.

A machine is *off* until `boot`, and off again when it has ended, for whatever reason; it may be booted again then.
The listener receives every change at the moment it happens. Nothing has to be polled.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Self

from oscar_steps.v3m.boot import NO_MEDIA, InstallMedia
from oscar_steps.v3m.profiles.vm import BootDevice, VMProfile


class MachineState(StrEnum):
    """What a machine is doing."""

    OFF = "off"
    RUNNING = "running"
    PAUSED = "paused"
    PANICKED = "panicked"


class EventKind(StrEnum):
    """What happened to a machine. `ended` comes last of every boot, once, with the reason as its detail."""

    STARTED = "started"
    GUEST_RESET = "guest-reset"
    """The guest has rebooted in place (not in an install boot: there a reboot ends the machine)."""
    GUEST_SHUTDOWN = "guest-shutdown"
    PANICKED = "panicked"
    PAUSED = "paused"
    RESUMED = "resumed"
    DISK_ERROR = "disk-error"
    """The host could not write the machine's disk, e.g. since the host's disk is full; the machine is paused then."""
    ENDED = "ended"


class EndReason(StrEnum):
    """Why a machine has ended."""

    GUEST_RESET = "guest-reset"
    """It rebooted in an install boot."""
    GUEST_SHUTDOWN = "guest-shutdown"
    """It powered itself off."""
    GUEST_PANIC = "guest-panic"
    """Its kernel panicked."""
    HOST_POWER_OFF = "host-power-off"
    """We ended it."""
    SAVED = "saved"
    """Its state was written to a file; `restore` goes on from there."""
    MIGRATED = "migrated"
    """It goes on in another process, maybe on another host."""
    HOST_SIGNAL = "host-signal"
    """A signal ended its process."""
    CRASHED = "crashed"
    """The hypervisor's process ended by itself: the host's fault, not the guest's."""


@dataclass(frozen=True, slots=True)
class Ended:
    """How a boot ended. `exit_status` is the hypervisor's, negative for a signal; `detail` its last words, if any."""

    reason: EndReason
    exit_status: int
    detail: str = ""

    @property
    def by_guest(self) -> bool:
        """Whether the guest ended the boot by itself and in order, as an installer does that is done."""
        return self.reason in (EndReason.GUEST_RESET, EndReason.GUEST_SHUTDOWN)


@dataclass(frozen=True, slots=True)
class MachineEvent:
    """Something that happened to `machine` (its name); `time` in seconds since the epoch, as `time.time()` gives it."""

    machine: str
    kind: EventKind
    detail: str = ""
    time: float = field(default_factory=time.time)


Listener = Callable[[MachineEvent], None]


@dataclass(frozen=True, slots=True)
class DiskFingerprint:
    """A disk as seen from outside: taken before and after an install boot, it shows whether any data came.

    `bootable`: the boot sector carries its signature (0x55 0xaa). `allocated_bytes`: of the host's disk.
    """

    first_mib_sha256: str
    allocated_bytes: int
    bootable: bool


@dataclass(frozen=True, slots=True)
class Installation:
    """An install boot that has ended, and the machine's disk before and after it."""

    ended: Ended
    before: DiskFingerprint
    after: DiskFingerprint

    @property
    def succeeded(self) -> bool:
        """Whether the guest ended in order *and* its disk has changed and is bootable. The end alone proves nothing."""
        is_new = self.after.first_mib_sha256 != self.before.first_mib_sha256
        return self.ended.by_guest and self.after.bootable and is_new


class Machine(ABC):
    """One virtual machine. All methods are to be called from the event loop's thread.

    Methods raise MachineLost when the hypervisor does not answer, ImpossibleTransition when the state forbids it.
    """

    def __init__(
        self, profile: VMProfile, run_directory: Path, base_image: Path | None = None, on_event: Listener | None = None
    ) -> None:
        self.profile = profile
        self._directory = run_directory.resolve()
        self._base_image = base_image
        self._on_event = on_event
        self._state = MachineState.OFF

    @property
    def name(self) -> str:
        return self.profile.name

    @property
    def state(self) -> MachineState:
        """What it is doing, according to the events so far. This asks nobody."""
        return self._state

    @property
    def console(self) -> Path:
        """The file that the serial console is written to; it grows with every boot."""
        return self._directory / "console" / f"{self.name}.log"

    @property
    def disk(self) -> Path:
        """Its disk; a relative one lies in the run directory."""
        return self._directory / self.profile.image.path

    @property
    @abstractmethod
    def pid(self) -> int | None:
        """The hypervisor's process, None when the machine is off."""

    @abstractmethod
    async def create(self) -> None:
        """Make its disks, blank or as an overlay on a base image. A disk that is there already is an error."""

    @abstractmethod
    def check_can_start(self) -> None:
        """Raise ImpossibleTransition where it is on, or its disk has not been made."""

    @abstractmethod
    async def boot(self, *, install: BootDevice | None = None, media: InstallMedia = NO_MEDIA) -> None:
        """Power on; returns when the guest's processor runs.

        `install`, CD or network: the disk first, then that, so that a blank disk falls through to the installer; a
        reboot of the guest ends the machine. Without it the disk alone boots, unless the profile gives an order of its
        own (`boot`). A CD is in the drive where the profile or `media` names one.
        """

    async def install(self, source: BootDevice, media: InstallMedia = NO_MEDIA) -> Installation:
        """Install it: one install boot, to its end (there is no limit but the caller's), and a look at the disk.

        The first reboot ends the boot, so that a machine which does not find its disk cannot install itself for ever.
        """
        before = await self.fingerprint()
        await self.boot(install=source, media=media)
        ended = await self.wait_ended()
        return Installation(ended, before, await self.fingerprint())

    @abstractmethod
    async def wait_ended(self) -> Ended:
        """Wait for the end of this boot; at once, with the last one's result, when it has ended already."""

    @abstractmethod
    async def status(self) -> MachineState:
        """What it is doing, as the hypervisor itself says."""

    @abstractmethod
    async def pause(self) -> None:
        """Stop its processors; its memory stays."""

    @abstractmethod
    async def unpause(self) -> None:
        """Go on after `pause`."""

    @abstractmethod
    async def reset(self) -> None:
        """Press the reset button."""

    @abstractmethod
    async def shut_down(self) -> None:
        """Press the power button: the guest may power itself off, or not. Does not wait for it."""

    @abstractmethod
    async def power_off(self) -> None:
        """Pull the plug, and wait for the end. The disk stays. Nothing happens when it is off."""

    @abstractmethod
    async def destroy(self) -> None:
        """Pull the plug and delete the disks that `create` made. Logs stay."""

    @abstractmethod
    async def save(self, state: Path) -> None:
        """Write memory and devices to the file `state`, and end the machine. Until `restore` its disk may not be used.

        Raises HostError where the state cannot be written; the machine then runs on.
        """

    @abstractmethod
    async def restore(self, state: Path) -> None:
        """Go on from a file of `save`, in the very next instruction. The machine has to be off.

        Raises HostError where the file is not a state of a machine with this profile; it is off then.
        """

    @abstractmethod
    async def migrate(self, target: Self) -> None:
        """Let `target` go on with this machine while it runs; this one ends when the other has taken over.

        `target` is off, has the same profile, and the same disk (storage that both hosts see). Raises HostError where
        it does not work: this one then runs on, and `target` is off.
        """

    @abstractmethod
    async def insert_cd(self, iso: Path) -> None:
        """Put a CD into the drive of a machine that is on, in place of the one that is in it.

        Raises ProfileError where it has no drive: it has one when its profile or its boot names a CD.
        """

    @abstractmethod
    async def eject_cd(self) -> None:
        """Take the CD out, also where the guest has locked the drive. Raises ProfileError where there is no drive."""

    @abstractmethod
    async def screenshot(self, path: Path) -> None:
        """Write what its screen shows as PNG."""

    @abstractmethod
    async def fingerprint(self) -> DiskFingerprint:
        """What its disk looks like. The machine has to be off."""

    @abstractmethod
    async def bytes_written(self) -> int:
        """How many bytes the guest has written to its disk in this boot. The machine has to be on."""

    @abstractmethod
    def ssh_endpoint(self) -> tuple[str, int]:
        """Host and port that lead to the guest's SSH server; another port after each boot.

        A connection is accepted before the guest listens: only the server's banner means that it is up. Raises
        ProfileError when no NIC reaches the host.
        """

    async def has_unanswered_ssh(self) -> bool:
        """Whether a connection to `ssh_endpoint` waits for the guest's kernel; False where the hypervisor cannot know.

        A kernel answers within milliseconds, also where the server behind it is slow.
        """
        return False

    @abstractmethod
    def cpu_seconds(self) -> float:
        """CPU seconds of the hypervisor's process, of all boots together."""

    def _emit(self, kind: EventKind, detail: str = "") -> None:
        if self._on_event is not None:
            self._on_event(MachineEvent(self.name, kind, detail))
