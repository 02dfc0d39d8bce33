"""What lies in a place where releases appear: a folder, an index page of a web server, a folder of an FTP server."""

from __future__ import annotations

import html.parser
import os
import stat
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, unquote, urljoin, urlsplit

from oscar_steps.errors import HostError
from oscar_steps.sources.tarballs.fetch import Limit, file_tag, headers, local_path, page, tag_of

PAGE_BYTES = 8 << 20
MOST_NAMES = 50_000
_AT_ONCE = 100
"""Questions to a server in one connection."""


@dataclass(frozen=True)
class Entry:
    """A file of a place. It has changed, or still grows, where its tag is another one at the next look."""

    name: str
    url: str
    size: int
    """Bytes; -1: the server does not say."""
    tag: str


def entries(url: str, wanted: Callable[[str], bool], limit: Limit, known: Iterable[str] = ()) -> list[Entry]:
    """The files at `url` whose names are `wanted`. Of those `known` a web server is not asked for more than the name.

    Raises HostError where the place cannot be read, or holds more names than any place with releases.
    """
    folder = local_path(url)
    if folder is not None:
        return _folder(folder, wanted)
    if url.startswith("ftp:"):
        return _ftp(url, wanted, limit)
    return _web(url, wanted, limit, frozenset(known))


def _folder(folder: Path, wanted: Callable[[str], bool]) -> list[Entry]:
    found = []
    try:
        with os.scandir(folder) as scan:
            for number, each in enumerate(scan):
                _check_number(str(folder), number)
                if wanted(each.name) and stat.S_ISREG((status := each.stat(follow_symlinks=False)).st_mode):
                    path = folder / each.name
                    found.append(Entry(each.name, f"file://{quote(str(path))}", status.st_size, file_tag(status)))
    except OSError as error:
        raise HostError(f"the folder {folder} cannot be read: {error.strerror or error}") from None
    return found


def _check_number(where: str, number: int) -> None:
    if number > MOST_NAMES:
        raise HostError(f"{where} holds more than {MOST_NAMES} names; it is no place with releases")


def _web(url: str, wanted: Callable[[str], bool], limit: Limit, known: frozenset[str]) -> list[Entry]:
    small = Limit(PAGE_BYTES, limit.seconds, limit.stop)
    text, base = page(url.rstrip("/") + "/", small)
    names = [name for name in names_of(text.decode("utf-8", "replace"), base) if wanted(name)]
    folder = base.partition("?")[0].rpartition("/")[0]
    found = [Entry(name, f"{folder}/{quote(name)}", -1, "") for name in names if name in known]
    asked = [name for name in names if name not in known]
    for first in range(0, len(asked), _AT_ONCE):
        part = asked[first : first + _AT_ONCE]
        urls = [f"{folder}/{quote(name)}" for name in part]
        for name, address, fields in zip(part, urls, headers(urls, small), strict=True):
            if fields is not None:
                found.append(Entry(name, address, _number(fields.get("content-length", "")), tag_of(fields)))
    return found


class _Links(html.parser.HTMLParser):
    """The addresses that an index page names."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "a":
            self.found += [value for name, value in attrs if name == "href" and value]


def names_of(text: str, base: str) -> list[str]:
    """The names of files right in the folder `base` that an index page (of Apache, nginx, ...) leads to.

    Links to elsewhere, to other servers and to what is no server at all are left out. Raises HostError for too many.
    """
    links = _Links()
    links.feed(text)
    here = urlsplit(base)
    folder = unquote(here.path.rpartition("/")[0])
    names = dict[str, None]()
    for number, href in enumerate(links.found):
        _check_number(base, number)
        try:
            there = urlsplit(urljoin(base, href.strip()))
        except ValueError:
            continue
        above, _, name = there.path.rpartition("/")
        same = (there.scheme, there.netloc) == (here.scheme, here.netloc) and unquote(above) == folder
        if same and name and not there.query:
            names[unquote(name)] = None
    return list(names)


def _ftp(url: str, wanted: Callable[[str], bool], limit: Limit) -> list[Entry]:
    """By MLSD, which says sizes and times; a server that does not know that is asked for names, then for each file."""
    folder = url.rstrip("/") + "/"
    small = Limit(PAGE_BYTES, limit.seconds, limit.stop)
    try:
        listed = page(folder, small, "--request", "MLSD")[0].decode("utf-8", "replace")
    except HostError:
        names = [line.strip() for line in page(folder, small, "--list-only")[0].decode("utf-8", "replace").splitlines()]
        _check_number(url, len(names))
        asked = [name.rpartition("/")[2] for name in names if wanted(name.rpartition("/")[2])]
        addresses = [folder + quote(name) for name in asked]
        answers = [headers([address], small)[0] or {} for address in addresses]
        return [
            Entry(name, address, _number(fields.get("content-length", "")), tag_of(fields))
            for name, address, fields in zip(asked, addresses, answers, strict=True)
        ]
    found = []
    for number, line in enumerate(listed.splitlines()):
        _check_number(url, number)
        facts, blank, name = line.partition(" ")
        said = {key.lower(): value for key, _, value in (fact.partition("=") for fact in facts.split(";"))}
        if blank and said.get("type", "").lower() == "file" and wanted(name):
            tag = f"{said.get('size', '')}|{said.get('modify', '')}|{said.get('unique', '')}"
            found.append(Entry(name, folder + quote(name), _number(said.get("size", "")), tag[:300]))
    return found


def _number(text: str) -> int:
    return int(text) if text.isdecimal() and len(text) < 16 else -1
