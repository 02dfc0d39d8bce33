"""Which exact revisions a checkout gets by svn:externals, found out before it is made.

The questions are asked by whoever can: `externals_of` yields the words for svn and is sent what svn said. Only the
repository's own server is asked, as a commit must not make the farm call anywhere; what is elsewhere is named as the
property says it.

svn reads a property of a whole tree with a question for each file. So what is known of a revision is remembered, and of
another revision only the difference is asked for; the tree is read again where a folder or its properties changed.
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
    is_same_server,
    properties_in,
)
from oscar_steps.sources.source import External
from oscar_steps.sources.svn import advice, characters, error_kind, svn_words

MAX_EXTERNALS = 200
MAX_DEPTH = 10
_SECONDS, _WALK_SECONDS = 120.0, 900.0


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
    """How long svn may take for one of the questions: a whole tree's properties take an answer for each file."""
    return _WALK_SECONDS if "--recursive" in words else _SECONDS


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
    answer = yield ["propget", "--recursive", "--xml", "svn:externals", f"{tree.url}@{tree.revision}"]
    about = f"{tree.url}@{tree.revision}"
    if answer.status != 0:
        _refuse(answer, about)
    try:
        found = properties_in(answer.output)
    except ValueError as error:
        raise HostError(f"{about}: {error}") from None
    top = f"{unquote(tree.url)}/"
    properties = {unquote(f"{path}/").removeprefix(top).rstrip("/"): text for path, text in found}
    memory.keep(key, number, properties)
    return properties


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
