"""A compute node's serial console: the few texts that tell what has become of the node."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum

from oscar_steps.oscar.terminal import clean


class SignKind(StrEnum):
    """What a line of a console is a sign of."""

    PANIC = "panic"
    OOPS = "oops"
    OUT_OF_MEMORY = "out-of-memory"
    INSTALLATION_FAILED = "installation-failed"
    NO_BOOTABLE_DEVICE = "no-bootable-device"
    NETWORK_BOOT_FAILED = "network-boot-failed"
    EMERGENCY_SHELL = "emergency-shell"
    KERNEL_STARTED = "kernel-started"
    INSTALLER_STARTED = "installer-started"
    LOGIN_PROMPT = "login-prompt"

    @property
    def fatal(self) -> bool:
        """Whether the node will not get on by itself any more. (An oops or a killed process may be survived.)"""
        return self in _FATAL


_FATAL = frozenset(
    {
        SignKind.PANIC,
        SignKind.INSTALLATION_FAILED,
        SignKind.NO_BOOTABLE_DEVICE,
        SignKind.NETWORK_BOOT_FAILED,
        SignKind.EMERGENCY_SHELL,
    }
)

# 'Boot failed: not a bootable disk' is not among them: a blank disk says so before the CD or the network has its turn.
_SIGNS: tuple[tuple[SignKind, re.Pattern[str]], ...] = tuple(
    (kind, re.compile(pattern))
    for kind, pattern in (
        (SignKind.PANIC, r"Kernel panic - not syncing"),
        (SignKind.OOPS, r"\bOops: |\bBUG: (?:unable to handle|kernel NULL|soft lockup)|general protection fault"),
        (SignKind.OUT_OF_MEMORY, r"Out of memory: Kill"),
        (SignKind.INSTALLATION_FAILED, r"Installation failed!!|FATAL:\s+None of SCRIPTNAME, IMAGENAME,? or HOSTNAME"),
        (SignKind.NO_BOOTABLE_DEVICE, r"No bootable device"),
        (SignKind.NETWORK_BOOT_FAILED, r"\bPXE-E\d\d: |No more network devices|Nothing to boot: "),
        (SignKind.EMERGENCY_SHELL, r"You are in emergency mode|^\(initramfs\)|Entering emergency mode"),
        (SignKind.KERNEL_STARTED, r"(?:^|\] )Linux version \d"),
        (SignKind.INSTALLER_STARTED, r"SystemImager|boel_binaries|\bAutoinstall\b"),
        (SignKind.LOGIN_PROMPT, r"^\S+ login:\s*$"),
    )
)


@dataclass(frozen=True, slots=True)
class ConsoleSign:
    """A sign and the console's words for it."""

    kind: SignKind
    text: str


def classify(line: str) -> ConsoleSign | None:
    """The sign that a line is. The login prompt has no line end: give the unfinished last line as well."""
    text = clean(line)
    for kind, pattern in _SIGNS:
        if pattern.search(text):
            return ConsoleSign(kind, text.strip())
    return None
