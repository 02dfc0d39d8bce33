"""Programs that make an image: nothing of the caller's environment reaches them, and they end with this process."""

from __future__ import annotations

import asyncio
import os
import re
import shlex
from collections.abc import Sequence
from pathlib import Path

from oscar_steps.environment import tool_environment
from oscar_steps.errors import ImageBuildFailed

UMASK = 0o022
_BUILD_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def jail(command: Sequence[str]) -> list[str]:
    """`command` in namespaces of its own, to be started from the main thread.

    When the thread that starts it ends, by kill -9 too, the kernel kills `unshare`, with it the first process of the
    namespace, and with that every other process and all mounts in it. Not being root, we are root of a user namespace.
    """
    user = [] if os.geteuid() == 0 else ["--user", "--map-root-user", "--map-auto"]
    unshare = ["unshare", *user, "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "--"]
    return ["setpriv", "--pdeathsig", "KILL", "--", *unshare, *command]


def build_environment() -> dict[str, str]:
    """The environment of what makes an image. Nothing of the caller's is in it: one recipe makes one image.

    A proxy comes from the host's apt settings, which an administrator wrote, not from a variable set by chance.
    """
    fixed = {"PATH": _BUILD_PATH, "HOME": "/root", "TMPDIR": "/tmp", "TZ": "UTC", "DEBIAN_FRONTEND": "noninteractive"}
    ours = {
        name: value for name, value in tool_environment().items() if name.startswith(("OSCAR_FARM_", "LC_", "LANG"))
    }
    return {**ours, **fixed}


async def run_jailed(command: Sequence[str], log: Path) -> None:
    """Run `command` in its jail, its output appended to `log`. Cancelled, it leaves no process behind.

    Raises ImageBuildFailed with the last line of output that looks like an error.
    """
    with log.open("ab") as output:
        output.write(f"\n$ {shlex.join(command)}\n".encode())
        output.flush()
        started = output.tell()
        process = await asyncio.create_subprocess_exec(
            *jail(command),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env=build_environment(),
            umask=UMASK,
        )
        try:
            status = await process.wait()
        except BaseException:  # whatever ends the wait, the child has to go first
            process.kill()
            await process.wait()
            raise
    if status != 0:
        said = log.read_bytes()[started:].decode(errors="replace").splitlines()
        raise ImageBuildFailed(f"{command[0]} ended with status {status}: {complaint(said)}", hint=f"See {log}.")


_WRAPPERS = re.compile(
    r"E: (mmdebstrap failed|apt-get .* failed$|apt \w+ failed|setup failed|run_\w+ failed|"
    r"Some index files failed|Unable to fetch some archives)"
)
"""What apt and mmdebstrap say after the error that counts."""


def complaint(lines: Sequence[str]) -> str:
    """The line that most likely says what went wrong: a bad signature, else the last that looks like an error, or else
    the last."""
    spoken = [line.strip() for line in lines if line.strip()]
    errors = [line for line in spoken if line.startswith(("E:", "Err:")) or "error" in line.lower()]
    signatures = [line for line in errors if line.startswith("W: GPG error")]
    causes = [line for line in errors if not _WRAPPERS.match(line)]
    return (signatures or causes or errors or spoken or ["it said nothing"])[-1]


async def output_of(*command: str) -> str:
    """What a program of the host prints. Raises ImageBuildFailed where it fails."""
    try:
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=build_environment(),
        )
    except FileNotFoundError:
        raise ImageBuildFailed(f"{command[0]} is missing on this host") from None
    out, said = await process.communicate()
    if process.returncode != 0:
        raise ImageBuildFailed(f"{command[0]} failed: {complaint(said.decode(errors='replace').splitlines())}")
    return out.decode(errors="replace")
