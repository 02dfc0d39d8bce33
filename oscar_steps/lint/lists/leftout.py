"""Files that a change brought, and that the Makefile beside them leaves out, though it names all of their kind."""

from __future__ import annotations

import posixpath
import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

from oscar_steps.lint.lists.names import MAKEFILES, is_makefile, names_in
from oscar_steps.lint.problems import Problem
from oscar_steps.lint.tree import File, Tree

_FEWEST = 5
"""So many names make a list of all files of a kind."""
_FEW = 10
"""One file in so many may stand outside of the list, and the list is still that of all; but for scripts: one that is
left out may be there for developers alone, and so may the next one."""
_SCRIPTS = "the scripts"
_TAKES_ALL = re.compile(r"\$[({](?:wildcard|shell)\b|\bfind\b|(?<=[\s/])\*(?=\s)|\*[\w.]*\.\w|\w\*(?=\s|$)")
_REMOVES = re.compile(r"\brm\s[^;|&\n]*")
_WORD = re.compile(r"[\w.+-]+")
_TO_BE_READ = re.compile(r"[A-Z]+(?:[._-]\w+)?$")
"""README and its like need not be installed."""


@dataclass(frozen=True)
class _Gap:
    """What a list leaves out, of a kind of which it names `named`."""

    makefile: str
    line: int
    kind: str
    paths: frozenset[str]
    named: int

    def problems(self, paths: Iterator[str]) -> Iterator[Problem]:
        for path in sorted(paths):
            what = f"leaves out '{posixpath.basename(path)}', and names all others of {self.kind}"
            yield Problem(self.makefile, self.line, what, "what is not named is not installed")


def left_out(before: Tree, after: Tree) -> tuple[list[Problem], list[Problem]]:
    """What the change left out of a list, and what it put in, or took away."""
    both = [(before, after), (after, before)]
    changed = [path for a, b in both for path, file in b.files.items() if a.files.get(path) != file]
    # A new folder is left out by the Makefile above it.
    touched = {posixpath.dirname(path) for path in changed} | {posixpath.dirname(posixpath.dirname(p)) for p in changed}
    was, now = _gaps(before, touched), _gaps(after, touched)
    new, mended = list[Problem](), list[Problem]()
    for gap in now.values():
        brought = {path for path in gap.paths if not _was_there(path, before)}
        others = len(gap.paths) - len(brought)
        complete = not others if gap.kind == _SCRIPTS else others * _FEW <= gap.named
        if complete and 2 * len(brought) <= gap.named:
            new += gap.problems(iter(brought))
    for key, gap in was.items():
        if gap.makefile in after and 2 * len(gap.paths) <= gap.named:
            mended += gap.problems(iter(gap.paths - (now[key].paths if key in now else set())))
    return new, mended


def _was_there(path: str, tree: Tree) -> bool:
    return path in tree.files or any(posixpath.join(path, makefile) in tree for makefile in MAKEFILES)


def _gaps(tree: Tree, folders: set[str]) -> dict[tuple[str, str], _Gap]:
    """By Makefile and kind, what the lists of a folder's Makefile do not name, though they name others of the kind."""
    inside = defaultdict[str, list[str]](list)
    for path in tree.files:
        folder = posixpath.dirname(path)
        inside[folder].append(path)
        if is_makefile(path) and folder:
            inside[posixpath.dirname(folder)].append(folder)
    found = dict[tuple[str, str], _Gap]()
    for folder in sorted(folders):
        makefiles = [tree.files[path] for path in inside[folder] if is_makefile(path) and path in tree.files]
        said = {word for makefile in makefiles for word in _WORD.findall(makefile.text)}
        for makefile in makefiles:
            if not makefile.binary and not _TAKES_ALL.search(_REMOVES.sub("", makefile.text)):
                for gap in _gaps_in(makefile, inside[folder], tree, said):
                    found[makefile.path, gap.kind] = gap
    return found


def _gaps_in(makefile: File, beside: list[str], tree: Tree, said: set[str]) -> Iterator[_Gap]:
    named, kinds = {name.path: name.line for name in names_in(makefile)}, defaultdict[str, set[str]](set)
    for path in beside:
        if kind := _kind(path, tree):
            kinds[kind].add(path)
    for kind, paths in kinds.items():
        left = {path for path in paths - named.keys() if posixpath.basename(path) not in said}
        listed = paths & named.keys()
        if left and len(listed) >= _FEWEST:
            line = max(named[path] for path in listed)
            yield _Gap(makefile.path, line, kind, frozenset(left), len(listed))


def _kind(path: str, tree: Tree) -> str:
    """What a file is like by its name, or a folder that has a Makefile; '' for what is of no kind."""
    name = posixpath.basename(path)
    if path not in tree.files:
        return "the folders with a Makefile"
    if name.startswith(".") or _TO_BE_READ.match(name) or is_makefile(path):
        return ""
    end = posixpath.splitext(name)[1]
    if end:
        return f"'*{end}'"
    return _SCRIPTS if tree.files[path].shebang else "the files without an end"
