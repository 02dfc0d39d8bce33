"""The kind `cdrom`: an installer that asks nothing, on a CD, installs a blank disk, and powers off by itself."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from oscar_steps.errors import ImageBuildFailed
from oscar_steps.images import download
from oscar_steps.images.kind import DISK, Build, require_tools
from oscar_steps.matrix.recipes import CdromRecipe
from oscar_steps.v3m.boards import board_of
from oscar_steps.v3m.boot import InstallMedia
from oscar_steps.v3m.host.accelerator import find_accelerator
from oscar_steps.v3m.machine import EndReason, Installation
from oscar_steps.v3m.profiles.vm import BootDevice, DiskImage, VMProfile
from oscar_steps.v3m.qemu.machine import QemuMachine
from oscar_steps.v3m.qemu.network import joining

_MAX_CONSOLE = 1 << 20
"""Bytes of the installer's console, the last ones, that go into the build's log."""

_LARGEST_MIB = 32 << 10
"""Two layers of a disc."""


class Cdrom:
    """Satisfies `Kind[CdromRecipe]`."""

    tools: Mapping[str, str] = {
        "unshare": "util-linux",
        "setpriv": "util-linux",
        "qemu-img": "qemu-utils",
        **download.TOOLS,
    }

    def check(self, recipe: CdromRecipe) -> None:
        board = board_of(_profile(recipe, Path(DISK)))
        require_tools({**self.tools, board.program: board.package})

    def own_contents(self, _recipe: CdromRecipe) -> dict[str, str]:
        return {}

    async def outside(self, _recipe: CdromRecipe) -> dict[str, str]:
        return {}

    def layer(self, _recipe: CdromRecipe) -> dict[str, Any]:
        return {}

    async def build(self, build: Build[CdromRecipe]) -> None:
        recipe, store = build.recipe, build.directory.parent
        most = _LARGEST_MIB, "no installer is so large"
        async with download.downloaded(recipe.url, recipe.sha256, store, build.log, build.report, most) as iso:
            # A name of its own: the sockets of a machine have to have short paths.
            with tempfile.TemporaryDirectory(prefix="oscar-farm-") as folder:
                await _install(build, iso, Path(folder), store)


def _profile(recipe: CdromRecipe, disk: Path) -> VMProfile:
    return VMProfile(
        name="installer",
        type="Qemu",
        image=DiskImage(str(disk), recipe.disk_mib),
        memory_mib=recipe.memory_mib,
        disk_bus="virtio",
        architecture=recipe.architecture,
        firmware=recipe.firmware,
    )


async def _install(build: Build[CdromRecipe], iso: Path, folder: Path, store: Path) -> None:
    recipe = build.recipe
    profile = _profile(recipe, build.directory / DISK)
    accelerator = await find_accelerator(store, None, recipe.architecture)
    machine = QemuMachine(profile, folder, accelerator, joining(profile, ()))
    await machine.create()
    build.report(f"the installer on {recipe.url} runs; it has {recipe.minutes} minutes")
    try:
        async with asyncio.timeout(recipe.minutes * 60):
            done = await machine.install(BootDevice.CDROM, InstallMedia(cdrom=iso))
    except TimeoutError:
        what = f"timed out after {recipe.minutes} minutes waiting for the installer on {recipe.url} to power off"
        raise ImageBuildFailed(what, hint="does it ask something? The build's log has its serial console") from None
    finally:
        await machine.power_off()
        _keep_console(machine.console, build.log)
    if fault := _fault(done):
        raise ImageBuildFailed(f"the installer on {recipe.url} {fault}")


def _fault(done: Installation) -> str:
    """What is wrong with an installation that has ended; '' for nothing."""
    reason = done.ended.reason
    if reason is EndReason.GUEST_RESET:
        return "rebooted; it has to power off when it is done"
    if reason is not EndReason.GUEST_SHUTDOWN:
        return f"did not power off by itself: {reason} {done.ended.detail}".rstrip()
    if done.after.first_mib_sha256 == done.before.first_mib_sha256:
        return "powered off, but never wrote to the beginning of the disk"
    return "" if done.after.bootable else "wrote a disk that cannot be booted: it has no boot sector"


def _keep_console(console: Path, log: Path) -> None:
    if not console.exists():
        return
    with console.open("rb") as source, log.open("ab") as out:
        source.seek(max(0, console.stat().st_size - _MAX_CONSOLE))
        out.write(b"\nThe installer's console:\n")
        shutil.copyfileobj(source, out)
