"""An image that is made on a layer is the one that a full build makes: the same packages, the same files."""

from __future__ import annotations

import asyncio
import re
import subprocess
from pathlib import Path

import pytest

from oscar_steps.images.layer import LAYER
from oscar_steps.images.store import BaseImage, ImageStore
from oscar_steps.matrix.cells import default_profiles
from oscar_steps.matrix.recipes import BootstrapRecipe, load_recipe

VOLATILE = re.compile(
    r"\./(var/(log|cache|backups|lib/(dpkg|apt|systemd/deb-systemd-helper-enabled)|tmp)|tmp|run|dev|etc/ld\.so\.cache)(/|$)"
)
"""Logs, caches and states of the package manager, which say in which order things came."""


def built(store: Path, recipe: BootstrapRecipe) -> BaseImage:
    return asyncio.run(ImageStore(store).ensure(recipe, print))


def files(image: BaseImage) -> set[str]:
    """Mode, owner and name of each file in the image's layer."""
    command = ["tar", "-I", "zstd", "--numeric-owner", "-tvf", image.path.with_name(LAYER)]
    lines = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
    found = set()
    for line in lines:
        mode, owner, rest = line.split(maxsplit=2)
        name = rest.split(maxsplit=3)[3].partition(" -> ")[0].partition(" link to ")[0]
        if not VOLATILE.match(name):
            found.add(f"{mode} {owner} {name}")
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
    assert files(layered) == files(full)


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
