"""An image is made on the layer of another one only where that gives what a full build would."""

from __future__ import annotations

import asyncio
import os
import stat
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from oscar_steps.errors import ImageBuildFailed
from oscar_steps.images import disk, root
from oscar_steps.images import layer as layers
from oscar_steps.images.key import ImageKey
from oscar_steps.images.kind import Base, Build
from oscar_steps.images.layer import LAYER, base_for
from oscar_steps.images.record import FileRecord, ImageRecord
from oscar_steps.manifest import MANIFEST_FILE
from tests.unit.images.test_store import RECIPE

KEY = ImageKey({"name": "tiny"}, {}, {"index": "1"})
WANTED = {"packages": ["bash", "perl"], "rest": "r"}
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="keeps owners, in a namespace of its own")


def image(
    store: Path, name: str, packages: Sequence[str], *, built: float = 0.0, **more: Any
) -> tuple[Path, ImageRecord]:
    folder = store / name
    folder.mkdir(parents=True)
    (folder / LAYER).touch()
    given = {
        "key": name, "version": KEY.version, "recipe": {}, "own": {}, "outside": {"index": "1"},
        "layer": {"packages": list(packages), "rest": "r"}, "built": built, "seconds": 1.0,
        "files": {LAYER: FileRecord(size=0, sha256="")},
    }  # fmt: skip
    return folder, ImageRecord.model_validate({**given, **more})


def test_the_layer_that_lacks_least_is_taken_and_of_equals_the_newest(tmp_path: Path) -> None:
    images = [image(tmp_path, "none", []), image(tmp_path, "some", ["bash"])]
    assert base_for(KEY, WANTED, images) == Base(tmp_path / "some", ("perl",))
    images += [image(tmp_path, "all", ["perl", "bash"]), image(tmp_path, "newer", ["perl", "bash"], built=1.0)]
    assert base_for(KEY, WANTED, images) == Base(tmp_path / "newer")


@pytest.mark.parametrize(
    "more",
    [
        {"outside": {"index": "2"}},
        {"version": KEY.version - 1},
        {"layer": {"packages": ["bash"], "rest": "another"}},
        {"layer": {"packages": ["bash", "sed"], "rest": "r"}},
        {"layer": {}},
        {"files": {}},
    ],
    ids=[
        "another index",
        "another builder",
        "another rest",
        "a package removed",
        "no layer",
        "a layer that was removed",
    ],
)
def test_for_everything_else_that_changed_the_image_is_built_from_nothing(tmp_path: Path, more: dict[str, Any]) -> None:
    assert base_for(KEY, WANTED, [image(tmp_path, "one", ["bash"], **more)]) is None
    assert base_for(KEY, {}, [image(tmp_path, "two", ["bash"])]) is None


def test_what_comes_after_the_packages_changes_no_layer_and_everything_else_does() -> None:
    before = root.layer(RECIPE, [])
    late = {"masked_units": ("fstrim.timer",), "kernel_parameters": ("quiet",), "disk_mib": 8192, "console": "hvc0"}
    assert root.layer(RECIPE.model_copy(update=late), []) == before
    more = root.layer(RECIPE.model_copy(update={"packages": (*RECIPE.packages, "perl")}), [])
    assert (more["rest"], more["packages"]) == (before["rest"], ["linux-image-cloud-amd64", "perl"])
    for change in ({"suite": "trixie"}, {"pool": ("bash",)}, {"initrd_modules": ("virtio_blk",)}, {"boot": "uefi"}):
        assert root.layer(RECIPE.model_copy(update=change), [])["rest"] != before["rest"]


class Recorder:
    """In place of a package manager: the root has a file for each package."""

    def __init__(self, build: Build[Any], *, refuses: bool = False) -> None:
        self.build, self.refuses = build, refuses
        self.did: list[str] = []

    async def install(self, folder: Path, overlay: Path) -> None:
        assert (overlay / "etc/fstab").is_file()
        assert not (overlay / "usr/lib/farm-seed").exists()
        self.did.append("install")
        for name in ("etc/systemd/system", "boot", "usr/lib", "packages"):
            (folder / name).mkdir(parents=True)
        for name in ("vmlinuz-1", "initrd.img-1"):
            (folder / "boot" / name).touch()
        await self._with(folder, self.build.recipe.packages)

    async def add(self, folder: Path, _overlay: Path, names: Sequence[str]) -> None:
        self.did.append(f"add {' '.join(names)}")
        if self.refuses:
            raise ImageBuildFailed("a full build would install other packages")
        await self._with(folder, names)

    async def finish(self, folder: Path) -> None:
        self.did.append("finish")
        (folder / "finished").touch()
        (self.build.directory / MANIFEST_FILE).write_text(
            "".join(sorted(f"{path.name}\n" for path in (folder / "packages").iterdir()))
        )

    async def _with(self, folder: Path, names: Sequence[str]) -> None:
        for name in names:
            (folder / "packages" / name).touch()


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> dict[Path, list[str]]:
    """What was in the root of which each disk was made, with modes, and groups that are not ours."""
    found: dict[Path, list[str]] = {}

    def line(folder: Path, path: Path) -> str:
        status = path.lstat()
        group = "" if status.st_gid == os.getegid() else f" of {status.st_gid}"
        return f"{path.relative_to(folder)} {stat.filemode(status.st_mode)}{group}"

    async def make(build: Build[Any], folder: Path) -> None:
        found[build.directory] = [line(folder, path) for path in sorted(folder.rglob("*"))]

    monkeypatch.setattr(disk, "make", make)
    return found


def built(
    directory: Path, base: Base | None = None, *, refuses: bool = False, **recipe: Any
) -> tuple[list[str], Base | None]:
    directory.mkdir()
    said: list[str] = []
    build = Build(RECIPE.model_copy(update=recipe), directory, "0" * 32, said.append, base=base)
    packages = Recorder(build, refuses=refuses)
    on = asyncio.run(root.build_from_root(build, packages.install, packages))
    return packages.did, on


@needs_root
def test_a_changed_file_of_ours_installs_nothing_and_gives_the_same_as_a_full_build(
    tmp_path: Path, made: dict[Path, list[str]]
) -> None:
    one, full, quick = (tmp_path / name for name in ("one", "full", "quick"))
    assert built(one) == (["install", "finish"], None)
    change = {"masked_units": ("fstrim.timer",)}
    assert built(full, **change) == (["install", "finish"], None)
    assert built(quick, Base(one), **change) == (["finish"], Base(one))
    assert made[quick] == made[full] != made[one]
    assert (quick / MANIFEST_FILE).read_text() == (full / MANIFEST_FILE).read_text()
    assert (quick / LAYER).samefile(one / LAYER)


@needs_root
def test_in_a_store_that_is_shared_the_guests_files_do_not_get_the_stores_group(
    tmp_path: Path, made: dict[Path, list[str]]
) -> None:
    own, shared = tmp_path / "own", tmp_path / "shared"
    shared.mkdir()
    os.chown(shared, -1, 4242)
    shared.chmod(0o2770)
    built(own)
    built(shared / "one")
    assert (shared / "one").stat().st_gid == 4242
    assert made[shared / "one"] == made[own]
    built(shared / "two", Base(shared / "one"))
    assert made[shared / "two"] == made[own]


@needs_root
def test_an_added_package_is_added_to_the_root_and_the_layer_stays_the_one_it_came_from(
    tmp_path: Path, made: dict[Path, list[str]]
) -> None:
    one, full, quick, third = (tmp_path / name for name in ("one", "full", "quick", "third"))
    built(one)
    change = {"packages": (*RECIPE.packages, "perl")}
    built(full, **change)
    assert built(quick, Base(one, ("perl",)), **change) == (["add perl", "finish"], Base(one, ("perl",)))
    assert made[quick] == made[full]
    assert (quick / MANIFEST_FILE).read_text() == (full / MANIFEST_FILE).read_text()
    assert (quick / LAYER).samefile(one / LAYER)
    built(third, Base(quick, ("perl",)), **change)
    assert made[third] == made[full]


@needs_root
def test_where_the_layer_would_give_another_image_it_is_built_from_nothing(
    tmp_path: Path, made: dict[Path, list[str]]
) -> None:
    one, quick = tmp_path / "one", tmp_path / "quick"
    built(one)
    change = {"packages": (*RECIPE.packages, "perl")}
    did, on = built(quick, Base(one, ("perl",)), refuses=True, **change)
    assert (did, on) == (["add perl", "install", "finish"], None)
    assert "packages/perl -rw-r--r--" in made[quick]


@needs_root
@pytest.mark.parametrize("added", [(), ("perl",)])
def test_where_the_layer_is_damaged_the_image_is_built_from_nothing(
    tmp_path: Path, made: dict[Path, list[str]], added: tuple[str, ...]
) -> None:
    one, quick = tmp_path / "one", tmp_path / "quick"
    built(one)
    os.truncate(one / LAYER, (one / LAYER).stat().st_size // 2)
    change = {"packages": (*RECIPE.packages, *added)}
    assert built(quick, Base(one, added), **change) == (["install", "finish"], None)
    assert set(made[quick]) - set(made[one]) == {f"packages/{name} -rw-r--r--" for name in added}
    assert not (quick / LAYER).samefile(one / LAYER)


@needs_root
def test_a_unit_that_is_masked_twice_is_masked(tmp_path: Path, made: dict[Path, list[str]]) -> None:
    built(tmp_path / "one", masked_units=("fstrim.timer", "fstrim.timer"))
    assert "etc/systemd/system/fstrim.timer lrwxrwxrwx" in made[tmp_path / "one"]


@needs_root
def test_a_layer_keeps_owners_modes_links_and_attributes(tmp_path: Path) -> None:
    folder, again = tmp_path / "root", tmp_path / "again"
    (folder / "usr").mkdir(parents=True)
    (folder / "usr/ping").write_text("x")
    (folder / "usr/hard").hardlink_to(folder / "usr/ping")
    (folder / "soft").symlink_to("usr/ping")
    os.chown(folder / "usr/ping", 4242, 4243)
    (folder / "usr/ping").chmod(0o4755)
    capability = bytes.fromhex("0100000200200000000000000000000000000000")
    os.setxattr(folder / "usr/ping", "security.capability", capability)
    asyncio.run(layers.pack(folder, tmp_path, tmp_path / "log"))
    asyncio.run(layers.unpack(Base(tmp_path), again, tmp_path / "log"))
    status = (again / "usr/hard").stat()
    assert (status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode), status.st_nlink) == (4242, 4243, 0o4755, 2)
    assert os.getxattr(again / "usr/ping", "security.capability") == capability
    assert (again / "soft").readlink() == Path("usr/ping")


def test_a_layer_of_another_users_is_copied_where_it_cannot_be_linked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    (tmp_path / "one" / LAYER).write_text("layer")

    def refused(*_words: object) -> None:
        raise PermissionError("protected_hardlinks")

    monkeypatch.setattr(os, "link", refused)
    layers.hand_on(Base(tmp_path / "one"), tmp_path / "two")
    assert (tmp_path / "two" / LAYER).read_text() == "layer"


def test_the_key_is_not_the_layers(tmp_path: Path) -> None:
    """The own files of the base may differ: they come after the layer."""
    images = [image(tmp_path, "one", ["bash", "perl"], own={"image/finish.sh": "older"})]
    assert base_for(replace(KEY, own={"image/finish.sh": "newer"}), WANTED, images) == Base(tmp_path / "one")
