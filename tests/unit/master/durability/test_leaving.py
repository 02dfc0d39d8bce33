"""A master that is stopped while its database is away ends: it waits for no answer for ever, and for a slow one."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest
from buildbot.db.pool import DBThreadPool
from buildbot.master import BuildMaster
from twisted.internet import defer

from oscar_steps.master.durability import leaving
from oscar_steps.master.durability.leaving import SECONDS, Questions, end_without_the_database


def test_only_a_question_that_has_no_answer_for_long_is_in_vain() -> None:
    questions = Questions()
    asked: list[defer.Deferred[str]] = []

    def ask() -> defer.Deferred[str]:
        asked.append(defer.Deferred())
        return asked[-1]

    ask_counted = questions.counted(ask)
    begun = time.monotonic()
    later = begun + SECONDS + 5
    assert not questions.waits_in_vain(begun, later), "nothing was asked"
    said: list[str] = []
    ask_counted().addCallback(said.append)
    ask_counted().addErrback(lambda _failure: None)
    assert not questions.waits_in_vain(begun, begun + SECONDS - 1)
    assert questions.waits_in_vain(begun, later)
    assert not questions.waits_in_vain(begun + 10, later), "the stop came later"
    asked[0].callback("answer")
    questions.answered = begun + 10
    assert said == ["answer"]
    assert not questions.waits_in_vain(begun, later), "the database answers, slowly"
    asked[1].errback(OSError("refused"))
    assert questions.open == 0


PROGRAM = """
import sys, threading, time
from twisted.internet import reactor
from twisted.python import log
from buildbot.db import pool
from buildbot.master import BuildMaster
from sqlalchemy import create_engine
from oscar_steps.master.durability import leaving
log.startLogging(sys.stdout)
leaving.SECONDS, leaving._EVERY = 0.5, 0.05
leaving.end_without_the_database()
leaving._stop = lambda master: None
hangs = pool.DBThreadPool(create_engine("sqlite://"), reactor)
hangs.start()
def begin():
    hangs.do_with_engine(lambda engine: time.sleep({asleep}))
    BuildMaster.stopService(None)
    reactor.callLater(0.3, hangs._pool.stop)  # as Buildbot does it last: it waits for the threads
    reactor.callLater(0.4, reactor.stop)
reactor.callWhenRunning(begin)
reactor.run()
print("ended in good order")
"""


@pytest.mark.parametrize(("asleep", "orderly"), [(600, False), (0, True)])
def test_a_thread_that_hangs_in_the_database_keeps_no_master_from_its_end(
    asleep: int, orderly: bool, tmp_path: Path
) -> None:
    command = [sys.executable, "-c", PROGRAM.format(asleep=asleep)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True, cwd=tmp_path)
    assert ("ended in good order" in done.stdout) is orderly
    assert ("the next start takes up what is open" in done.stdout) is not orderly


def test_this_buildbot_is_made_to_end_so_however_often_it_is_configured(monkeypatch: pytest.MonkeyPatch) -> None:
    for owner, name in ((DBThreadPool, "do"), (DBThreadPool, "do_with_engine"), (BuildMaster, "stopService")):
        monkeypatch.setattr(owner, name, getattr(owner, name))
    end_without_the_database()
    end_without_the_database()
    assert BuildMaster.stopService is leaving._stopped
    assert DBThreadPool.do.__wrapped__.__qualname__ == "DBThreadPool.do"  # type: ignore[attr-defined]
