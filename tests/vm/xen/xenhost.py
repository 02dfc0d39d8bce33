"""A virtualization host with Xen, which is itself a virtual machine: Debian's Xen and libvirt, with the farm's tools.

Xen is started by QEMU directly, as a multiboot kernel whose modules are dom0's kernel and initrd. All of it is
emulated; no nested virtualization is needed. QEMU dies with its process, and with QEMU everything in it.
"""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import socket
import subprocess
import sys
import sysconfig
import time
from collections.abc import Iterator, Mapping
from importlib import metadata
from pathlib import Path

import paramiko

from oscar_steps.images.seed import Seed, write_seed
from oscar_steps.images.store import ImageStore
from oscar_steps.matrix.recipes import load_recipe
from oscar_steps.v3m.host import ledger
from tests.vm import tiny_guest
from tests.vm.conformance_rig import GUEST_MODULES

ROOT = Path(__file__).resolve().parents[3]
RECIPE = Path(__file__).with_name("xen-host.toml")
HYPERVISOR = "xen-hypervisor-4.17-amd64"
HOME = "/opt/farm"
"""Where the farm's tools are in the Xen host."""

CPU = "Nehalem"
"""libvirt needs a processor that it has in its list; qemu64, QEMU's own, is not there."""
BOOT_SECONDS = 900.0
"""On a quiet machine it takes two minutes."""
SSH_SECONDS = 300.0

_PARTS = ("oscar_steps", "tests", "profiles", "pyproject.toml")
_DISTRIBUTIONS = (
    "lxml", "psutil", "qemu.qmp", "pydantic", "click", "rich", "filelock", "paramiko", "pytest", "pytest-timeout",
)  # fmt: skip
"""What the farm's worker tools and their tests need, with all that these need: from our own environment."""

# libvirt-qemu is made by libvirt's package; the default network is made at once, not at its first use.
_SETUP = """\
set -eu
virsh -q -c xen:///system net-start default
virsh -q -c xen:///system nodeinfo
xl info | grep -E '^(xen_version|virt_caps|total_memory)'
"""
_INTERFACES = b"""auto lo
iface lo inet loopback
auto eth0
iface eth0 inet static
    address 10.0.2.15/24
    gateway 10.0.2.2
"""
_XEN = "dom0_mem=2560M,max:2560M console=com1 com1=115200,8n1 loglvl=warning guest_loglvl=warning"
_DOM0 = (
    "root=LABEL=farm-root rw console=hvc0 net.ifnames=0 quiet systemd.show_status=true mitigations=off audit=0 "
    "nokaslr nowatchdog fsck.mode=skip modprobe.blacklist=evdev,psmouse,serio_raw,button,ata_piix,floppy,pcspkr"
)


class XenHost:
    """The host, up and reachable. `run` runs a command of the shell in it."""

    def __init__(self, ssh: paramiko.SSHClient) -> None:
        self._ssh = ssh

    def run(self, command: str, seconds: float, *, show: bool = True) -> tuple[int, str]:
        """Exit status and output (both streams), which is shown as it comes.

        After `seconds` it is interrupted, as by Ctrl-C, so that pytest still tells and writes what it has.
        """
        transport = self._ssh.get_transport()
        assert transport is not None
        channel = transport.open_session(timeout=SSH_SECONDS)
        channel.set_combine_stderr(True)
        channel.settimeout(seconds + 120)
        channel.exec_command(f"timeout --signal=INT --kill-after=60 {seconds:.0f} sh -c {_quoted(command)}")
        output = b""
        while data := channel.recv(1 << 16):
            output += data
            if show:
                sys.stdout.write(data.decode(errors="replace"))
                sys.stdout.flush()
        return channel.recv_exit_status(), output.decode(errors="replace")


@contextlib.contextmanager
def xen_host(directory: Path, cpu: str = CPU) -> Iterator[XenHost]:
    """Boot the host with its files in `directory`, its processor as QEMU calls it.

    It is gone at the end of the block, and nothing of it is kept.
    """
    store = ImageStore()
    image = asyncio.run(store.ensure(load_recipe(RECIPE), _say))
    (directory / "xen").write_bytes(gzip.decompress(_hypervisor().read_bytes()))
    for name in ("vmlinuz", "initrd.img"):
        (directory / name).symlink_to(image.path.parent / name)
    overlay = ["qemu-img", "create", "-q", "-f", "qcow2", "-b", str(image.path), "-F", "qcow2", "disk.qcow2"]
    subprocess.run(overlay, check=True, cwd=directory)
    seed = write_seed(
        directory / "seed.tar",
        hostname="xenhost",
        domain="oscardomain",
        head_address="10.9.0.1",
        netmask="255.255.0.0",
        network="ifupdown",
        is_open=True,
        files={"/etc/network/interfaces": (_INTERFACES, 0o644), **_tools()},
    )
    port = _free_port()
    began = time.monotonic()
    with subprocess.Popen(ledger.owned(_qemu(port, cpu)), cwd=directory) as qemu:
        try:
            _wait_for_login(directory / "console.log", qemu)
            _say(f"Xen's dom0 is up after {time.monotonic() - began:.0f} s")
            with _connected(seed, port) as ssh:
                host = XenHost(ssh)
                status, _ = host.run(_SETUP, 300)
                if status != 0:
                    raise SystemExit(f"the Xen host could not be set up: it ended with {status}")
                yield host
        finally:
            qemu.kill()


def _qemu(port: int, cpu: str) -> list[str]:
    return [
        *("qemu-system-x86_64", "-accel", "tcg", "-cpu", cpu, "-smp", "2", "-m", "4096", "-nodefaults"),
        *("-display", "none", "-vga", "none", "-no-reboot", "-serial", "file:console.log"),
        *("-kernel", "xen", "-append", _XEN, "-initrd", f"vmlinuz {_DOM0.replace(',', ',,')},initrd.img"),
        *("-drive", "file=disk.qcow2,if=none,id=disk,cache=unsafe", "-device", "virtio-blk-pci,drive=disk"),
        *("-drive", "file=seed.tar,format=raw,readonly=on,if=none,id=seed"),
        *("-device", "virtio-blk-pci,drive=seed,serial=seed", "-device", "virtio-rng-pci"),
        *("-netdev", f"user,id=host,ipv6=off,hostfwd=tcp:127.0.0.1:{port}-:22"),
        *("-device", "virtio-net-pci,netdev=host"),
    ]


def _wait_for_login(console: Path, qemu: subprocess.Popen[bytes]) -> None:
    """Its `login:` comes only when its SSH server listens."""
    deadline = time.monotonic() + BOOT_SECONDS
    while not (console.exists() and b"xenhost login:" in console.read_bytes()):
        if qemu.poll() is not None or time.monotonic() > deadline:
            said = console.read_text(errors="replace")[-1500:] if console.exists() else "nothing"
            raise SystemExit(f"the Xen host did not come up within {BOOT_SECONDS:.0f} s; its console:\n{said}")
        time.sleep(0.2)


@contextlib.contextmanager
def _connected(seed: Seed, port: int) -> Iterator[paramiko.SSHClient]:
    with paramiko.SSHClient() as ssh:
        ssh.get_host_keys().add(f"[127.0.0.1]:{port}", seed.host_key.get_name(), seed.host_key)
        limits = {"timeout": SSH_SECONDS, "banner_timeout": SSH_SECONDS, "auth_timeout": SSH_SECONDS}
        ssh.connect(
            "127.0.0.1", port, "root", seed.password, look_for_keys=False, allow_agent=False, **limits  # type: ignore[arg-type]
        )  # fmt: skip
        yield ssh


# --- what is put into it ---------------------------------------------------------------------------------------------


def _hypervisor() -> Path:
    """Debian's Xen."""
    return next((tiny_guest.unpacked_packages(HYPERVISOR, HYPERVISOR) / "boot").glob("xen-*.gz"))


def _tools() -> Mapping[str, tuple[bytes, int]]:
    """The farm's own files, the Python packages that they need, and the tiny guest's parts: path there to file."""
    files: dict[str, tuple[bytes, int]] = {}
    for part in _PARTS:
        top = ROOT / part
        for path in [top] if top.is_file() else top.rglob("*"):
            if path.is_file() and "__pycache__" not in path.parts:
                files[f"{HOME}/{path.relative_to(ROOT)}"] = _read(path)
    site = Path(sysconfig.get_path("purelib"))
    for distribution in _needed(_DISTRIBUTIONS):
        for file in metadata.files(distribution) or []:
            path = Path(str(file.locate()))
            if ".." not in file.parts and path.is_relative_to(site) and path.is_file() and path.suffix != ".pyc":
                files[f"{HOME}/site/{path.relative_to(site)}"] = _read(path)
    guest = tiny_guest.unpacked("cloud-amd64")
    modules = {path.stem.replace("-", "_"): path for path in guest.rglob("*.ko")}
    wanted = [next(guest.glob("boot/vmlinuz-*")), guest / "bin" / "busybox"]
    for path in (*wanted, *tiny_guest.with_dependencies(modules, GUEST_MODULES)):
        files[f"/root/.cache/oscar-farm/{guest.name}/{path.relative_to(guest)}"] = _read(path)
    return files


def _needed(names: tuple[str, ...]) -> set[str]:
    """These distributions and all that they need, as far as it is installed."""
    found: set[str] = set()
    todo = list(names)
    while todo:
        name = todo.pop()
        if name in found:
            continue
        try:
            requires = metadata.requires(name) or []
        except metadata.PackageNotFoundError:  # for another platform, or an extra
            continue
        found.add(name)
        todo += [_name_of(requirement) for requirement in requires if "extra ==" not in requirement]
    return found


def _name_of(requirement: str) -> str:
    return requirement.split(";")[0].split("[")[0].strip().split(" ")[0].rstrip("<>=!~0123456789.,*")


def _read(path: Path) -> tuple[bytes, int]:
    return path.read_bytes(), path.stat().st_mode & 0o777


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _quoted(command: str) -> str:
    return "'" + command.replace("'", "'\\''") + "'"


def _say(line: str) -> None:
    print(f"test-xen: {line}", flush=True)
