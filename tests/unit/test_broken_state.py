"""State that a power cut or a full disk has spoiled: one sentence about that run, and the others have their turn."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NoReturn

import pytest
from click.testing import CliRunner

from oscar_steps.errors import HostError, UserError
from oscar_steps.testdriver import postmortem
from oscar_steps.testdriver.cli import cli
from oscar_steps.testdriver.events import EVENTS_FILE
from oscar_steps.v3m import ledger
from oscar_steps.verdict import ExitStatus

SPOILED = [b"", b"\0" * 64, b"\xff\xfe{", b"[1]", b"{}}", b'{"pid": 1}', b'[{"name": "a", "pid": "1"}]', b"[" * 100_000]


@pytest.mark.parametrize("content", SPOILED)
def test_a_spoiled_ledger_is_an_error_of_the_host_in_a_sentence(tmp_path: Path, content: bytes) -> None:
    (tmp_path / ledger.LEDGER_FILE).write_bytes(content)
    with pytest.raises(HostError, match="cannot be read"):
        ledger.find_leftovers(tmp_path)


@pytest.mark.parametrize("pid", [0, -1, True, 1.5])
def test_a_number_that_is_no_process_never_gets_a_signal(tmp_path: Path, pid: object) -> None:
    entry = f'[{{"name": "a", "pid": {str(pid).lower()}, "started": 1, "boot_id": "{ledger.boot_id()}"}}]'
    (tmp_path / ledger.LEDGER_FILE).write_text(entry)
    with pytest.raises(HostError, match="cannot be read"):
        ledger.end_leftovers(tmp_path)


def _no_verdict(run: Path) -> NoReturn:
    raise UserError(f"{run}: no verdict here")


@pytest.mark.parametrize("name", ["vms.json", "verdict.json", "job.json", EVENTS_FILE])
@pytest.mark.parametrize("content", SPOILED[:3])
@pytest.mark.parametrize("command", [["status"], ["destroy", "--all"]])
def test_a_spoiled_run_does_not_hide_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, content: bytes, command: list[str]
) -> None:
    if name == "vms.json":  # it is read for a run that began and has no verdict yet
        monkeypatch.setattr(postmortem, "read_story", lambda _run: object())
        monkeypatch.setattr(postmortem, "verdict_of", _no_verdict)
    for order, run in enumerate(("bad", "good")):
        (tmp_path / run).mkdir()
        (tmp_path / run / EVENTS_FILE).touch()
        (tmp_path / run / "job.json").write_text("{}")
        if run == "bad":
            (tmp_path / run / name).write_bytes(content)
        os.utime(tmp_path / run / EVENTS_FILE, (order, order))
    result = CliRunner().invoke(cli, [*command, "--runs", str(tmp_path)])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    assert "good: " in result.output or "/good:" in result.output
    assert "bad: " in result.output or "/bad/" in result.output
    if name == "vms.json":
        assert result.exit_code == ExitStatus.INFRASTRUCTURE
