"""What the tests with machines share: the tiny guest, how it is best run here, and a run directory that ends empty."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from oscar_steps.v3m.boot import DirectKernel
from oscar_steps.v3m.host import ledger
from oscar_steps.v3m.host.accelerator import Accelerator, find_accelerator
from tests.vm.conformance_rig import GUEST_CASES, GUEST_MODULES, Backend, Rig
from tests.vm.conformance_table import Results, markdown, write_markdown
from tests.vm.tiny_guest import Farm, make_guest

RESULTS = pytest.StashKey[Results]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Options of the conformance suite."""
    group = parser.getgroup("conformance")
    group.addoption("--conformance-merge", metavar="FILE", action="append", default=[], help="results of another host")
    group.addoption("--conformance-json", metavar="FILE", help="write the results, a line of JSON each")
    group.addoption("--conformance-markdown", metavar="FILE", help="write the table; of a file that has one, only that")


def pytest_configure(config: pytest.Config) -> None:
    """Here are the results of the session, beginning with those of others."""
    config.addinivalue_line("markers", "operations(*names): what a conformance test proves of its back-end")
    results = config.stash[RESULTS] = Results()
    for file in config.getoption("conformance_merge", []):
        try:
            results.merge(Path(file), f"tried on another host, whose results are in {Path(file).name}")
        except (OSError, ValueError) as error:
            raise pytest.UsageError(f"--conformance-merge: {error}") from None


def pytest_runtest_teardown(item: pytest.Item) -> None:
    """What has been found out is kept from test to test: a run that is ended or breaks down loses none of it."""
    results = item.config.stash[RESULTS]
    if results and (file := item.config.getoption("conformance_json", None)):
        results.save(Path(file))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """The table, when there are results."""
    results = config.stash[RESULTS]
    if not results:
        return
    table = markdown(results)
    terminalreporter.section("conformance: operation × back-end")
    terminalreporter.write(table)
    try:
        if file := config.getoption("conformance_json", None):
            results.save(Path(file))
        if file := config.getoption("conformance_markdown", None):
            write_markdown(Path(file), table)
    except (OSError, ValueError) as error:
        raise pytest.UsageError(str(error)) from None


@pytest.fixture(scope="session")
def guest(tmp_path_factory: pytest.TempPathFactory) -> DirectKernel:
    """Kernel and initrd of the tiny guest."""
    return make_guest(tmp_path_factory.mktemp("guest"))


@pytest.fixture(scope="session")
def accelerator(guest: DirectKernel, tmp_path_factory: pytest.TempPathFactory) -> Accelerator:
    return asyncio.run(find_accelerator(tmp_path_factory.mktemp("cache"), guest.kernel))


@pytest.fixture
def run_directory(tmp_path: Path) -> Iterator[Path]:
    """A run directory; the test fails when a machine of it is left."""
    yield tmp_path
    assert ledger.end_leftovers(tmp_path) == []


@pytest.fixture
def player(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stand-ins for VMware Player's programs. libvirt asks for a version and a list, and starts nothing else here."""
    for program, answer in (("vmplayer", "VMware Player 17.0.2 build-21581411"), ("vmrun", "Total running VMs: 0")):
        file = tmp_path / "bin" / program
        file.parent.mkdir(exist_ok=True)
        file.write_text(f'#!/bin/sh\necho "{answer}"\n', encoding="utf-8")
        file.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    monkeypatch.setenv("HOME", str(tmp_path))


@pytest.fixture
def farm(accelerator: Accelerator, guest: DirectKernel) -> Farm:
    return Farm(accelerator, guest)


@pytest.fixture(scope="session")
def conformance_guest(tmp_path_factory: pytest.TempPathFactory) -> DirectKernel:
    """The tiny guest of the conformance suite: it can do more, and has the drivers of every back-end."""
    return make_guest(tmp_path_factory.mktemp("conformance-guest"), modules=GUEST_MODULES, cases=GUEST_CASES)


@pytest.fixture
def rig(request: pytest.FixtureRequest, backend: Backend, conformance_guest: DirectKernel) -> Rig:
    """For a test of the conformance suite, with the `backend` of its class."""
    marker = request.node.get_closest_marker("operations")
    assert marker is not None
    rig = Rig(backend, conformance_guest, request.config.stash[RESULTS], marker.args)
    reasons = {operation: backend.unproven(operation) for operation in marker.args}
    if all(reasons.values()):
        rig.skip(reasons)
        pytest.skip("; ".join(dict.fromkeys(str(reason) for reason in reasons.values())))
    return rig
