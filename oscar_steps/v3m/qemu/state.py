"""Moves a machine's memory and devices: out of one QEMU into a descriptor, and from a descriptor into another QEMU.

A descriptor is a file (save), a socket to another QEMU here, or one that leads to another host.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from typing import Any, Protocol

from oscar_steps.errors import HostError, ImpossibleTransition, MachineLost
from oscar_steps.v3m.machine import Ended, EndReason

MIGRATION_LIMIT = 600.0
"""Seconds until a machine's memory must have been moved or written."""
MIGRATION_BYTES_PER_SECOND = 10 << 30
"""As fast as it goes: QEMU's own limit is meant for a network that others use, too."""
SAVED_STATES = (b"QEVM", b"libvirt-xml")
"""How the file of a saved machine begins: QEMU's, and that of libvirt's driver for Xen."""
_OVER = ("completed", "failed", "cancelled")


class Movable(Protocol):
    """What has to be known of a machine to move it."""

    @property
    def name(self) -> str: ...

    async def execute(self, command: str, arguments: dict[str, object] | None = None) -> object:
        """Ask its QEMU."""
        ...

    def pass_descriptor(self, descriptor: int) -> None:
        """Hand its QEMU a descriptor, for the next command."""
        ...

    async def wait_ended(self) -> Ended:
        """Wait for the end of this boot."""
        ...

    def last_error(self) -> str:
        """The last words of its QEMU."""
        ...


class Mover:
    """Moves the state of one machine, out or in."""

    def __init__(self, machine: Movable) -> None:
        self._machine = machine
        self._done: asyncio.Future[str] | None = None
        self._ran = True

    @property
    def is_moving(self) -> bool:
        """While it is being moved QEMU stops and starts its processors, which is no pause."""
        return self._done is not None

    def on_status(self, status: str) -> None:
        """QEMU's event MIGRATION."""
        if status in _OVER and self._done is not None and not self._done.done():
            self._done.set_result(status)

    async def send(self, descriptor: int, reason: EndReason, *, stop_first: bool = False) -> None:
        """Send memory and devices into `descriptor`; the machine stands still then, its disk is given up.

        Raises HostError where it fails; the machine then runs on, unless it stood still before.
        """
        machine = self._machine
        self._ran = await self._is_running()
        try:
            with self._moving() as done:
                if stop_first:
                    await machine.execute("stop")
                await self._give(descriptor)
                await machine.execute("migrate", {"uri": "fd:state"})
                try:
                    await self._arrival(done, f"{machine.name} could not be {reason}")
                except (HostError, asyncio.CancelledError):
                    await self._cancel()
                    raise
        except HostError:
            if stop_first and self._ran:
                await self.go_on_here()
            raise

    async def receive(self, descriptor: int) -> None:
        """Take memory and devices from `descriptor`; the machine stands still then. Raises HostError."""
        with self._moving() as done:
            await self._give(descriptor)
            await self._machine.execute("migrate-incoming", {"uri": "fd:state"})
            await self._arrival(done, f"the state of {self._machine.name} could not be taken over")

    async def go_on_here(self) -> None:
        """Run on after a failed move (QEMU may have stopped the processors for it).

        What stood still before stands still again; it takes its disks back by that.
        """
        with contextlib.suppress(HostError):
            await self._machine.execute("cont")
            if not self._ran:
                await self._machine.execute("stop")

    async def _is_running(self) -> bool:
        answer: Any = await self._machine.execute("query-status")
        return bool(answer.get("running", True))

    @contextlib.contextmanager
    def _moving(self) -> Iterator[asyncio.Future[str]]:
        self._done = asyncio.get_running_loop().create_future()
        try:
            yield self._done
        finally:
            self._done.cancel()
            self._done = None

    async def _give(self, descriptor: int) -> None:
        machine = self._machine
        capability = {"capability": "events", "state": True}
        await machine.execute("migrate-set-capabilities", {"capabilities": [capability]})
        await machine.execute("migrate-set-parameters", {"max-bandwidth": MIGRATION_BYTES_PER_SECOND})
        machine.pass_descriptor(descriptor)
        await machine.execute("getfd", {"fdname": "state"})

    async def _cancel(self) -> None:
        """Without this a move whose caller gave up would go on in QEMU."""
        with contextlib.suppress(HostError):
            await self._machine.execute("migrate_cancel")

    async def _arrival(self, done: asyncio.Future[str], failed: str) -> None:
        life = asyncio.ensure_future(self._machine.wait_ended())
        try:
            async with asyncio.timeout(MIGRATION_LIMIT):
                either: set[asyncio.Future[Any]] = {done, life}
                await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        except TimeoutError:
            raise HostError(f"{failed}: timed out after {MIGRATION_LIMIT:.0f} s") from None
        finally:
            life.cancel()
        if done.done() and done.result() == "completed":
            return
        try:
            answer: Any = await self._machine.execute("query-migrate")
            why = answer.get("error-desc", "QEMU gives no reason")
        except (MachineLost, ImpossibleTransition):  # QEMU ends where it cannot make sense of a state
            await self._machine.wait_ended()
            why = self._machine.last_error()
        raise HostError(f"{failed}: {why}")
