"""A run's terminal and logs as a case for `tests/unit/transcripts`: anonymous, with the verdict that is given today.

A case is a directory that is laid out as a run is, with `case.toml` beside it: what the installer was to do, and what
the farm says of it, in the words of `cases.toml`. A person reads that beside the terminal, and corrects it where it is
wrong.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from pydantic import ValidationError

from oscar_steps.errors import ConfigError, HostError, UserError
from oscar_steps.job import JOB_FILE, Job
from oscar_steps.oscar.anonymous import Anonymiser
from oscar_steps.oscar.failure import Failure
from oscar_steps.testdriver.record.event_history import EventHistory, read_event_history
from oscar_steps.testdriver.record.rejudge import TERMINAL_FILE, Judgement, judge
from oscar_steps.testdriver.wanted import Wanted
from oscar_steps.textio import seen_line, write_atomically
from oscar_steps.tomlfile import load_toml

CASE_FILE = "case.toml"
HOME = "/opt/oscar"
"""Where OSCAR is in every case."""

_NEW_PLACE = "logs/head/var/log/oscar"
_LARGEST = 8 << 20
_LARGEST_LOG = 1 << 20
_LOGS = 40
_HEAD = f"""\
# Recorded from a run of the farm (`oscar-testdriver transcript`), without anything that shows where that was.
# What is expected is what the farm says today. Read it beside {TERMINAL_FILE}, and correct it where it is wrong.
"""


class Expected(Wanted):
    """One case: what the installer was to do, how it ended, and what the farm has to say of it (see `cases.toml`)."""

    name: str
    ends: str = ""
    """How it hung, as in 'silent 300'; then `line` is the last line that counts."""
    line: int = 0
    passes: bool = False
    stage: str = ""
    category: str = ""
    says: str = ""
    hint: str = ""
    shows: str = ""

    def judge(self, case: Path) -> Judgement | None:
        """What the farm says today of the case in the directory `case`."""
        how, _, amount = self.ends.partition(" ")
        facts: dict[str, float | str] = {"how": how, "amount": float(amount), "line": self.line} if how else {}
        return judge(case, self, HOME, facts)


def read_case(case: Path) -> Expected:
    """The `case.toml` of a case. Raises ConfigError with file and field."""
    path = case / CASE_FILE
    try:
        return Expected.model_validate(load_toml(path)[1])
    except ValidationError as error:
        first = error.errors()[0]
        raise ConfigError(f"{path}: {'.'.join(map(str, first['loc']))}: {first['msg']}") from None


@dataclass(frozen=True)
class Recording:
    """A case that has been written."""

    case: Path
    expected: Expected
    files: tuple[str, ...]


def record(run: Path, into: Path, name: str = "") -> Recording:
    """Write the installer's lines of `run` as a case below `into`. Raises UserError where it has none, or is too large.

    Raises HostError where the case does not show what the run shows: then something was replaced that counts.
    """
    job = Job.load(run / JOB_FILE)
    history = read_event_history(run)
    if history is None or history.flavour is None:
        raise UserError(f"{run}: OSCAR's installer was not started in this run, so it has no output to record")
    facts = history.failure.facts if history.failure else {}
    wanted = Wanted.of(job, history.flavour, f"the cluster profile in {run / JOB_FILE}")
    judgement = judge(run, wanted, job.answers.oscar_home, facts)
    if judgement is None:
        raise UserError(f"{run}: there is no output of OSCAR's installer", hint=f"{TERMINAL_FILE} is missing")
    texts = {place: _text(path) for place, path in _files(run, job.answers.oscar_home, judgement.file)}
    anonymous = Anonymiser(_known_names(job, history), job.answers.oscar_home)
    for text in texts.values():
        anonymous.learn(text)
    written = {place: "\n".join(map(anonymous.line, text.split("\n"))) for place, text in texts.items()}
    _check_nothing_is_left(written, anonymous)
    case = into / (name or f"{_what(judgement.failure)}-{hashlib.sha256(repr(written).encode()).hexdigest()[:8]}")
    if case.exists():
        raise UserError(f"{case}: this case exists already", hint="give it another name with --name")
    for place, text in written.items():
        (case / place).parent.mkdir(parents=True, exist_ok=True)
        (case / place).write_bytes(text.encode("utf-8", "surrogateescape"))
    expected = _expected(case, wanted, facts)
    write_atomically(case / CASE_FILE, _HEAD + _toml(expected))
    _check_it_is_the_same(judgement.failure, expected, case)
    return Recording(case, expected, tuple(sorted(written)))


def _files(run: Path, home: str, judged: str) -> Iterator[tuple[str, Path]]:
    """What is taken of a run: place in the case, and the file. OSCAR's own logs are there to be read beside it."""
    size = (run / judged).stat().st_size
    if size > _LARGEST:
        limit = f"{_LARGEST >> 20} MiB"
        raise UserError(f"{run / judged}: {size / 2**20:.0f} MiB are too large for a case (at most {limit})")
    old = f"logs/head{home.rstrip('/')}"
    folders = {old: f"logs/head{HOME}", f"{old}/testing": f"logs/head{HOME}/testing", _NEW_PLACE: _NEW_PLACE}
    logs = [
        (f"{place}/{path.name}", path)
        for folder, place in folders.items()
        for path in sorted((run / folder).glob("*.log*"))
        if path.is_file() and not path.is_symlink() and re.fullmatch(r"[\w.-]{1,60}", path.name)
    ]
    place = judged.replace(f"{old}/", f"logs/head{HOME}/", 1)
    yield place, run / judged
    small = [(where, path) for where, path in logs if path != run / judged and path.stat().st_size <= _LARGEST_LOG]
    yield from small[:_LOGS]


def _text(path: Path) -> str:
    """As a person saw it: the judgement reads it so too, and in a terminal's sequence no name or address is found."""
    return "\n".join(map(seen_line, path.read_bytes().decode("utf-8", "surrogateescape").split("\n")))


def _known_names(job: Job, history: EventHistory) -> set[str]:
    """Names of hosts that the run itself knows: its nodes, and where its sources are."""
    names = {*history.nodes, urlsplit(job.source.url).hostname or ""}
    names |= set(re.findall(r"""\b(?:host)?name\s*=\s*["']([\w.-]+)["']""", job.cluster_xml))
    names |= set(re.findall(r"<name>\s*([\w.-]+)\s*</name>", job.cluster_xml))
    return {name for name in names if name}


def _check_nothing_is_left(written: dict[str, str], anonymous: Anonymiser) -> None:
    """A second look, by other means than the first: no original address or name may be anywhere in what is written."""
    for place, text in written.items():
        lower = text.lower()
        for original in anonymous.originals():
            at = lower.find(original.lower())
            if at >= 0 and re.search(rf"(?<![A-Za-z0-9.]){re.escape(original)}(?![A-Za-z0-9])", text, re.IGNORECASE):
                raise HostError(
                    f"{place}: '{original}' would be left in line {text.count(chr(10), 0, at) + 1}: nothing is written",
                    hint="this is a fault of the farm's; oscar_steps/oscar/anonymous.py is the place",
                )


def _what(failure: Failure | None) -> str:
    return failure.stage.value.replace("_", "-") if failure else "good"


def _expected(case: Path, wanted: Wanted, facts: dict[str, float | str]) -> Expected:
    ends = f"{facts['how']} {float(facts.get('amount', 0)):g}" if "how" in facts else ""
    circumstances = Expected(
        name=case.name.replace("-", " ").replace("_", " "),
        **wanted.model_dump(),
        ends=ends,
        line=int(facts.get("line", 0)) if ends else 0,
    )
    judgement = circumstances.judge(case)
    failure = judgement.failure if judgement else None
    if failure is None:
        return circumstances.model_copy(update={"passes": judgement is not None})
    return circumstances.model_copy(
        update={
            "stage": failure.stage.value,
            "category": failure.category,
            "says": failure.sentence,
            "hint": failure.hint,
            "shows": next((line for line in reversed(failure.lines) if line.strip()), ""),
        }
    )


def _check_it_is_the_same(failure: Failure | None, expected: Expected, case: Path) -> None:
    before = (failure.stage.value, failure.category) if failure else ("", "")
    if before != (expected.stage, expected.category):
        raise HostError(
            f"{case}: the run's verdict is {before or 'good'}, the case's is ({expected.stage}, {expected.category}): "
            "the anonymous case says something else",
            hint="this is a fault of the farm's; oscar_steps/oscar/anonymous.py is the place",
        )


def _toml(expected: Expected) -> str:
    return "".join(f"{key} = {_value(value)}\n" for key, value in expected.model_dump(exclude_defaults=True).items())


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, tuple):
        return f"[{', '.join(map(_value, value))}]"
    # A basic string of TOML is written as JSON writes one, but for DEL, which JSON leaves as it is.
    text = value.encode("utf-8", "replace").decode() if isinstance(value, str) else value
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
