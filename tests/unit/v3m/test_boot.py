"""How a machine boots, whatever its hypervisor."""

from __future__ import annotations

from pathlib import Path

import pytest

from oscar_steps.v3m.boot import NO_MEDIA, InstallMedia, oscar_medium
from oscar_steps.v3m.profiles.vm import BootDevice, DiskImage, Hypervisor, VMProfile


@pytest.mark.parametrize(
    ("kind", "cdrom", "media", "medium"),
    [
        ("Qemu", None, NO_MEDIA, BootDevice.NETWORK),
        ("Qemu", "cd.iso", NO_MEDIA, BootDevice.CDROM),
        (None, None, InstallMedia(Path("cd.iso")), BootDevice.CDROM),
        ("XenHVM", "cd.iso", NO_MEDIA, BootDevice.CDROM),
        ("Xen", "cd.iso", InstallMedia(Path("cd.iso")), BootDevice.NETWORK),
    ],
)
def test_oscar_installs_from_its_cd_where_there_is_one_and_a_firmware_to_boot_it(
    kind: Hypervisor | None, cdrom: str | None, media: InstallMedia, medium: BootDevice
) -> None:
    profile = VMProfile("node", kind, DiskImage("node.img"), cdrom=cdrom)
    assert oscar_medium(profile, media) is medium
