"""What `checkconfig` refuses, in one sentence with file and line; a start would refuse it with a traceback."""

from __future__ import annotations

import errno
import os
import re
import socket
from collections.abc import Iterator
from fnmatch import fnmatchcase
from ipaddress import ip_address
from pathlib import Path

import psutil
from lxml import etree
from twisted.internet import reactor
from twisted.internet.endpoints import serverFromString

from oscar_steps.errors import ConfigError
from oscar_steps.master import database
from oscar_steps.master.privacy import check_private
from oscar_steps.master.scale.slots import MAX_BUILDS
from oscar_steps.matrix.cells import Matrix, default_profiles
from oscar_steps.site import Schedule, Site
from oscar_steps.textio import some
from oscar_steps.tomlfile import line_of, read_text

_TOKENS = re.compile(r"\[!?\]?[^\]]*\]|.", re.DOTALL)
_TOO_MANY_BUILDS = (
    f"one worker's connection bears {MAX_BUILDS} builds; give {MAX_BUILDS} at most, and run a second worker on the host"
)


def check_start(site: Site, matrix: Matrix, site_file: Path, state: Path) -> None:
    """Raise ConfigError for the first thing that would keep the master in the folder `state` from starting."""
    check_private(state, site.database)
    text = read_text(site_file)

    def refuse(sentence: str, *location: int | str) -> ConfigError:
        key = ".".join(str(part) for part in location)
        return ConfigError(f"{site_file}:{line_of(text, location)}: {key}: {sentence}")

    for said in database.faults(site, state):
        raise refuse(said, "database", "url")
    for index, pattern in enumerate(site.schedule.branches):
        if pattern not in Schedule().branches and not can_match(pattern, site):
            raise refuse(_matches_nothing(pattern, site), "schedule", "branches", index)
    for said in _address(site.web.address):
        raise refuse(said, "web", "address")
    for said in _endpoint(site.master.port):
        raise refuse(said, "master", "port")
    where = tcp_place(site.master.port)
    if where and where[1] == site.web.port and _overlap(where[0], site.web.address):
        raise refuse(f"[web] port is {site.web.port} too; workers and web pages need a port each", "master", "port")
    for said in _port_in_use(site.web.address, site.web.port, state):
        raise refuse(said, "web", "port")
    for said in _port_in_use(*where, state) if where else ():
        raise refuse(said, "master", "port")
    for index in (index for index, host in enumerate(site.worker) if host.builds > MAX_BUILDS):
        raise refuse(_TOO_MANY_BUILDS, "worker", index, "builds")
    for path, cell in {matrix.cluster_path(cell): cell for cell in matrix.cells}.items():
        _check_cluster(path, matrix.cluster_xml(cell))


def _address(address: str) -> Iterator[str]:
    try:
        if address != "localhost":
            ip_address(address)
    except ValueError:
        yield f"'{address}' is not the address of an interface; write 127.0.0.1, 0.0.0.0, ::1 or ::"


def _endpoint(endpoint: str) -> Iterator[str]:
    """What is wrong with a Twisted endpoint."""
    right = "write tcp:9989:interface=127.0.0.1"
    place = tcp_place(endpoint)
    if place:
        if not 0 < place[1] < 65536:
            yield f"{place[1]} is not a TCP port (1 to 65535); {right}"
        yield from _address(place[0])
        return
    try:
        if endpoint.partition(":")[0] in ("tcp", "tcp6"):
            raise ValueError("it has no port number")
        serverFromString(reactor, endpoint)
    except Exception as error:
        yield f"'{endpoint}' is not an endpoint that workers can connect to ({error}); {right}"


def tcp_place(endpoint: str) -> tuple[str, int] | None:
    """Address and port of an endpoint like `tcp:9989:interface=127.0.0.1`; None for all others."""
    found = re.fullmatch(r"(?:tcp:)?(?:port=)?(\d+)((?::(?:interface|backlog)=(?:\\.|[^:\\])*)*)", endpoint)
    if not found:
        return None
    interface = re.search(r":interface=((?:\\.|[^:\\])*)", found[2])
    return (re.sub(r"\\(.)", r"\1", interface[1]) if interface else "0.0.0.0"), int(found[1])


def _overlap(one: str, other: str) -> bool:
    return one == other or "0.0.0.0" in (one, other) or "::" in (one, other)


def _port_in_use(address: str, port: int, state: Path) -> Iterator[str]:
    """Whether another program has the port, or the address is none of this host's."""
    family, kind, protocol, _name, place = socket.getaddrinfo(address, port, type=socket.SOCK_STREAM)[0]
    with socket.socket(family, kind, protocol) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(place)
        except OSError as error:
            if error.errno == errno.EADDRNOTAVAIL:
                yield f"no interface of this host has the address {address}"
            elif error.errno == errno.EACCES:
                yield f"port {port} is for root alone; take one above 1023, and put a web server before it"
            elif error.errno != errno.EADDRINUSE:
                yield f"port {port} of {address} cannot be opened: {error.strerror}"
            elif not _is_our_master(port, state):
                yield f"port {port} of {address} is in use by another program; end that, or choose another port"


def _is_our_master(port: int, state: Path) -> bool:
    """Whether a master of the folder `state` (this process, at a reconfiguration) listens on the port."""
    try:
        everything = psutil.net_connections("tcp")
    except psutil.AccessDenied:
        return True  # nothing can be seen; the start will show it
    for connection in everything:
        if connection.status != psutil.CONN_LISTEN or tuple(connection.laddr)[1] != port:
            continue
        if connection.pid is None:
            # Somebody else's process. It may be the master's, when another user than the master's asks.
            if state.stat().st_uid != os.geteuid():
                return True
            continue
        try:
            if connection.pid == os.getpid() or Path(psutil.Process(connection.pid).cwd()) == state:
                return True
        except psutil.Error:
            continue
    return False


def can_match(pattern: str, site: Site) -> bool:
    """Whether a shell pattern matches the name of any branch there could be: trunk, branches/NAME, git/NAME/BRANCH."""
    tokens, repository = _TOKENS.findall(pattern), site.repository
    if any(len(tokens) > after for git in site.git for after in _consumed(tokens, git.prefix)):
        return True
    if repository is None:
        return False
    if len(tokens) in _consumed(tokens, repository.trunk):
        return True
    for folder in (repository.branches, repository.tags):
        for after in _consumed(tokens, f"{folder}/"):
            rest = tokens[after:]
            if rest and "/" not in rest and "[/]" not in rest:
                return True
    return False


def _consumed(tokens: list[str], text: str) -> set[int]:
    """How many tokens may have been used up when `text` has been matched (a * may go on)."""
    states = _with_stars(tokens, {0})
    for character in text:
        states = _with_stars(
            tokens,
            {n if tokens[n] == "*" else n + 1 for n in states if n < len(tokens) and _takes(tokens[n], character)},
        )
    return states


def _with_stars(tokens: list[str], states: set[int]) -> set[int]:
    found = set(states)
    for n in sorted(states):
        while n < len(tokens) and tokens[n] == "*":
            n += 1
            found.add(n)
    return found


def _takes(token: str, character: str) -> bool:
    return fnmatchcase(character, token)


def _matches_nothing(pattern: str, site: Site) -> str:
    return f"'{pattern}' can match no branch: they are called {some(site.branch_names)}"


def _check_cluster(path: Path, xml: str) -> None:
    """The cluster's XML against its grammar, which the driver on the workers checks again, and deeper."""
    grammar = path.parent.parent / "v3m_cluster.dtd"
    parser = etree.XMLParser(resolve_entities=False, no_network=True, load_dtd=False)
    try:
        tree = etree.fromstring(xml.encode(), parser)
    except etree.XMLSyntaxError as error:
        raise ConfigError(f"{path}:{error.lineno or 1}: this is not well-formed XML: {error.msg}") from None
    dtd = etree.DTD(str(grammar if grammar.is_file() else default_profiles() / grammar.name))
    if not dtd.validate(tree):
        first = dtd.error_log[0]
        raise ConfigError(f"{path}:{first.line}: this is not a valid cluster ({grammar.name}): {first.message}")
