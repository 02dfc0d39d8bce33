"""Reading our XML: no network, no entities, our own DTD whatever the DOCTYPE says; errors name file, line and column.

A profile is read by expat alone, which fetches nothing, and within limits that no honest file comes near;
lxml sees only the tree that is made here, and checks it against the DTD. Its own parser with its error log is no
replacement: it knows no column of an element, names the DTD's whole content model instead of the child that is wrong,
and expands entities that the file declares.
"""

from __future__ import annotations

import stat
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import NoReturn
from xml.parsers import expat

from lxml import etree

from oscar_steps.errors import InvalidProfile, ProfileError

DTD_DIRECTORY = Path(__file__).resolve().parent

MAX_BYTES = 2 << 20
"""A cluster of a thousand nodes has a quarter of that."""
MAX_ELEMENTS = 20_000
MAX_DEPTH = 16
"""The grammar goes six deep."""
MAX_ATTRIBUTES = 16
"""Of one element; lxml takes quadratic time over them."""
_CHUNK = 32 << 10
"""Bytes given to expat at a time: it ends a chunk although a handler has raised. A DOCTYPE has to end within one."""
_SHOWN = 60
_INVALID_TOKEN, _MISMATCH, _NO_ELEMENT = "not well-formed (invalid token)", "mismatched tag", "no element found"


@dataclass(frozen=True, slots=True)
class Document:
    """An XML file in memory. `positions`: line and column of each element, in the order in which they begin."""

    source: str
    root: etree._Element
    positions: list[tuple[int, int]]

    def fail(self, element: etree._Element, what: str) -> NoReturn:
        """Raise InvalidProfile for `what` is wrong at `element`."""
        number = next(number for number, each in enumerate(self.root.iter()) if each is element)
        raise InvalidProfile(self.source, *self.positions[number], what)


def tag_of(element: etree._Element) -> str:
    """The element's name."""
    return str(element.tag)


def text_of(element: etree._Element) -> str:
    """The element's text without the white space round it (old profiles break lines inside `<image>`)."""
    return (element.text or "").strip()


def shown(text: str) -> str:
    """`text` as a sentence may have it: on one line, printable, not longer than a line."""
    start = "".join(c if c.isprintable() else " " if c.isspace() else f"\\u{ord(c):04x}" for c in text[: 2 * _SHOWN])
    start = " ".join(start.split())
    return start if len(start) <= _SHOWN and len(text) <= 2 * _SHOWN else f"{start[:_SHOWN]}…"


def read(path: Path) -> bytes:
    """The file's bytes. Raises ProfileError where it cannot be read; a pipe or device, which may never end, is not."""
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            what = "it is a directory" if path.is_dir() else "it is not a regular file"
            raise ProfileError(f"{path}: the profile cannot be read: {what}")
        with path.open("rb") as file:
            return file.read(MAX_BYTES + 1)
    except OSError as error:
        raise ProfileError(f"{path}: the profile cannot be read: {error.strerror}") from None


def parse(text: str | bytes, source: str, dtd_name: str, roots: tuple[str, ...]) -> Document:
    """`text`, valid by our DTD and with one of `roots` as its root. `source`: what errors call it.

    Raises InvalidProfile for the first thing that is wrong.
    """
    document = _Reader(source).read(text)
    root = document.root
    if tag_of(root) not in roots:
        there_are = " or ".join(f"<{tag}>" for tag in roots)
        document.fail(root, f"the root is <{shown(tag_of(root))}>; it has to be {there_are}")
    dtd = _dtd(dtd_name)
    if not dtd.validate(root):
        grammar = _grammar(dtd_name)
        for element in root.iter():
            rule = grammar.get(tag_of(element))
            if rule is not None:  # otherwise its parent has said so
                _explain(document, element, rule)
        document.fail(root, shown(dtd.error_log[0].message))
    return document


class _Reader:
    """Expat's handlers, which make the tree and stop at what no profile has."""

    def __init__(self, source: str) -> None:
        self._source = source
        self._positions: list[tuple[int, int]] = []
        self._open: list[etree._Element] = []
        self._lines: list[int] = []
        self._root: etree._Element | None = None
        self._text: list[str] = []
        self._in_doctype = False

    def read(self, text: str | bytes) -> Document:
        """Raises InvalidProfile."""
        # A str is decoded already, whatever its declaration says.
        data, encoding = (text.encode("utf-8", "surrogatepass"), "utf-8") if isinstance(text, str) else (text, None)
        if len(data) > MAX_BYTES:
            raise InvalidProfile(self._source, 1, 1, f"the file is larger than {MAX_BYTES >> 20} MiB, the limit")
        self._parser = parser = expat.ParserCreate(encoding)
        parser.buffer_text = parser.ordered_attributes = parser.specified_attributes = True
        parser.StartElementHandler = self._start
        parser.EndElementHandler = self._end
        parser.CharacterDataHandler = self._text.append
        parser.StartDoctypeDeclHandler = self._start_doctype
        parser.EndDoctypeDeclHandler = self._end_doctype
        parser.EntityDeclHandler = self._entity_declared
        parser.SkippedEntityHandler = self._entity_used
        try:
            for start in range(0, len(data), _CHUNK):
                parser.Parse(data[start : start + _CHUNK], False)
                if self._in_doctype and start > 0:
                    self._fail("the DOCTYPE does not end; a name of a DTD is enough")
            parser.Parse(b"", True)
        except expat.ExpatError as error:
            words = self._explain(expat.ErrorString(error.code), data[parser.ErrorByteIndex :][:1])
            self._fail_at(error.lineno, error.offset, f"this is not well-formed XML: {words}")
        except (LookupError, ValueError):  # an encoding that expat and Python cannot tell it
            self._fail("the encoding in the XML declaration is not supported; write the file in UTF-8")
        assert self._root is not None
        return Document(self._source, self._root, self._positions)

    def _explain(self, words: str, there: bytes) -> str:
        """Expat's words in those of the file. `there`: the byte that it stopped at, if any."""
        begun = f"<{shown(tag_of(self._open[-1]))}> of line {self._lines[-1]}" if self._open else ""
        if words in (_MISMATCH, _NO_ELEMENT) and begun:
            return f"{begun} has to be ended before {'the file' if words == _NO_ELEMENT else 'another element'} is"
        if words == _NO_ELEMENT:
            return "the file ends before its root element begins"
        if words == _INVALID_TOKEN and there:
            byte = there[0]
            if byte < 32 or byte == 127:
                return f"the control character {byte:#04x} may not be in it; write plain text, in UTF-8"
            if byte > 127:
                return f"the byte {byte:#04x} is not a character in the file's encoding; write UTF-8"
            return f"'{chr(byte)}' may not stand here; in a text, write &amp; for & and &lt; for <"
        return "there is text where an element has to begin" if words == "syntax error" else words

    def _fail(self, what: str) -> NoReturn:
        self._fail_at(self._parser.CurrentLineNumber, self._parser.CurrentColumnNumber, what)

    def _fail_at(self, line: int, column: int, what: str) -> NoReturn:
        raise InvalidProfile(self._source, max(line, 1), column + 1, what) from None

    def _start(self, tag: str, attributes: list[str]) -> None:
        if len(self._positions) >= MAX_ELEMENTS:
            self._fail(f"there are more than {MAX_ELEMENTS} elements, the limit for a profile")
        if len(self._open) >= MAX_DEPTH:
            self._fail(f"<{shown(tag)}> lies more than {MAX_DEPTH} elements deep, the limit for a profile")
        if len(attributes) > 2 * MAX_ATTRIBUTES:
            self._fail(f"<{shown(tag)}> has more than {MAX_ATTRIBUTES} attributes, the limit for a profile")
        self._flush()
        try:
            element = etree.SubElement(self._open[-1], tag) if self._open else etree.Element(tag)
            for name, value in zip(attributes[::2], attributes[1::2], strict=True):
                element.set(name, value)
        except ValueError:  # a name with a colon
            self._fail(f"<{shown(tag)}> has a name or attribute with a colon; profiles have no namespaces")
        line = self._parser.CurrentLineNumber
        self._positions.append((line, self._parser.CurrentColumnNumber + 1))
        self._open.append(element)
        self._lines.append(line)
        self._root = self._open[0]

    def _end(self, _tag: str) -> None:
        self._flush()
        self._open.pop()
        self._lines.pop()

    def _flush(self) -> None:
        if self._text and self._open:
            here, text = self._open[-1], "".join(self._text)
            if len(here):
                here[-1].tail = text
            else:
                here.text = text
        self._text.clear()

    def _start_doctype(self, *_: object) -> None:
        self._in_doctype = True

    def _end_doctype(self) -> None:
        self._in_doctype = False

    def _entity_declared(self, *_: object) -> None:
        self._fail("the DOCTYPE declares entities, which are not supported; write the text itself")

    def _entity_used(self, name: str, _is_parameter: bool) -> None:
        self._fail(f"the entity '{shown(name)}' is not known here; write the text itself")


# --- the grammar -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Rule:
    """What the DTD says of an element. `children`: name to 'once', 'opt', 'mult' or 'plus', in their order."""

    children: dict[str, str]
    attributes: dict[str, tuple[bool, tuple[str, ...]]]
    """Name to: is it required; the values that are allowed (none: any)."""


@cache
def _dtd(name: str) -> etree.DTD:
    return etree.DTD(file=str(DTD_DIRECTORY / name))


@cache
def _grammar(name: str) -> dict[str, _Rule]:
    rules: dict[str, _Rule] = {}
    for declaration in _dtd(name).iterelements():
        attributes = {
            str(attribute.name): (attribute.default == "required", tuple(attribute.itervalues()))
            for attribute in declaration.iterattributes()
        }
        rules[str(declaration.name)] = _Rule(dict(_occurrences(declaration.content)), attributes)
    return rules


def _occurrences(content: object) -> Iterator[tuple[str, str]]:
    """(name, 'once' | 'opt' | 'mult' | 'plus') of every child that a DTD's content model lists, in its order."""
    if content is None:
        return
    if getattr(content, "type", "") == "element":
        yield str(getattr(content, "name", "")), str(getattr(content, "occur", ""))
        return
    yield from _occurrences(getattr(content, "left", None))
    yield from _occurrences(getattr(content, "right", None))


def _explain(document: Document, element: etree._Element, rule: _Rule) -> None:
    """Raise the clearest sentence there is about `element`, or return when nothing is wrong with it."""
    tag = tag_of(element)
    _explain_children(document, element, rule)
    found = Counter(tag_of(child) for child in element)
    for name, occurs in rule.children.items():
        if not found[name] and occurs in ("once", "plus"):
            document.fail(element, f"<{tag}> lacks <{name}>")
        if found[name] > 1 and occurs in ("once", "opt"):
            document.fail(element.findall(name)[1], f"<{name}> appears twice in <{tag}>")
    for key, given in element.attrib.items():
        name, value = str(key), str(given)
        if name not in rule.attributes:
            there_are = ", ".join(rule.attributes) or "none"
            document.fail(element, f"<{tag}> has no attribute '{shown(name)}'; there are: {there_are}")
        _, values = rule.attributes[name]
        if values and value not in values:
            known = ", ".join(values)
            document.fail(element, f"{name}='{shown(value)}' in <{tag}> is not known; there are: {known}")
    for name, (required, _) in rule.attributes.items():
        if required and name not in element.attrib:
            document.fail(element, f"<{tag}> lacks the attribute '{name}'")


def _explain_children(document: Document, element: etree._Element, rule: _Rule) -> None:
    """Raise for a child that is unknown or out of order, and for text where only elements may be."""
    tag, allowed = tag_of(element), list(rule.children)
    position = 0
    for child in element:
        name = tag_of(child)
        if name not in allowed:
            known = f"it may hold: {_listed(allowed)}" if allowed else "it holds text only"
            document.fail(child, f"<{shown(name)}> is not known in <{tag}>; {known}")
        here = allowed.index(name)
        if here < position:
            document.fail(child, f"<{name}> is out of order in <{tag}>; the order is: {_listed(allowed)}")
        position = here
    if allowed and any(text and text.strip() for text in (element.text, *(child.tail for child in element))):
        document.fail(element, f"there is bare text in <{tag}>; it may hold: {_listed(allowed)}")


def _listed(names: list[str]) -> str:
    """The names, with nic1 to the last NIC as one."""
    nics = [name for name in names if name.startswith("nic")]
    others = [name for name in names if name not in nics]
    return ", ".join([*others, f"{nics[0]} to {nics[-1]}"] if nics else others)
