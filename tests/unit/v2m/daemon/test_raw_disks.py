"""A disk that was raw once is never taken for qcow2, however it comes."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from oscar_steps.errors import HostError
from oscar_steps.v2m.daemon import raw_disks
from oscar_steps.v2m.daemon.raw_disks import RawDisks

QCOW2 = b"QFI\xfb" + bytes(600)


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    path = tmp_path / "disks" / "data.img"
    path.parent.mkdir()
    path.write_bytes(bytes(600))
    return path


def _guest_writes(disk: Path) -> None:
    """The guest's QEMU writes into the file: it stays the same one."""
    with disk.open("r+b") as file:
        file.write(QCOW2)


def _another_path(disk: Path) -> Path:
    return disk.parent / ".." / "disks" / disk.name


def _a_link_to_its_directory(disk: Path) -> Path:
    link = disk.parent.with_name("link")
    link.symlink_to(disk.parent)
    return link / disk.name


def _a_link(disk: Path) -> Path:
    link = disk.with_name("link.img")
    link.symlink_to(disk)
    return link


def _a_second_name(disk: Path) -> Path:
    name = disk.with_name("second.img")
    os.link(disk, name)
    return name


def _itself(disk: Path) -> Path:
    return disk


@pytest.mark.parametrize(
    "spelling", [_itself, _another_path, _a_link_to_its_directory, _a_link, _a_second_name], ids=lambda f: f.__name__
)
def test_by_whichever_path_and_machine(tmp_path: Path, disk: Path, spelling: object) -> None:
    RawDisks(tmp_path).check("vm1", [str(disk)])
    RawDisks(tmp_path).check("vm1", [])  # a boot without it changes nothing
    _guest_writes(disk)
    path = spelling(disk)  # type: ignore[operator]
    with pytest.raises(HostError, match=r"the disk \S+ of vm2 was raw, but its content now looks like qcow2"):
        RawDisks(tmp_path).check("vm2", [str(path)])


def test_a_disk_that_was_always_qcow2_and_one_that_stays_raw_are_welcome(tmp_path: Path, disk: Path) -> None:
    other = disk.with_name("other.qcow2")
    other.write_bytes(QCOW2)
    for _ in range(2):
        RawDisks(tmp_path).check("vm1", [str(disk), str(other), str(disk.with_name("not-there.img"))])


def test_another_file_in_its_place_is_another_disk(tmp_path: Path, disk: Path) -> None:
    RawDisks(tmp_path).check("vm1", [str(disk)])
    new = disk.with_name("new.img")
    new.write_bytes(QCOW2)
    new.replace(disk)
    RawDisks(tmp_path).check("vm1", [str(disk)])


def test_a_copy_is_another_disk(tmp_path: Path, disk: Path) -> None:
    """The way out for somebody who has converted it in its place."""
    RawDisks(tmp_path).check("vm1", [str(disk)])
    _guest_writes(disk)
    copy = disk.with_name("copy.img")
    shutil.copy(disk, copy)
    RawDisks(tmp_path).check("vm1", [str(copy)])


def test_where_a_file_system_tells_no_birth_the_path_has_to_be_the_same_too(
    tmp_path: Path, disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There an inode's number is all that is known, and the next file may have it."""
    monkeypatch.setattr(raw_disks, "file_identity", lambda _path: "7 0.000000000")
    RawDisks(tmp_path).check("vm1", [str(disk)])
    other = disk.with_name("other.qcow2")
    other.write_bytes(QCOW2)
    RawDisks(tmp_path).check("vm2", [str(other)])
    _guest_writes(disk)
    with pytest.raises(HostError, match="was raw"):
        RawDisks(tmp_path).check("vm1", [str(_another_path(disk))])


def test_a_list_that_cannot_be_read_lets_no_disk_pass(tmp_path: Path, disk: Path) -> None:
    (tmp_path / "raw-disks.json").write_text("[{", encoding="ascii")
    with pytest.raises(HostError, match=r"raw-disks\.json cannot be read"):
        RawDisks(tmp_path).check("vm1", [str(disk)])
