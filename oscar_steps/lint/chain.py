"""The call chain of the command line: what `install_cluster` starts and loads, and whether it is there and executable.

Perl is not parsed here: only commands that stand in one literal, and are handed to `system` and its like, are believed.
A name that is put together at run time is left alone.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace

from oscar_steps.lint.problems import Findings
from oscar_steps.lint.tree import File, Tree

START = "install_cluster"
SANITY = "scripts/system-sanity"
# These are made executable by install_cluster itself, before any of them is started.
_MADE_EXECUTABLE = re.compile(r"^packages/[^/]+/scripts/[^/]+$")

_LITERAL = re.compile(r'"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])*\'|`(?:\\.|[^`\\\n])*`')
_HOME = r"(?:\$ENV\{\s*['\"]?OSCAR_HOME['\"]?\s*\}|\$\{?OSCAR_HOME\}?)"
_HOME_VARIABLE = re.compile(rf"\$(\w+)\s*=\s*(?:{_HOME}|(?:Cwd::)?(?:get)?cwd(?:\(\s*\))?)\s*(?:;|\|\|)")
_SUB = re.compile(r"^sub\s+(\w+)\s*\{(.*?)^\}", re.MULTILINE | re.DOTALL)
_RUNS = r"(?:\w*system|exec)"
_PATH = re.compile(r"^[\w.+-]+(?:/[\w.+-]+)+$")
_INTERPRETERS = {"sh", "bash", "perl", "python", "python3", "env", "exec", "sudo", "nohup"}
_CHDIR = re.compile(r"\bchdir\s*\(?\s*([^;)]*)")
_TEST = r"-[exfrs]\s*\(?\s*[\"']?"
_USE = re.compile(r"^\s*(?:use|require)\s+(OSCAR(?:::\w+)+)\b", re.MULTILINE)
_WRITTEN_AT_RUN_TIME = ("tmp/",)


@dataclass(frozen=True)
class _Start:
    """A program that a script starts: candidates for its path in the tree, the likeliest first."""

    line: int
    word: str
    candidates: tuple[str, ...]
    sure: bool
    """Whether the name is complete, and the script relies on it."""
    directly: bool
    """Started itself, not handed to an interpreter: it has to be executable."""


def check_chain(tree: Tree) -> Findings:
    """Follow the chain from `install_cluster` and look at each file that is started or loaded."""
    found, todo, seen = Findings(), [START], set[str]()
    while todo:
        path = todo.pop()
        file = tree.files.get(path)
        if path in seen or file is None or file.binary:
            continue
        seen.add(path)
        if path == SANITY:
            todo += _sanity_checks(tree, found)
        text = without_comments(file.text)
        for start in _starts(file, text):
            todo += _look_at(start, file, tree, found)
        if _is_perl(file):
            todo += _modules(file, text, tree, found)
    return found


def _look_at(start: _Start, file: File, tree: Tree, found: Findings) -> Iterator[str]:
    target = next((path for path in start.candidates if path in tree), None)
    if target is None:
        if start.sure and not start.candidates[0].startswith(_WRITTEN_AT_RUN_TIME):
            what = f"starts '{start.word}', which is not in the tree"
            found.add(file.path, start.line, what, f"{start.candidates[0]} has to be there")
    elif target in tree.files:
        script = tree.files[target]
        if start.directly and script.shebang and not script.executable and not _MADE_EXECUTABLE.match(target):
            what = f"not executable, but {file.path}:{start.line} starts it"
            found.add(target, 0, what, f"svn propset svn:executable on {target}")
        yield target


def _sanity_checks(tree: Tree, found: Findings) -> Iterator[str]:
    """system-sanity leaves out what is not executable, and the check is silently lost."""
    for path, file in tree.files.items():
        folder, name = posixpath.split(path)
        if folder == f"{SANITY}.d" and not name.startswith(".") and file.shebang:
            if not file.executable:
                found.add(
                    path, 0, f"not executable, so {SANITY} leaves it out", f"svn propset svn:executable on {path}"
                )
            yield path


def _modules(file: File, text: str, tree: Tree, found: Findings) -> Iterator[str]:
    """Modules of OSCAR's own. One that some script names as a file is made at run time (oda.pm is a link)."""
    for match in _USE.finditer(text):
        path = f"lib/{match[1].replace('::', '/')}.pm"
        if path in tree:
            yield path
            continue
        name = posixpath.basename(path)
        elsewhere = any(posixpath.basename(other) == name for other in (*tree.files, *tree.others))
        if "lib/OSCAR" not in tree.folders or elsewhere or _is_named(name, tree):
            continue
        right = f"{path} has to be there"
        if not any(problem.right == right for problem in found.problems):  # its first user is enough
            line = text.count("\n", 0, match.start(1)) + 1
            found.add(file.path, line, f"uses {match[1]}, which is not in the tree", right)


def is_in_cycle(path: str, tree: Tree) -> bool:
    """Whether a module of OSCAR's uses itself by way of others: what it imports depends then on who is loaded first."""
    seen, todo = set[str](), [path]
    while todo:
        file = tree.files.get(todo.pop())
        if file is None:
            continue
        for match in _USE.finditer(without_comments(file.text)):
            used = f"lib/{match[1].replace('::', '/')}.pm"
            if used == path:
                return True
            if used not in seen:
                seen.add(used)
                todo.append(used)
    return False


def _is_named(name: str, tree: Tree) -> bool:
    pattern = re.compile(rf"\b{re.escape(name)}\b".encode())
    return any(pattern.search(file.content) for file in tree.files.values() if not file.binary)


def _is_perl(file: File) -> bool:
    return file.interpreter == "perl" or file.path.endswith((".pm", ".pl"))


def without_comments(text: str) -> str:
    """Perl or shell without comment lines, POD and what follows __END__; line numbers stay."""
    kept, pod = [], False
    for line in text.splitlines():
        if line in ("__END__", "__DATA__"):
            break
        if re.match(r"=[a-z]", line):
            pod = not line.startswith("=cut")
            kept.append("")
        else:
            kept.append("" if pod or line.lstrip().startswith("#") else line)
    return "\n".join(kept)


def _starts(file: File, text: str) -> Iterator[_Start]:
    if not _is_perl(file):
        return
    homes = {match[1] for match in _HOME_VARIABLE.finditer(text)}
    home = re.compile(rf"^(?:{_HOME}|{'|'.join(rf'[$]{{?{name}}}?' for name in sorted(homes)) or '(?!)'})/+")
    runners = "|".join([_RUNS, *(re.escape(m[1]) for m in _SUB.finditer(text) if re.search(rf"\b{_RUNS}\b", m[2]))])
    runs = re.compile(rf"(?:^|[^\w$&>])(?:{runners})\s*\(?\s*$")
    variables = {m[1] for m in re.finditer(rf"\b(?:{runners})\s*\(?\s*\"?\$(\w+)\b(?!\s*[/\[{{])", text)}
    variables |= {match[1] for match in re.finditer(r"`\$(\w+)\b", text)}
    folders, known = _folders(file, text, home)
    for literal in _LITERAL.finditer(text):
        before = text[max(text.rfind(";", 0, literal.start()), literal.start() - 300, 0) : literal.start()]
        assigned = re.search(r"\$(\w+)\s*=\s*(?:join\s*\([^,]*,\s*)?$", before)
        started = literal[0][0] == "`" or runs.search(before) or (assigned and assigned[1] in variables)
        if not started:
            continue
        line = text.count("\n", 0, literal.start()) + 1
        appended = bool(re.match(r"\s*\.", text[literal.end() :]))
        for start in _programs(folders, home, literal[0][1:-1], line, appended=appended):
            sure = (known or home.match(start.word)) and not _is_tested(text, start, assigned[1] if assigned else "")
            yield start if sure else replace(start, sure=False)


def _folders(file: File, text: str, home: re.Pattern[str]) -> tuple[tuple[str, ...], bool]:
    """Folders that the script may be in when it starts something, and whether these are all."""
    folders, known = [posixpath.dirname(file.path), ""], True
    for match in _CHDIR.finditer(text):
        place = match[1].strip().strip("'\"").removesuffix("/") + "/"
        inside = home.sub("", place, count=1) if home.match(place) else None
        if inside is None and re.fullmatch(r"[\w.-][\w./-]*", place):
            inside = posixpath.join(posixpath.dirname(file.path), place)
        if inside is None or not re.fullmatch(r"[\w./-]*", inside):
            known = False
        else:
            folders.append(inside.rstrip("/"))
    return tuple(dict.fromkeys(folders)), known


def _is_tested(text: str, start: _Start, variable: str) -> bool:
    """Whether the script looks for the file, by name or by the variable that holds it."""
    name = re.escape(posixpath.basename(start.word))
    by_variable = rf"|{_TEST}\${variable}\b" if variable else ""
    return bool(re.search(rf"{_TEST}[^\"'\n]*\b{name}\b{by_variable}", text))


def _programs(
    folders: tuple[str, ...], home: re.Pattern[str], command: str, line: int, *, appended: bool
) -> Iterator[_Start]:
    parts = re.split(r"&&|\|\||[;|]", command)
    for number, part in enumerate(parts):
        words = part.split()
        if not words:
            continue
        if words[0] == "cd":
            inside = home.sub("", words[1], count=1) if len(words) > 1 and home.match(words[1]) else None
            if inside is None or not re.fullmatch(r"[\w./-]+", inside):
                return
            folders = (posixpath.normpath(inside),)
            continue
        directly = words[0] not in _INTERPRETERS
        word = words[0] if directly else next((word for word in words[1:] if not word.startswith("-")), "")
        path = home.sub("", word, count=1) if home.match(word) else None
        if not _PATH.match(path if path is not None else word):
            continue
        candidates = (
            (path,) if path is not None else tuple(posixpath.normpath(posixpath.join(f, word)) for f in folders)
        )
        whole = not (appended and number == len(parts) - 1 and command.endswith(word))
        yield _Start(line, word, tuple(posixpath.normpath(each) for each in candidates), whole, directly)
