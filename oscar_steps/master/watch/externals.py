"""The externals of a revision, asked for by the master; what it has read of trees is kept beside its database."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from twisted.internet.defer import DeferredLock
from twisted.python import log

from oscar_steps.master.watch.asking import run_svn
from oscar_steps.sources.externals import Answer, Memory, externals_of, seconds_of
from oscar_steps.sources.login import Logins
from oscar_steps.sources.source import External
from oscar_steps.textio import read_regular, write_atomically

MEMORY_FILE = "svn-externals.json"
_KEPT = 100
"""Trees; those that were asked for last."""
_one_at_a_time = DeferredLock()
"""All cells of a commit ask the same: the first reads the tree, and the others find its answer."""


async def externals_at(
    reactor: Any, url: str, revision: str, folder: Path, running: set[Any] | None = None, logins: Logins | None = None
) -> tuple[External, ...]:
    """What a checkout of an exact revision gets from elsewhere. `folder` is the master's.

    Raises SourceError where one cannot be checked out by anybody, HostError where the server does not say.
    """
    await _one_at_a_time.acquire()
    try:
        memory = _read(folder / MEMORY_FILE)
        before = dict(memory.known)
        questions = externals_of(url, revision, memory)
        try:
            words = next(questions)
            while True:
                command = [words[0], "--non-interactive", *words[1:]]
                status, output, complaint = await run_svn(
                    reactor, command, running, seconds_of(words), logins or Logins()
                )
                words = questions.send(Answer(status, output, complaint))
        except StopIteration as end:
            found: tuple[External, ...] = end.value
        if memory.known != before:
            _write(folder / MEMORY_FILE, memory)
        return found
    finally:
        _one_at_a_time.release()


def _read(path: Path) -> Memory:
    """What is kept; nothing where the file is broken: the trees are read again."""
    try:
        known = json.loads(read_regular(path))
        return Memory({str(key): (int(number), dict(properties)) for key, (number, properties) in known.items()})
    except (OSError, ValueError, TypeError, AttributeError):
        return Memory()


def _write(path: Path, memory: Memory) -> None:
    newest = dict(list(memory.known.items())[-_KEPT:])
    try:
        write_atomically(path, json.dumps(newest), mode=0o600)
    except OSError as error:
        log.msg(f"{path} cannot be written ({error}): the next build reads its whole tree again")
