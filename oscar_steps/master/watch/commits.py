"""What a commit did to which branch, out of Subversion's log, and whether it touched anything that is installed."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any

from oscar_steps.sources.svn import NOBODY
from oscar_steps.textio import some

NOT_TESTED = "not tested: "
"""A change's category begins so where it starts no test; the reason follows."""
_CATEGORY = 255
_NAMED = 3
_HARMLESS = (
    "svn:mergeinfo",
    "svn:ignore",
    "svn:global-ignores",
    "svn:auto-props",
    "svn:mime-type",
    "bugtraq:*",
    "tsvn:*",
)
"""Properties that change no file of a checkout. All others may: svn:executable, svn:externals, svn:keywords..."""
_PROPERTY = re.compile(r"^(?:Added|Modified|Deleted): (\S+)$", re.MULTILINE)


@dataclass(frozen=True)
class Touched:
    """A path in its branch ('' is the branch itself), and what a commit did to it."""

    path: str
    action: str
    """A letter of Subversion's: A, M, D, R."""
    properties_only: bool = False


@dataclass
class Commit:
    """One revision on one branch."""

    revision: str
    author: str
    message: str
    branch: str
    touched: list[Touched] = field(default_factory=list)

    @property
    def removes_branch(self) -> bool:
        """There is nothing left that could be tested."""
        return [(touched.path, touched.action) for touched in self.touched] == [("", "D")]


def commits_of(entry: Any, where: Callable[[str], dict[str, str] | None], trunk: str) -> list[Commit]:
    """The branches that a `<logentry>` touched; `where` splits a path of the log into branch and path.

    `trunk` is the trunk's path as logs spell it: a copy of a folder above it brings the trunk, too.
    """
    found = dict[str, Commit]()
    words = (entry.getAttribute("revision"), _author(entry), text_of(entry, "msg"))
    for element in entry.getElementsByTagName("path"):
        path = "".join(node.data for node in element.childNodes).lstrip("/")
        kind, action = element.getAttribute("kind"), element.getAttribute("action")
        copied = bool(element.getAttribute("copyfrom-path"))
        place = where(f"{path.rstrip('/')}/" if kind == "dir" else path)
        if place is None and kind != "file":  # a server before 1.6 does not say what is a folder
            place = where(f"{path.rstrip('/')}/")
        if place is None and copied and kind != "file" and trunk.startswith(f"{path}/"):
            place = where(f"{trunk}/")
        if place is not None:
            only = (action, *(element.getAttribute(name) for name in ("text-mods", "prop-mods")))
            commit = found.setdefault(place["branch"], Commit(*words, place["branch"]))
            commit.touched.append(Touched(place["path"].rstrip("/"), action, only == ("M", "false", "true")))
    return [commit for commit in found.values() if not commit.removes_branch]


def text_of(entry: Any, name: str) -> str:
    """The text of the first element of this name; '' where there is none."""
    return "".join(node.data for element in entry.getElementsByTagName(name)[:1] for node in element.childNodes)


def skipped_by(commit: Commit, patterns: Iterable[str]) -> tuple[str, ...] | None:
    """The patterns that match all that the commit wrote; None where something else is touched.

    What is removed or replaced always counts: a file that nobody installs may be named by one who installs. Paths of
    which only properties changed are left out here.
    """
    used = dict[str, None]()
    for touched in commit.touched:
        if touched.properties_only:
            continue
        match = next((pattern for pattern in patterns if fnmatchcase(touched.path, pattern)), None)
        if match is None or touched.action not in ("A", "M"):
            return None
        used[match] = None
    return tuple(used)


def changed_properties(difference: str) -> tuple[str, ...]:
    """Names of the properties in the output of `svn diff --properties-only`. Their values are behind +, - or blanks."""
    return tuple(dict.fromkeys(_PROPERTY.findall(difference)))


def are_harmless(properties: Sequence[str]) -> bool:
    """Whether a change of these properties changes no file of a checkout. Of none nothing is known."""
    return bool(properties) and all(any(fnmatchcase(name, known) for known in _HARMLESS) for name in properties)


def not_tested(patterns: Sequence[str], properties: Sequence[str]) -> str:
    """The category of a change that starts no test."""
    parts = [f"only {some(patterns, _NAMED)}"] if patterns else []
    parts += [f"only the properties {some(properties, _NAMED)}"] if properties else []
    return f"{NOT_TESTED}{' and '.join(parts)}, nothing that is installed"[:_CATEGORY]


def starts_tests(category: str | None) -> bool:
    """Whether a change of this category starts tests."""
    return not (category or "").startswith(NOT_TESTED)


def _author(entry: Any) -> str:
    return text_of(entry, "author") if text_of(entry, "author").strip() else NOBODY
