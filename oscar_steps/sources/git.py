"""What git is asked and answers, on both sides of the farm: its settings, names of revisions, whose mistake it is."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from urllib.parse import unquote, urlsplit

from oscar_steps.environment import tool_environment
from oscar_steps.errors import HostError, SourceError
from oscar_steps.sources.source import Source
from oscar_steps.sources.svn import NOBODY

PROTOCOLS = ("file", "git", "http", "https", "ssh")
"""Others run programs (`ext::`), or are helpers that nobody has looked at."""
HEADS, TAGS = "refs/heads/", "refs/tags/"
REMOTE_HEAD = "refs/farm/HEAD"
"""In a mirror: what the server's HEAD is."""
ALL_REFS = ("+refs/heads/*:refs/heads/*", "+refs/tags/*:refs/tags/*")
LISTED_BYTES = 16 << 20
"""Folders that are the same are one object of git's: some kilobytes can be a commit of a thousand million files."""
_LISTED = '"$@" | head -c "$0"; status=${PIPESTATUS[0]}; exit $((status == 128 + 13 ? 0 : status))'
"""Where there is more, git ends by SIGPIPE."""
FULL_ID = re.compile(r"[0-9a-f]{40}")
_ABBREVIATED = re.compile(r"[0-9a-fA-F]{4,40}")
_LONGEST_NAME = 255
_LONGEST_AUTHOR = 100
"""Characters of an author's name: address and name have to fit into a column of Buildbot's database."""
NOT_SEEN = r"\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff\ud800-\udfff"
"""Characters that nobody sees, or that turn what follows: a name with them looks like another one."""
_NO_NAME = re.compile(rf"[\x00-\x20{NOT_SEEN}~^:?*\[\\]|\.\.|@\{{|//|^[-/.]|[/.]\Z|\.lock\Z")
_SETTINGS = {
    "core.hooksPath": "/dev/null",
    "core.fsmonitor": "false",
    "core.quotePath": "false",
    "fetch.recurseSubmodules": "false",
    "submodule.recurse": "false",
    "gc.autoDetach": "false",
    "init.defaultBranch": "main",
    # What asks a web server is a program of git's own, which a killed git leaves behind: it ends by itself.
    "http.lowSpeedLimit": "1",
    "http.lowSpeedTime": "300",
}
# What the asker has named wrongly; everything else (no network, no room, no permission) is the host's or the server's.
_NOT_THERE = re.compile(
    r"couldn't find remote ref|not our ref|repository '.*' not found|Repository not found|"
    r"does not appear to be a git repository|repository not exported|no such remote ref|unadvertised object|"
    r"access denied or repository not exported",
    re.IGNORECASE,
)
_SAID = re.compile(r"^(?:fatal|error|remote|ERR|ssh): .*", re.MULTILINE)


def git_environment() -> dict[str, str]:
    """The environment of every git: no settings but ours, no hooks, no questions, no helpers, no other protocols."""
    settings = {"GIT_CONFIG_COUNT": str(len(_SETTINGS))}
    for number, (name, value) in enumerate(_SETTINGS.items()):
        settings |= {f"GIT_CONFIG_KEY_{number}": name, f"GIT_CONFIG_VALUE_{number}": value}
    return tool_environment(
        GIT_CONFIG_NOSYSTEM="1",
        GIT_CONFIG_GLOBAL="/dev/null",
        GIT_ATTR_NOSYSTEM="1",
        GIT_NO_REPLACE_OBJECTS="1",
        GIT_TERMINAL_PROMPT="0",
        GIT_ASKPASS="/bin/false",
        GIT_SSH_COMMAND="ssh -oBatchMode=yes -oConnectTimeout=60 -oServerAliveInterval=60",
        GIT_ALLOW_PROTOCOL=":".join(PROTOCOLS),
        **settings,
    )


def listing(*words: str) -> list[str]:
    """The command for what git prints, without what comes after LISTED_BYTES of it. It ends as git has ended."""
    return ["bash", "-c", _LISTED, str(LISTED_BYTES), "git", *words]


def is_git(url: str) -> bool:
    """Whether an address is a git repository's, by its form; for a folder of this host by what is there."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return False
    if parts.scheme in ("git", "ssh") or parts.path.rstrip("/").endswith(".git"):
        return True
    if parts.scheme != "file":
        return False
    folder = Path(unquote(parts.path))
    try:
        return any((place / "HEAD").is_file() and (place / "objects").is_dir() for place in (folder, folder / ".git"))
    except (OSError, ValueError):
        return False


def url_words(source: Source) -> list[str]:
    """The options of `oscar-testdriver` that name a repository of Subversion's or git's."""
    return ["--url", source.url, *(["--git"] if source.kind == "git" and not is_git(source.url) else [])]


def author_of(name: str, address: str) -> str:
    """Who made a commit, as the farm's mails look for an address: 'Name <address>'."""
    name, address = " ".join(name.split())[:_LONGEST_AUTHOR], address.strip()
    return f"{name} <{address}>" if name and address else name or address or NOBODY


def person(author: str) -> str:
    """An author for people: without the address, where there is more than that."""
    return re.sub(r"(?<=\S) <[^<>]*>$", "", author)


def name_fault(name: str) -> str:
    """Why this is no name of a branch or tag, and no commit's id; '' where it may be one."""
    if not name or len(name) > _LONGEST_NAME or _NO_NAME.search(name):
        return f"{name[:60]!a} is no branch, tag or commit id of git's"
    return ""


def refs_in(output: bytes) -> dict[str, str]:
    """Name of each reference -> the commit's id, from what `git ls-remote` prints; tags lead to their commits.

    References of other names than git itself allows are left out: a server may say what it wants.
    """
    found = dict[str, str]()
    for line in output.decode("utf-8", "replace").split("\n"):
        identity, _, name = line.partition("\t")
        plain = name.removesuffix("^{}")
        usable = FULL_ID.fullmatch(identity) and not name_fault(plain) and "\ufffd" not in plain
        if usable and (name != plain or plain not in found):
            found[plain] = identity
    return found


def named(refs: Mapping[str, str], wanted: str, ids: Iterable[str] = ()) -> str:
    """The id of the commit that `wanted` means: a branch, a tag, HEAD, or one of `ids`, which begin like it.

    '' where nothing is called so. Raises SourceError where it may be several.
    """
    names = [wanted] if wanted == "HEAD" or wanted.startswith("refs/") else [HEADS + wanted, TAGS + wanted]
    found = {name: refs[name] for name in names if name in refs}
    found |= {identity: identity for identity in ids}
    if len({*found.values()}) > 1:
        raise SourceError(f"'{wanted}' may be {' or '.join(sorted(found)[:5])}", hint="write one of these")
    return next(iter(found.values()), "")


def may_be_id(wanted: str) -> bool:
    """Whether it may be (the beginning of) a commit's id."""
    return bool(_ABBREVIATED.fullmatch(wanted))


def error_kind(errors: str) -> type[SourceError] | type[HostError]:
    """Whose fault it is that git ended with these lines: the asker's where it is that nothing is there."""
    return SourceError if _NOT_THERE.search(errors) else HostError


def git_words(errors: str) -> str:
    """Git's reason, among the lines that it wrote to standard error."""
    said: list[str] = [line for line in _SAID.findall(errors) if line.partition(": ")[2].strip()]
    telling = [line for line in said if _NOT_THERE.search(line)] or said
    if telling:
        return telling[0].strip()
    lines = [line.strip() for line in errors.splitlines() if line.strip()]
    return lines[-1] if lines else "(it said nothing)"
