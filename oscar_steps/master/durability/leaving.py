"""A master that is to end, and whose database does not answer, ends as if it were killed. That loses nothing.

Buildbot's own notes what its end interrupts, and waits for the database until that is done (`patience.py`: a day).
What could not be noted is what a killed master has not noted: the next start finds it (`once.py`, `commit.py`).
"""

from __future__ import annotations

import functools
import os
import threading
import time
from collections.abc import Callable
from typing import Any

from buildbot.db.pool import DBThreadPool
from buildbot.master import BuildMaster
from twisted.python import log

SECONDS = 30.0
"""So long a master that is to end waits for an answer of its database."""
_EVERY = 1.0


class Questions:
    """What the database is asked, and when it last answered (monotonic time)."""

    def __init__(self) -> None:
        self.open = 0
        self.answered = time.monotonic()

    def counted(self, ask: Callable[..., Any]) -> Callable[..., Any]:
        """`ask` (of Buildbot's pool), counted."""

        @functools.wraps(ask)
        def asked(*words: Any, **more: Any) -> Any:
            self.open += 1
            return ask(*words, **more).addBoth(self._note)

        return asked

    def _note(self, answer: Any) -> Any:
        self.open -= 1
        self.answered = time.monotonic()
        return answer

    def waits_in_vain(self, since: float, now: float) -> bool:
        """Whether nothing has been answered for too long since then, although something was asked."""
        return self.open > 0 and now - max(since, self.answered) > SECONDS


_questions = Questions()
_do, _do_with_engine = _questions.counted(DBThreadPool.do), _questions.counted(DBThreadPool.do_with_engine)
_stop = BuildMaster.stopService


def _watch() -> None:
    """A thread of its own: at its very end the master's first thread itself waits for those of the database."""
    since = time.monotonic()
    while not _questions.waits_in_vain(since, time.monotonic()):
        time.sleep(_EVERY)
    log.msg(f"the database has not answered for {SECONDS:.0f} s: the master ends; the next start takes up what is open")
    os._exit(0)


def _stopped(master: Any) -> Any:
    threading.Thread(target=_watch, name="the master's end", daemon=True).start()
    return _stop(master)


def end_without_the_database() -> None:
    """Have Buildbot's master end this way. Call it before it opens its database."""
    DBThreadPool.do, DBThreadPool.do_with_engine = _do, _do_with_engine
    BuildMaster.stopService = _stopped
