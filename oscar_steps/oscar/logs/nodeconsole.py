"""A compute node's serial console: the few texts that tell what has become of the node, and why."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from oscar_steps.oscar.terminal import clean


class SignKind(StrEnum):
    """What a line of a console is a sign of."""

    PANIC = "panic"
    OOPS = "oops"
    STALL = "stall"
    OUT_OF_MEMORY = "out-of-memory"
    INSTALLATION_FAILED = "installation-failed"
    NO_BOOTABLE_DEVICE = "no-bootable-device"
    NO_KERNEL = "no-kernel"
    NETWORK_BOOT_FAILED = "network-boot-failed"
    NETWORK_BOOT_RETRIED = "network-boot-retried"
    """A time-out on the way, after which the firmware tries again or goes on to its next device."""
    EMERGENCY_SHELL = "emergency-shell"
    KERNEL_STARTED = "kernel-started"
    INSTALLER_STARTED = "installer-started"
    LOGIN_PROMPT = "login-prompt"

    @property
    def fatal(self) -> bool:
        """Whether the node will not get on by itself any more. A killed process may be survived, and a stall is mostly
        the host's: an emulated processor that is not given any time."""
        return self in _FATAL


_FATAL = frozenset(
    {
        SignKind.PANIC,
        SignKind.OOPS,
        SignKind.INSTALLATION_FAILED,
        SignKind.NO_BOOTABLE_DEVICE,
        SignKind.NO_KERNEL,
        SignKind.NETWORK_BOOT_FAILED,
        SignKind.EMERGENCY_SHELL,
    }
)

# Who speaks: the kernel, at the beginning of a line (or behind a prompt that waits there). In front of its words may be
# a level (<0>), a time and a caller. Other programs put their names before what they quote ('traps: foo[9] ...').
_KERNEL = r"^(?:\S+ login: ?)?(?:<\d>)?(?:\[ *\d+\.\d+\] ?)?(?:\[ *[TC]\d+\] ?)?"
# An exception of the kernel's own ends with its number among those since boot: '0000 [#1] SMP'. 2.4 has no numbers.
_DIES = (
    r"(?:Internal error: )?Oops(?: - [^:]+)?: (?:.*\[#\d+\]|[0-9a-fA-F]{4}$|[0-9a-fA-F]{8}$)"
    r"|kernel BUG at \S+:\d+!|BUG: (?:unable to handle|kernel NULL)"
    r"|Unable to handle kernel (?:NULL pointer|paging request|pointer|access|read|write|execute)"
    r"|(?:[a-z0-9][a-z0-9 -]{2,40}): [0-9a-fA-F]{4} \[#\d+\]"
    r"|general protection fault, probably for"
)

# 'Boot failed: not a bootable disk' is not among them: a blank disk says so before the CD or the network has its turn.
_SIGNS: tuple[tuple[SignKind, re.Pattern[str]], ...] = tuple(
    (kind, re.compile(pattern))
    for kind, pattern in (
        (SignKind.PANIC, _KERNEL + r"Kernel panic(?: - not syncing)?: ?"),
        (SignKind.STALL, r"\bBUG: soft lockup|rcu: INFO: .* stall|blocked for more than \d+ seconds"),
        (SignKind.OOPS, f"{_KERNEL}(?:{_DIES})"),
        (SignKind.OUT_OF_MEMORY, _KERNEL + r"Out of [mM]emory: Kill"),
        (SignKind.INSTALLATION_FAILED, r"Installation failed!!|FATAL:\s+None of SCRIPTNAME, IMAGENAME,? or HOSTNAME"),
        (SignKind.NO_BOOTABLE_DEVICE, r"^No bootable device\.?(?:\s+Retrying in \d+ seconds?\.?)?$"),
        (SignKind.NO_KERNEL, r"Could not find kernel image|No DEFAULT or UI configuration directive"),
        (SignKind.NETWORK_BOOT_RETRIED, r"^\s*PXE-E(?:11|16|18|21|32|35|36|99): "),
        (SignKind.NETWORK_BOOT_FAILED, r"^\s*PXE-E\d\d: |No more network devices|Nothing to boot: "),
        (
            SignKind.EMERGENCY_SHELL,
            r"You are in emergency mode|^\(initramfs\)|Entering emergency mode|Dropping to a shell|"
            r"Gave up waiting for root|[Tt]he root device \S+ (?:did not appear|cannot be mounted)|"
            r"Failed to mount /sysroot|No init found",
        ),
        (SignKind.KERNEL_STARTED, r"(?:^|\] )Linux version \d"),
        (SignKind.INSTALLER_STARTED, r"SystemImager|boel_binaries|\bAutoinstall\b"),
        (SignKind.LOGIN_PROMPT, r"^\S+ login:\s*(?:$|\[)"),
    )
)


class Cause(StrEnum):
    """What lies behind an installer that gave up, where its words tell."""

    NO_DHCP = "no-dhcp"
    RSYNC_REFUSED = "rsync-refused"
    DISK_FULL = "disk-full"
    OTHER = ""


_CAUSES: tuple[tuple[Cause, re.Pattern[str]], ...] = tuple(
    (cause, re.compile(pattern, re.IGNORECASE))
    for cause, pattern in (
        (Cause.RSYNC_REFUSED, r"failed to connect to \S+|connection refused|No route to host"),
        (
            Cause.NO_DHCP,
            r"no dhcp|dhcp.*(?:fail|no (?:lease|answer|offers))|no lease|no configuration methods succeeded",
        ),
        (Cause.DISK_FULL, r"no space left on device|disk .* (?:too small|asks for)"),
    )
)
_NOISE = re.compile(r"^(?:Killing off running processes\.?|Installation failed!!.*|[\s*=#-]*)$|can't access tty")
_BAD_NEWS = re.compile(
    r"error|fail|cannot|could(?: not|n't)|can't|unable|refused|denied|no space|out of range|too (?:small|big|large)|"
    r"invalid|no such|not found|timed out|unreachable|no route",
    re.IGNORECASE,
)
_REASON_LINES = 8
KEPT_LINES = 40


@dataclass(frozen=True, slots=True)
class ConsoleSign:
    """A sign and the console's words for it. `reason`: what the installer said before it gave up, most telling first;
    `cause`: what that is known to mean."""

    kind: SignKind
    text: str
    reason: str = ""
    cause: Cause = Cause.OTHER


def classify(line: str) -> ConsoleSign | None:
    """The sign that a line is. The login prompt has no line end: give the unfinished last line as well."""
    text = clean(line)
    for kind, pattern in _SIGNS:
        if pattern.search(text):
            return ConsoleSign(kind, text.strip())
    return None


class ConsoleReader:
    """Reads a console line by line and remembers the last ones: the reason stands before 'Installation failed'."""

    def __init__(self) -> None:
        self._lines: deque[str] = deque(maxlen=KEPT_LINES)

    def feed(self, line: str) -> ConsoleSign | None:
        """The sign that the line is, if any, with its reason where the lines before tell it."""
        text = clean(line).strip()
        if self._lines and text.startswith(self._lines[-1]):
            self._lines.pop()  # an unfinished line comes once more when it is whole
        self._lines.append(text)
        sign = classify(line)
        if sign is None or sign.kind is not SignKind.INSTALLATION_FAILED:
            return sign
        reason, cause = why(self._lines)
        return ConsoleSign(sign.kind, sign.text, reason, cause)


def last_panic(lines: Iterable[str]) -> str:
    """The last panic's own words among the lines of a console; '' where there is none."""
    texts = [sign.text for line in lines if (sign := classify(line)) and sign.kind is SignKind.PANIC]
    return texts[-1] if texts else ""


def why(lines: Sequence[str]) -> tuple[str, Cause]:
    """Why an installer gave up, from the lines up to 'Installation failed!!': its last word, and the trouble that came
    shortly before it ('rsync of scripts/ failed. (rsync: failed to connect to 10.0.0.1: Connection refused)')."""
    telling = [line for line in lines if line and not _NOISE.search(line)][-_REASON_LINES:]
    if not telling:
        return "", Cause.OTHER
    *before, last = telling
    trouble = next((line for line in before if _BAD_NEWS.search(line) and _cause(line)), "")
    if not trouble:
        trouble = next((line for line in reversed(before[-3:]) if _BAD_NEWS.search(line)), "")
    cause = _cause(last) or _cause(trouble)
    return (f"{last} ({trouble})" if trouble and trouble != last else last), cause


def _cause(line: str) -> Cause:
    return next((cause for cause, pattern in _CAUSES if pattern.search(line)), Cause.OTHER)
