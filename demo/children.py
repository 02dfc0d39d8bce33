"""The farm's servers as children of this process: they die with it, whatever ends it, and leave nothing behind.

Every child inherits a mark in its environment, and so does all that it starts in turn (the worker's commands, a run,
its virtual machines). So what is left can be found without guessing from names, and nothing else is ever touched.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from time import monotonic, sleep

import psutil

from demo.errors import ChildEnded, NotReady, ToolFailed
from oscar_steps.errors import ToolMissing

MARK = "OSCAR_FARM_DEMO"
_POLL = 0.05


class Child:
    """One server in the foreground, with a log of its own. Its name is what an error calls it."""

    def __init__(
        self, name: str, command: Sequence[str], *, log: Path, cwd: Path, environment: Mapping[str, str]
    ) -> None:
        self.name = name
        self.log = log
        self._command, self._cwd, self._environment = list(command), cwd, dict(environment)
        self.start_again()

    def start_again(self) -> None:
        """Start the server; once more, if it has ended."""
        with self.log.open("ab") as output:
            # A session of its own: Ctrl-C is for us, and we end the children in order. setpriv: SIGKILL for the child
            # when we are gone. It is sent when the *thread* that forked ends, so this belongs in the main thread.
            self._process = start(
                ["setpriv", "--pdeathsig", "KILL", "--", *self._command],
                cwd=self._cwd,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        return self._process.pid

    def check(self) -> None:
        """Raises ChildEnded, with the last line of its log, if it is gone."""
        status = self._process.poll()
        if status is not None:
            raise ChildEnded(f"{self.name} ended with status {status}: {last_line(self.log)} ({self.log})")

    def wait_until(self, ready: Callable[[], bool], what: str, seconds: float) -> None:
        """Wait for the server's own word. Raises ChildEnded if it dies meanwhile, NotReady after `seconds`."""
        deadline = monotonic() + seconds
        while not ready():
            self.check()
            if monotonic() > deadline:
                raise NotReady(f"{self.name}: {what} did not happen within {seconds:.0f} s; see {self.log}")
            sleep(_POLL)

    def kill(self) -> None:
        """End it as a power cut does."""
        self._process.kill()
        self._process.wait()

    def stop(self, seconds: float) -> bool:
        """Ask it to end, and make it end after `seconds`; whether it ended by itself."""
        self._process.terminate()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(seconds)
            return True
        self.kill()
        return False


def start(command: Sequence[str], **options: object) -> subprocess.Popen[bytes]:
    """Popen; a program that is not there is ToolMissing, not a traceback."""
    try:
        return subprocess.Popen(command, **options)  # type: ignore[call-overload, no-any-return]
    except FileNotFoundError:
        raise ToolMissing(f"the program '{command[0]}' is not installed", hint="'make setup' installs it") from None


def run(*command: str | Path, cwd: Path | None = None, stdin: str | None = None) -> str:
    """Run a program to its end; its standard output. Raises ToolFailed with its own last words."""
    words = [str(word) for word in command]
    process = start(words, cwd=cwd, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    output, errors = process.communicate((stdin or "").encode())
    if process.returncode:
        said = (errors or output).decode(errors="replace").strip().splitlines() or ["it said nothing"]
        raise ToolFailed(f"'{' '.join(words[:2])}' failed with status {process.returncode}: {said[-1]}")
    return output.decode(errors="replace")


def last_line(log: Path) -> str:
    """The last line of a log that says something."""
    lines = [line for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    return lines[-1].strip() if lines else "it said nothing"


def marked(mark: str) -> list[psutil.Process]:
    """All living processes that carry `mark`: our children, theirs, and those that have lost their parent."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            carries = process.pid != os.getpid() and process.environ().get(MARK) == mark
            if carries and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


def wait_for_none(mark: str, seconds: float) -> list[psutil.Process]:
    """Those that still carry `mark` after at most `seconds`."""
    deadline = monotonic() + seconds
    while (left := marked(mark)) and monotonic() < deadline:
        psutil.wait_procs(left, timeout=max(0.0, min(0.5, deadline - monotonic())))
    return left
