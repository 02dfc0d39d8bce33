"""Lists of words in Perl sources: what OSCAR accepts where it has such a list.

`@modes = qw(a b)`, `@modes = ('a', 'b')`, and what is pushed to it later. A list may be filled when OSCAR runs, with
its own components that fit the machine (`push @modes, OSCAR::OCA::Thing::open()`): then every component that the tree
has is a word, less the prefix that all of them share.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath

# Bounded, all of them: a source may be anything, and nobody waits for a regular expression.
_LIST = re.compile(
    r"""@(?P<set>\w{1,80})\s*=\s*(?P<words>qw\b[^;]{0,600}|\([^;]{0,600})
      | \b(?:push|unshift)\b\s*\(?\s*@(?P<add>\w{1,80})\s*,(?P<more>[^;]{0,600})""",
    re.VERBOSE,
)
_TOKEN = re.compile(
    r"""\bqw\s*(?:\(([^()]{0,500})\)|\[([^\]]{0,500})\]|\{([^}]{0,500})\}|/([^/]{0,500})/)
      | "([^"\n]{0,200})" | '([^'\n]{0,200})'
      | \b((?:\w{1,80}::){1,8}\w{1,80})
      | \b(if|unless|for|foreach|or|and)\b
      | [$@%]\w{1,80}""",
    re.VERBOSE,
)


@dataclass(frozen=True, slots=True)
class WordList:
    """A list: its variable, where it begins, its words. `whole`: there is nothing in it but words."""

    variable: str
    file: str
    line: int
    words: tuple[str, ...]
    whole: bool = True


def word_lists(files: Mapping[str, str], first: str) -> Iterator[WordList]:
    """All lists in `files` (path to text without comments), those of the file `first` before all others."""
    for path in sorted(files, key=lambda path: (path != first, path)):
        yield from _lists_of(path, files[path], files)


def _lists_of(path: str, text: str, files: Iterable[str]) -> Iterator[WordList]:
    """A variable may be set more than once: what is pushed belongs to the list before it."""
    found: dict[str, WordList] = {}
    for match in _LIST.finditer(text):
        name = match["set"] or match["add"]
        words, whole = _elements(match["words"] or match["more"], files)
        if match["set"] and name in found:
            yield found.pop(name)
        old = found.get(name, WordList(name, path, text.count("\n", 0, match.start()) + 1, ()))
        found[name] = WordList(name, path, old.line, tuple(dict.fromkeys(old.words + words)), old.whole and whole)
    yield from found.values()


def _elements(expression: str, files: Iterable[str]) -> tuple[tuple[str, ...], bool]:
    """The words of a list's right side, and whether that is all it has."""
    words: list[str] = []
    whole = True
    for match in _TOKEN.finditer(expression):
        *quoted, call, condition = match.groups()
        if condition:
            break
        if call:
            parts = _components(call, files)
            words += parts
            whole = whole and bool(parts)
        elif (text := next((text for text in quoted if text is not None), None)) is not None:
            words += text.split()
        else:
            whole = False
    return tuple(words), whole


def _components(call: str, files: Iterable[str]) -> list[str]:
    """The names of the modules in the folder of the package whose function is called: `A::B::open` has `A/B/X.pm`."""
    folder = "/".join(call.split("::")[:-1])
    paths = (PurePosixPath(path) for path in files)
    stems = sorted(path.stem for path in paths if path.suffix == ".pm" and str(path.parent).endswith(f"lib/{folder}"))
    first = stems[0][: stems[0].find("_") + 1] if stems else ""
    return [stem.removeprefix(first if all(other.startswith(first) for other in stems) else "") for stem in stems]
