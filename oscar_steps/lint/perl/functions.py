"""Functions that nothing defines: Perl finds that out only when it gets there.

What modules that are not in the tree define, nobody knows here. So only these are problems: a call of what a change
took away, of what a module of the tree has not got, and of a name that is nearly one of the tree's and stands nowhere
else.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache

from oscar_steps.lint.perl.starts import is_perl, loads_of
from oscar_steps.lint.perl.text import PerlText
from oscar_steps.lint.perl.words import EXPORTED, WORDS
from oscar_steps.lint.problems import Findings, Problem
from oscar_steps.lint.tree import File, Tree

_SUB = re.compile(r"^[ \t]*sub\s+(?:\w+::)*(\w+)", re.MULTILINE)
_CALL = re.compile(
    r"(?<![\w$@%>:&])(?:&\s*)?((?:[A-Za-z_]\w*::)*[A-Za-z_]\w*)\s*\(|(?<![&\w])&((?:\w+::)*[A-Za-z_]\w*)\b"
)
_NO_CALL_BEFORE = re.compile(r"(?:\bsub|->|\bpackage|\bmy|\bour|\bgoto|\bnew)\s*$")
_DEPRECATED = re.compile(r"(^|/)deprecated/")
_USED = re.compile(r"(?:^|(?<=[;{}]))[ \t]*(?:use|require)\s+([A-Z][\w:]*+)\s*+([^;]*+)(?:;|$)", re.MULTILINE)
# What is loaded so is not known, or not always loaded.
_LOADS_BY_NAME = re.compile(
    r"\beval\b[\s\"'{(q]*(?:use|require)\b|(?<![\w$@%>:-])(?:require|do)\b[\s(]*+[\"'$]|"
    r"\b(?:use|require)_ok\b|\buse\s+(?:if|autouse)\b|\A#![^\n]*\s-\w*[mM]"
)
_IS_LIST = re.compile(r"(?:qw\b|\(|['\"])(?!.*:)")
_SHORTEST = 6
"""Names that are shorter are near to each other by chance."""
_MANY = 300
"""So many new calls of a file are looked at."""


def lost_functions(before: Tree, after: Tree) -> Findings:
    """Calls of functions that `after` has not, where the change brought the call or took the function away."""
    found = Findings()
    changed = [file for path, file in after.files.items() if is_read(file) and before.files.get(path) != file]
    if not changed:
        return found
    files = [file for file in after.files.values() if is_read(file)]
    defined = {name for file in files for name in functions_of(file)}
    for file in changed:
        old = before.files.get(file.path)
        if old is not None:
            found.problems += _of_taken_away(old, file, files, defined, after)
        new = set(calls_of(file)) - set(calls_of(old) if old is not None else ())
        for name in sorted(new)[:_MANY]:
            found.problems += _of_new_call(name, file, before, after, defined)
    return found


def is_read(file: File) -> bool:
    return not file.binary and is_perl(file) and not _DEPRECATED.search(file.path)


@lru_cache(maxsize=4096)
def functions_of(file: File) -> frozenset[str]:
    """The functions that a file defines, without their packages."""
    return frozenset(_SUB.findall(file.text))


@lru_cache(maxsize=4096)
def calls_of(file: File) -> dict[str, int]:
    """What a file calls as a function, with the line of the first call."""
    perl, found = PerlText(file.text), dict[str, int]()
    for match in () if perl.lost else _CALL.finditer(perl.code):
        if not _NO_CALL_BEFORE.search(perl.code[max(0, match.start() - 20) : match.start()]):
            found.setdefault(match[1] or match[2], perl.line(match.start()))
    return found


def _of_taken_away(old: File, file: File, files: list[File], defined: set[str], after: Tree) -> Iterator[Problem]:
    gone = functions_of(old) - defined
    loaded = {load.module for load in loads_of(file)} - {load.module for load in loads_of(old)} - EXPORTED.keys()
    if any(f"lib/{module.replace('::', '/')}.pm" not in after for module in loaded):
        return  # What is loaded now, and nobody knows here, may define it, and hand it on.
    yield from _of_lost_package(old, file, files, after)
    yield from _called_by_its_package(functions_of(old) - functions_of(file) - gone, file, files, after)
    if not gone:
        return
    for user in files:
        loads = user.path == file.path or any(load.path == file.path for load in loads_of(user))
        for name in sorted(gone & {call.rpartition("::")[2] for call in _calls_if(user, gone)}):
            package = _package(file)
            line = calls_of(user).get(name) if loads else None
            line = line or (calls_of(user).get(f"{package}::{name}") if package else None)
            if line and not is_made(name, user) and not is_made(name, file):
                what = f"calls {name}, which this change took away from {file.path}"
                right = "define it, or call what takes its place"
                yield Problem(user.path, line, what, right, because=file.path)


def _called_by_its_package(names: frozenset[str], file: File, files: list[File], after: Tree) -> Iterator[Problem]:
    """Functions that are still defined elsewhere, and not where they are called."""
    package = _package(file)
    code = PerlText(file.text).code if names and package else ""
    brought = [module.text for module in _loaded(file, after)]
    for name in sorted(names):
        word = re.compile(rf"\b{name}\b|AUTOLOAD")
        if not code or is_made(name, file) or word.search(code) or any(word.search(text) for text in brought):
            continue
        for user in files:
            if f"{package}::{name}".encode() in user.content and (line := calls_of(user).get(f"{package}::{name}")):
                what = f"calls {package}::{name}, which this change took away from {file.path}"
                yield Problem(user.path, line, what, "define it, or call what takes its place", because=file.path)


def _of_lost_package(old: File, file: File, files: list[File], after: Tree) -> Iterator[Problem]:
    """Calls of what stands in a package that has another name now."""
    package, now = _package(old), _package(file)
    if not package or not now or package == now or f"lib/{package.replace('::', '/')}.pm" in after:
        return
    if any(_declares(package, each) for each in files):
        return
    for user in files:
        calls = calls_of(user) if f"{package}::".encode() in user.content else {}
        for call, line in calls.items():
            if call.rpartition("::")[0] == package:
                what = f"calls {call}, whose package {package} this change took away from {file.path}"
                yield Problem(user.path, line, what, f"the package is {now} now", because=file.path)


def _calls_if(file: File, names: frozenset[str]) -> dict[str, int]:
    return calls_of(file) if any(name.encode() in file.content for name in names) else {}


def _of_new_call(name: str, file: File, before: Tree, after: Tree, defined: set[str]) -> Iterator[Problem]:
    module, _, function = name.rpartition("::")
    if is_made(function, file) or (function in defined and not module):
        return
    line = calls_of(file)[name]
    if module:
        path = f"lib/{module.replace('::', '/')}.pm"
        other = after.files.get(path)
        yield from _of_wrong_package(name, file, after)
        if other is None or any(_hands_on(each, function) for each in (other, *_loaded(other, after))):
            return
        if not unknown_modules(other, after) or not (function in defined or _is_known(function, before)):
            yield Problem(file.path, line, f"calls {name}, which {path} does not define", f"define {function} there")
    elif len(function) >= _SHORTEST and function not in WORDS and not _is_known(function, before):
        own = functions_of(file).union(*(functions_of(f) for f in _loaded(file, after)))
        if meant := next((each for each in sorted(own) if _is_near(function, each)), ""):
            what = f"calls {function}, which nothing in the tree defines"
            yield Problem(file.path, line, what, f"{meant} may be meant")
        elif not function.isupper() and function not in _imported(file) and knows_all_modules(file, after):
            what = f"calls {function}, which neither this file nor a module that it loads defines"
            yield Problem(file.path, line, what, f"define {function}, or load the module that does")


def _of_wrong_package(name: str, file: File, after: Tree) -> Iterator[Problem]:
    """A call of a module as if it were a function, or by a package that differs from a module's in its case only."""
    module, _, _function = name.rpartition("::")
    path, itself = (f"lib/{each.replace('::', '/')}.pm" for each in (module, name))
    line = calls_of(file)[name]
    if path in after or not module.startswith("OSCAR") or any(_declares(module, each) for each in after.files.values()):
        return
    if itself in after:
        yield Problem(file.path, line, f"calls {name}, which is a module", "call a function of it")
    for other in after.files:
        if other.lower() == path.lower():
            meant = other.removeprefix("lib/").removesuffix(".pm").replace("/", "::")
            yield Problem(file.path, line, f"calls {name}, whose package nothing has", f"{meant} may be meant")


def _declares(package: str, file: File) -> bool:
    declared = re.compile(rf"^[^\S\n]*package\s+{package}\b(?!::)", re.MULTILINE)
    return package.encode() in file.content and not file.binary and declared.search(file.text) is not None


def _imported(file: File) -> set[str]:
    """What a file asks modules for by name, and gets from modules of Perl's own without asking."""
    used = _USED.findall(file.text)
    return {word for module, asked in used for word in re.findall(r"\w+", f"{asked} {EXPORTED.get(module, '')}")}


def _loaded(file: File, tree: Tree) -> list[File]:
    return [tree.files[load.path] for load in loads_of(file) if load.path in tree.files]


def knows_all_modules(file: File, tree: Tree) -> bool:
    """Whether all that a file may import is known: from modules of the tree, or asked for by name."""
    seen, todo = set[str](), [file]
    while todo:
        user = todo.pop()
        if _LOADS_BY_NAME.search(user.text):
            return False
        for module, asked in _USED.findall(user.text):
            path = f"lib/{module.replace('::', '/')}.pm"
            if path in seen or module in EXPORTED or _IS_LIST.match(asked):
                continue
            seen.add(path)
            if path not in tree.files:
                return False
            todo.append(tree.files[path])
    return True


def loads_by_name(file: File) -> bool:
    """Whether a file loads something whose name is put together when it runs, or that is not always loaded."""
    return _LOADS_BY_NAME.search(file.text) is not None


@lru_cache(maxsize=4096)
def _used_without_list(file: File) -> tuple[str, ...]:
    used = {module: None for module, asked in _USED.findall(file.text) if not _IS_LIST.match(asked)}
    return tuple(module for module in used if module not in EXPORTED and not re.match(r"Tk\b", module))


def unknown_modules(file: File, tree: Tree) -> list[str]:
    """Modules that are not in the tree and may hand anything to the file: it asks for nothing by name.

    Tk is none of them: what it exports is nothing of OSCAR's.
    """
    return [module for module in _used_without_list(file) if f"lib/{module.replace('::', '/')}.pm" not in tree.files]


def _package(file: File) -> str:
    declared = re.search(r"^[^\S\n]*package\s+([\w:]+)\s*;", file.text, re.MULTILINE)
    return declared[1] if declared else ""


def is_made(name: str, file: File) -> bool:
    """Whether a function may be there without a `sub` of its name, or the file looks for it first."""
    made = (
        rf"\*(?:[\w:]+::)?{name}\b|\*\{{[^*\n]{{0,80}}?\b{name}\b|\buse constant\b[^;]{{0,400}}\b{name}\b|"
        rf"\b(?:defined|exists)\b[\s(]*&\s*(?:[\w:]+::)?{name}\b|\bcan[\s(]+[\"']{name}\b"
    )
    return "AUTOLOAD" in file.text or re.search(made, file.text) is not None


def _hands_on(module: File, function: str) -> bool:
    """Whether a module may have the function from one that it loads: it says its name."""
    return re.search(rf"\b{function}\b|AUTOLOAD", module.text) is not None


def _is_known(name: str, before: Tree) -> bool:
    """Whether the name stands anywhere in the tree before the change: then some other module has it."""
    word = re.compile(rf"\b{name}\b".encode())
    return any(word.search(file.content) for file in before.files.values() if not file.binary)


def _is_near(name: str, other: str) -> bool:
    """Whether one is a slip of the other: a letter too many or too few inside, two in the wrong order, '_' or case."""
    if name == other or name + "s" == other or other + "s" == name:
        return False
    if name.replace("_", "").lower() == other.replace("_", "").lower():
        return True
    short, long = sorted((name, other), key=len)
    if len(long) == len(short) + 1:
        return any(long[:at] + long[at + 1 :] == short for at in range(len(long)))
    if len(long) != len(short):
        return False
    differ = [at for at in range(len(long)) if long[at] != short[at]]
    if len(differ) == 2 and differ[1] == differ[0] + 1:
        return long[differ[0]] == short[differ[1]] and long[differ[1]] == short[differ[0]]
    return False
