"""Finds the exact revision of a source that a person asked for."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from oscar_steps.environment import cache_directory, tool_environment
from oscar_steps.errors import ConfigError, HostError, SourceError
from oscar_steps.sources.externals import Answer, Memory, externals_of, seconds_of
from oscar_steps.sources.git import FULL_ID, PROTOCOLS, is_git, may_be_id, name_fault, named
from oscar_steps.sources.login import Login, Logins
from oscar_steps.sources.mirror import mirror_of, remote_refs
from oscar_steps.sources.source import External, Source
from oscar_steps.sources.svn import PASSWORD_IN_URL, advice, error_kind, revision_answer, revision_question, svn_words
from oscar_steps.tomlfile import load_toml, validate
from oscar_steps.v3m.host.ledger import owned

DEFAULT_URL = "http://svn.oscar.openclustergroup.org/oscar/trunk"  # where OSCAR's own Subversion server has it
LOGINS_FILE = Path("/etc/oscar-farm/subversion.toml")
"""The administrator's; without it svn's own settings of the user count."""
EXPORT_SECONDS = 300
ASK_SECONDS = 60


def source_as_asked(url: str, revision: str, *, is_gits: bool = False) -> Source:
    """What to test, before anybody was asked for it. Raises SourceError for what is no URL or no revision."""
    if not re.match(r"[a-z+]+://.", url):
        said = "such as svn://HOST/oscar/trunk or https://HOST/oscar.git"
        raise SourceError(f"'{url}' is not the URL of a Subversion or git repository, {said}")
    if PASSWORD_IN_URL.search(url):
        words = "the URL of the repository contains a password, which would appear in job.json and in logs"
        raise SourceError(words, hint="leave it out: svn remembers the one that you type, and git reads ~/.netrc")
    if is_gits or is_git(url):
        _check_git(url, revision)
        return Source(kind="git", url=url, revision=revision)
    if not re.fullmatch(r"r?\d{1,10}|HEAD|\{[^{}]+\}", revision, re.IGNORECASE):
        words = f"'{revision}' is not a Subversion revision, such as 5916, HEAD or {{2007-06-15}}"
        raise SourceError(f"{url} at revision {revision}: {words}")
    return Source(url=url, revision=revision)


def _check_git(url: str, revision: str) -> None:
    if url.partition(":")[0] not in PROTOCOLS:
        raise SourceError(f"'{url}' is no address that git may read here; {', '.join(PROTOCOLS)} may be")
    if fault := name_fault(revision):
        raise SourceError(f"{url}: {fault}, such as main, 6.1.2 or 0123abcd")


def exact(asked: Source, cache: Path) -> Source:
    """The same with its exact revision: a number, or a commit's full id. Raises SourceError or HostError."""
    if asked.kind == "svn":
        number = resolve_revision(asked.url, asked.revision)
        return asked.model_copy(update={"revision": number, "externals": externals_at(asked.url, number)})
    if FULL_ID.fullmatch(asked.revision):
        return asked
    if not may_be_id(asked.revision) and (found := named(remote_refs(asked.url), asked.revision)):
        return asked.model_copy(update={"revision": found})
    with mirror_of(asked.url, cache) as mirror:  # it may be the beginning of an id, which only a copy can tell
        return asked.model_copy(update={"revision": mirror.resolve(asked.revision)})


def resolve_revision(url: str, revision: str) -> str:
    """The number of `revision`, as the farm's master finds it. Raises SourceError or HostError, in svn's words."""
    answer = run_svn(revision_question(url, revision), ASK_SECONDS, url)
    return revision_answer(url, revision, *(each.decode("utf-8", "replace") for each in (answer.stdout, answer.stderr)))


def externals_at(url: str, revision: str, memory: Memory | None = None) -> tuple[External, ...]:
    """What a checkout of an exact revision gets from elsewhere, as the farm's master finds it. Raises as `exact`.

    `memory` makes the answers for several revisions of one tree cheap.
    """
    questions = externals_of(url, revision, memory or Memory())
    try:
        words = next(questions)
        while True:
            said = run_svn([words[0], "--non-interactive", *words[1:]], seconds_of(words), url)
            answer = Answer(said.returncode, said.stdout, said.stderr.decode("utf-8", "replace"))
            words = questions.send(answer)
    except StopIteration as end:
        found: tuple[External, ...] = end.value
        return found


def svn(*words: str, seconds: float = ASK_SECONDS, about: str) -> bytes:
    """What svn prints. Raises SourceError where `about` does not exist, HostError otherwise, in svn's words."""
    answer = run_svn([words[0], "--non-interactive", *words[1:]], seconds, about)
    if answer.returncode == 0:
        return answer.stdout
    errors = answer.stderr.decode("utf-8", "replace")
    hint = advice(errors) or "check --url and the revision"
    raise error_kind(errors)(f"{about}: svn {words[0]} says {svn_words(errors)}", hint=hint)


class HostLogins(BaseModel):
    """`LOGINS_FILE`, which need not be there: the servers at which this host shows who it is."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    server: tuple[Login, ...] = ()


def host_logins() -> Logins:
    """The logins at Subversion servers that this host has. Raises ConfigError with file and line."""
    try:
        LOGINS_FILE.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return Logins()
    except OSError as error:
        raise ConfigError(f"{LOGINS_FILE} cannot be read by this user: {error.strerror}") from None
    servers = validate(HostLogins, LOGINS_FILE, *load_toml(LOGINS_FILE)).server
    folder = LOGINS_FILE.parent
    return Logins(cache_directory() / "svn", tuple(server.below(folder) for server in servers))


def is_carried(source: Source) -> bool:
    """Whether this host checks it out for the head node, which has no login. Raises ConfigError."""
    return source.kind == "svn" and host_logins().of(source.url) is not None


def run_svn(words: list[str], seconds: float, about: str) -> subprocess.CompletedProcess[bytes]:
    """Run svn to its end. Raises HostError where there is none on this host, or where it takes longer."""
    if shutil.which("svn") is None:
        raise HostError("there is no Subversion client on this host", hint="apt-get install subversion")
    asking = host_logins().command(words)
    try:
        return subprocess.run(
            owned(asking.words),
            input=asking.stdin,
            capture_output=True,
            timeout=seconds,
            check=False,
            env=tool_environment(),
        )
    except subprocess.TimeoutExpired:
        raise HostError(f"timed out after {seconds:.0f} s waiting for svn {words[0]} of {about}") from None
