"""What kinds share that install packages into a folder: our files in it, its kernel, and the disk that is made of it.

mkfs.ext4 turns the folder into a file system. No loop device, and no mount that the host would see.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Awaitable, Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Protocol

from oscar_steps.errors import ImageBuildFailed
from oscar_steps.guest import guest_folder, guest_path, guest_text
from oscar_steps.images import disk, foreign
from oscar_steps.images import layer as layer_file
from oscar_steps.images.jail import UMASK, run_jailed
from oscar_steps.images.key import digest_of, said_of
from oscar_steps.images.kind import INITRD, KERNEL, Base, Build
from oscar_steps.images.seed import SEED_SERIAL
from oscar_steps.matrix.recipes import SEED_UNIT, PackageRecipe

TOOLS = {"unshare": "util-linux", "setpriv": "util-linux", **disk.TOOLS, **layer_file.TOOLS}

# `login:` on the serial console then says that sshd listens: who waits for it need not poll a slow guest.
_GETTY_AFTER_SSH = "[Unit]\nAfter=@SSH@\n"

# An image of another architecture is emulated, where udev has taken more than systemd's 90 s to announce the console.
_PATIENCE = "[Manager]\nDefaultTimeoutStartSec=15min\nDefaultDeviceTimeoutSec=15min\n"


Files = dict[str, tuple[bytes, int]]
"""Files of ours in an image: path below `/` to (contents, mode)."""

_LATE = ("masked_units", "kernel_parameters", "disk_mib", "console", "ssh_unit", "network")
"""What a recipe says that comes into play only when all packages are there."""


def early_files(recipe: PackageRecipe) -> Files:
    """Those that have to be there before the packages, as their scripts read them."""
    files: Files = {
        "etc/fstab": (f"LABEL={disk.ROOT_LABEL} / ext4 defaults 0 0\n".encode(), 0o644),
        "etc/hostname": (b"localhost\n", 0o644),
    }
    if recipe.initrd_modules:
        # Read when the kernel's package is installed. The initrd loads a known list of modules, so it has nothing for
        # udev to do, and udev takes five seconds of the emulated boot there.
        files |= guest_folder(f"initrd/{recipe.initrd}", {"modules": "\n".join(recipe.initrd_modules)})
    return files


def late_files(recipe: PackageRecipe) -> Files:
    """All others."""
    unit = guest_text("image/farm-seed.service", serial=SEED_SERIAL, ssh=recipe.ssh_unit)
    files: Files = {
        "etc/systemd/system/serial-getty@.service.d/after-ssh.conf": (
            _GETTY_AFTER_SSH.replace("@SSH@", recipe.ssh_unit).encode(),
            0o644,
        ),
        # The seed's disk is looked up in /sys, not in /dev/disk/by-id: the kernel has found it before systemd started
        # (the initrd loads virtio_blk, which probes all its disks at once), while udev makes its links much later.
        "usr/lib/farm-seed": (guest_text("image/farm-seed.sh", serial=SEED_SERIAL).encode(), 0o755),
        f"etc/systemd/system/{SEED_UNIT}": (unit.encode(), 0o644),
    }
    if not foreign.is_native(recipe.architecture):
        files["etc/systemd/system.conf.d/patience.conf"] = (_PATIENCE.encode(), 0o644)
    return files


def layer(recipe: PackageRecipe, scripts: Iterable[Path]) -> dict[str, Any]:
    """What shapes the layer (`Kind.layer`); `scripts`: those of the package manager."""
    said = {name: value for name, value in said_of(recipe).items() if name not in ("packages", *_LATE)}
    early = {name: (data.decode(), mode) for name, (data, mode) in early_files(recipe).items()}
    texts = {path.name: path.read_text(encoding="utf-8") for path in scripts}
    return {"packages": sorted(set(recipe.packages)), "rest": digest_of([said, early, texts])}


def own_contents(recipe: PackageRecipe, scripts: Iterable[Path]) -> dict[str, str]:
    """All text of ours that shapes the image; `scripts`: those of the package manager."""
    ours = early_files(recipe) | late_files(recipe)
    files = {f"/{name}": f"{mode:o} {data.decode()}" for name, (data, mode) in ours.items()}
    raw = (*scripts, *guest_path("image").iterdir(), *disk.scripts(recipe.boot))
    texts = {f"{path.parent.name}/{path.name}": path.read_text(encoding="utf-8") for path in raw}
    return {**files, **texts, "the kernel's parameters": disk.parameters(recipe)}


Install = Callable[[Path, Path], Awaitable[None]]
"""`install(root, overlay)` makes the folder `root` of the recipe's packages and pool, and puts the files of `overlay`
into it before the kernel's package comes. It leaves the list of packages in the build's directory,
or `Layers.finish` does."""


class Layers(Protocol):
    """What a package manager whose images keep layers can do besides."""

    async def add(self, root: Path, overlay: Path, names: Sequence[str]) -> None:
        """Install packages into a `root` that has been made of a layer. Raises ImageBuildFailed where that would not
        be what `install` makes of the whole recipe."""

    async def finish(self, root: Path) -> None:
        """What is left to do in it once the layer is kept; it leaves the list of packages, too."""


async def build_from_root(build: Build[PackageRecipe], install: Install, layers: Layers | None = None) -> Base | None:
    """Build an image of a folder, and say on which base. With `layers` the folder is kept as one for its successors."""
    _make_own(build.work)
    root, early, late = (build.work / name for name in ("root", "early", "late"))
    _lay_out(early_files(build.recipe), early)
    _lay_out(late_files(build.recipe), late, build.recipe.masked_units)
    base = await _from_layer(build, layers, root, early) if layers else None
    if base is None:
        await install(root, early)
        if layers:
            await layer_file.pack(root, build.directory, build.log)
    build.report("finishing the root file system")
    if layers:
        await layers.finish(root)
    await run_jailed(["cp", "-a", f"{late}/.", f"{root}/"], build.log)
    await run_jailed(["sh", str(guest_path("image/finish.sh")), str(root), build.machine_id], build.log)
    build.report("making the disk")
    _take_kernel(build, root)
    await disk.make(build, root)
    await run_jailed(["rm", "-rf", str(build.work)], build.log)
    return base


def _make_own(folder: Path) -> None:
    """A folder whose files get this process's group. In a store that is shared they would get the store's group, which
    does not exist in the guest; an ordinary user's namespace lets nobody change the owner of such a file."""
    folder.mkdir(exist_ok=True)
    os.chown(folder, -1, os.getegid())
    folder.chmod(0o777 & ~UMASK)  # without the setgid bit


async def _from_layer(build: Build[PackageRecipe], layers: Layers, root: Path, early: Path) -> Base | None:
    """Make `root` of the layer of the build's base, where it has one; None: that cannot be."""
    base = build.base
    if base is None:
        return None
    build.report(f"on the layer of the image {base.folder.name[:12]}")
    why = "the layer is damaged"
    try:
        await layer_file.unpack(base, root, build.log)
        if base.added:
            build.report(f"adding {', '.join(base.added)}")
            why = "that would not be what a full build makes"
            await layers.add(root, early, base.added)
    except ImageBuildFailed as failure:
        build.report(f"{why} ({failure.sentence}): building from nothing")
        await run_jailed(["rm", "-rf", str(root)], build.log)
        return None
    layer_file.hand_on(base, build.directory)
    return base


def _lay_out(files: Files, overlay: Path, masked_units: Sequence[str] = ()) -> None:
    for name, (data, mode) in files.items():
        path = overlay / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        path.chmod(mode)
    units = overlay / "etc/systemd/system"
    for unit in dict.fromkeys(masked_units):
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
