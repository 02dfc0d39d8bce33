"""`debian/control`: what dpkg refuses in it, by the rules of Debian's policy."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from oscar_steps.lint.problems import Findings
from oscar_steps.lint.tree import File, Tree

_CONTROL = re.compile(r"(?:^|/)debian/control(?:\.in)?$")
_FIELD = re.compile(r"(?P<name>[!-9;-~]+)[ \t]*:(?P<value>.*)", re.DOTALL)
_RELATIONS = {
    *("depends", "pre-depends", "recommends", "suggests", "enhances", "breaks", "conflicts", "provides", "replaces"),
    *("build-depends", "build-depends-indep", "build-depends-arch", "build-conflicts", "built-using"),
}
_RELATION = re.compile(
    r"(?:\$\{[\w:-]+\}|[a-zA-Z0-9@])(?:\$\{[\w:-]+\}|[\w.+@-])*(?::[\w-]+)?\s*"
    r"(?:\(\s*(?:<<|<=|=|>=|>>|<|>)\s*[^\s()]+\s*\))?\s*(?:\[[^\]]*\])?\s*(?:<[^>]*>\s*)*$"
)
_MANY = 20


@dataclass
class _Field:
    line: int
    name: str
    value: str


def check_control(tree: Tree) -> Findings:
    """A field that is there twice, a line that belongs to none, and a dependency that nobody can read."""
    found = Findings()
    for file in tree.files.values():
        if _CONTROL.search(file.path) and not file.binary:
            before = len(found.problems)
            for line, what, right in _faults(file):
                if len(found.problems) - before < _MANY:
                    found.add(file.path, line, f"control: {what}", right)
    return found


def _faults(file: File) -> Iterator[tuple[int, str, str]]:
    fields = dict[str, _Field]()
    last: _Field | None = None
    for number, line in enumerate([*file.lines, ""], start=1):
        if line.startswith("#"):
            continue
        if not line.strip():
            yield from _of_paragraph(fields)
            fields, last = {}, None
        elif line[0] in " \t":
            if last is None:
                yield number, f"'{line.strip()[:60]}' continues nothing", "a field has to stand before it"
            else:
                last.value += f"\n{line}"
        elif (match := _FIELD.match(line)) is None:
            yield number, f"'{line[:60]}' is not a field", "it has to be 'Name: value', or to begin with a blank"
        else:
            last = _Field(number, match["name"].lower(), match["value"])
            if last.name in fields:
                first = fields[last.name].line
                yield number, f"'{match['name']}' is there twice", f"line {first} has it already, and dpkg takes one"
            fields[last.name] = last


def _of_paragraph(fields: dict[str, _Field]) -> Iterator[tuple[int, str, str]]:
    for field in fields.values():
        if field.name not in _RELATIONS:
            continue
        for number, line in _entries(field):
            for relation in line.split("|"):
                if relation.strip() and not _RELATION.match(relation.strip()):
                    what = f"'{' '.join(relation.split())[:60]}' is not a dependency"
                    yield number, what, "such as 'name (>= 1.0)', with ',' or '|' before the next one"


def _entries(field: _Field) -> Iterator[tuple[int, str]]:
    """What stands between commas, each with the line where it begins."""
    line = field.line
    for entry in field.value.split(","):
        begun = len(entry) - len(entry.lstrip())
        yield line + entry.count("\n", 0, begun), entry
        line += entry.count("\n")
