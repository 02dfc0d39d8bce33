"""What the driver and v2m leave is for their own user, whatever the umask is: tried as another user."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from oscar_steps.errors import UserError
from oscar_steps.job import JOB_FILE
from oscar_steps.testdriver.process.rundirectory import make_directory
from oscar_steps.textio import close_to_others, write_atomically
from tests.others import open_to_others
from tests.unit.test_bad_input import a_job

VM = '<profile><name>vm1</name><memory>192</memory><image size="16">vm1.qcow2</image></profile>'
# A run whose stages leave files in all the ways in which ours do; by the command's own entry, which sets the umask.
RUN = """
import os, sys
from pathlib import Path
from oscar_steps.testdriver.cli import main
from oscar_steps.testdriver.process import run_process
from oscar_steps.testdriver.run import Run
from oscar_steps.textio import write_atomically
from oscar_steps.verdict import Stage

async def stage(run: Run) -> None:
    for name in ("disks", "console", "logs"):
        (run.directory / name).mkdir(exist_ok=True)
    (run.directory / "disks/oscar-headnode.qcow2").write_bytes(b"BEGIN OPENSSH PRIVATE KEY")
    with (run.directory / "console/oscar-headnode.log").open("ab") as console:
        console.write(b"login: ")
    write_atomically(run.directory / "logs/x.json", "{}")
    os.system(f"echo x > '{run.directory}/logs/by-a-child'")

run_process.HANDLERS.update(dict.fromkeys(Stage, stage))
sys.argv = ["oscar-testdriver", "replay", "--runs", sys.argv[1], "--images", sys.argv[2], sys.argv[3]]
main.main()
"""


@pytest.fixture
def open_place() -> Iterator[Path]:
    """A folder that everybody may enter, and a umask that closes nothing. (pytest's own folders are closed.)"""
    with tempfile.TemporaryDirectory(prefix="farm-others-") as folder:
        place = Path(folder)
        place.chmod(0o755)
        before = os.umask(0)
        yield place
        os.umask(before)


def test_what_is_open_is_found(open_place: Path) -> None:
    (open_place / "open").mkdir()
    (open_place / "open/read").touch()
    (open_place / "shut").mkdir(mode=0o700)
    (open_place / "shut/read").touch()
    (open_place / "open/shut").touch(0o600)
    assert open_to_others(open_place) == ["open", "open/read"]


def test_of_a_run_another_user_can_open_nothing(open_place: Path) -> None:
    a_job().save(open_place / JOB_FILE)
    old = open_place / "runs" / "old"
    (old / "disks").mkdir(parents=True)
    (old / "disks/head.qcow2").touch()
    (old / JOB_FILE).touch()
    command = [sys.executable, "-c", RUN, open_place / "runs", open_place / "store", open_place / JOB_FILE]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    (run,) = (path for path in (open_place / "runs").iterdir() if path != old)
    assert (run / "disks/oscar-headnode.qcow2").exists(), done.stderr
    assert open_to_others(open_place) == ["runs"]
    for folder in (run, run / "disks", run / "console", run / "logs"):
        folder.chmod(0o755)  # also one that a person opens holds nothing that is open
    assert [name for name in open_to_others(run) if not (run / name).is_dir()] == []


def test_of_what_v2m_leaves_another_user_can_open_nothing(open_place: Path) -> None:
    (open_place / "vm.xml").write_text(VM)
    environment = os.environ | {"XDG_STATE_HOME": str(open_place / "state")}
    command = [sys.executable, "-c", "from oscar_steps import v2m; v2m.main()", "create", open_place / "vm.xml"]
    subprocess.run(command, env=environment, check=True, capture_output=True)
    assert (open_place / "vm1.qcow2").exists()
    assert open_to_others(open_place) == ["vm.xml"]


def test_a_folder_that_is_no_run_is_left_as_it_is(open_place: Path) -> None:
    for name in ("shared", "run"):
        (open_place / name).mkdir()
        (open_place / name / "something").touch()
    (open_place / "run" / JOB_FILE).touch()
    (open_place / "link").symlink_to("shared")
    make_directory(open_place / "shared")
    assert (open_place / "shared").stat().st_mode & 0o777 == 0o777
    assert (open_place / "run").stat().st_mode & 0o777 == 0o700
    with pytest.raises(UserError):
        make_directory(open_place / "shared" / "something")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has files of others at hand")
def test_what_belongs_to_somebody_else_is_left_as_it_is(open_place: Path) -> None:
    (open_place / "theirs").touch()
    os.chown(open_place / "theirs", 4242, 4242)
    (open_place / "link").symlink_to("theirs")
    for name in ("theirs", "link", "gone"):
        close_to_others(open_place / name)
    assert (open_place / "theirs").stat().st_mode & 0o777 == 0o666


def test_a_file_that_is_written_in_one_step_is_closed_unless_it_is_meant_for_others(open_place: Path) -> None:
    write_atomically(open_place / "ours", "x")
    write_atomically(open_place / "all", "x", mode=0o644)
    with suppress(FileNotFoundError):
        write_atomically(open_place / "nowhere" / "x", "x")
    assert open_to_others(open_place) == ["all"]
