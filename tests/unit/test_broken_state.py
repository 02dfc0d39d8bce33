"""State that a power cut or a full disk has spoiled: one sentence about that run, and the others have their turn."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

import pytest
from click.testing import CliRunner

from oscar_steps.errors import HostError, UserError
from oscar_steps.testdriver.cli.main import cli
from oscar_steps.testdriver.head.access import open_ssh
from oscar_steps.testdriver.record import event_history, verdicts
from oscar_steps.testdriver.record.event_history import read_event_history
from oscar_steps.testdriver.record.events import EVENTS_FILE
from oscar_steps.v3m.host import ledger
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
        monkeypatch.setattr(event_history, "read_event_history", lambda _run: object())
        monkeypatch.setattr(verdicts, "verdict_of", _no_verdict)
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


def _run_directory(folder: Path) -> Path:
    run = folder / "run"
    run.mkdir()
    (run / "job.json").write_text("{}")
    (run / EVENTS_FILE).write_text('{"time": "2026-01-01T00:00:00", "elapsed": 1, "kind": "x", "text": ""}\n')
    return run


@contextmanager
def _no_longer_than(seconds: float) -> Iterator[None]:
    """Ends what hangs in a system call."""

    def late(_number: int, _frame: object) -> NoReturn:
        raise AssertionError(f"it hangs: not done within {seconds} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _execute(*words: str | Path) -> tuple[int, str]:
    with _no_longer_than(20):
        done = CliRunner().invoke(cli, list(map(str, words)))
    assert isinstance(done.exception, SystemExit), done.exception
    return done.exit_code, done.output


@pytest.mark.parametrize("command", ["status", "destroy", "verdict"])
@pytest.mark.parametrize("name", ["job.json", EVENTS_FILE, "owner.lock", "verdict.json"])
@pytest.mark.parametrize("kind", ["pipe", "loop", "folder", "device", "nested"])
def test_a_run_of_which_a_file_is_no_file_is_one_sentence(tmp_path: Path, command: str, name: str, kind: str) -> None:
    path = _run_directory(tmp_path) / name
    path.unlink(missing_ok=True)
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    elif kind == "nested":
        path.write_text("[" * 100_000)
    else:
        path.symlink_to(name if kind == "loop" else "/dev/full")
    status, said = _execute(command, path.parent)
    assert status in (ExitStatus.USAGE, ExitStatus.INFRASTRUCTURE), said
    assert said.startswith("oscar-testdriver: ")


@pytest.mark.parametrize(
    "line",
    [
        "[" * 100_000,
        '{"time": "", "text": "", "kind": "x", "elapsed": ' + "9" * 400 + "}",
        '{"time": "", "text": "", "kind": "post-mortem", "elapsed": 1, "vms_left": 1e999}',
        '{"time": "", "text": "", "kind": "installer-started", "elapsed": 1, "flavour": 1e999}',
    ],
)
def test_an_event_that_no_run_has_written_tells_nothing(tmp_path: Path, line: str) -> None:
    run = _run_directory(tmp_path)
    with (run / EVENTS_FILE).open("a") as file:
        file.write(line)
    history = read_event_history(run)
    assert history is not None
    assert (history.vms_left, history.flavour) == (None, None)


@pytest.mark.parametrize("content", [*SPOILED, b'{"host": "h", "port": 1e999, "password": "", "known_hosts": ""}'])
def test_a_spoiled_access_file_is_one_sentence(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "access.json").write_bytes(content)
    with pytest.raises(HostError, match="cannot be used: it does not say how to log in"):
        open_ssh(tmp_path, ())


def test_no_password_is_a_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    value = {"host": "h", "port": 1, "password": "'; touch x; echo '", "known_hosts": "k"}
    (tmp_path / "access.json").write_text(json.dumps(value))
    monkeypatch.setattr(os, "execvpe", lambda *_words: None)
    monkeypatch.setattr(shutil, "which", lambda _name: "/usr/bin/ssh")
    open_ssh(tmp_path, ())
    ask = tmp_path / "ssh/password"
    assert subprocess.check_output(ask, cwd=tmp_path, text=True) == "'; touch x; echo '\n"
    assert not (tmp_path / "x").exists()


def test_what_another_user_has_written_is_not_carried_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    undo = ["touch", str(tmp_path / "done")]
    entry = {"name": "a", "pid": os.getpid(), "started": 1, "boot_id": ledger.boot_id(), "undo": undo}
    (tmp_path / ledger.LEDGER_FILE).write_text(json.dumps([entry]))
    (tmp_path / "access.json").write_text('{"host": "h", "port": 1, "password": "p", "known_hosts": "k"}')
    monkeypatch.setattr(os, "geteuid", lambda: (tmp_path / ledger.LEDGER_FILE).stat().st_uid + 1)
    with pytest.raises(HostError, match="it belongs to the user with the number"):
        ledger.end_leftovers(tmp_path)
    with pytest.raises(UserError, match="it belongs to the user with the number"):
        open_ssh(tmp_path, ())
    assert not (tmp_path / "done").exists()


def test_the_console_of_a_machine_that_is_a_pipe_is_none(tmp_path: Path) -> None:
    run = _run_directory(tmp_path)
    (run / "console").mkdir()
    os.mkfifo(run / "console/head.log")
    status, said = _execute("console", "--no-follow", run, "head")
    assert status == ExitStatus.USAGE
    assert "there is no console of 'head'" in said
