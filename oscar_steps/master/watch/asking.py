"""Questions to Subversion, asked by the master without waiting for the answer."""

from __future__ import annotations

import os
from typing import Any

from buildbot.util import runprocess
from twisted.python import log

from oscar_steps.environment import tool_environment
from oscar_steps.errors import HostError, SourceError
from oscar_steps.sources.svn import revision_answer, revision_question

_SVN_SECONDS = 120


async def run_svn(
    reactor: Any, words: list[str], running: set[Any] | None = None, seconds: float = _SVN_SECONDS
) -> tuple[int, bytes, bytes]:
    """Run svn to its end: status, output, complaint. It is a member of `running` meanwhile, so it can be killed."""
    environment: dict[str, str | None] = {**dict.fromkeys(os.environ), **tool_environment()}  # None: not inherited
    process = runprocess.RunProcess(reactor, ["svn", *words], env=environment, io_timeout=None, runtime_timeout=seconds)
    running = set() if running is None else running
    running.add(process)
    try:
        status, output, complaint = await process.start()
    finally:
        running.discard(process)
    return status, output, complaint


async def exact_revision(reactor: Any, url: str, wanted: str | None, running: set[Any] | None = None) -> str:
    """The number of the revision to test at `url`: `wanted` if it exists there, else the last that changed anything.

    Raises SourceError where there is no such revision or path, HostError where the repository does not answer.
    """
    _, output, complaint = await run_svn(reactor, revision_question(url, wanted or "HEAD"), running)
    try:
        return revision_answer(url, wanted or "HEAD", output.decode("utf-8", "replace"), complaint_of(complaint))
    except (SourceError, HostError):
        log.msg(f"svn info {url}@{wanted or 'HEAD'} said {complaint!r}")
        raise


def complaint_of(complaint: bytes) -> str:
    """What svn complains of; a timeout, where it was ended before it printed anything."""
    return (
        complaint.decode("utf-8", "replace")
        if complaint.strip()
        else f"timed out after {_SVN_SECONDS} s waiting for svn"
    )
