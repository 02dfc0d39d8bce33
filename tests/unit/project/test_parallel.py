"""The two workers of `make test`: who runs what, and how they end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
NOTE = """
import os
from pathlib import Path

HERE = Path(__file__).resolve().parents[2]

def note(name):
    with (HERE / "order").open("a") as file:
        file.write(f"{os.environ['PYTEST_XDIST_WORKER']} {name}\\n")
"""
SLOW_TO_END = """
import threading, time
import pytest

@pytest.fixture
def farm():
    yield
    time.sleep(1)
    note("taken down")

def test_waits(farm):
    note("waits")
    threading.Event().wait(60)
"""

SWALLOWS_IT = """
import time
from contextlib import suppress

def test_waits():
    note("waits")
    with suppress(KeyboardInterrupt):
        time.sleep(60)

def test_after_it(): note("after it")
"""
KEEPS_IT = """
import signal, time

def test_handles_signals_itself():
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: None)

def test_waits():
    note("waits")
    time.sleep(60)
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A folder of tests, in the layers of ours."""
    for layer in ("vm", "farm", "unit"):
        (tmp_path / "tests" / layer).mkdir(parents=True)
    return tmp_path


def add(project: Path, file: str, body: str) -> None:
    (project / "tests" / file).write_text(NOTE + body, encoding="utf-8")


@pytest.fixture
def started() -> Iterator[list[subprocess.Popen[str]]]:
    """Processes that end with the test."""
    processes: list[subprocess.Popen[str]] = []
    yield processes
    for process in processes:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def start(project: Path, started: list[subprocess.Popen[str]], *words: str) -> subprocess.Popen[str]:
    """pytest with two workers in `project`, with our plug-in. It is the leader of a process group."""
    (project / "pytest.ini").write_text("[pytest]\n", encoding="utf-8")
    (project / "impatient.py").write_text(
        "from xdist.workermanage import NodeManager\nNodeManager.EXIT_TIMEOUT = 0.1\n", encoding="utf-8"
    )
    plugins = ["-p", "xdist", "-p", "impatient", "-p", "tests.conftest", "-p", "no:cacheprovider"]
    process = subprocess.Popen(
        [sys.executable, "-m", "pytest", *plugins, "-n", "2", "tests/vm", "tests/farm", "tests/unit", *words],
        cwd=project,
        env={**os.environ, "PYTHONPATH": f"{project}:{ROOT}", "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    started.append(process)
    return process


def noted(project: Path) -> list[list[str]]:
    order = project / "order"
    return [line.split(" ", 1) for line in order.read_text().splitlines()] if order.exists() else []


def test_what_boots_machines_runs_in_one_worker_in_its_order_and_the_rest_by_files_beside_it(
    project: Path, started: list[subprocess.Popen[str]]
) -> None:
    tests = "".join(f"\ndef test_{number}(): note(f'{{Path(__file__).stem}} {number}')\n" for number in range(3))
    machines = ("vm/test_b.py", "vm/test_a.py", "farm/test_cell_end_to_end.py")
    for file in (*machines, "farm/test_web.py", "unit/test_c.py", "unit/test_d.py"):
        add(project, file, tests)
    done = start(project, started)
    output = done.communicate(timeout=60)[0]
    assert done.returncode == 0, output
    assert "KeyboardInterrupt" not in output, "a worker that is about to end needs no signal"
    order = noted(project)
    by_file: dict[str, set[str]] = {}
    for worker, name in order:
        by_file.setdefault(name.split()[0], set()).add(worker)
    assert [len(workers) for workers in by_file.values()] == [1] * 6
    assert len(set().union(*by_file.values())) == 2
    names = ("test_a", "test_b", "test_cell_end_to_end")
    machine = [name for _worker, name in order if name.split()[0] in names]
    assert machine == [f"{name} {number}" for name in names for number in range(3)]
    assert by_file["test_a"] == by_file["test_b"] == by_file["test_cell_end_to_end"]
    assert output.splitlines()[-1].startswith("=") and " 18 passed in " in output.splitlines()[-1]


def wait_until_begun(process: subprocess.Popen[str], project: Path, tests: int) -> None:
    deadline = time.monotonic() + 60
    while len(noted(project)) < tests:
        assert time.monotonic() < deadline and process.poll() is None, "the tests have not begun"
        time.sleep(0.05)


@pytest.mark.parametrize(
    ("number", "reaches_all"),
    [(signal.SIGINT, True), (signal.SIGTERM, False)],
    ids=["as Ctrl-C does", "sent to the first process alone"],
)
def test_a_signal_ends_both_workers_and_each_takes_down_what_it_has(
    project: Path, started: list[subprocess.Popen[str]], number: signal.Signals, reaches_all: bool
) -> None:
    add(project, "vm/test_a.py", SLOW_TO_END)
    add(project, "unit/test_b.py", SLOW_TO_END)
    done = start(project, started)
    wait_until_begun(done, project, 2)
    (os.killpg if reaches_all else os.kill)(done.pid, number)
    output = done.communicate(timeout=60)[0]
    assert done.returncode == pytest.ExitCode.INTERRUPTED, output
    assert sorted(name for _worker, name in noted(project)) == ["taken down", "taken down", "waits", "waits"], output
    assert "KeyboardInterrupt" in output
    with pytest.raises(ProcessLookupError):
        os.killpg(done.pid, 0)


@pytest.mark.parametrize("body", [SWALLOWS_IT, KEEPS_IT], ids=["the test under way", "an earlier test's handler"])
def test_a_signal_ends_the_tests_whatever_swallows_it(
    project: Path, started: list[subprocess.Popen[str]], body: str
) -> None:
    add(project, "vm/test_a.py", body)
    add(project, "unit/test_b.py", body)
    done = start(project, started)
    wait_until_begun(done, project, 2)
    os.killpg(done.pid, signal.SIGTERM)
    output = done.communicate(timeout=40)[0]
    assert done.returncode == pytest.ExitCode.INTERRUPTED, output
    assert [name for _worker, name in noted(project)] == ["waits", "waits"]
