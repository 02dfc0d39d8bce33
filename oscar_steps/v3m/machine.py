"""The back-end interface: what every hypervisor has to offer, in the words of the world it stands for.

A machine is *off* until `boot`, and off again when it has ended, for whatever reason; it may be booted again then.
Every change is told to the listener in the moment it happens; nothing here has to be polled.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Self

from oscar_steps.errors import HostError
from oscar_steps.v3m.profile import VMProfile


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
    """Somebody ended its process by a signal."""
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
    """What a disk looks like from outside: taken before and after an install boot, it tells whether anything came.

    `bootable`: the boot sector carries its signature (0x55 0xaa). `allocated_bytes`: of the host's disk.
    """

    first_mib_sha256: str
    allocated_bytes: int
    bootable: bool


class ImpossibleTransition(HostError):
    """A machine was asked for what it cannot do in its state, e.g. to boot while it is running."""


class Machine(ABC):
    """One virtual machine. All methods are to be called from the event loop's thread.

    Methods raise MachineLost when the hypervisor does not answer, ImpossibleTransition when the state forbids it.
    """

    def __init__(self, profile: VMProfile) -> None:
        self.profile = profile

    @property
    def name(self) -> str:
        return self.profile.name

    @property
    @abstractmethod
    def state(self) -> MachineState:
        """What it is doing, as far as the events that have come tell: costs nothing."""

    @property
    @abstractmethod
    def console(self) -> Path:
        """The file that the serial console is written to; it grows with every boot."""

    @property
    @abstractmethod
    def pid(self) -> int | None:
        """The hypervisor's process, None when the machine is off."""

    @abstractmethod
    async def create(self) -> None:
        """Make its disks, blank or as an overlay on a base image. A disk that is there already is an error."""

    @abstractmethod
    async def boot(self, *, install: bool = False, cdrom: Path | None = None) -> None:
        """Power on; returns when the guest's processor runs.

        `install`: the disk first, then CD or network, so that a blank disk falls through to the installer; a reboot of
        the guest ends the machine. `cdrom` takes the place of the profile's CD. Without `install` only the disk boots,
        and no CD is there, unless the profile gives an order of its own (`boot`).
        """

    @abstractmethod
    async def wait_ended(self) -> Ended:
        """Wait for the end of this boot; at once, with the last one's result, when it has ended already."""

    @abstractmethod
    async def status(self) -> MachineState:
        """What the hypervisor itself says that it is doing."""

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
        """Write memory and devices to the file `state`, and end the machine. Until `restore` nobody may touch its disk.

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

    @abstractmethod
    def cpu_seconds(self) -> float:
        """CPU seconds of the hypervisor's process, of all boots together."""
