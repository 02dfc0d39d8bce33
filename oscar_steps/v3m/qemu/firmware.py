"""UEFI for QEMU's machines: OVMF's code, which all share, and a machine's own variables, among them its boot entries.

A machine of the profile's firmware BIOS, or of none, needs nothing of this: QEMU has SeaBIOS in itself.
"""

from __future__ import annotations

from pathlib import Path

from oscar_steps.errors import ToolMissing
from oscar_steps.textio import write_atomically
from oscar_steps.v3m.profiles.vm import VMProfile

UEFI_CODE = Path("/usr/share/OVMF/OVMF_CODE_4M.fd")
"""Where Debian's package ovmf has it; without Secure Boot, which would refuse an installer's unsigned kernel."""
_UEFI_VARIABLES = UEFI_CODE.with_name("OVMF_VARS_4M.fd")


def variables(profile: VMProfile) -> str:
    """The file of the machine's variables, relative to the run directory."""
    return f"firmware/{profile.name}.fd"


def prepare(profile: VMProfile, directory: Path) -> None:
    """Give a machine with UEFI its variables, unless it has them from an earlier boot. Raises ToolMissing."""
    if profile.firmware != "UEFI":
        return
    if not (UEFI_CODE.is_file() and _UEFI_VARIABLES.is_file()):
        hint = "install it: apt-get install ovmf; or leave out <firmware>, and the machine has a BIOS"
        raise ToolMissing(f"{profile.name} has the firmware UEFI, and {UEFI_CODE} is missing", hint=hint)
    file = directory / variables(profile)
    if not file.exists():
        file.parent.mkdir(exist_ok=True)
        write_atomically(file, _UEFI_VARIABLES.read_bytes())


def forget(profile: VMProfile, directory: Path) -> None:
    """Delete the machine's variables, if it has any."""
    (directory / variables(profile)).unlink(missing_ok=True)
