"""A store's folders are far from each other on the disk, where its file system can do that."""

from __future__ import annotations

import asyncio
import subprocess
import tempfile
from pathlib import Path

import pytest

from oscar_steps.images.spread import spread
from oscar_steps.images.store import ImageStore
from tests.unit.images.test_store import RECIPE, mirror, store

__all__ = ["mirror", "store"]


def attributes(folder: Path) -> str:
    """What `lsattr` says of it. Skips the test where the file system has none."""
    done = subprocess.run(["lsattr", "-d", folder], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        pytest.skip(f"this file system has no attributes: {done.stderr.strip()}")
    return done.stdout.split()[0]


def test_the_folders_in_it_are_spread_and_its_other_attributes_stay(tmp_path: Path) -> None:
    if subprocess.run(["chattr", "+dT", tmp_path], capture_output=True, check=False).returncode != 0:
        pytest.skip("this file system spreads no folders")
    subprocess.run(["chattr", "-T", tmp_path], check=True)
    for _ in range(2):
        spread(tmp_path)
        assert {"T", "d"} <= set(attributes(tmp_path))


def test_a_file_system_that_cannot_do_that_and_a_folder_that_is_not_there_are_no_fault(tmp_path: Path) -> None:
    spread(tmp_path / "none")
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        spread(Path(folder))
        assert "T" not in attributes(Path(folder))


def test_a_store_in_which_an_image_was_built_is_spread(store: ImageStore, tmp_path: Path) -> None:
    asyncio.run(store.ensure(RECIPE, lambda _line: None))
    (tmp_path / "other").mkdir()
    spread(tmp_path / "other")
    assert attributes(store.directory) == attributes(tmp_path / "other")
