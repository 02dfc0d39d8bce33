"""Images of another day with some packages of today."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from oscar_steps.errors import ConfigError
from oscar_steps.images import room
from oscar_steps.images.key import ImageKey, said_of
from oscar_steps.images.layer import LAYER
from oscar_steps.images.record import KEY_FILE, FileRecord, ImageRecord
from oscar_steps.images.upgrade import UpgradeStore
from oscar_steps.manifest import MANIFEST_FILE, Upgrade, upgrades, versions_of
from tests.unit.images.test_store import RECIPE

OLD = "libc6 2.36-9 amd64\nlibc-bin 2.36-9 amd64\nperl 5.36-7 amd64\ngone 1 all\nrsync 3.2.7-1 amd64 pool\n"
NEW = "libc6 2.36-10 amd64\nlibc-bin 2.36-10 amd64\nperl 5.36-7 amd64\nnew 1 all\nrsync 3.2.7-2 amd64 pool\n"


def test_packages_whose_version_changed_in_the_same_way_are_one_candidate_and_new_ones_none() -> None:
    found = upgrades(OLD, NEW)
    assert found == [
        Upgrade(("libc-bin", "libc6"), "2.36-9", "2.36-10"),
        Upgrade(("rsync",), "3.2.7-1", "3.2.7-2"),
    ]
    assert [str(each) for each in found] == [
        "libc-bin 2.36-9 -> 2.36-10 and 1 more of its version",
        "rsync 3.2.7-1 -> 3.2.7-2",
    ]


def test_a_name_or_a_version_that_is_none_is_no_upgrade() -> None:
    hostile = "--option 1 all\nperl $(id) amd64\nsed 4;id amd64\n"
    assert upgrades("--option 0 all\nperl 5 amd64\nsed 3 amd64\n", hostile) == []


def stored(store: Path, packages: tuple[str, ...] | None = None, index: str = "1", listed: str = "") -> str:
    """The key of an image in the store that keeps a layer. `listed`: its list of packages."""
    recipe = said_of(RECIPE)
    key = ImageKey(recipe, {}, {"index": index}).digest
    folder = store / key
    folder.mkdir(parents=True)
    (folder / LAYER).touch()
    if listed:
        (folder / MANIFEST_FILE).write_text(listed)
    record = ImageRecord(
        key=key,
        version=1,
        recipe=recipe,
        own={},
        outside={"index": index},
        layer={"packages": sorted(packages if packages is not None else RECIPE.packages), "rest": "r"},
        built=1,
        seconds=1,
        files={LAYER: FileRecord(size=0, sha256="")},
    )
    (folder / KEY_FILE).write_text(record.model_dump_json())
    return key


def test_the_key_names_the_old_image_and_each_version_and_nothing_of_the_mirrors(tmp_path: Path) -> None:
    old = stored(tmp_path)
    store = UpgradeStore(tmp_path, old)
    found = upgrades(OLD, NEW)
    assert store.key_with(versions_of(found[:1])).outside == {
        "image before": old,
        "version of libc-bin": "2.36-10",
        "version of libc6": "2.36-10",
    }
    assert store.key_with(versions_of(found[:1])) == UpgradeStore(tmp_path, old).key_with(versions_of(found[:1]))
    assert store.key_with(versions_of(found[:1])).digest != store.key_with(versions_of(found)).digest


def test_it_is_never_taken_for_an_image_of_its_recipe_of_another_day(tmp_path: Path) -> None:
    key = UpgradeStore(tmp_path, stored(tmp_path)).key_with(versions_of(upgrades(OLD, NEW)))
    ordinary = ImageKey(said_of(RECIPE), key.own, {"index": "1"})
    assert ordinary.same_but_for_outside(ImageKey(ordinary.recipe, key.own, {"index": "2"}))
    assert not ordinary.same_but_for_outside(key)


def test_an_image_whose_layer_lacks_some_of_its_packages_cannot_be_upgraded(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="keeps no layer with all its packages"):
        UpgradeStore(tmp_path, stored(tmp_path, packages=()))


def test_an_image_that_is_not_there_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="there is no image abcdef"):
        UpgradeStore(tmp_path, "abcdef")


def test_the_old_image_counts_as_used_whenever_one_is_made_on_it(tmp_path: Path) -> None:
    old, other = stored(tmp_path, index="1"), stored(tmp_path, index="2")
    for number, key in enumerate((old, other)):
        room.mark_used(tmp_path, key)
        os.utime(room.lock_path(tmp_path, key), (number, number))
    store = UpgradeStore(tmp_path, old)
    with store._base(store.key_with({"sed": "4.9"}), {}):
        pass
    assert [entry.key for entry in room.entries(tmp_path)] == [other, old]
