"""The disk of an image: how it boots, and the root file system, made without mounting anything."""

from __future__ import annotations

from pathlib import Path

from oscar_steps.guest import guest_path, guest_text
from oscar_steps.images.jail import run_jailed
from oscar_steps.images.kind import DISK, INITRD, KERNEL, Build
from oscar_steps.matrix.recipes import PackageRecipe

ROOT_LABEL = "farm-root"

TOOLS = {
    "sfdisk": "fdisk",
    "mkfs.vfat": "dosfstools",
    "mkfs.ext4": "e2fsprogs",
    "mcopy": "mtools",
    "qemu-img": "qemu-utils",
}
_MBR_CODE = (Path("/usr/lib/syslinux/mbr/mbr.bin"), Path("/usr/lib/EXTLINUX/mbr.bin"))

_SCRIPTS = {"bios": ("bios.sh", "syslinux.cfg"), "uefi": ("uefi.sh", "systemd-boot.conf")}
"""What makes a disk that boots this way, and the boot loader's settings on it."""


def tools(boot: str) -> dict[str, str]:
    """What else of the host a disk that boots this way needs: program or file, and the package that brings it."""
    return {"syslinux": "syslinux", str(_mbr_code()): "syslinux-common"} if boot == "bios" else {}


def scripts(boot: str) -> list[Path]:
    """The files of ours that shape a disk that boots this way."""
    return [guest_path(f"disk/{name}") for name in _SCRIPTS[boot]]


def parameters(recipe: PackageRecipe) -> str:
    """The kernel's command line."""
    first = (f"root=LABEL={ROOT_LABEL}", "rw", "console=tty0", f"console={recipe.console}", "net.ifnames=0")
    return " ".join((*first, *recipe.kernel_parameters))


async def make(build: Build[PackageRecipe], root: Path) -> None:
    """Make the disk of the folder `root`; kernel and initrd are in the build's directory."""
    script, settings = scripts(build.recipe.boot)
    boots = build.work / settings.name
    text = guest_text(f"disk/{settings.name}", kernel=KERNEL, initrd=INITRD, parameters=parameters(build.recipe))
    boots.write_text(text, encoding="ascii")
    raw, image = build.work / "disk.raw", build.directory / DISK
    files = (build.directory / KERNEL, build.directory / INITRD)
    common = (root, ROOT_LABEL, build.recipe.disk_mib)
    if build.recipe.boot == "bios":
        words: tuple[object, ...] = (*common, _mbr_code(), raw, image, *files, boots)
    else:
        words = (*common, raw, image, boots, *files)
    await run_jailed(["sh", str(script), *map(str, words)], build.log)


def _mbr_code() -> Path:
    return next((code for code in _MBR_CODE if code.exists()), _MBR_CODE[0])
