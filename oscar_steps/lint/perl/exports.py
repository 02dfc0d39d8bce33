"""What modules hand out, and who takes it.

Perl says nothing where a module exports a name that it does not define, where its package is another module's, or where
a file calls what another module exports and does not load that module: the program ends when it comes there.
"""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import dataclass
from functools import lru_cache

from oscar_steps.lint.perl.functions import calls_of, functions_of, is_made, is_read, loads_by_name, unknown_modules
from oscar_steps.lint.perl.text import PerlText
from oscar_steps.lint.perl.words import EXPORTED, WORDS
from oscar_steps.lint.problems import Findings, Problem
from oscar_steps.lint.tree import File, Tree

_EXPORT = re.compile(r"(?P<add>\b(?:push|unshift)\b[\s(]*+)?@EXPORT(?:_OK)?\s*+(?:=(?![=~])|(?P<comma>,))")
# What a list of plain names is made of.
_IN_LIST = re.compile(
    r"""[\s(),]++ | \#[^\n]*+ | (?P<quote>["'])(?P<name>[\w&$@%%:.-]*+)(?P=quote)
    | qw\s*+(?: \( (?P<round>(?>(?:[^()]|\([^()]*\))*)) \) | \[ (?P<square>[^\]]*+) \] | \{ (?P<curly>[^}]*+) \}
        | < (?P<angle>[^>]*+) > | (?P<mark>[^\w\s(\[{<\#]) (?P<marked>.*?) (?P=mark) )""",
    re.VERBOSE | re.DOTALL,
)
_COMMENT = re.compile(r"#[^\n]*")
_EXPORTS_MORE = re.compile(
    r"EXPORT_TAGS|::EXPORT|\*EXPORT|\\@EXPORT|@\{\s*+EXPORT|@EXPORT\w*+\s*+\)\s*+=|"
    r"\bsub\s+import\b|\*(?>(?:\w++::)*)import\b|\bexport_to_level\b"
)
_PACKAGE = re.compile(r"^[^\S\n]*package\s+([\w:]+)", re.MULTILINE)
_CONSTANT = re.compile(r"^[^\S\n]*use\s+constant\s+(\w+)", re.MULTILINE)
_USED = re.compile(
    r"\b(?:use|require|import)\b[\s\"'({]*([A-Za-z_][\w:]*)|(?<![\w:])([A-Z]\w*+(?>(?:::\w++)*))->import\b"
)
_ASKED = re.compile(r"(?:^|[;{}])[^\S\n]*use\b([^;]*)", re.MULTILINE)
# Functions of Perl's own modules whose names nobody else takes.
_OF_PERL = {
    name: module
    for module in ("Carp", "Data::Dumper", "File::Basename", "File::Copy", "File::Path", "Getopt::Long")
    for name in EXPORTED[module].split()
}
_MAY_HAVE_THEM = re.compile(r"^(?:POSIX|File|IO|IPC|Cwd|Getopt|Data|Shell|Test)\b")
_OF_WORDS = re.compile(r"[a-z]_|[a-z][A-Z]")
"""POSIX exports no such name."""
_SHORTEST = 5
_SEVERAL = 3
_FEW = 20
_MANY = 60
"""What is more is no work of a person, and takes its time."""


def lost_exports(before: Tree, after: Tree) -> Findings:
    """What files export and do not define, or call and do not load, and did not before the change."""
    found = Findings()
    changed = [file for path, file in after.files.items() if is_read(file) and before.files.get(path) != file]
    if not changed:
        return found
    homes, old_homes = _homes(after), None
    names = _other_exports(changed, before)
    for file in [*changed, *_users(names, after, changed)]:
        problems = _problems_of(file, after, homes, before)
        if not problems:
            continue
        old = before.files.get(file.path) or _moved_from(file, before, after)
        if old is not None:
            if PerlText(old.text).lost:
                continue  # nobody knows what it had
            old_homes = old_homes or _homes(before)
            was = _problems_of(old, before, old_homes, None)  # what may have been so before is not new
            problems = {name: problem for name, problem in problems.items() if name not in was}
        found.problems += list(problems.values())[:_FEW]
    return found


def _problems_of(file: File, tree: Tree, homes: dict[str, set[str]], before: Tree | None) -> dict[str, Problem]:
    return {
        **_undefined_exports(file, tree, before),
        **_other_package(file, tree),
        **_not_loaded(file, tree, homes, before),
    }


def _other_exports(changed: list[File], before: Tree) -> set[str]:
    """Names that a module exports now and did not, or the other way round."""
    names = set[str]()
    for file in changed:
        old = before.files.get(file.path)
        if old is not None and not old.binary and file.path.endswith(".pm"):
            names |= exports_of(old) ^ exports_of(file)
    return names


def _users(names: set[str], after: Tree, changed: list[File]) -> list[File]:
    """Files that call any of these by its bare name, and did not change themselves."""
    if not names:
        return []
    called = re.compile(rb"(?<![\w:>$@%%])(?:%s)[ \t]*\(" % b"|".join(map(str.encode, sorted(names)[:_MANY])))
    others = after.files.keys() - {file.path for file in changed}
    users = (after.files[path] for path in sorted(others))
    return [file for file in users if is_read(file) and called.search(file.content)][:_MANY]


def _moved_from(file: File, before: Tree, after: Tree) -> File | None:
    name = file.path.rpartition("/")[2]
    return next((f for p, f in before.files.items() if p not in after.files and p.rpartition("/")[2] == name), None)


@dataclass(frozen=True)
class _List:
    """A list of exported names, with its place."""

    start: int
    end: int
    names: frozenset[str]


def exports_of(file: File) -> frozenset[str]:
    """The functions that a module exports, asked or unasked, as far as they can be read."""
    return frozenset[str]().union(*(each.names for each in _exports(file)[0]))


@lru_cache(maxsize=4096)
def _exports(file: File) -> tuple[tuple[_List, ...], bool]:
    """The lists of what a module exports, and whether they are all."""
    if b"EXPORT" not in file.content and b"import" not in file.content:
        return (), True
    found, text = list[_List](), file.text
    complete = _EXPORTS_MORE.search(text) is None
    for count, match in enumerate(_EXPORT.finditer(text)):
        if count == _MANY:
            return tuple(found), False
        before = text[text.rfind("\n", 0, match.start()) + 1 : match.start()]
        if (match["comma"] and not match["add"]) or re.search(r"(?<!\S)#", before):
            continue  # the name is only said, or in a comment
        at, words = match.end(), list[str]()
        while part := _IN_LIST.match(text, at):
            at = part.end()
            if part["quote"]:
                words.append(part["name"])
            else:
                plain = next(filter(None, part.group("round", "square", "curly", "angle", "marked")), "")
                words += _COMMENT.sub("", plain).split()
        names = frozenset(word.lstrip("&") for word in words if re.fullmatch(r"&?[A-Za-z_]\w*", word))
        found.append(_List(match.start(), at, names))
        complete = complete and text[at : at + 1] in ("", ";", "}")
    return tuple(found), complete


def _may_bring(name: str, file: File, tree: Tree, before: Tree | None) -> bool:
    """Whether a module that the file loads may hand this name to it.

    Of one whose exports cannot be read this is believed where it, or one that it loads, says the name. Of one that is
    not in the tree it is believed unless others show by the tree `before` that it does not, or there is no such tree.
    """
    word = re.compile(rf"\b{name}\b")
    for module in _loaded(file, tree):
        if not _exports(module)[1] and any(word.search(each.text) for each in (module, *_named(module, tree))):
            return True
    unknown = [each for each in unknown_modules(file, tree) if each != "POSIX" or not _OF_WORDS.search(name)]
    return bool(unknown) and before is not None and not _come_from_elsewhere(name, unknown, file, tree, before)


def _come_from_elsewhere(name: str, unknown: list[str], file: File, tree: Tree, before: Tree) -> bool:
    """Whether those who load these modules show that none of them brings the name.

    Of each module somebody loads it, and defines the name or has it from a module of the tree. Or the name is one of
    OSCAR's own, which several have from a module of the tree, and nobody who loads these has it from nowhere.
    """
    left, lacking = set(unknown), set[str]()
    for user in _users_of(name, file, before):
        loaded = unknown_modules(user, before)
        if _has(name, user, before):
            left -= set(loaded)
        elif name in calls_of(user):
            lacking |= set(loaded)
    if not left:
        return True
    own = _OF_WORDS.search(name) is not None and name not in _OF_PERL
    own = own and sum(_has(name, user, tree) for user in _users_of(name, file, tree)) >= _SEVERAL
    return own and left.isdisjoint(lacking) and not any(_stands_elsewhere(module, name, before) for module in left)


def _users_of(name: str, file: File, tree: Tree) -> list[File]:
    """Other files of Perl that say the name."""
    word = name.encode()
    return [user for user in tree.files.values() if word in user.content and user.path != file.path and is_read(user)]


def _stands_elsewhere(module: str, name: str, tree: Tree) -> bool:
    """Whether a module is in the tree at another place than perl's, and says the name."""
    place, word = f"/{module.replace('::', '/')}.pm", name.encode()
    return any(f"/{path}".endswith(place) and word in file.content for path, file in tree.files.items())


def _is_said(name: str, file: File, tree: Tree) -> bool:
    """Whether any other file says the name."""
    word = name.encode()
    return any(word in other.content for other in tree.files.values() if other.path != file.path)


def _has(name: str, user: File, tree: Tree) -> bool:
    if name in functions_of(user) or name in _constants(user):
        return True
    if name not in calls_of(user):
        return False
    return _OF_PERL.get(name) in _used(user) or any(name in exports_of(module) for module in _loaded(user, tree))


def _used(file: File) -> set[str]:
    return {match[0] or match[1] for match in _USED.findall(file.text)}


def _loaded(file: File, tree: Tree) -> list[File]:
    paths = (f"lib/{module.replace('::', '/')}.pm" for module in sorted(_used(file)))
    return [tree.files[path] for path in paths if path in tree.files and path != file.path]


def _named(file: File, tree: Tree) -> list[File]:
    """Modules of the tree that a file says the names of."""
    paths = (f"lib/{module.replace('::', '/')}.pm" for module in sorted(set(re.findall(r"\w+(?:::\w+)*", file.text))))
    own = [path.removesuffix("/EXPORT.pm").removesuffix("/EXPORT_OK.pm") for path in paths]
    return [tree.files[place] for path in own if (place := f"{path.removesuffix('.pm')}.pm") in tree.files]


@lru_cache(maxsize=4096)
def _constants(file: File) -> frozenset[str]:
    return frozenset(_CONSTANT.findall(file.text))


def _undefined_exports(file: File, tree: Tree, before: Tree | None) -> dict[str, Problem]:
    """Names that a module exports, and neither says elsewhere nor gets from a module that it loads."""
    if (
        not file.path.endswith(".pm")
        or not exports_of(file)
        or re.search(r"\b(AUTOLOAD|XSLoader|bootstrap)\b", file.text)
    ):
        return {}
    missing = set(exports_of(file) - functions_of(file) - _constants(file))
    missing = missing.difference(*map(exports_of, _loaded(file, tree)))
    missing = {name for name in sorted(missing)[:_MANY] if not is_made(name, file)}
    if not missing or loads_by_name(file):
        return {}
    perl, found = PerlText(file.text), dict[str, Problem]()
    if perl.lost:
        return {}
    elsewhere = set(re.findall(r"\w+", perl.code))
    lists = [each for each in _exports(file)[0] if perl.code[each.start : each.end].strip()]
    if len(lists) > _FEW:
        return {}
    for literal in perl.literals:
        if not any(each.start <= literal.start < each.end for each in lists):
            elsewhere.update(re.findall(r"\w+", literal.value))
    old = before.files.get(file.path) if before is not None else None
    had = functions_of(old) if old is not None else frozenset[str]()
    for name in sorted(missing - elsewhere):
        sure = name in had or not (_is_said(name, file, tree) and _may_bring(name, file, tree, before))
        for each in lists if sure else []:
            if name in each.names:
                at = re.compile(rf"\b{name}\b").search(file.text, each.start)
                line = perl.line(at.start() if at else each.start)
                what = f"exports {name}, which it does not define"
                found[what] = Problem(file.path, line, what, "define it, or export what is meant")
    return found


def _other_package(file: File, tree: Tree) -> dict[str, Problem]:
    """A module of OSCAR's that exports, and whose package is that of a module beside it, another than the name by
    which it is loaded, or none at all."""
    if not (file.path.startswith("lib/OSCAR/") and file.path.endswith(".pm")):
        return {}
    module = file.path.removeprefix("lib/").removesuffix(".pm").replace("/", "::")
    packages = _PACKAGE.findall(file.text)
    exports = bool(exports_of(file))
    if not packages and exports:
        what = "exports functions and has no package"
    elif packages and not any(f"::{module}".endswith(f"::{package}") for package in packages):
        folder = packages[0].rpartition("::")[0]
        if "::" not in folder or not f"::{module.rpartition('::')[0]}".endswith(f"::{folder}"):
            return {}  # such as one that takes the place of another module
        what = f"its package is {packages[0]}"
    elif exports and len(packages) == 1 and packages[0] != module and not _is_loaded_as(packages[0], tree):
        what = f"its package is {packages[0]}, whose exports 'use {module}' does not take"
    else:
        return {}
    line = file.text.count("\n", 0, match.start()) + 1 if (match := _PACKAGE.search(file.text)) else 1
    return {what: Problem(file.path, line, what, f"its place is that of {module}")}


def _is_loaded_as(package: str, tree: Tree) -> bool:
    word = package.encode()
    return any(package in _used(file) for file in tree.files.values() if word in file.content and is_read(file))


def _homes(tree: Tree) -> dict[str, set[str]]:
    """Functions and constants of the tree's modules, each with the modules that define it."""
    found = defaultdict[str, set[str]](set)
    for path, file in tree.files.items():
        if path.startswith("lib/") and path.endswith(".pm") and not file.binary:
            for name in functions_of(file) | _constants(file):
                found[name].add(path)
    return found


def _not_loaded(file: File, tree: Tree, homes: dict[str, set[str]], before: Tree | None) -> dict[str, Problem]:
    """What a file calls by its bare name, and no module that it loads can hand to it."""
    found = dict[str, Problem]()
    if (not file.shebang and not file.path.endswith(".pm")) or loads_by_name(file):
        return found
    used, loaded = _used(file), _loaded(file, tree)
    known = functions_of(file) | _constants(file) | WORDS
    known = known.union(*map(exports_of, loaded), *(re.findall(r"\w+", asked) for asked in _ASKED.findall(file.text)))
    for name, line in calls_of(file).items():
        if "::" in name or name in known or (gap := _gap(name, file, tree, homes.get(name, set()), used)) is None:
            continue
        if len(found) < _MANY and not is_made(name, file) and not _may_bring(name, file, tree, before):
            found[gap[0]] = Problem(file.path, line, *gap)
    return found


def _gap(name: str, file: File, tree: Tree, homes: set[str], used: set[str]) -> tuple[str, str] | None:
    """What is wrong with a call of `name`, which no loaded module of the tree exports, and what would be right."""
    exporting = sorted(path for path in homes if name in exports_of(tree.files[path]))
    if any(_is_used(path, used) for path in exporting):
        return None
    if len(exporting) == 1 and len(name) >= _SHORTEST and exporting[0] != file.path:
        module = exporting[0].removeprefix("lib/").removesuffix(".pm").replace("/", "::")
        return f"calls {name}, which {exporting[0]} exports, and does not load that", f"use {module}"
    silent = sorted(path for path in homes if path.removeprefix("lib/").removesuffix(".pm").replace("/", "::") in used)
    if not exporting and silent:
        return f"calls {name}, which {silent[0]} defines and does not export", f"export {name} there"
    own = _OF_PERL.get(name)
    if (
        own
        and not homes
        and own not in used
        and not any(_MAY_HAVE_THEM.match(module) for module in used - EXPORTED.keys())
    ):
        return f"calls {name}, which {own} exports, and does not load that", f"use {own}"
    return None


def _is_used(path: str, used: set[str]) -> bool:
    """Whether a file loads the module at `path` by its whole name, or by the end of it."""
    parts = path.removesuffix(".pm").split("/")
    return any("::".join(parts[at:]) in used for at in range(len(parts)))
