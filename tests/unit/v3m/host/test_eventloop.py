"""Children of our programs are waited for without threads, whatever the version of Python."""

from __future__ import annotations

import asyncio
import sys
import threading
import warnings

import pytest

from oscar_steps.v3m.host import eventloop


async def threads_beside_a_child() -> set[str]:
    before = set(threading.enumerate())
    child = await asyncio.create_subprocess_exec("cat", stdin=asyncio.subprocess.PIPE)
    assert child.stdin
    threads = {thread.name for thread in set(threading.enumerate()) - before}
    child.stdin.close()
    assert await child.wait() == 0
    return threads


def test_no_thread_waits_for_a_child() -> None:
    assert eventloop.run(threads_beside_a_child()) == set()


def test_nothing_that_this_python_deprecates_is_used() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        eventloop.run(threads_beside_a_child())


def test_a_python_that_has_no_child_watchers_needs_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(asyncio, "set_child_watcher", raising=False)
    monkeypatch.delattr(asyncio, "PidfdChildWatcher", raising=False)
    monkeypatch.setattr(sys, "version_info", (3, 14, 0, "final", 0))
    assert eventloop.run(asyncio.sleep(0, "done")) == "done"
