"""A run whose process is killed, in whatever stage: nothing of it is left, and the next command says what happened."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from demo.repository import Repository
from oscar_steps.images.store import default_store
from oscar_steps.testdriver.record.events import Event, read_events
from oscar_steps.verdict import Outcome, Stage, Verdict

ROOT = Path(__file__).resolve().parents[2]
TREE = ROOT / "tests/oscar_standin/tree"
DRIVER = [sys.executable, "-m", "oscar_steps.testdriver"]

# By then each stage is at its real work: a VM runs, an installer writes, a node pulls its image.
DEEP_IN = {
    Stage.CREATE_IMAGE: "step",
    Stage.BOOT_HEADNODE: "vm",
    Stage.CHECKOUT: "step",
    Stage.START_INSTALL: "installer",
    Stage.BOOT_NODES: "step",
    Stage.WAIT_NODES: "node",
    Stage.FINALIZE: "installer",
    Stage.EXTRACT_LOGS: "step",
    Stage.TEARDOWN: "stage-started",
}
LOOK_SECONDS = 0.01  # a teardown lasts a tenth of a second


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    directory = tmp_path_factory.mktemp("svn")
    repository = Repository(directory / "root", TREE, users=("demo",))
    server = repository.serve(directory / "svnserve.log", os.environ)
    yield f"{repository.url}/trunk"
    server.stop(5)


def processes_naming(words: str) -> list[psutil.Process]:
    """Living processes that have `words` (a run's directory or id) in their command line or as working directory."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.pid == os.getpid() or process.status() == psutil.STATUS_ZOMBIE:
                continue
            if words in " ".join(process.cmdline()) or words in process.cwd():
                found.append(process)
        except psutil.Error:
            continue
    return found


def mounts_naming(words: str) -> list[str]:
    return [line for line in Path("/proc/self/mounts").read_text().splitlines() if words in line]


def deep_in(stage: Stage, events: list[Event]) -> bool:
    began = [n for n, event in enumerate(events) if event.kind == "stage-started" and event.data["stage"] == stage]
    return bool(began) and any(event.kind == DEEP_IN[stage] for event in events[began[0] :])


def start_run(url: str, runs: Path, store: Path) -> subprocess.Popen[bytes]:
    words = ["run", "--cell", "debian-12-x86_64", "--url", url, "--runs", str(runs), "--images", str(store)]
    with (runs / "output.log").open("wb") as output:
        return subprocess.Popen([*DRIVER, *words], stdout=output, stderr=output, cwd=ROOT)


def wait_until_deep_in(stage: Stage, runs: Path, run: subprocess.Popen[bytes], seconds: float) -> Path:
    end = time.monotonic() + seconds
    while time.monotonic() < end and run.poll() is None:
        for directory in (path for path in runs.iterdir() if path.is_dir()):
            if deep_in(stage, read_events(directory)):
                return directory
        time.sleep(LOOK_SECONDS)
    pytest.fail(f"the run never came into {stage}: " + (runs / "output.log").read_text()[-2000:])


def kill_and_look(run: subprocess.Popen[bytes], *words: str) -> tuple[list[psutil.Process], list[str]]:
    """Kill the run's process alone, with -9; what is left of it one second later."""
    run.send_signal(signal.SIGKILL)
    run.wait()
    time.sleep(1)  # the promise under test: within a second
    return [p for word in words for p in processes_naming(word)], [m for word in words for m in mounts_naming(word)]


@pytest.mark.timeout(1500)
@pytest.mark.parametrize("stage", list(DEEP_IN))
def test_kill_9_in_any_stage_leaves_nothing_and_is_called_infrastructure(
    stage: Stage, url: str, tmp_path: Path
) -> None:
    # In create-image the image itself is being built (an empty store), with chroots and mounts.
    store = tmp_path / "store" if stage is Stage.CREATE_IMAGE else default_store()
    runs = tmp_path / "runs"
    runs.mkdir()
    run = start_run(url, runs, store)
    try:
        directory = wait_until_deep_in(stage, runs, run, 1400)
        if stage is Stage.CREATE_IMAGE:
            time.sleep(8)  # into the middle of mmdebstrap
        left, mounts = kill_and_look(
            run, str(runs), directory.name, str(store) if stage is Stage.CREATE_IMAGE else str(runs)
        )
        assert left == []
        assert mounts == []
        answer = subprocess.run(
            [*DRIVER, "status", "--runs", str(runs)], capture_output=True, text=True, check=True, cwd=ROOT
        )
        assert f"infrastructure: the run's process was killed in the stage {stage}" in answer.stdout
        verdict = Verdict.load(directory)
        assert (verdict.outcome, verdict.stage) == (Outcome.INFRASTRUCTURE, stage)
    finally:
        run.kill()
        shutil.rmtree(tmp_path / "store", ignore_errors=True)
