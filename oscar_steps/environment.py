"""What we take from our environment: the variables of every external program, and the folders of this user."""

from __future__ import annotations

import os
import pwd
from pathlib import Path

from oscar_steps.errors import HostError

LOCALE = "C.UTF-8"
SYSTEM_PATH = "/usr/local/sbin:/usr/sbin:/sbin"
_XDG = ("XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_RUNTIME_DIR", "XDG_STATE_HOME")
_KEPT = ("HOME", "USER", "LOGNAME", "TMPDIR", "SSH_AUTH_SOCK", *_XDG)
_KEPT_PREFIX = "OSCAR_FARM_"
_PROXIES = ("http_proxy", "https_proxy", "ftp_proxy", "no_proxy")


def tool_environment(**more: str) -> dict[str, str]:
    """The environment for a program that is started on this host.

    Kept from the caller: `HOME`, `USER`, `TMPDIR`, the XDG folders, the SSH agent, `PATH` with the sbin folders
    behind it, and variables that begin with `OSCAR_FARM_`. Everything else is left out: locales, and the switches by
    which tar, perl, Python, bash and others change what they do. `more` is added at the end.
    """
    kept = {name: os.environ[name] for name in _KEPT if name in os.environ}
    marks = {name: value for name, value in os.environ.items() if name.startswith(_KEPT_PREFIX)}
    path = os.pathsep.join(part for part in (os.environ.get("PATH", ""), SYSTEM_PATH) if part)
    return {**kept, **marks, "PATH": path, "LC_ALL": LOCALE, "LANG": LOCALE, **more}


def machine_environment() -> dict[str, str]:
    """The environment of a process that has a guest in it: it says nothing of us to a guest that breaks out."""
    marks = {name: value for name, value in os.environ.items() if name.startswith(_KEPT_PREFIX)}
    return {**marks, "PATH": os.defpath, "LC_ALL": LOCALE, "LANG": LOCALE}


def libvirt_environment() -> dict[str, str]:
    """The environment for virsh, and for the ssh that it starts: which libvirt it asks is the user's choice."""
    return tool_environment(
        **{name: value for name, value in os.environ.items() if name.startswith("LIBVIRT_") or name == "XAUTHORITY"}
    )


def python_environment() -> dict[str, str]:
    """The environment for our own programs, which start others in turn and find package and proxies as we do."""
    names = ("PYTHONPATH", *_PROXIES, *(name.upper() for name in _PROXIES))
    return libvirt_environment() | {name: os.environ[name] for name in names if os.environ.get(name)}


def home_directory(instead: str) -> Path:
    """The user's home, by HOME, otherwise by the host's list of users.

    `instead`: what else can be set, for the hint. Raises HostError where there is no home.
    """
    home = Path(os.environ.get("HOME", ""))
    if not home.is_absolute():
        try:
            home = Path(pwd.getpwuid(os.getuid()).pw_dir)
        except KeyError:
            home = Path()
    if not home.is_absolute():
        what = f"there is no home directory: HOME is not an absolute path, and this host has no user {os.getuid()}"
        raise HostError(what, hint=f"set HOME, or {instead}")
    return home


def cache_directory(instead: str = "XDG_CACHE_HOME") -> Path:
    """Where this user's caches of the farm are, by the XDG's rule. Raises HostError as `home_directory` does."""
    cache = Path(os.environ.get("XDG_CACHE_HOME", ""))
    return (cache if cache.is_absolute() else home_directory(instead) / ".cache") / "oscar-farm"


def default_runs() -> Path:
    """Where runs are kept when nobody says otherwise: for root a place of the system's, otherwise one of the user's."""
    if os.geteuid() == 0:
        return Path("/var/lib/oscar-farm/runs")
    return home_directory("use --runs FOLDER") / ".local/share/oscar-farm/runs"


def default_store() -> Path:
    """Where images are kept when nobody says otherwise."""
    if os.geteuid() == 0:
        return Path("/var/cache/oscar-farm")
    return cache_directory("XDG_CACHE_HOME, or use --images FOLDER")
