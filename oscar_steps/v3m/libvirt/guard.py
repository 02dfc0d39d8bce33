"""Guards: small processes that end a libvirt machine or network when the process that made it has died.

A guest of Xen's is no child of ours, and libvirt does not end it with our connection. So each has a *guard*, a small
shell of ours that reads a pipe whose other end only we hold. When we are gone, however that came, it reads the end of
the pipe and undoes what it guards: that very machine (by its UUID) or network (by its name), and nothing else. The
ledger has the guard and what it undoes, for the case that the guard was killed, too.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import tempfile
import uuid
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Self

from oscar_steps.environment import libvirt_environment
from oscar_steps.errors import HostError, LibvirtRefused
from oscar_steps.v3m.host import ledger
from oscar_steps.v3m.libvirt.client import virsh, virsh_command
from oscar_steps.v3m.libvirt.networks import Networks, vlan_network_xml

UNDO_SECONDS = 60
"""A machine that is being made is only ended when it has been made, and that takes emulated Xen ten seconds."""

# A line means that there is nothing to guard any more. Terminals and service managers signal whole groups: not for it,
# as soon as it has said that it is ready.
_GUARD = f"""\
trap '' HUP INT TERM
echo ready
exec > /dev/null
read line && exit 0
for try in 1 2 3; do timeout {UNDO_SECONDS} "$@" && exit 0; sleep 1; done
"""


class Guard:
    """A guard at work. An exception does not end it: only `release` says that there is nothing left."""

    def __init__(self, run_directory: Path, name: str, process: asyncio.subprocess.Process) -> None:
        self._directory = run_directory
        self._name = name
        self._process = process

    @classmethod
    async def start(cls, run_directory: Path, name: str, undo: Sequence[str]) -> Self:
        """Start it before what it guards. `name`: the ledger's; `undo`: a command that may find nothing to undo."""
        process = await asyncio.create_subprocess_exec(
            *("/bin/sh", "-c", _GUARD, "v3m-guard", *undo),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            env=libvirt_environment(),
            start_new_session=True,
        )
        ledger.record(run_directory, name, process.pid, undo)
        assert process.stdout is not None
        await process.stdout.readline()
        return cls(run_directory, name, process)

    @property
    def pid(self) -> int:
        return self._process.pid

    async def abandon(self) -> None:
        """It is not gone, and we could not end it: the guard does so from now on, and the ledger keeps the entry."""
        assert self._process.stdin is not None
        self._process.stdin.close()

    async def release(self) -> None:
        """What it guarded is gone."""
        assert self._process.stdin is not None
        with contextlib.suppress(ConnectionError):
            self._process.stdin.write(b"\n")
            await self._process.stdin.drain()
        self._process.stdin.close()
        await self._process.wait()
        ledger.forget(self._directory, self._name)


class HostVlans:
    """The bridges of a run's VLANs, made with the run and gone with it: transient networks of libvirt's."""

    def __init__(self, uri: str, run_directory: Path) -> None:
        self._uri = uri
        self._directory = run_directory
        self._guards: dict[str, Guard] = {}

    async def start(self, bridges: Iterable[str]) -> None:
        """Make the networks. Raises HostError where one cannot be made; those before it are removed again."""
        try:
            for bridge in bridges:
                undo = virsh_command(self._uri, "net-destroy", bridge)
                self._guards[bridge] = await Guard.start(self._directory, f"network {bridge}", undo)
                await create(self._uri, "net-create", vlan_network_xml(bridge))
        except BaseException:
            await self.end()
            raise

    async def end(self) -> None:
        """Remove them. May be called again."""
        while self._guards:
            bridge, guard = self._guards.popitem()
            try:
                await virsh(self._uri, "net-destroy", bridge)
            except LibvirtRefused:  # it is not there (any more)
                await guard.release()
            except HostError:  # libvirt does not answer
                await guard.abandon()
            else:
                await guard.release()


def vlan_bridges(networks: Networks) -> tuple[str, ...]:
    return tuple(dict.fromkeys(networks.vlans.values()))


def scope_of(run_directory: Path) -> str:
    """What distinguishes this run's machines and networks from all others on a host."""
    return hashlib.sha256(str(run_directory.resolve()).encode()).hexdigest()[:8]


def domain_uuid(run_directory: Path, machine: str) -> str:
    """The same for each boot of a machine: a saved state goes on only under the UUID that it had."""
    return str(uuid.uuid5(uuid.NAMESPACE_URL, f"{scope_of(run_directory)}/{machine}"))


async def create(uri: str, command: str, definition: str, *options: str, seconds: float | None = None) -> None:
    """`virsh COMMAND` with a definition, which it only takes from a file."""
    with tempfile.NamedTemporaryFile("w", prefix="v3m-", suffix=".xml", encoding="utf-8") as file:
        file.write(definition)
        file.flush()
        await virsh(uri, command, file.name, *options, seconds=seconds)


def saved_uuid(state: Path) -> str | None:
    """Whose state libvirt's Xen driver wrote into a file: the UUID in its definition, which stands at its beginning.

    The header is 16 bytes of signature, then 32-bit numbers: version, length of the definition, ten of no use.
    None for a file that is none of these. Raises HostError where it cannot be read.
    """
    try:
        with state.open("rb") as file:
            header = file.read(64)
            if len(header) < 64 or not header.startswith(b"libvirt-xml"):
                return None
            definition = file.read(min(int.from_bytes(header[20:24], "little"), 1 << 20))
    except OSError as error:
        raise HostError(f"the state {state} cannot be read: {error.strerror}") from None
    begin = definition.find(b"<uuid>")
    return definition[begin + 6 :].split(b"<", 1)[0].decode(errors="replace") if begin >= 0 else None
