"""A small SSH server that runs commands here, for the tests of the connection to the head node."""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import socket
import subprocess
import threading
from collections.abc import Awaitable, Callable, Iterator

import paramiko
import pytest

from oscar_steps.testdriver.head.forwards import Forward
from oscar_steps.testdriver.head.headnode import HeadNode

PASSWORD = "secret-of-this-test"


class Sshd(paramiko.ServerInterface):
    """One connection: root's password, commands by the shell; it forwards ports once it has refused to do so."""

    def __init__(self, most: int, refusals: int) -> None:
        self.most, self.open, self.peak = most, 0, 0
        self.refusals = refusals
        self.forwarded: list[tuple[str, int]] = []
        self.lock = threading.Lock()

    def check_auth_password(self, username: str, password: str) -> int:
        good = (username, password) == ("root", PASSWORD)
        return paramiko.AUTH_SUCCESSFUL if good else paramiko.AUTH_FAILED

    def get_allowed_auths(self, username: str) -> str:
        return "password" if username else ""

    def check_channel_request(self, kind: str, chanid: int) -> int:
        with self.lock:
            if kind != "session" or self.open >= self.most:
                return paramiko.OPEN_FAILED_ADMINISTRATIVELY_PROHIBITED
            self.open += chanid >= 0
            self.peak = max(self.peak, self.open)
        return paramiko.OPEN_SUCCEEDED

    def check_port_forward_request(self, address: str, port: int) -> int:
        if self.refusals:
            self.refusals -= 1
            return 0
        self.forwarded.append((address, port))
        return port

    def check_channel_exec_request(self, channel: paramiko.Channel, command: bytes) -> bool:
        threading.Thread(target=self._execute, args=(channel, command.decode()), daemon=True).start()
        return True

    def _execute(self, channel: paramiko.Channel, command: str) -> None:
        process = subprocess.Popen(
            ["/bin/sh", "-c", command], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        assert process.stdin and process.stdout
        threading.Thread(target=self._feed, args=(channel, process), daemon=True).start()
        with contextlib.suppress(OSError, EOFError):
            while True:
                ready = select.select([process.stdout], [], [], 0.05)[0]
                if ready and not (chunk := os.read(process.stdout.fileno(), 4096)):
                    break
                if ready:
                    channel.sendall(chunk)
                elif channel.closed:
                    break
            if not channel.closed:
                channel.send_exit_status(process.wait())
        process.kill()
        process.wait()
        process.stdout.close()
        with self.lock:  # first: who sees it closed may ask for the next one
            self.open -= 1
        with contextlib.suppress(OSError, EOFError):
            channel.close()

    @staticmethod
    def _feed(channel: paramiko.Channel, process: subprocess.Popen[bytes]) -> None:
        assert process.stdin
        with contextlib.suppress(OSError, EOFError, ValueError):
            while chunk := channel.recv(4096):
                process.stdin.write(chunk)
                process.stdin.flush()
        with contextlib.suppress(OSError):
            process.stdin.close()


class Server:
    """Listens, and can hang up on everybody, as a head node does that reboots."""

    def __init__(self, most: int = 10) -> None:
        self.key = paramiko.ECDSAKey.generate()
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self.listener.getsockname()[1])
        self.most = most
        self.refusals = 0
        self.transports: list[paramiko.Transport] = []
        self.connections: list[Sshd] = []
        self.deaf = False
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self.listener.accept()
                if self.deaf:
                    connection.close()
                    continue
                sshd, transport = Sshd(self.most, self.refusals), paramiko.Transport(connection)
                transport.add_server_key(self.key)
                self.connections.append(sshd)
                self.transports.append(transport)
                with contextlib.suppress(paramiko.SSHException, EOFError):
                    transport.start_server(server=sshd)

    def hang_up(self) -> None:
        for transport in self.transports:
            transport.close()

    def close(self) -> None:
        self.listener.close()
        self.hang_up()


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    yield server
    server.close()


def with_head(server: Server, work: Callable[[HeadNode], Awaitable[None]], forwards: tuple[Forward, ...] = ()) -> None:
    async def run() -> None:
        head = HeadNode("127.0.0.1", server.port, PASSWORD, server.key, forwards)
        try:
            async with asyncio.timeout(60):
                await head.connect()
                await work(head)
        finally:
            head.close()

    asyncio.run(run())
