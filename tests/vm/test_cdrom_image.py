"""An image from an installer's CD, made here: a kernel whose initrd carries a disk's contents."""

from __future__ import annotations

import asyncio
import hashlib
import subprocess
from pathlib import Path

import pytest

from oscar_steps.errors import ImageBuildFailed
from oscar_steps.images.build import ImageBuild
from oscar_steps.images.kind import DISK, LOG
from oscar_steps.matrix.recipes import CdromRecipe
from tests.vm.tiny_guest import BUTTON_MODULES, MODULES, make_cd, make_guest, parameters

pytestmark = pytest.mark.timeout(600)
CONTENTS = b"an image".ljust(510, b"\0") + b"\x55\xaa"


def _cd(folder: Path, do: str) -> CdromRecipe:
    """A recipe whose CD does `do`."""
    (folder / "contents").write_bytes(CONTENTS)
    cases = {
        "place": "say places its image; dd if=/image of=$(disk) conv=fsync; poweroff -f",
        "spoil": "echo no boot sector | dd of=$(disk) conv=fsync; poweroff -f",
    }
    guest = make_guest(folder, modules=(*MODULES, *BUTTON_MODULES), cases=cases, files={"image": folder / "contents"})
    iso = make_cd(folder, guest, parameters(f"do={do}"))
    return CdromRecipe(
        name="from-cd",
        kind="cdrom",
        architecture="x86_64",
        disk_mib=512,
        network="ifupdown",
        url=iso.as_uri(),
        sha256=hashlib.sha256(iso.read_bytes()).hexdigest(),
        memory_mib=192,
        minutes=5,
    )


def _build(folder: Path, recipe: CdromRecipe) -> None:
    asyncio.run(ImageBuild(recipe, folder, "0" * 32, print).run())


def test_an_installer_that_fills_the_disk_and_powers_off_makes_an_image(tmp_path: Path) -> None:
    folder = tmp_path / "store/tmp-1"
    folder.mkdir(parents=True)
    _build(folder, _cd(tmp_path, "place"))
    words = ["qemu-img", "convert", "-O", "raw", str(folder / DISK), str(tmp_path / "raw")]
    subprocess.run(words, check=True)
    with (tmp_path / "raw").open("rb") as raw:
        assert raw.read(512) == CONTENTS
    assert (tmp_path / "raw").stat().st_size == 512 << 20
    assert "GUEST places its image" in (folder / LOG).read_text(errors="replace")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("do", "said"),
    [
        ("poweroff", "powered off, but never wrote to the beginning of the disk"),
        ("reboot", "rebooted; it has to power off when it is done"),
        ("spoil", "wrote a disk that cannot be booted: it has no boot sector"),
        ("panic", "did not power off by itself: guest-panic"),
    ],
)
def test_an_installer_that_does_anything_else_makes_none(tmp_path: Path, do: str, said: str) -> None:
    folder = tmp_path / "store/tmp-1"
    folder.mkdir(parents=True)
    recipe = _cd(tmp_path, do)
    with pytest.raises(ImageBuildFailed) as caught:
        _build(folder, recipe)
    assert caught.value.sentence.startswith(f"the installer on {recipe.url} {said}")


@pytest.mark.slow
def test_an_installer_that_waits_for_somebody_is_ended(tmp_path: Path) -> None:
    folder = tmp_path / "store/tmp-1"
    folder.mkdir(parents=True)
    recipe = _cd(tmp_path, "sleep").model_copy(update={"minutes": 0.2})
    with pytest.raises(ImageBuildFailed) as caught:
        _build(folder, recipe)
    assert caught.value.sentence == (
        f"timed out after 0.2 minutes waiting for the installer on {recipe.url} to power off"
    )
