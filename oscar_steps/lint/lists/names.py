"""Files that are named in lists: what a Makefile installs, tests, packages, and what the installer installs first."""

from __future__ import annotations

import posixpath
import re
from bisect import bisect_right
from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from xml.parsers import expat

from oscar_steps.lint.problems import Findings, Problem
from oscar_steps.lint.tree import File, Tree

_MANY = 100
"""A list of more names that are not in the tree is no list of its files, and takes its time."""
_MAKEFILE = re.compile(r"(^|/)(GNUmakefile|[Mm]akefile(\.am)?)$")
MAKEFILES = ("Makefile", "makefile", "GNUmakefile", "Makefile.am", "Makefile.PL")
_ORDER = re.compile(r"^share/prereqs/[\w.-]*\.order$")
_BATCH = re.compile(r"^testing/.*\.apb$")
_SETS, _LONG = 3, 6
"""More sets than that have a name, and it is longer, where a name of one letter less is a slip."""
_PACKAGE = re.compile(r"^packages/[^/]+/config\.xml$")
_PACKAGE_NAME = re.compile(r"<name>\s*([\w.+-]+)\s*</name>")
_PACKAGE_SET = re.compile(r"^share/package_sets/.*\.xml$")
_ASSIGNMENT = re.compile(r"^(?P<name>\w++)[ \t]*+[:+?]?=[ \t]*+(?P<value>(?>(?:[^\n\\]|\\\n|\\.)*))\\?$", re.MULTILINE)
_WORD = re.compile(r"[\w.+-]+(?:/[\w.+-]+)*/?$")
# What a build makes, by the variable that names it, by its own name, and by what it is made from.
_OF_BUILD = re.compile(
    r"(?:\w*CLEANFILES|BUILT_SOURCES|nodist_\w+|(?:\w+_)?(?:LDADD|LIBADD|PROGRAMS|LIBRARIES|LTLIBRARIES))$"
)
_MADE = re.compile(r"(?:.*/)?(?:moc_|ui_|qrc_)[^/]*$")
_MADE_FROM = re.compile(r"(.+)\.(?:y|yy|ypp|l|ll|lpp|ui)$")
_MAY_BE_MADE = re.compile(r"(.+)\.(?:h|hh|hpp|c|cc|cpp|cxx)$")
_LOOKS_FIRST = re.compile(r"(?:\btest|\[)\s+-[defrsx]\s|\$[({]wildcard\b")
_RECIPE = re.compile(r"^\t.*", re.MULTILINE)
_USED = re.compile(r"\$(?:\((\w+)\)|\{(\w+)\})")
_INSTALLS = re.compile(r"\t[@-]*install(?=\s)(?![^;&|]*\s-d\b)[^;&|]*$")
_OF_MAKER = re.compile(r"'([\w.-]+)'\s*=>\s*'\$\(INST_|\bEXE_FILES'?\s*=>\s*\[\s*qw\s*([(/\[{])([^)/\]}]*)")
_OF_PROJECT = {"HEADERS", "SOURCES", "FORMS", "RESOURCES"}
"""What qmake asks for."""
_GOES_IN = re.compile(r"\bcd\b[^\n]{0,200}\$[({]?MAKE\b|\$[({]MAKE[)}]\s+-C\b")
_WRITES_AM = re.compile(r"/Makefile\.am[\"']?$", re.MULTILINE)
LOGICAL_LINE = re.compile(r"^(?:[^\n\\]|\\\n|\\.)+", re.MULTILINE)
_PLAIN_WORDS = re.compile(r"[\w./+*-][\w./+* \t\n\\-]*$")
_DEFINES = re.compile(r"(?>(?:(?:override|export)\s+)*)define\b")
_DIRECTIVE = re.compile(
    r"\.[a-zA-Z]|(?:-?include|sinclude|if(?:n?eq|n?def)?|else|endif|endef|export|unexport|override|vpath|undefine|private|load)\b"
)


@dataclass(frozen=True)
class Named:
    """A path of the tree that a list names; `word` is how it is written there."""

    line: int
    word: str
    path: str


def check_lists(tree: Tree) -> Findings:
    """Names in lists whose neighbours are all right, and which are not in the tree themselves."""
    found = Findings()
    _check_sets(tree, found)
    for file in tree.files.values():
        # Which name a package has is written in it, and may be another one than its folder's.
        for names in _lists(file) if not _PACKAGE_SET.match(file.path) else ():
            gone = [name for name in names if name.path not in tree]
            if len(gone) > _MANY:
                continue
            lost = [name for name in gone if not tree.may_have(name.path)]
            if _BATCH.match(file.path):  # once they are installed, all tests are in one folder
                lost = [name for name in lost if posixpath.basename(name.path) not in tree.names]
            # A list of what is no file of the tree (programs, targets, packages) has hardly a name in common with it.
            if 2 * len(lost) < len(names):
                found.problems += [missing_in_list(file, name) for name in lost]
        if not file.binary and is_makefile(file.path):
            _check_folders(file, tree, found)
            _check_lines(file, found)
            _check_twice(file, found)
    return found


def _check_sets(tree: Tree, found: Findings) -> None:
    """A package that a set writes in another way than the tree does, or than all other sets do."""
    configs = {path.split("/")[1]: file for path, file in tree.files.items() if _PACKAGE.match(path)}
    known = {name for file in configs.values() for name in _PACKAGE_NAME.findall(file.text)} | configs.keys()
    meant = {_letters(name): name for name in configs}
    sets = {file: [*_of_xml(file)] for path, file in tree.files.items() if _PACKAGE_SET.match(path) and not file.binary}
    count = Counter(word for names in sets.values() for word in {name.word for name in names})
    for file, names in sets.items():
        for name in names:
            if name.word in known or name.path in tree:
                continue
            near = (other for other, sets_of in count.items() if sets_of > _SETS and _is_slip(name.word, other))
            if _letters(name.word) in meant or (count[name.word] == 1 and next(near, "")):
                found.problems.append(missing_in_list(file, name))


def _is_slip(word: str, meant: str) -> bool:
    """Whether a letter is missing, or too much, or another one."""
    if min(len(word), len(meant)) < _LONG or word == meant:
        return False
    start = len(posixpath.commonprefix([word, meant]))
    end = len(posixpath.commonprefix([word[start:][::-1], meant[start:][::-1]]))
    here, there = word[start : len(word) - end], meant[start : len(meant) - end]
    return len(here) <= 1 and len(there) <= 1 and (here + there).isalpha()


def _letters(name: str) -> str:
    return re.sub(r"[\W_]", "", name).lower()


def _check_folders(file: File, tree: Tree, found: Findings) -> None:
    """A folder of the tree that a Makefile goes into, without a Makefile of its own."""
    if not any(_GOES_IN.search(line[0]) for line in _RECIPE.finditer(file.text)):
        return
    if file.path.endswith(".am") and any(_WRITES_AM.search(other.text) for other in tree.builds):
        return  # what a folder lacks is made there before automake is run
    for names in _of_variables(file, {"SUBDIRS"}):
        for name in names:
            makefiles = [posixpath.join(name.path, each) for each in MAKEFILES]
            if name.path in tree.folders and not any(path in tree or tree.may_have(path) for path in makefiles):
                what = f"goes into '{name.word}', which has no Makefile"
                found.add(file.path, name.line, what, f"{makefiles[0]} has to be there")


def _check_lines(file: File, found: Findings) -> None:
    """The first line that make itself refuses: words that are no rule, no assignment and no directive."""
    ruled, depth = False, 0
    for match in LOGICAL_LINE.finditer(file.text):
        line, words = match[0], match[0].strip()
        if not line.startswith("\t") and _DEFINES.match(words):
            depth += 1
        elif depth:
            depth -= not line.startswith("\t") and re.match(r"endef\b", words) is not None
        elif (ruled and line.startswith("\t")) or not words or words.startswith("#"):
            continue
        elif _PLAIN_WORDS.match(words) and not _DIRECTIVE.match(words):
            number = file.text.count("\n", 0, match.start()) + 1
            what = f"make: '{words.split()[0][:60]}' begins neither a rule nor an assignment nor a directive"
            found.add(file.path, number, what, "the line before has to end with '\\' if its list goes on")
            return
        ruled = ruled or re.search(r":(?!=)", line) is not None


def _check_twice(file: File, found: Findings) -> None:
    """A name that `install` gets twice: it ends there, and what comes behind it is not installed."""
    lines = [line[0] for line in _RECIPE.finditer(file.text) if _INSTALLS.match(line[0])]
    used = {name[1] or name[2] for line in lines for name in _USED.finditer(line)}
    for names in _of_variables(file, used) if used else ():
        seen = set[str]()
        for name in names:
            if name.path in seen:
                what = f"names '{name.word}' twice: install will not overwrite what it has just installed"
                found.add(file.path, name.line, what, "once is enough")
            seen.add(name.path)


def missing_in_list(file: File, name: Named) -> Problem:
    what = f"names '{name.word}', which is not in the tree"
    return Problem(file.path, name.line, what, f"{name.path} has to be there")


def is_makefile(path: str) -> bool:
    return _MAKEFILE.search(path) is not None


def line_starts(text: str) -> list[int]:
    return [0, *(match.end() for match in re.finditer("\n", text))]


def names_in(file: File) -> Iterator[Named]:
    """All that the lists of a file name."""
    for names in _lists(file):
        yield from names


def _lists(file: File) -> Iterator[list[Named]]:
    if file.binary:
        return
    if _MAKEFILE.search(file.path) and not _LOOKS_FIRST.search(file.text):
        recipes = (line[0] for line in _RECIPE.finditer(file.text))
        used = {name[1] or name[2] for line in recipes for name in _USED.finditer(line)}
        yield from _of_variables(file, None if file.path.endswith(".am") else used)
    elif file.path.endswith(".pro"):
        # One list for all: that of the resources often has one name alone.
        yield [name for names in _of_variables(file, _OF_PROJECT) for name in names]
    elif posixpath.basename(file.path) == "Makefile.PL":
        yield _of_maker(file)
    elif file.path.endswith(".qrc"):
        yield _of_xml(file)
    elif _ORDER.match(file.path):
        lines = enumerate((line.strip() for line in file.lines), start=1)
        yield [Named(number, line, posixpath.normpath(line)) for number, line in lines if _WORD.match(line)]
    elif _BATCH.match(file.path) or _PACKAGE_SET.match(file.path):
        yield _of_xml(file)


def _of_variables(file: File, wanted: Collection[str] | None) -> Iterator[list[Named]]:
    """Variables that hold nothing but names, and are `wanted` (None: each is)."""
    folder, text = posixpath.dirname(file.path), file.text
    starts = line_starts(text)
    found, built, sources = list[tuple[str, list[tuple[str, int]]]](), set[str](), set[str]()
    for match in _ASSIGNMENT.finditer(text):
        value, begin = match["value"].partition("#")[0], match.start("value")
        words = [(word[0], begin + word.start()) for word in re.finditer(r"[^\s\\]+", value)]
        found.append((match["name"], words))
        built.update(word for word, _ in words if match["name"] == "BUILT_SOURCES")
        sources.update(source[1] for word, _ in words if (source := _MADE_FROM.match(word)))
    for variable, words in found:
        if (wanted is not None and variable not in wanted) or _OF_BUILD.match(variable):
            continue
        if not words or not all(_WORD.match(word) for word, _ in words):
            continue
        yield [
            Named(bisect_right(starts, at), word, posixpath.normpath(posixpath.join(folder, word)))
            for word, at in words
            # Packages are often fetched from elsewhere.
            if not word.endswith((".rpm", ".deb")) and word not in built and not _is_made(word, sources)
        ]


def _of_maker(file: File) -> list[Named]:
    """What a Makefile.PL installs, and what it makes manual pages of."""
    folder, starts, found = posixpath.dirname(file.path), line_starts(file.text), list[Named]()
    for match in _OF_MAKER.finditer(file.text):
        group = 1 if match[1] else 3
        for word in re.finditer(r"[\w./+-]+", match[group]):
            line = bisect_right(starts, match.start(group) + word.start())
            found.append(Named(line, word[0], posixpath.normpath(posixpath.join(folder, word[0]))))
    return found


def _is_made(word: str, sources: set[str]) -> bool:
    """Whether a build makes the file, by its name, or from one of these (named without their ends)."""
    made = _MAY_BE_MADE.match(word)
    return _MADE.match(word) is not None or (made is not None and made[1] in sources)


def _of_xml(file: File) -> list[Named]:
    """The tests of a batch and the files of a resource, which lie beside it, or the packages of a set."""
    names, folder, parser = list[Named](), posixpath.dirname(file.path), expat.ParserCreate()
    words = list[str]()

    def begin(name: str, attributes: dict[str, str]) -> None:
        words.clear()
        tests = attributes.get("name") if name == "test" else None
        for test in [tests] if tests else [attributes[key] for key in ("parent", "child") if key in attributes]:
            if test.endswith((".apt", ".apb")) and _WORD.match(test):
                names.append(Named(parser.CurrentLineNumber, test, posixpath.normpath(posixpath.join(folder, test))))

    def end(name: str) -> None:
        word = "".join(words).strip()
        if name == "opkg" and _WORD.match(word):
            names.append(Named(parser.CurrentLineNumber, word, f"packages/{word}"))
        elif name == "file" and file.path.endswith(".qrc") and _WORD.match(word):
            names.append(Named(parser.CurrentLineNumber, word, posixpath.normpath(posixpath.join(folder, word))))

    parser.StartElementHandler, parser.EndElementHandler, parser.CharacterDataHandler = begin, end, words.append
    try:
        parser.Parse(file.content, True)
    except (expat.ExpatError, LookupError, ValueError):
        return []
    return names
