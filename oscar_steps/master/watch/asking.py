"""Questions to Subversion and git, asked by the master without waiting for the answer."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from buildbot.util import runprocess
from twisted.python import log

from oscar_steps.environment import tool_environment
from oscar_steps.errors import HostError, SourceError
from oscar_steps.sources.login import Logins
from oscar_steps.sources.svn import revision_answer, revision_question

_SVN_SECONDS = 120
_NONE = Logins()
_MOST_BYTES = 128 << 20
"""Of what a program prints; a server may send without end."""


async def run_program(
    reactor: Any,
    words: list[str],
    environment: Mapping[str, str],
    seconds: float,
    running: set[Any] | None = None,
    stdin: bytes = b"",
    most: int = 0,
) -> tuple[int, bytes, str]:
    """Run a program to its end: status, output, complaint. It is a member of `running` meanwhile, so it can be killed.

    One that was ended has a status below 0, and its complaint says why. `most`: bytes that it may print; 0: as others.
    """
    most = most or _MOST_BYTES
    output, complaint = bytearray(), bytearray()

    def keep(kept: bytearray, more: bytes) -> None:
        kept += more[: max(0, most - len(kept))]
        if len(kept) >= most and not process.killed:
            process.kill("it prints too much")

    inherited: dict[str, str | None] = dict.fromkeys(os.environ)  # None: RunProcess takes it out
    process = runprocess.RunProcess(
        reactor,
        words,
        env={**inherited, **environment},
        collect_stdout=lambda more: keep(output, more),
        collect_stderr=lambda more: keep(complaint, more),
        io_timeout=None,
        runtime_timeout=seconds,
        initial_stdin=stdin or None,
    )
    running = set() if running is None else running
    running.add(process)
    try:
        status = await process.start()
    finally:
        running.discard(process)
    said = complaint.decode("utf-8", "replace")
    if process.killed and len(output) >= most:
        said = f"it was ended after it had printed {most >> 20} MiB"
    elif process.killed and not said.strip():
        said = f"timed out after {seconds:.0f} s waiting for {words[0]}"
    return status, bytes(output), said


async def run_svn(
    reactor: Any,
    words: list[str],
    running: set[Any] | None = None,
    seconds: float = _SVN_SECONDS,
    logins: Logins = _NONE,
) -> tuple[int, bytes, str]:
    """Run svn to its end, as `run_program` does. Raises HostError where a file of the login cannot be used."""
    asking = logins.command(words)
    return await run_program(reactor, asking.words, tool_environment(), seconds, running, asking.stdin)


async def exact_revision(
    reactor: Any, url: str, wanted: str | None, running: set[Any] | None = None, logins: Logins = _NONE
) -> str:
    """The number of the revision to test at `url`: `wanted` if it exists there, else the last that changed anything.

    Raises SourceError where there is no such revision or path, HostError where the repository does not answer.
    """
    _, output, complaint = await run_svn(reactor, revision_question(url, wanted or "HEAD"), running, logins=logins)
    try:
        return revision_answer(url, wanted or "HEAD", output.decode("utf-8", "replace"), complaint)
    except (SourceError, HostError):
        log.msg(f"svn info {url}@{wanted or 'HEAD'} said {complaint!r}")
        raise
