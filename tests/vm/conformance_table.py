"""What has been tried of each back-end, and the table of it: operation × back-end.

A cell comes from a test that ran, here or (merged from its file) on another host, and from nothing else.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path

BACKENDS = ("Qemu", "Kvm", "Xen", "XenHVM", "VMWare", "VMM-HPC")

OPERATIONS = (
    "definition",
    "create a blank disk",
    "create an overlay on an image",
    "create refuses to overwrite",
    "disk fingerprint",
    "boot",
    "status",
    "pause, unpause",
    "reset",
    "console",
    "impossible transitions",
    "power off",
    "destroy",
    "event: guest shutdown",
    "event: reboot",
    "event: panic",
    "event: killed",
    "power button",
    "screenshot",
    "SSH endpoint",
    "bytes written",
    "CD in and out",
    "install from CD-ROM",
    "install from network",
    "install with OSCAR",
    "save and restore",
    "migrate",
    "dies with its owner",
)
"""The rows, each proven by one test of the suite."""

BEGIN, END = "<!-- conformance: begin -->", "<!-- conformance: end -->"
NOT_RUN = "no test of it was run"


class Outcome(StrEnum):
    """What came of an operation. `refused`: the back-end says in one sentence why it cannot be had there."""

    PASSED = "passed"
    REFUSED = "refused"
    UNPROVEN = "unproven here"
    FAILED = "FAILED"


_WEIGHT = (Outcome.UNPROVEN, Outcome.PASSED, Outcome.REFUSED, Outcome.FAILED)
"""Of two outcomes of one cell, the later one in this order is told."""


@dataclass(frozen=True, slots=True)
class Result:
    """One cell. `reason` is empty only when it passed; `where`: the host on which it was tried, empty for this one."""

    operation: str
    backend: str
    outcome: Outcome
    reason: str = ""
    where: str = ""


class Results:
    """All that has been found out so far."""

    def __init__(self) -> None:
        self._cells: dict[tuple[str, str], Result] = {}

    def __iter__(self) -> Iterator[Result]:
        return iter(self._cells.values())

    def __bool__(self) -> bool:
        return bool(self._cells)

    def add(self, result: Result) -> None:
        """Keep it, unless the cell knows something that weighs more. Raises ValueError for a cell that is not there."""
        if result.operation not in OPERATIONS or result.backend not in BACKENDS:
            raise ValueError(f"the table has no cell '{result.operation}' of '{result.backend}'")
        key = (result.operation, result.backend)
        known = self._cells.get(key)
        if known is None or _WEIGHT.index(result.outcome) >= _WEIGHT.index(known.outcome):
            self._cells[key] = result

    def cell(self, operation: str, backend: str) -> Result:
        return self._cells.get((operation, backend)) or Result(operation, backend, Outcome.UNPROVEN, NOT_RUN)

    def save(self, path: Path) -> None:
        """As JSON, a line per result."""
        path.write_text("".join(json.dumps(asdict(result)) + "\n" for result in self), encoding="utf-8")

    def merge(self, path: Path, where: str = "") -> None:
        """Add what `save` has written, on another host maybe. Raises ValueError naming the line that is none of it."""
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
            try:
                value = json.loads(line)
                place = value.get("where") or where
                self.add(Result(**{**value, "outcome": Outcome(value["outcome"]), "where": place}))
            except (ValueError, TypeError, KeyError, AttributeError) as error:
                raise ValueError(f"{path}:{number}: this is no result of a conformance test: {error}") from None


def markdown(results: Results) -> str:
    """The table, and below it the reasons, each with its number in the cells."""
    reasons: list[str] = []
    rows = [[operation, *(_cell(results.cell(operation, b), reasons) for b in BACKENDS)] for operation in OPERATIONS]
    lines = _aligned([["operation", *BACKENDS], *rows])
    notes = [f"{number}. {reason}" for number, reason in enumerate(reasons, start=1)]
    return "\n".join([*lines, "", *notes]).rstrip() + "\n"


def write_markdown(path: Path, table: str) -> None:
    """Write the table into a new file, or in place of the one that stands between the two marks in an old one.

    Raises ValueError for a file without the marks.
    """
    before, after = f"{BEGIN}\n", f"{END}\n"
    if path.exists():
        text = path.read_text(encoding="utf-8")
        before, begin, rest = text.partition(before)
        _, end, after = rest.partition(after)
        if not (begin and end):
            raise ValueError(f"{path}: it has no place for the table, between the lines '{BEGIN}' and '{END}'")
        before, after = before + begin, end + after
    path.write_text(f"{before}\n{table}\n{after}", encoding="utf-8")


def _cell(result: Result, reasons: list[str]) -> str:
    note = result.reason
    if result.where and result.outcome is not Outcome.UNPROVEN:
        note = f"{result.where}: {note}" if note else result.where
    if not note:
        return result.outcome
    if note not in reasons:
        reasons.append(note)
    return f"{result.outcome} ({reasons.index(note) + 1})"


def _aligned(rows: Iterable[list[str]]) -> list[str]:
    table = list(rows)
    widths = [max(len(row[column]) for row in table) for column in range(len(table[0]))]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |" for row in table
    ]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return lines
