"""Which exact revisions a checkout gets by svn:externals, found out before it is made.

The questions are asked by whoever can: `externals_of` yields the words for svn and is sent what svn said. Only the
repository's own server is asked, as a commit must not make the farm call anywhere; what is elsewhere is named as the
property says it.

svn reads a property of a whole tree with a question for each file and folder. The difference between nothing and the
tree is one answer, and names all folders that have the property; so only they are asked for its text. That answer has
the text of all files in it, so a very large tree is read with svn's many questions. What is known of a revision is
remembered, and of another revision only the difference is asked for; the tree is read again where a folder or its
properties changed.
"""

from __future__ import annotations

import posixpath
import xml.etree.ElementTree as ElementTree
from collections.abc import Generator
from dataclasses import dataclass, field
from typing import NamedTuple, NoReturn
from urllib.parse import quote, unquote

from oscar_steps.errors import HostError, SourceError
from oscar_steps.sources.externals_text import (
    BadLine,
    Definition,
    absolute,
    definitions,
    folders_in,
    is_same_server,
    properties_in,
    size_in,
)
from oscar_steps.sources.source import External
from oscar_steps.sources.svn import advice, characters, error_kind, svn_words

MAX_EXTERNALS = 200
MAX_DEPTH = 10
_SECONDS, _WALK_SECONDS = 120.0, 900.0
_AT_ONCE = 50
"""Addresses in a question: with the longest names that a file system takes they still fit a command line."""
_MOST_TEXT = 256_000_000
"""Bytes of all files of a tree that may come with one answer: some seconds of a network, no more than a checkout."""


class Answer(NamedTuple):
    """What svn said: its exit status, what it printed, what it complained of."""

    status: int
    output: bytes
    complaint: str


Questions = Generator[list[str], Answer, tuple[External, ...]]


@dataclass(frozen=True)
class _Tree:
    """A folder or file at a revision, as svn spells its address."""

    url: str
    revision: str
    root: str
    uuid: str
    is_folder: bool


@dataclass
class Memory:
    """The properties of trees: by repository and address the revision that was read last, and what was there."""

    known: dict[str, tuple[int, dict[str, str]]] = field(default_factory=dict)

    def keep(self, key: str, revision: int, properties: dict[str, str]) -> None:
        """What was asked for last stands last."""
        self.known.pop(key, None)
        self.known[key] = (revision, properties)


def externals_of(url: str, revision: str, memory: Memory) -> Questions:
    """Yields the words for svn, is sent each answer, and returns all externals of a checkout, also those of externals.

    Raises SourceError where one cannot be checked out by anybody, HostError where the server does not say.
    """
    tree = yield from _tree(url, revision, revision)
    found: list[External] = []
    yield from _collect(tree, "", (), memory, found)
    return tuple(found)


def seconds_of(words: list[str]) -> float:
    """How long svn may take for one of the questions: those of a whole tree take longer."""
    return _WALK_SECONDS if {"--recursive", "--properties-only"} & {*words} else _SECONDS


def _collect(
    tree: _Tree, prefix: str, above: tuple[tuple[str, str], ...], memory: Memory, found: list[External]
) -> Generator[list[str], Answer, None]:
    here = (tree.url, tree.revision)
    if here in above or len(above) > MAX_DEPTH:
        said = "contains itself" if here in above else f"is deeper than {MAX_DEPTH} externals"
        raise SourceError(f"svn:externals of {tree.url}@{tree.revision}: '{prefix}' {said}, so no checkout ends")
    properties = yield from _properties(tree, memory)
    for folder, text in sorted(properties.items()):
        where = f"svn:externals of {_below(tree.url, folder)}@{tree.revision}"
        for each in _definitions(where, text):
            external, inner = yield from _resolved(each, _below(tree.url, folder), tree, where)
            path = posixpath.normpath(posixpath.join(prefix, folder, each.path))
            if any(other.path == path for other in found):
                raise SourceError(f"{where}: two externals want to be at '{path}'")
            if len(found) >= MAX_EXTERNALS:
                raise SourceError(f"{where}: a checkout has more than {MAX_EXTERNALS} externals")
            found.append(external.model_copy(update={"path": path}))
            if inner is not None and inner.is_folder:
                yield from _collect(inner, path, (*above, here), memory, found)


def _definitions(where: str, text: str) -> list[Definition]:
    try:
        return definitions(text)
    except BadLine as error:
        raise SourceError(f"{where} cannot be understood: {error}") from None


def _resolved(
    each: Definition, folder: str, tree: _Tree, where: str
) -> Generator[list[str], Answer, tuple[External, _Tree | None]]:
    """The external that a line means, and what is there; None: it is not asked for."""
    try:
        url = absolute(each.url, folder, tree.root)
    except BadLine as error:
        raise SourceError(f"{where} cannot be understood: {error}") from None
    if not is_same_server(url, tree.root):
        return External(path=each.path, url=url, revision=each.revision), None
    first = each.revision
    words = ["log", "--xml", "--quiet", "--limit", "1", "-r", f"{first}:1", f"{url}@{each.peg}"]
    answer = yield words
    about = f"{where}: {url} at revision {first}"
    # 'Last changed' is not enough: what came with the copy of a folder above it was not there at that revision.
    entry = _xml(answer, about).find("logentry")
    if entry is None:
        raise SourceError(f"{about} does not exist")
    inner = yield from _tree(url, entry.get("revision") or "", each.peg, where)
    external = External(
        path=each.path, url=inner.url, revision=inner.revision, kind="folder" if inner.is_folder else "file"
    )
    return external, inner


def _tree(url: str, revision: str, peg: str, where: str = "") -> Generator[list[str], Answer, _Tree]:
    answer = yield ["info", "--xml", "-r", revision, f"{url}@{peg}"]
    about = f"{where}: {url} at revision {revision}" if where else f"{url}@{revision}"
    entry = _xml(answer, about).find("entry")
    root, uuid, found = (_text(entry, name) for name in ("repository/root", "repository/uuid", "url"))
    if entry is None or not (root and found):
        raise HostError(f"{about}: svn's answer cannot be read")
    return _Tree(found, revision, root, uuid, entry.get("kind") == "dir")


def _properties(tree: _Tree, memory: Memory) -> Generator[list[str], Answer, dict[str, str]]:
    """Each folder below `tree` that has the property, and its text. Of the newest question the answer is remembered."""
    key, number = f"{tree.uuid} {tree.url}", int(tree.revision)
    if key in memory.known:
        known, properties = memory.known[key]
        if known == number or (yield from _is_unchanged(tree, known)):
            memory.keep(key, number, properties)
            return properties
    found = yield from _read(tree)
    top = f"{unquote(tree.url)}/"
    properties = {unquote(f"{path}/").removeprefix(top).rstrip("/"): text for path, text in found}
    memory.keep(key, number, properties)
    return properties


def _read(tree: _Tree) -> Generator[list[str], Answer, list[tuple[str, str]]]:
    """The address of each folder that has the property, and its text."""
    known = yield from _read_quickly(tree)
    if known is not None:
        return known
    about = f"{tree.url}@{tree.revision}"
    answer = yield ["propget", "--recursive", "--xml", "svn:externals", about]
    if answer.status != 0:
        _refuse(answer, about)
    try:
        return properties_in(answer.output)
    except ValueError as error:
        raise HostError(f"{about}: {error}") from None


def _read_quickly(tree: _Tree) -> Generator[list[str], Answer, list[tuple[str, str]] | None]:
    """The same, in an answer for the tree and some for each of these folders; None: that way is closed.

    Revision 0 of every repository is an empty folder. A server that hides the folder above the tree refuses to compare.
    """
    answer = yield ["list", "--recursive", "--xml", f"{tree.url}@{tree.revision}"]
    if answer.status != 0 or size_in(answer.output) > _MOST_TEXT:
        return None
    answer = yield ["diff", "--properties-only", "-r", f"0:{tree.revision}", f"{tree.url}@{tree.revision}"]
    if answer.status != 0:
        return None
    targets = [f"{_below(tree.url, folder)}@{tree.revision}" for folder in folders_in(answer.output)]
    found: list[tuple[str, str]] = []
    for first in range(0, len(targets), _AT_ONCE):
        answer = yield ["propget", "--xml", "svn:externals", *targets[first : first + _AT_ONCE]]
        try:
            found += properties_in(answer.output)
        except ValueError:
            return None
    return found if len(found) == len(targets) else None


def _is_unchanged(tree: _Tree, known: int) -> Generator[list[str], Answer, bool]:
    """Whether no folder came or went, and none has other properties, since another revision of the same tree."""
    answer = yield ["diff", "--summarize", "--xml", "-r", f"{known}:{tree.revision}", f"{tree.url}@{tree.revision}"]
    try:
        paths = ElementTree.fromstring(characters(answer.output)).iter("path") if answer.status == 0 else None
    except ElementTree.ParseError:
        paths = None
    return paths is not None and not any(
        path.get("kind") == "dir" and (path.get("item") != "none" or path.get("props") != "none") for path in paths
    )


def _below(url: str, folder: str) -> str:
    return f"{url}/{quote(folder)}" if folder else url


def _xml(answer: Answer, about: str) -> ElementTree.Element:
    if answer.status != 0:
        _refuse(answer, about)
    try:
        return ElementTree.fromstring(characters(answer.output))
    except ElementTree.ParseError:
        raise HostError(f"{about}: svn's answer cannot be read") from None


def _refuse(answer: Answer, about: str) -> NoReturn:
    raise error_kind(answer.complaint)(f"{about}: {svn_words(answer.complaint)}", hint=advice(answer.complaint))


def _text(element: ElementTree.Element | None, path: str) -> str:
    return (element.findtext(path) or "").strip() if element is not None else ""
