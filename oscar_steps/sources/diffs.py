"""A developer's diff, read with suspicion: which files it changes, and the script that does so in a tree.

Unified diffs are taken as Subversion, git and diff make them. Each is written anew before it reaches `patch`: that
program also does what other kinds of diffs order (it starts an editor for some), and guesses at names.
"""

from __future__ import annotations

import base64
import posixpath
import re
import shlex
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

from oscar_steps.errors import Evidence, PatchRefused
from oscar_steps.sources.source import Patch
from oscar_steps.textio import one_line

PATCH_FILE = "patch.diff"
"""A developer's patch, in the directory of a run."""
MAX_FILES = 2000
MAX_PATH = 1000
REFUSED = 3
"""The script's exit status where the tree is not as the patch says; `patch` itself ends with 1."""
_HUNK = re.compile(r"@@ -(\d{1,9})(?:,(\d{1,9}))? \+(\d{1,9})(?:,(\d{1,9}))? @@")
_GIT_HEADER = re.compile(
    r"(?P<word>old mode|new mode|new file mode|deleted file mode|(?:rename|copy) (?:from|to)) (?P<value>.+)"
    r"|(?:similarity |dissimilarity |index ).*"
)
_STATE = re.compile(r"(?:revision \d+|working copy|nonexistent)\)")
"""What Subversion says behind the name of a file."""
_NO_FILE = re.compile(r"1[26]0000$")
_ADMINISTRATIVE = {".svn", ".git", ".hg", "CVS"}
_SAID = re.compile(r"^(?:checking|patching) file |^Hunk #(\d{1,6}) FAILED", re.MULTILINE)


@dataclass(frozen=True)
class Hunk:
    """Lines of one place of a file. `line`: where its '@@' stands in the diff."""

    line: int
    lines: tuple[str, ...]


@dataclass(frozen=True)
class FileChange:
    """What becomes of one file: `old` is its path before ('': it is new), `new` after ('': it is gone).

    `executable`: None leaves the bit as it is. `certain`: the diff says whether the file is there before.
    """

    line: int
    old: str
    new: str
    hunks: tuple[Hunk, ...] = ()
    executable: bool | None = None
    copied: bool = False
    certain: bool = True

    @property
    def path(self) -> str:
        return self.new or self.old


def changes_of(patch: Patch) -> tuple[FileChange, ...]:
    """The files that a patch changes. Raises PatchRefused, with the line of the diff, where it cannot be used."""
    text = patch.text
    if "\0" in text:
        raise _bad(0, "it has binary data", "give a text, as svn diff, git diff or diff -u print it")
    changes = _moved(tuple(_Reader(patch).read()))
    if not changes:
        raise _bad(0, "it changes no file", "give a unified diff, as svn diff, git diff or diff -u print it")
    if len(changes) > MAX_FILES:
        raise _bad(0, f"it changes {len(changes)} files", f"give a diff of at most {MAX_FILES} files")
    seen: dict[str, int] = {}
    for change in changes:
        for path in {change.old if not change.copied else "", change.new} - {""}:
            if path in seen:
                raise _bad(change.line, f"{_shown(path)} comes twice (first on line {seen[path]})", "give one diff")
            seen[path] = change.line
    # What `patch` reads of a file that is certain would go on into one that is not.
    return tuple(sorted(changes, key=lambda change: change.certain))


def _moved(changes: Sequence[FileChange]) -> tuple[FileChange, ...]:
    """Subversion says of a move that a file is new, from where, and in another place that the old one is gone."""
    gone = {change.old for change in changes if not change.new}
    origins = {change.old for change in changes if change.old != change.new and change.new}
    kept = (change for change in changes if change.new or change.old not in origins)
    return tuple(replace(change, copied=False) if change.old in gone else change for change in kept)


def _bad(line: int, what: str, right: str) -> PatchRefused:
    where = f"line {line}: " if line else ""
    return PatchRefused(f"the patch cannot be used: {where}{what}; {right}")


def _shown(text: str) -> str:
    return repr(one_line(text, 120))


class _Reader:
    def __init__(self, patch: Patch) -> None:
        lines = patch.text.split("\n")
        if lines[-1] == "":
            lines.pop()
        headers = [line for line in lines if line.startswith(("--- ", "+++ ", "@@ "))]
        if headers and all(line.endswith("\r") for line in headers):  # on its way every line end was changed
            lines = [line.removesuffix("\r") for line in lines]
        self.lines = lines
        self.at = 0
        self.strip = patch.strip
        self.encoding = patch.encoding

    def _line(self, ahead: int = 0) -> str:
        return self.lines[self.at + ahead] if self.at + ahead < len(self.lines) else ""

    def read(self) -> Iterator[FileChange]:
        index, found = "", None
        while self.at < len(self.lines):
            line = self._line()
            if line.startswith("Property changes on: "):
                found = self._properties(found, index)
            elif line.startswith("Index: "):
                if found:
                    yield found
                index, found = line.removeprefix("Index: ").rstrip("\r"), None
                self.at += 1
            elif line.startswith("diff --git "):
                if found:
                    yield found
                found, index = self._of_git(index), ""
            elif line.startswith("--- ") and self._line(1).startswith("+++ "):
                if found:
                    yield found
                found = self._of_names(index)
            else:
                self._refuse(line)
                self.at += 1
        if found:
            yield found

    def _refuse(self, line: str) -> None:
        number = self.at + 1
        if line.startswith("*** ") and self._line(1).startswith("--- "):
            raise _bad(number, "this is a context diff", "give a unified one (diff -u)")
        if line.startswith(("Binary files ", "GIT binary patch", "Cannot display: file marked as a binary type")):
            raise _bad(number, "it changes a binary file", "leave that file out: the farm takes patches of texts")
        if line.startswith("Only in "):
            raise _bad(number, f"it lacks a file ({_shown(line)})", "make it with diff -N")
        if _HUNK.match(line):
            raise _bad(number, "a hunk has no file", "the lines '--- FILE' and '+++ FILE' have to be before it")

    def _of_git(self, index: str) -> FileChange | None:
        """A file as git (or svn diff --git) describes it: names, moves and modes stand above its lines.

        None where nothing is said of it: only Subversion's properties follow.
        """
        number, names = self.at + 1, _two_names(self._line().removeprefix("diff --git "))
        said = self._git_headers()
        tops = _prefixes(*names)
        strip = max(self.strip - 1, 0) if tops[0] else self.strip
        old, new = (name.removeprefix(top) for name, top in zip(names, tops, strict=True))
        copied = "copy from" in said
        for word in ("rename", "copy"):
            old, new = _bare(said.get(f"{word} from", old)), _bare(said.get(f"{word} to", new))
        if index:  # Subversion's: the other names are those in the repository
            above = new.removesuffix(index) if new.endswith(index) else ""
            old, new, strip = old.removeprefix(above), index, self.strip
        mode, gone = said.get("new file mode", said.get("new mode")), "deleted file mode" in said
        born = "new file mode" in said
        hunks: tuple[Hunk, ...] = ()
        if self._line().startswith("--- ") and self._line(1).startswith("+++ "):
            born, gone = born or not _name(self._line()), gone or not _name(self._line(1))
            self.at += 2
            hunks = tuple(self._hunks())
        if not (hunks or said):
            return None
        executable = None if mode is None or gone else mode.endswith("755")
        change = FileChange(number, "" if born else old, "" if gone else new, hunks, executable, copied)
        return self._placed(change, strip)

    def _git_headers(self) -> dict[str, str]:
        said = dict[str, str]()
        self.at += 1
        while found := _GIT_HEADER.match(self._line().rstrip("\r")):
            if found["word"]:
                said[found["word"]] = found["value"]
                if found["word"].endswith("mode") and _NO_FILE.match(found["value"]):
                    what = "it makes a symbolic link or a submodule"
                    raise _bad(self.at + 1, what, "leave it out: the farm takes files")
            self.at += 1
        return said

    def _of_names(self, index: str) -> FileChange | None:
        """A file by the two lines '--- FILE' and '+++ FILE'; None where only its properties change."""
        number = self.at + 1
        first, second = self._line(), self._line(1)
        if "(.../" in first:
            right = "use svn diff --show-copies-as-adds"
            raise _bad(number, "it has only a part of a file that is a copy in your working copy", right)
        old, new = _name(first), _name(second)
        if index:
            old, new = (index if name else "" for name in (old, new))
        self.at += 2
        hunks = tuple(self._hunks())
        if not hunks and old and new:
            return None
        # Many programs say of a new file no more than that it had no line before.
        certain = not (old and hunks and hunks[0].lines[0].startswith("@@ -0,0 "))
        change = self._placed(FileChange(number, old, new, hunks, certain=certain), self.strip)
        if change.old and change.new:  # one of them may be the name of a copy: FILE.orig, OLD-TREE/FILE
            name = min(change.new, change.old, key=lambda path: (path.count("/"), len(path)))
            change = replace(change, old=name, new=name)
        return change

    def _placed(self, change: FileChange, strip: int) -> FileChange:
        old, new = (self._inside(path, change.line, strip) if path else "" for path in (change.old, change.new))
        if not old and not new:
            raise _bad(change.line, "it names no file", "the lines '--- FILE' and '+++ FILE' have to be there")
        return replace(change, old=old, new=new)

    def _inside(self, path: str, line: int, strip: int) -> str:
        """The path within the tree. Raises PatchRefused for one that leads out of it."""
        if path.startswith("/") or re.match(r"[A-Za-z]:[\\/]", path) or "\\" in path:
            raise _bad(line, f"{_shown(path)} is no path within the tree", "make the diff at the top of the tree")
        parts = [part for part in path.split("/") if part not in ("", ".")]
        if len(parts) <= strip:
            raise _bad(line, f"{_shown(path)} has no {strip} folders that could be taken off", "give another level")
        parts = parts[strip:]
        if ".." in parts or _ADMINISTRATIVE & {*parts}:
            raise _bad(line, f"{_shown(path)} is not in the tree itself", "make the diff at the top of the tree")
        inside = "/".join(parts)
        with suppress(UnicodeError):  # the names in a patch have not always the encoding of its lines
            inside = inside.encode(self.encoding).decode("utf-8")
        if not inside.isprintable() or len(inside) > MAX_PATH or parts[0].startswith("-"):
            raise _bad(line, f"{_shown(path)} is no name of a file that the farm takes", "leave it out")
        return inside

    def _hunks(self) -> Iterator[Hunk]:
        while found := _HUNK.match(self._line()):
            start = self.at
            left = [int(number) if number is not None else 1 for number in (found[2], found[4])]
            self.at += 1
            while any(left):
                self._count(self._line(), left, start)
                self.at += 1
            if self._line().startswith("\\"):
                self.at += 1
            # A blank at the end of a line is lost on many ways, also where it is all of the line.
            lines = (line if line.strip("\r") else f" {line}" for line in self.lines[start : self.at])
            yield Hunk(start + 1, tuple(lines))

    def _count(self, line: str, left: list[int], start: int) -> None:
        """One line of a hunk; `left`: so many of the old and of the new file are still to come."""
        kind = line[:1] or " "
        if kind == "\\":
            return
        if self.at >= len(self.lines) or kind not in " +-\r":
            ends = f"the hunk that begins on line {start + 1} is not complete"
            raise _bad(self.at + 1, ends, "was the diff cut, or were its lines wrapped?")
        for which in range(2):
            left[which] -= kind != "+-"[which]
        if min(left) < 0:
            raise _bad(self.at + 1, "the hunk has more lines than its '@@' says", "was the diff edited?")

    def _properties(self, found: FileChange | None, index: str) -> FileChange | None:
        """Subversion's properties: two of them say something of a file."""
        number, path = self.at + 1, self._line().removeprefix("Property changes on: ").rstrip("\r")
        self.at += 1
        executable = None
        while self.at < len(self.lines) and not self._line().startswith(_NEXT):
            word, _, name = self._line().rstrip("\r").partition(": ")
            if name == "svn:special" and word in ("Added", "Modified"):
                raise _bad(self.at + 1, "it makes a symbolic link", "leave it out: the farm takes files")
            if name == "svn:externals" and word in ("Added", "Modified", "Deleted"):
                raise _bad(self.at + 1, "it changes svn:externals", "commit that: a patch cannot do it")
            if name == "svn:executable" and word in ("Added", "Deleted"):
                executable = word == "Added"
            self.at += 1
        if executable is None:
            return found
        if found is None:
            found = self._placed(FileChange(number, index or path, index or path), self.strip)
        return replace(found, executable=executable if found.new else None)


_NEXT = ("Index: ", "diff --git ", "Property changes on: ")


def _two_names(words: str) -> tuple[str, str]:
    """The two names behind 'diff --git': each in quotes where git found it odd; blanks may be in both."""
    words = words.rstrip("\r")
    if words.startswith('"'):
        end = _closing_quote(words)
        return _bare(words[:end]), _bare(words[end:].strip())
    if words.endswith('"') and ' "' in words:
        first, _, second = words.partition(' "')
        return first, _bare(f'"{second}')
    half = len(words) // 2
    if len(words) % 2 and words[half] == " " and words[:half].partition("/")[2] == words[half + 1 :].partition("/")[2]:
        return words[:half], words[half + 1 :]
    first, _, second = words.partition(" ")
    return first, second


def _closing_quote(words: str) -> int:
    found = re.match(r'"(?:[^"\\]|\\.)*"', words)
    return found.end() if found else len(words)


def _prefixes(old: str, new: str) -> tuple[str, str]:
    """'a/' and 'b/' (or others, by git's settings) in front of the two names; none where both have the same."""
    first, second = old[:2], new[:2]
    if first != second and re.match("[a-z]/", first) and re.match("[a-z]/", second):
        return first, second
    return "", ""


def _name(line: str) -> str:
    """The file of a line '--- FILE' or '+++ FILE'; '' where it says that there is none."""
    text, _, more = line[4:].rstrip("\r").partition("\t")
    before, bracket, said = text.rpartition("(")
    if before != before.rstrip() and _STATE.fullmatch(said):  # tabs do not survive all mail
        text, more = before, bracket + said
    name = _bare(text.strip())
    return "" if name == "/dev/null" or "(nonexistent)" in more else name


def _bare(name: str) -> str:
    """A name without git's quotes, in which bytes stand as octal numbers."""
    if not (len(name) > 1 and name.startswith('"') and name.endswith('"')):
        return name
    special = {"n": "\n", "t": "\t", "r": "\r", "a": "\a", "b": "\b", "f": "\f", "v": "\v"}

    def plain(found: re.Match[str]) -> str:
        said = found[1]
        return chr(int(said, 8) & 255) if said.isdigit() else special.get(said, said)

    inner = re.sub(r"\\([0-7]{3}|.)", plain, name[1:-1])
    try:
        return inner.encode("latin-1").decode("utf-8")
    except UnicodeError:
        return inner


def plain_diff(changes: Sequence[FileChange]) -> str:
    """The same changes, as `patch -p1` reads them without any doubt."""
    return "".join(line + "\n" for change in changes for line in _plain(change))


def _plain(change: FileChange) -> Iterator[str]:
    old, new = change.old or change.new, change.new or change.old
    if change.certain:
        yield f"diff --git {_quoted('a/' + old)} {_quoted('b/' + new)}"
        if not change.old:
            yield "new file mode 100644"
        elif not change.new:
            yield "deleted file mode 100644"
        elif change.old != change.new:
            word = "copy" if change.copied else "rename"
            yield f"{word} from {_quoted(old)}"
            yield f"{word} to {_quoted(new)}"
    if change.hunks:
        yield f"--- {_quoted('a/' + change.old) if change.old else '/dev/null'}"
        yield f"+++ {_quoted('b/' + change.new) if change.new else '/dev/null'}"
        for hunk in change.hunks:
            yield from hunk.lines


def _quoted(name: str) -> str:
    """A name in git's quotes, which `patch` takes: blanks and other alphabets in it mean nothing else."""
    escaped = "".join(
        f"\\{byte:03o}" if byte in b'"\\' or not 32 <= byte < 127 else chr(byte) for byte in name.encode()
    )
    return f'"{escaped}"'


def script_of(patch: Patch, changes: Sequence[FileChange], top: str) -> bytes:
    """A shell script that applies the patch to the tree `top`, or changes nothing there.

    It ends with 0; with REFUSED and a line '@@patch WHY PATH' where a file is not what the patch takes it for; with 1
    where a hunk fails: `patch` has said which.
    """
    olds = [change.old for change in changes if change.old and change.certain]
    news = [change.new for change in changes if change.new and change.new != change.old]
    paths = {*olds, *(change.path for change in changes)}
    folders = {folder for path in paths for folder in _folders(path)}
    diff = base64.encodebytes(plain_diff(changes).encode(patch.encoding)).decode()
    bits = [(change.new, "+x" if change.executable else "-x") for change in changes if change.executable is not None]
    words = [
        "LC_ALL=C; export LC_ALL",
        f"cd {shlex.quote(top)} || exit 2",
        f'refuse() {{ echo "@@patch $1 $2"; exit {REFUSED}; }}',
        "command -v patch >/dev/null || { echo 'there is no program patch'; exit 2; }",
        *_each(sorted(folders | paths), '[ ! -L "./$path" ] || refuse link "$path"'),
        *_each(sorted(olds), '[ -f "./$path" ] || refuse missing "$path"'),
        *_each(sorted(news), '[ ! -e "./$path" ] || refuse there "$path"'),
        "diff=$(mktemp) || exit 2",
        "trap 'rm -f \"$diff\"' EXIT",
        "base64 -d >\"$diff\" <<'@@end' || exit 2",
        f"{diff}@@end",
        'if [ -s "$diff" ]; then',
        '    patch -p1 -f --binary --dry-run -i "$diff" 2>&1 || exit 1',
        '    patch -p1 -f --binary --no-backup-if-mismatch -r - -i "$diff" >/dev/null 2>&1 || exit 2',
        "fi",
        *(f"chmod {bit} {shlex.quote('./' + path)} || exit 2" for path, bit in bits),
    ]
    return ("\n".join(words) + "\n").encode("utf-8", "surrogateescape")


def _each(paths: Sequence[str], test: str) -> Iterator[str]:
    if paths:
        yield f"for path in {' '.join(map(shlex.quote, paths))}; do {test}; done"


def _folders(path: str) -> Iterator[str]:
    while path := posixpath.dirname(path):
        yield path


def rejection(patch: Patch, changes: Sequence[FileChange], status: int, said: str) -> PatchRefused:
    """Why a patch does not apply, with the hunk that does not, from what the script said."""
    who = f"the patch {patch.sha256[:8]} of {patch.who} does not apply"
    hint = "is it made against the revision that is tested?"
    if status == REFUSED and (found := re.search(r"^@@patch (link|missing|there) (.+)$", said, re.MULTILINE)):
        why = {"link": "is a symbolic link", "missing": "is not in the tree", "there": "is in the tree already"}[
            found[1]
        ]
        return PatchRefused(f"{who}: {_shown(found[2])} {why}", hint=hint)
    at = -1
    for found in _SAID.finditer(said):
        if found[1] is None:
            at += 1
        elif 0 <= at < len(changes) and 0 < int(found[1]) <= len(changes[at].hunks):
            hunk = changes[at].hunks[int(found[1]) - 1]
            where = f"the hunk on line {hunk.line} of the diff finds no such lines in {_shown(changes[at].path)}"
            return PatchRefused(f"{who}: {where}", hint=hint, evidence=(Evidence(PATCH_FILE, hunk.line, hunk.lines),))
    words = next((line for line in reversed(said.splitlines()) if line.strip()), "patch said nothing")
    return PatchRefused(f"{who}: {one_line(words)}", hint=hint)
