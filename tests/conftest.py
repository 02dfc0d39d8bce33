"""What all layers share: a test's marker follows from its folder, so that nobody can forget it."""

from __future__ import annotations

import signal
from pathlib import Path
from types import FrameType

import pytest

from tests.parallel import (
    pytest_sessionfinish,
    pytest_testnodedown,
    pytest_testnodeready,
    pytest_xdist_make_scheduler,
)

__all__ = ["pytest_sessionfinish", "pytest_testnodedown", "pytest_testnodeready", "pytest_xdist_make_scheduler"]

_LAYERS = ("vm", "farm", "chaos")
_SIGNALS = (signal.SIGTERM, signal.SIGINT)
_SLOW_SECONDS = 1800
"""The first one that needs a base image makes it."""
_HERE = Path(__file__).resolve().parent
_SESSIONS: list[pytest.Session] = []


def pytest_configure() -> None:
    """A TERM (a cancelled CI job) ends the tests as Ctrl-C does: farms and machines are taken down in good order."""
    _listen()


def pytest_runtest_logfinish() -> None:
    """A test may have had handlers of its own, and left them."""
    if all(signal.getsignal(number) != signal.SIG_IGN for number in _SIGNALS):
        _listen()


def _listen() -> None:
    for number in _SIGNALS:
        signal.signal(number, _end_once)


def pytest_sessionstart(session: pytest.Session) -> None:
    """What a signal ends."""
    _SESSIONS.append(session)


def _end_once(_number: int, _frame: FrameType | None) -> None:
    """Once only: `make` passes on what the whole process group got, and that must not disturb the taking down.

    No further test begins, even where the interrupted one catches the exception, or Python loses it in a callback.
    """
    for number in _SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    for session in _SESSIONS:
        session.shouldstop = "ended by a signal"
    raise KeyboardInterrupt


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark each test with its layer. Layers with machines may take longer, unless a test says how long."""
    for item in items:
        if not item.path.is_relative_to(_HERE):
            continue
        layer = item.path.relative_to(_HERE).parts[0]
        if layer in _LAYERS:
            item.add_marker(layer)
            if not item.get_closest_marker("timeout"):
                item.add_marker(pytest.mark.timeout(_SLOW_SECONDS))
