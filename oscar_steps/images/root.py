"""What kinds share that install packages into a folder: our files in it, its kernel, and the disk that is made of it.

mkfs.ext4 turns the folder into a file system. No loop device, and no mount that the host would see.
"""

from __future__ import annotations

import shutil
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path

from oscar_steps.errors import ImageBuildFailed
from oscar_steps.guest import guest_folder, guest_path, guest_text
from oscar_steps.images import disk
from oscar_steps.images.jail import UMASK, run_jailed
from oscar_steps.images.kind import INITRD, KERNEL, Build
from oscar_steps.images.seed import SEED_SERIAL
from oscar_steps.matrix.recipes import PackageRecipe

TOOLS = {"unshare": "util-linux", "setpriv": "util-linux", **disk.TOOLS}

# `login:` on the serial console then says that sshd listens: who waits for it need not poll a slow guest.
_GETTY_AFTER_SSH = "[Unit]\nAfter=@SSH@\n"


def guest_files(recipe: PackageRecipe) -> dict[str, tuple[bytes, int]]:
    """The files of ours in the image: path below `/` to (contents, mode)."""
    unit = guest_text("image/farm-seed.service", serial=SEED_SERIAL, ssh=recipe.ssh_unit)
    files: dict[str, tuple[bytes, int]] = {
        "etc/fstab": (f"LABEL={disk.ROOT_LABEL} / ext4 defaults 0 0\n".encode(), 0o644),
        "etc/hostname": (b"localhost\n", 0o644),
        "etc/systemd/system/serial-getty@.service.d/after-ssh.conf": (
            _GETTY_AFTER_SSH.replace("@SSH@", recipe.ssh_unit).encode(),
            0o644,
        ),
        # The seed's disk is looked up in /sys, not in /dev/disk/by-id: the kernel has found it before systemd started
        # (the initrd loads virtio_blk, which probes all its disks at once), while udev makes its links much later.
        "usr/lib/farm-seed": (guest_text("image/farm-seed.sh", serial=SEED_SERIAL).encode(), 0o755),
        "etc/systemd/system/farm-seed.service": (unit.encode(), 0o644),
    }
    if recipe.initrd_modules:
        # Read when the kernel's package is installed, so it has to be there before. The initrd loads a known list of
        # modules, so it has nothing for udev to do, and udev takes five seconds of the emulated boot there.
        files |= guest_folder(f"initrd/{recipe.initrd}", {"modules": "\n".join(recipe.initrd_modules)})
    return files


def own_contents(recipe: PackageRecipe, scripts: Iterable[Path]) -> dict[str, str]:
    """All text of ours that shapes the image; `scripts`: those of the package manager."""
    files = {f"/{name}": f"{mode:o} {data.decode()}" for name, (data, mode) in guest_files(recipe).items()}
    raw = (*scripts, *guest_path("image").iterdir(), *disk.scripts(recipe.boot))
    texts = {f"{path.parent.name}/{path.name}": path.read_text(encoding="utf-8") for path in raw}
    return {**files, **texts, "the kernel's parameters": disk.parameters(recipe)}


async def build_from_root(build: Build[PackageRecipe], install: Callable[[Path, Path], Awaitable[None]]) -> None:
    """Build an image of a folder. `install(root, overlay)` makes the folder `root` of the recipe's packages and pool,
    and puts the files of `overlay` into it before the kernel's package comes."""
    root, overlay = build.work / "root", build.work / "overlay"
    _lay_out_own_files(build.recipe, overlay)
    await install(root, overlay)
    build.report("finishing the root file system")
    await run_jailed(["sh", str(guest_path("image/finish.sh")), str(root), build.machine_id], build.log)
    build.report("making the disk")
    _take_kernel(build, root)
    await disk.make(build, root)
    await run_jailed(["rm", "-rf", str(build.work)], build.log)


def _lay_out_own_files(recipe: PackageRecipe, overlay: Path) -> None:
    for name, (data, mode) in guest_files(recipe).items():
        path = overlay / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        path.chmod(mode)
    units = overlay / "etc/systemd/system"
    for unit in recipe.masked_units:
        (units / unit).symlink_to("/dev/null")
    # They are copied over the guest's own folders, /usr and /etc among them, with their modes.
    folders = [path for path in overlay.rglob("*") if path.is_dir() and not path.is_symlink()]
    for folder in (overlay, *folders):
        folder.chmod(0o777 & ~UMASK)


def _take_kernel(build: Build[PackageRecipe], root: Path) -> None:
    for name, patterns in ((KERNEL, ("vmlinuz-*", "vmlinux-*")), (INITRD, ("initrd.img-*", "initramfs-*.img"))):
        found = [file for pattern in patterns for file in sorted((root / "boot").glob(pattern))]
        if not found:
            raise ImageBuildFailed(f"no {patterns[0]} in /boot; does the recipe name a kernel?")
        shutil.copyfile(found[-1], build.directory / name)
