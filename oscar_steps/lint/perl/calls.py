"""Calls of functions that nothing defines: perl compiles them, and the script dies when it comes there."""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterator
from functools import lru_cache

from oscar_steps.lint.confine import Answer
from oscar_steps.lint.perl.text import PerlText
from oscar_steps.lint.problems import Problem
from oscar_steps.lint.tree import File, Tree

_CALL = re.compile(r"(?<![\w$@%&>:'*\\-])&?((?:\w+::)*)([A-Za-z_]\w*)([ \t]*)\(")
_CALL_ELSEWHERE = re.compile(r"(?<!\w)(?<!\w::)((?>(?:\w++::)*))(\w++)[ \t]*+\(")
_TO_FILE = re.compile(r"\b(?:print|printf|say)\s*\(?\s*$")
_PACKAGE = re.compile(r"^[^\S\n]*package\s+(\w+(?:::\w+)*)", re.MULTILINE)
# `new Foo(...)`, `sub foo (...)`, and names that are asked for before they are called; `print FH (...)`.
_NO_CALL = re.compile(r"\b(?:new|sub|sort|defined|exists|goto|package|use|no)\s*\(?\s*&?$")
# Who does that may define functions in ways that are not seen here.
_MAKES_FUNCTIONS = re.compile(
    r"\b(?:require|do)\s*\(?\s*[\"'$]|->\s*import\b|\*\s*\{|\*\w[\w:]*\s*=|\beval\s*(?:\(?\s*\$|<<)"
)
_MADE = re.compile(r"\bsub\s+(\w+)|\*(?:\w+::)*(\w+)")
_EVALS_IMPORT = re.compile(r"\beval\s*\(?\s*[\"'](?:\$|[^\n]*\b(?:use|import|do|sub)\b)")


def undefined_calls(answer: Answer, file: File, tree: Tree) -> Iterator[Problem]:
    """Calls in a script that compiles, of what perl has noted as undefined, or a module of the tree has lost."""
    undefined = _undefined(answer, file, tree)
    text = PerlText(file.text) if undefined else None
    if text is None or text.lost:
        return
    makes = _MAKES_FUNCTIONS.search(text.code) or _EVALS_IMPORT.search(file.text)
    packages = [(match.start(), match[1]) for match in _PACKAGE.finditer(text.code)]
    for call in _CALL.finditer(text.code):
        at = bisect_left(packages, (call.start(), ""))
        package = call[1].removesuffix("::") or (packages[at - 1][1] if at else "main")
        if (package, call[2]) not in undefined or (not call[1] and makes):
            continue
        before = text.code[max(call.start() - 40, 0) : call.start()]
        if _NO_CALL.search(before) or (call[3] and _TO_FILE.search(before)):
            continue
        undefined.remove((package, call[2]))  # its first call is enough
        what = f"calls {call[1]}{call[2]}, which nothing defines"
        right = f"{_path(package)} has to define it" if call[1] else "define it, or import it from its module"
        yield Problem(file.path, text.line(call.start(2)), what, right)


def _undefined(answer: Answer, file: File, tree: Tree) -> set[tuple[str, str]]:
    """Packages and names; not those that may come from a module that is missing here, or are defined at run time."""
    notes = [note.split(" ") for note in answer.notes]
    granted = {words[2] for words in notes if words[0] == "unknown" and len(words) == 3}
    handed = {(words[2], words[1]) for words in notes if words[0] == "handed" and len(words) == 3}
    loaded = {words[1] for words in notes if words[0] == "needs" and len(words) == 2}
    seen = {(words[1], words[2]) for words in notes if words[0] == "undefined" and len(words) == 3}
    found = {(package, name) for package, name in seen if package not in granted and not _makes(file, name)}
    for into, path in handed:
        module = tree.files.get(path)
        found = {(package, name) for package, name in found if package != into or not _may_hand(module, name)}
    for package, name in {(place[:-2], name) for place, name in _CALL_ELSEWHERE.findall(file.text) if place}:
        module = tree.files.get(_path(package))
        if module is None:
            found.discard((package, name))  # such as main's: the program that loads this file may define it
            continue
        if _path(package) not in loaded and not re.search(rf"\b{name}\b|\bAUTOLOAD\b", module.text):
            found.add((package, name))
        elif _makes(module, name):
            found.discard((package, name))
    return found


def _may_hand(module: File | None, name: str) -> bool:
    """Whether a module that died, or does not compile, may export the name: it says it, or what it says is no list."""
    return module is None or re.search(rf"\b{name}\b|::EXPORT|\bAUTOLOAD\b|\bsub import\b", module.text) is not None


def _makes(file: File, name: str) -> bool:
    return name in _made(file.text)


@lru_cache(maxsize=2048)
def _made(text: str) -> frozenset[str]:
    """Names that a source defines a function of, or assigns one to."""
    return frozenset(match[1] or match[2] for match in _MADE.finditer(text))


def _path(package: str) -> str:
    return f"lib/{package.replace('::', '/')}.pm"
