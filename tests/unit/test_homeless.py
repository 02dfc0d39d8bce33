"""A user without a home (no HOME, no entry in the list of users): a command that needs one says so in a sentence and
names the way out, every other command works. Black box: the real command lines, as such a user."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from oscar_steps.matrix.cells import default_profiles

ROOT = default_profiles().parent
pytestmark = pytest.mark.usefixtures("stranger")
STRANGER = 54321
BECOME = ("setpriv", "--reuid", str(STRANGER), "--regid", str(STRANGER), "--clear-groups")
V2M = ("-c", "from oscar_steps.v2m import main; main()")
DRIVER = ("-m", "oscar_steps.testdriver")
CELL = ("--cell", "debian-12-x86_64", "--url", "svn://127.0.0.1:9/x")
FILE = str(ROOT / "profiles" / "clusters" / "head-and-two-nodes.xml")
NO_HOME = f"there is no home directory: HOME is not an absolute path, and this host has no user {STRANGER}"


def as_stranger(folder: Path, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """What Python answers to `words` as a user that the host does not know, with no environment but this."""
    environ = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"} | environment
    return subprocess.run(
        [*BECOME, sys.executable, *words],
        cwd=folder, env=environ, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60,
    )  # fmt: skip


@pytest.fixture(scope="module")
def stranger() -> None:
    """There can be one."""
    if os.geteuid() != 0:
        pytest.skip("only root may become another user")
    if subprocess.run([*BECOME, sys.executable, "-c", "import oscar_steps"], cwd=ROOT, capture_output=True).returncode:
        pytest.skip("another user cannot read this Python or this tree")


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder of the stranger's; pytest's own lie below one that only its user may enter."""
    with tempfile.TemporaryDirectory() as name:
        os.chown(name, STRANGER, STRANGER)
        yield Path(name)


def refused(answer: subprocess.CompletedProcess[str], way_out: str) -> None:
    assert answer.returncode == 20, answer
    sentence, hint = answer.stderr.splitlines()
    assert sentence.removeprefix("oscar-testdriver: ") == NO_HOME
    assert hint == f"  set HOME, or {way_out}"


@pytest.mark.parametrize(
    ("words", "way_out"),
    [
        (("status",), "use --runs FOLDER"),
        (("destroy", "--all"), "use --runs FOLDER"),
        (("run", *CELL), "use --runs FOLDER"),
        (("run", *CELL, "--runs", "."), "XDG_CACHE_HOME, or use --images FOLDER"),
        (("replay", "job.json", "--runs", "."), "XDG_CACHE_HOME, or use --images FOLDER"),
        (("stage", "create-image", "--run", "."), "XDG_CACHE_HOME, or use --images FOLDER"),
        (("check-host",), "XDG_CACHE_HOME, or use --images FOLDER"),
    ],
)
def test_the_testing_driver_says_that_there_is_no_home_and_what_to_say_instead(
    folder: Path, words: Sequence[str], way_out: str
) -> None:
    refused(as_stranger(folder, *DRIVER, *words), way_out)
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("home", ["", "here"])
def test_a_home_that_is_no_absolute_path_is_none(folder: Path, home: str) -> None:
    refused(as_stranger(folder, *DRIVER, "status", HOME=home), "use --runs FOLDER")
    refused(as_stranger(folder, *V2M, "status", HOME=home, XDG_STATE_HOME=home), "XDG_STATE_HOME")
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize(
    "words",
    [
        ("create", FILE),
        ("boot", FILE),
        ("install", FILE, "--from", "network"),
        ("status",),
        ("status", FILE),
        ("console", FILE, "-m", "oscarnode1"),
        ("screenshot", FILE, "picture.png", "-m", "oscarnode1"),
        ("pause", FILE),
        ("unpause", FILE),
        ("reset", FILE),
        ("shut-down", FILE),
        ("power-off", FILE),
        ("insert-cd", FILE, "/dev/null", "-m", "oscarnode1"),
        ("eject-cd", FILE, "-m", "oscarnode1"),
        ("save", FILE, "state", "-m", "oscarnode1"),
        ("restore", FILE, "state", "-m", "oscarnode1"),
        ("migrate", FILE, "127.0.0.1", "-m", "oscarnode1"),
        ("destroy", FILE),
    ],
)
def test_every_command_on_machines_says_that_there_is_no_home(folder: Path, words: Sequence[str]) -> None:
    refused(as_stranger(folder, *V2M, *words), "XDG_STATE_HOME")
    assert list(folder.iterdir()) == []


def test_the_check_of_a_host_says_where_else_its_cache_can_be(folder: Path) -> None:
    refused(as_stranger(folder, *V2M, "check-host"), "XDG_CACHE_HOME, or use --cache FOLDER")


@pytest.mark.parametrize(
    "words",
    [
        (*V2M, "validate", FILE),
        (*V2M, "show", FILE),
        (*V2M, "completion", "bash"),
        (*DRIVER, "status", "--runs", "."),
        (*DRIVER, "destroy", "--all", "--runs", "."),
        (*DRIVER, "answers", "--help"),
    ],
)
def test_a_command_that_needs_no_home_works_without_one(folder: Path, words: Sequence[str]) -> None:
    answer = as_stranger(folder, *words)
    assert (answer.returncode, answer.stderr) == (0, "")


@pytest.mark.parametrize("words", [("status", "."), ("destroy", "."), ("verdict", ".")])
def test_a_run_that_is_named_needs_no_home(folder: Path, words: Sequence[str]) -> None:
    answer = as_stranger(folder, *DRIVER, *words)
    assert answer.returncode == 64
    assert answer.stderr.splitlines()[0].endswith(": there is no run here")


def test_the_ways_out_lead_out(folder: Path) -> None:
    status = as_stranger(folder, *V2M, "status", XDG_STATE_HOME=str(folder))
    assert (status.returncode, status.stderr) == (0, "no machine is known\n")
    status = as_stranger(folder, *V2M, "status", HOME=str(folder))
    assert (status.returncode, status.stderr) == (0, "no machine is known\n")
    runs = as_stranger(folder, *DRIVER, "status", HOME=str(folder))
    assert (runs.returncode, runs.stderr) == (0, "")


def test_a_daemon_starts_without_a_home_where_the_state_has_a_place(folder: Path) -> None:
    answer = as_stranger(folder, "-c", "import oscar_steps.v2m.daemon.server")
    assert (answer.returncode, answer.stderr) == (0, "")


def test_completion_of_systems_offers_none_and_says_nothing(folder: Path) -> None:
    words = {"_V2M_COMPLETE": "bash_complete", "COMP_WORDS": "v2m status --system ", "COMP_CWORD": "3"}
    answer = as_stranger(folder, *V2M, **words)
    assert (answer.stdout.strip(), answer.stderr) == ("", "")
