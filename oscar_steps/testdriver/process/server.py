"""The run's socket, to which commands attach, and the lease: without a command the run ends after a while.

Protocol, one JSON object a line. A command asks {"stage": NAME} or {"cancel": REASON}; the run answers {"event":
...} for everything that happens, and {"done": {"stage": NAME, "result": RESULT}} when the stage (or the run) is over.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from oscar_steps.daemon import short_path
from oscar_steps.testdriver.process.rundirectory import SOCKET_FILE
from oscar_steps.testdriver.record.events import Event
from oscar_steps.testdriver.run import Run
from oscar_steps.textio import json_line, json_object
from oscar_steps.verdict import Stage

LEASE_LOOK_SECONDS = 1.0
REQUEST_SECONDS = 10.0
READ_SECONDS = 60.0
"""A command that does not read for so long is taken for gone."""


class RunServer:
    """Serves the commands that are attached to one run."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._attached = 0
        self._alone_since = time.monotonic()
        self._shown = 0
        self._idle = asyncio.Event()
        self._idle.set()

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[None]:
        """Listen until the block ends; then wait shortly for commands that still read."""
        path = self._run.directory / SOCKET_FILE
        path.unlink(missing_ok=True)
        with short_path(path) as address:
            server = await asyncio.start_unix_server(self._serve, address)
        path.chmod(0o600)
        try:
            yield
            with suppress(TimeoutError):
                async with asyncio.timeout(10):
                    await self._idle.wait()
        finally:
            server.close()
            path.unlink(missing_ok=True)

    async def hold_lease(self, seconds: float) -> None:
        """End the run when no command was attached for `seconds`."""
        while True:
            await asyncio.sleep(LEASE_LOOK_SECONDS)
            if not self._attached and time.monotonic() - self._alone_since > seconds:
                await self._run.cancel(f"no command was attached for {seconds:.0f} s: has its worker or master ended?")
                return

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # A connection that asks nothing must not hold the lease.
        try:
            async with asyncio.timeout(REQUEST_SECONDS):
                request = json_object(await reader.readline())
        except (TimeoutError, ConnectionError, ValueError):
            writer.close()
            return
        self._attached += 1
        self._idle.clear()
        try:
            with suppress(ConnectionError, TimeoutError, asyncio.IncompleteReadError, ValueError):
                await self._answer(request, reader, writer)
        finally:
            self._attached -= 1
            self._alone_since = time.monotonic()
            if not self._attached:
                self._idle.set()
            writer.close()

    async def _answer(
        self, request: dict[str, str], reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        if reason := request.get("cancel"):
            await self._run.cancel(reason)
        stage = Stage(request.get("stage", Stage.TEARDOWN))
        events: asyncio.Queue[Event] = asyncio.Queue()
        with self._run.diary.listening(events.put_nowait):
            # What was said since the last command ended: nothing is shown twice, nothing is lost between two steps.
            for event in self._run.diary.past[self._shown :]:
                events.put_nowait(event)
            if "stage" in request:
                await self._run.gate.permit(stage)
            await self._stream(events, stage, reader, writer)
        if "stage" in request:
            self._shown = len(self._run.diary.past)
        result = self._run.results[stage].result if stage in self._run.results else "cancelled"
        writer.write(json_line({"done": {"stage": stage, "result": result}}))
        await writer.drain()

    async def _stream(
        self, events: asyncio.Queue[Event], stage: Stage, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        done = asyncio.ensure_future(self._run.done[stage].wait())
        gone = asyncio.ensure_future(self._until_gone(reader))
        getting = asyncio.ensure_future(events.get())
        try:
            while not gone.done():
                await asyncio.wait({done, gone, getting}, return_when=asyncio.FIRST_COMPLETED)
                while getting.done():
                    writer.write(json_line({"event": json_object(getting.result().as_json())}))
                    async with asyncio.timeout(READ_SECONDS):
                        await writer.drain()
                    getting = asyncio.ensure_future(events.get())
                    await asyncio.sleep(0)
                if done.done():
                    return
        finally:
            for task in (done, gone, getting):
                task.cancel()

    async def _until_gone(self, reader: asyncio.StreamReader) -> None:
        """Read what the command still asks, until it goes away: it may cancel the run in mid-stage."""
        while line := await reader.readline():
            if reason := json_object(line).get("cancel"):
                await self._run.cancel(reason)
