"""The head node as the driver sees it: a machine that is reached by SSH, as root, with a password made for the run.

paramiko blocks, so every call runs in a thread; nothing here forks. Where the other end speaks nonsense it raises
whatever its parser stumbled over (UnicodeDecodeError, IndexError), so `except Exception` stands around its calls. The
head node's host key is known beforehand (the seed put it there), so a wrong machine behind the forwarded port is an
error and never a question.
"""

from __future__ import annotations

import asyncio
import logging
import shlex
import threading
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import paramiko

from oscar_steps.errors import HeadNodeLost, HostError, StageTimeout
from oscar_steps.testdriver.head.forwards import Forward, Forwarder

# Emulated guests need seconds for a key exchange; a new connection is never hurried (an impatient client makes sshd
# fork again and again in a guest that is slow already).
CONNECT_SECONDS = 60.0
CHUNK = 1 << 16
MAX_OUTPUT_BYTES = 1 << 30
FOLLOW_CHUNKS = 64
STREAM_TRIES = 3
"""An SSH server that is started anew may hang up twice, and a connection that broke may look good for a moment."""
# sshd gives the locale C, in which Subversion refuses names that are not ASCII. A guest that is too old for C.UTF-8
# stays in C, without a word. OSCAR's installer has an environment of its own (answers.installer_command: `env -i`).
LOCALE = "export LC_ALL=C.UTF-8 2>/dev/null; "
# sshd's MaxSessions is 10 for one connection; what follows the logs, and the echo of the link, take five of them.
COMMANDS_AT_ONCE = 4

# What paramiko logs, it also raises, and we say it in our own words; without a handler it would go to standard error.
logging.getLogger("paramiko").addHandler(logging.NullHandler())
logging.getLogger("paramiko").propagate = False


@dataclass(frozen=True)
class CommandResult:
    """What a command on the head node answered."""

    command: str
    status: int
    output: str

    @property
    def ok(self) -> bool:
        return self.status == 0

    @property
    def last_line(self) -> str:
        lines = [line for line in self.output.splitlines() if line.strip()]
        return lines[-1].strip() if lines else "(it said nothing)"


class _Transport(paramiko.Transport):
    """`SSHClient.connect` has no argument for how long a key exchange may take, which is 15 s."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.handshake_timeout = CONNECT_SECONDS


class HeadNode:
    """An SSH connection to the head node. `connect` first, `close` last. `forwards`: what it reaches through us."""

    def __init__(
        self, host: str, port: int, password: str, host_key: paramiko.PKey, forwards: Iterable[Forward] = ()
    ) -> None:
        self.host, self.port, self.password = host, port, password
        self._host_key = host_key
        self._client = paramiko.SSHClient()
        self._reconnecting = asyncio.Lock()
        self._commands = asyncio.Semaphore(COMMANDS_AT_ONCE)
        self._gone = ""
        self.forwards = tuple(forwards)
        self._forwarder = Forwarder(self.forwards)
        name = f"[{host}]:{port}" if port != 22 else host
        self._client.get_host_keys().add(name, host_key.get_name(), host_key)
        self._client.set_missing_host_key_policy(paramiko.RejectPolicy())

    async def connect(self) -> None:
        """Log in. Raises HeadNodeLost with what was wrong."""
        if self._gone:
            raise HeadNodeLost(self._gone)
        try:
            await asyncio.to_thread(self._connect)
        except Exception as error:
            self._client.close()  # paramiko keeps the connection of a login that failed
            raise HeadNodeLost(
                f"root could not log in to the head node by SSH at {self.host}:{self.port}: {_words(error)}",
                hint="its console is in the run directory: console/",
            ) from error

    async def reconnect(self, seconds: float = CONNECT_SECONDS) -> None:
        """Connect again where the connection broke. A moment passes first, so that no caller tries in a tight loop.

        A head node that is just rebooting is given `seconds`. Raises HeadNodeLost where it cannot be had.
        """
        await asyncio.sleep(1.0)
        end = time.monotonic() + seconds
        async with self._reconnecting:
            while not self.connected:
                try:
                    await self.connect()
                except HeadNodeLost:
                    if self._gone or time.monotonic() >= end:
                        raise
                    await asyncio.sleep(1.0)

    def broke(self) -> None:
        """Close the connection: the head node has rebooted, and its end will never say so. All who wait are woken."""
        self._client.close()

    def gone(self, sentence: str) -> None:
        """Close the connection for good: the head node will not come back."""
        self._gone = sentence
        self._client.close()

    @property
    def is_gone(self) -> str:
        """Why it will not come back; '' where it may."""
        return self._gone

    def _connect(self) -> None:
        self._client.connect(
            self.host, self.port, "root", self.password,
            timeout=CONNECT_SECONDS, banner_timeout=CONNECT_SECONDS, auth_timeout=CONNECT_SECONDS,
            look_for_keys=False, allow_agent=False, transport_factory=_Transport,
        )  # fmt: skip
        if transport := self._client.get_transport():
            self._forwarder.ask(transport)

    async def forwarded(self, seconds: float = CONNECT_SECONDS) -> None:
        """Wait until the head node reaches what it is to reach. Raises HostError."""
        if not await asyncio.to_thread(self._forwarder.wait, seconds):
            what = f"timed out after {seconds:.0f} s waiting for the head node's SSH server to forward a port"
            raise HostError(what, hint="does its sshd_config say AllowTcpForwarding no?")

    @property
    def forward_trouble(self) -> str:
        """Why the last connection to what the head node is to reach failed on our side; '' where none did."""
        return self._forwarder.trouble

    def _session(self) -> paramiko.Channel:
        transport = self._client.get_transport()
        if transport is None or not transport.is_active():
            raise HeadNodeLost("the SSH connection to the head node is closed")
        try:
            return transport.open_session(timeout=CONNECT_SECONDS)
        except Exception as error:
            raise HeadNodeLost(f"the SSH connection to the head node broke: {_words(error)}") from error

    async def run(self, command: str, *, seconds: float = 120.0, stdin: bytes | Path = b"") -> CommandResult:
        """Run a shell command; standard output and error come back together. `stdin`: bytes, or a file of this host.

        Raises StageTimeout after `seconds`, HeadNodeLost when the connection breaks.
        """
        status, output = await self._run_bytes(command, seconds, stdin, merge=True)
        return CommandResult(command, status, output.decode("utf-8", "replace"))

    async def check(self, command: str, *, seconds: float = 120.0, stdin: bytes | Path = b"") -> str:
        """Like `run`, for commands of the farm's own that must work. Raises HostError when one does not."""
        result = await self.run(command, seconds=seconds, stdin=stdin)
        if not result.ok:
            raise HostError(f"on the head node, `{command[:80]}` ended with status {result.status}: {result.last_line}")
        return result.output

    async def read(self, command: str, *, seconds: float = 120.0) -> bytes:
        """Standard output of a command as bytes (a file, an archive). Raises HostError where it fails."""
        status, output = await self._run_bytes(command, seconds, b"", merge=False)
        if status != 0:
            raise HostError(f"on the head node, `{command[:80]}` ended with status {status}")
        return output

    async def _run_bytes(self, command: str, seconds: float, stdin: bytes | Path, *, merge: bool) -> tuple[int, bytes]:
        channel: list[paramiko.Channel] = []
        async with self._commands:
            try:
                async with asyncio.timeout(seconds):
                    return await asyncio.to_thread(self._execute, command, stdin, merge, channel)
            except TimeoutError:
                what = f"timed out after {seconds:.0f} s waiting for the head node to end `{command[:80]}`"
                raise StageTimeout(what) from None
            finally:
                for one in channel:
                    one.close()  # also wakes the thread when the wait was given up

    def _execute(
        self, command: str, stdin: bytes | Path, merge: bool, opened: list[paramiko.Channel]
    ) -> tuple[int, bytes]:
        channel = self._session()
        opened.append(channel)
        channel.set_combine_stderr(merge)
        try:
            channel.exec_command(LOCALE + command)
            if isinstance(stdin, Path):
                _send_file(stdin, channel)
            elif stdin:
                channel.sendall(stdin)
            channel.shutdown_write()
            output = bytearray()
            while chunk := channel.recv(CHUNK):
                output += chunk
                if len(output) > MAX_OUTPUT_BYTES:
                    raise HostError(f"`{command[:80]}` on the head node printed more than {MAX_OUTPUT_BYTES >> 20} MiB")
            return channel.recv_exit_status(), bytes(output)
        except HostError:
            raise
        except Exception as error:
            raise HeadNodeLost(f"the SSH connection to the head node broke: {_words(error)}") from error

    async def write_files(self, files: dict[str, tuple[str, int]]) -> None:
        """Write text files: path -> (text, mode). One session each would cost a second each; all go as one script."""
        script = ["set -e"]
        for path, (text, mode) in files.items():
            quoted = shlex.quote(path)
            script += [f"mkdir -p $(dirname {quoted})", f"cat > {quoted} <<'@@farm-end-of-file'"]
            script += [text.rstrip("\n"), "@@farm-end-of-file", f"chmod {mode:o} {quoted}"]
        await self.check("sh -s", stdin=("\n".join(script) + "\n").encode())

    async def follow(self, path: str, *, from_byte: int = 0) -> AsyncIterator[bytes]:
        """Follow a file on the head node, from its beginning, as it grows (also when it does not exist yet).

        Yields chunks. Ends when the connection ends; the caller decides whether that was expected.
        """
        async with self.stream(f"exec tail -c +{from_byte + 1} -F {shlex.quote(path)} 2>/dev/null") as stream:
            async for chunk in stream:
                yield chunk

    @asynccontextmanager
    async def stream(self, command: str) -> AsyncIterator[Stream]:
        """A command whose output is read as it comes, for as long as the context lasts; then its input ends.

        Raises HeadNodeLost when it cannot be started.
        """
        for tries_left in reversed(range(STREAM_TRIES)):
            try:
                channel = await self._started(command)
                break
            except HeadNodeLost:
                if not tries_left:
                    raise
                await self.reconnect()
        stream = Stream(channel, command)
        try:
            yield stream
        finally:
            stream.close()

    async def _started(self, command: str) -> paramiko.Channel:
        channel = await asyncio.to_thread(self._session)
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                await asyncio.to_thread(channel.exec_command, LOCALE + command)
        except Exception as error:  # also the time-out
            channel.close()
            what = f"the head node did not start `{command[:80]}`: {_words(error)}"
            raise HeadNodeLost(what) from error
        return channel

    @property
    def connected(self) -> bool:
        transport = self._client.get_transport()
        return transport is not None and transport.is_active() and transport.is_authenticated()

    def close(self) -> None:
        self._client.close()


def _send_file(path: Path, channel: paramiko.Channel) -> None:
    """All of a file, unless the command at the other end has ended before: its status says why."""
    with path.open("rb") as file:
        while (chunk := file.read(CHUNK)) and not channel.exit_status_ready():
            channel.sendall(chunk)


def _words(error: Exception) -> str:
    return str(error) or type(error).__name__


class Stream:
    """The output of a command on the head node, chunk by chunk, and its input. It ends when the connection ends."""

    def __init__(self, channel: paramiko.Channel, name: str) -> None:
        self._channel = channel
        self._loop = asyncio.get_running_loop()
        self._chunks: asyncio.Queue[bytes | None] = asyncio.Queue()
        # Bounded: a reader that is slower than a flood makes the head node wait, it does not fill our memory.
        self._room = threading.Semaphore(FOLLOW_CHUNKS)
        self._closed = False
        threading.Thread(target=self._pump, name=f"stream {name[:40]}", daemon=True).start()

    def _pump(self) -> None:
        with suppress(Exception):  # RuntimeError: the loop is closed
            while not self._closed and (chunk := self._channel.recv(CHUNK)):
                self._room.acquire()
                self._put(chunk)
        with suppress(RuntimeError):  # the loop may be closed already
            self._put(None)

    def _put(self, chunk: bytes | None) -> None:
        self._loop.call_soon_threadsafe(self._chunks.put_nowait, chunk)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while (chunk := await self._chunks.get()) is not None:
            self._room.release()
            yield chunk

    async def send(self, data: bytes) -> None:
        """Write to the command's input. That a connection has ended shows at the end of the output, not here."""
        if data:
            with suppress(Exception):
                await asyncio.to_thread(self._channel.sendall, data)

    def close(self) -> None:
        """End the command's input and forget what it still says."""
        self._closed = True
        self._channel.close()
        self._room.release()  # the pump, which may wait for room, ends
