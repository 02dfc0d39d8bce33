"""VLANs for machines that come and go: a QEMU without a guest holds a hub for each VLAN, and gets a line for each NIC.

In a cluster whose machines are all known before, the head node's own QEMU holds the hubs (`network.plan`). Here none
is first: machines join in any order, one by one, and leave. A machine's own half is the same in both.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import socket
from pathlib import Path

from qemu.qmp import ConnectError, ExecInterruptedError, ExecuteError, QMPClient, QMPError

from oscar_steps.environment import machine_environment
from oscar_steps.errors import HostError, MachineLost
from oscar_steps.v3m.host import ledger
from oscar_steps.v3m.host.accelerator import emulator
from oscar_steps.v3m.host.confinement import SANDBOX, confined
from oscar_steps.v3m.profiles.vm import VMProfile
from oscar_steps.v3m.qemu.network import SINK, VLAN_DIRECTORY

LIMIT = 60.0
"""Seconds that it may take to answer."""
NAME = "vlan-hub"
LEDGER_NAME = f".{NAME}"
"""In the ledger, where no machine has this name: theirs do not begin with a dot."""


class VlanHub:
    """The VLANs of one directory. `lines_of` starts it when it is needed first; it dies with the calling process."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._process: asyncio.subprocess.Process | None = None
        self._qmp: QMPClient | None = None
        self._hubs: dict[str | None, int] = {}
        self._lines: dict[str, list[int]] = {}
        self._numbers = itertools.count()
        self._joining = asyncio.Lock()

    @property
    def pid(self) -> int | None:
        """Its process, None while no machine needs it."""
        return None if self._process is None else self._process.pid

    async def lines_of(self, profile: VMProfile, key: str | None = None) -> list[str]:
        """Sockets for the machine's NICs on VLANs, relative to the directory; not connected yet.

        `key`: what `release` gives them back by; without it the machine's name. Raises HostError where that fails.
        """
        sockets: list[str] = []
        if not profile.vlan_nics:
            return sockets
        async with self._joining:
            if self._process is None or self._process.returncode is not None:
                await self.close()
                await self._start()
            for nic in profile.vlan_nics:
                hub, number = await self._hub(nic.vlan), next(self._numbers)
                sockets.append(f"{VLAN_DIRECTORY}/n{number}")
                self._lines.setdefault(key or profile.name, []).append(number)
                address = {"type": "unix", "path": sockets[-1]}
                spoke = {"type": "stream", "id": f"spoke{number}", "server": True, "addr": address}
                await self._execute("netdev_add", spoke)
                plug = {"type": "hubport", "id": f"hub{number}", "hubid": hub, "netdev": f"spoke{number}"}
                await self._execute("netdev_add", plug)
        return sockets

    async def _hub(self, vlan: str | None) -> int:
        """The VLAN's hub. It has a port without a peer, which is always ready.

        A hub whose other ports are all busy or gone takes no frame, stops to read from the line that it came by, and
        does not begin again when a machine joins (QEMU 7.2).
        """
        if vlan not in self._hubs:
            hub = len(self._hubs)
            await self._execute("netdev_add", {"type": "hubport", "id": f"{SINK}{hub}", "hubid": hub})
            self._hubs[vlan] = hub
        return self._hubs[vlan]

    async def release(self, key: str) -> None:
        """Take away the lines of a machine that has ended. Nothing happens where it has none."""
        for number in self._lines.pop(key, []):
            # Where the hub's process is gone, its lines are, too.
            for netdev in (f"hub{number}", f"spoke{number}"):
                with contextlib.suppress(HostError):
                    await self._execute("netdev_del", {"id": netdev})

    async def close(self) -> None:
        """End it, and every line."""
        process, qmp = self._process, self._qmp
        self._process = self._qmp = None
        self._hubs.clear()
        if process is not None and process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
            with contextlib.suppress(OSError):  # the host's disk is full, say: its line names a process that has ended
                ledger.forget(self._directory, LEDGER_NAME)
        if qmp is not None:
            with contextlib.suppress(QMPError, OSError, EOFError):
                await qmp.disconnect()

    async def _start(self) -> None:
        (self._directory / VLAN_DIRECTORY).mkdir(mode=0o700, exist_ok=True)
        for stale in (self._directory / VLAN_DIRECTORY).glob("n*"):
            stale.unlink()
        ours, theirs = socket.socketpair()
        # Not stopped (-S): a QEMU that does not run lets no frame through.
        bare = ["-machine", "none", "-nodefaults", "-no-user-config", "-display", "none"]
        control = ["-chardev", f"socket,id=qmp,fd={theirs.fileno()}", "-mon", "chardev=qmp,mode=control"]
        qmp = QMPClient(NAME)
        try:
            with contextlib.closing(theirs), (self._directory / f"{NAME}.log").open("ab") as errors:
                self._process = await asyncio.create_subprocess_exec(
                    *confined([emulator(), "-name", NAME, *SANDBOX, *bare, *control]),
                    cwd=self._directory,
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=errors,
                    stderr=errors,
                    env=machine_environment(),
                    pass_fds=(theirs.fileno(),),
                    start_new_session=True,
                )
            ledger.record(self._directory, LEDGER_NAME, self._process.pid)
            async with asyncio.timeout(LIMIT):
                await qmp.connect(ours)
        except BaseException as error:
            ours.close()
            await self.close()
            if not isinstance(error, (TimeoutError, ConnectError)):
                raise
            words = f"see {self._directory / NAME}.log"
            raise MachineLost("the VLAN hub did not start", hint=words) from None
        self._qmp = qmp

    async def _execute(self, command: str, arguments: dict[str, object]) -> None:
        if self._qmp is None:
            raise MachineLost("the VLAN hub has ended")
        try:
            async with asyncio.timeout(LIMIT):
                await self._qmp.execute(command, arguments)
        except ExecuteError as error:
            raise HostError(f"a machine's connection to its VLAN could not be changed: {error}") from None
        except (TimeoutError, ExecInterruptedError, QMPError, OSError, EOFError):
            raise MachineLost("the VLAN hub does not answer") from None
