"""A commit of a git repository, with a developer's patch on it, on a real virtual cluster."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from demo.farm import CHECKOUT, STANDIN
from demo.faults import FaultBook
from demo.replays import DRIVER
from demo.repository import apply_patch
from oscar_steps.environment import default_store
from tests.unit.git_server import Repository, served

_CELL = "debian-12-x86_64"

pytestmark = [pytest.mark.vm, pytest.mark.slow, pytest.mark.timeout(5400)]


def test_a_branch_of_git_that_is_broken_passes_with_the_patch_that_mends_it(tmp_path: Path) -> None:
    tree, repository = tmp_path / "tree", Repository(tmp_path / "oscar.git")
    shutil.copytree(STANDIN / "tree", tree, symlinks=True)
    good = repository.commit_folder(tree)
    apply_patch(FaultBook(STANDIN / "faults").patch("image-build-fails"))(tree)
    broken = repository.commit_folder(tree, branch="work")
    diff = tmp_path / "mine.diff"
    diff.write_text(repository.git("diff", broken, good) + "\n")
    with served(repository) as url:
        words = ["run", "--cell", _CELL, "--git", "--url", url, "--revision", "work", "--patch", str(diff)]
        command = [*DRIVER, *words, "--runs", str(tmp_path / "runs"), "--images", str(default_store())]
        ran = subprocess.run(command, capture_output=True, text=True, cwd=CHECKOUT, check=False)
    print(ran.stdout, ran.stderr)
    assert ran.returncode == 0
    [run] = (tmp_path / "runs").glob(f"{_CELL}-g{broken[:12]}.p*")
    verdict = json.loads((run / "verdict.json").read_text())
    assert (verdict["outcome"], verdict["tested"]["kind"], verdict["tested"]["revision"]) == ("passed", "git", broken)
    assert (run / "patch.diff").read_bytes() == diff.read_bytes()
