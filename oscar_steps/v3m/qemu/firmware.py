"""UEFI for QEMU's machines: the firmware's code, which all share, and a machine's own variables, among them its boot
entries.

A machine of the profile's firmware BIOS, or of none on a board with a BIOS, needs nothing of this: QEMU has SeaBIOS in
itself.
"""

from __future__ import annotations

import os
from pathlib import Path

from oscar_steps.errors import ToolMissing
from oscar_steps.v3m.boards import missing_firmware, uefi_of
from oscar_steps.v3m.profiles.vm import VMProfile

_BLOCK = 1 << 16


def variables(profile: VMProfile) -> str:
    """The file of the machine's variables, relative to the run directory."""
    return f"firmware/{profile.name}.fd"


def prepare(profile: VMProfile, directory: Path) -> None:
    """Give a machine with UEFI its variables, unless it has them from an earlier boot. Raises ToolMissing."""
    if lack := missing_firmware(profile):
        raise ToolMissing(lack[0], hint=lack[1])
    uefi = uefi_of(profile)
    file = directory / variables(profile)
    if uefi is not None and uefi.variables is not None and not file.exists():
        file.parent.mkdir(exist_ok=True)
        _copy_with_holes(uefi.variables, file)


def _copy_with_holes(source: Path, target: Path) -> None:
    """Copy the file in one step; what is nothing but zeros takes no room: one board's variables are 64 MiB of them."""
    temporary = target.with_suffix(".new")
    with source.open("rb") as reading, temporary.open("wb") as writing:
        while block := reading.read(_BLOCK):
            if block.strip(b"\0"):
                writing.write(block)
            else:
                writing.seek(len(block), os.SEEK_CUR)
        writing.truncate()
        os.fsync(writing.fileno())
    temporary.replace(target)


def forget(profile: VMProfile, directory: Path) -> None:
    """Delete the machine's variables, if it has any."""
    (directory / variables(profile)).unlink(missing_ok=True)
