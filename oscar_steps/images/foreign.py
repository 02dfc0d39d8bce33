"""Images of an architecture that is not the host's: their programs run by qemu-user, which the kernel starts (binfmt).

The kernel forgets at each start of the host what it starts for foreign programs, unless a service tells it again.
"""

from __future__ import annotations

import os
import platform
import subprocess
from pathlib import Path

from oscar_steps.errors import HostError
from oscar_steps.images.jail import build_environment
from oscar_steps.images.kind import missing_tools, require_tools

_REGISTER = Path("/proc/sys/fs/binfmt_misc")
_SECONDS = 30.0
_REGISTRAR = {"update-binfmts": "binfmt-support"}


def require(architecture: str) -> None:
    """Whether programs of `architecture` (OSCAR's name of it) run here; root lets the kernel run them.

    Raises ToolMissing, or HostError with what root has to do.
    """
    if is_native(architecture):
        return
    interpreter = f"qemu-{architecture}"
    require_tools(tools_of(architecture))
    if _is_registered(interpreter):
        return
    commands = _commands(interpreter)
    if os.geteuid() == 0:
        require_tools(_REGISTRAR)
        for command in commands:
            subprocess.run(command, env=build_environment(), capture_output=True, timeout=_SECONDS, check=False)
        if _is_registered(interpreter):
            return
    hint = f"as root, after each start of the host: {'; '.join(' '.join(command) for command in commands)}"
    raise HostError(f"programs of {architecture} do not run here: the kernel does not know {interpreter}", hint=hint)


def tools_of(architecture: str) -> dict[str, str]:
    """The programs that run those of `architecture` here, and the package of each."""
    if is_native(architecture):
        return {}
    return {f"qemu-{architecture}-static": "qemu-user-static", "arch-test": "arch-test"}


def missing_for(architecture: str) -> dict[str, str]:
    """What this host lacks to build images of `architecture`, and the package of each."""
    tools = tools_of(architecture)
    return missing_tools({**tools, **_REGISTRAR} if tools and not _is_registered(f"qemu-{architecture}") else tools)


def is_native(architecture: str) -> bool:
    machine = platform.machine()
    return architecture == machine or (architecture, machine) == ("i386", "x86_64")


def _commands(interpreter: str) -> list[list[str]]:
    mount = ["mount", "-t", "binfmt_misc", "binfmt_misc", str(_REGISTER)]
    return [*([] if (_REGISTER / "register").exists() else [mount]), ["update-binfmts", "--enable", interpreter]]


def _is_registered(interpreter: str) -> bool:
    """Flag F: the kernel has opened the interpreter, so it is there also for a program in another root."""
    try:
        words = (_REGISTER / interpreter).read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return False
    return "enabled" in words and any(line.startswith("flags:") and "F" in line for line in words)
