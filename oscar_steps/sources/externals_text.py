"""The property svn:externals: what its lines say, in both of their orders, and what they mean as addresses."""

from __future__ import annotations

import base64
import binascii
import math
import posixpath
import re
import shlex
import xml.etree.ElementTree as ElementTree
from dataclasses import dataclass
from urllib.parse import quote, unquote, urlsplit, urlunsplit

from oscar_steps.sources.svn import characters
from oscar_steps.textio import printable

_ABSOLUTE = re.compile(r"[A-Za-z][\w+.-]*://")
_REVISION = re.compile(r"r*(\d{1,10})|(HEAD|\{[^{}]+\})", re.IGNORECASE)
_PORTS = {"svn": 3690, "http": 80, "https": 443, "svn+ssh": 22}
_LONGEST = 200
_OF_FOLDER = b"Property changes on: "


class BadLine(ValueError):
    """A line that svn does not understand either; it is quoted, and the reason follows."""


@dataclass(frozen=True)
class Definition:
    """A line of the property: where in its folder what it names has to stand, the address as written, the revisions."""

    path: str
    url: str
    revision: str = "HEAD"
    peg: str = "HEAD"


def size_in(output: bytes) -> float:
    """Bytes of all files that `svn list --xml` names; endless where that cannot be read."""
    try:
        return sum(int(size.text or "") for size in ElementTree.fromstring(characters(output)).iter("size"))
    except (ElementTree.ParseError, ValueError):
        return math.inf


def folders_in(output: bytes) -> list[str]:
    """The folders, and files, that `svn diff --properties-only` shows with a new svn:externals; '': the tree's top.

    Each line of a property's own text has a sign before it, so none can look like one of svn's.
    """
    folder, found = "", []
    for line in output.split(b"\n"):
        if line.startswith(_OF_FOLDER):
            folder = line.removeprefix(_OF_FOLDER).decode("utf-8", "replace")
        elif line == b"Added: svn:externals":
            found.append("" if folder == "." else folder)
    return found


def properties_in(output: bytes) -> list[tuple[str, str]]:
    """Each path and its property, as `svn propget --xml` prints them. Raises ValueError where that cannot be read."""
    try:
        targets = ElementTree.fromstring(characters(output)).findall("target")
        return [(target.get("path") or "", _value(target.find("property"))) for target in targets]
    except (ElementTree.ParseError, binascii.Error) as error:
        raise ValueError(f"svn's answer cannot be read: {error}") from None


def _value(element: ElementTree.Element | None) -> str:
    text = (element.text if element is not None else "") or ""
    if element is not None and element.get("encoding") == "base64":
        return base64.b64decode(text).decode("utf-8", "replace")
    return text


def definitions(text: str) -> list[Definition]:
    """What the lines of a property say. Raises BadLine for the first that svn refuses."""
    lines = (line.strip() for line in re.split(r"[\r\n]", text))
    return [definition(line) for line in lines if line and not line.startswith("#")]


def known_paths(text: str) -> list[str]:
    """The paths that a property names, without the lines that nobody understands."""
    found = []
    for line in re.split(r"[\r\n]", text):
        try:
            found += [each.path for each in definitions(line)]
        except BadLine:
            continue
    return found


def definition(line: str) -> Definition:
    """What one line says: 'PATH [-r N] URL', or '[-r N] URL[@PEG] PATH'. Raises BadLine."""
    try:
        words = shlex.split(line)
    except ValueError as error:
        raise _bad(line, str(error).lower()) from None
    at = next((place for place, word in enumerate(words[:2]) if word.startswith("-r")), None)
    wanted = ""
    if at is not None:
        count = 2 if words[at] == "-r" else 1
        wanted = _revision("".join(words[at : at + count])[2:], line)
        del words[at : at + count]
    if len(words) != 2:
        raise _bad(line, "it has to be an address and a path")
    first, second = (bool(_ABSOLUTE.match(word)) for word in words)
    if (first and second) or (at == 0 and second) or (at == 1 and first):
        raise _bad(line, "an address stands where its path has to be")
    if at == 0 or (at is None and (first or not second)):
        address, path = words
        address, peg = _without_peg(address, line)
    else:
        path, address = words
        peg = wanted
    return Definition(_path(path, line), address, wanted or peg or "HEAD", peg or "HEAD")


def _without_peg(address: str, line: str) -> tuple[str, str]:
    at = address.rfind("@")
    if at < 0 or "/" in address[at:]:
        return address, ""
    peg = address[at + 1 :]
    return address[:at], _revision(unquote(peg), line) if peg else ""


def _revision(text: str, line: str) -> str:
    found = _REVISION.fullmatch(text)
    if found is None:
        raise _bad(line, f"'{text}' is no revision")
    return found[1] or found[2]


def _path(text: str, line: str) -> str:
    path = posixpath.normpath(text) if text else ""
    parts = path.split("/")
    if path in ("", ".") or path.startswith("/") or ".." in parts or ".svn" in (part.lower() for part in parts):
        raise _bad(line, "its path leads elsewhere")
    return path


def _bad(line: str, why: str) -> BadLine:
    shown = line if len(line) <= _LONGEST else f"{line[:_LONGEST]}..."
    return BadLine(printable(f"'{shown}': {why}"))


def absolute(address: str, folder: str, root: str) -> str:
    """The whole address that a line means, as svn spells it.

    `folder` is the address of the folder that has the property, `root` that of its repository. Raises BadLine.
    """
    try:
        url = _whole(address, folder, root)
    except BadLine:
        raise
    except ValueError:  # of urllib: brackets, or letters that are others in a server's name
        url = ""
    if not url.isprintable() or server_of(url or "//[") is None:
        raise _bad(address, "its server cannot be understood")
    return url


def _whole(address: str, folder: str, root: str) -> str:
    base = urlsplit(folder)
    if _ABSOLUTE.match(address):
        whole = urlsplit(address)
        return _joined(whole.scheme, whole.netloc, "", whole.path, address)
    if address.startswith("//"):
        host, _, path = address[2:].partition("/")
        return _joined(base.scheme, host, "", path, address)
    if address.startswith("/"):
        return _joined(base.scheme, base.netloc, "", address, address)
    for prefix, start in (("^/", urlsplit(root).path), ("../", base.path)):
        if address.startswith(prefix):
            return _joined(base.scheme, base.netloc, start, address.removeprefix("^"), address)
    raise _bad(address, "an address begins with SCHEME://, //, /, ^/ or ../")


def _joined(scheme: str, host: str, start: str, path: str, address: str) -> str:
    """`..` may lead up from where a relative address starts, and is nowhere else allowed."""
    parts = [part for part in start.split("/") if part]
    rest = [part for part in path.split("/") if part not in ("", ".")]
    while start and rest[:1] == [".."] and parts:
        del parts[-1], rest[0]
    if ".." in rest:
        raise _bad(address, "it leads above the top of its server, or has '..' inside")
    escaped = (re.sub(r"%(?![0-9A-Fa-f]{2})", "%25", part) for part in (*parts, *rest))
    whole = "/".join(quote(part, safe="%!$&'(*+,-.:;=)@_~") for part in escaped)
    return urlunsplit((scheme.lower(), host.lower(), f"/{whole}" if whole else "", "", ""))


def server_of(url: str) -> tuple[str, str, int] | None:
    """Scheme, host and port; None for what has no server, or none that can be understood."""
    try:
        parts = urlsplit(url)
        return (parts.scheme.lower(), (parts.hostname or "").lower(), parts.port or _PORTS.get(parts.scheme.lower(), 0))
    except ValueError:
        return None


def is_same_server(url: str, root: str) -> bool:
    """Whether `url` is on the server of the repository `root`. Of folders of this host: whether it is the repository.

    A login in an address counts: who is somebody else there is asked for something else.
    """
    if urlsplit(root).scheme == "file":
        return f"{url}/".startswith(f"{root.rstrip('/')}/")
    login = urlsplit(url).netloc.rpartition("@")[0] if server_of(url) else ""
    return server_of(url) == server_of(root) and login in ("", urlsplit(root).netloc.rpartition("@")[0])
