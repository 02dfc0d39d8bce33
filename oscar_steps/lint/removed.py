"""What a change has taken away, or renamed, while something of the tree still uses it.

A module or a program that is not in the tree may come from elsewhere. One that was there until now, and is used as
before, most likely does not.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator
from dataclasses import replace

from oscar_steps.lint.lists.names import missing_in_list, names_in
from oscar_steps.lint.perl.chain import START, TODAY, missing_program, path_of_cells, way_of_cells
from oscar_steps.lint.perl.functions import calls_of, functions_of, is_read
from oscar_steps.lint.perl.starts import Start, is_perl, loads_of, starts_of
from oscar_steps.lint.problems import Findings, Problem
from oscar_steps.lint.tree import File, Tree

# What stands there is not used any more, by the name that OSCAR gave it.
_DEPRECATED = re.compile(r"(^|/)deprecated/")
_PACKAGE = re.compile(r"packages/([^/]+)/config\.xml$")
"""A package is named by its folder."""
_SHELLS_HOME = r"\$\{?OSCAR_HOME\}?/+"


def removed_but_used(before: Tree, after: Tree) -> Findings:
    """Modules, programs and listed files that `before` had, `after` has not, and a file of `after` uses."""
    found = Findings()
    gone = {p for p in (*before.files, *before.others) if p not in after and not after.may_have(p)}
    if not gone:
        return found
    users = [file for file in after.files.values() if not file.binary and not _DEPRECATED.search(file.path)]
    way = path_of_cells(after)
    renames_packages = any(_PACKAGE.match(path) and path not in before for path in after.files)
    for path in sorted(gone):
        package = _PACKAGE.match(path)
        if package and not renames_packages:
            continue  # Many have moved to other repositories, and are still installed.
        name = (package[1] if package else posixpath.basename(path)).encode("utf-8", "surrogateescape")
        naming = [file for file in users if name.removesuffix(b".pm") in file.content]
        problems = list(_of_module(path, naming, before, after)) if path.endswith(".pm") else []
        for file in naming:
            problems += _of_programs(path, file, after, on_the_way=file.path in way)
            if file.path in before:
                problems += _of_lists(path, file, after)
        found.problems += (replace(problem, because=path) for problem in problems)
    return found


def dropped_uses(before: Tree, after: Tree) -> tuple[str, ...]:
    """Files that a change took away, and, in the words of a problem, what the files that it changed use no more.

    And the calls of what it has defined at last.
    """
    found = [path for path, old in before.files.items() if path not in after and not old.binary]
    found += _defined_now(before, after)
    changed = [(old, after.files[path]) for path, old in before.files.items() if path in after.files]
    lost = [(old.path, _uses_of(old) - _uses_of(new)) for old, new in changed if old.content != new.content]
    if not any(uses for _, uses in lost):
        return tuple(found)
    # Of a module that several files use the problem names one of them only.
    still = {use for file in after.files.values() for use in _modules_of(file)}
    return (*found, *(f"{path}: {use}" for path, uses in lost for use in sorted(uses - still)))


def _defined_now(before: Tree, after: Tree) -> Iterator[str]:
    """Calls, by their package, of functions that a module defines now and did not."""
    found = set[str]()
    for path, file in after.files.items():
        old = before.files.get(path)
        if path.startswith("lib/") and path.endswith(".pm") and is_read(file) and file != old:
            names = functions_of(file) - (functions_of(old) if old is not None and is_read(old) else frozenset())
            module = path.removeprefix("lib/").removesuffix(".pm").replace("/", "::")
            found |= {f"{module}::{name}" for name in names}
    for user in after.files.values() if found else ():
        if is_read(user) and any(call.encode() in user.content for call in found):
            yield from (f"{user.path}: calls {call}" for call in sorted(found & calls_of(user).keys()))


def _modules_of(file: File) -> set[str]:
    return {f"uses {load.module}" for load in loads_of(file) if not load.tried} if not file.binary else set()


def _uses_of(file: File) -> set[str]:
    """What a file uses, as the problems begin that say that it is missing."""
    if file.binary:
        return set()
    shells = {f"names '{path}'" for path in re.findall(rf"{_SHELLS_HOME}([\w./-]*\w)", file.text)}
    calls = {f"calls {name}" for call in calls_of(file) for name in (call, call.rpartition("::")[2])}
    starts = {f"starts '{start.word}'" for start in starts_of(file)}
    return _modules_of(file) | calls | starts | shells | {f"names '{named.word}'" for named in names_in(file)}


def _of_module(path: str, naming: list[File], before: Tree, after: Tree) -> Iterator[Problem]:
    """A module is reported once, with the user that the installer meets first."""
    if not path.startswith("lib/") or _is_found_elsewhere(path, naming, after):
        return
    users = [(file, load) for file in naming for load in loads_of(file) if load.path == path and not load.tried]
    if not users:
        return
    ranks = {name: rank for rank, name in enumerate(way_of_cells(after))}
    file, load = min(users, key=lambda user: (ranks.get(user[0].path, len(ranks)), not user[1].certain, user[0].path))
    others = len({user.path for user, _ in users}) - 1
    so_do = f" (so do {others} other files)" if others > 1 else " (so does another file)" if others else ""
    renamed = _new_place(path, before, after)
    right = f"it is {renamed} now" if renamed else f"{path} has to be there, unless another package brings it now"
    gates = file.path in ranks and load.certain and (bool(renamed) or _is_early(file.path, after))
    yield Problem(file.path, load.line, f"uses {load.module}, which this change took away{so_do}", right, gates=gates)


def _is_found_elsewhere(path: str, naming: list[File], after: Tree) -> bool:
    """Whether perl may find the module all the same: elsewhere in the tree, or made (linked) at run time."""
    inside = path.removeprefix("lib")
    if any(other.endswith(inside) for other in (*after.files, *after.others)):
        return True
    name = re.compile(rf"\b{re.escape(posixpath.basename(path))}\b")
    return any(is_perl(file) and name.search(file.text) for file in naming)


def _new_place(path: str, before: Tree, after: Tree) -> str:
    """Where a module of this content is now; '' if nowhere. Its own name in it may have changed."""
    if (old := before.files.get(path)) is None:
        return ""
    lines = {line for line in old.lines if line.strip()}
    for other, file in after.files.items():
        if other not in before and other.endswith(".pm") and not file.binary:
            same = lines & set(file.lines)
            if lines and 5 * len(same) >= 4 * len(lines):
                return other
    return ""


def _is_early(path: str, after: Tree) -> bool:
    """Whether the installer loads this before it installs any package that could bring a module."""
    early, todo = {START, *TODAY}, [START, *TODAY]
    while todo:
        file = after.files.get(todo.pop())
        for load in loads_of(file) if file is not None else ():
            if load.certain and load.path not in early:
                early.add(load.path)
                todo.append(load.path)
    return path in early


def _of_programs(path: str, file: File, after: Tree, *, on_the_way: bool) -> Iterator[Problem]:
    for start in starts_of(file):
        if not start.complete or any(each in after or after.may_have(each) for each in start.candidates):
            continue
        if path in start.candidates or _is_only_one(start, path, after):
            yield missing_program(file, start, path, gates=on_the_way and start.fatal)
    if file.interpreter in ("sh", "bash"):
        named = re.compile(rf"{_SHELLS_HOME}{re.escape(path)}(?![\w./-])")
        for number, line in enumerate(file.lines, start=1):
            if named.search(line.partition("#")[0]):
                what = f"names '{path}', which this change took away"
                yield Problem(file.path, number, what, f"{path} has to be there")


def _is_only_one(start: Start, path: str, after: Tree) -> bool:
    """Whether a program that is started from a folder which nobody knows can be no other than this one."""
    name = posixpath.basename(path)
    return not start.from_home and posixpath.basename(start.word) == name and name not in after.names


def _of_lists(path: str, file: File, after: Tree) -> Iterator[Problem]:
    for named in names_in(file):
        if named.path not in after and (named.path == path or path.startswith(f"{named.path}/")):
            yield missing_in_list(file, named)
