"""Ctrl-C during `make demo`, with a real cluster: no process and no VM is left."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from demo.children import marked
from demo.ports import free_port

ROOT = Path(__file__).resolve().parents[2]
DEMO = ROOT / ".farm" / "demo"

# What the demo prints when it has come so far.
MOMENTS = {
    "the servers start": "the farm's page",
    "the head node boots": "oscar-headnode to boot",
    "OSCAR installs": "OSCAR: ",
}


@pytest.fixture
def demo() -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "demo", "--port", str(free_port())]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    yield process
    process.kill()
    process.wait()


@pytest.mark.parametrize("moment", list(MOMENTS))
def test_ctrl_c_leaves_no_process_and_no_vm(moment: str, demo: subprocess.Popen[str]) -> None:
    assert demo.stdout is not None
    watchdog = threading.Timer(300, demo.kill)
    watchdog.start()
    said = []
    for line in demo.stdout:
        said.append(line)
        if re.search(MOMENTS[moment], line):
            break
    assert demo.poll() is None, "".join(said[-20:])
    demo.send_signal(signal.SIGINT)
    said += list(demo.stdout)
    watchdog.cancel()
    assert demo.wait(30) == 130, "".join(said[-20:])
    assert "nothing is left running" in said[-1]
    assert marked(str(DEMO)) == []
