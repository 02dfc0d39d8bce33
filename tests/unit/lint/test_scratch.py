"""The folder of a lint does not outlive it for long, however it ended."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from oscar_steps.lint.scratch import scratch_folder

ROOT = Path(__file__).resolve().parents[3]
HOLDS_ONE = """
from oscar_steps.lint.scratch import scratch_folder
with scratch_folder() as place:
    (place / "left").write_text("x")
    print(place, flush=True)
    input()
"""


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    return tmp_path


def grow_old(place: Path) -> None:
    os.utime(place, (1, 1))


def test_what_a_killed_lint_left_goes_with_the_next_and_what_is_in_use_stays(temporary: Path) -> None:
    foreign = temporary / "oscar-lint"
    foreign.mkdir()
    grow_old(foreign)
    command = [sys.executable, "-c", HOLDS_ONE]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as lint:
        assert lint.stdout is not None
        place = Path(lint.stdout.readline().strip())
        assert place.parent == temporary
        grow_old(place)
        with scratch_folder():
            assert (place / "left").exists()
        lint.kill()
    assert (place / "left").exists()
    with scratch_folder() as other:
        assert not place.exists()
    assert not other.exists() and foreign.exists()


def test_a_folder_that_was_made_just_now_is_no_leftover(temporary: Path) -> None:
    young = temporary / "oscar-lint-young"
    young.mkdir()
    with scratch_folder():
        pass
    assert young.exists()
