"""A revision of Subversion's that not everybody may read: this host checks it out and carries it into the head node.

The head node runs what the commit wrote, as root. So it gets the files, and neither the login nor a way to the server.
"""

from __future__ import annotations

import shlex
import tempfile
from pathlib import Path

from oscar_steps.environment import tool_environment
from oscar_steps.errors import HostError, SourceError
from oscar_steps.sources.externals_text import is_same_server
from oscar_steps.sources.login import Logins
from oscar_steps.sources.svn import error_kind, svn_words
from oscar_steps.testdriver.deadline import Deadline
from oscar_steps.testdriver.lookahead import run_tool
from oscar_steps.testdriver.reached import Booted
from oscar_steps.testdriver.run import Run

# What anybody may read in a checkout of the head node's own.
_PACK = ("tar", "--create", "--owner=0", "--group=0", "--numeric-owner", "--mode=u+rwX,go+rX,go-w")


async def carry(run: Run, booted: Booted, logins: Logins, deadline: Deadline) -> str:
    """Raises SourceError where the revision or repository does not exist, HostError where this host cannot have it."""
    source, home = run.job.source, run.job.answers.oscar_home
    with tempfile.TemporaryDirectory(prefix="checkout-", dir=run.directory) as scratch:
        top, packed = Path(scratch, "oscar"), Path(scratch, "oscar.tar")
        with run.diary.step(f"this host to check out {source} with its login"):
            await _fetch(logins, "checkout", source.url, source.revision, top, str(source), deadline)
        for external in source.externals:
            what = f"the external {external}"
            if not is_same_server(external.url, source.url):
                raise SourceError(
                    f"{what} is on another server, and a host that checks out with a login asks no other",
                    hint="take it into the repository's own server",
                )
            _check_inside(top, external.path, what)
            with run.diary.step(what):
                word = "export" if external.kind == "file" else "checkout"
                await _fetch(logins, word, external.url, external.revision, top / external.path, what, deadline)
        with run.diary.step(f"{source} to reach {home} in the head node"):
            command = [*_PACK, "--file", str(packed), "--directory", str(top), "."]
            await run_tool(
                command, tool_environment(), str(source), lambda _: HostError, str, seconds=max(deadline.left, 1.0)
            )
            unpack = f"mkdir -p {shlex.quote(home)} && tar -xpf - -C {shlex.quote(home)}"
            await booted.head.check(unpack, seconds=max(deadline.left, 1.0), stdin=packed)
    return f"{home} is at revision {source.revision}, which this host checked out with its login"


def _check_inside(top: Path, path: str, what: str) -> None:
    """A link of the tree must lead nothing out of it."""
    place = top
    for part in path.split("/"):
        place /= part
        if place.is_symlink():
            raise SourceError(f"{what} has to stand behind a link of the tree, {place.relative_to(top)}")


async def _fetch(
    logins: Logins, word: str, url: str, revision: str, place: Path, what: str, deadline: Deadline
) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    target = f"{place}@" if word == "export" else str(place)
    words = [word, "--non-interactive", "--quiet", "--ignore-externals", "-r", revision, f"{url}@{revision}", target]
    asking = logins.command(words)
    await run_tool(
        asking.words, tool_environment(), what, error_kind, svn_words, asking.stdin, seconds=max(deadline.left, 1.0)
    )
