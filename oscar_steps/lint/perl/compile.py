"""Perl's own words on a script, sorted into what will fail anywhere and what only this host cannot judge."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator
from dataclasses import replace

from oscar_steps.lint.confine import MIB_PER_PROCESS, SECONDS_PER_FILE, Answer
from oscar_steps.lint.perl.calls import undefined_calls
from oscar_steps.lint.perl.chain import is_in_cycle
from oscar_steps.lint.problems import Findings, Problem
from oscar_steps.lint.tree import File, Tree

MAX_PER_FILE = 5
_BLANK = "\0"
"""Stands for a blank in the name of a script, which perl says as it is."""
_PLACE = re.compile(
    r"^(?P<what>.*?) at (?P<file>\S+) line (?P<line>\d+)(?P<near>, near .*|, at EOF|, within .*|\.|, <.*|$)"
)

# What perl says of a text that no perl compiles (perldiag). Anything else may come from a module that is missing here.
_FATAL = re.compile(
    r"""^( syntax\ error | Global\ symbol\ | Bareword\ ".*"\ not\ allowed | Can't\ find\ string\ terminator
        | Missing\ right | Unmatched\ right | Too\ many\ arguments\ for | Not\ enough\ arguments\ for
        | Final\ [$@] | Unrecognized\ character | Substitution\ (pattern|replacement)\ not\ terminated
        | Search\ pattern\ not\ terminated | Transliteration\ .*not\ terminated | Can't\ modify\ | Type\ of\ arg\ \d
        | Missing\ braces | Unterminated\ | Can't\ redeclare | No\ such\ class | Missing\ name\ in
        | No\ comma\ allowed\ after\ filehandle | Missing\ \$\ on\ loop\ variable | Illegal\ declaration\ of
        | Unmatched\ [(\[)]\ in\ regex | Nested\ quantifiers | Quantifier\ follows\ nothing | Format\ not\ terminated
        | Can't\ (declare|use\ global)\ | Version\ control\ conflict\ marker )""",
    re.VERBOSE,
)
# What a name that comes from a missing module would change.
_OF_NAMES = tuple(f"perl: {word}" for word in ("Global symbol", "Bareword", "Can't modify", "Type of arg"))
# Exporter says first what, then, in a line of its own, where.
_NOT_EXPORTED = re.compile(r'^"?(.*?)"? is not exported by the ([\w:]+) module')
_NOT_TRUE = re.compile(r"^(\S+\.p[lm]) did not return a true value at ")
_ENDLESS_USE = re.compile(
    r"^[ \t]*use\s+([\w:]+)[ \t]*(?:#.*)?\n(?:[ \t]*(?:#.*)?\n)*[ \t]*(?:my|our|local)\b", re.MULTILINE
)
_IMPORT_FAILED = re.compile(r"^Can't continue after import errors at (\S+) line (\d+)")
# Old code that the perl of its own time takes and today's refuses: the head node's perl decides, not this host's.
_TOO_NEW = re.compile(
    r"^Can't use 'defined\([@%]|^Unescaped left brace|^\$[*#] is no longer|\$\[ is no longer|^Experimental |"
    r"^Can't use an array as a reference|^Use of .* is forbidden"
)
# Modules that add words to the language: without them their users cannot be parsed.
_EXTENDS_SYNTAX = re.compile(
    r"^[^\S\n]*use\s+(Error|Inline|Filter|TryCatch|Try|Moose|Moo|Mouse|Test::Exception)\b", re.MULTILINE
)
_USES_SWITCH = re.compile(r"^[^\S\n]*use\s+Switch\b", re.MULTILINE)
_SWITCH = re.compile(r"\b(?:switch|case|given|when)\b")


def judge_perl(answer: Answer, tree: Tree) -> Findings:
    """What is wrong with one script, and in which file: an error may be in a module that it uses.

    What no perl compiles gates, wherever it is.
    """
    found, path = Findings(), answer.task.path
    if bounds := _out_of_bounds(answer):
        found.problems.append(bounds)
    elif answer.end in ("gone", "late"):
        found.leave(path, "its check was not finished")
    elif answer.status != 0:
        found.problems = [replace(problem, gates=_is_certain(problem, answer)) for problem in _errors(answer, tree)]
        if not found.problems:
            found.leave(path, _why(answer, tree))
    elif not any(line.endswith("syntax OK") for line in answer.words):
        found.leave(path, "it ends while it is being compiled")
    else:
        found.problems = list(undefined_calls(answer, tree.files[path], tree))
    found.problems += (replace(problem, gates=_is_certain(problem, answer)) for problem in _errors_behind(answer, tree))
    return found


def _errors_behind(answer: Answer, tree: Tree) -> Iterator[Problem]:
    """What perl says of the modules of the tree that the file loads and that do not compile."""
    said: dict[str, list[str]] = {}
    for note in answer.notes:
        if note.startswith("refused ") and ": " in note:
            module, _, words = note.removeprefix("refused ").partition(": ")
            said.setdefault(module, []).append(words)
    for lines in said.values():
        yield from _errors(replace(answer, words=tuple(lines)), tree)


def _is_certain(problem: Problem, answer: Answer) -> bool:
    """Whether the true modules in the place of those that are missing here, or died here, could change nothing."""
    granted = any(note.startswith(("unknown ", "died ", "refused ", "handed ")) for note in answer.notes)
    return not (granted and problem.what.startswith(_OF_NAMES))


def _why(answer: Answer, tree: Tree) -> str:
    """The true cause: what today's perl refuses, else what was said first."""
    if _depends_on_order(answer, tree):
        return "it and a module that it uses load each other: the result depends on which is loaded first"
    said = next((line for line in answer.words if _too_new(line)), next(iter(answer.words), "it says nothing"))
    return f"perl of this host: {said}"


def _out_of_bounds(answer: Answer) -> Problem | None:
    """A script that does not behave while it is compiled: 'use' and BEGIN blocks are executed then."""
    path, right = answer.task.path, "BEGIN blocks and 'use' have to end by themselves, within seconds"
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
    name = posixpath.basename(answer.task.path)
    lines = [words.replace(name, name.replace(" ", _BLANK)) for words in answer.words]
    seen = {(said["file"], said["line"]) for words in lines if (said := _PLACE.match(words)) and _too_new(words)}
    count, not_exported = 0, None
    for words in lines:
        not_exported = not_exported or _NOT_EXPORTED.match(words)
        if not_exported and (failed := _IMPORT_FAILED.match(words)):
            yield from _import_failed(not_exported, in_tree(failed[1], answer.task.path, tree), int(failed[2]), tree)
            return
        if (untrue := _NOT_TRUE.match(words)) and not _called_empty_module(answer):
            yield from _not_true(untrue[1], answer)
        said = _PLACE.match(words)
        if not said or not _FATAL.match(said["what"]) or (said["file"], said["line"]) in seen:
            continue
        seen.add((said["file"], said["line"]))  # one mistake may be said in several ways
        file = in_tree(said["file"], answer.task.path, tree)
        if file is None or _has_other_words(tree.files[file], int(said["line"])):
            return
        near = said["near"] if said["near"].startswith((", near", ", at EOF")) else ""
        what = f"perl: {said['what']}{near}".replace(_BLANK, " ")
        yield Problem(file, int(said["line"]), what, _right(said["what"]))
        count += 1
        # After a syntax error perl has lost its way.
        if count == MAX_PER_FILE or not said["what"].startswith(("Global symbol", "Bareword")):
            return


def _has_other_words(file: File, line: int) -> bool:
    """Whether a module that is missing here may have made what perl does not know. Switch's words are known here."""
    if _USES_SWITCH.search(file.text):
        return any(_SWITCH.search(words) for words in file.lines[max(line - 2, 0) : line + 1])
    return bool(_EXTENDS_SYNTAX.search(file.text))


def _not_true(module: str, answer: Answer) -> Iterator[Problem]:
    needed = (note.partition(" ")[2] for note in answer.notes if note.startswith("needs "))
    if path := next((path for path in needed if f"/{path}".endswith(f"/{module}")), ""):
        yield Problem(path, 0, "perl: it does not end with a true value", "its last statement has to be '1;'")


def _import_failed(said: re.Match[str], file: str | None, line: int, tree: Tree) -> Iterator[Problem]:
    """Of Perl's own modules each version exports something else: only what is wrong in the script is said."""
    name, module = said[1], said[2]
    if file is None:
        return
    text = "".join(f"{words}\n" for words in tree.files[file].lines[:line])
    if endless := next((use for use in _ENDLESS_USE.finditer(text) if use[1] == module), None):
        at = text.count("\n", 0, endless.start(1)) + 1
        yield Problem(file, at, f"perl: 'use {module}' takes the next statement for its list", "its ';' is missing")
    elif any(f"/{path}".endswith(f"/{module.replace('::', '/')}.pm") for path in tree.files):
        what = f'"{name}" is not exported by the {module} module'
        yield Problem(file, line, what, "use a name that is in @EXPORT or @EXPORT_OK")


def _too_new(words: str) -> bool:
    return bool(_TOO_NEW.search(words))


def _depends_on_order(answer: Answer, tree: Tree) -> bool:
    """Modules that use each other compile or not depending on the program that loads them; that one is judged."""
    path = answer.task.path
    doubtful = ("predeclare", "Global symbol", "Bareword", "is not exported by")
    return (
        path.endswith(".pm") and any(w in line for line in answer.words for w in doubtful) and is_in_cycle(path, tree)
    )


def _right(what: str) -> str:
    if what.startswith("Global symbol"):
        return "declare it with 'my' or 'our'"
    return "'perl -c' has to say 'syntax OK'"


def in_tree(said: str, script: str, tree: Tree) -> str | None:
    """The file of the tree that perl, which was started in the script's own folder, means by `said`."""
    said = said.replace(_BLANK, " ")
    if said.startswith("/tree/"):
        path = posixpath.normpath(said.removeprefix("/tree/"))
    elif said.startswith("/"):
        return None
    else:
        path = posixpath.normpath(posixpath.join(posixpath.dirname(script), said))
    return path if path in tree.files else None
