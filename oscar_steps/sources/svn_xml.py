"""What svn prints as XML, read in spite of what a commit put into it.

Subversion takes messages, authors and paths that no XML may hold (U+FFFF), and prints them as they are. A character
that XML does not know is replaced; an entry that cannot be read even so is read piece by piece. No entry stops others.
"""

from __future__ import annotations

import re
import xml.dom.minidom
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote
from xml.parsers.expat import ExpatError

from oscar_steps.errors import HostError
from oscar_steps.sources.svn import characters

UNREADABLE = "(cannot be read)"
_ENTRY = re.compile(r"<logentry\b(.*?)</logentry>", re.DOTALL)
_REVISION = re.compile(r"""\brevision=["'](\d+)["']""")
_PATH = re.compile(r"<path\b.*?</path>", re.DOTALL)


@dataclass(frozen=True)
class Address:
    """Where the repository is, in svn's own spelling, and the number of its newest revision."""

    url: str
    prefix: str
    """Path of `url` below the repository's root, as logs spell paths; '' for the root itself."""
    head: int
    uuid: str = ""


def address(output: bytes) -> Address:
    """The answer to `svn info --xml -r HEAD URL`. Raises HostError where it is none."""
    try:
        document = xml.dom.minidom.parseString(characters(output).encode())
        url, root = (_text(document.getElementsByTagName(name)[0]) for name in ("url", "root"))
        head = int(document.getElementsByTagName("entry")[0].getAttribute("revision"))
    except (ExpatError, IndexError, ValueError) as error:
        raise HostError(f"svn's answer about the repository cannot be read: {error}") from None
    uuid = "".join(_text(element) for element in document.getElementsByTagName("uuid")[:1])
    return Address(url, unquote(url.removeprefix(root)).strip("/"), head, uuid.strip())


def log_entries(output: bytes, somewhere: str) -> list[Any]:
    """The `<logentry>` elements of `svn log --xml --verbose`; none is left out.

    `somewhere` is a path, as logs spell them, that is said to be changed by an entry that does not show its paths.
    """
    text = characters(output)
    try:
        return list(xml.dom.minidom.parseString(text.encode()).getElementsByTagName("logentry"))
    except ExpatError:
        entries = [_entry(found[0], somewhere) for found in _ENTRY.finditer(text)]
        return [entry for entry in entries if entry is not None]


def unreadable_entry(revision: int | str, somewhere: str, fragment: str = "") -> Any:
    """The entry of a revision of which no more is known than what can be read out of `fragment`."""
    author = _readable(re.search(r"<author\b.*?</author>", fragment, re.DOTALL)) or "<author></author>"
    message = _readable(re.search(r"<msg\b.*?</msg>", fragment, re.DOTALL)) or f"<msg>{UNREADABLE}</msg>"
    paths = "".join(filter(None, (_readable(found) for found in _PATH.finditer(fragment))))
    if not paths:
        document = xml.dom.minidom.Document()
        element = document.createElement("path")
        element.appendChild(document.createTextNode(somewhere))
        paths = element.toxml()
    whole = f'<logentry revision="{revision}">{author}<paths>{paths}</paths>{message}</logentry>'
    return xml.dom.minidom.parseString(whole.encode()).documentElement


def _entry(text: str, somewhere: str) -> Any:
    try:
        return xml.dom.minidom.parseString(text.encode()).documentElement
    except ExpatError:
        number = _REVISION.search(text)
        return unreadable_entry(number[1], somewhere, text) if number else None


def _readable(found: re.Match[str] | None) -> str | None:
    """The element that was found, if it is well-formed by itself."""
    try:
        if found:
            xml.dom.minidom.parseString(found[0].encode())
            return found[0]
    except ExpatError:
        pass
    return None


def _text(element: Any) -> str:
    return "".join(node.data for node in element.childNodes)
