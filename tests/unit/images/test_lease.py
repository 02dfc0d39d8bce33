"""Who uses an image holds a lock of the kernel's on it: it ends with the process, and nobody removes what is locked."""

from __future__ import annotations

import gc
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from oscar_steps.images import lease


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "image").mkdir()
    return tmp_path / "image"


def test_an_image_in_use_is_not_free_until_its_last_user_is_gone(folder: Path) -> None:
    first, second = lease.lease(folder), lease.lease(folder)
    assert first and second
    for each in (first, second):
        with lease.unused(folder) as unused:
            assert not unused
        each.end()
    with lease.unused(folder) as unused:
        assert unused


def test_a_lease_ends_with_the_object_that_holds_it(folder: Path) -> None:
    held = lease.lease(folder)
    assert held
    del held
    gc.collect()
    with lease.unused(folder) as unused:
        assert unused


def test_nobody_begins_to_use_an_image_that_is_being_removed(folder: Path) -> None:
    with lease.unused(folder) as unused:
        assert unused
        assert lease.lease(folder) is None
        folder.rename(folder.with_name("tmp"))
    assert lease.lease(folder) is None


def test_a_lease_stays_with_the_image_and_not_with_its_name(folder: Path) -> None:
    held = lease.lease(folder)
    folder.rename(folder.with_name("aside"))
    folder.mkdir()
    with lease.unused(folder) as unused:
        assert unused
    with lease.unused(folder.with_name("aside")) as unused:
        assert not unused
    assert held


def test_a_link_is_no_image(folder: Path) -> None:
    (folder.parent / "link").symlink_to(folder)
    assert lease.lease(folder.parent / "link") is None


_HOLDER = """
import sys, time
from pathlib import Path
from oscar_steps.images import lease
held = lease.lease(Path(sys.argv[1]))
print("held", flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize(
    ("words", "name"),
    [
        (["--run", "/var/lib/runs/debian-12-r7"], "run debian-12-r7"),
        (["--run", "/var/lib/runs/\x1b[2J"], "run"),
        (["--more"], "python"),
    ],
)
def test_the_lease_of_a_process_ends_with_kill_9_and_it_is_named_until_then(
    folder: Path, words: list[str], name: str
) -> None:
    command = [sys.executable, "-c", _HOLDER, str(folder), *words]
    holder = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert holder.stdin and holder.stdout
    with holder.stdin, holder.stdout:
        assert holder.stdout.readline() == b"held\n"
        (user,) = lease.users(folder)
        assert user.startswith(name)
        assert user.endswith(f" ({holder.pid})")
        assert "\x1b" not in user
        with lease.unused(folder) as unused:
            assert not unused
        holder.send_signal(signal.SIGKILL)
        holder.wait()
    with lease.unused(folder) as unused:
        assert unused
    assert lease.users(folder) == ()


def test_no_child_keeps_the_lease_of_its_parent(folder: Path) -> None:
    held = lease.lease(folder)
    child = subprocess.Popen(["cat"], stdin=subprocess.PIPE)
    assert held and child.stdin
    held.end()
    with lease.unused(folder) as unused:
        assert unused
    with child.stdin:
        pass
    child.wait()


def test_an_image_that_is_not_there_is_used_by_nobody(tmp_path: Path) -> None:
    assert lease.lease(tmp_path / "none") is None
    assert lease.users(tmp_path / "none") == ()
    assert not list(tmp_path.iterdir())
