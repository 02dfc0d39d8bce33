"""The head node's base image, built for real and booted: what every other machine test builds on."""

from __future__ import annotations

import asyncio
import re
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import paramiko
import pytest

from oscar_steps.guest import guest_text
from oscar_steps.images.seed import Seed, write_seed
from oscar_steps.images.store import BaseImage, ImageStore
from oscar_steps.matrix.cells import default_profiles, load_matrix

_BOOT_SECONDS = 240


@pytest.fixture(scope="module")
def image() -> BaseImage:
    """The first cell's image, from this host's store: built now if it is not there."""
    matrix = load_matrix(default_profiles())
    return asyncio.run(ImageStore().ensure(matrix.image(matrix.cells[0]), print))


@pytest.fixture
def seed(tmp_path: Path) -> Seed:
    return write_seed(
        tmp_path / "seed.tar",
        hostname="headnode",
        domain="oscardomain",
        head_address="10.0.0.1",
        netmask="255.255.255.0",
        network="ifupdown",
        files={"/root/farm/greeting": (b"hello\n", 0o640)},
    )


@contextmanager
def _booted(
    image: BaseImage, seed: Seed, folder: Path, macs: tuple[str, str] | None = None, serial: str = "seed"
) -> Iterator[None]:
    """The image as a head node: its NIC to the host, one to nobody, the seed disk; QEMU ends with the block."""
    overlay = folder / "head.qcow2"
    backing = ("-b", str(image.path), "-F", "qcow2")
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", *backing, str(overlay)], check=True)
    command = ["setpriv", "--pdeathsig", "KILL", "--", "qemu-system-x86_64"]
    command += ["-accel", "tcg", "-smp", "2", "-m", "1024", "-nodefaults", "-display", "none", "-vga", "std"]
    # Without a boot index the firmware tries whichever disk has the lower slot, then the NICs, for ever.
    command += [
        "-drive",
        f"file={overlay},if=none,id=disk,cache=unsafe",
        "-device",
        "virtio-blk-pci,drive=disk,bootindex=0",
    ]
    command += ["-drive", f"file={seed.path},format=raw,readonly=on,if=none,id=seed"]
    command += ["-device", f"virtio-blk-pci,drive=seed,serial={serial}", "-device", "virtio-rng-pci"]
    host, private = (f",mac={mac}" for mac in macs) if macs else ("", "")
    command += ["-netdev", "user,id=host,hostfwd=tcp:127.0.0.1:0-:22"]
    command += ["-device", f"virtio-net-pci,netdev=host,addr=10{host}"]
    command += ["-netdev", "hubport,id=private,hubid=0", "-device", f"virtio-net-pci,netdev=private,addr=11{private}"]
    command += ["-serial", f"file:{folder}/console.log", "-monitor", f"unix:{folder}/monitor,server=on,wait=off"]
    qemu = subprocess.Popen(command)
    try:
        yield
    finally:
        qemu.kill()
        qemu.wait()


def _wait_for_login(console: Path, seconds: float = _BOOT_SECONDS) -> None:
    deadline = time.monotonic() + seconds
    while not (console.exists() and b"headnode login:" in console.read_bytes()):
        assert time.monotonic() < deadline, f"no login: within {seconds} s; see {console}"
        time.sleep(0.1)


def _forwarded_port(monitor: Path) -> int:
    """The host's port that leads to the guest's sshd, as QEMU's monitor tells it."""
    with socket.socket(socket.AF_UNIX) as line:
        line.settimeout(10)
        line.connect(str(monitor))
        line.sendall(b"info usernet\n")
        told = ""
        while not (found := re.search(r"HOST_FORWARD\]\s+\d+\s+127\.0\.0\.1\s+(\d+)", told)):
            told += line.recv(4096).decode(errors="replace")
    return int(found[1])


def _says(ssh: paramiko.SSHClient, command: str, stdin: str = "") -> str:
    into, stdout, stderr = ssh.exec_command(command, timeout=120)
    into.write(stdin)
    into.channel.shutdown_write()
    out = stdout.read().decode()
    assert stdout.channel.recv_exit_status() == 0, stderr.read().decode()
    return out.strip()


def test_a_head_node_boots_from_the_image_with_its_seeds_settings(image: BaseImage, seed: Seed, tmp_path: Path) -> None:
    started = time.monotonic()
    with _booted(image, seed, tmp_path), paramiko.SSHClient() as ssh:
        _wait_for_login(tmp_path / "console.log")
        login = time.monotonic() - started
        port = _forwarded_port(tmp_path / "monitor")
        # Only the seed's host key is known, so any other machine would be refused.
        ssh.get_host_keys().add(f"[127.0.0.1]:{port}", seed.host_key.get_name(), seed.host_key)
        ssh.connect(
            *("127.0.0.1", port, "root", seed.password), allow_agent=False, look_for_keys=False, banner_timeout=60
        )
        print(f"login: after {login:.1f} s, SSH after {time.monotonic() - started:.1f} s")

        assert _says(ssh, "hostname -f") == "headnode.oscardomain"
        assert _says(ssh, "cat /root/farm/greeting; ls /root/farm") == "hello\ngreeting\nseed.sh"
        addresses = _says(ssh, "ip -4 -o addr show | awk '{print $2, $4}'")
        assert addresses.splitlines()[1:] == ["eth0 10.0.2.15/24", "eth1 10.0.0.1/24"]
        assert _says(ssh, "systemctl --failed --no-legend") == ""
        assert _says(ssh, "grep ^PermitRootLogin /etc/ssh/sshd_config") == "PermitRootLogin yes"
        assert _says(ssh, "svn --version --quiet && perl -e 'print qq(perl\\n)'").endswith("perl")
        assert "isc-dhcp-server" in _says(ssh, "apt-get install --simulate isc-dhcp-server | grep ^Inst")
        pool = f"/tftpboot/distro/{load_matrix(default_profiles()).cells[0].image}"
        assert _says(ssh, f"sh -s -- {pool} 10.0.0.1", guest_text("head/needs.sh")) == "end"
        assert int(_says(ssh, f"ls {pool}/bash*.deb {pool}/gcc*.deb {pool}/libc6_*.deb | wc -l")) >= 3
