"""A search over sixteen commits, on real virtual clusters."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from demo.farm import CHECKOUT, STANDIN, USERS
from demo.faults import FaultBook
from demo.replays import DRIVER, standin_served
from demo.repository import Repository, apply_patch, edit_readme
from oscar_steps.environment import default_store

_CELL = "debian-12-x86_64"
_COMMITS = 16
_CULPRIT = 12
_OTHERWISE = 9

pytestmark = [pytest.mark.vm, pytest.mark.slow, pytest.mark.timeout(7200)]


def _sixteen(repository: Repository) -> None:
    """r2 to r17: one of them breaks the image, another one the beginning, which the next one mends."""
    faults = FaultBook(STANDIN / "faults")
    for number in range(2, _COMMITS + 2):
        author = USERS[number % len(USERS)]
        if number == _OTHERWISE + 1:
            repository.commit(author, "Mend the beginning", edit_readme, upon=_OTHERWISE - 1)
        else:
            fault = {_CULPRIT: "image-build-fails", _OTHERWISE: "preflight-fails"}.get(number)
            change = apply_patch(faults.patch(fault)) if fault else edit_readme
            repository.commit(author, f"Commit {number}", change)


def test_a_bisect_over_sixteen_commits_finds_the_planted_one(tmp_path: Path) -> None:
    with standin_served() as repository:
        _sixteen(repository)
        words = ["bisect", "1", str(_COMMITS + 1), "--cell", _CELL, "--url", f"{repository.url}/trunk"]
        command = [*DRIVER, *words, "--runs", str(tmp_path), "--images", str(default_store())]
        ran = subprocess.run(command, capture_output=True, text=True, cwd=CHECKOUT, check=False)
    print(ran.stdout, ran.stderr)
    assert ran.returncode == 0
    assert f"r{_CULPRIT} ({USERS[_CULPRIT % len(USERS)]}) did it" in ran.stdout
    assert "fails otherwise" in ran.stdout
    assert "OSCAR's installer: the first difference is image: passed, then failed" in ran.stdout
