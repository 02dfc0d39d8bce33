"""The command that follows the last stage: when it has ended, nothing of the run is alive."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from oscar_steps.errors import HostError
from oscar_steps.job import JOB_FILE
from oscar_steps.testdriver.process import attach
from oscar_steps.testdriver.process.rundirectory import SOCKET_FILE, is_running
from oscar_steps.verdict import StageResult
from tests.unit.test_bad_input import a_job

# A run whose stages do nothing; beside them a thread goes on, as that of a login to a head node that is gone.
RUN = """
import asyncio, sys, time
from pathlib import Path
from oscar_steps.job import Job
from oscar_steps.testdriver.process import run_process
from oscar_steps.testdriver.run import Run, RunOptions
from oscar_steps.verdict import Stage

async def nothing(run: Run) -> None:
    run.hold(asyncio.ensure_future(asyncio.to_thread(time.sleep, float(sys.argv[2]))))

directory = Path(sys.argv[1])
run_process.HANDLERS.update(dict.fromkeys(Stage, nothing))
options = RunOptions(image_store=directory)
run_process.execute(directory, Job.load(directory / "job.json"), options, stepwise=True, ready=1)
"""


def start_run(directory: Path, lingers: float) -> subprocess.Popen[bytes]:
    a_job().save(directory / JOB_FILE)
    command = [sys.executable, "-c", RUN, str(directory), str(lingers)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.read(1) == b"!", "the run's process did not start"
    return process


@pytest.mark.parametrize("request_", [{"stage": "teardown"}, {"cancel": "the test wants it"}], ids=["stage", "cancel"])
def test_it_ends_when_the_process_of_the_run_has_ended(tmp_path: Path, request_: dict[str, str | bool]) -> None:
    with start_run(tmp_path, lingers=2) as run:
        result = attach.follow(tmp_path, request_, lambda _event: None)
        assert run.poll() == 0, "the command ended first"
    assert result is StageResult.PASSED
    assert not is_running(tmp_path)
    assert not (tmp_path / SOCKET_FILE).exists()


def test_a_command_that_follows_an_earlier_stage_does_not_wait_for_it(tmp_path: Path) -> None:
    with start_run(tmp_path, lingers=1) as run:
        assert attach.follow(tmp_path, {"stage": "checkout"}, lambda _event: None) is StageResult.PASSED
        assert run.poll() is None
        attach.follow(tmp_path, {"stage": "teardown"}, lambda _event: None)


def test_a_process_that_does_not_end_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attach, "END_SECONDS", 0.5)
    with start_run(tmp_path, lingers=60) as run:
        with pytest.raises(HostError, match=f"the run is over, but its process {run.pid} does not end"):
            attach.follow(tmp_path, {"stage": "teardown"}, lambda _event: None)
        run.kill()
