"""Processes that outlive us, and the locks by which they are known."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path

import psutil
import pytest

from oscar_steps import daemon
from oscar_steps.errors import HostError


def bash(script: str) -> list[str]:
    return ["/bin/bash", "-c", script]  # the descriptor is its $0


def test_a_process_that_ends_before_us_is_no_zombie_and_its_last_words_are_in_the_log(tmp_path: Path) -> None:
    log, number = tmp_path / "log", tmp_path / "number"
    daemon.start(bash(f"echo cannot; echo $$ >{number}; echo -n '!' >&$0; exec sleep 60"), log, 20, "it")
    process = int(number.read_text())
    os.kill(process, signal.SIGKILL)
    end = time.monotonic() + 20
    while psutil.pid_exists(process):
        assert time.monotonic() < end
        time.sleep(0.01)
    assert log.read_text() == "cannot\n"


@pytest.mark.parametrize(
    ("script", "seconds", "sentence"),
    [
        ("echo no disk; exit 3", 20, "the run's process did not start"),
        ("echo no disk; exec sleep 60", 0.5, "the run's process did not start within 0 s"),
    ],
)
def test_a_process_that_does_not_come_up_is_named_with_the_last_line_of_its_log(
    tmp_path: Path, script: str, seconds: float, sentence: str
) -> None:
    log = tmp_path / "log"
    with pytest.raises(HostError) as error:
        daemon.start(bash(script), log, seconds, "the run's process")
    assert (error.value.sentence, error.value.hint) == (sentence, f"the last line of {log}: no disk")


def test_a_lock_is_waited_for_as_long_as_was_said(tmp_path: Path) -> None:
    lock = tmp_path / "x.lock"
    assert not daemon.is_claimed(lock)
    held = daemon.claim(lock)
    assert held is not None
    assert daemon.is_claimed(lock)
    assert daemon.claim(lock, 0) is None
    threading.Timer(0.2, held.close).start()
    assert not daemon.is_claimed(lock, 20)
    again = daemon.claim(lock, 20)
    assert again is not None
    again.close()
