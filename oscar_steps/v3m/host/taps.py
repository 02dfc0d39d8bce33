"""NICs on bridges of the kernel: a VLAN's own, in a network namespace, and those that the host has.

*A VLAN*: a child of ours makes a network namespace (a user namespace round it where we are not root), in it one bridge
per VLAN and one tap per NIC, hands us the taps' descriptors, and ends. What it made lives exactly as long as the
descriptors do: nothing appears on the host, no name or address can collide, and whatever ends us ends all of it.

*A bridge of the host*: QEMU's own set-user-ID helper makes a tap in it, if the administrator has allowed the bridge in
`/etc/qemu/bridge.conf`, and hands us its descriptor. The tap goes with the last copy of it.

QEMU is started with these descriptors. They stay open in this process, too, so that a machine which ends and is started
again is still on the same port of the same bridge.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import socket
import stat
import struct
import subprocess
import sys
import weakref
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

from oscar_steps.environment import tool_environment
from oscar_steps.errors import HostError, ToolMissing

HELPERS = (Path("/usr/lib/qemu/qemu-bridge-helper"), Path("/usr/libexec/qemu-bridge-helper"))
ACL_FILE = Path("/etc/qemu/bridge.conf")
LIMIT = 30.0
"""Seconds in which bridges and taps must be there; it takes a tenth of one."""
QUEUE_FRAMES = 10_000
"""How many frames wait for a QEMU that does not come to read them, as in its own queues. The kernel's 1000 are a
quarter of a second at 50 Mbit/s; an emulator on a busy host is away for longer."""
VNET_HEADER_BYTES = 10
"""What goes before every frame on a tap: checksums and segments that are left to the other side."""

_STAR = 'set vlan = "star" in the host\'s settings, which needs nothing of the kernel'
_TUN = Path("/dev/net/tun")
_NO_IPV6 = Path("/proc/sys/net/ipv6/conf/default/disable_ipv6")
"""Without it the host's own ends would speak in the VLANs."""
_TUNSETIFF = 0x400454CA
_IFF_TAP, _IFF_NO_PI, _IFF_VNET_HDR = 0x0002, 0x1000, 0x4000
_DESCRIPTORS_PER_MESSAGE = 200


class Tap:
    """A network interface that lives as long as a copy of its descriptor is open."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        weakref.finalize(self, os.close, descriptor)

    def fileno(self) -> int:
        return self._descriptor


class HasDescriptor(Protocol):
    """A tap, or what stands for one where a command line is only shown."""

    def fileno(self) -> int: ...


Place = tuple[str, int]
"""Of a NIC: its machine's name, and its number in the profile, from 0."""

Taps = Mapping[Place, HasDescriptor]
"""The taps of machines that belong together."""


# --- VLANs -----------------------------------------------------------------------------------------------------------


def make_vlans(names: Sequence[str]) -> list[Tap]:
    """A tap for each of `names`; those of the same name share one bridge, which has no other port.

    Raises HostError where the kernel does not let us, ToolMissing where `ip` or `unshare` is not there.
    """
    numbers = {name: str(number) for number, name in enumerate(dict.fromkeys(names))}
    failures: list[str] = []
    for unshare in _ways_to_unshare():
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with ours, theirs:
            child = [sys.executable, "-P", "-m", __name__, str(theirs.fileno()), *(numbers[name] for name in names)]
            failure = _run([*unshare, *child], theirs)
            taps = [Tap(descriptor) for descriptor in _received(ours)]
        if not failure and len(taps) == len(names):
            return taps
        failures.append(failure or f"it made {len(taps)} of {len(names)} taps")
    raise HostError(f"the kernel gives this user no bridges for VLANs: {failures[-1]}", hint=_STAR)


def _ways_to_unshare() -> list[list[str]]:
    """Root needs no user namespace, and may not have one; root without its capabilities is a user like others."""
    plain, as_user = ["--net"], ["--user", "--map-root-user", "--net"]
    ways = [plain, as_user] if os.geteuid() == 0 else [as_user]
    return [[_tool("unshare", "util-linux"), *options, "--"] for options in ways]


def _tool(name: str, package: str) -> str:
    # A user's PATH may lack where programs of the administrator's are.
    path = shutil.which(name) or shutil.which(name, path="/usr/sbin:/sbin:/usr/bin:/bin")
    if path is None:
        raise ToolMissing(f"the program {name}, which makes VLANs, is missing", hint=f"install {package}, or {_STAR}")
    return path


def _run(command: list[str], theirs: socket.socket) -> str:
    """Run `command` with one end of a socket pair, and close that end; returns why it failed, or ''."""
    # Where the package is found, it is found by the child, too; but never in the user's directory, whose files may be
    # anybody's.
    environment = tool_environment(PYTHONPATH=os.pathsep.join(path for path in sys.path if path))
    descriptors = (theirs.fileno(),)
    try:
        done = subprocess.run(
            command, pass_fds=descriptors, env=environment, stdin=subprocess.DEVNULL, capture_output=True,
            text=True, errors="replace", timeout=LIMIT, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return f"timed out after {LIMIT:.0f} s waiting for {Path(command[0]).name}"
    except OSError as error:
        return f"{command[0]} cannot be run: {error.strerror}"
    finally:
        theirs.close()
    lines = [line for line in done.stderr.splitlines() if line.strip()]
    return "" if done.returncode == 0 else "; ".join(lines) or f"{command[0]} ended with {done.returncode}"


def _received(ours: socket.socket) -> list[int]:
    """All descriptors that were sent before the other end was closed."""
    found: list[int] = []
    while True:
        data, descriptors, _, _ = socket.recv_fds(ours, 1, _DESCRIPTORS_PER_MESSAGE, socket.MSG_CMSG_CLOEXEC)
        found += descriptors
        if not data:
            return found


# --- bridges of the host ---------------------------------------------------------------------------------------------


def join(bridge: str) -> Tap:
    """A tap in a bridge of the host. Raises HostError where there is none, or it is not allowed, with the way out."""
    try:
        socket.if_nametoindex(bridge)
    except OSError:
        hint = f"make it (ip link add {bridge} type bridge), or name another in the host's settings, [network] bridges"
        raise HostError(f"this host has no bridge '{bridge}' for NICs of type BRIDGED_TAP", hint=hint) from None
    helper = next((path for path in HELPERS if path.exists()), None)
    if helper is None:
        what = f"a NIC cannot join the bridge {bridge}: {HELPERS[0]} is not there"
        raise ToolMissing(what, hint="install QEMU's qemu-bridge-helper")
    ours, theirs = socket.socketpair()
    with ours, theirs:
        failure = _run([str(helper), "--use-vnet", f"--br={bridge}", f"--fd={theirs.fileno()}"], theirs)
        descriptors = _received(ours)
    if failure or not descriptors:
        hint = f"write the line 'allow {bridge}' into {ACL_FILE}" if "acl" in failure else ""
        if f"{_TUN}: Permission denied" in failure:  # QEMU's helper opens it as the user; udev lets everybody
            hint = f"let users open it: chmod 666 {_TUN}"
        if os.geteuid() != 0 and not helper.stat().st_mode & stat.S_ISUID:
            hint = f"let {helper} run as root: chmod u+s {helper}"
        raise HostError(f"a NIC cannot join the bridge {bridge}: {failure or f'{helper} made no tap'}", hint=hint)
    return Tap(descriptors[0])


# --- the child, in the namespace -------------------------------------------------------------------------------------


def _make(numbers: Sequence[str], to: socket.socket) -> None:
    """Make a tap for each number, in the bridge of that number, and send the descriptors."""
    with contextlib.suppress(OSError):  # a kernel without IPv6, or /proc cannot be written: it is a matter of quiet
        _NO_IPV6.write_text("1", encoding="ascii")
    # No delay before a new port forwards; no snooping, which could hold back what a node has to hear.
    commands = [
        f"link add vlan{number} type bridge forward_delay 0 mcast_snooping 0\nlink set vlan{number} up\n"
        for number in dict.fromkeys(numbers)
    ]
    taps: list[int] = []
    for place, number in enumerate(numbers):
        descriptor = os.open(_TUN, os.O_RDWR)
        flags = _IFF_TAP | _IFF_NO_PI | _IFF_VNET_HDR
        fcntl.ioctl(descriptor, _TUNSETIFF, struct.pack("16sH22x", f"tap{place}".encode(), flags))
        taps.append(descriptor)
        commands.append(f"link set tap{place} txqueuelen {QUEUE_FRAMES} master vlan{number} up\n")
    ip = [_tool("ip", "iproute2"), "-batch", "-"]
    subprocess.run(ip, input="".join(commands), text=True, check=True, env=tool_environment())
    for first in range(0, len(taps), _DESCRIPTORS_PER_MESSAGE):
        socket.send_fds(to, [b"."], taps[first : first + _DESCRIPTORS_PER_MESSAGE])


def _main() -> int:
    """`python -m oscar_steps.v3m.host.taps DESCRIPTOR NUMBER...`, in a namespace of its own; errors in one line."""
    with socket.socket(fileno=int(sys.argv[1])) as to:
        try:
            _make(sys.argv[2:], to)
        except ToolMissing as error:
            print(f"{error.sentence} ({error.hint})", file=sys.stderr)
        except subprocess.CalledProcessError:
            pass  # ip has said why
        except OSError as error:
            print(f"{error.filename or 'a tap'}: {error.strerror}", file=sys.stderr)
        else:
            return 0
    return 1


if __name__ == "__main__":
    sys.exit(_main())
