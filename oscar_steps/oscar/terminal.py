"""The installer's terminal, line by line: noise stripped, sections and test results recognised.

Facts: OSCAR's logger frames a section title with two rules of `=` (77 of them in 2007, 80 later). In 2007 it marks a
subsection with `--> `; later it centres it between dashes in 80 columns, and puts `[TYPE - PROGRAM] ` before other
messages. Progress bars, cursor movements and colours are in the capture as well.
"""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass
from enum import Enum
from typing import Literal

from oscar_steps.textio import seen_line

MAX_LINE = 4000
"""Characters of a line that are looked at: a flood may come without line ends."""

_PROGRESS = re.compile(r"^\s*\d{1,3} % \[[= ]*\]")
# Perl's warnings look like deaths ("... at FILE line N."); good runs of old programs are full of these.
_WARNINGS = (
    r"Use of uninitialized value\b|(?:Missing|Redundant) argument in |Name \".*\" used only once: |"
    r"Subroutine \S+ redefined at |\"(?:my|our)\" variable \S+ (?:masks|redeclared)|Odd number of elements in |"
    r"Useless use of |Possible (?:precedence|attempt|unintended) |Statement unlikely to be reached |"
    r"Prototype mismatch: |Scalar value \S+ better written as |Use of .{1,60} is deprecated|"
    r"(?:given|when|Smartmatch) is (?:experimental|deprecated) |print \(\.\.\.\) interpreted as function |"
    r"(?:readline|print)\(\) on (?:un)?(?:closed|opened) filehandle "
)
# Words that OSCAR's checks of the head node compare are news: see `sanity.py`.
_NOISE = re.compile(
    rf"^(?:{_WARNINGS}|Argument \".*\" isn't numeric(?!.* at \S*system-sanity line)|stty: |"
    r".*Inappropriate ioctl for device$)"
)
_PREFIXED = re.compile(r"(?:/[\w.+-]+)+/\.\./(?:\.\./)*(?=root/farm/)")
_RULE = re.compile(r"={60,}")
_ARROW = "--> "
_CENTRED = re.compile(r"(?:-+ (?P<title>\S.*?) -+)")
_WIDTH = 80
WITHOUT_DASHES = _WIDTH - 4
"""From this length on a title of the later format may have no room for its dashes."""
_TYPED = re.compile(r"\[(?P<type>ACTION|DB|ERROR|INFO|WARNING) - [^\]\s]+\] (?P<text>.*)")
_DIE = re.compile(r"(?P<text>.*) at (?P<file>\S+) line (?P<line>\d+)(?:, <\w+> (?:line|chunk) \d+)?\.")
_RESULT = re.compile(r"(?P<words>.*)\[\s*(?P<verdict>PASSED|FAILED|SKIPPED)\s*\]\s*")
_VERDICTS = ("PASSED", "FAILED", "SKIPPED", "PASS", "FAIL", "FAILDEP", "TIMEDOUT")
_BRACKETS_LAST = re.compile(r"(?P<words>.+)\[(?P<verdict>[^\[\]]{3,10})\]\s*")
_BRACKETS_FIRST = re.compile(r"\[(?P<verdict>[^\[\]]{3,10})\]\s+\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\s+(?P<words>.+?)\s*")
_LATER_TEST = re.compile(r"Test (?P<name>\S+) (?P<verdict>succeeded|failed)\.|\[FAILED TEST\] (?P<failed>\S+)")
_APITEST = re.compile(
    r"\[\s*(?P<verdict>PASS|FAIL|FAILDEP|TIMEDOUT)\s*\]\s+\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\s+(?P<name>.+?)\s*"
)


def clean(line: str) -> str:
    """`line` as a person would have seen it: without overwritten text, colours, backspaces and progress bars."""
    text = seen_line(line[:MAX_LINE])
    return _PROGRESS.sub("", text) if " % [" in text else text


def as_named(text: str) -> str:
    """`text` with the farm's files as the farm names them: OSCAR of 2006 puts its own directory before them."""
    return _PREFIXED.sub("/", text) if "/../" in text else text


def is_rule(text: str) -> bool:
    """Whether a cleaned line is one of the two rules that frame a section's title."""
    return _RULE.fullmatch(text) is not None


class LineKind(Enum):
    """How a line stands in the log. A `MESSAGE` of the later format may say what a subsection or a plain line said."""

    SECTION = "section"
    SUBSECTION = "subsection"
    MESSAGE = "message"
    COMPLAINT = "complaint"
    PLAIN = "plain"


class LogFormat(Enum):
    """The two ways in which OSCAR has written its log, told apart by the first line that only one of them has."""

    ARROWS = "2007"
    TYPED = "later"


_KIND_OF_TYPE = {
    "ACTION": LineKind.MESSAGE,
    "INFO": LineKind.MESSAGE,
    "ERROR": LineKind.COMPLAINT,
    "WARNING": LineKind.PLAIN,
    "DB": LineKind.PLAIN,
}


def kind_of(text: str) -> tuple[LineKind, str, LogFormat | None]:
    """What a cleaned line is (but for section titles), its words without the mark, the format that has such lines."""
    if text.startswith(_ARROW):
        return LineKind.SUBSECTION, text.removeprefix(_ARROW), LogFormat.ARROWS
    if text.startswith("[") and (typed := _TYPED.fullmatch(text)):
        return _KIND_OF_TYPE[typed["type"]], typed["text"], LogFormat.TYPED
    if text.startswith("-") and len(text) >= _WIDTH - 1 and (centred := _CENTRED.fullmatch(text)):
        return LineKind.SUBSECTION, centred["title"], LogFormat.TYPED
    return LineKind.PLAIN, text, None


def is_noise(text: str) -> bool:
    """Whether a cleaned line is one of those that good runs are full of (Perl warnings, stty without a terminal)."""
    return _NOISE.match(text) is not None


@dataclass(frozen=True, slots=True)
class DieLine:
    """What Perl's `die`, `warn`, `croak` or `carp` wrote: they look alike. `text` may be empty, and often is."""

    text: str
    file: str
    line: int


def die_line(text: str) -> DieLine | None:
    """The die line that the cleaned line is, if it is one."""
    if not (match := _DIE.fullmatch(text)):
        return None
    return DieLine(match["text"].strip(), match["file"], int(match["line"]))


@dataclass(frozen=True, slots=True)
class CheckResult:
    """One result line of OSCAR's cluster test. Labels are cut to a column's width: compare beginnings only."""

    label: str
    status: str
    verdict: Literal["passed", "failed", "skipped"]

    def __str__(self) -> str:
        return f"'{self.label}' {self.verdict}" + (f" ({self.status})" if self.status else "")


def check_result(text: str) -> CheckResult | None:
    """The result that a cleaned line of the test stage tells (`testprint` and apitest); None for other lines."""
    if match := _RESULT.fullmatch(text):
        words = match["words"]
        width = (len(words) - 1) // 2  # two columns of one width, cut or filled, and a blank between them
        label, status = words[:width].strip(), words[width + 1 :].strip()
        if not label or (len(words) > width and words[width : width + 1] != " "):
            label, status = words.strip(), ""
        verdict: Literal["passed", "failed", "skipped"] = "passed"
        if match["verdict"] != "PASSED":
            verdict = "failed" if match["verdict"] == "FAILED" else "skipped"
        return CheckResult(label, status, verdict)
    if match := _APITEST.fullmatch(text):
        status = "" if match["verdict"] in ("PASS", "FAIL") else match["verdict"]
        return CheckResult(match["name"], status, "passed" if match["verdict"] == "PASS" else "failed")
    if match := _LATER_TEST.fullmatch(text):
        passed = match["verdict"] == "succeeded"
        return CheckResult(match["name"] or match["failed"], "", "passed" if passed else "failed")
    return _damaged_result(text)


def _damaged_result(text: str) -> CheckResult | None:
    """A result whose verdict lost a letter or two proves nothing, and must not be lost: the test may have failed."""
    match = _BRACKETS_LAST.fullmatch(text) or _BRACKETS_FIRST.fullmatch(text)
    if match is None or not difflib.get_close_matches(match["verdict"].strip(), _VERDICTS, n=1, cutoff=0.5):
        return None
    return CheckResult(match["words"].strip(), f"its verdict '{match['verdict']}' cannot be read", "failed")
