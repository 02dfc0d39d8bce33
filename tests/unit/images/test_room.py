"""The store keeps to its limit: the least recently used image goes first, and never one in use."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from filelock import FileLock

from oscar_steps.errors import ConfigError
from oscar_steps.images import lease, room
from oscar_steps.images.key import ImageKey
from oscar_steps.images.record import KEY_FILE, ImageRecord, describe
from oscar_steps.v3m.host import settings

MIB = 1 << 20


def put(store: Path, name: str, used: float, mib: int = 1) -> Path:
    """An image in the store, last used `used` seconds after 1970."""
    key = ImageKey({"name": name}, {}, {})
    folder = store / key.digest
    folder.mkdir(parents=True)
    (folder / "image.qcow2").write_bytes(os.urandom(mib * MIB))
    record = describe(folder, key, built=used, seconds=1.0)
    (folder / KEY_FILE).write_text(record.model_dump_json())
    room.mark_used(store, key.digest)
    os.utime(room.lock_path(store, key.digest), (used, used))
    return folder


def aside(folder: Path) -> Path | None:
    held = lease.lease(folder)
    assert held is not None
    return room.set_aside(folder, held)


def names(store: Path) -> list[str]:
    return [entry.record.name if entry.record else "" for entry in room.entries(store)]


@pytest.fixture
def store(tmp_path: Path) -> Path:
    for used, name in enumerate(("old", "middle", "new"), start=1):
        put(tmp_path / "store", name, used)
    return tmp_path / "store"


def test_the_least_recently_used_image_goes_first(store: Path) -> None:
    gone = [entry.record.name for entry in room.evict(store, limit=2 * MIB + MIB // 2) if entry.record]
    assert (gone, names(store)) == (["old"], ["middle", "new"])
    assert not list(store.glob("tmp-*"))
    assert len(list(store.glob("*.lock"))) == 2


def test_use_is_what_counts_and_not_age(store: Path) -> None:
    room.mark_used(store, room.entries(store)[0].key)
    assert [entry.record.name for entry in room.evict(store, limit=2 * MIB + MIB // 2) if entry.record] == ["middle"]


def test_an_image_in_use_stays_and_the_next_one_goes(store: Path) -> None:
    held = lease.lease(room.entries(store)[0].folder)
    assert [entry.record.name for entry in room.evict(store, limit=0) if entry.record] == ["middle", "new"]
    assert names(store) == ["old"]
    assert held


def test_a_store_within_its_limit_loses_nothing(store: Path) -> None:
    assert list(room.evict(store, limit=4 * MIB)) == []


def test_images_go_for_the_sake_of_the_disks_free_space_too(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Usage:
        @property
        def free(self) -> int:
            return (4 - len(names(store))) * MIB

    monkeypatch.setattr(room.shutil, "disk_usage", lambda _path: Usage())
    assert len(list(room.evict(store, limit=100 * MIB, free=3 * MIB))) == 2
    assert names(store) == ["new"]


def test_no_image_goes_where_even_all_of_them_would_not_be_room_enough(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room.shutil, "disk_usage", lambda _path: SimpleNamespace(free=1 * MIB))
    held = lease.lease(room.entries(store)[0].folder)
    assert list(room.evict(store, limit=100 * MIB, free=4 * MIB)) == []  # 1 MiB is free, 2 MiB are in use by nobody
    assert names(store) == ["old", "middle", "new"]
    assert held


def test_an_image_whose_files_another_process_has_removed_meanwhile_is_removed(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rename = Path.rename

    def and_away(self: Path, target: Path) -> Path:
        moved = rename(self, target)
        shutil.rmtree(moved)
        return moved

    monkeypatch.setattr(Path, "rename", and_away)
    assert room.remove(room.entries(store)[0])
    assert names(store) == ["middle", "new"]


def test_images_that_no_build_uses_again_go_before_all_others(store: Path) -> None:
    (store / ("0" * 64)).mkdir()
    aside(room.entries(store)[-1].folder)  # the newest one
    aside(next(entry for entry in room.entries(store) if entry.record).folder)
    keys = [(entry.damaged, bool(entry.record)) for entry in room.evict(store, limit=0)]
    assert keys[-1] == (False, True)
    assert sorted(keys[:-1]) == [(False, False), (True, False), (True, False)]


def test_a_layer_that_images_share_counts_once(store: Path) -> None:
    first, second, _ = (entry.folder for entry in room.entries(store))
    (second / "image.qcow2").unlink()
    (second / "image.qcow2").hardlink_to(first / "image.qcow2")
    assert MIB * 2 < room.used_bytes(room.entries(store)) < MIB * 2 + MIB // 2


def test_what_is_no_image_stays(store: Path) -> None:
    (store / "notes").mkdir()
    (store / "failed-debian-12.log").touch()
    assert len(list(room.evict(store, limit=0))) == 3
    assert {path.name for path in store.iterdir()} == {"notes", "failed-debian-12.log"}


def test_an_image_that_is_being_built_or_removed_by_another_stays(store: Path) -> None:
    with FileLock(room.lock_path(store, room.entries(store)[0].key)):
        assert len(list(room.evict(store, limit=0))) == 2


_KILLED = """
import os, sys
from pathlib import Path
from oscar_steps.images import room
step = int(sys.argv[2])
def count(wrapped):
    def wrapper(*words, **more):
        global step
        if step == 0:
            os.kill(os.getpid(), 9)
        step -= 1
        return wrapped(*words, **more)
    return wrapper
for module, name in ((Path, "rename"), (Path, "unlink"), (Path, "chmod"), (os, "unlink"), (os, "rmdir")):
    setattr(module, name, count(getattr(module, name)))
for _ in room.evict(Path(sys.argv[1]), limit=0): pass
"""


@pytest.mark.parametrize("step", range(8))
def test_killed_with_9_at_any_step_of_a_removal_the_store_has_whole_images_only(store: Path, step: int) -> None:
    done = subprocess.run([sys.executable, "-c", _KILLED, str(store), str(step)], check=False)
    assert done.returncode == -9
    for entry in room.entries(store):
        assert entry.record
        assert entry.record.faults(entry.folder, thorough=True) == []
    assert len(list(room.evict(store, limit=0))) == len(names(store)) == 0 or names(store) == []


def test_the_limit_is_the_hosts_or_that_of_the_variable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settings, "SETTINGS_FILE", tmp_path / "host.toml")
    total = room.shutil.disk_usage(tmp_path).total
    assert room.limit_bytes(tmp_path / "none/yet") == int(min(20 << 30, total / 3))
    (tmp_path / "host.toml").write_text("[images]\nlimit_gib = 1.5\n")
    assert room.limit_bytes(tmp_path) == 3 << 29
    monkeypatch.setenv("OSCAR_FARM_IMAGES_GIB", "2")
    assert room.limit_bytes(tmp_path) == 2 << 30


@pytest.mark.parametrize("text", ["much", "-1", "0", "nan", "inf", "20 GiB"])
def test_a_limit_that_is_none_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv("OSCAR_FARM_IMAGES_GIB", text)
    with pytest.raises(ConfigError, match=r"OSCAR_FARM_IMAGES_GIB=.* is no size"):
        room.limit_bytes(tmp_path)


def test_faults_of_files_are_found_by_their_sizes_at_once_and_by_their_digests_thoroughly(store: Path) -> None:
    folder = room.entries(store)[0].folder
    record = ImageRecord.load(folder)
    assert record
    disk = folder / "image.qcow2"
    data = bytearray(disk.read_bytes())
    data[4711] ^= 1
    disk.write_bytes(data)
    assert record.faults(folder, thorough=False) == []
    assert record.faults(folder, thorough=True) == ["image.qcow2 is not what it was when the image was built"]
    disk.write_bytes(b"x")
    assert record.faults(folder, thorough=False) == ["image.qcow2 has 1 bytes, not 1048576"]
    disk.unlink()
    assert record.faults(folder, thorough=False) == ["image.qcow2 cannot be read: No such file or directory"]


def test_an_image_that_is_being_built_or_removed_by_another_is_not_set_aside(store: Path) -> None:
    folder = room.entries(store)[0].folder
    with FileLock(room.lock_path(store, folder.name)):
        assert aside(folder) is None
    assert folder.is_dir()
    assert aside(folder) == store / f"damaged-{folder.name}"


def test_an_image_that_was_built_anew_since_its_files_were_looked_at_is_not_set_aside(store: Path) -> None:
    folder = room.entries(store)[0].folder
    held = lease.lease(folder)
    assert held is not None
    assert room.set_aside(folder, held) is not None  # by another process
    folder.mkdir()
    assert room.set_aside(folder, held) is None
    assert folder.is_dir()


def test_a_damaged_image_that_a_run_uses_is_not_removed_for_a_later_one(store: Path) -> None:
    folder = room.entries(store)[0].folder
    used = lease.lease(folder)
    first = aside(folder)
    folder.mkdir()
    second = aside(folder)
    assert used is not None
    assert first is not None
    assert second is not None
    assert (first / KEY_FILE).is_file()
    assert sum(entry.damaged for entry in room.entries(store)) == 2
    gone = [entry.folder for entry in room.evict(store, limit=0)]
    assert second in gone
    assert first not in gone


def test_a_download_that_nobody_goes_on_with_goes_before_all_images(store: Path) -> None:
    left, going_on = (store / f"download-{digit * 64}" for digit in "01")
    for path in (left, going_on):
        path.write_bytes(bytes(MIB))
    assert room.used_bytes(room.entries(store)) >= 5 * MIB
    with FileLock(f"{going_on}.lock"):
        gone = [(entry.folder, entry.name) for entry in room.evict(store, limit=4 * MIB + MIB // 2)]
        assert gone == [(left, "a download that was not finished")]
        list(room.evict(store, limit=0))
        assert (names(store), going_on.exists(), left.exists()) == ([""], True, False)
    list(room.evict(store, limit=0))
    assert not going_on.exists()
