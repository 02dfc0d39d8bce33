"""The smallest guest: a kernel, and an initrd of busybox that does what its kernel parameters say.

Kernel and busybox are Debian's own packages, fetched once by apt and unpacked in the user's cache directory.
"""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from oscar_steps.v3m.boot import DirectKernel
from oscar_steps.v3m.host.accelerator import Accelerator
from oscar_steps.v3m.machine import EventKind, MachineEvent
from oscar_steps.v3m.profiles.cluster import ClusterProfile, load_cluster
from oscar_steps.v3m.profiles.vm import BootDevice
from oscar_steps.v3m.runtime import VirtualCluster

CACHE = Path.home() / ".cache" / "oscar-farm"
SAMPLE = Path(__file__).resolve().parents[2] / "profiles" / "clusters" / "head-and-two-nodes.xml"
LIMIT = 90.0

MODULES = ("virtio_pci", "virtio_net", "virtio_blk", "virtio_scsi", "sd_mod", "pvpanic-pci")
CD_MODULES = ("ata_piix", "sr_mod", "sd_mod")
BUTTON_MODULES = ("button", "evdev")
XEN_MODULES = ("xen-blkfront", "xen-netfront")
"""Debian's cloud kernel, too, runs as a para-virtual guest of Xen's; its console is hvc0."""

# $do says what the guest does; machines tell themselves apart by the last byte of the MAC of $nic, or of eth0.
INIT = """\
#!/bin/busybox sh
export PATH=/bin
/bin/busybox mkdir -p /proc /sys /dev /tmp /sbin /var/run
/bin/busybox --install -s /bin
printf '#!/bin/busybox sh\\nexec /bin/poweroff -f\\n' > /sbin/poweroff; chmod +x /sbin/poweroff
mount -t proc proc /proc; mount -t sysfs sys /sys; mount -t devtmpfs dev /dev
for word in $(cat /proc/cmdline); do case $word in *=*) export "$word" ;; esac; done
for module in $(cat /modules); do insmod "/$module"; done
say() { echo "GUEST $*" > /dev/console; }
rest() { while :; do sleep 1000; done; }
disk() { while :; do for name in vda xvda sda; do [ -b /dev/$name ] && echo /dev/$name && return; done; done; }
host=0
if [ -e /sys/class/net/eth${nic:-0} ]; then read mac < /sys/class/net/eth${nic:-0}/address; host=$((0x${mac##*:})); fi
case $do in
    count) while :; do n=$((n + 1)); say "counts $n"; sleep 0.2; done ;;
    sleep) say "is up"; rest ;;
    reboot) reboot -f ;;
    poweroff) poweroff -f ;;
    panic) echo c > /proc/sysrq-trigger ;;
    install) printf 'x%509sU\\252' '' | dd of=$(disk) bs=512 conv=fsync; reboot -f ;;
    ping) [ "$host" = 1 ] && nic=eth1
        ip link set ${nic:-eth0} up; ip address add 10.9.1.$host/16 dev ${nic:-eth0}
        if [ $host = 1 ]; then say "is up"; rest; fi
        while ! ping -c 1 -w 5 10.9.1.1; do :; done
        ping -c 60 -i 0.2 10.9.1.1 > /dev/console; say "has pinged"; poweroff -f ;;
    vlan) ip link set eth0 up; ip link set eth1 up; nic=eth0
        [ "$host" = 1 ] && nic=eth1 && host=2
        ip address add 10.9.$net.$host/16 dev $nic
        if [ $host = 2 ]; then say "is up"; rest; fi
        ping -c 3 -w 20 10.9.$net.2 && say "reaches its head node"
        ping -c 3 -w 3 10.9.$other.2 && say "reaches a stranger"
        poweroff -f ;;
@CASES@
esac
say "has nothing to do: $do"
poweroff -f
"""


def make_guest(
    directory: Path,
    *,
    flavour: str = "cloud-amd64",
    modules: Iterable[str] = MODULES,
    cases: Mapping[str, str] | None = None,
    files: Mapping[str, Path] | None = None,
) -> DirectKernel:
    """Make kernel and initrd of a tiny guest; the initrd is `directory`/initrd.cpio.

    `flavour`: Debian's, of the package linux-image-FLAVOUR. `cases`: more words for `do=`, each with its shell commands
    (`say` writes to the console, `rest` does nothing for ever, `disk` prints the first disk's name). `files`: path in
    the guest to a file of the host's; a program brings its libraries.
    """
    parts = unpacked(flavour)
    kernel = next((parts / "boot").glob("vmlinuz-*"))
    tree = directory / "initrd"
    for folder in ("bin", "proc", "sys", "dev"):
        (tree / folder).mkdir(parents=True)
    _copy(parts / "bin" / "busybox", tree, "bin/busybox")
    bodies = "\n".join(f"    {name}) {commands} ;;" for name, commands in (cases or {}).items())
    (tree / "init").write_text(INIT.replace("@CASES@", bodies), encoding="utf-8")
    (tree / "init").chmod(0o755)
    for place, source in (files or {}).items():
        _copy(source, tree, place)
        for library in _libraries(source):
            _copy(library, tree, str(library))
    paths = with_dependencies({path.stem.replace("-", "_"): path for path in parts.rglob("*.ko")}, modules)
    for path in paths:
        shutil.copy(path, tree)
    (tree / "modules").write_text("\n".join(path.name for path in paths), encoding="ascii")
    initrd = directory / "initrd.cpio"
    with initrd.open("wb") as file:
        names = "\n".join(str(path.relative_to(tree)) for path in sorted(tree.rglob("*")))
        cpio = ["cpio", "--create", "--format=newc", "--quiet"]
        subprocess.run(cpio, check=True, cwd=tree, input=names.encode(), stdout=file)
    return DirectKernel(kernel, initrd)


def parameters(do: str, console: str = "ttyS0") -> str:
    """Kernel parameters of a guest that does `do` ('do=ping', maybe with more words behind it)."""
    return f"console={console} quiet panic=-1 {do}"


def make_cd(directory: Path, guest: DirectKernel, words: str) -> Path:
    """A CD, `directory`/cd.iso, whose boot loader (isolinux) starts the guest with the kernel parameters `words`."""
    tree = directory / "cd"
    tree.mkdir(parents=True)
    assert guest.initrd is not None
    for source in (Path("/usr/lib/ISOLINUX/isolinux.bin"), Path("/usr/lib/syslinux/modules/bios/ldlinux.c32")):
        shutil.copy(source, tree)
    shutil.copy(guest.kernel, tree / "vmlinuz")
    shutil.copy(guest.initrd, tree / "initrd")
    (tree / "isolinux.cfg").write_text(
        f"DEFAULT x\nLABEL x\nKERNEL vmlinuz\nAPPEND initrd=initrd {words}\n", encoding="ascii"
    )
    iso = directory / "cd.iso"
    options = ["-quiet", "-o", str(iso), "-b", "isolinux.bin", "-c", "boot.cat", "-no-emul-boot"]
    options += ["-boot-load-size", "4", "-boot-info-table", str(tree)]
    subprocess.run(["genisoimage", *options], check=True, capture_output=True)
    return iso


def unpacked(flavour: str) -> Path:
    """Debian's newest kernel and busybox-static, unpacked."""
    name = "tiny-guest" if flavour == "cloud-amd64" else f"tiny-guest-{flavour}"
    if (CACHE / name).is_dir():
        return CACHE / name
    asked = ["apt-cache", "depends", f"linux-image-{flavour}"]
    shown = subprocess.run(asked, check=True, capture_output=True, text=True).stdout
    kernel = next(line.split()[-1] for line in shown.splitlines() if "Depends: linux-image-" in line)
    return unpacked_packages(name, kernel, "busybox-static")


def unpacked_packages(name: str, *packages: str) -> Path:
    """Debian's packages, unpacked in CACHE/`name` once. Made under another name first: never half of them."""
    cache = CACHE / name
    if cache.is_dir():
        return cache
    work = cache.with_name(f"{cache.name}.{os.getpid()}")
    work.mkdir(parents=True)
    subprocess.run(["apt-get", "download", "-qq", *packages], check=True, cwd=work, stderr=subprocess.DEVNULL)
    for package in work.glob("*.deb"):
        subprocess.run(["dpkg-deb", "-x", package, work], check=True)
        package.unlink()
    work.rename(cache)
    return cache


def with_dependencies(modules: dict[str, Path], wanted: Iterable[str]) -> list[Path]:
    """Files of the wanted modules and all that they need, in the order in which they can be loaded.

    A module names what it needs itself; a name without a file is built into the kernel.
    """
    order: list[Path] = []
    for name in wanted:
        path = modules.get(name.replace("-", "_"))
        if path is None or path in order:
            continue
        match = re.search(rb"\0depends=([^\0]*)\0", path.read_bytes())
        needed = match[1].decode().split(",") if match else []
        order += [found for found in with_dependencies(modules, needed) if found not in order]
        order.append(path)
    return order


def _libraries(program: Path) -> list[Path]:
    """The shared libraries of a program, none for what is no dynamic program."""
    with program.open("rb") as file:
        if file.read(4) != b"\x7fELF":
            return []
    shown = subprocess.run(["ldd", str(program)], capture_output=True, text=True, check=False).stdout
    return [Path(path) for path in re.findall(r"(/\S+) \(0x", shown)]


def _copy(source: Path, tree: Path, place: str) -> None:
    target = tree / place.lstrip("/")
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(source, target)


# --- machines of it --------------------------------------------------------------------------------------------------


@dataclass
class Farm:
    """Makes clusters of tiny guests and keeps what they told."""

    accelerator: Accelerator
    guest: DirectKernel
    events: list[MachineEvent] = field(default_factory=list)

    def cluster(self, directory: Path, do: str, *, boot: BootDevice = BootDevice.CDROM) -> VirtualCluster:
        profile = tiny(load_cluster(SAMPLE)).with_boot(boot)
        base = directory / "base.raw"
        directory.mkdir(exist_ok=True)
        base.write_bytes(bytes(1 << 20))
        kernel = replace(self.guest, parameters=parameters(do))
        return VirtualCluster(profile, directory, self.accelerator, base, on_event=self.events.append, kernel=kernel)

    def kinds(self, machine: str) -> list[EventKind]:
        return [event.kind for event in self.events if event.machine == machine]


def tiny(cluster: ClusterProfile) -> ClusterProfile:
    """The sample with the memory that a kernel alone needs. MACs end with 01 and 02 (head), 11 and 12 (nodes)."""
    head = replace(cluster.head, memory_mib=192, cpu=1)
    return replace(cluster, head=head, nodes=tuple(replace(node, memory_mib=192) for node in cluster.nodes))


async def until(condition: Callable[[], bool], seconds: float = LIMIT) -> None:
    """For what can only be looked at, again and again."""
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 - a file sends no event
            await asyncio.sleep(0.05)


def says(console: Path, words: bytes) -> bool:
    return console.exists() and words in console.read_bytes()


def counted(console: Path) -> list[int]:
    """The numbers that a guest that does `count` has told so far."""
    return [int(number) for number in re.findall(rb"GUEST counts (\d+)\r?\n", console.read_bytes())]
