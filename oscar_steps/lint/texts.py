"""What can be said of files without running anything: merge leftovers, first lines, XML, shell and Python syntax."""

from __future__ import annotations

import ast
import re
from xml.parsers import expat

from oscar_steps.lint.confine import Answer
from oscar_steps.lint.perl.chain import START, path_of_cells
from oscar_steps.lint.perl.starts import is_perl
from oscar_steps.lint.perl.text import PerlText
from oscar_steps.lint.problems import Findings, make_executable
from oscar_steps.lint.tree import File, Tree

_OURS = re.compile(r"^<<<<<<< \S.*$", re.MULTILINE)
_THEIRS = re.compile(r"^>>>>>>> \S.*$", re.MULTILINE)
_XML = re.compile(r"\.(xml|xsd|apt|apb|qrc|ui)$")
# Files that OSCAR reads by themselves. Another one may be a part of a document, such as of a book.
_WHOLE = re.compile(r"^(?:packages/[^/]+/config\.xml|share/package_sets/.*)$|\.(?:xsd|apt|apb|qrc|ui)$")
_OF_PARTS = {
    expat.errors.codes[words]
    for words in (expat.errors.XML_ERROR_UNDEFINED_ENTITY, expat.errors.XML_ERROR_JUNK_AFTER_DOC_ELEMENT)
}
_PACKAGE = re.compile(r"^packages/[^/]+/config\.xml$")
_DATE_AND_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)?$")
_MANY = 20
_SHELL_LINE = re.compile(r"^\./[^:]+: line (\d+): (.*)$")
_PACKAGE_LIST = re.compile(r"^oscarsamples/[^/]+\.(rpmlist|serverlist|pkglist)$")
_HANDS_OVER = re.compile(r"^[^\S\n]*(?:eval\s+['\"]\s*)?exec\s+(?:\S*/)?(?:env\s+)?perl\b[^\n]*\$0", re.MULTILINE)
# What Python learnt in 3.12 and later (3.12: type parameters, quotes within f-strings; 3.14: t-strings, bare `except`).
_NEWER_PYTHON = re.compile(
    r"^\s*type\s+\w+\b.*=|^\s*(?:(?:async\s+)?def|class)\s+\w+\[|\b[fFtT][rR]?[\"']|\b[rR][fFtT][\"']|"
    r"^\s*except\*?\s+[\w.]+\s*,"
)
SHELLS = ("sh", "bash", "dash")


def check_texts(tree: Tree) -> Findings:
    """Everything of this module but the shell scripts."""
    found, way = Findings(), path_of_cells(tree)
    _check_top(tree, found, on_the_way=START in way or not way)
    for file in tree.files.values():
        if file.binary:
            continue
        _check_conflict(file, found, on_the_way=file.path in way)
        if file.in_command_line:
            _check_first_line(file, found)
        if _XML.search(file.path):
            _check_xml(file, found)
        if _PACKAGE_LIST.match(file.path):
            _check_package_list(file, found)
        if is_for_two(file):
            found.leave(file.path, "a shell's first line, and perl behind it")
        if file.interpreter == "python3":
            _check_python(file, found)
    return found


def _check_top(tree: Tree, found: Findings, *, on_the_way: bool) -> None:
    """What the installer looks for first: without these two it does nothing. Where it is not used any more, it may."""
    installer = tree.files.get(START)
    if installer is None:
        if on_the_way and START not in tree:
            found.add(START, 0, "the installer is missing", "the top of the tree has to have it", gates=True)
        return
    if not installer.executable:
        found.add(START, 0, "the installer is not executable", make_executable(START), gates=on_the_way)
    if re.search(r"\bVERSION file\b", installer.text) and "VERSION" not in tree and not tree.may_have("VERSION"):
        found.add("VERSION", 0, "the file is missing", f"{START} ends without it", gates=on_the_way)


def has_conflict(file: File) -> bool:
    """Whether a merge was left undone in it. One of the markers alone may be part of a text."""
    return b"<<<<<<< " in file.content and bool(_OURS.search(file.text) and _THEIRS.search(file.text))


def is_for_two(file: File) -> bool:
    """Whether a shell script hands itself to perl: what follows is perl's, and not for a shell to judge."""
    return file.interpreter in SHELLS and bool(_HANDS_OVER.search(file.text[:4096]))


def _check_conflict(file: File, found: Findings, *, on_the_way: bool) -> None:
    if has_conflict(file) and (marker := _OURS.search(file.text)):
        line = file.text.count("\n", 0, marker.start()) + 1
        what = f"conflict marker '{marker[0][:60].strip()}'"
        # In a text that is only printed, or in documentation, the markers do no harm.
        gates = on_the_way and is_perl(file) and PerlText(file.text).code[marker.start()] == "<"
        found.add(file.path, line, what, "resolve the merge and remove the markers", gates=gates)


def _check_first_line(file: File, found: Findings) -> None:
    first = file.first_line
    if first.startswith("#!") and first.endswith("\r"):
        what = f"CRLF at the end of the interpreter's line '{first.strip()}'"
        found.add(
            file.path,
            1,
            what,
            "lines have to end with LF alone, else the kernel looks for a program with CR in its name",
        )
    elif first.startswith("\xef\xbb\xbf#!"):
        found.add(file.path, 1, "a byte order mark before '#!'", "'#!' has to be the file's first two bytes")
    elif file.executable and first.startswith("#!") and not file.shebang.startswith("/"):
        found.add(file.path, 1, f"the interpreter '{file.shebang}' is not an absolute path", "such as /usr/bin/perl")


def _check_xml(file: File, found: Findings) -> None:
    parser = expat.ParserCreate()
    if _PACKAGE.match(file.path):
        _check_changelog(parser, file, found)
    try:
        parser.Parse(file.content, True)
    except expat.ExpatError as error:
        if error.code in _OF_PARTS and b"<!DOCTYPE" not in file.content and not _WHOLE.search(file.path):
            return
        found.add(file.path, error.lineno, f"XML: {expat.ErrorString(error.code)}", "the file has to be well-formed")
    except (LookupError, ValueError) as error:  # Python's own words on an encoding that it does not know
        found.add(file.path, 1, f"XML: {error}", "the file has to name an encoding such as UTF-8")


def _check_changelog(parser: expat.XMLParserType, file: File, found: Findings) -> None:
    """What opkgc refuses in a description of a package: its schema has one changelog, and a date in each entry."""
    changelogs = bad = 0

    def begin(name: str, attributes: dict[str, str]) -> None:
        nonlocal changelogs, bad
        changelogs += name == "changelog"
        line, date = parser.CurrentLineNumber, attributes.get("date")
        if name == "changelog" and changelogs == 2:
            found.add(file.path, line, "XML: a second <changelog>", "all entries have to be in the first one")
        elif name == "changelogEntry" and date is not None and not _DATE_AND_TIME.match(date.strip()) and bad < _MANY:
            bad += 1
            what = f"XML: the entry's date '{date[:60]}' is not a date with a time"
            found.add(file.path, line, what, "such as 2014-02-25T11:00:00+01:00")

    parser.StartElementHandler = begin


def _check_package_list(file: File, found: Findings) -> None:
    """A list whose lines end with CRLF names packages that no repository has."""
    if b"\r\n" in file.content:
        line = file.content.split(b"\r\n", 1)[0].count(b"\n") + 1
        found.add(
            file.path,
            line,
            "CRLF in a list of packages",
            "lines have to end with LF alone: CR becomes part of the name",
        )


def _check_python(file: File, found: Findings) -> None:
    try:
        ast.parse(file.content, file.path)
    except SyntaxError as error:
        if _NEWER_PYTHON.search(error.text or ""):
            found.leave(file.path, f"python of this host: {error.msg}")
            return
        found.add(file.path, error.lineno or 0, f"python: {error.msg}", "'python3 -m py_compile' has to be silent")
    except (ValueError, RecursionError, MemoryError) as error:
        found.leave(file.path, f"python of this host: {error}")


def judge_shell(answer: Answer) -> Findings:
    """What `bash -n` says. /bin/sh is bash on many of OSCAR's distributions: what dash alone refuses is left alone."""
    found, path = Findings(), answer.task.path
    if answer.end != "done":
        found.leave(path, "its check was not finished")
    elif answer.status != 0:
        for words in answer.words:
            if said := _SHELL_LINE.match(words):
                found.add(path, int(said[1]), f"bash: {said[2]}", "'bash -n' has to be silent", gates=True)
                return found
        cause = next(
            (words for words in answer.words if "error" in words), next(iter(answer.words), "nothing was said")
        )
        found.leave(path, f"bash of this host: {cause}")
    return found
