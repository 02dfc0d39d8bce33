"""The one place where a profile's `type` picks the class of a machine that comes and goes by itself."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from oscar_steps.errors import ProfileError
from oscar_steps.v3m.host.accelerator import Accelerator
from oscar_steps.v3m.host.settings import HostSettings
from oscar_steps.v3m.libvirt.machine import LibvirtMachine
from oscar_steps.v3m.machine import Listener, Machine
from oscar_steps.v3m.profiles.vm import VMProfile
from oscar_steps.v3m.qemu import network
from oscar_steps.v3m.qemu.machine import QemuMachine
from oscar_steps.v3m.runtime import check_backend, make_taps


def make_libvirts(profile: VMProfile, directory: Path, on_event: Listener) -> Machine:
    """A machine of libvirt's that is off, its files in `directory`. Raises ProfileError for what that cannot do."""
    if profile.vlan_nics:
        what = f"{profile.name} is of type {profile.type} and on a VLAN, where it would be alone"
        raise ProfileError(what, hint="set the type Qemu, whose machines share their VLANs")
    return LibvirtMachine(profile, directory, on_event=on_event)


def check_machine(profile: VMProfile, accelerator: Accelerator, settings: HostSettings) -> HostSettings:
    """The settings as they are for machines that come and go: their VLANs are on a VLAN hub.

    Raises ProfileError for what QEMU's back-end cannot do, HostError for what the host lacks.
    """
    check_backend(profile, accelerator, settings.switched)
    return settings.switched


def make_machine(
    profile: VMProfile,
    directory: Path,
    accelerator: Accelerator,
    settings: HostSettings,
    sockets: Sequence[str],
    on_event: Listener,
) -> Machine:
    """A machine of QEMU's that is off, with its files in `directory`; its disks outlive a crash of the host.

    `sockets`: where its NICs on VLANs lead, relative to `directory`.
    """
    taps = make_taps((profile,), settings)
    lines = network.joining(profile, sockets, settings, taps)
    return QemuMachine(profile, directory, accelerator, lines, on_event=on_event, durable=True)
