"""Ports of the loopback interface."""

from __future__ import annotations

import socket

import psutil

from demo.errors import PortInUse

LOOPBACK = "127.0.0.1"


def free_port() -> int:
    """A port of the loopback interface that is free at this moment. The caller binds it a moment later."""
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        port: int = probe.getsockname()[1]
        return port


def claim(port: int, *, hint: str) -> int:
    """`port`, if nobody listens on it. Raises PortInUse, which says who does."""
    with socket.socket() as probe:
        # As servers do it: a connection of an earlier run that still lingers is no reason to refuse.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            raise PortInUse(f"{LOOPBACK}:{port} is in use by {_holder(port)}", hint=hint) from None
    return port


def accepts(port: int) -> bool:
    """Whether somebody accepts connections there."""
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex((LOOPBACK, port)) == 0


def _holder(port: int) -> str:
    """Who listens on `port`, as far as we may know: other users' processes are hidden from all but root."""
    for connection in psutil.net_connections(kind="tcp"):
        listens = connection.status == psutil.CONN_LISTEN and connection.laddr and connection.laddr.port == port
        if listens and connection.pid:
            try:
                command = " ".join(psutil.Process(connection.pid).cmdline())
            except psutil.Error:
                command = "a process that has just ended"
            return f"'{command[:100]}' (process {connection.pid})"
    return "a process that is not ours to see"
