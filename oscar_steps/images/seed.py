"""The seed: what is personal to one run's head node, on a disk of its own, so that the base image is never written to.

A seed is an uncompressed tar archive used as a raw disk (virtio-blk, serial `seed`). The image carries the other half
(`root.guest_files`): a unit that unpacks the archive over `/` before networking and sshd start, then runs
`/root/farm/seed.sh`. No file system has to be made on the host for it, and none mounted in the guest.

A vendor's image has cloud-init in place of that unit. There the seed is a volume called `cidata` (cloud-init's
NoCloud), which holds the same archive and the words that make cloud-init unpack it.
"""

from __future__ import annotations

import io
import json
import os
import secrets
import subprocess
import tarfile
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Interface
from pathlib import Path

import paramiko
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from oscar_steps.environment import tool_environment
from oscar_steps.errors import HostError, ToolMissing
from oscar_steps.guest import guest_folder, guest_text

SEED_SERIAL = "seed"
"""The serial number by which the guest knows its seed disk."""
CLOUD_INIT = "cloud-init"
"""The style of network configuration of an image whose other half of the seed is cloud-init."""

# slirp's fixed addresses: the guest, the host as the guest sees it, and slirp's name server.
HOST_NIC_ADDRESS = IPv4Interface("10.0.2.15/24")
HOST_SEEN_BY_GUEST = "10.0.2.2"
NAME_SERVER = "10.0.2.3"


@dataclass(frozen=True)
class Seed:
    """A written seed: its file, root's password, and the host key that the head node will show."""

    path: Path
    password: str
    host_key: paramiko.PKey

    def known_hosts_line(self, host: str, port: int) -> str:
        """The line of a `known_hosts` file that makes `ssh -p PORT root@HOST` trust this head node."""
        return f"[{host}]:{port} {self.host_key.get_name()} {self.host_key.get_base64()}"


def write_seed(
    path: Path,
    *,
    hostname: str,
    domain: str,
    head_address: str,
    netmask: str,
    network: str,
    macs: Sequence[str] = ("", ""),
    forwarded: Iterable[str] = (),
    is_open: bool = False,
    files: Mapping[str, tuple[bytes, int]] | None = None,
    password: str | None = None,
) -> Seed:
    """Write the seed disk of one run to `path` (mode 0600: it holds a password and a private key).

    `network`: how the image configures its network cards (the recipe says it), a folder of `guest/network/`.
    `macs`: of the two, to the host and private; only cloud-init needs them.

    `forwarded`: names of servers that the guest reaches on its own loopback interface (`forwards.py`). `is_open`:
    whether it reaches all that the host reaches. Where it does not, there is no way out and no name server: nobody
    waits for an answer that will not come.

    `files` maps absolute paths in the guest to (contents, mode); they come after our own and may replace them. Without
    a `password` a random one is made.
    """
    password = password or secrets.token_urlsafe(12)
    private, public = _new_host_key(f"root@{hostname}")
    cards = _network_files(network, IPv4Interface(f"{head_address}/{netmask}"), macs, is_open)
    contents: dict[str, tuple[bytes, int]] = {
        "/etc/hostname": (f"{hostname}\n".encode(), 0o644),
        "/etc/hosts": (_hosts(hostname, domain, head_address, forwarded), 0o644),
        "/etc/resolv.conf": (_resolver(domain, is_open), 0o644),
        **({} if network == CLOUD_INIT else {f"/{name}": file for name, file in cards.items()}),
        "/etc/ssh/ssh_host_ed25519_key": (private, 0o600),
        "/etc/ssh/ssh_host_ed25519_key.pub": (public, 0o644),
        "/root/farm/password": (f"root:{password}\n".encode(), 0o600),
        # SHA512 with few rounds: the password lives as long as the run, and the default method costs the emulated head
        # node a second at each login.
        "/root/farm/seed.sh": (guest_text("head/seed.sh").encode(), 0o700),
        **(files or {}),
    }
    if network == CLOUD_INIT:
        _write_volume(path, hostname, _archive(contents), cards)
    else:
        _write_private(path, _archive(contents))
    key = paramiko.Ed25519Key.from_private_key(io.StringIO(private.decode()))
    return Seed(path=path, password=password, host_key=key)


def _write_private(path: Path, data: bytes) -> None:
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.write(data)


def _write_volume(path: Path, hostname: str, archive: bytes, cards: Mapping[str, tuple[bytes, int]]) -> None:
    """cloud-init's own volume: what it is to do, and the archive. Raises HostError: the volume cannot be made."""
    settings = {
        # It makes no keys and removes none: the seed's are there before it looks.
        "ssh_deletekeys": False,
        "ssh_genkeytypes": ["ed25519"],
        "preserve_hostname": True,
        "manage_etc_hosts": False,
        "locale": "C.UTF-8",
        "disable_root": False,
        "bootcmd": [["sh", "-c", guest_text("head/cloud-init.sh")]],
    }
    files = {
        "user-data": b"#cloud-config\n" + json.dumps(settings).encode() + b"\n",
        "meta-data": json.dumps({"instance-id": secrets.token_hex(8), "local-hostname": hostname}).encode() + b"\n",
        "seed.tar": archive,
        **{name: data for name, (data, _mode) in cards.items()},
    }
    _write_private(path, b"")
    with tempfile.TemporaryDirectory(prefix="oscar-farm-") as folder:
        for name, data in files.items():
            _write_private(Path(folder) / name, data)
        command = ["genisoimage", "-quiet", "-volid", "cidata", "-joliet", "-rock", "-output", str(path), folder]
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, errors="replace", env=tool_environment(), check=False
            )
        except FileNotFoundError:
            raise ToolMissing("a seed for cloud-init needs genisoimage", hint="apt-get install genisoimage") from None
    if done.returncode != 0:
        raise HostError(f"genisoimage could not make the seed {path}: {done.stderr.strip()[-200:]}")


def _archive(contents: Mapping[str, tuple[bytes, int]]) -> bytes:
    """The files as a tar archive, and before them /root/farm as a folder of root's alone."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.GNU_FORMAT) as archive:
        _add_all(archive, contents)
    return out.getvalue()


def _add_all(archive: tarfile.TarFile, contents: Mapping[str, tuple[bytes, int]]) -> None:
    folder = tarfile.TarInfo("root/farm")
    folder.type, folder.mode = tarfile.DIRTYPE, 0o700
    archive.addfile(folder)
    for name, (data, mode) in contents.items():
        if not name.startswith("/") or ".." in Path(name).parts:
            raise ValueError(f"a seed's file needs an absolute path without '..': {name!r}")
        member = tarfile.TarInfo(name.lstrip("/"))
        member.size, member.mode = len(data), mode
        archive.addfile(member, io.BytesIO(data))


def _hosts(hostname: str, domain: str, head_address: str, forwarded: Iterable[str]) -> bytes:
    """The head node's name belongs to its private address: OSCAR refuses one that is on the loopback."""
    lines = ["127.0.0.1\tlocalhost", f"{head_address}\t{hostname}.{domain} {hostname}"]
    lines += [f"127.0.0.1\t{name}" for name in dict.fromkeys(forwarded) if name != "127.0.0.1"]
    return ("\n".join(lines) + "\n").encode()


def _resolver(domain: str, is_open: bool) -> bytes:
    """Nobody listens at the guest's own port 53, which its kernel says at once."""
    return f"search {domain}\nnameserver {NAME_SERVER if is_open else '127.0.0.1'}\n".encode()


def _network_files(
    style: str, private: IPv4Interface, macs: Sequence[str], is_open: bool
) -> dict[str, tuple[bytes, int]]:
    """Both network cards. Without a gateway nothing behind the host is reached."""
    gateway = HOST_SEEN_BY_GUEST if is_open else None
    values = {"host": str(HOST_NIC_ADDRESS), "gateway": gateway, "private": str(private)}
    return guest_folder(f"network/{style}", {**values, "host_mac": macs[0], "private_mac": macs[1]})


def _new_host_key(comment: str) -> tuple[bytes, bytes]:
    """A fresh ed25519 host key as OpenSSH's two files: made here, so that the host knows whom it will talk to."""
    key = Ed25519PrivateKey.generate()
    private = key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption())
    public = key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH)
    return private, public + f" {comment}\n".encode()
