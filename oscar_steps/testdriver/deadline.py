"""Deadlines that are handed down, instead of numbers that shrink by hand."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from oscar_steps.errors import StageTimeout


class HostSpeed:
    """How much longer than on the reference host everything takes here.

    Measured by the accelerator probe: seconds that a kernel needs to boot to its panic; the reference host (2 emulated
    cores, unloaded) needs 2 s. A faster host gets no shorter deadlines: they are limits, not expectations.
    """

    REFERENCE_SECONDS = 2.0

    def __init__(self, probe_seconds: float) -> None:
        self.factor = min(max(probe_seconds / self.REFERENCE_SECONDS, 1.0), 8.0)

    def deadline(self, seconds: float) -> Deadline:
        """A deadline of `seconds` on the reference host, stretched to this one, from now on."""
        return Deadline(seconds * self.factor)


class Deadline:
    """A moment in the future."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._end = time.monotonic() + seconds

    @property
    def left(self) -> float:
        """Seconds until then; never negative."""
        return max(self._end - time.monotonic(), 0.0)

    @property
    def passed(self) -> bool:
        return self.left == 0.0

    @asynccontextmanager
    async def enforced(self, waiting_for: str, hint: str = "") -> AsyncIterator[None]:
        """Run the block until the deadline. Raises StageTimeout that says what was waited for."""
        try:
            async with asyncio.timeout(self.left):
                yield
        except TimeoutError:
            raise StageTimeout(f"waited {self.seconds:.0f} s for {waiting_for}, in vain", hint=hint) from None
