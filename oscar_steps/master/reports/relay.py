"""One attempt to hand a mail to the relay, by Twisted's SMTP client, and what the relay said of each recipient."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import Any

from twisted.internet import defer, reactor
from twisted.mail.smtp import ESMTPSenderFactory, SMTPDeliveryError

from oscar_steps.textio import one_line

_SILENCE = 120
"""Seconds without an answer after which a relay is given up."""


class RelayAway(Exception):
    """Nothing was said of any recipient: no connection, a silent relay, a refused login or sender."""


@dataclass(frozen=True)
class Reply:
    """What the relay answered for one recipient."""

    code: int
    text: str

    @property
    def accepted(self) -> bool:
        return 200 <= self.code < 300

    @property
    def final(self) -> bool:
        """Refused, and no later attempt can change that."""
        return 500 <= self.code < 600


@dataclass(frozen=True)
class Relay:
    """Where mail goes."""

    host: str
    port: int
    tls: bool = False
    user: str = ""
    password: str = ""

    async def send(self, sender: str, recipients: Sequence[str], content: bytes) -> dict[str, Reply]:
        """Try once. Raises RelayAway; what was accepted before is not known then."""
        result: Any = defer.Deferred()
        secured = self.tls or bool(self.user)
        factory = ESMTPSenderFactory(
            self.user.encode(),
            self.password.encode(),
            sender,
            list(recipients),
            _Whole(content),
            result,
            retries=0,  # Twisted's own retries come at once, and would repeat a mail whose acceptance was lost
            timeout=_SILENCE,
            heloFallback=not secured,
            requireTransportSecurity=self.tls,
            requireAuthentication=bool(self.user),
            hostname=self.host if secured else None,
        )
        reactor.connectTCP(self.host, self.port, factory)
        try:
            _count, answers = await result
        except SMTPDeliveryError as error:
            if not error.addresses:
                raise RelayAway(_text(error.code, error.resp)) from None
            return _replies(error.addresses, Reply(error.code, _text(error.code, error.resp)))
        except Exception as error:
            said = _text(getattr(error, "code", -1), getattr(error, "resp", str(error).encode()))
            raise RelayAway(said or type(error).__name__) from None
        return _replies(answers, Reply(250, "accepted"))


class _Whole(BytesIO):
    """Read in one piece: where Twisted reads piece by piece it misses a dot at a piece's beginning, and ends there."""

    def read(self, _size: int | None = -1) -> bytes:
        return super().read()


def _replies(answers: Sequence[tuple[bytes, int, bytes]], of_the_text: Reply) -> dict[str, Reply]:
    said = {address.decode("ascii", "replace"): Reply(code, _text(code, answer)) for address, code, answer in answers}
    return {address: of_the_text if reply.accepted else reply for address, reply in said.items()}


def _text(code: int, answer: bytes | str) -> str:
    text = answer.decode("utf-8", "replace") if isinstance(answer, bytes) else answer
    line = one_line(text, 300)
    return f"{code} {line}" if code > 0 else line
