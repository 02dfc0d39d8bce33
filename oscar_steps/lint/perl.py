"""Perl's own words on a script, sorted into what will fail anywhere and what only this host cannot judge."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator

from oscar_steps.lint.chain import is_in_cycle
from oscar_steps.lint.confine import MIB_PER_PROCESS, SECONDS_PER_FILE, Answer
from oscar_steps.lint.problems import Findings, Problem
from oscar_steps.lint.tree import Tree

MAX_PER_FILE = 5
_PLACE = re.compile(r"^(?P<what>.*?) at (?P<file>\S+) line (?P<line>\d+)(?P<near>, near .*|, at EOF|\.|, <.*|$)")

# What perl says of a text that no perl compiles (perldiag). Anything else may come from a module that is missing here.
_FATAL = re.compile(
    r"""^( syntax\ error | Global\ symbol\ | Bareword\ ".*"\ not\ allowed | Can't\ find\ string\ terminator
        | Missing\ right | Unmatched\ right | Too\ many\ arguments\ for | Not\ enough\ arguments\ for
        | Final\ [$@] | Unrecognized\ character | Substitution\ (pattern|replacement)\ not\ terminated
        | Search\ pattern\ not\ terminated | Transliteration\ .*not\ terminated | Can't\ modify\ | Type\ of\ arg\ \d
        | Missing\ braces | Unterminated\ | Can't\ redeclare | No\ such\ class | Missing\ name\ in
        | Version\ control\ conflict\ marker )""",
    re.VERBOSE,
)
# Exporter says first what, then, in a line of its own, where.
_NOT_EXPORTED = re.compile(r'^"?([$@%&]?\w+)"? is not exported by the (OSCAR::[\w:]+) module')
_IMPORT_FAILED = re.compile(r"^Can't continue after import errors at (\S+) line (\d+)")
# Old code that the perl of its own time takes and today's refuses: the head node's perl decides, not this host's.
_TOO_NEW = re.compile(
    r"^Can't use 'defined\([@%]|^Unescaped left brace|^\$[*#] is no longer|\$\[ is no longer|^Experimental |"
    r"^Can't use an array as a reference|^Use of .* is forbidden"
)
_BARE_QW_LOOP = re.compile(r"\bfor(each)?\s+(my\s+)?\$\w+\s+qw\b")
# Modules that add words to the language: without them their users cannot be parsed.
_EXTENDS_SYNTAX = re.compile(
    r"^\s*use\s+(Qt|Error|Switch|Inline|Filter|TryCatch|Try|Moose|Moo|Mouse|Test::Exception)\b", re.MULTILINE
)
_LACKED = (
    re.compile(r'^Bareword "(\w+)" not allowed'),
    re.compile(r'Global symbol "([$@%]\w+)" requires'),
    re.compile(r'Do you need to predeclare "?(\w+)"?\?'),
)


def lacked_names(answer: Answer) -> set[str]:
    """What the script may have expected from an empty module of which nobody knows what the true one exports."""
    if answer.status == 0 or not any(note.startswith("unknown ") for note in answer.notes):
        return set()
    found = (match[1] for line in answer.words for pattern in _LACKED if (match := pattern.search(line)))
    return set(found) - set(answer.task.names)


def judge_perl(answer: Answer, tree: Tree) -> Findings:
    """What is wrong with one script, and in which file: an error may be in a module that it uses."""
    found, path = Findings(), answer.task.path
    if bounds := _out_of_bounds(answer):
        found.problems.append(bounds)
    elif answer.end in ("gone", "late"):
        found.leave(path, "its check was not finished")
    elif answer.status != 0:
        found.problems = list(_errors(answer, tree))
        if not found.problems:
            said = next((line for line in answer.words if " at " in line), "perl says nothing")
            found.leave(path, f"perl of this host: {said}")
    elif not any(line.endswith("syntax OK") for line in answer.words):
        found.leave(path, "it ends while it is being compiled")
    return found


def _out_of_bounds(answer: Answer) -> Problem | None:
    """A script that does not behave while it is compiled: 'use' and BEGIN blocks are executed then."""
    path, right = answer.task.path, "what BEGIN and 'use' execute has to end by itself, soon"
    if answer.end == "time" and not _called_empty_module(answer):
        return Problem(path, 0, f"its compilation did not end within {SECONDS_PER_FILE} s", right)
    if answer.end == "left" or any("Resource temporarily unavailable" in line for line in answer.words):
        return Problem(path, 0, "its compilation starts processes that stay", right)
    if answer.status and any(line.startswith("Out of memory") for line in answer.words):
        return Problem(path, 0, f"its compilation needs more than {MIB_PER_PROCESS} MiB", right)
    return None


def _called_empty_module(answer: Answer) -> bool:
    return any(note.startswith("called ") for note in answer.notes)


def _errors(answer: Answer, tree: Tree) -> Iterator[Problem]:
    if _depends_on_order(answer, tree):
        return
    count, not_exported = 0, ""
    for words in answer.words:
        if _NOT_EXPORTED.match(words):
            not_exported = words.partition(" at ")[0]
        elif not_exported and (failed := _IMPORT_FAILED.match(words)):
            file = in_tree(failed[1], answer.task.path, tree)
            if file is not None:
                yield Problem(file, int(failed[2]), not_exported, "use a name that is in @EXPORT or @EXPORT_OK")
            return
        said = _PLACE.match(words)
        if not said or not _FATAL.match(said["what"]):
            continue
        file = in_tree(said["file"], answer.task.path, tree)
        line = int(said["line"])
        if file is None or _not_ours_to_judge(answer, tree, file, line, said["what"]):
            return
        near = said["near"] if said["near"].startswith((", near", ", at EOF")) else ""
        yield Problem(file, line, f"perl: {said['what']}{near}", _right(said["what"]))
        count += 1
        # After a syntax error perl has lost its way.
        if count == MAX_PER_FILE or not said["what"].startswith(("Global symbol", "Bareword")):
            return


def _depends_on_order(answer: Answer, tree: Tree) -> bool:
    """Modules that use each other compile or not depending on the program that loads them; that one is judged."""
    path = answer.task.path
    doubtful = ("predeclare", "Global symbol", "Bareword", "is not exported by")
    return (
        path.endswith(".pm") and any(w in line for line in answer.words for w in doubtful) and is_in_cycle(path, tree)
    )


def _not_ours_to_judge(answer: Answer, tree: Tree, file: str, line: int, what: str) -> bool:
    if any(_TOO_NEW.search(words) for words in answer.words):
        return True
    text = tree.files[file].text
    if _EXTENDS_SYNTAX.search(text):
        return True
    lines = text.splitlines()[max(line - 2, 0) : line + 1]
    return what.startswith("syntax error") and any(_BARE_QW_LOOP.search(words) for words in lines)


def _right(what: str) -> str:
    if what.startswith("Global symbol"):
        return "declare it with 'my' or 'our'"
    return "'perl -c' has to say 'syntax OK'"


def in_tree(said: str, script: str, tree: Tree) -> str | None:
    """The file of the tree that perl, which was started in the script's own folder, means by `said`."""
    if said.startswith("/tree/"):
        path = posixpath.normpath(said.removeprefix("/tree/"))
    elif said.startswith("/"):
        return None
    else:
        path = posixpath.normpath(posixpath.join(posixpath.dirname(script), said))
    return path if path in tree.files else None
