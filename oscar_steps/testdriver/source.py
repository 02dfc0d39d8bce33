"""What is to be tested, as somebody asked for it, and what Subversion makes of that."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

from oscar_steps.environment import tool_environment
from oscar_steps.errors import HostError, SourceError
from oscar_steps.job import Source
from oscar_steps.svn import PASSWORD_IN_URL, svn_words
from oscar_steps.v3m.ledger import owned

DEFAULT_URL = "http://svn.oscar.openclustergroup.org/oscar/trunk"  # where OSCAR's own Subversion server has it
EXPORT_SECONDS = 300
# Subversion's own numbers for what does not exist: revision, path, repository; and for what cannot be meant.
NOT_THERE = re.compile(r"[EW](160005|160006|160013|170000|180001|195002|195012|200009|205000|210005)\b")


def source_as_asked(url: str, revision: str) -> Source:
    """What to test, before anybody was asked for it. Raises SourceError for what is no URL or no revision."""
    if not re.match(r"[a-z+]+://.", url):
        raise SourceError(f"'{url}' is not the URL of a Subversion repository, such as svn://HOST/oscar/trunk")
    if PASSWORD_IN_URL.search(url):
        words = "the URL of the repository has a password in it, which would stand in job.json and in logs"
        raise SourceError(words, hint="leave it out: Subversion takes none from there, and remembers what you type")
    if not re.fullmatch(r"r?\d{1,10}|HEAD|\{[^{}]+\}", revision, re.IGNORECASE):
        words = f"'{revision}' is not a Subversion revision, such as 5916, HEAD or {{2007-06-15}}"
        raise SourceError(f"{url} at revision {revision}: {words}")
    return Source(url=url, revision=revision)


def resolve_revision(url: str, revision: str) -> str:
    """The number of `revision` ('HEAD' is asked of the server). Raises SourceError or HostError, in svn's words."""
    command = ["svn", "info", "--non-interactive", "--show-item", "revision", "-r", revision, url]
    try:
        answer = subprocess.run(
            command, capture_output=True, text=True, errors="replace", timeout=60, check=False, env=tool_environment()
        )
    except FileNotFoundError:
        raise HostError("there is no Subversion client on this host", hint="apt-get install subversion") from None
    except subprocess.TimeoutExpired:
        raise HostError(f"the repository {url} did not answer for 60 s") from None
    if answer.returncode == 0:
        return answer.stdout.strip()
    words = svn_words(answer.stderr)
    if NOT_THERE.search(answer.stderr):
        raise SourceError(f"{url} at revision {revision}: {words}", hint="check --url and --revision")
    raise HostError(f"{url} cannot be asked for its revision: {words}", hint="is the server up, and --url right?")


def export(source: Source, place: Path) -> None:
    """The files of `source`, without what its externals name. Raises SourceError or HostError, in svn's words."""
    command = ["svn", "export", "--quiet", "--non-interactive", "--ignore-externals", "-r", source.revision]
    try:
        answer = subprocess.run(
            owned([*command, str(source), str(place)]),
            capture_output=True,
            text=True,
            errors="replace",
            timeout=EXPORT_SECONDS,
            env=tool_environment(),
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise HostError(f"the repository did not deliver {source} in {EXPORT_SECONDS} s") from None
    if answer.returncode != 0:
        kind = SourceError if NOT_THERE.search(answer.stderr) else HostError
        raise kind(f"{source} cannot be exported: {svn_words(answer.stderr)}", hint="check --url and --revision")
