"""An SMTP server that keeps what it gets: each mail becomes a file, and nothing goes anywhere else."""

from __future__ import annotations

import asyncio
import email
import email.policy
import socket
import threading
from collections.abc import Callable
from email.message import EmailMessage
from pathlib import Path
from typing import Any

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, Envelope, Session

from demo.ports import LOOPBACK


class _BoundController(Controller):
    """aiosmtpd's server in a thread of its own, on a socket that is bound already: no race for its port."""

    def __init__(self, handler: object, bound: socket.socket) -> None:
        self._bound = bound
        super().__init__(handler, hostname=LOOPBACK, port=bound.getsockname()[1])

    def _create_server(self) -> Any:
        return self.loop.create_server(self._factory_invoker, sock=self._bound)


class MailSink:
    """Keeps mails as `directory/001.eml`, `002.eml`, ... in the order they came."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        directory.mkdir(parents=True)
        self._arrived = threading.Condition()
        self._files: list[Path] = []
        bound = socket.create_server((LOOPBACK, 0))
        self.port: int = bound.getsockname()[1]
        self._listen(bound)

    def _listen(self, bound: socket.socket) -> None:
        self._controller = _BoundController(self, bound)
        self._controller.start()

    def reopen(self) -> None:
        """Listen again, after `close`, at the same port."""
        self._listen(socket.create_server((LOOPBACK, self.port)))

    def close(self) -> None:
        self._controller.stop(no_assert=True)

    async def handle_DATA(self, _server: SMTP, _session: Session, envelope: Envelope) -> str:
        content = envelope.content if isinstance(envelope.content, bytes) else str(envelope.content).encode()
        await asyncio.to_thread(self._keep, content)
        return "250 kept"

    def _keep(self, content: bytes) -> None:
        with self._arrived:
            path = self.directory / f"{len(self._files) + 1:03}.eml"
            path.write_bytes(content.replace(b"\r\n", b"\n"))  # as a text file of this machine
            self._files.append(path)
            self._arrived.notify_all()

    def wait_for(self, wanted: Callable[[EmailMessage], bool], seconds: float) -> Path | None:
        """The first mail that is `wanted`, those that came earlier included; None when none came within `seconds`."""
        seen = 0

        def found() -> Path | None:
            nonlocal seen
            fresh, seen = self._files[seen:], len(self._files)
            return next((path for path in fresh if wanted(read_mail(path))), None)

        with self._arrived:
            return self._arrived.wait_for(found, seconds)


def read_mail(path: Path) -> EmailMessage:
    """A mail as it was sent."""
    message = email.message_from_bytes(path.read_bytes(), policy=email.policy.default)
    assert isinstance(message, EmailMessage)
    return message


def body_of(message: EmailMessage) -> str:
    """The text of a mail."""
    part = message.get_body(("plain",))
    return str(part.get_content()) if part else ""
