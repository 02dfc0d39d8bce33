"""virsh, libvirt's own client, as child processes: one for each question, one that reports events.

Each is a child of ours and dies with us. None is given a terminal of the user's: it must not ask for a password.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import pty
import re
import shutil
import signal
import termios
import tty
from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

from oscar_steps.environment import libvirt_environment
from oscar_steps.errors import HostError, LibvirtRefused, ToolMissing
from oscar_steps.v3m.host import ledger

VIRSH_SECONDS = 30.0
"""It asks and prints a text; only a hypervisor that does not answer takes longer."""
_BLOCK = 1 << 16

_LIFECYCLE = re.compile(r"event 'lifecycle' for domain '(.*)': (\S+) ?(.*)")


@dataclass(frozen=True, slots=True)
class LifecycleEvent:
    """What libvirt reports of a machine, by its name there: e.g. `Stopped`, with `Shutdown` as its detail."""

    domain: str
    what: str
    detail: str


def parse_event(line: str) -> LifecycleEvent | None:
    """A line of `virsh event`; None for one that is about something else."""
    match = _LIFECYCLE.search(line)
    return LifecycleEvent(match[1], match[2], match[3].strip()) if match else None


def virsh_command(uri: str, *arguments: str) -> list[str]:
    """The command line. Raises ToolMissing."""
    program = shutil.which("virsh")
    if program is None:
        raise ToolMissing("the program virsh is missing", hint="install it: apt-get install libvirt-clients")
    return [program, "--quiet", "--connect", uri, *arguments]


async def virsh(uri: str, *arguments: str, seconds: float | None = None) -> str:
    """What virsh prints. Raises LibvirtRefused, ToolMissing, and HostError when it does not end within `seconds`."""
    seconds = VIRSH_SECONDS if seconds is None else seconds
    process = await asyncio.create_subprocess_exec(
        *ledger.owned(virsh_command(uri, *arguments)),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=libvirt_environment(),
        start_new_session=True,
    )
    try:
        async with asyncio.timeout(seconds):
            output, errors = await process.communicate()
    except TimeoutError:
        raise HostError(f"timed out after {seconds:.0f} s waiting for virsh {arguments[0]} at {uri}") from None
    finally:
        await _end(process)
    if process.returncode != 0:
        reason = _reason(errors.decode(errors="replace")) or f"it ended with {process.returncode}"
        raise LibvirtRefused(f"libvirt at {uri} refuses virsh {arguments[0]}: {reason}")
    return output.decode(errors="replace")


class TerminalReader:
    """Reads what is printed on a terminal: by a virsh that runs for long, or by a guest on its own (`at`).

    virsh has one of ours: `console` wants one, and `event` writes at once only there. `on_output` gets what is printed,
    in pieces, in the event loop.
    """

    def __init__(
        self, process: asyncio.subprocess.Process | None, descriptor: int, on_output: Callable[[bytes], None]
    ) -> None:
        self._process = process
        self._descriptor = descriptor
        self._on_output = on_output
        self._closed = asyncio.Event()
        os.set_blocking(descriptor, False)
        asyncio.get_running_loop().add_reader(descriptor, self._read)

    @classmethod
    async def start(cls, uri: str, *arguments: str, on_output: Callable[[bytes], None]) -> Self:
        """Start virsh."""
        master, slave = pty.openpty()
        try:
            tty.setraw(slave)  # no echo, no carriage returns of the terminal's own
            process = await asyncio.create_subprocess_exec(
                *ledger.owned(virsh_command(uri, *arguments)),
                stdin=slave,
                stdout=slave,
                stderr=slave,
                env=libvirt_environment(),
                start_new_session=True,
            )
        except BaseException:
            os.close(master)
            raise
        finally:
            os.close(slave)
        return cls(process, master, on_output)

    @classmethod
    def at(cls, path: str, *, on_output: Callable[[bytes], None]) -> Self:
        """A terminal of this host's. Raises OSError where it cannot be read."""
        descriptor = os.open(path, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)
        try:
            tty.setraw(descriptor, termios.TCSANOW)  # what has been printed already is not thrown away
        except termios.error as error:
            os.close(descriptor)
            raise OSError(*error.args) from None
        return cls(None, descriptor, on_output)

    async def wait_closed(self) -> None:
        """Wait until everything has been read and no process can print any more."""
        await self._closed.wait()
        if self._process is not None:
            await self._process.wait()

    async def end(self) -> None:
        """End it; what has been printed until now is still handed on."""
        if self._process is not None:
            await _end(self._process)
        if not self._closed.is_set():
            self._read()
            self._close()

    def _read(self) -> None:
        while not self._closed.is_set():
            try:
                data = os.read(self._descriptor, _BLOCK)
            except BlockingIOError:
                return
            except OSError:  # EIO: the other side is closed
                data = b""
            if not data:
                self._close()
                return
            self._on_output(data)

    def _close(self) -> None:
        if self._closed.is_set():
            return
        asyncio.get_running_loop().remove_reader(self._descriptor)
        os.close(self._descriptor)
        self._closed.set()


async def open_console(uri: str, domain: str, on_output: Callable[[bytes], None]) -> TerminalReader:
    """Read a machine's console: where it is on this host the terminal itself, and else what libvirt passes on.

    libvirt 9.0 locks up now and then when a machine ends whose console it passes on. One thread ends the console's
    stream and wants the machine's list of consoles, another one frees that list and wants the stream (virStreamFinish
    against virChrdevFree, as the stacks of its threads showed).
    """
    if uri.startswith("xen:///"):
        with contextlib.suppress(HostError, OSError):  # to a user who is not root it is closed
            path = await virsh(uri, "ttyconsole", domain)
            return TerminalReader.at(path.strip(), on_output=on_output)
    return await TerminalReader.start(uri, "console", "--force", domain, on_output=on_output)


class EventStream:
    """libvirt's lifecycle events of one machine, as they come: `async for`; it ends with libvirt's connection."""

    def __init__(self, domain: str) -> None:
        self._domain = domain
        self._queue: asyncio.Queue[LifecycleEvent | None] = asyncio.Queue()
        self._rest = b""
        self._said: list[str] = []
        self._child: TerminalReader | None = None
        self._end: asyncio.Task[None] | None = None

    @classmethod
    async def start(cls, uri: str, domain: str) -> Self:
        stream = cls(domain)
        arguments = ("event", "--event", "lifecycle", "--loop")
        stream._child = await TerminalReader.start(uri, *arguments, on_output=stream._take)
        stream._end = asyncio.create_task(stream._tell_end(stream._child), name=f"end of the events of {domain}")
        return stream

    @property
    def last_words(self) -> str:
        """What virsh complained about when it ended."""
        return _reason("\n".join(self._said))

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> LifecycleEvent:
        event = await self._queue.get()
        if event is None:
            raise StopAsyncIteration
        return event

    async def end(self) -> None:
        if self._child is not None:
            await self._child.end()
        if self._end is not None:
            await self._end

    def _take(self, data: bytes) -> None:
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            text = line.decode(errors="replace")
            event = parse_event(text)
            if event is None:
                self._said.append(text)
            elif event.domain == self._domain:
                self._queue.put_nowait(event)

    async def _tell_end(self, child: TerminalReader) -> None:
        await child.wait_closed()
        self._queue.put_nowait(None)


async def _end(process: asyncio.subprocess.Process) -> None:
    """Kill virsh, and with it what it started, e.g. an ssh."""
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()


def _reason(errors: str) -> str:
    """The last line of virsh's complaint: the first ones only say what it was doing."""
    lines = [line.removeprefix("error: ") for line in errors.strip().splitlines() if line.strip()]
    return lines[-1] if lines else ""
