"""A worker that is killed in mid-run: its run ends itself within the lease, and Buildbot does not blame OSCAR."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from demo.children import marked
from demo.farm import Farm
from oscar_steps.testdriver.record.events import read_events
from oscar_steps.verdict import Outcome, Verdict

LEASE_SECONDS = 120  # Timeouts.lease, which the demo's farm does not change


def wait_for(what: str, condition: Callable[[], object], seconds: float) -> None:
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            pytest.fail(f"{what} did not happen within {seconds:.0f} s")
        time.sleep(0.2)


def virtual_machines(farm: Farm) -> list[psutil.Process]:
    found = []
    for process in marked(str(farm.directory)):
        with suppress(psutil.Error):
            if "qemu-system" in process.name():
                found.append(process)
    return found


@pytest.mark.timeout(900)
def test_kill_9_of_the_worker_ends_its_run_within_the_lease_and_blames_nobody(tmp_path: Path) -> None:
    with Farm(tmp_path / "farm") as farm:
        revision = farm.commit_harmless()
        runs = farm.runs

        def installing() -> list[Path]:
            found = runs.glob("*/events.jsonl") if runs.exists() else ()
            return [path.parent for path in found if any(e.kind == "installer" for e in read_events(path.parent))]

        wait_for("an installer that runs", installing, 300)
        directory = installing()[0]
        os.kill(farm.worker.pid, signal.SIGKILL)
        killed = time.monotonic()
        wait_for("the end of the cluster", lambda: not virtual_machines(farm), LEASE_SECONDS + 15)
        wait_for("its verdict", (directory / "verdict.json").exists, 15)
        print(f"\nthe cluster was gone {time.monotonic() - killed:.0f} s after its worker was killed")
        verdict = Verdict.load(directory)
        assert verdict.outcome is Outcome.CANCELLED
        assert "no command was attached" in verdict.sentence
        build = farm.master.build_of(revision, farm.cell)
        assert build is not None
        assert build.result_name in ("retry", "exception")  # never 'failure', which would be OSCAR's
    assert farm.leftovers == []
