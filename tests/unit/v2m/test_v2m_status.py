"""`v2m status` without a file: one broken system is told in a sentence, and the others are shown."""

from __future__ import annotations

import json
import os
import socket
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from oscar_steps import v2m
from oscar_steps.daemon import short_path
from oscar_steps.v2m.daemon.state import System


@pytest.fixture
def call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))

    def run(*words: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["v2m", *words])
        with pytest.raises(SystemExit) as end:
            v2m.main()
        said = capsys.readouterr()
        return int(end.value.code or 0), said.out, said.err

    return run


def known(name: str, machines: str | bytes | None = None) -> System:
    """A system of which something is written down: a machine, or what is given."""
    system = System(name)
    system.make()
    if machines is None:
        system.update(f"{name}1", profile=f"/vm/{name}.xml")
    else:
        content = machines if isinstance(machines, bytes) else machines.encode()
        (system.directory / "machines.json").write_bytes(content)
    return system


SPOILED = [
    b"", b"\0" * 64, b"\xff\xfe{", b"{}}", b"null", b"[" * 100_000, b'["vm1"]', b'[{"name": "vm1"}]',
    b'[{"name": 1, "profile": "x"}]', b'[{"name": "vm1", "profile": "x", "made": 7}]',
    b'[{"name": "vm1", "profile": "x", "ended": null}]', b'[{"name": "vm1", "profile": "x", "drive": "no"}]',
]  # fmt: skip


@pytest.mark.parametrize("content", SPOILED)
def test_one_broken_system_does_not_hide_the_others(call: Any, content: bytes) -> None:
    known("a"), known("c")
    bad = known("b", content)
    status, out, err = call("status")
    assert out == "a a1: off\nc c1: off\n"
    assert err.startswith(f"{bad.directory}/machines.json cannot be read: ")
    assert len(err.splitlines()) == 2  # the sentence and its hint
    assert status == 20


def test_a_script_gets_the_machines_of_the_systems_that_are_well(call: Any) -> None:
    known("a"), known("b", ""), known("c")
    status, out, err = call("status", "--json")
    assert [row["machine"] for row in json.loads(out)] == ["a1", "c1"]
    assert (status, err.count("cannot be read")) == (20, 1)


def test_where_the_only_system_is_broken_nobody_hears_that_there_is_no_machine(call: Any) -> None:
    known("b", "")
    status, out, err = call("status")
    assert (status, out) == (20, "")
    assert "no machine is known" not in err


def test_a_system_whose_lock_cannot_be_taken_does_not_hide_the_others(call: Any) -> None:
    known("b"), known("c")
    bad = known("a")
    (bad.directory / "start.lock").mkdir()
    status, out, err = call("status")
    assert out == "b b1: off\nc c1: off\n"
    assert err == f"{bad.directory}/start.lock cannot be locked: Is a directory\n"
    assert status == 20


@pytest.mark.parametrize("said", [b"hello\n", b"[1]\n", b"\xff\n", b"7\n"])
def test_a_daemon_that_speaks_another_language_does_not_hide_the_others(call: Any, said: bytes) -> None:
    bad = known("a")
    known("b")
    with socket.socket(socket.AF_UNIX) as server:
        with short_path(bad.socket) as path:
            server.bind(path)
        server.listen()

        def speak() -> None:
            connection, _ = server.accept()
            with connection:
                connection.sendall(said)

        thread = threading.Thread(target=speak)
        thread.start()
        status, out, err = call("status")
        thread.join()
    assert out == "b b1: off\n"
    assert err.startswith(f"the process {os.getpid()} at the socket {bad.socket} is not a v2m daemon: it said ")
    assert status == 20


def test_the_status_of_one_system_is_refused_by_its_fault_alone(call: Any) -> None:
    known("a", ""), known("b")
    assert call("status", "--system", "b") == (0, "b b1: off\n", "")
    status, out, err = call("status", "--system", "a")
    assert (status, out) == (20, "")
    assert "cannot be read" in err
