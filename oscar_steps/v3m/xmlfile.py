"""Reading our XML: no network, no entities, our own DTD whatever the DOCTYPE says; errors name file and line."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NoReturn

from lxml import etree

from oscar_steps.errors import ProfileError

DTD_DIRECTORY = Path(__file__).resolve().parent / "dtd"


@cache
def _dtd(name: str) -> etree.DTD:
    return etree.DTD(file=str(DTD_DIRECTORY / name))


def fail(element: etree._Element, source: str, what: str) -> NoReturn:
    """Raise ProfileError for `what` is wrong at `element`."""
    raise ProfileError(f"{source}:{element.sourceline}: {what}")


def tag_of(element: etree._Element) -> str:
    """The element's name."""
    return str(element.tag)


def text_of(element: etree._Element) -> str:
    """The element's text without the white space round it (old profiles break lines inside `<image>`)."""
    return "".join(str(part) for part in element.itertext()).strip()


def read(path: Path) -> bytes:
    """The file's bytes. Raises ProfileError where it cannot be read."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise ProfileError(f"{path}: the profile cannot be read: {error.strerror}") from None


def parse(text: str | bytes, source: str, dtd_name: str, roots: tuple[str, ...]) -> etree._Element:
    """The root element of `text`, valid by our DTD. `source` is the name that errors give the text."""
    root = _parse(text, source)
    internal = root.getroottree().docinfo.internalDTD
    if internal is not None and any(True for _ in internal.iterentities()):
        raise ProfileError(f"{source}:1: the DOCTYPE declares entities, which are not read here; write the text itself")
    if tag_of(root) not in roots:
        fail(root, source, f"the root is <{tag_of(root)}>; it has to be {' or '.join(f'<{tag}>' for tag in roots)}")
    dtd = _dtd(dtd_name)
    if not dtd.validate(root):
        for element in root.iter():
            _explain(element, dtd, source)
        first = dtd.error_log[0]
        raise ProfileError(f"{source}:{first.line}: {first.message}")
    return root


def root_tag(text: str | bytes, source: str) -> str:
    """The name of the root element. Raises ProfileError where `text` is no XML."""
    return tag_of(_parse(text, source))


def _parse(text: str | bytes, source: str) -> etree._Element:
    encoding = "utf-8" if isinstance(text, str) else None  # a str is decoded already, whatever its declaration says
    parser = etree.XMLParser(
        encoding=encoding,
        resolve_entities=False,
        no_network=True,
        load_dtd=False,
        huge_tree=False,
        remove_comments=True,
        remove_pis=True,
    )
    try:
        return etree.fromstring(text.encode() if isinstance(text, str) else text, parser)
    except etree.XMLSyntaxError as error:
        raise ProfileError(f"{source}:{error.lineno}: this is not well-formed XML: {error.msg}") from None


def _explain(element: etree._Element, dtd: etree.DTD, source: str) -> None:
    """Raise the clearest sentence there is about `element`, or return when nothing is wrong with it."""
    tag = tag_of(element)
    declared = {declaration.name: declaration for declaration in dtd.iterelements()}
    declaration = declared.get(tag)
    if declaration is None:
        return  # its parent has said so
    content = list(_occurrences(declaration.content))
    _explain_children(element, [name for name, _ in content], source)
    for name, occurs in content:
        found = element.findall(name)
        if not found and occurs in ("once", "plus"):
            fail(element, source, f"<{tag}> lacks <{name}>")
        if len(found) > 1 and occurs in ("once", "opt"):
            fail(found[1], source, f"<{name}> is there twice in <{tag}>")
    attributes = {str(attribute.name): attribute for attribute in declaration.iterattributes()}
    for key, given in element.attrib.items():
        name, value = str(key), str(given)
        if name not in attributes:
            there_are = ", ".join(attributes) or "none"
            fail(element, source, f"<{tag}> has no attribute '{name}'; there are: {there_are}")
        values = list(attributes[name].itervalues())
        if values and value not in values:
            fail(element, source, f"{name}='{value}' in <{tag}> is not known; there are: {', '.join(values)}")
    for name, attribute in attributes.items():
        if attribute.default == "required" and name not in element.attrib:
            fail(element, source, f"<{tag}> lacks the attribute '{name}'")


def _explain_children(element: etree._Element, allowed: list[str], source: str) -> None:
    """Raise for a child that is unknown or out of order, and for text where only elements may be."""
    tag, order = tag_of(element), ", ".join(allowed)
    position = 0
    for child in element:
        if tag_of(child) not in allowed:
            known = f"it may hold: {order}" if allowed else "it holds text only"
            fail(child, source, f"<{tag_of(child)}> is not known in <{tag}>; {known}")
        here = allowed.index(tag_of(child))
        if here < position:
            fail(child, source, f"<{tag_of(child)}> stands too late in <{tag}>; the order is: {order}")
        position = here
    if allowed and any(text and text.strip() for text in (element.text, *(child.tail for child in element))):
        fail(element, source, f"there is bare text in <{tag}>; it may hold: {order}")


def _occurrences(content: object) -> Iterator[tuple[str, str]]:
    """(name, 'once' | 'opt' | 'mult' | 'plus') of every child that a DTD's content model lists, in its order."""
    if content is None:
        return
    if getattr(content, "type", "") == "element":
        yield str(getattr(content, "name", "")), str(getattr(content, "occur", ""))
        return
    yield from _occurrences(getattr(content, "left", None))
    yield from _occurrences(getattr(content, "right", None))
