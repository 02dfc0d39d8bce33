"""The kind `rpm` against a small signed mirror of our own: the image is made, and nothing unsigned gets into it.

It boots nothing: a real distribution's packages are not here.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from oscar_steps.errors import ImageBuildFailed, OutsideUnknown
from oscar_steps.images.build import ImageBuild, kind_of
from oscar_steps.images.jail import run_jailed
from oscar_steps.images.kind import DISK, INITRD, KERNEL
from oscar_steps.manifest import MANIFEST_FILE
from oscar_steps.matrix.recipes import RpmRecipe
from tests.rpm_mirror import TOOLS, Mirror, served

pytestmark = pytest.mark.skipif(
    any(shutil.which(tool) is None for tool in TOOLS), reason="needs dnf, rpm and createrepo-c: apt-get install them"
)
POOL = "/tftpboot/distro/tiny-1-x86_64"


@pytest.fixture(scope="module")
def mirror(tmp_path_factory: pytest.TempPathFactory) -> Mirror:
    return Mirror(tmp_path_factory.mktemp("mirror"))


@pytest.fixture
def spoiled(mirror: Mirror, tmp_path: Path) -> Mirror:
    """A copy of the mirror, to be spoiled."""
    copy = object.__new__(Mirror)
    vars(copy).update(vars(mirror))
    copy.repository = tmp_path / "repository"
    shutil.copytree(mirror.repository, copy.repository)
    return copy


def recipe(mirror: Mirror, url: str, **changes: object) -> RpmRecipe:
    complete = RpmRecipe(
        name="tiny-1-x86_64",
        kind="rpm",
        architecture="x86_64",
        native="x86_64",
        disk_mib=512,
        network="networkmanager",
        initrd="dracut",
        initrd_modules=("virtio_blk", "ext4"),
        ssh_unit="sshd.service",
        boot="bios",
        packages=("kernel-tiny", "dracut"),
        pool=("served",),
        pool_folder=POOL,
        release="1",
        mirror=url,
        repositories=("$basearch-is-not-a-folder/..",),
        keys=("tiny.asc",),
        key_texts={"tiny.asc": mirror.key.read_text()},
    )
    return complete.model_copy(update={"repositories": (url,), **changes})


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "build"
    path.mkdir()
    yield path
    asyncio.run(run_jailed(["rm", "-rf", str(path / "work")], tmp_path / "rm.log"))


def build(recipe: RpmRecipe, folder: Path) -> None:
    asyncio.run(ImageBuild(recipe, folder, machine_id="0" * 32, report=print).run())


def in_image(folder: Path, path: str) -> str:
    """A file of the image, read from its disk."""
    raw, part = folder / "raw", folder / "part"
    if not part.exists():
        subprocess.run(["qemu-img", "convert", "-O", "raw", folder / DISK, raw], check=True, timeout=60)
        listed = subprocess.run(
            ["sfdisk", "--dump", raw], check=True, capture_output=True, text=True, timeout=60
        ).stdout
        start = int(listed.splitlines()[-1].partition("start=")[2].split(",")[0])
        with raw.open("rb") as disk, part.open("wb") as copy:
            disk.seek(start * 512)
            shutil.copyfileobj(disk, copy)
    words = ["debugfs", "-R", f"cat {path}", str(part)]
    return subprocess.run(words, check=True, capture_output=True, text=True, timeout=60).stdout


def is_in_image(folder: Path, path: str) -> bool:
    words = ["debugfs", "-R", f"stat {path}", str(folder / "part")]
    return "Inode:" in subprocess.run(words, check=True, capture_output=True, text=True, timeout=60).stdout


def test_an_image_is_made_of_signed_packages_with_its_pool_its_kernel_and_the_list_of_what_is_in_it(
    mirror: Mirror, folder: Path
) -> None:
    with served(mirror.repository) as url:
        build(recipe(mirror, url), folder)
    assert (folder / KERNEL).read_text() == "the kernel\n"
    assert (folder / INITRD).read_text().startswith("initrd 6.0-1\n")
    assert 'add_drivers+=" virtio_blk ext4 "' in " ".join((folder / INITRD).read_text().split())
    assert (folder / MANIFEST_FILE).read_text().splitlines() == [
        "dracut 1-1 x86_64",
        "filesystem 1-1 x86_64",
        "kernel-tiny 6.0-1 x86_64",
        "needed 1-1 noarch pool",
        "served 2:3-1 x86_64 pool",
        "shell 1-1 x86_64",
    ]
    assert in_image(folder, "/etc/seen-by-the-kernels-package") == in_image(folder, "/etc/fstab") != ""
    assert f"baseurl=file://{POOL}\n" in in_image(folder, "/etc/yum.repos.d/pool.repo")
    assert in_image(folder, "/etc/yum.repos.d/vendor.repo") == ""
    assert "<repomd" in in_image(folder, f"{POOL}/repodata/repomd.xml")
    assert "Before=" in in_image(folder, "/etc/systemd/system/farm-seed.service")
    assert not (folder / "work").exists()
    for left in (str(folder), "/var/cache/farm-dnf", "/var/cache/dnf"):
        assert not is_in_image(folder, left)


def refused(recipe: RpmRecipe, folder: Path) -> str:
    with pytest.raises(ImageBuildFailed) as error:
        build(recipe, folder)
    assert not (folder / DISK).exists()
    return error.value.sentence


def test_an_index_with_a_bad_signature_is_refused(spoiled: Mirror, folder: Path) -> None:
    index = spoiled.repository / "repodata/repomd.xml"
    index.write_text(index.read_text() + "\n")
    with served(spoiled.repository) as url:
        said = refused(recipe(spoiled, url), folder)
    assert "repomd.xml GPG signature verification error: Bad GPG signature" in said


def test_a_package_without_a_signature_is_refused(spoiled: Mirror, folder: Path) -> None:
    spoiled.remove_signature("shell")
    with served(spoiled.repository) as url:
        assert "shell-1-1.x86_64.rpm is not signed" in refused(recipe(spoiled, url), folder)


def test_a_pools_package_without_a_signature_is_refused(spoiled: Mirror, folder: Path) -> None:
    spoiled.remove_signature("needed")
    with served(spoiled.repository) as url:
        assert "needed-1-1.noarch.rpm is not signed" in refused(recipe(spoiled, url), folder)


def test_a_package_that_the_mirror_does_not_have_is_named(mirror: Mirror, folder: Path) -> None:
    with served(mirror.repository) as url:
        said = refused(recipe(mirror, url, packages=("kernel-tiny", "nowhere")), folder)
    assert said.endswith("Unable to find a match: nowhere")


def test_a_mirror_that_dies_in_mid_build_is_one_sentence(mirror: Mirror, folder: Path) -> None:
    with served(mirror.repository, without="shell-1-1") as url:
        said = refused(recipe(mirror, url), folder)
    assert "Error downloading packages: " in said and "shell-1-1" in said and "Cannot download" in said
    assert "\n" not in said


def test_another_index_is_another_image_and_a_mirror_that_is_away_is_one_sentence(mirror: Mirror) -> None:
    with served(mirror.repository) as url:
        wanted = recipe(mirror, url)
        outside = asyncio.run(kind_of(wanted).outside(wanted))
        assert list(outside) == [f"package index {url}/repodata/repomd.xml"]
        assert asyncio.run(kind_of(wanted).outside(wanted)) == outside
    with pytest.raises(OutsideUnknown, match=r"cannot be read: .*refused"):
        asyncio.run(kind_of(wanted).outside(wanted))


def test_a_mirror_that_changed_since_the_image_got_its_key_makes_no_image(spoiled: Mirror, folder: Path) -> None:
    with served(spoiled.repository) as url:
        wanted = recipe(spoiled, url)
        outside = asyncio.run(kind_of(wanted).outside(wanted))
        spoiled.index()
        made = ImageBuild(wanted, folder, machine_id="0" * 32, report=print, outside=outside)
        with pytest.raises(ImageBuildFailed) as error:
            asyncio.run(made.run())
    assert error.value.sentence == (
        f"the mirror changed while the image was being built: package index {url}/repodata/repomd.xml"
    )


def test_a_mirror_that_stays_as_it_was_when_the_image_got_its_key_makes_one(mirror: Mirror, folder: Path) -> None:
    with served(mirror.repository) as url:
        wanted = recipe(mirror, url)
        outside = asyncio.run(kind_of(wanted).outside(wanted))
        asyncio.run(ImageBuild(wanted, folder, machine_id="0" * 32, report=print, outside=outside).run())
    assert (folder / DISK).exists()


def test_this_host_can_build_it(mirror: Mirror) -> None:
    if os.geteuid() == 0:
        kind_of(wanted := recipe(mirror, "http://127.0.0.1:1")).check(wanted)
