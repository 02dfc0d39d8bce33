"""How one boot of a machine is done, whatever its hypervisor."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from oscar_steps.v3m.profiles.vm import BootDevice, VMProfile


@dataclass(frozen=True, slots=True)
class DirectKernel:
    """A kernel that the hypervisor loads itself, without firmware and boot loader."""

    kernel: Path
    initrd: Path | None = None
    parameters: str = "console=ttyS0"


@dataclass(frozen=True, slots=True)
class InstallMedia:
    """What an installer has to offer; every back-end takes what its machines can use.

    `cdrom`: its CD, in place of the profile's. `kernel`: what its network boot gives out; a machine without firmware,
    which cannot ask for it, is started with it.
    """

    cdrom: Path | None = None
    kernel: DirectKernel | None = None


NO_MEDIA = InstallMedia()


def oscar_medium(profile: VMProfile, media: InstallMedia) -> BootDevice:
    """What OSCAR installs it from: its CD where there is one and a firmware to boot it, otherwise the network."""
    has_firmware = profile.type != "Xen"
    return BootDevice.CDROM if has_firmware and (media.cdrom or profile.cdrom) else BootDevice.NETWORK


@dataclass(frozen=True, slots=True)
class BootPlan:
    """How this boot is done. `medium` None: no installation. `cdrom`: what is in the drive; `drive`: an empty one."""

    medium: BootDevice | None = None
    cdrom: Path | None = None
    drive: bool = False
    seed: Path | None = None
    kernel: DirectKernel | None = None
    incoming: bool = False
    """Nothing is booted: the machine's state comes from another process or from a file."""
    durable: bool = False
    """What the guest has synced outlives a crash of the host; a run's disks need not, and are faster."""
