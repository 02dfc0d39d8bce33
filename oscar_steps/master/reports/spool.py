"""The farm's outgoing mail on the disk: one file per mail, tried until the relay has taken or refused it for good.

A file holds the envelope (one line of JSON) and then the mail. It is written before the first attempt, and removed as
soon as the relay has accepted the mail for its last recipient: a master that dies in between the two, and only there,
sends it again, with the same Message-ID. `reported.json` remembers of which builds a report was spooled; a mail with
a name of its own leaves a file `NAME.sent`.
"""

from __future__ import annotations

import math
import re
import time
import uuid
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from twisted.internet import defer
from twisted.python import log

from oscar_steps.addresses import address_fault
from oscar_steps.master.reports.relay import RelayAway, Reply
from oscar_steps.textio import json_line, json_object, read_regular, sync_folder, write_atomically

DAYS = 5
"""A mail that the relay has not taken by then is given up."""
DELAYS = (30.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0, 7200.0)
"""Seconds between attempts; the last one again and again."""
_LAST_ANSWER = 20
"""Seconds that the end of the master waits for the relay's answer."""
_SUFFIX, _SENT = ".mail", ".sent"
_SENT_SECONDS = 30 * 86400.0
"""For so long it is remembered that a mail with a name of its own went out."""
_BROKEN = "broken"
_SPOILED = (ValueError, TypeError, KeyError, OverflowError, RecursionError)
"""What reading JSON may raise that another program has written."""
Send = Callable[[str, Sequence[str], bytes], Awaitable[dict[str, Reply]]]


@dataclass(frozen=True)
class Letter:
    """A mail with its envelope. `recipients` are those that still have to get it."""

    name: str
    sender: str
    recipients: tuple[str, ...]
    content: bytes
    subject: str = ""
    spooled: float = 0.0
    report: bool = False
    """A build's report: it may be made again after a restart, so it waits until the disk knows that it was made."""
    once: bool = False
    """Who made it may make it again, having noted nothing when the master was killed: its name goes out once."""

    @property
    def build(self) -> int | None:
        """The build that a report is about."""
        number = re.fullmatch(r"build-([0-9]{1,18})", self.name) if self.report else None
        return int(number[1]) if number else None

    def to_bytes(self) -> bytes:
        envelope = {
            "sender": self.sender,
            "recipients": self.recipients,
            "subject": self.subject,
            "spooled": self.spooled,
            "report": self.report,
            "once": self.once,
        }
        return json_line(envelope) + self.content

    @classmethod
    def from_file(cls, path: Path) -> Letter:
        """Raises OSError, ValueError."""
        head, separator, content = read_regular(path).partition(b"\n")
        value = json_object(head)
        if not separator or not content:
            raise ValueError("it is cut short")
        sender, recipients = value.get("sender"), value.get("recipients")
        if not isinstance(recipients, list) or not recipients:
            raise ValueError("it has no recipients")
        for address in (sender, *recipients):
            if not isinstance(address, str) or address_fault(address):
                raise ValueError("it has an address that cannot be used")
        spooled = float(value.get("spooled", 0))
        if not math.isfinite(spooled):
            raise ValueError("the time at which it was spooled is not a number")
        return cls(
            path.stem,
            str(sender),
            tuple(recipients),
            content,
            str(value.get("subject", "")),
            spooled,
            bool(value.get("report", False)),
            bool(value.get("once", False)),
        )


@dataclass
class _Waiting:
    letter: Letter
    on_disk: bool
    attempts: int = 0
    due: float = 0.0


@dataclass
class Reported:
    """Of which builds a report was spooled, or need not be: all up to `upto`, and those in `beyond`."""

    path: Path
    upto: int = 0
    beyond: set[int] = field(default_factory=set)
    known: bool = False
    """False: there was no such file, so this farm's builds until now are not its business."""
    saved: bool = True

    @classmethod
    def load(cls, path: Path) -> Reported:
        try:
            value = json_object(read_regular(path))
            return cls(path, int(value["upto"]), {int(number) for number in value["beyond"]}, known=True)
        except FileNotFoundError:
            return cls(path)
        except (OSError, *_SPOILED) as error:
            log.msg(f"{path} cannot be read ({error}); reports of builds that ended while the master was down are lost")
            if path.is_dir():  # which no file can replace: reports would wait for ever
                set_aside(path)
            return cls(path)

    def __contains__(self, build: int) -> bool:
        return build <= self.upto or build in self.beyond

    def add(self, build: int) -> None:
        self.beyond.add(build)
        while self.upto + 1 in self.beyond:
            self.upto += 1
            self.beyond.discard(self.upto)
        self.saved = False
        self.save()

    def begin(self, upto: int) -> None:
        """No build up to this one needs a report."""
        self.upto = max(upto, self.upto)
        self.beyond = {build for build in self.beyond if build > self.upto}
        self.known, self.saved = True, False
        self.save()

    def save(self) -> bool:
        """Whether the disk knows."""
        if not self.saved:
            try:
                write_atomically(self.path, json_line({"upto": self.upto, "beyond": sorted(self.beyond)}))
                self.saved = True
            except OSError as error:
                log.msg(f"{self.path} cannot be written ({error}); reports wait until it can")
        return self.saved


class Spool:
    """Mails on their way out. All methods belong to the reactor's thread."""

    def __init__(
        self,
        folder: Path,
        send: Send,
        clock: Any,
        refused: Callable[[Letter, str, str], None],
        *,
        delays: Sequence[float] = DELAYS,
        seconds: float = DAYS * 86400.0,
    ) -> None:
        """`refused(letter, recipient, reason)` is called for every recipient that is given up."""
        self.folder = folder
        self.send = send
        self.clock = clock
        self.refused = refused
        self.delays = delays
        self.seconds = seconds
        self.accepted: Callable[[str], None] = lambda _recipient: None
        self.trouble = ""
        """Why mail does not go out just now; empty: it does."""
        self._waiting: dict[str, _Waiting] = {}
        self._call: Any = None
        self._busy = False
        self._stopped = False
        self._idle: Any = None
        self._away = 0
        self._away_until = 0.0
        try:
            self._make_folder()
        except OSError as error:
            log.msg(f"{folder} cannot be made ({error}); mails are kept in memory until it can")
        self.reported = Reported.load(folder / "reported.json")
        self._read()
        self._note_reports()

    def waiting(self) -> int:
        """How many mails have not gone out yet."""
        return len(self._waiting)

    def oldest(self) -> float | None:
        """When the oldest of them was spooled (Unix time)."""
        return min((item.letter.spooled for item in self._waiting.values()), default=None)

    def has(self, name: str) -> bool:
        """Whether a mail of this name waits, or has gone out."""
        return name in self._waiting or (self.folder / f"{name}{_SENT}").exists()

    def add(self, letter: Letter) -> None:
        """Keep a mail, and send it as soon as the reactor is free."""
        letter = replace(letter, spooled=letter.spooled or time.time())
        item = _Waiting(letter, on_disk=False)
        self._waiting[letter.name] = item
        self._store(item)
        self.wake()

    def wake(self) -> None:
        """Look at once, whatever was waited for."""
        self._plan(0.0)

    def stop(self) -> Any:
        """Begin no further attempt. Fires when the attempt under way has its answer: unheard, it would be repeated.

        What is on the disk goes out after the next start.
        """
        self._stopped = True
        if self._call is not None and self._call.active():
            self._call.cancel()
        idle: Any = defer.Deferred()
        if not self._busy:
            idle.callback(None)
            return idle
        self._idle = idle
        return idle.addTimeout(_LAST_ANSWER, self.clock, onTimeoutCancel=lambda _result, _seconds: None)

    def _make_folder(self) -> None:
        self.folder.mkdir(mode=0o700, exist_ok=True)
        self.folder.chmod(0o700)

    def _read(self) -> None:
        for leftover in self.folder.glob(".*.tmp"):
            with suppress(OSError):
                leftover.unlink()
        for path in self.folder.glob(f"*{_SENT}"):
            with suppress(OSError):
                if path.stat().st_mtime < time.time() - _SENT_SECONDS:
                    path.unlink()
        for path in sorted(self.folder.glob(f"*{_SUFFIX}")):
            try:
                letter = Letter.from_file(path)
            except (OSError, *_SPOILED) as error:
                log.msg(f"the mail {path} cannot be read ({error})")
                set_aside(path)
            else:
                self._waiting[letter.name] = _Waiting(letter, on_disk=True)

    def _note_reports(self) -> None:
        """A report that is here was made, also where the master was killed before it could note that."""
        for item in self._waiting.values():
            build = item.letter.build
            if self.reported.known and build is not None and build not in self.reported:
                self.reported.add(build)

    def _path(self, letter: Letter) -> Path:
        return self.folder / f"{letter.name}{_SUFFIX}"

    def _store(self, item: _Waiting) -> bool:
        try:
            self._make_folder()
            write_atomically(self._path(item.letter), item.letter.to_bytes(), mode=0o600)
            item.on_disk = True
        except OSError as error:
            log.msg(f"the mail '{item.letter.subject}' cannot be spooled, and is kept in memory: {error}")
        return item.on_disk

    def _plan(self, seconds: float) -> None:
        if self._stopped or self._busy:
            return
        if self._call is not None and self._call.active():
            self._call.cancel()
        self._call = self.clock.callLater(max(0.0, seconds), self._run)

    def _run(self) -> None:
        self._busy = True
        running = defer.ensureDeferred(self._deliver_due())
        running.addErrback(log.err, "the spool of mails")
        running.addBoth(lambda _result: self._rest())

    def _rest(self) -> None:
        self._busy = False
        if self._idle is not None and not self._idle.called:
            self._idle.callback(None)
        if self._waiting:
            soonest = min(item.due for item in self._waiting.values())
            self._plan(max(soonest, self._away_until) - self.clock.seconds())

    async def _deliver_due(self) -> None:
        for item in sorted(self._waiting.values(), key=lambda item: item.letter.spooled):
            now = self.clock.seconds()
            if self._stopped or now < self._away_until:
                return
            if item.due <= now and self._may_go(item):
                await self._attempt(item)

    def _may_go(self, item: _Waiting) -> bool:
        """What is not on the disk is tried there again. A mail to the operator (the disk is full) goes out anyway."""
        stored = item.on_disk or self._store(item)
        if item.letter.report and not (stored and self.reported.save()):
            self._later(item)
            return False
        return True

    def _later(self, item: _Waiting) -> None:
        item.due = self.clock.seconds() + self.delays[min(item.attempts, len(self.delays) - 1)]
        item.attempts += 1

    async def _attempt(self, item: _Waiting) -> None:
        letter = item.letter
        try:
            replies = await self.send(letter.sender, letter.recipients, letter.content)
        except RelayAway as error:
            self._relay_is_away(str(error))
            replies = {}
        except Exception as error:  # broad on purpose: this mail waits, and no other one waits for it
            log.err(error, f"the mail '{letter.subject}' could not be handed to the relay")
            self._away, self._away_until, replies = 0, 0.0, {}
            self.trouble = f"a mail could not be handed to the relay: {type(error).__name__}: {error}"
        else:
            self._away, self._away_until, self.trouble = 0, 0.0, ""
        late = time.time() - letter.spooled > self.seconds
        given_up = {to: reply.text for to, reply in replies.items() if reply.final or (late and not reply.accepted)}
        if late and not replies:
            given_up = dict.fromkeys(letter.recipients, self.trouble)
        accepted = [to for to, reply in replies.items() if reply.accepted]
        self._settle(item, tuple(to for to in letter.recipients if to not in accepted and to not in given_up))
        for recipient in accepted:
            self.accepted(recipient)
        for recipient, reason in given_up.items():
            log.msg(f"the mail '{letter.subject}' to {recipient} was given up: {reason}")
            self.refused(letter, recipient, reason)

    def _relay_is_away(self, reason: str) -> None:
        self.trouble = f"the mail relay took nothing: {reason}"
        log.msg(f"{self.trouble}; {self.waiting()} mails wait")
        self._away_until = self.clock.seconds() + self.delays[min(self._away, len(self.delays) - 1)]
        self._away += 1

    def _settle(self, item: _Waiting, left: tuple[str, ...]) -> None:
        """Make the disk say who is left, before anything else happens."""
        if not left:
            del self._waiting[item.letter.name]
            self._remove(item.letter)
        elif left != item.letter.recipients:
            item.letter = replace(item.letter, recipients=left)
            item.on_disk = False
            self._store(item)
            self._later(item)
        elif self._away_until == 0.0:
            self._later(item)

    def _remove(self, letter: Letter) -> None:
        path = self._path(letter)
        try:
            if letter.once and path.exists():
                path.rename(path.with_suffix(_SENT))
            path.unlink(missing_ok=True)
            sync_folder(self.folder)
        except OSError as error:
            log.msg(f"{path} cannot be removed ({error}): its mail has gone out; remove it, or it is sent again")


def set_aside(path: Path) -> None:
    """Move what cannot be used into a folder beside it, where a person can look at it."""
    broken = path.parent / _BROKEN
    try:
        broken.mkdir(mode=0o700, exist_ok=True)
        path.rename(broken / path.name)
        log.msg(f"{path} is set aside in {broken}")
    except OSError as fault:
        log.msg(f"{path} cannot be set aside: {fault}")


def new_name() -> str:
    """A name for a mail that is no build's report; names sort as mails were made."""
    return f"{time.time():017.6f}-{uuid.uuid4().hex[:8]}"


def report_name(build: int) -> str:
    """The name of a build's report."""
    return f"build-{build:09}"
