"""Disks of virtual machines, by qemu-img: overlays, blank disks, and what a disk looks like from outside."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import hashlib
import json
import os
import shutil
import stat
import subprocess
import tempfile
from pathlib import Path
from typing import Literal

from oscar_steps.environment import tool_environment
from oscar_steps.errors import HostError, ProfileError, ToolMissing
from oscar_steps.v3m.host import ledger
from oscar_steps.v3m.machine import DiskFingerprint

QEMU_IMG_SECONDS = 120.0
"""It only writes and reads headers; a host whose disk answers no more must not hold a run for ever."""

_QCOW2_MAGIC = b"QFI\xfb"


async def create(
    machine: str, path: Path, base: Path | None, size_mib: int | None, form: Literal["qcow2", "raw"] = "qcow2"
) -> None:
    """Make the disk of `machine`: an overlay on `base`, or a blank one of `form`.

    Raises ProfileError for a blank one without a size, HostError when it is there already or cannot be made.
    """
    if base is not None:
        await create_overlay(base, path, size_mib)
    elif size_mib is not None:
        await create_disk(path, size_mib, form)
    else:
        raise ProfileError(f"the disk of {machine} cannot be made: its <image> has no size, e.g. size='1536'")


async def create_overlay(base: Path, path: Path, size_mib: int | None = None) -> None:
    """Make `path` a copy-on-write disk on `base` (qcow2 or raw), which is never written; bigger if `size_mib` says so.

    Raises HostError when `path` is there already or cannot be made.
    """
    if not base.is_file():
        raise HostError(f"the base image {base} is not there")
    size = [] if size_mib is None else [f"{size_mib}M"]
    await _create(path, ["-b", str(base.resolve()), "-F", image_format(base), str(path), *size])


async def create_disk(path: Path, size_mib: int, form: Literal["qcow2", "raw"] = "qcow2") -> None:
    """Make a blank disk. Raises HostError when it is there already or cannot be made."""
    await _create(path, [str(path), f"{size_mib}M"], form)


async def fingerprint(path: Path, form: str) -> DiskFingerprint:
    """What the disk looks like. No machine may be using it.

    `form` is what it was before a guest had it ('qcow2' or 'raw'): qemu-img must not guess, since it would open a
    backing file that the guest has named.
    """
    info = json.loads(await _qemu_img("info", "-f", form, "--output=json", str(path)))
    with tempfile.TemporaryDirectory(prefix="v3m-disk-") as directory:
        copy = Path(directory) / "first-mib"  # qemu-img cannot write to a pipe
        await _qemu_img("dd", "-f", form, "-O", "raw", "bs=1M", "count=1", f"if={path}", f"of={copy}")
        first_mib = copy.read_bytes()
    return DiskFingerprint(
        first_mib_sha256=hashlib.sha256(first_mib).hexdigest(),
        allocated_bytes=int(info["actual-size"]),
        bootable=first_mib[510:512] == b"\x55\xaa",
    )


async def is_used(path: Path) -> bool:
    """Whether a machine has the disk `path`, whichever program started it: QEMU locks what it uses, in any format.

    Nothing is written: to open it for writing asks for the lock.
    """
    try:
        await _run("qemu-io", "-f", "raw", "-c", "quit", str(path))
    except HostError as error:  # any other fault does not make it used
        return '"write" lock' in error.sentence
    return False


def check_kind(path: Path) -> None:
    """Raise OSError for what is not there, and for what cannot be a disk or a CD.

    To open a FIFO or a terminal would wait for ever, and to open other devices does things.
    """
    mode = path.stat().st_mode
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if not (stat.S_ISREG(mode) or stat.S_ISBLK(mode)):
        raise OSError(errno.EINVAL, "It is neither a file nor a block device", str(path))


def image_format(path: Path) -> str:
    """'qcow2' or 'raw', by the file's first bytes. Only before a guest runs (`raw_disks`): it could write such bytes.

    Raises OSError.
    """
    check_kind(path)
    with path.open("rb") as file:
        return "qcow2" if file.read(4) == _QCOW2_MAGIC else "raw"


def file_identity(path: Path) -> str:
    """Which file it is: its inode, and when it was born where the file system records it ('0' elsewhere).

    Inodes alone are used again at once. The number of its device is another one after each mount of an NFS, so it is
    left out. Raises HostError.
    """
    words = ["stat", "--format=%i %.9W", "--", str(path)]
    try:
        said = subprocess.run(
            words, check=False, capture_output=True, text=True, errors="replace", env=tool_environment()
        )
    except OSError as error:
        raise HostError(f"the program stat cannot be run: {error.strerror}") from None
    if said.returncode != 0:
        raise HostError(f"the disk {path} cannot be looked at: {said.stderr.strip()}")
    return said.stdout.strip()


async def _create(path: Path, arguments: list[str], form: str = "qcow2") -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileNotFoundError):
            path.stat()  # from Python 3.14 on, `exists` hides what else is wrong with a path
            raise HostError(f"the disk {path} is there already; a run never writes over a disk")
    except OSError as error:
        raise HostError(f"the disk {path} cannot be made: {error.strerror or error}") from None
    await _qemu_img("create", "-q", "-f", form, *arguments)


async def _qemu_img(*arguments: str) -> bytes:
    return await _run("qemu-img", *arguments)


async def _run(name: str, *arguments: str) -> bytes:
    program = shutil.which(name)
    if program is None:
        raise ToolMissing(f"the program {name} is missing", hint="install it: apt-get install qemu-utils")
    process = await asyncio.create_subprocess_exec(
        *ledger.owned([program, *arguments]),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=tool_environment(),
    )
    try:
        async with asyncio.timeout(QEMU_IMG_SECONDS):
            output, errors = await process.communicate()
    except TimeoutError:
        raise HostError(
            f"timed out after {QEMU_IMG_SECONDS:.0f} s waiting for {name} {arguments[0]} {arguments[-1]}"
        ) from None
    finally:
        if process.returncode is None:  # also where the run was ended meanwhile
            process.kill()
            await process.wait()
    if process.returncode != 0:
        raise HostError(f"{name} {arguments[0]} failed: {errors.decode(errors='replace').strip()}")
    return output
