"""What make hands to the shell: the recipes of a Makefile, and the commands that its variables hold."""

from __future__ import annotations

import posixpath
import re
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import islice
from string import whitespace

from oscar_steps.lint.lists.names import LOGICAL_LINE, is_makefile, line_starts
from oscar_steps.lint.lists.shellwords import commands_of
from oscar_steps.lint.problems import Findings
from oscar_steps.lint.tree import File, Tree

TOP = "//tree"
"""Stands for the top of the tree, where a path has it written out."""
UNKNOWN = "%"
"""Stands for what only make knows."""
_RULES = "debian/rules"
_ASSIGNMENT = re.compile(
    r"(?>(?:(?:export|override)\s+)*)(?P<name>[\w.-]++)[ \t]*+(?P<how>[:+?!]?|::)=[ \t]*+(?P<value>.*)", re.DOTALL
)
_RULE = re.compile(r"[^\t#][^=]*:(?!=)")
_CONDITION = re.compile(r"(?:ifn?eq|ifn?def|if|else|endif)\b")
_DEFINES = re.compile(r"(?>(?:(?:override|export)\s+)*)define\s+(?P<name>\S+)?")
_OTHER_SHELL = re.compile(
    r"^SHELL[ \t]*+[:?]?=[ \t]*+(?!(?:/usr)?/bin/(?:ba|da)?sh[ \t]*$)|^\.(?:ONESHELL|RECIPEPREFIX)\b|\r$", re.MULTILINE
)
# These may give a part of a statement, or several of them.
_GIVES_MORE = {"call", "foreach", "if", "or", "and", "eval", "value", "subst"}
_PART = re.compile(r"(?<![\w./-])(?:if|then|else|elif|fi|for|while|until|do|done|case|esac)(?![\w./-])|[(){};&|`'\"#]")
_REFERENCE = re.compile(r"\$[({][^(){}$]*[)}]")
_CALLS_SHELL = re.compile(r"\$[({]shell\s")
_MANY = 20
"""So many calls of the shell in one line are looked at."""
_DEEPEST = 20
"""References deeper within each other are not taken out, and look like a part of a statement."""
_DOTS = re.compile(r"\.{1,2}(?:/\.{1,2})*/?$")
_HERE = {"CURDIR", "PWD", "shell pwd"}
_TOPS_OF_AUTOMAKE = {"top_srcdir", "top_builddir"}


@dataclass(frozen=True)
class Recipe:
    """One line that make hands to the shell, with its continuations, as it stands in the Makefile."""

    line: int
    text: str


@dataclass
class Makefile:
    """A Makefile as make reads it, as far as it can be read without running anything."""

    file: File
    recipes: list[Recipe] = field(default_factory=list)
    values: dict[str, list[str]] = field(default_factory=dict)
    others: list[Recipe] = field(default_factory=list)
    """Lines that are no recipes."""
    _known: dict[str, str | None] = field(default_factory=dict)

    @property
    def folder(self) -> str:
        """Where make runs it."""
        return "" if self.file.path == _RULES else posixpath.dirname(self.file.path)

    def expand(self, text: str) -> tuple[str, bool]:
        """What the shell gets, and whether each of its statements is certainly whole."""
        parts, whole, at = list[str](), True, 0
        while (found := text.find("$", at)) >= 0:
            parts.append(text[at:found])
            reference, at = _reference(text, found)
            if reference == "$":
                parts.append("$")
            else:
                if reference not in self._known:
                    self._known[reference] = self._value(reference)
                value = self._known[reference]
                whole = whole and value is not None
                parts += [value if value is not None else UNKNOWN, "\\\n" * reference.count("\n")]
        return "".join([*parts, text[at:]]), whole

    def _value(self, reference: str) -> str | None:
        """None: it may hold a part of a statement."""
        here = f"{TOP}/{self.folder}".rstrip("/")
        if reference in _HERE:
            return here
        if reference in _TOPS_OF_AUTOMAKE:
            return posixpath.relpath(".", self.folder or ".")
        if reference.partition(" ")[0] in _GIVES_MORE:
            return None
        values = self.values.get(reference, [])
        if len(values) == 1:
            value = values[0].partition("#")[0].strip()
            if _DOTS.match(value):
                return value
            if value.startswith("$") and _reference(value, 0) in [(name, len(value)) for name in _HERE]:
                return here
        return None if any(_PART.search(_without_references(value)) for value in values) else UNKNOWN

    def shell_calls(self) -> Iterator[Recipe]:
        """What stands in `$(shell ...)`."""
        for line in (*self.others, *self.recipes):
            if line.text.lstrip().startswith("#"):
                continue
            for match in islice(_CALLS_SHELL.finditer(line.text), _MANY):
                reference, _ = _reference(line.text, match.start())
                yield Recipe(line.line + line.text.count("\n", 0, match.start()), reference.removeprefix("shell"))


@lru_cache(maxsize=1024)
def read_makefile(file: File) -> Makefile | None:
    """None: it is no Makefile, or its recipes are not for a shell."""
    wanted = (is_makefile(file.path) or file.path == _RULES) and not file.binary
    if not wanted or _OTHER_SHELL.search(file.text):
        return None
    made, ruled, defined, starts = Makefile(file), False, 0, line_starts(file.text)
    for match in LOGICAL_LINE.finditer(file.text):
        text = match[0]
        line = Recipe(bisect_right(starts, match.start()), text)
        if not text.startswith("\t") and (name := _DEFINES.match(text)):
            defined += 1
            made.values.setdefault(name["name"] or "", []).append(";")
        elif defined:
            defined -= not text.startswith("\t") and re.match(r"endef\b", text) is not None
        elif text.startswith("\t") and ruled:
            made.recipes.append(line)
        elif not text.strip().startswith("#"):
            made.others.append(line)
            if assigned := _ASSIGNMENT.match(text.strip()):
                made.values.setdefault(assigned["name"], []).append(assigned["value"])
                ruled = False
            elif not _CONDITION.match(text):
                ruled = _RULE.match(text) is not None
    return made


def check_recipes(tree: Tree) -> Findings:
    """An '@' that make does not see, since the line goes on another one: the shell looks for a program of that name."""
    found = Findings()
    for makefile in filter(None, map(read_makefile, tree.files.values())):
        for recipe in makefile.recipes:
            if "@" not in recipe.text.lstrip("\t @+-"):
                continue
            text, _ = makefile.expand(recipe.text.lstrip("\t @+-"))
            for command in commands_of(text):
                if re.fullmatch(r"@[\w./-]*", word := command.words[0]):
                    line = recipe.line + text.count("\n", 0, command.at[0])
                    what = f"make: '{word[:60]}' within a command: the shell looks for a program of this name"
                    found.add(makefile.file.path, line, what, "'@' has to stand at the beginning of a recipe's line")
    return found


def script_of(file: File) -> str:
    """All recipes whose statements are certainly whole, each in the line where it stands, for `bash -n`."""
    makefile = read_makefile(file)
    lines = [""] * (file.text.count("\n") + 3)
    for recipe in makefile.recipes if makefile is not None else ():
        text, whole = makefile.expand(recipe.text) if makefile is not None else ("", False)
        if not whole or "<<" in text:
            continue
        text = text.lstrip("\t @+-").rstrip("\\" + whitespace)
        # Each is a group of its own: what one lacks another cannot bring.
        begun = ["{ :;" + text, "}"] if not text.startswith("#") else []
        for offset, part in enumerate("\n".join(begun).split("\n")):
            number = recipe.line - 1 + offset
            lines[number] = f"{lines[number]} ; {part}" if lines[number] else part
    return "\n".join(lines).rstrip("\n") + "\n"


def _reference(text: str, at: int) -> tuple[str, int]:
    """The name (or the call) behind the `$` at this place, and where it ends."""
    if at + 1 >= len(text):
        return "$", at + 1
    opens = text[at + 1]
    if opens not in "({":
        return opens, at + 2
    depth, closes = 0, ")" if opens == "(" else "}"
    for match in re.compile(f"[{opens}{closes}]").finditer(text, at + 1):
        depth += 1 if match[0] == opens else -1
        if not depth:
            return text[at + 2 : match.start()].strip(), match.end()
    return text[at + 2 :].strip(), len(text)


def _without_references(value: str) -> str:
    for _ in range(_DEEPEST):
        if value == (value := _REFERENCE.sub("", value)):
            break
    return value
