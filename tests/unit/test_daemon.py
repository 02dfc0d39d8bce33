"""What we start and leave to itself."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import psutil

from oscar_steps.detached import start_detached


def test_a_process_that_ends_before_us_is_no_zombie_and_its_last_words_are_in_the_log(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    with (tmp_path / "log").open("ab") as log, os.fdopen(reader, "rb") as pipe:
        with os.fdopen(writer, "wb"):
            start_detached(["/bin/bash", "-c", f"echo cannot; echo $$ >&{writer}; exec sleep 60"], log, writer)
        process = int(pipe.readline())
    os.kill(process, signal.SIGKILL)
    end = time.monotonic() + 20
    while psutil.pid_exists(process):
        assert time.monotonic() < end
        time.sleep(0.01)
    assert (tmp_path / "log").read_text() == "cannot\n"
