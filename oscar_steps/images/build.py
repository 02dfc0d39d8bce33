"""Build one base image from its recipe: an ordinary Debian, on a disk that a BIOS boots, with a package pool.

mmdebstrap makes the root file system, apt fills the pool, mkfs.ext4 turns the folder into a file system. No loop
device, and no mount that the host would see. Where the packages come from is not said here: the build uses the
repositories, the proxy and the keys of the host's own apt.
"""

from __future__ import annotations

import asyncio
import os
import shlex
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from oscar_steps.environment import tool_environment
from oscar_steps.errors import ConfigError, ImageBuildFailed, ToolMissing
from oscar_steps.guest import guest_text
from oscar_steps.images.seed import SEED_SERIAL
from oscar_steps.matrix import ImageRecipe

Report = Callable[[str], None]

DISK, KERNEL, INITRD, LOG = "image.qcow2", "vmlinuz", "initrd.img", "build.log"

_ROOT_LABEL = "farm-root"
_BOOT_MIB = 64
_UMASK = 0o022
_BUILD_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_SECTOR = 512
_MIB = 1024 * 1024
_MBR_CODE = (Path("/usr/lib/syslinux/mbr/mbr.bin"), Path("/usr/lib/EXTLINUX/mbr.bin"))

_TOOLS = {
    "mmdebstrap": "mmdebstrap",
    "unshare": "util-linux",
    "setpriv": "util-linux",
    "apt-ftparchive": "apt-utils",
    "sfdisk": "fdisk",
    "mkfs.vfat": "dosfstools",
    "mkfs.ext4": "e2fsprogs",
    "syslinux": "syslinux",
    "mcopy": "mtools",
    "qemu-img": "qemu-utils",
}
"""Programs of the host that a build needs, each with the Debian package that brings it."""

_DEBIAN_ARCHITECTURES = {"x86_64": "amd64", "i386": "i386"}
"""Those whose machines have a BIOS, and so boot the disk that is made here."""

_APT_SETTINGS = ("Acquire::http::Proxy", "Acquire::https::Proxy", "Acquire::Check-Valid-Until", "Acquire::Check-Date")
"""Settings of the host's apt that the build's apt takes over: how to get out, and how old a mirror may be."""

_KERNEL_PARAMETERS = (f"root=LABEL={_ROOT_LABEL}", "rw", "console=tty0", "console=ttyS0,115200", "net.ifnames=0")

# An empty status file makes apt believe that nothing is installed, so that it fetches all that the pool's packages
# depend on; the epoch (%3a) is left out of file names as in every Debian archive, since apt's file method would take it
# for an escaped colon.
_POOL_SCRIPT = "apt/pool.sh"

# The package lists are read here once: in the emulated guest `apt-get update` takes tens of seconds.
_FINISH_SCRIPT = "apt/finish.sh"

# `login:` on the serial console then says that sshd listens: who waits for it need not poll a slow guest.
_GETTY_AFTER_SSH = "[Unit]\nAfter=ssh.service\n"


@dataclass(frozen=True)
class AptSource:
    """One repository of the host's apt, as `apt-get indextargets` tells it."""

    site: str
    release: str
    codename: str
    origin: str
    signed_by: str = ""

    def line(self, release: str, components: Sequence[str]) -> str:
        """The sources.list line for `release` of this repository."""
        options = f" [signed-by={self.signed_by}]" if self.signed_by.startswith("/") else ""
        return f"deb{options} {self.site} {release} {' '.join(components)}"


def sources_for(suite: str, components: Sequence[str], known: Sequence[AptSource]) -> tuple[str, ...]:
    """The sources.list lines for `suite`: the host's own for that suite with its updates and security fixes, or else
    the suite alone from the host's mirror. Raises ImageBuildFailed where the host's apt knows no Debian mirror."""
    family = (suite, f"{suite}-updates", f"{suite}-security")
    debian = [source for source in known if source.origin == "Debian"]
    if any(source.codename == suite for source in debian):
        own = (source.line(source.release, components) for source in debian if source.codename in family)
        return tuple(dict.fromkeys(own))
    mirrors = [source for source in debian if not source.codename.endswith("-security")]
    if not mirrors:
        raise ImageBuildFailed(
            f"the host's apt knows no Debian mirror, from which '{suite}' could be installed",
            hint="See `apt-get indextargets`; after a change of the host's sources run `apt-get update`.",
        )
    return (mirrors[0].line(suite, components),)


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
    return "\0".join(
        (
            repr(files),
            guest_text(_POOL_SCRIPT),
            guest_text(_FINISH_SCRIPT),
            " ".join(_KERNEL_PARAMETERS),
            str(_BOOT_MIB),
        )
    )


def check_host(recipe: ImageRecipe) -> None:
    """Whether this host can build `recipe`. Raises ToolMissing (a program) or ConfigError (the architecture)."""
    if recipe.architecture not in _DEBIAN_ARCHITECTURES:
        can = ", ".join(_DEBIAN_ARCHITECTURES)
        raise ConfigError(f"image {recipe.name}: no image can be made for '{recipe.architecture}'; it can for {can}")
    path = build_environment()["PATH"]
    missing = {tool: package for tool, package in _TOOLS.items() if shutil.which(tool, path=path) is None}
    if not any(code.exists() for code in _MBR_CODE):
        missing[str(_MBR_CODE[0])] = "syslinux-common"
    if missing:
        raise ToolMissing(
            f"an image cannot be built without {', '.join(missing)}",
            hint=f"apt-get install {' '.join(sorted(set(missing.values())))}",
        )


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
            umask=_UMASK,
        )
        try:
            status = await process.wait()
        except BaseException:  # whatever ends the wait, the child has to go first
            process.kill()
            await process.wait()
            raise
    if status != 0:
        said = log.read_bytes()[started:].decode(errors="replace").splitlines()
        raise ImageBuildFailed(f"{command[0]} ended with status {status}: {_complaint(said)}", hint=f"See {log}.")


def _complaint(lines: Sequence[str]) -> str:
    """The line that most likely says what went wrong: the last that looks like an error, or else the last."""
    spoken = [line.strip() for line in lines if line.strip()]
    errors = [line for line in spoken if line.startswith(("E:", "Err:")) or "error" in line.lower()]
    return (errors or spoken or ["it said nothing"])[-1]


async def _output_of(*command: str) -> str:
    """What a program of the host prints. Raises ImageBuildFailed where it fails."""
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=build_environment(),
    )
    out, complaint = await process.communicate()
    if process.returncode != 0:
        raise ImageBuildFailed(f"{command[0]} failed: {_complaint(complaint.decode(errors='replace').splitlines())}")
    return out.decode(errors="replace")


async def host_sources() -> tuple[AptSource, ...]:
    """The package repositories that the host's apt uses."""
    fields = "$(SITE)|$(RELEASE)|$(CODENAME)|$(ORIGIN)|$(SIGNED_BY)"
    told = await _output_of("apt-get", "indextargets", "--format", fields, "Created-By: Packages")
    rows = [line.split("|") for line in told.splitlines()]
    return tuple(AptSource(*("" if field.startswith("$(") else field for field in row)) for row in rows)


async def _host_apt_settings() -> list[str]:
    told = await _output_of("apt-config", "dump", *_APT_SETTINGS)
    return [f"--aptopt={line.rstrip(';')}" for line in told.splitlines() if not line.endswith('"";')]


class ImageBuild:
    """The steps of one build, all in `directory`, which holds `image.qcow2`, `vmlinuz` and `initrd.img` in the end."""

    def __init__(self, recipe: ImageRecipe, directory: Path, machine_id: str, report: Report) -> None:
        self._recipe = recipe
        self._directory = directory
        self._machine_id = machine_id
        self._report = report
        self._root = directory / "root"
        self._raw = directory / "disk.raw"
        self._log = directory / LOG
        self._pool = f"/tftpboot/distro/{recipe.name}"

    async def run(self) -> None:
        """Build. Raises ImageBuildFailed; what has been made until then stays in the directory."""
        self._report(f"installing {len(self._recipe.packages)} packages of {self._recipe.suite} and what they need")
        self._lay_out_own_files()
        await self._bootstrap()
        self._report("finishing the root file system")
        await self._jailed("sh", self._script("finish", _FINISH_SCRIPT), str(self._root), self._pool, self._machine_id)
        self._report("making the disk")
        self._take_kernel()
        await self._make_disk()
        await self._jailed("rm", "-rf", str(self._root), str(self._raw), str(self._directory / "overlay"))
        for name in ("pool", "finish", "syslinux.cfg"):
            (self._directory / name).unlink()

    async def _jailed(self, *command: str) -> None:
        await run_jailed(command, self._log)

    def _script(self, name: str, file: str) -> str:
        path = self._directory / name
        path.write_text(guest_text(file), encoding="utf-8")
        path.chmod(0o755)
        return str(path)

    def _lay_out_own_files(self) -> None:
        overlay = self._directory / "overlay"
        for name, (data, mode) in guest_files(self._recipe).items():
            path = overlay / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
            path.chmod(mode)
        units = overlay / "etc/systemd/system"
        for unit in self._recipe.masked_units:
            (units / unit).symlink_to("/dev/null")
        # They are copied over the guest's own folders, /usr and /etc among them, with their modes.
        for folder in (overlay, *(path for path in overlay.rglob("*") if path.is_dir() and not path.is_symlink())):
            folder.chmod(0o777 & ~_UMASK)

    async def _bootstrap(self) -> None:
        recipe = self._recipe
        sources = sources_for(recipe.suite, recipe.components, await host_sources())
        overlay = shlex.quote(str(self._directory / "overlay"))
        hooks = [f'--essential-hook=cp -a {overlay}/. "$1"/']
        if recipe.pool:
            pool = shlex.quote(self._script("pool", _POOL_SCRIPT))
            hooks.append(f'--customize-hook={pool} "$1" {self._pool} {shlex.join(recipe.pool)}')
        else:
            self._script("pool", _POOL_SCRIPT)
            hooks.append(f'--customize-hook=mkdir -p "$1"{self._pool} && : > "$1"{self._pool}/Packages')
        await self._jailed(
            *("mmdebstrap", "--mode=root", "--variant=minbase", "--format=directory"),
            f"--architectures={_DEBIAN_ARCHITECTURES[recipe.architecture]}",
            f"--include={','.join(recipe.packages)}",
            *await _host_apt_settings(),
            # A head node that lives for minutes needs no fsync at each file, in the build or later, and no manuals.
            *("--dpkgopt=force-unsafe-io", "--dpkgopt=path-exclude=/usr/share/man/*"),
            *("--dpkgopt=path-exclude=/usr/share/locale/*", "--dpkgopt=path-exclude=/usr/share/doc/*"),
            "--dpkgopt=path-include=/usr/share/doc/*/copyright",
            *hooks,
            *(recipe.suite, str(self._root), *sources),
        )

    def _take_kernel(self) -> None:
        for name, pattern in ((KERNEL, "vmlinuz-*"), (INITRD, "initrd.img-*")):
            found = sorted((self._root / "boot").glob(pattern))
            if not found:
                raise ImageBuildFailed(
                    f"image {self._recipe.name}: no {pattern} in /boot; does the recipe name a kernel?"
                )
            shutil.copyfile(found[-1], self._directory / name)

    async def _make_disk(self) -> None:
        """MBR; a small FAT partition from which SYSLINUX boots (its reads through the BIOS are three times as fast as
        GRUB's where the BIOS is emulated); the root file system, filled as it is made."""
        disk, root_start = self._recipe.disk_mib, 1 + _BOOT_MIB
        (self._directory / "syslinux.cfg").write_text(
            f"DEFAULT farm\nPROMPT 0\nLABEL farm\nKERNEL {KERNEL}\nINITRD {INITRD}\n"
            f"APPEND {' '.join((*_KERNEL_PARAMETERS, *self._recipe.kernel_parameters))}\n",
            encoding="ascii",
        )
        mbr = next(code for code in _MBR_CODE if code.exists())
        where = {name: shlex.quote(str(self._directory / name)) for name in (DISK, KERNEL, INITRD, "syslinux.cfg")}
        raw, root = shlex.quote(str(self._raw)), shlex.quote(str(self._root))
        await self._jailed(
            "sh",
            "-euxc",
            f"""
truncate -s {disk}M {raw}
printf 'start=1MiB, size={_BOOT_MIB}MiB, type=e, bootable\\nstart={root_start}MiB, type=83\\n' | sfdisk -q -X dos {raw}
dd if={mbr} of={raw} bs=440 count=1 conv=notrunc status=none
mkfs.vfat -F 16 -n FARM-BOOT --offset {_MIB // _SECTOR} {raw} {_BOOT_MIB * 1024}
syslinux --install --offset {_MIB} {raw}
mcopy -i {raw}@@1M {where[KERNEL]} {where[INITRD]} {where["syslinux.cfg"]} ::
mkfs.ext4 -q -F -L {_ROOT_LABEL} -d {root} -E offset={root_start * _MIB},lazy_itable_init=0,lazy_journal_init=0 \\
    {raw} {(disk - root_start) * 1024}k
qemu-img convert -f raw -O qcow2 {raw} {where[DISK]}
""",
        )
