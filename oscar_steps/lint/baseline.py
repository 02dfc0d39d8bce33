"""What a commit has made wrong: the problems of its tree that the tree before it had not.

A problem is the same where it says the same of the same line. Lines move within a file, and files are renamed; words
of Subversion's keywords (`$Revision$`) change with every commit, and are not looked at.
"""

from __future__ import annotations

import posixpath
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from difflib import SequenceMatcher

from oscar_steps.lint.perl.exports import exports_of
from oscar_steps.lint.perl.starts import loads_of
from oscar_steps.lint.problems import Problem, Report
from oscar_steps.lint.tree import Tree

_KEYWORD = re.compile(
    r"\$(Id|Header|Revision|Rev|LastChangedRevision|Date|LastChangedDate|Author|LastChangedBy|URL|HeadURL)\b(:[^$\n]*)?\$"
)
_NUMBER = re.compile(r"(?<=:)\d+\b|(?<=\bline )\d+\b|\b\d+(?= other files)")
"""Of a line, or of the files that were looked through."""
_OTHERS = re.compile(r" \(so do(es another file| \d+ other files)\)$")
_NEAR = re.compile(r", (near \".*|at EOF.*)$", re.DOTALL)
_COMPILER = re.compile(r"(perl|bash|python|XML): |calls \S+, which nothing ")
"""What can be said only where everything before it, and everything that is loaded, can be read."""
_NAMELESS = re.compile(r"(perl: (?!Global symbol|Bareword|Too many|Not enough)|bash: |python: |XML: )")
_NOT_EXPORTED = re.compile(r'"\W?(?P<name>\w+)" is not exported by the (?P<module>[\w:]+) module$')
"""What perl says of the first `use` of a file that cannot be done: the others are behind it."""
_IS_MISSING = "has to be there"
_MAX_LINES = 20_000
_ALIKE = 0.5
"""A file that has gone and one of its name elsewhere are one file with so many lines in common."""


@dataclass(frozen=True)
class Standing:
    """A problem that the tree before had as well; `was` is its message there."""

    problem: Problem
    was: Problem


@dataclass(frozen=True)
class Comparison:
    """What a change brought, what it mended (as the tree before had it) and what it left as it was."""

    new: tuple[Problem, ...] = ()
    mended: tuple[Problem, ...] = ()
    standing: tuple[Standing, ...] = ()
    dropped: tuple[str, ...] = ()
    """What files use no more, and files that are gone (`removed.dropped_uses`)."""


def essence(problem: Problem) -> str:
    """What a problem says, without what a moved line, a neighbour of it or a keyword changes."""
    return _NUMBER.sub("N", _OTHERS.sub("", _NEAR.sub("", _without_keywords(problem.what))))


def keys_of(problems: Iterable[Problem]) -> dict[Problem, str]:
    """A name for each problem of a tree; the same tree gives the same names."""
    count = Counter[str]()
    named = dict[Problem, str]()
    for problem in problems:
        words = f"{problem.file}: {essence(problem)}"
        count[words] += 1
        named[problem] = f"{words} ({count[words]})" if count[words] > 1 else words
    return named


def compare(before: Tree, was: Report, after: Tree, now: Report, copied: Mapping[str, str] | None = None) -> Comparison:
    """Sort the problems of `now` by whether `was` had them. `copied`: new path -> the old one it was copied from."""
    return _Matching(before, was, after, copied or {}).sort(now)


def _without_keywords(text: str) -> str:
    return _KEYWORD.sub(r"$\1$", text)


@dataclass
class _Matching:
    before: Tree
    was: Report
    after: Tree
    copied: Mapping[str, str]
    _origins: dict[str, str | None] = field(default_factory=dict)
    _maps: dict[str, dict[int, int]] = field(default_factory=dict)
    _used: set[Problem] = field(default_factory=set)

    def sort(self, now: Report) -> Comparison:
        by_file = defaultdict[str, list[Problem]](list)
        for problem in self.was.problems:
            by_file[problem.file].append(problem)
        open_, pairs = list(now.problems), list[Standing]()
        for same in (self._same_line, self._same_words):
            open_ = self._pair(open_, lambda problem: by_file[self.origin(problem.file) or ""], same, pairs)
        open_ = self._pair(open_, lambda _problem: self.was.problems, self._same_elsewhere, pairs)
        hidden = [each for each in open_ if self._was_hidden(each, by_file) or self._import_was_hidden(each, by_file)]
        pairs += [Standing(problem, problem) for problem in hidden]
        # One that did not lie on the installation's way and does now is brought to it by this change.
        brought = [pair.problem for pair in pairs if pair.problem.gates and not pair.was.gates]
        new = sorted([problem for problem in open_ if problem not in hidden] + brought)
        gone = [problem for problem in self.was.problems if problem not in self._used]
        alone = {self.origin(each.file) for each in now.left_alone}
        mended = [
            each for each in gone if not self._is_hidden(each, new, alone) and not self._import_is_hidden(each, now)
        ]
        standing = sorted((pair for pair in pairs if pair.problem not in brought), key=lambda pair: pair.problem)
        return Comparison(tuple(new), tuple(mended), tuple(standing))

    def _pair(
        self,
        problems: list[Problem],
        candidates: Callable[[Problem], list[Problem] | tuple[Problem, ...]],
        same: Callable[[Problem, Problem], bool],
        pairs: list[Standing],
    ) -> list[Problem]:
        """Pair what can be paired by this rule; the others are given back. A file's copy has its problems as well."""
        left = []
        for problem in problems:
            copy = self._is_copy(problem.file)
            free = (old for old in candidates(problem) if (copy or old not in self._used) and same(old, problem))
            if (old := next(free, None)) is not None:
                self._used.add(old)
                pairs.append(Standing(problem, old))
            else:
                left.append(problem)
        return left

    def _same_line(self, old: Problem, new: Problem) -> bool:
        if essence(old) != self._essence(new):
            return False
        return old.line == new.line == 0 or self._lines(new.file).get(new.line) == old.line

    def _same_words(self, old: Problem, new: Problem) -> bool:
        """The line itself was edited, or stands elsewhere in the file, and the same is wrong with it."""
        if essence(old) != self._essence(new):
            return False
        # Of an error without a name in it, such as 'syntax error', only a line that was edited is the same one.
        lines = self._lines(new.file)
        return not _NAMELESS.match(new.what) or (new.line not in lines and old.line not in lines.values())

    def _same_elsewhere(self, old: Problem, new: Problem) -> bool:
        """What moved to another file; and what is missing there as here, and reported for one of its users only."""
        if essence(old) != essence(new) or (old.file in self.after and old.file == new.file):
            return False
        if _IS_MISSING in new.right and old.right == new.right:
            return True
        line = _line(self.after, new)
        return len(line) > 3 and line == _line(self.before, old)

    def _was_hidden(self, problem: Problem, by_file: Mapping[str, list[Problem]]) -> bool:
        """A compiler says the first errors of a file and of what it loads only: an older one comes to light behind one
        that was mended."""
        origin = self.origin(problem.file)
        if origin is None or not _COMPILER.match(problem.what) or problem.line not in self._lines(problem.file):
            return False
        if any(alone.file == origin for alone in self.was.left_alone):
            return True
        if any(_COMPILER.match(old.what) for old in by_file.get(origin, ())):
            return True
        # What still stands in a module that is loaded hides now what it has hidden before.
        behind = [old for path in _loaded_by(origin, self.before) for old in by_file.get(path, ())]
        return any(_COMPILER.match(old.what) and old not in self._used for old in behind)

    def _is_hidden(self, gone: Problem, new: list[Problem], alone: set[str | None]) -> bool:
        """The reverse: what a compiler said of a line that has not changed, and does not say behind a new error.

        In a file that cannot be judged any more nothing is mended.
        """
        if gone.file in alone:
            return bool(_COMPILER.match(gone.what))
        path = next((path for path in self.after.files if self.origin(path) == gone.file), None)
        if path is None or not _COMPILER.match(gone.what) or gone.line not in self._lines(path).values():
            return False
        before = {path, *_loaded_by(path, self.after)}
        return any(_COMPILER.match(problem.what) and problem.file in before for problem in new)

    def _import_was_hidden(self, problem: Problem, by_file: Mapping[str, list[Problem]]) -> bool:
        """Whether another `use` of the file was said to ask for too much, and the module never had what this one does.

        A module that dies when it is run gives every name: a change that mends it shows what it has not.
        """
        origin, said = self.origin(problem.file), _NOT_EXPORTED.match(problem.what)
        if origin is None or said is None or problem.line not in self._lines(problem.file):
            return False
        if not any(_NOT_EXPORTED.match(old.what) for old in by_file.get(origin, ())):
            return False
        end = f"/{said['module'].replace('::', '/')}.pm"
        modules = (file for path, file in self.before.files.items() if f"/{path}".endswith(end))
        return not any(said["name"] in exports_of(file) for file in modules)

    def _import_is_hidden(self, gone: Problem, now: Report) -> bool:
        """The reverse: what was said of a line that has not changed, and another `use` of the file is in its way."""
        if not _NOT_EXPORTED.match(gone.what):
            return False
        others = [each for each in now.problems if _NOT_EXPORTED.match(each.what)]
        return any(
            self.origin(each.file) == gone.file and gone.line in self._lines(each.file).values() for each in others
        )

    def _essence(self, problem: Problem) -> str:
        """The same with the names that the files had before."""
        words = essence(problem)
        for path in sorted({*re.findall(r"[\w.+-]+(?:/[\w.+-]+)+", words)}):
            origin = self.origin(path)
            if origin and origin != path:
                words = words.replace(path, origin)
        return words

    def _is_copy(self, path: str) -> bool:
        origin = self.origin(path)
        return origin is not None and origin != path and origin in self.after

    def origin(self, path: str) -> str | None:
        """The path that a file of the new tree had in the old one; None where it is new."""
        if path not in self._origins:
            self._origins[path] = self._find_origin(path)
        return self._origins[path]

    def _find_origin(self, path: str) -> str | None:
        if path in self.before:
            return path
        for folder in _and_above(path):
            if folder in self.copied:
                origin = self.copied[folder] + path[len(folder) :]
                return origin if origin in self.before else None
        file = self.after.files.get(path)
        if file is None:
            return path if path not in self.after else None  # what is said of a file that is missing, now as then
        gone = [old for name, old in self.before.files.items() if name not in self.after]
        for old in gone:
            if old.content == file.content and file.content:
                return old.path
        lines = _text_lines(self.after, path)
        alike = [
            (_alike(_text_lines(self.before, old.path), lines), old.path)
            for old in gone
            if posixpath.basename(old.path) == posixpath.basename(path)
        ]
        best = max(alike, default=(0.0, ""))
        return best[1] if best[0] >= _ALIKE else None

    def _lines(self, path: str) -> dict[int, int]:
        """Lines of a file that the change left as they are: number now -> number before."""
        if path not in self._maps:
            origin = self.origin(path)
            old, new = _text_lines(self.before, origin or ""), _text_lines(self.after, path)
            self._maps[path] = dict(_unchanged(old, new))
        return self._maps[path]


def _loaded_by(path: str, tree: Tree) -> set[str]:
    """The modules of the tree that a file loads, and that these load."""
    found, todo = set[str](), [path]
    while todo:
        file = tree.files.get(todo.pop())
        for load in loads_of(file) if file is not None else ():
            if load.path in tree.files and load.path not in found:
                found.add(load.path)
                todo.append(load.path)
    return found


def _and_above(path: str) -> Iterator[str]:
    while path:
        yield path
        path = posixpath.dirname(path)


def _text_lines(tree: Tree, path: str) -> list[str]:
    file = tree.files.get(path)
    return [] if file is None or file.binary else _without_keywords(file.text).split("\n")


def _line(tree: Tree, problem: Problem) -> str:
    """The text of a problem's line, without its indentation."""
    lines = _text_lines(tree, problem.file)
    return lines[problem.line - 1].strip() if 0 < problem.line <= len(lines) else ""


def _unchanged(old: list[str], new: list[str]) -> Iterator[tuple[int, int]]:
    if old == new:
        yield from ((number, number) for number in range(1, len(new) + 1))
    elif max(len(old), len(new)) <= _MAX_LINES:
        for match in SequenceMatcher(None, old, new).get_matching_blocks():
            yield from ((match.b + step + 1, match.a + step + 1) for step in range(match.size))


def _alike(old: list[str], new: list[str]) -> float:
    common = sum((Counter(old) & Counter(new)).values())
    return 2 * common / (len(old) + len(new)) if old or new else 0.0
