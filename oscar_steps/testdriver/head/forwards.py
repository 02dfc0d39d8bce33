"""What the head node of a run reaches: the servers that its job names, one by one, through the run's SSH connection.

A guest runs what an untested commit wrote, as root, so its network is closed (docs/networks.md). The driver asks the
head node's SSH server to listen on a port of the guest's own loopback interface for each server, and itself connects
to that server for whatever comes there. Nothing of the hypervisor is needed for it; what the other end asks for beyond
these ports is closed unread; all of it ends with the connection. The ports are our own, not the servers': OSCAR's own
web server wants port 80 of the head node.
"""

from __future__ import annotations

import re
import socket
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import ip_address
from urllib.parse import urlsplit, urlunsplit

import paramiko

from oscar_steps.errors import SourceError
from oscar_steps.job import Job

GUEST_LOOPBACK = "127.0.0.1"
FIRST_PORT = 28690
"""The first server's in the guest; nothing that OSCAR brings listens there."""
PORTS = {"svn": 3690, "git": 9418, "http": 80, "https": 443}
MOST_CONNECTIONS = 64
"""At once, so that a guest cannot make threads of ours without end."""
CONNECT_SECONDS = 30.0
LONGEST_PAUSE = 30.0
LOOK_SECONDS = 1.0
"""Between two looks at whether a guest that has sent everything is still there: no event says so."""
CHUNK = 1 << 16
_NAME = re.compile(r"(?=.*[a-z])[a-z0-9]([a-z0-9._-]*[a-z0-9])?")


@dataclass(frozen=True, slots=True)
class Forward:
    """A server as the host reaches it, and the port of the guest's loopback interface that leads to it."""

    host: str
    port: int
    guest_port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def name(self) -> str:
        """What the guest calls it: its own name, for a certificate's sake; an address where it has none."""
        return self.host if self.host != "localhost" and _NAME.fullmatch(self.host) else GUEST_LOOPBACK


def forwards_of(job: Job, *, is_open: bool = False, is_carried: bool = False) -> tuple[Forward, ...]:
    """The servers that a run needs: its repository's, and those of the packages that its answers name.

    `is_carried`: the host brings OSCAR into the head node, which then has no way to its server. Where the host is open
    the guest reaches them by itself, but for those on the host's own loopback interface.
    """
    answers = job.answers
    own = [] if is_carried or job.source.kind == "tarball" else [job.source.url]  # the host fetches a tarball itself
    urls = [*own, answers.oscar_repository.partition(" ")[0], *answers.repositories.split(",")]
    return forwards_for(url for url in urls if not is_open or _is_on_loopback(url))


def check_reach(job: Job, *, is_open: bool, is_carried: bool = False) -> None:
    """Raise SourceError where a head node cannot reach the repository, whatever is forwarded: it checks out itself."""
    if is_carried or job.source.kind == "tarball":
        return
    url = job.source.url
    scheme = url.partition(":")[0].lower()
    if _server(url) or (is_open and scheme != "file"):
        return
    other = "svn" if job.source.kind == "git" else "git"
    reached = ", ".join(f"{name}://" for name in PORTS if name != other)
    what = f"the head node checks OSCAR out itself, and cannot reach {url}; it can reach {reached}, followed by a host"
    serve = "git daemon: git://HOST/..." if job.source.kind == "git" else "svnserve: svn://HOST/..."
    hint = f"serve the repository with {serve}"
    if scheme != "file" and job.source.kind == "svn":
        hint += "; or give this host a login for it, in subversion.toml"
    elif scheme != "file":
        hint += "; or set to_host = 'open' in host.toml, if the server asks for no key or password"
    raise SourceError(what, hint=hint)


def forwards_for(urls: Iterable[str]) -> tuple[Forward, ...]:
    """One for each server among `urls`; a path, or a URL of an unknown kind, has none."""
    servers = dict.fromkeys(server for url in urls if (server := _server(url)))
    return tuple(Forward(host, port, number) for number, (host, port) in enumerate(servers, start=FIRST_PORT))


def url_in_guest(url: str, forwards: Iterable[Forward]) -> str:
    """`url` as the head node has to write it."""
    server = _server(url)
    for forward in forwards:
        if (forward.host, forward.port) == server:
            parts = urlsplit(url)
            user, at, _ = parts.netloc.rpartition("@")
            return urlunsplit(parts._replace(netloc=f"{user}{at}{forward.name}:{forward.guest_port}"))
    return url


def words_from_guest(words: str, forwards: Iterable[Forward]) -> str:
    """What a program in the guest said, with the servers as people know them."""
    for forward in forwards:
        words = words.replace(f"{forward.name}:{forward.guest_port}", str(forward))
    return words


def _is_on_loopback(url: str) -> bool:
    host = (_server(url) or ("", 0))[0]
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:  # a name
        return False


def _server(url: str) -> tuple[str, int] | None:
    try:
        parts = urlsplit(url)
        port = parts.port or PORTS.get(parts.scheme)
    except ValueError:  # a port that is none, an address that is none
        return None
    return (parts.hostname, port) if parts.hostname and port and parts.scheme in PORTS else None


class Forwarder:
    """Carries the connections of one head node; each new SSH connection to it is given to `ask`."""

    def __init__(self, forwards: Iterable[Forward]) -> None:
        self._forwards = {forward.guest_port: forward for forward in forwards}
        self._open = threading.Event()
        self._seats = threading.BoundedSemaphore(MOST_CONNECTIONS)
        self.trouble = ""
        """Why the last connection from here to a server failed."""

    def ask(self, transport: paramiko.Transport) -> None:
        """Ask the head node to listen, in a thread: it may refuse, or never answer."""
        self._open.clear()
        threading.Thread(target=self._ask, args=(transport,), name="forwards", daemon=True).start()

    def wait(self, seconds: float) -> bool:
        """Whether the head node listens on all ports, within `seconds`."""
        return self._open.wait(seconds)

    def _ask(self, transport: paramiko.Transport) -> None:
        pause = 0.5
        waiting = list(self._forwards)
        while waiting and transport.is_active():
            try:
                transport.request_port_forward(GUEST_LOOPBACK, waiting[0], self._accept)
                waiting.pop(0)
            except Exception:  # refused; the server of a connection that broke may still have the port
                time.sleep(pause)
                pause = min(2 * pause, LONGEST_PAUSE)
        if not waiting:
            self._open.set()

    def _accept(self, channel: paramiko.Channel, _origin: tuple[str, int], listener: tuple[str, int]) -> None:
        """paramiko's own thread calls this: nothing may wait here."""
        forward = self._forwards.get(listener[1])
        if forward is None or not self._seats.acquire(blocking=False):
            channel.close()
            return
        threading.Thread(target=self._carry, args=(channel, forward), name=f"to {forward}", daemon=True).start()

    def _carry(self, channel: paramiko.Channel, forward: Forward) -> None:
        try:
            with socket.create_connection((forward.host, forward.port), CONNECT_SECONDS) as server:
                server.settimeout(None)
                _speak(channel, server)
        except (OSError, UnicodeError) as error:  # UnicodeError: a host's name that is none
            self.trouble = (
                f"the virtualization host cannot connect to {forward}: {getattr(error, 'strerror', '') or error}"
            )
        finally:
            self._seats.release()
            with suppress(Exception):
                channel.close()


def _speak(channel: paramiko.Channel, server: socket.socket) -> None:
    """Carry both ways until both have ended."""
    back = threading.Thread(target=_copy, args=(server.recv, channel.sendall, channel.shutdown_write), daemon=True)
    back.start()
    _copy(channel.recv, server.sendall, lambda: _end_input(server, channel))
    while back.is_alive():
        if channel.closed:  # the guest has gone; a server that keeps silent would be waited for without end
            with suppress(OSError):
                server.shutdown(socket.SHUT_RDWR)
        back.join(LOOK_SECONDS)


def _copy(read: Callable[[int], bytes], write: Callable[[bytes], object], end: Callable[[], object]) -> None:
    """From one to the other until either has ended, however it ended."""
    with suppress(Exception):
        while chunk := read(CHUNK):
            write(chunk)
    with suppress(Exception):
        end()


def _end_input(server: socket.socket, channel: paramiko.Channel) -> None:
    """The guest has said all. One that is gone altogether gets no answer any more."""
    server.shutdown(socket.SHUT_RDWR if channel.closed else socket.SHUT_WR)
