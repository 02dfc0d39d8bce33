"""How a command finds the daemon of a system."""

from __future__ import annotations

import socket
import threading
from pathlib import Path

import pytest

from oscar_steps.daemon import claim
from oscar_steps.v2m.daemon import client
from oscar_steps.v2m.daemon.state import System
from oscar_steps.v3m.host import ledger


@pytest.fixture
def system(tmp_path: Path) -> System:
    system = System("default", tmp_path / "state")
    system.make()
    return system


def test_a_daemon_that_is_just_ending_is_waited_for(system: System) -> None:
    begun, end = threading.Event(), threading.Event()

    def linger() -> None:
        with system.kept():
            begun.set()
            end.wait(10)

    thread = threading.Thread(target=linger)
    thread.start()
    assert begun.wait(10)
    threading.Timer(0.5, end.set).start()
    assert client.greet(system, start=False) == (None, [])
    thread.join()


def test_a_daemon_that_an_earlier_version_started_is_found(system: System, monkeypatch: pytest.MonkeyPatch) -> None:
    """It was called the keeper: its machines must not be marked dead, and no second daemon may start beside it."""
    monkeypatch.chdir(system.directory)
    system.update("vm1", profile="vm1.xml", on_since_boot=ledger.boot_id())

    def answer(listener: socket.socket) -> None:
        connection, _ = listener.accept()
        with connection:
            connection.sendall(b'{"keeper": 1}\n')
            connection.recv(100)
            connection.sendall(b'{"done": {"machines": []}}\n')

    with socket.socket(socket.AF_UNIX) as listener, claim(Path("keeper.lock")) or pytest.fail("another has it"):
        listener.bind("keeper.sock")
        listener.listen()
        threading.Thread(target=answer, args=(listener,), daemon=True).start()
        link, dead = client.greet(system, start=True)
        assert link is not None
        assert dead == []
        assert link.ask({"do": "status"}) == {"machines": []}
        link.close()
        assert system.is_kept()
    assert system.records()["vm1"].on_since_boot == ledger.boot_id()
