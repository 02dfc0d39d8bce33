"""What a user who is not root needs so that images can be built: a range of users of its own, in a namespace."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
from pathlib import Path

from oscar_steps.errors import HostError
from oscar_steps.images.jail import build_environment, jail
from oscar_steps.v3m.host.checks import Check, require

IDS = 65536
"""A Debian has users up to 65534, `nobody`."""
_FIRST = 100_000
_SECONDS = 60.0
_FILES = {"/etc/subuid": "--add-subuids", "/etc/subgid": "--add-subgids"}
_STATUS = Path("/proc/self/status")
_NO_BUILD = "images cannot be built here: this process runs with NoNewPrivileges, and newuidmap needs privileges"
_BUILD_ELSEWHERE = "the service oscar-farm-images builds those of profiles/images: systemctl restart oscar-farm-images"
_KERNEL = (
    "as root, whichever of these the host has: sysctl -w kernel.unprivileged_userns_clone=1; "
    "sysctl -w kernel.apparmor_restrict_unprivileged_userns=0; sysctl -w user.max_user_namespaces=10000"
)


def check_user() -> list[Check]:
    """The checks of an ordinary user; none for root, who needs nothing of it. To be called from the main thread."""
    if os.geteuid() == 0:
        return []
    if _gains_none():
        return [Check("images", True, _NO_BUILD, _BUILD_ELSEWHERE)]
    checks = [_program(name) for name in ("newuidmap", "newgidmap")]
    trial = _trial() if all(check.ok for check in checks) else "these programs are missing"
    if not trial:  # it works, from wherever the ranges come
        return [*checks, Check("user namespace", True, "this user can make a user namespace (tried)")]
    ranges = [_range(Path(file), option) for file, option in _FILES.items()]
    if all(check.ok for check in (*checks, *ranges)):
        what = f"the kernel does not let this user make a user namespace: {trial}"
        return [*checks, *ranges, Check("user namespace", False, what, _KERNEL)]
    return [*checks, *ranges]


def require_user() -> None:
    """Raise ToolMissing or HostError for what is missing."""
    if os.geteuid() != 0 and _gains_none():
        raise HostError(_NO_BUILD, hint=_BUILD_ELSEWHERE)
    require(check_user(), "build an image as an ordinary user")


def _gains_none() -> bool:
    """Whether set-uid programs have no effect for us: a service with NoNewPrivileges, for one."""
    return "\nNoNewPrivs:\t1\n" in _STATUS.read_text(encoding="utf-8", errors="replace")


def _program(name: str) -> Check:
    path = shutil.which(name, path=build_environment()["PATH"])
    if path is None:
        sentence = f"the program {name} is missing: without it only root can build an image"
        return Check(name, False, sentence, "install it: apt-get install uidmap", tool=True)
    return Check(name, True, path, tool=True)


def _trial() -> str:
    """What a program in the jail of a build complains of; '' where it runs."""
    try:
        done = subprocess.run(
            jail(["true"]),
            check=False,
            capture_output=True,
            stdin=subprocess.DEVNULL,
            timeout=_SECONDS,
            env=build_environment(),
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    words = done.stderr.decode(errors="replace").strip().splitlines() or ["it said nothing"]
    return "" if done.returncode == 0 else words[-1]


def _range(file: Path, option: str) -> Check:
    """Whether `file` has a range for this user; the hint has one that nobody else has."""
    user = _user()
    ends, mine = [_FIRST], 0
    try:
        lines = file.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    for line in lines:
        name, *numbers = line.split(":")
        if len(numbers) == 2 and all(number.isdecimal() for number in numbers):
            ends.append(int(numbers[0]) + int(numbers[1]))
            if name in (user, str(os.getuid())):
                mine = max(mine, int(numbers[1]))
    if mine >= IDS:
        return Check(file.name, True, f"{file} has {mine} numbers for {user}")
    what = f"{file} has no line for {user}" if mine == 0 else f"{file} has {mine} numbers for {user}, too few"
    free = max(ends)
    return Check(file.name, False, what, f"as root: usermod {option} {free}-{free + IDS - 1} {user}")


def _user() -> str:
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        raise HostError(f"user {os.getuid()} has no name on this host, so it cannot build images") from None
