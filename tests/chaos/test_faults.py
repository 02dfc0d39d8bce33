"""Every fault of the stand-in, run for real: the farm's stage, OSCAR's stage, the words, and whose fault it is.

`pytest tests/chaos/test_faults.py -s` prints what was said, and how long after power-on it was certain.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from demo.repository import Repository, apply_patch
from oscar_steps.job import Job
from oscar_steps.matrix import load_matrix
from oscar_steps.verdict import Outcome, Verdict

ROOT = Path(__file__).resolve().parents[2]
FAULTS = ROOT / "tests/oscar_standin/faults"
EXPECTED = tomllib.loads((FAULTS / "faults.toml").read_text(encoding="utf-8"))

# Limits that are long for an idle host and short for a test: what hangs is found soon.
TIMEOUTS = {"silence": 75, "node_boot": 75, "node_stall": 30, "node_up": 75, "node_reboot": 40}


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Repository]:
    directory = tmp_path_factory.mktemp("svn")
    repository = Repository(directory / "root", ROOT / "tests/oscar_standin/tree", users=("demo",))
    server = repository.serve(directory / "svnserve.log", os.environ)
    yield repository
    server.stop(5)


def run_job(repository: Repository, revision: int, directory: Path) -> Verdict:
    matrix = load_matrix(ROOT / "profiles")
    cell = matrix.cells[0]
    job = Job.model_validate(
        {
            "run_id": f"fault-r{revision}",
            "cell": cell.name,
            "source": {"url": f"{repository.url}/trunk", "revision": str(revision)},
            "image": matrix.image(cell),
            "cluster_xml": matrix.cluster_xml(cell),
            "answers": matrix.answers(cell),
            "timeouts": TIMEOUTS,
        }
    )
    job.save(directory / "job.json")
    words = ["-m", "oscar_steps.testdriver", "replay", str(directory / "job.json"), "--runs", str(directory / "runs")]
    with (directory / "output.log").open("wb") as output:
        subprocess.run([sys.executable, *words], stdout=output, stderr=output, check=False, cwd=ROOT)
    return Verdict.load(next((directory / "runs").iterdir()))


@pytest.mark.parametrize("name", list(EXPECTED))
def test_each_fault_is_red_at_its_stage_with_its_cause(name: str, repository: Repository, tmp_path: Path) -> None:
    revision = repository.commit("demo", f"fault {name}", apply_patch(FAULTS / f"{name}.patch"), upon=1)
    verdict = run_job(repository, revision, tmp_path)
    expected = EXPECTED[name]
    print(f"\n{name}: {verdict.stage}/{verdict.oscar_stage} after {verdict.seconds:.0f} s: {verdict.sentence}")
    assert verdict.outcome is Outcome.FAILED, verdict.sentence
    assert (verdict.stage, verdict.oscar_stage) == (expected["stage"], expected["oscar_stage"])
    assert [word for word in expected["words"] if word not in verdict.sentence] == []
    assert verdict.evidence
