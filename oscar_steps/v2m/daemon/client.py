"""The client of a system's daemon: finds it, starts it where it is needed, sends requests. Every wait has a limit."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from typing import Any

from oscar_steps.daemon import PYTHON, connect, last_line, peer, start
from oscar_steps.errors import (
    ConfigError,
    DaemonSilent,
    FarmError,
    HostError,
    ImpossibleTransition,
    MachineLost,
    ProfileError,
    ToolMissing,
    UserError,
)
from oscar_steps.textio import json_line, json_object
from oscar_steps.v2m.daemon.state import LOCK_SECONDS, System
from oscar_steps.v3m.profiles.xmlfile import shown

SILENCE_LIMIT = 30.0
"""Seconds; a daemon that works says every other second that it is alive."""
START_LIMIT = 60.0
END_LIMIT = 10.0
"""Seconds that a daemon may live on without its socket, when its last machine is off."""
PASSED_ERRORS: dict[str, type[FarmError]] = {
    cls.__name__: cls
    for cls in (ProfileError, ConfigError, UserError, ImpossibleTransition, MachineLost, ToolMissing, HostError)
}
"""Classes of errors that pass through the socket, by name; others pass as the nearest of these."""


class DaemonLink:
    """A connection to a daemon."""

    def __init__(self, system: System, connection: socket.socket) -> None:
        self._system = system
        self._socket = connection
        self._buffer = b""

    @property
    def pid(self) -> int:
        """The daemon's process, as the kernel knows it."""
        return peer(self._socket)

    def ask(
        self, request: dict[str, object], on_event: Callable[[dict[str, Any]], None] | None = None
    ) -> dict[str, Any]:
        """The daemon's answer. Raises what it raised, HostError where it dies, DaemonSilent where it hangs.

        `on_event` gets what it says before.
        """
        try:
            self._socket.sendall(json_line(request))
            while True:
                message = self.next_message()
                if "event" in message and on_event is not None:
                    on_event(message["event"])
                if "done" in message:
                    return dict(message["done"])
                if "error" in message:
                    error = message["error"]
                    raise PASSED_ERRORS.get(error["class"], HostError)(error["sentence"], hint=error["hint"])
        except OSError as error:
            raise self._lost() from error

    def next_message(self) -> dict[str, Any]:
        """The next line that it says. Raises as `ask` does."""
        while b"\n" not in self._buffer:
            try:
                data = self._socket.recv(1 << 16)
            except TimeoutError:
                raise DaemonSilent(
                    f"timed out after {SILENCE_LIMIT:.0f} s waiting for the v2m daemon of the system "
                    f"{self._system.name} (process {self.pid})",
                    hint=f"`kill -9 {self.pid}` ends it and its machines; the next command starts another",
                ) from None
            except ConnectionError:
                data = b""
            if not data:
                raise self._lost()
            self._buffer += data
        line, self._buffer = self._buffer.split(b"\n", 1)
        try:
            return json_object(line)
        except ValueError:
            what = f"the process {self.pid} at the socket {self._system.socket} is not a v2m daemon"
            raise HostError(
                f"{what}: it said {shown(line.decode(errors='backslashreplace'))!r}",
                hint="end that process; the next command starts a daemon where one is needed",
            ) from None

    def close(self) -> None:
        """Hang up; what was asked for goes on."""
        self._socket.close()

    def _lost(self) -> HostError:
        name = self._system.name
        return HostError(
            f"the v2m daemon of the system {name} has died, and its machines with it", hint=last_line(self._system.log)
        )


def greet(system: System, *, start: bool) -> tuple[DaemonLink | None, list[str]]:
    """A link to the daemon, None where none lives and none is to be started; and the machines of a killed daemon.

    The link is to be closed. Raises HostError where it cannot be started, DaemonSilent where it hangs.
    """
    if start:
        system.make()
    elif not system.directory.is_dir():
        return None, []
    try:
        with system.starting():
            link = _connect(system)
            if link is not None:
                return link, []
            if system.is_kept(END_LIMIT):
                raise DaemonSilent(
                    f"the v2m daemon of the system {system.name} runs, but its socket {system.socket} is missing",
                    hint=f"end it, and its machines: fuser -k {system.lock}",
                )
            dead = system.mark_dead()
            if not start:
                return None, dead
            _start(system)
            return _connect(system), dead
    except TimeoutError:
        hint = f"see who holds it: fuser -v {system.directory / 'start.lock'}"
        raise HostError(
            f"timed out after {LOCK_SECONDS:.0f} s waiting for another command on the system {system.name}", hint=hint
        ) from None


def _connect(system: System) -> DaemonLink | None:
    """None where no process listens."""
    connection = socket.socket(socket.AF_UNIX)
    connection.settimeout(SILENCE_LIMIT)
    try:
        connect(connection, system.socket)
    except (FileNotFoundError, ConnectionRefusedError):
        connection.close()
        return None
    except OSError as error:
        connection.close()
        raise HostError(
            f"the v2m daemon's socket {system.socket} cannot be reached: {error.strerror or error}"
        ) from None
    link = DaemonLink(system, connection)
    try:
        link.next_message()
    except BaseException:
        link.close()
        raise
    return link


def _start(system: System) -> None:
    """Raises HostError where it does not start."""
    with system.log.open("a", encoding="utf-8") as log:
        log.write(f"{time.time():.3f} daemon\n")
    command = [*PYTHON, "oscar_steps.v2m.daemon.server", str(system.directory.parent.absolute()), system.name]
    start(command, system.log, START_LIMIT, f"the v2m daemon of the system {system.name}")
