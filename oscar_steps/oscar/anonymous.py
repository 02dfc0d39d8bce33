"""Makes a cluster's output anonymous: addresses, hosts, users, paths, dates, secrets.

The same original always gets the same replacement of the same shape, over all files of one run, so that what the lines
mean stays: two nodes are two nodes, and a result line of apitest still has a date. What OSCAR and its distributions
call the same everywhere (`/opt/oscar`, `/tftpboot`, `oscarnode1`) stays as it is. Read everything with `learn` first.
"""

from __future__ import annotations

import datetime
import ipaddress
import re
from collections.abc import Callable, Iterable
from urllib.parse import urlsplit

LEFT_OUT = "[left out: it may hold a secret]"

_MONTHS = "Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec"
_DAYS = "Mon|Tue|Wed|Thu|Fri|Sat|Sun"
_TIME = r"\d\d:\d\d:\d\d"
_DATE = re.compile(
    rf"(?P<unix>\b(?:{_DAYS}) +(?:{_MONTHS}) +\d{{1,2}} +{_TIME}(?: +[A-Z]{{2,5}})? +\d{{4}}\b)|"
    rf"(?P<mail>\b(?:{_DAYS}),? +\d{{1,2}} +(?:{_MONTHS}) +\d{{4}}"
    rf"(?: +{_TIME}(?: [AP]M)?(?: +(?:[+-]\d{{4}}|[A-Z]{{2,5}}))?)?)|"
    rf"(?P<iso>\b\d{{4}}-\d\d-\d\d(?P<gap>[T ]){_TIME}(?:[.,]\d+)?(?:Z|[+-]\d\d:?\d\d)?)|"
    r"(?P<day>\b\d{4}-\d\d-\d\d\b)|(?P<slashes>\b\d{1,2}/\d{1,2}/\d{4}\b)|(?P<build>(?<=svn)\d{8}\b)|"
    rf"(?P<syslog>\b(?:{_MONTHS}) +\d{{1,2}} +{_TIME}\b)"
)
_FORMS = {
    "unix": "%a %b %d %H:%M:%S UTC %Y",
    "mail": "%a, %d %b %Y %H:%M:%S +0000",
    "day": "%Y-%m-%d",
    "syslog": "%b %d %H:%M:%S",
    "slashes": "%m/%d/%Y",
    "build": "%m%d%Y",
}
_FIRST_DATE = datetime.datetime(2007, 6, 14, 5, 0, 0)

_SECRET = re.compile(
    r"pass(?:word|wd|phrase)?['\"]?\s*(?:[:=]|is\b)\s*\S|IDENTIFIED\s+BY|"
    r"\$(?:1|2[aby]|5|6|y)\$\S{8,}|\b(?:ssh-(?:rsa|dss|ed25519)|ecdsa-sha2-\S+) [A-Za-z0-9+/]{16,}|-{5}BEGIN |"
    # A password comes after the word, whatever is between them; '/etc/passwd' and 'no passwd entry' are no secrets.
    r"(?<!etc/)(?:password|passwd|passphrase)s?\b(?!\s+entry\b)(?![\s'\".,:;!?)]*$)|\brootpw\b|pw\s*=\s*\S|"
    r"^(?=.*mysql)(?=.*\s-p\S)|"
    r"(?-i:(?:^|\s)[a-z_][\w.-]*:(?=[^:]*[A-Z])(?=[^:]*[a-z])[./A-Za-z0-9]{13}:)|"  # a field of crypt
    r"(?:secret|credentials?|(?:secret|access|private|api)[_-]?(?:access[_-]?)?key|\btoken)['\"]?\s*[:=]\s*\S|"
    r"(?:\b|_)pwd\s*=\s*['\"]?[^\s/.'\"]|\bchpasswd\b|\bAuthorization:|^(?=.*\bcurl\b)(?=.*\s(?:-u|--user)\s+\S+:\S)|"
    r"\bSHA256:\S{20,}",
    re.IGNORECASE,
)
_KEY_BEGINS, _KEY_ENDS = re.compile(r"-{5}BEGIN .*-{5}"), re.compile(r"-{5}END .*-{5}")
_TOKEN = re.compile(r"(?<![\w/])(?:[0-9A-Fa-f]{32,}|[A-Za-z0-9+]{40,}={0,2})(?![\w/])")
_UUID = re.compile(r"\b[0-9A-Fa-f]{8}(?:-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}\b")

_URL = re.compile(r"\b(?P<scheme>[a-z][a-z0-9+.-]*)://(?P<rest>[^\s'\"<>|)\]]*)")
_MAIL = re.compile(r"\b[\w.+-]+@[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)+\b")
# With more than six parts it is Infiniband's; a leading 01- is PXE's.
_MAC = re.compile(r"(?<![0-9A-Za-z])(?P<type>01-)?(?P<mac>(?:[0-9A-Fa-f]{2}[:-]){5,19}[0-9A-Fa-f]{2})(?![0-9A-Za-z])")
_CISCO_MAC = re.compile(r"(?<![\w.])(?:[0-9A-Fa-f]{4}\.){2}[0-9A-Fa-f]{4}(?!\w|\.\w)")
_IPV4 = re.compile(r"(?<![^\W_])(?<!\.)\d{1,3}(?:\.\d{1,3}){3}(?![^\W_]|\.\d)")
_PXE_FILE = re.compile(r"(?<=pxelinux\.cfg/)[0-9A-Fa-f]{2,8}(?![\w.-])")  # the first digits of a node's address
_IPV6 = re.compile(r"(?<![\w.])(?:[0-9A-Fa-f]{0,4}:){2,8}[0-9A-Fa-f]{0,4}(?!\w)")
_NETS = ("192.0.2", "198.51.100", "203.0.113")

_WORLD = "com|org|net|edu|gov|mil|int|info|io|local|localdomain|lan|internal|corp|home|arpa|intra|test"
_COUNTRY = "de|fr|uk|ch|at|nl|be|dk|no|fi|se|jp|cn|kr|ca|au|it|es|pt|eu|us|cz|ru|br|nz|ie|gr|tw|sg|za|mx"
_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?"
_FQDN = re.compile(rf"(?<![\w.-])(?:{_LABEL}\.)+(?:{_WORLD}|{_COUNTRY})(?!\w)", re.IGNORECASE)
_NO_HOST = re.compile(r"(?:.*\.)?example\.(?:com|org|net)|localhost\.localdomain|localhost", re.IGNORECASE)

_PATH = re.compile(r"(?<![\w./~$})*%-])(?<!:(?=//))(?:/+[\w.+@%,=~#-]+)+/?")
_SYSTEM = {"bin", "sbin", "lib", "lib32", "lib64", "etc", "var", "tmp", "tftpboot", "dev", "proc", "sys", "boot", "run"}
_LOCAL = {"bin", "sbin", "lib", "share", "src", "etc", "include", "man", "libexec", "games"}
_OPT = re.compile(
    r"oscar|sync_files|torque|pbs|maui|lam\S*|mpich\S*|openmpi\S*|pvm\S*|c3\S*|kernel_picker|env-switcher|modules|"
    r"ganglia|sge|pfilter|apitest|jobmonarch"
)
_FILE = re.compile(
    r"[\w.+-]{1,80}\.(?:pm|pl|py|sh|t|conf|cfg|xml|txt|list|rpmlist|deb|rpm|log|apt|apb|disk|iso|css|html)"
)
_HOME_OF = re.compile(r"/(?:home|Users|var/spool/mail|var/mail)/([\w.-]+)")
_USER = re.compile(r"\b(?:USER=\(?|user=|uid=\d+\()([\w.-]+)|\bfor user ([\w.-]+)(?=\(| by | from )")
_HOST = re.compile(r"\b(?:Hostname|DNS domain name): +([\w.-]+)")
_AT_HOST = re.compile(r"(?<![\w@.+-])([A-Za-z][\w.+-]*)@([A-Za-z][\w-]*)(?![\w.@-])")
_SSH = re.compile(r"(?<![\w./-])ssh +(?:-\S+ +)*([A-Za-z][\w-]*)(?=\s+[^\s:])")
_NO_SSH_HOST = re.compile(
    r"to|is|was|has|can|will|must|should|does|did|failed|error|the|an?|and|or|on|in|as|for|from|via|into|with|without|not|"
    r"keys?|server|clients?|daemon|service|ping|tests?|connections?|access|users?|login|config\w*|hosts?|package|version|"
    r"protocol|port|agent|session|nodes?|known_hosts|public|private|command|commands|between|works?|working|setup",
)
_GENERIC = re.compile(
    r"localhost|head|headnode|oscar|server|oscar_server|master|node|oscarnode\d*|root|farm|test|cluster|local|localdomain|"
    r"example|org|com|net|oscartst|nobody|admin|user|www-data|mysql|postgres|ganglia|debian|none|unknown|the|and|for|not|"
    r"[\d.]*"
)
"""Names that give nothing away, and words that would be replaced everywhere."""


class Anonymiser:
    """One run's replacements; see the module's docstring. `names`: of hosts and users that are known beforehand."""

    def __init__(self, names: Iterable[str] = (), oscar_home: str = "/opt/oscar") -> None:
        self._home = oscar_home.rstrip("/")
        self._made: set[str] = set()
        self._known: dict[tuple[str, str], str] = {}
        self._counts: dict[str, int] = {}
        self._names: dict[str, str] = {}
        self._in_key = False
        for name in names:
            self._name(name, "host")

    # -- what is there -------------------------------------------------------------------------------------------------

    def learn(self, text: str) -> None:
        """Note the names of hosts and users that `text` gives away, so that they are replaced wherever they are."""
        for match in _HOME_OF.finditer(text):
            self._name(match[1], "user")
        for match in _USER.finditer(text):
            self._name(next(filter(None, match.groups())), "user")
        for match in _HOST.finditer(text):
            self._name(match[1], "host")
        for match in _AT_HOST.finditer(text):
            self._name(match[1], "user")
            self._name(match[2], "host")
        for match in _SSH.finditer(text):
            if not _NO_SSH_HOST.fullmatch(match[1]):
                self._name(match[1], "host")

    def _name(self, name: str, kind: str) -> None:
        """A host's full name is learned with its first part and its domain."""
        parts = {name, name.partition(".")[0], name.partition(".")[2]} if kind == "host" else {name}
        for part in parts:
            word = part.strip(".-")
            plain = _GENERIC.fullmatch(word.lower())
            if len(word) >= 3 and not plain and not _NO_HOST.fullmatch(word):
                self._names.setdefault(word.lower(), self._host(word) if "." in word else self._next(kind))

    def originals(self) -> frozenset[str]:
        """All that has been replaced so far, but for dates."""
        found = {original for kind, original in self._known if kind != "date"} | set(self._names)
        return frozenset(original for original in found if len(original) >= 4)

    # -- what is put there ---------------------------------------------------------------------------------------------

    def line(self, text: str) -> str:
        """`text` without what it gives away. Lines of a private key are known by the one that begins it."""
        if self._in_key or _KEY_BEGINS.search(text):
            self._in_key = not _KEY_ENDS.search(text)
            return LEFT_OUT
        if _SECRET.search(text):
            return LEFT_OUT
        text = text.replace(self._home, "/opt/oscar") if self._home and self._home != "/opt/oscar" else text
        text = _DATE.sub(self._date, text)
        text = _UUID.sub(lambda m: self._as("uuid", m[0], lambda n: f"00000000-0000-0000-0000-{n:012d}"), text)
        text = _TOKEN.sub(lambda m: self._as("token", m[0], lambda n: f"token{n}"), text)
        text = _URL.sub(self._url, text)
        text = _MAIL.sub(lambda m: self._as("mail", m[0], lambda n: f"user{n}@example.org"), text)
        text = _MAC.sub(self._mac, text)
        text = _CISCO_MAC.sub(self._cisco_mac, text)
        text = _PXE_FILE.sub(lambda m: self._as("address", m[0].upper(), lambda n: f"address{n}"), text)
        text = _IPV4.sub(lambda m: self._ipv4(m[0]), text)
        text = _IPV6.sub(lambda m: self._ipv6(m[0]), text)
        text = _PATH.sub(lambda m: self._path(m[0]), text)
        text = _FQDN.sub(lambda m: self._host(m[0]), text)
        return self._learned(text)

    def _learned(self, text: str) -> str:
        for name, made in sorted(self._names.items(), key=lambda pair: -len(pair[0])):
            if name in text.lower():
                text = re.sub(rf"(?<![A-Za-z0-9]){re.escape(name)}(?![A-Za-z0-9])", made, text, flags=re.IGNORECASE)
        return text

    def _next(self, kind: str) -> str:
        self._counts[kind] = self._counts.get(kind, 0) + 1
        made = f"{kind}{self._counts[kind]}"
        self._made.add(made)
        return made

    def _as(self, kind: str, original: str, make: Callable[[int], str]) -> str:
        if original in self._made:
            return original
        if (kind, original) not in self._known:
            self._counts[kind] = self._counts.get(kind, 0) + 1
            self._known[kind, original] = make(self._counts[kind])
            self._made.add(self._known[kind, original])
        return self._known[kind, original]

    def _date(self, match: re.Match[str]) -> str:
        kind = next(name for name in (*_FORMS, "iso") if match[name])
        form = f"%Y-%m-%d{match['gap']}%H:%M:%S" if kind == "iso" else _FORMS[kind]
        return self._as("date", match[0], lambda n: (_FIRST_DATE + datetime.timedelta(seconds=n - 1)).strftime(form))

    def _host(self, name: str) -> str:
        if _NO_HOST.fullmatch(name):
            return name
        first = name.lower().partition(".")[0]
        if re.fullmatch(r"oscarnode\d+", first):
            return self._as("node", name.lower(), lambda _n: f"{first}.example.org")
        return self._as("fqdn", name.lower(), lambda n: f"host{n}.example.org")

    def _url(self, match: re.Match[str]) -> str:
        try:
            parts = urlsplit(match[0])
            host, port = parts.hostname or "", parts.port
        except ValueError:
            return f"{match['scheme']}://{self._as('url', match[0], lambda n: f'url{n}.example.org')}"
        if host and not _NO_HOST.fullmatch(host) and not host.startswith("127."):
            host = self._ipv4(host) if _IPV4.fullmatch(host) else self._host(host)
        path = parts.path if host or not parts.path else self._path(parts.path)
        if host and len(path) > 1:
            path = "/" + self._as("url path", path, lambda n: f"path{n}") + self._file_of(parts.path)
        return f"{match['scheme']}://{host}{f':{port}' if port else ''}{path}"

    def _mac(self, match: re.Match[str]) -> str:
        mark = match["mac"][2]
        return (match["type"] or "") + self._made_mac(match["mac"].lower().replace("-", ":")).replace(":", mark)

    def _cisco_mac(self, match: re.Match[str]) -> str:
        digits = match[0].lower().replace(".", "")
        made = self._made_mac(":".join(digits[at : at + 2] for at in range(0, 12, 2))).replace(":", "")
        return f"{made[:4]}.{made[4:8]}.{made[8:]}"

    def _made_mac(self, mac: str) -> str:
        return self._as("mac", mac, lambda n: f"52:54:00:00:{n >> 8 & 255:02x}:{n & 255:02x}")

    def _ipv4(self, address: str) -> str:
        octets = [int(octet) for octet in address.split(".")]
        if max(octets) > 255 or octets[0] in (0, 127, 255) or address in self._made:
            return address
        net = address.rpartition(".")[0]
        kind = f"ipv4 {net}"
        if (kind, "") not in self._known:
            self._counts["net"] = count = self._counts.get("net", 0) + 1
            self._known[kind, ""] = _NETS[count - 1] if count <= len(_NETS) else f"10.200.{count & 255}"
        return self._as(kind, address, lambda n: f"{self._known[kind, '']}.{n & 255}")

    def _ipv6(self, text: str) -> str:
        """A colon that belongs to the words around it stays: 'addr:fe80::1: up'."""
        for inner in (text, text.removeprefix(":"), text.removesuffix(":"), text[1:-1] if text[0] == ":" else ""):
            try:
                address = ipaddress.IPv6Address(inner)
            except ValueError:
                continue
            if address.is_loopback or address.is_unspecified or not re.search(r"\d", inner):
                return text
            before, after = text.split(inner, 1)
            return before + self._as("ipv6", inner.lower(), lambda n: f"2001:db8::{n:x}") + after
        return text

    def _path(self, path: str) -> str:
        parts = [part for part in path.split("/") if part]
        if not parts or path in self._made or _stays(parts):
            return path
        if parts[0] in ("home", "Users") and len(parts) == 2:
            return path  # its user is replaced with all the others
        folder = "/" + "/".join(parts[:-1])
        end = self._file_of(path)
        what = folder if end else "/" + "/".join(parts)
        return self._as("path", what, lambda n: f"/path{n}") + end + ("/" if path.endswith("/") else "")

    def _file_of(self, path: str) -> str:
        """The last part of a path where it is a plain file's name, which mostly is a program's; else nothing."""
        name = path.rstrip("/").rpartition("/")[2]
        return f"/{name}" if _FILE.fullmatch(name) else ""


def _stays(parts: list[str]) -> bool:
    """Whether a path is the same on every cluster."""
    if len(parts) == 1:
        return (
            parts[0] in {*_SYSTEM, "home", "root", "opt", "usr", "srv", "mnt", "media", "n", "A"} or len(parts[0]) < 3
        )
    if parts[0] == "usr":
        return parts[1] != "local" or len(parts) == 2 or parts[2] in _LOCAL
    if parts[0] == "opt":
        return _OPT.fullmatch(parts[1]) is not None
    if parts[0] == "tmp":
        return len(parts) == 2 or _OPT.fullmatch(parts[1]) is not None
    if parts[0] == "root":
        return parts[1] == "farm" or parts[1].startswith(".")
    return parts[0] in _SYSTEM or parts[:2] == ["home", "oscartst"] or parts[0] in (".", "..")
