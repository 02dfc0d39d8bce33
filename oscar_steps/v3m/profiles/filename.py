"""The name of a file as a profile has it: a path, a path below the home, or a URL of a file here."""

from __future__ import annotations

import re

from oscar_steps.environment import home_directory
from oscar_steps.errors import HostError
from oscar_steps.v3m.profiles.xmlfile import shown

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_VARIABLE = re.compile(r"\$(?:\{[^}/]*\}?|[A-Za-z_][A-Za-z0-9_]*|\()")


def local_path(text: str) -> str:
    """The path that `text` means on this host. Raises ValueError: why it is none, and what would be right.

    `~/` is the home; what a shell would make of anything else is refused: it would become the name of a folder.
    """
    path = text
    while path[:5].lower() == "file:":
        path = _of_url(path)
    if _URL.match(path):
        raise ValueError("is a URL; it has to name a file of this host")
    if variable := _VARIABLE.search(path):
        raise ValueError(f"has {shown(variable[0])} in it, and no variable is replaced here; write the whole path")
    user, slash, below = path.partition("/")
    if user == "~":
        if not below.strip("/"):
            raise ValueError("is the home directory; it has to name a file")
        return f"{_home()}/{below}"
    if user.startswith("~") and slash:
        raise ValueError(f"begins with {shown(user)}, and only ~/ is replaced here; write the whole path")
    return path


def _of_url(url: str) -> str:
    """What a URL of the scheme `file` names. As in libv3m `file://vm.img`, which names no host, is the file vm.img."""
    rest = url[5:]
    if not rest.startswith("/"):
        raise ValueError("is not the URL of a file; write, e.g., file:///vm/vm1.qcow2")
    if not rest.startswith("//"):
        return rest
    rest = rest[2:].strip()
    host, slash, path = rest.partition("/")
    if host.lower() == "localhost":
        return slash + path
    if not slash or host in ("", ".", "..", "~") or host.lower() == "file:" or "$" in host:
        return rest
    raise ValueError(f"names a file of another host, {shown(host)}; on this one it would be file:///{shown(path)}")


def _home() -> str:
    try:
        return str(home_directory("write the whole path")).rstrip("/")
    except HostError as error:
        raise ValueError(f"begins with ~/, and {error.sentence}; write the whole path") from None
