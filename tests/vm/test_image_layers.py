"""An image that is made on a layer is the one that a full build makes: the same packages, the same files."""

from __future__ import annotations

import asyncio
import hashlib
import re
import stat
import subprocess
from pathlib import Path

import pytest

from oscar_steps.images.store import BaseImage, ImageStore
from oscar_steps.matrix.cells import default_profiles
from oscar_steps.matrix.recipes import BootstrapRecipe, load_recipe

VOLATILE = re.compile(r"boot/initrd\.img-.*|var/cache/apt/.*|var/lib/dpkg/status-old|var/log/.*")
"""Files with times in them, and states of the package manager, which say in which order things came."""


def built(store: Path, recipe: BootstrapRecipe) -> BaseImage:
    return asyncio.run(ImageStore(store).ensure(recipe, print))


def files(image: BaseImage, place: Path) -> dict[str, str]:
    """The name of each file on the image's disk to its mode, owner and contents."""
    place.mkdir()
    raw, part, root = place / "raw", place / "part", place / "root"
    root.mkdir()
    subprocess.run(["qemu-img", "convert", "-O", "raw", image.path, raw], check=True)
    dumped = subprocess.run(["sfdisk", "--dump", raw], check=True, capture_output=True, text=True).stdout
    start = int(dumped.splitlines()[-1].partition("start=")[2].partition(",")[0])
    copy = ["dd", f"if={raw}", f"of={part}", "bs=1M", f"skip={start // 2048}", "conv=sparse", "status=none"]
    subprocess.run(copy, check=True)
    subprocess.run(["debugfs", "-R", f"rdump / {root}", part], check=True, capture_output=True)
    found = {}
    for path in root.rglob("*"):
        name, status = str(path.relative_to(root)), path.lstat()
        what = f"{stat.filemode(status.st_mode)} {status.st_uid}:{status.st_gid}"
        if path.is_symlink():
            what += f" {path.readlink()}"
        elif path.is_file() and not VOLATILE.fullmatch(name):
            what += f" {hashlib.sha256(path.read_bytes()).hexdigest()}"
        found[name] = what
    return found


@pytest.mark.slow
def test_one_package_more_on_a_layer_gives_the_packages_and_files_of_a_full_build(tmp_path: Path) -> None:
    recipe = load_recipe(default_profiles() / "images/debian-12-x86_64.toml")
    assert isinstance(recipe, BootstrapRecipe)
    fewer = recipe.model_copy(
        update={"packages": tuple(name for name in recipe.packages if name != "patch"), "pool": ()}
    )
    whole = recipe.model_copy(update={"pool": ()})
    first = built(tmp_path / "layered", fewer)
    layered, full = built(tmp_path / "layered", whole), built(tmp_path / "full", whole)
    assert (layered.record.base, full.record.base) == (first.digest, "")
    assert layered.packages.read_text() == full.packages.read_text()
    assert "\npatch " in full.packages.read_text()
    ours, theirs = files(layered, tmp_path / "one"), files(full, tmp_path / "other")
    assert sorted(ours.items() ^ theirs.items()) == []
    assert len(theirs) > 5000


@pytest.mark.slow
def test_a_package_by_which_a_full_build_would_choose_others_is_not_added_to_a_layer(tmp_path: Path) -> None:
    """gpg-agent wants some program that asks for a password: the one that comes by itself, or one that is asked for.
    So a full build has only the latter, where a layer has both."""
    recipe = load_recipe(default_profiles() / "images/debian-12-x86_64.toml")
    assert isinstance(recipe, BootstrapRecipe)
    few = recipe.model_copy(update={"pool": (), "packages": (*recipe.packages, "gpg-agent")})
    built(tmp_path, few)
    said: list[str] = []
    more = few.model_copy(update={"packages": (*few.packages, "pinentry-tty")})
    image = asyncio.run(ImageStore(tmp_path).ensure(more, said.append))
    assert any("a full build would install other packages): building from nothing" in line for line in said)
    assert image.record.base == ""
    assert re.findall("^pinentry-[a-z]+", image.packages.read_text(), re.MULTILINE) == ["pinentry-tty"]
