"""What Subversion says of a revision on its branch: who made it, what came before it, what was copied."""

from __future__ import annotations

import posixpath
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import unquote

from oscar_steps.errors import HostError, SourceError
from oscar_steps.sources.resolve import svn
from oscar_steps.sources.svn import NOBODY, characters

MAX_COMMITS = 1000


@dataclass(frozen=True)
class Commit:
    """One revision of a branch."""

    revision: int
    author: str
    date: str
    id: str = ""
    """Of a commit of git's. `revision` is its place in its branch then."""


@dataclass(frozen=True)
class Change:
    """One commit of a branch, or several in a row, and the revision before the first of them (0: there is none)."""

    url: str
    root: str
    uuid: str
    commits: tuple[Commit, ...]
    """The oldest first."""
    base: int
    asked: int = 0
    """The revision that was asked for, at which nothing more had changed."""
    base_url: str = ""
    """Where the branch was then: its origin's address, if the branch was made by the first commit."""
    base_id: str = ""
    """Of git: the commit's id; '' where there is none."""
    chain: tuple[str, ...] = ()
    """Of git: the ids of the branch's last commits, the newest first."""
    copied: dict[str, str] = field(default_factory=dict)
    """New path in the tree -> the path in the tree before that it was copied from."""
    touched: dict[str, tuple[Commit, ...]] = field(default_factory=dict)
    """Path in the tree -> the commits that changed it."""
    moved: dict[str, tuple[Commit, ...]] = field(default_factory=dict)
    """Path in the tree -> the commits that copied something to it or took it away, with all that is below."""

    def brought_by(self, path: str, because: str = "") -> Commit | None:
        """The commit that brought what is new in `path` (`because` of another one); None: it may be any of several."""
        if len(self.commits) == 1:
            return self.commits[0]
        found = {commit for name in (path, because) for commit in self._of(name)}
        return found.pop() if len(found) == 1 else None

    def _of(self, path: str) -> Iterator[Commit]:
        yield from self.touched.get(path, ())
        while path := posixpath.dirname(path):
            yield from self.moved.get(path, ())

    @property
    def revision(self) -> int:
        return self.commits[-1].revision


def change_of(url: str, revision: str, first: int | None = None) -> Change:
    """The commit that made `revision` of `url`, or all from `first` to it. Raises SourceError or HostError."""
    asked = f"{url}@{revision}"
    entry = _parsed(svn("info", "--xml", asked, about=asked), asked).find("entry")
    root, uuid, found = (_text(entry, name) for name in ("repository/root", "repository/uuid", "url"))
    if entry is None or not (root and uuid and found):
        raise HostError(f"{asked}: svn's answer cannot be read")
    if entry.get("kind") != "dir":
        raise SourceError(f"{asked} is a file", hint="name the folder that has install_cluster")
    _check_top(asked)
    number = int(entry.get("revision") or 0)
    limit = min(max(number - (first or number), 0) + 2, MAX_COMMITS)
    words = ("--xml", "--verbose", "--quiet", "--limit", str(limit), "-r", f"{number}:1")
    entries = _parsed(svn("log", *words, asked, about=asked), asked).findall("logentry")
    commits = [(_commit(item), item) for item in entries]
    if not commits:
        return Change(found, root, uuid, (Commit(number, NOBODY, ""),), 0, number)
    since = min(first or commits[0][0].revision, commits[0][0].revision)
    new = [pair for pair in commits if pair[0].revision >= since]
    base = next((commit.revision for commit, _ in commits if commit.revision < since), 0)
    if not base and since > 1 and len(commits) == limit:  # the log was cut off before it
        base = _last_before(asked, since)
    change = Change(found, root, uuid, tuple(commit for commit, _ in reversed(new)), base, number)
    if base:
        then = _parsed(svn("info", "--xml", "-r", str(base), asked, about=asked), asked).find("entry")
        change = replace(change, base_url=_text(then, "url"))
    return _with_paths(change, [(commit, item) for commit, item in reversed(new)])


def _last_before(asked: str, revision: int) -> int:
    """The last revision before this one in which the branch changed; 0: there is none."""
    words = ("--xml", "--quiet", "--limit", "1", "-r", f"{revision - 1}:1")
    try:
        entry = _parsed(svn("log", *words, asked, about=asked), asked).find("logentry")
    except SourceError:  # it was not there yet
        return 0
    return int(entry.get("revision") or 0) if entry is not None else 0


def _check_top(asked: str) -> None:
    """Not every folder of a repository is a tree, and one that holds them all is large."""
    names = svn("list", asked, about=asked).decode("utf-8", "replace").splitlines()
    if "install_cluster" in names or any(not name.endswith("/") for name in names if name != "trunk/"):
        return
    url, _, revision = asked.rpartition("@")
    if "trunk/" in names:
        hint = f"give {url.rstrip('/')}/trunk@{revision}"
        raise SourceError(f"{asked} is not an OSCAR tree, but holds one", hint=hint)
    raise SourceError(f"{asked} has no file at its top, so it is not an OSCAR tree", hint="give the address of a trunk")


def _parsed(output: bytes, asked: str) -> ElementTree.Element:
    try:
        return ElementTree.fromstring(characters(output))
    except ElementTree.ParseError as error:
        raise HostError(f"{asked}: svn's answer cannot be read: {error}") from None


def _text(element: ElementTree.Element | None, path: str) -> str:
    found = element.find(path) if element is not None else None
    return (found.text or "").strip() if found is not None else ""


def _commit(entry: Any) -> Commit:
    return Commit(int(entry.get("revision")), _text(entry, "author") or NOBODY, _text(entry, "date"))


def _with_paths(change: Change, commits: Sequence[tuple[Commit, Any]]) -> Change:
    """Copies within the branch, and who changed which path. What was copied from elsewhere is new here."""
    top = unquote(change.url.removeprefix(change.root)).strip("/")
    copied = dict[str, str]()
    touched, moved = dict[str, tuple[Commit, ...]](), dict[str, tuple[Commit, ...]]()
    for commit, entry in commits:
        for path in entry.iterfind("paths/path"):
            new, old = _below(path.text or "", top), _below(path.get("copyfrom-path") or "", top)
            touched[new] = (*touched.get(new, ()), commit)
            if path.get("copyfrom-path") or path.get("action") in ("D", "R"):
                moved[new] = (*moved.get(new, ()), commit)
            if new and old:
                copied[new] = _earlier(old, copied)
    return replace(change, copied=copied, touched=touched, moved=moved)


def _below(path: str, top: str) -> str:
    inside = posixpath.relpath(path, f"/{top}") if path.startswith("/") else ".."
    return "" if inside.startswith("..") or inside == "." else inside


def _earlier(path: str, copied: dict[str, str]) -> str:
    """The path that `path` had before an earlier one of these commits copied it."""
    folder, rest = path, ""
    while folder:
        if folder in copied:
            return copied[folder] + rest
        folder = posixpath.dirname(folder)
        rest = path[len(folder) :]
    return path
