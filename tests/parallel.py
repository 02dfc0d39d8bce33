"""`make test` in two workers (pytest-xdist): what boots virtual machines stays in one of them, in its order.

So two tests that boot machines never run side by side: their time limits follow the speed that the host has for one.
All other tests are given out file by file: what the tests of a file share is made once.
"""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from xdist.scheduler import LoadScopeScheduling
    from xdist.workermanage import WorkerController

MACHINES = ("tests/vm/", "tests/farm/test_cell_end_to_end.py")
"""Where the tests are that boot virtual machines."""
_WORKERS = pytest.StashKey[list["WorkerController"]]()


def work_unit(nodeid: str) -> str:
    """Tests of one unit run in one worker, one after the other."""
    return "machines" if nodeid.startswith(MACHINES) else nodeid.split("::", 1)[0]


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> LoadScopeScheduling:
    """Units in the order of their first tests: the command line says what begins first."""
    from xdist.scheduler import LoadScopeScheduling

    class ByMachines(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return work_unit(nodeid)

    config.option.loadscopereorder = False
    return ByMachines(config, log)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodeready(node: WorkerController) -> None:
    """A worker is there."""
    node.config.stash.setdefault(_WORKERS, []).append(node)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: WorkerController) -> None:
    """A worker has done all it had to do, or is lost."""
    with suppress(ValueError):
        node.config.stash.setdefault(_WORKERS, []).remove(node)


@pytest.hookimpl(tryfirst=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """After a signal, wait until each worker has taken down what it has: xdist would kill it after ten seconds."""
    running = session.config.stash.get(_WORKERS, [])
    while running:
        # More than once: the test under way may have a handler of its own.
        for worker in running:
            with suppress(ProcessLookupError):
                os.kill(worker.gateway._rinfo().pid, signal.SIGTERM)
        running = [worker for worker in running if not _has_ended(worker)]


def _has_ended(worker: WorkerController) -> bool:
    """Whether it ends within seconds, or is lost."""
    try:
        worker.channel.waitclose(timeout=2)
    except worker.channel.TimeoutError:
        return False
    except (EOFError, worker.channel.RemoteError):
        return True
    return True
