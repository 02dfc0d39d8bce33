"""Files that are named in lists: what a Makefile installs, and the prerequisites that the installer installs first."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator
from dataclasses import dataclass

from oscar_steps.lint.problems import Findings, Problem
from oscar_steps.lint.tree import File, Tree

_MAKEFILE = re.compile(r"(^|/)(GNUmakefile|[Mm]akefile(\.am)?)$")
_ORDER = re.compile(r"^share/prereqs/[\w.-]*\.order$")
_ASSIGNMENT = re.compile(r"^(?P<name>\w+)[ \t]*[:+?]?=[ \t]*(?P<value>(?:[^\n\\]|\\\n|\\.)*)$", re.MULTILINE)
_WORD = re.compile(r"[\w.+-]+(?:/[\w.+-]+)*/?$")
_LOOKS_FIRST = re.compile(r"(?:\btest|\[)\s+-[defrsx]\s|\$[({]wildcard\b")
_RECIPE = re.compile(r"^\t.*", re.MULTILINE)
_USED = re.compile(r"\$(?:\((\w+)\)|\{(\w+)\})")


@dataclass(frozen=True)
class Named:
    """A path of the tree that a list names; `word` is how it is written there."""

    line: int
    word: str
    path: str


def check_lists(tree: Tree) -> Findings:
    """Names in lists whose neighbours are all right, and which are not in the tree themselves."""
    found = Findings()
    for file in tree.files.values():
        for names in _lists(file):
            lost = [name for name in names if name.path not in tree and not tree.may_have(name.path)]
            # A list of what is no file of the tree (programs, targets, packages) has hardly a name in common with it.
            if 2 * len(lost) < len(names):
                found.problems += [missing_in_list(file, name) for name in lost]
    return found


def missing_in_list(file: File, name: Named) -> Problem:
    what = f"names '{name.word}', which is not in the tree"
    return Problem(file.path, name.line, what, f"{name.path} has to be there")


def names_in(file: File) -> Iterator[Named]:
    """All that the lists of a file name."""
    for names in _lists(file):
        yield from names


def _lists(file: File) -> Iterator[list[Named]]:
    if file.binary:
        return
    if _MAKEFILE.search(file.path) and not _LOOKS_FIRST.search(file.text):
        yield from _of_makefile(file)
    elif _ORDER.match(file.path):
        lines = enumerate((line.strip() for line in file.text.splitlines()), start=1)
        yield [Named(number, line, posixpath.normpath(line)) for number, line in lines if _WORD.match(line)]


def _of_makefile(file: File) -> Iterator[list[Named]]:
    """Variables that hold nothing but names, and are used in a recipe."""
    folder = posixpath.dirname(file.path)
    used = {name[1] or name[2] for line in _RECIPE.finditer(file.text) for name in _USED.finditer(line[0])}
    for match in _ASSIGNMENT.finditer(file.text):
        words = [(m[0], m.start()) for m in re.finditer(r"[^\s\\]+", match["value"].partition("#")[0])]
        if match["name"] not in used or not words or not all(_WORD.match(word) for word, _ in words):
            continue
        yield [
            Named(
                file.text.count("\n", 0, match.start("value") + start) + 1,
                word,
                posixpath.normpath(posixpath.join(folder, word)),
            )
            for word, start in words
        ]
