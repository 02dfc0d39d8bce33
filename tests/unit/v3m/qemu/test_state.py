"""A machine's state on its way out of a QEMU, without QEMU."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from oscar_steps.errors import HostError
from oscar_steps.v3m.machine import Ended, EndReason
from oscar_steps.v3m.qemu.state import Mover


class PausedQemu:
    """A QEMU that stands still, and whose move fails."""

    name = "vm1"

    def __init__(self) -> None:
        self.mover = Mover(self)
        self.asked: list[str] = []

    async def execute(self, command: str, arguments: dict[str, object] | None = None) -> object:
        del arguments
        self.asked.append(command)
        if command == "migrate":
            self.mover.on_status("failed")
        return {"running": False, "status": "paused"}

    def pass_descriptor(self, descriptor: int) -> None:
        pass

    async def wait_ended(self) -> Ended:
        await asyncio.Event().wait()
        return Ended(EndReason.CRASHED, 1)

    def last_error(self) -> str:
        return ""


def test_a_paused_machine_that_could_not_be_saved_stays_paused() -> None:
    qemu = PausedQemu()
    with pytest.raises(HostError, match="vm1 could not be saved"):
        asyncio.run(qemu.mover.send(7, EndReason.SAVED, stop_first=True))
    assert "migrate" in qemu.asked
    assert "cont" not in qemu.asked


def test_a_paused_machine_whose_state_cannot_be_kept_takes_its_disks_back_and_stays_paused() -> None:
    async def go() -> list[str]:
        qemu = PausedQemu()
        with contextlib.suppress(HostError):
            await qemu.mover.send(7, EndReason.SAVED, stop_first=True)
        qemu.asked.clear()
        await qemu.mover.go_on_here()
        return qemu.asked

    assert asyncio.run(go()) == ["cont", "stop"]
