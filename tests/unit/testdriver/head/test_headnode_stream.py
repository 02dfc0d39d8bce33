"""What a head node says without end, and the thread that reads it: neither fills our memory nor outlives its reader."""

from __future__ import annotations

import asyncio
import itertools
import threading
import warnings
from typing import cast

import paramiko

from oscar_steps.testdriver.head.headnode import FOLLOW_CHUNKS, Stream

PATIENCE = 20.0


class Flood:
    """A channel that has always something to say, numbered, until it is closed. `quiet`: not before that is set."""

    def __init__(self, *, quiet: threading.Event | None = None) -> None:
        self.said = itertools.count()
        self.asked = 0
        self.closed = threading.Event()
        self._quiet = quiet

    def recv(self, _size: int) -> bytes:
        if self._quiet:
            self._quiet.wait(PATIENCE)
        self.asked += 1
        return b"" if self.closed.is_set() else b"%d\n" % next(self.said)

    def close(self) -> None:
        self.closed.set()


def stream_of(channel: Flood, name: str) -> tuple[Stream, threading.Thread]:
    stream = Stream(cast(paramiko.Channel, channel), name)
    return stream, next(one for one in threading.enumerate() if one.name == f"stream {name}")


def ended(thread: threading.Thread) -> bool:
    thread.join(PATIENCE)
    return not thread.is_alive()


async def settled(channel: Flood) -> int:
    """How often the channel was asked, when it is asked no more."""
    before = -1
    while channel.asked != before:
        before = channel.asked
        await asyncio.sleep(0.2)
    return before


def test_a_reader_that_is_slower_than_a_flood_makes_the_head_node_wait_and_misses_nothing() -> None:
    channel = Flood()

    async def work() -> list[bytes]:
        stream, thread = stream_of(channel, "slow")
        assert FOLLOW_CHUNKS <= await settled(channel) <= FOLLOW_CHUNKS + 2
        read = []
        async for chunk in stream:
            read.append(chunk)
            if len(read) == 3 * FOLLOW_CHUNKS:
                break
        stream.close()
        assert await asyncio.to_thread(ended, thread)
        return read

    assert asyncio.run(work()) == [b"%d\n" % n for n in range(3 * FOLLOW_CHUNKS)]


def test_a_flood_that_nobody_reads_any_more_ends_with_its_stream() -> None:
    channel = Flood()

    async def work() -> None:
        stream, thread = stream_of(channel, "unread")
        await settled(channel)  # its thread waits for room
        stream.close()
        assert await asyncio.to_thread(ended, thread)

    asyncio.run(work())


def test_what_the_head_node_says_after_our_end_is_lost_without_a_word() -> None:
    quiet = threading.Event()
    threads = []

    async def work() -> None:
        threads.append(stream_of(Flood(quiet=quiet), "late")[1])

    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        asyncio.run(work())
        quiet.set()
        assert ended(threads[0])
    assert [str(one.message) for one in told] == []
