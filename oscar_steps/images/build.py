"""Build one base image from its recipe: an ordinary Debian, on a disk that a BIOS boots, with a package pool.

The package manager's own programs make the root file system (`apt.py`), mkfs.ext4 turns the folder into a file system.
No loop device, and no mount that the host would see.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

from oscar_steps.errors import ConfigError, ImageBuildFailed, ToolMissing
from oscar_steps.guest import guest_path, guest_text
from oscar_steps.images import apt
from oscar_steps.images.jail import UMASK, build_environment, run_jailed
from oscar_steps.images.seed import SEED_SERIAL
from oscar_steps.matrix.recipes import ImageRecipe

Report = Callable[[str], None]

DISK, KERNEL, INITRD, LOG = "image.qcow2", "vmlinuz", "initrd.img", "build.log"

_ROOT_LABEL = "farm-root"
_MBR_CODE = (Path("/usr/lib/syslinux/mbr/mbr.bin"), Path("/usr/lib/EXTLINUX/mbr.bin"))

_TOOLS = {
    **apt.TOOLS,
    "unshare": "util-linux",
    "setpriv": "util-linux",
    "sfdisk": "fdisk",
    "mkfs.vfat": "dosfstools",
    "mkfs.ext4": "e2fsprogs",
    "syslinux": "syslinux",
    "mcopy": "mtools",
    "qemu-img": "qemu-utils",
}
"""Programs of the host that a build needs, each with the Debian package that brings it."""

_KERNEL_PARAMETERS = (f"root=LABEL={_ROOT_LABEL}", "rw", "console=tty0", "console=ttyS0,115200", "net.ifnames=0")

# `login:` on the serial console then says that sshd listens: who waits for it need not poll a slow guest.
_GETTY_AFTER_SSH = "[Unit]\nAfter=ssh.service\n"


def guest_files(recipe: ImageRecipe) -> dict[str, tuple[bytes, int]]:
    """The files of ours in the image: path below `/` to (contents, mode)."""
    files: dict[str, tuple[bytes, int]] = {
        "etc/fstab": (f"LABEL={_ROOT_LABEL} / ext4 defaults 0 0\n".encode(), 0o644),
        "etc/hostname": (b"localhost\n", 0o644),
        "etc/systemd/system/serial-getty@.service.d/after-ssh.conf": (_GETTY_AFTER_SSH.encode(), 0o644),
        # The seed's disk is looked up in /sys, not in /dev/disk/by-id: the kernel has found it before systemd started
        # (the initrd loads virtio_blk, which probes all its disks at once), while udev makes its links much later.
        "usr/lib/farm-seed": _executable("image/farm-seed.sh", serial=SEED_SERIAL),
        "etc/systemd/system/farm-seed.service": (
            guest_text("image/farm-seed.service", serial=SEED_SERIAL).encode(),
            0o644,
        ),
    }
    if recipe.initrd_modules:
        # Read by mkinitramfs when the kernel's package is installed, so it has to be there before.
        files["etc/initramfs-tools/conf.d/farm"] = (b"MODULES=list\nRESUME=none\nCOMPRESS=gzip\n", 0o644)
        # It loads a known list of modules, so it has nothing for udev to do, and udev takes five seconds of the
        # emulated boot there. Scripts below /etc replace those of the same name that Debian's udev brings; the last
        # one's other duty, to hand /dev over, stays. The hook takes udev's own files out again.
        files["etc/initramfs-tools/scripts/init-top/udev"] = _executable("image/initrd-no-udev.sh")
        files["etc/initramfs-tools/scripts/init-bottom/udev"] = _executable("image/initrd-hand-over-dev.sh")
        files["etc/initramfs-tools/hooks/zz-farm"] = _executable("image/initrd-take-udev-out.sh")
        modules = "".join(f"{module}\n" for module in recipe.initrd_modules)
        files["usr/share/initramfs-tools/modules.d/farm"] = (modules.encode(), 0o644)
    return files


def _executable(name: str, **values: str) -> tuple[bytes, int]:
    return guest_text(name, **values).encode(), 0o755


def own_contents(recipe: ImageRecipe) -> str:
    """All text of ours that shapes the image: it goes into the image's key, so that changing it makes another image."""
    files = sorted((name, data.decode(), mode) for name, (data, mode) in guest_files(recipe).items())
    raw = sorted(path for folder in ("apt", "image") for path in guest_path(folder).iterdir())
    return "\0".join((repr(files), *(path.read_text(encoding="utf-8") for path in raw), " ".join(_KERNEL_PARAMETERS)))


def check_host(recipe: ImageRecipe) -> None:
    """Whether this host can build `recipe`. Raises ToolMissing (a program) or ConfigError (the architecture)."""
    if recipe.architecture not in apt.ARCHITECTURES:
        can = ", ".join(apt.ARCHITECTURES)
        raise ConfigError(
            f"image {recipe.name}: the architecture '{recipe.architecture}' is not supported; use one of {can}"
        )
    path = build_environment()["PATH"]
    missing = {tool: package for tool, package in _TOOLS.items() if shutil.which(tool, path=path) is None}
    if not any(code.exists() for code in _MBR_CODE):
        missing[str(_MBR_CODE[0])] = "syslinux-common"
    if missing:
        raise ToolMissing(
            f"an image cannot be built without {', '.join(missing)}",
            hint=f"apt-get install {' '.join(sorted(set(missing.values())))}",
        )


class ImageBuild:
    """The steps of one build, all in `directory`, which holds `image.qcow2`, `vmlinuz` and `initrd.img` in the end."""

    def __init__(self, recipe: ImageRecipe, directory: Path, machine_id: str, report: Report) -> None:
        self._recipe = recipe
        self._directory = directory
        self._machine_id = machine_id
        self._report = report
        self._log = directory / LOG
        self._work = directory / "work"
        self._root = self._work / "root"
        self._overlay = self._work / "overlay"

    async def run(self) -> None:
        """Build. Raises ImageBuildFailed; what has been made until then stays in the directory."""
        self._report(f"installing {len(self._recipe.packages)} packages of {self._recipe.suite} and what they need")
        self._lay_out_own_files()
        await apt.install(self._recipe, self._root, self._overlay, self._log)
        self._report("finishing the root file system")
        await self._script("finish.sh", self._root, self._machine_id)
        self._report("making the disk")
        self._take_kernel()
        await self._make_disk()
        await run_jailed(["rm", "-rf", str(self._work)], self._log)

    async def _script(self, name: str, *words: object) -> None:
        await run_jailed(["sh", str(guest_path(f"image/{name}")), *map(str, words)], self._log)

    def _lay_out_own_files(self) -> None:
        for name, (data, mode) in guest_files(self._recipe).items():
            path = self._overlay / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
            path.chmod(mode)
        units = self._overlay / "etc/systemd/system"
        for unit in self._recipe.masked_units:
            (units / unit).symlink_to("/dev/null")
        # They are copied over the guest's own folders, /usr and /etc among them, with their modes.
        folders = [path for path in self._overlay.rglob("*") if path.is_dir() and not path.is_symlink()]
        for folder in (self._overlay, *folders):
            folder.chmod(0o777 & ~UMASK)

    def _take_kernel(self) -> None:
        for name, pattern in ((KERNEL, "vmlinuz-*"), (INITRD, "initrd.img-*")):
            found = sorted((self._root / "boot").glob(pattern))
            if not found:
                raise ImageBuildFailed(
                    f"image {self._recipe.name}: no {pattern} in /boot; does the recipe name a kernel?"
                )
            shutil.copyfile(found[-1], self._directory / name)

    async def _make_disk(self) -> None:
        boots = self._work / "syslinux.cfg"
        parameters = " ".join((*_KERNEL_PARAMETERS, *self._recipe.kernel_parameters))
        text = guest_text("image/syslinux.cfg", kernel=KERNEL, initrd=INITRD, parameters=parameters)
        boots.write_text(text, encoding="ascii")
        mbr = next(code for code in _MBR_CODE if code.exists())
        raw, disk = self._work / "disk.raw", self._directory / DISK
        files = (self._directory / KERNEL, self._directory / INITRD, boots)
        await self._script("disk.sh", self._root, _ROOT_LABEL, self._recipe.disk_mib, mbr, raw, disk, *files)
