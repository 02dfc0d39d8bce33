"""The call chain of the command line: what the installer starts and loads, and whether it is there and executable."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator

from oscar_steps.lint.perl.starts import Load, Start, loads_of, starts_of
from oscar_steps.lint.problems import Findings, Problem, make_executable
from oscar_steps.lint.tree import File, Tree

START = "install_cluster"
TODAY = ("bin/oscar-config", "scripts/oscar-config")
"""The way in of an OSCAR whose `install_cluster` has died: its folder has changed over the years."""
SANITY = "scripts/system-sanity"
# These are made executable by install_cluster itself, before any of them is started.
_MADE_EXECUTABLE = re.compile(r"^packages/[^/]+/scripts/[^/]+$")
_NEVER_ON_THE_WAY = ("testing/",)
_WRITTEN_AT_RUN_TIME = ("tmp/",)


def check_chain(tree: Tree) -> Findings:
    """Follow the chain from `install_cluster` and look at each file that is started or loaded."""
    found, todo, seen, way = Findings(), [*TODAY, START], set[str](), path_of_cells(tree)
    while todo:
        path = todo.pop()
        file = tree.files.get(path)
        if path in seen or file is None or file.binary:
            continue
        seen.add(path)
        if path == SANITY:
            todo += _sanity_checks(tree, found)
        for start in starts_of(file):
            todo += _look_at(start, file, tree, found, on_the_way=path in way)
        for load in loads_of(file):
            if load.path in tree:
                todo.append(load.path)
            elif meant := misspelt(load, tree):
                right = f"{meant} is what the tree has"
                found.add(path, load.line, f"uses {load.module}, which is not in the tree", right)
    return found


def path_of_cells(tree: Tree) -> frozenset[str]:
    """The files without which the installation certainly does not start, or does not go on, on the cells' way.

    That is the way of `install_cluster --cli`, or, in a tree where this ends for lack of a program, of `oscar-config`.
    """
    return frozenset(way_of_cells(tree))


def way_of_cells(tree: Tree) -> tuple[str, ...]:
    """The files of `path_of_cells` in the order in which they are first met."""
    found: dict[str, None] = {}
    if not _walk(START, tree, found) or START not in tree:
        for today in [path for path in TODAY if path in tree.files][:1]:
            found = {}
            _walk(today, tree, found)
    return tuple(path for path in found if not path.startswith(_NEVER_ON_THE_WAY))


def _walk(path: str, tree: Tree, found: dict[str, None]) -> bool:
    """Add what this file needs; whether the installation gets to its end, as far as missing programs decide it."""
    file = tree.files.get(path)
    if file is None or file.binary or path in found:
        return True
    found[path] = None
    for load in loads_of(file):
        if load.certain and load.path in tree.files and not _walk(load.path, tree, found):
            return False
    for start in starts_of(file):
        if not start.fatal:
            continue
        target = _target(start, tree)
        if target is None:
            if is_surely_missing(start, tree):
                return False
            continue
        if not _walk(target, tree, found):
            return False
        if target == SANITY:
            for check in _checks(tree):
                found.setdefault(check.path)
    return True


def _target(start: Start, tree: Tree) -> str | None:
    return next((path for path in start.candidates if path in tree), None)


def is_surely_missing(start: Start, tree: Tree) -> bool:
    """Whether a program has to be in this tree, and is not: nothing that a build or an external may bring."""
    if not start.complete or any(path in tree or tree.may_have(path) for path in start.candidates):
        return False
    if start.candidates[0].startswith(_WRITTEN_AT_RUN_TIME):
        return False
    if start.from_home:
        return True
    name = posixpath.basename(start.word)
    return not any(path.startswith("?") for path in start.candidates) and name not in tree.names


def _look_at(start: Start, file: File, tree: Tree, found: Findings, *, on_the_way: bool) -> Iterator[str]:
    target = _target(start, tree)
    gates = on_the_way and start.fatal
    if target is None:
        if is_surely_missing(start, tree):
            found.problems.append(missing_program(file, start, start.candidates[0], gates=gates))
    elif target in tree.files:
        script = tree.files[target]
        if start.directly and script.shebang and not script.executable and not _MADE_EXECUTABLE.match(target):
            what = f"not executable, but {file.path}:{start.line} starts it"
            found.add(target, 0, what, make_executable(target), gates=gates)
        yield target


def missing_program(file: File, start: Start, path: str, *, gates: bool) -> Problem:
    what = f"starts '{start.word}', which is not in the tree"
    return Problem(file.path, start.line, what, f"{path} has to be there", gates=gates)


def _checks(tree: Tree) -> Iterator[File]:
    for path, file in tree.files.items():
        folder, name = posixpath.split(path)
        if folder == f"{SANITY}.d" and not name.startswith(".") and file.shebang:
            yield file


def _sanity_checks(tree: Tree, found: Findings) -> Iterator[str]:
    """system-sanity leaves out what is not executable, and the check is silently lost."""
    for file in _checks(tree):
        if not file.executable:
            found.add(file.path, 0, f"not executable, so {SANITY} leaves it out", make_executable(file.path))
        yield file.path


def misspelt(load: Load, tree: Tree) -> str:
    """A module of the tree that is meant by one that is not there: the same letters, written in another way.

    What else is missing may come from another package, as many modules of the name OSCAR:: do.
    """
    if not load.module.startswith("OSCAR::"):
        return ""
    letters = _letters(load.path)
    return next((path for path in tree.files if path.startswith("lib/OSCAR/") and _letters(path) == letters), "")


def _letters(path: str) -> str:
    return re.sub(r"[^a-z0-9]", "", path.removesuffix(".pm").lower())


def is_in_cycle(path: str, tree: Tree) -> bool:
    """Whether a module of OSCAR's uses itself by way of others: what it imports depends then on who is loaded first."""
    seen, todo = set[str](), [path]
    while todo:
        file = tree.files.get(todo.pop())
        for load in loads_of(file) if file is not None else ():
            if load.path == path:
                return True
            if load.path not in seen:
                seen.add(load.path)
                todo.append(load.path)
    return False
