"""Deadlines that are handed down, instead of numbers that shrink by hand."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from oscar_steps.errors import StageTimeout

MAX_FACTOR = 4.0


class HostSpeed:
    """How much longer than on the reference host everything takes here.

    Measured by the accelerator probe: seconds that a kernel needs to boot to its panic; the reference host (2 emulated
    cores, unloaded) needs 2 s. A faster host gets no shorter deadlines: they are limits, not expectations. Beyond four
    times slower the probe met a moment of load rather than the host. `doubtful`: the host was busy at the probe, so
    what is seen first (the head node's boot) counts instead.
    """

    REFERENCE_SECONDS = 2.0

    def __init__(self, probe_seconds: float, *, doubtful: bool = False) -> None:
        self.factor = min(max(probe_seconds / self.REFERENCE_SECONDS, 1.0), MAX_FACTOR)
        self._doubtful = doubtful

    def seen(self, seconds: float, reference: float) -> None:
        """Something took `seconds` that takes `reference` on the reference host: the host may be slower by now."""
        least = 1.0 if self._doubtful else self.factor
        self.factor = max(least, min(seconds / reference, MAX_FACTOR))
        self._doubtful = False

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

    @asynccontextmanager
    async def enforced(self, waiting_for: str, hint: Callable[[], str] = str) -> AsyncIterator[None]:
        """Run the block until the deadline. Raises StageTimeout that says what was waited for; `hint` is asked then."""
        limit = asyncio.timeout(self.left)
        try:
            async with limit:
                yield
        except TimeoutError:
            if not limit.expired():  # a time-out of something inside, which says more
                raise
            raise StageTimeout(f"timed out after {self.seconds:.0f} s waiting for {waiting_for}", hint=hint()) from None
