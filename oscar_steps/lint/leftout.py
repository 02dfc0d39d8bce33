"""Files that a change brought, and that the Makefile beside them leaves out, though it names all of their kind."""

from __future__ import annotations

import posixpath
import re
from collections import defaultdict
from collections.abc import Iterator

from oscar_steps.lint.lists import MAKEFILES, is_makefile, names_in
from oscar_steps.lint.problems import Problem
from oscar_steps.lint.tree import File, Tree

_FEWEST = 5
"""So many names make a list of all files of a kind."""
_TAKES_ALL = re.compile(r"\$[({](?:wildcard|shell)\b|\bfind\b|(?<=[\s/])\*(?=\s)|\*[\w.]*\.\w")


def left_out(before: Tree, after: Tree) -> tuple[list[Problem], list[Problem]]:
    """What the change left out of a list, and what it put in, or took away."""
    both = [(before, after), (after, before)]
    touched = {posixpath.dirname(path) for a, b in both for path, file in b.files.items() if a.files.get(path) != file}
    now = dict(_missing(after, touched))
    new = [problem for path, problem in now.items() if path not in before]
    gone = [each for each in _missing(before, touched) if each[0] not in after or _is_named(each[0], after)]
    return new, [problem for _, problem in gone]


def _is_named(path: str, tree: Tree) -> bool:
    """Whether the Makefile beside a file says its name."""
    folder, name = posixpath.split(path)
    beside = (tree.files.get(posixpath.join(folder, makefile)) for makefile in MAKEFILES)
    return any(file is not None and name in file.text for file in beside)


def _missing(tree: Tree, folders: set[str]) -> Iterator[tuple[str, Problem]]:
    """The one file of its kind in a folder that no list of the folder's Makefile names."""
    inside = defaultdict[str, list[str]](list)
    for path in tree.files:
        inside[posixpath.dirname(path)].append(path)
    for folder in sorted(folders):
        for file in (tree.files[path] for path in inside[folder] if is_makefile(path)):
            if not file.binary and not _TAKES_ALL.search(file.text):
                yield from _missing_in(file, inside[folder], tree)


def _missing_in(makefile: File, beside: list[str], tree: Tree) -> Iterator[tuple[str, Problem]]:
    named, kinds = {name.path: name.line for name in names_in(makefile)}, defaultdict[str, set[str]](set)
    for path in beside:
        if not is_makefile(path) and (kind := _kind(path)):
            kinds[kind].add(path)
    for kind, paths in kinds.items():
        left = paths - named.keys()
        if len(left) == 1 and len(paths) > _FEWEST and not _is_named(path := left.pop(), tree):
            line = max(named[each] for each in paths if each in named)
            what = f"leaves out '{posixpath.basename(path)}', and names all others of '*{kind}'"
            yield path, Problem(makefile.path, line, what, "what is not named is not installed")


def _kind(path: str) -> str:
    """The end of a file's name; names without one are of no kind."""
    name = posixpath.basename(path)
    return posixpath.splitext(name)[1] if not name.startswith(".") else ""
