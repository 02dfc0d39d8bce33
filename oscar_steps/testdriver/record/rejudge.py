"""OSCAR's installer of a run, judged again from what its run directory keeps: the terminal, or the installer's own log.

The run did the same, line by line, while the installer ran. It is done again for the verdict, so that the verdict comes
from files alone, and a catalogue that knows more gives an old run a better sentence.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from oscar_steps.oscar.failure import Failure
from oscar_steps.oscar.flavour import FlavourName
from oscar_steps.testdriver.lines import LineSplitter
from oscar_steps.testdriver.wanted import InstallerLog, Wanted

TERMINAL_FILE = "installer/terminal.log"
LOG_FILES = ("logs/head/var/log/oscar/oscarinstall.log", "logs/head{home}/oscarinstall.log")
"""The installer's own log among what was extracted, in both of its places: the newest, for older ones carry `_N`."""

# The wrapper's last line, after everything that the installer and its `tee` had to say. OSCAR writes no such line.
END_MARK = "@@farm-installer-ended"
_END = re.compile(rf"{END_MARK} (\d{{1,3}})")
_CHUNK = 1 << 16

Hang = Literal["silent", "repeating", "flooded", "overdue"]


def hang(log: InstallerLog, how: Hang, amount: float) -> Failure:
    """The failure of an installer that came to no end; `amount`: seconds, or bytes of a flood."""
    if how == "flooded":
        return log.flooded(int(amount))
    return {"silent": log.hung, "repeating": log.repeating, "overdue": log.overdue}[how](amount)


def end_status(line: str) -> int | None:
    """The installer's exit status, where `line` is the one that has it."""
    return int(match[1]) if (match := _END.fullmatch(line)) else None


@dataclass(frozen=True)
class Judgement:
    """What the installer's lines show. `file` is relative to the run directory."""

    file: str
    failure: Failure | None
    log: InstallerLog


def judge(run_directory: Path, wanted: Wanted, oscar_home: str, facts: dict[str, float | str]) -> Judgement | None:
    """Read the installer's lines again; None where the run directory has none.

    `facts`: how it hung, as `Finding.facts` has it; then only the lines count that were there at that time.
    """
    own = () if wanted.flavour is FlavourName.OSCAR_WIZARD else LOG_FILES  # the wizard's have no marks of its steps
    for name in (TERMINAL_FILE, *(file.format(home=oscar_home.rstrip("/")) for file in own)):
        path = run_directory / name
        if path.is_file() and not path.is_symlink() and path.stat().st_size:
            return _judge(path, name, wanted, facts)
    return None


def _judge(path: Path, name: str, wanted: Wanted, facts: dict[str, float | str]) -> Judgement:
    capture = name == TERMINAL_FILE
    log = wanted.log(from_banner=not capture)
    how = next((known for known in get_args(Hang) if known == facts.get("how")), None)
    last = int(facts.get("line", 0)) if how and capture else 0
    # Only the capture has the status; a log file that has all its evidence was written by an installer that ended well.
    status: int | None = None if capture else 0
    for line in _lines(path):
        if last and log.lines >= last:
            break
        if capture and (ended := end_status(line)) is not None:
            status = ended
            break
        log.feed(line)
    failure = hang(log, how, float(facts.get("amount", 0))) if how else log.conclude(status)
    return Judgement(name, failure, log)


def _lines(path: Path) -> Iterator[str]:
    splitter = LineSplitter()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            yield from splitter.feed(chunk)
