"""OSCAR's installer on the head node: started detached from the SSH session, its terminal followed line by line.

The terminal is captured apart from the installer's own log, because what goes wrong before the log is opened is on the
terminal only. The capture is kept in the run directory as `installer/terminal.log`; evidence counts its lines. OSCAR
stamps none of them, so `installer/terminal.times` says when they came.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from oscar_steps.errors import Evidence, FarmError, HostError, InstallerFailed, InstallerHung
from oscar_steps.guest import guest_text
from oscar_steps.oscar.failure import Failure
from oscar_steps.oscar.logs.installlog import EventKind
from oscar_steps.testdriver.head.headnode import HeadNode
from oscar_steps.testdriver.lines import LineSplitter
from oscar_steps.testdriver.record.events import Diary
from oscar_steps.testdriver.record.rejudge import END_MARK, TERMINAL_FILE, Hang, end_status, hang
from oscar_steps.testdriver.wanted import InstallerLog

TIMES_FILE = "installer/terminal.times"
"""`SECONDS LINE`, one pair a row: by then, counted from the run's beginning, so many lines had come."""
FARM = "/root/farm"


def wrapper_script(command: str) -> str:
    """The script that runs the installer in a session of its own and says when and how it ended.

    It is `tee` that writes the installer's log, and it may have lines left when the installer is gone: the wrapper
    waits for it (it is in the same session), at most 5 s. A daemon that keeps the terminal open is not waited for.
    A TERM for the whole session ends the installer, and the wrapper lives to say so.
    """
    return guest_text("head/installer.sh", farm=FARM, command=command, end_mark=END_MARK)


@dataclass(frozen=True)
class Limits:
    """When an installer counts as hung: seconds without output or without new output, and bytes without progress."""

    silence: float
    log_bytes: int


class Installer:
    """A running installer. `reached_barrier` is set when its hook holds it; `ended` when it is over."""

    def __init__(self, head: HeadNode, log: InstallerLog, run_directory: Path, diary: Diary, limits: Limits) -> None:
        self._head, self._log, self._diary, self._limits = head, log, diary, limits
        self._capture, self._times = run_directory / TERMINAL_FILE, run_directory / TIMES_FILE
        self._capture.parent.mkdir(exist_ok=True)
        self.reached_barrier = asyncio.Event()
        self.ended = asyncio.Event()
        self.exit_status: int | None = None
        self.barrier_is_open = False
        self._last_byte = self._last_news = time.monotonic()
        self._found: Failure | None = None
        self._failed = False
        self._said = ""

    async def start(self, command: str) -> None:
        """Start `command` detached; it goes on whatever becomes of the connection."""
        await self._head.write_files({f"{FARM}/run-installer": (wrapper_script(command), 0o755)})
        start = f"setsid {FARM}/run-installer </dev/null >{FARM}/terminal.log 2>&1 &"
        await self._head.check(f"rm -f {FARM}/terminal.log; {start}")
        self._last_byte = self._last_news = time.monotonic()

    async def follow(self, alarm: Callable[[FarmError], None]) -> None:
        """Read the terminal to its end; raise the alarm when a failure is certain and OSCAR does not go on any more.

        The installer may go on, to its end or to the barrier: its next lines may say more.
        """
        try:
            with self._capture.open("wb", buffering=0) as capture, self._times.open("w", buffering=1) as times:
                splitter = LineSplitter(keep=capture.write)
                while not self.ended.is_set():
                    async for chunk in self._head.follow(f"{FARM}/terminal.log", from_byte=splitter.total):
                        self._last_byte = time.monotonic()
                        news, lines = self._log.news, splitter.feed(chunk)
                        for line in lines:
                            self._take(line, alarm)
                        times.write(f"{self._diary.elapsed:.3f} {self._log.lines}\n")
                        if self._log.news != news or not lines:  # a line that grows is something new
                            self._last_news = self._last_byte
                        if self.ended.is_set():
                            return
                        if splitter.total > self._limits.log_bytes:
                            await self.end()
                            raise self._hung("flooded", splitter.total)
                        await asyncio.sleep(0)  # a flood must not keep the other tasks waiting
                    await self._head.reconnect()
        except FarmError as error:
            alarm(error)

    def _take(self, line: str, alarm: Callable[[FarmError], None]) -> None:
        if (status := end_status(line)) is not None:
            self.exit_status = status
            self._diary.write("installer-ended", f"OSCAR's installer ended with status {self.exit_status}")
            failure = self._log.conclude(self.exit_status)
            self.ended.set()
            if failure and not self._failed:
                self._failed = True
                alarm(failed(failure))
            return
        for event in self._log.feed(line):
            self._found = self._found or event.failure
            waits = event.kind is EventKind.BARRIER_WAITING
            if self._found and (waits or self._found.hung) and not self._failed:
                self._failed = True
                alarm(failed(self._found))
            elif waits:
                self.reached_barrier.set()
            if event.text:
                stage, what = event.stage.value, event.kind.value
                text = f"   OSCAR: {event.text}" if event.text != self._said else ""
                self._said = event.text
                self._diary.write("installer", text, line=event.line, stage=stage, what=what)

    async def watch_silence(self, alarm: Callable[[FarmError], None]) -> None:
        """Raise the alarm when the installer has said nothing, or nothing new, for too long.

        At the barrier the farm itself makes the installer wait.
        """
        while not self.ended.is_set():
            held = self.reached_barrier.is_set() and not self.barrier_is_open
            left = self._limits.silence - (time.monotonic() - self._last_news)
            if left <= 0 and not held and await self._is_hung(alarm):
                return
            await asyncio.sleep(max(left, 1.0) if not held else 5.0)

    async def _is_hung(self, alarm: Callable[[FarmError], None]) -> bool:
        """Whether the installer hangs. Silence is OSCAR's fault only if the head node still answers."""
        try:
            await self._head.run("true", seconds=120)
        except FarmError as lost:
            alarm(lost)
            return True
        now, limit = time.monotonic(), self._limits.silence
        if now - self._last_news < limit:
            return False
        alarm(self._hung("silent" if now - self._last_byte >= limit else "repeating", limit))
        return True

    def overdue(self, seconds: float) -> InstallerFailed | InstallerHung:
        """The error for an installer that went on saying things, but came to no end in `seconds`."""
        return self._hung("overdue", seconds)

    def _hung(self, how: Hang, amount: float) -> InstallerFailed | InstallerHung:
        return failed(hang(self._log, how, amount), how=how, amount=amount, line=self._log.lines)

    async def open_barrier(self, command: str) -> None:
        """Let the installer pass the barrier. Raises HostError when the hook does not listen."""
        self._last_byte = self._last_news = time.monotonic()
        self.barrier_is_open = True
        result = await self._head.run(command, seconds=60)
        if not result.ok:
            raise HostError(f"the barrier on the head node did not open: {result.last_line}")

    async def end(self) -> None:
        """End the installer and everything it started in its session."""
        kill = f"kill -TERM -- -$(cat {FARM}/installer.session)"
        await self._head.run(f"test -s {FARM}/installer.session && {kill}", seconds=30)


def failed(failure: Failure, **facts: float | str) -> InstallerFailed | InstallerHung:
    """What the log's reader found, as the error that ends the run. `facts`: what it takes to find a hang again."""
    return (InstallerHung if failure.hung else InstallerFailed)(
        failure.sentence,
        hint=failure.hint,
        oscar_stage=str(failure.stage),
        category=failure.category,
        evidence=(Evidence(TERMINAL_FILE, failure.first_line, failure.lines),) if failure.lines else (),
        facts=facts,
    )
