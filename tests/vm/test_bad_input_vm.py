"""A head node that does not come up is the farm's fault, told with its console, and leaves nothing behind."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from demo import children
from demo.farm import STANDIN
from demo.repository import Repository
from oscar_steps.images.store import ImageStore
from oscar_steps.job import JOB_FILE, Job, Source, Timeouts
from oscar_steps.matrix.cells import default_profiles, load_matrix
from oscar_steps.v3m.host.ledger import LEDGER_FILE
from oscar_steps.verdict import Category, ExitStatus, Outcome, Stage, StageResult, Verdict

ROOT = default_profiles().parent


@pytest.fixture
def impatient(tmp_path: Path) -> Iterator[Path]:
    """The file of a job that gives its head node four seconds to boot. The base image is in the store."""
    matrix = load_matrix(default_profiles())
    cell = matrix.cells[0]
    repository = Repository(tmp_path / "svn", STANDIN / "tree", users=("jane",))
    server = repository.serve(tmp_path / "svnserve.log", os.environ)
    asyncio.run(ImageStore().ensure(matrix.image(cell), print))
    job = Job(
        run_id="impatient",
        cell=cell.name,
        source=Source(url=f"{repository.url}/trunk", revision="1"),
        image=matrix.image(cell),
        cluster_xml=matrix.cluster_xml(cell),
        answers=matrix.answers(cell),
        timeouts=Timeouts(boot_headnode=4),
    )
    path = tmp_path / JOB_FILE
    job.save(path)
    yield path
    server.stop(5)


def test_a_head_node_that_never_answers_is_infrastructure_and_leaves_nothing(impatient: Path, tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    command = [sys.executable, "-m", "oscar_steps.testdriver", "replay", impatient, "--runs", runs]
    environment = os.environ | {children.MARK: str(tmp_path)}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120)
    assert children.marked(str(tmp_path)) == []

    assert done.returncode == ExitStatus.INFRASTRUCTURE, done.stdout + done.stderr
    assert done.stderr == ""
    (directory,) = runs.iterdir()
    verdict = Verdict.load(directory)
    assert (verdict.outcome, verdict.stage) == (Outcome.INFRASTRUCTURE, Stage.BOOT_HEADNODE)
    assert verdict.category is Category.HOST
    assert verdict.sentence.startswith("timed out after ")
    assert verdict.sentence.endswith(" s waiting for a login prompt of oscar-headnode")
    assert verdict.hint.startswith("console/oscar-headnode.log ends with: ")
    assert (directory / "console/oscar-headnode.log").exists()
    assert f"INFRASTRUCTURE: {verdict.sentence}" in done.stdout
    results = {report.stage: report.result for report in verdict.stages}
    assert results[Stage.CHECKOUT] is results[Stage.FINALIZE] is StageResult.NOT_REACHED
    assert results[Stage.TEARDOWN] is StageResult.PASSED

    assert json.loads((directory / LEDGER_FILE).read_text()) == []
    left = {"disks", "vlan", "seed.tar", "access.json", "run.sock"} & {path.name for path in directory.iterdir()}
    assert left == set()
