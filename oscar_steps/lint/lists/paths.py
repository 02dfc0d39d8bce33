"""Programs and folders of the tree that Makefiles and shell scripts name, and that are not there; `$"x"` for "$x"."""

from __future__ import annotations

import posixpath
import re
from bisect import bisect_right
from collections.abc import Iterator
from itertools import islice, product, zip_longest

from oscar_steps.lint.lists.names import line_starts
from oscar_steps.lint.lists.recipes import TOP, UNKNOWN, Makefile, read_makefile
from oscar_steps.lint.lists.shellwords import Command, commands_of
from oscar_steps.lint.problems import Findings
from oscar_steps.lint.texts import SHELLS
from oscar_steps.lint.tree import File, Tree

_PATH = re.compile(r"(?:[\w.+-]+/)+[\w.+-]+$")
_IN_TREE = re.compile(rf"{re.escape(TOP)}(?:/+[\w.+-]+)+$")
_INTERPRETERS = {"perl", "sh", "bash", "python", "python2", "python3", ".", "source"}
_HOME = re.compile(r"\$(?:OSCAR_HOME\b|\{OSCAR_HOME\})")
_CHOICE = re.compile(r"\{([\w.,+-]+)\}")
# What is there only later, or comes from elsewhere.
_LATER = re.compile(r"(?:tmp|packages|src|doc)(?:/|$)")
_MADE_BY_CONFIGURE = {"configure", "config.status", "config.guess", "config.sub", "libtool"}
_INCLUDE = re.compile(r"include[ \t]+(\S+)[ \t]*$")
_PREFIX = re.compile(r"[\t @+-]*")
_GOES_ON = re.compile(r"[\w/.,{-]$")
_TESTS = re.compile(r"(?:\[|\btest)\s")
_TESTED = re.compile(r"-[defrsx]\s+$")
_COPIES = re.compile(r"\b(?:cp|ln|mv)\s")
_MAKES = re.compile(r"\b(?:mkdir|tar|unzip|svn|git|cp|ln|mv|install)\b")
_MANY = 200
"""So many places of a name are looked at."""
_OUTSIDE = re.compile(r"^(?!\s*#).*?\s(\$\"([A-Za-z_]\w*)\")", re.MULTILINE)
_COMMENT = re.compile(r"^\s*#.*", re.MULTILINE)


def check_paths(tree: Tree) -> Findings:
    """What is started from, or gone into, at a place of the tree that everybody can see is wrong."""
    found = Findings()
    for file in tree.files.values():
        if makefile := read_makefile(file):
            _check_makefile(makefile, tree, found)
        elif file.interpreter in SHELLS and file.in_command_line and not file.binary:
            _check_script(file, tree, found)
    return found


def _check_makefile(makefile: Makefile, tree: Tree, found: Findings) -> None:
    _check_includes(makefile, tree, found)
    for recipe in (*makefile.recipes, *makefile.shell_calls()):
        prefix = _PREFIX.match(recipe.text)
        text, _ = makefile.expand(recipe.text[prefix.end() if prefix else 0 :])
        moved = prefix is not None and "-" in prefix[0]  # make goes on without it
        commands = sorted(commands_of(text), key=lambda command: command.at[0])
        for command, then in zip_longest(commands, commands[1:]):
            goes = command.words[0] == "cd" and len(command.words) > 1 and not moved
            if goes and then and then.words[0] in ("make", UNKNOWN) and "||" not in text[command.at[0] : then.at[0]]:
                line = recipe.line + text.count("\n", 0, command.at[0])
                _check_folder(command.words[-1], line, makefile, tree, found)
            moved = moved or command.words[0] in ("cd", "pushd")
            word = _program(command)
            path = _place(word, makefile.folder, moved=moved)
            if path and _is_missing(path, tree, makefile.file.text):
                line = recipe.line + text.count("\n", 0, command.at[0])
                _tell(makefile.file, line, word, path, found)


def _check_folder(word: str, line: int, makefile: Makefile, tree: Tree, found: Findings) -> None:
    """A folder in which make is started, and which nothing makes."""
    path = _place(word if "/" in word else f"./{word}", makefile.folder, moved=False)
    if not path or path in tree or tree.may_have(path):
        return
    name = rf"\b{re.escape(posixpath.basename(path))}\b"
    if not any(_MAKES.search(before) for before in _before(name, makefile.file.text)):
        what = f"goes into '{word.removeprefix(TOP + '/')}', which is not in the tree"
        found.add(makefile.file.path, line, what, f"{path} has to be there")


def _check_includes(makefile: Makefile, tree: Tree, found: Findings) -> None:
    """Without a file that it includes make does nothing."""
    for line in makefile.others:
        if (include := _INCLUDE.match(line.text)) is None:
            continue
        word, _ = makefile.expand(include[1])
        path = _place(word, makefile.folder, moved=False)
        if path and path not in tree and not tree.may_have(path):
            found.add(
                makefile.file.path, line.line, f"includes '{word}', which is not in the tree", f"{path} has to be there"
            )


def _tell(file: File, line: int, word: str, path: str, found: Findings) -> None:
    shown = word.removeprefix(f"{TOP}/")
    found.add(file.path, line, f"starts '{shown}', which is not in the tree", f"{path} has to be there")


def _program(command: Command) -> str:
    """What is started, or what an interpreter is started with."""
    if command.words[0] not in _INTERPRETERS:
        return command.words[0]
    return next((word for word in command.words[1:] if not word.startswith("-")), "")


def _place(word: str, folder: str, *, moved: bool) -> str:
    """The path in the tree; '' for what nobody knows."""
    if _IN_TREE.match(word):
        return posixpath.normpath(word.removeprefix(TOP).lstrip("/"))
    if moved or not _PATH.match(word):
        return ""
    path = posixpath.normpath(posixpath.join(folder, word))
    return "" if path.startswith("..") else path


def _is_missing(path: str, tree: Tree, text: str) -> bool:
    """Whether the tree certainly has not got it when it is wanted."""
    if path in tree or tree.may_have(path) or _LATER.match(path):
        return False
    name = posixpath.basename(path)
    if name in _MADE_BY_CONFIGURE:
        return False
    # What is looked for first, or named as the target of anything, is known to be missing at first.
    places = _before(rf"{re.escape(name)}(?![\w.,/-])", _COMMENT.sub("", text))
    return not any(_is_known(before) for before in places)


def _before(name: str, text: str) -> Iterator[str]:
    """What stands before each place of a name in its statement."""
    for match in islice(re.finditer(name, text), _MANY):
        yield text[max(text.rfind(end, 0, match.start()) for end in "\n;") + 1 : match.start()]


def _is_known(before: str) -> bool:
    """Whether what stands before a name begins with it, or tests it, writes it, or copies something there."""
    if not _GOES_ON.search(before):
        return True
    begin = max(map(before.rfind, " \t")) + 1
    words, word = before[:begin], before[begin:]
    if ">" in word or words.rstrip().endswith(">"):
        return True
    if _TESTED.search(words) and _TESTS.search(words):
        return True
    words = re.split(r"[&|]", words)[-1]
    copies = _COPIES.search(words)
    return copies is not None and copies.end() < len(words) and word.endswith("/")


def _check_script(file: File, tree: Tree, found: Findings) -> None:
    for match in _OUTSIDE.finditer(file.text):
        if re.search(rf"^\s*(?:export\s+)?{match[2]}=", file.text, re.MULTILINE):
            line = file.text.count("\n", 0, match.start()) + 1
            found.add(file.path, line, f"{match[1]} is the word '{match[2]}' itself", f'its value is "${match[2]}"')
    if "OSCAR_HOME" not in file.text:
        return
    text = _HOME.sub(TOP, file.text)
    starts = line_starts(text)
    for command in commands_of(text):
        line = bisect_right(starts, command.at[0])
        for word in _copied(command) if command.words[0] == "cp" else [_program(command)]:
            path = _place(word.strip('"'), "", moved=True)
            if path and _is_missing(path, tree, file.text):
                _tell(file, line, word.strip('"'), path, found)


def _copied(command: Command) -> Iterator[str]:
    """What `cp` takes, with the choices in braces written out."""
    sources = [word for word in command.words[1:-1] if not word.startswith("-")]
    for source in sources:
        parts = _CHOICE.split(source)
        choices = [part.split(",") if number % 2 else [part] for number, part in enumerate(parts)]
        if len(parts) <= 5 and sum(map(len, choices)) < 50:
            yield from ("".join(words) for words in product(*choices))
