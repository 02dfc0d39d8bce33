"""Commands on a run take the name that `status` has printed, wherever they are typed."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from oscar_steps.testdriver.cli import common, runs
from oscar_steps.testdriver.cli.main import cli
from oscar_steps.testdriver.record.events import EVENTS_FILE


def typed(*words: str) -> str:
    return CliRunner().invoke(cli, words).output


def test_a_run_is_named_as_status_prints_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for folder in ("runs/r1", "others/r2", "elsewhere"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "job.json").write_text("{}")
        (tmp_path / folder / EVENTS_FILE).touch()
    monkeypatch.chdir(tmp_path / "elsewhere")
    for module in (common, runs):
        monkeypatch.setattr(module, "default_runs", lambda: tmp_path / "runs")
    listed = typed("status")
    assert "r1" in listed
    assert typed("status", "r1") == listed
    assert f"{tmp_path}/runs/r1" in typed("ssh", "r1")
    assert typed("status", "r2", "--runs", str(tmp_path / "others")) == typed("status", str(tmp_path / "others/r2"))
    for words in (("ssh", "r2"), ("destroy", "r1", "--runs", str(tmp_path / "others")), ("verdict", "x" * 300)):
        assert "does not exist" in typed(*words), words
