"""The worker's own file: whatever is wrong with the folder `info`, there is a worker."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

FILE = Path(__file__).parents[3] / "workers/buildbot.tac"


def _a_file(info: Path) -> None:
    info.touch()


def _a_folder_in_the_place_of_the_description(info: Path) -> None:
    (info / "host.json").mkdir(parents=True)


def _a_dangling_link(info: Path) -> None:
    info.symlink_to("/nowhere/at/all")


@pytest.mark.parametrize("spoil", [_a_file, _a_folder_in_the_place_of_the_description, _a_dangling_link])
def test_a_worker_whose_host_cannot_be_described_runs_and_says_so_in_one_line(tmp_path: Path, spoil: object) -> None:
    assert callable(spoil)
    shutil.copy(FILE, tmp_path)
    (tmp_path / "worker.toml").write_text('master = "127.0.0.1:9"\nname = "w"\ndescribe = ["true"]\n')
    (tmp_path / "password").touch(mode=0o600)
    spoil(tmp_path / "info")
    # As twistd does it.
    load = "from runpy import run_path; print(run_path('buildbot.tac')['application'])"
    ran = subprocess.run([sys.executable, "-c", load], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert (ran.returncode, ran.stdout != "") == (0, True), ran.stderr
    (said,) = ran.stderr.splitlines()
    assert said.startswith("this host is not described to the master: ") and str(tmp_path / "info") in said
