"""The image store: one build for many who want it, nothing half made, nothing left by the killed."""

from __future__ import annotations

import asyncio
import errno
import gc
import os
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from filelock import FileLock

from oscar_steps import guest
from oscar_steps.errors import ConfigError, HostError, ImageBuildFailed, OutsideUnknown
from oscar_steps.images import build as imagebuild
from oscar_steps.images import disk, lease, outside
from oscar_steps.images import store as images
from oscar_steps.images.jail import output_of, run_jailed
from oscar_steps.images.key import ImageKey, own_digests
from oscar_steps.images.kinds.bootstrap import AptSource, Bootstrap, sources_for
from oscar_steps.images.record import KEY_FILE, ImageRecord
from oscar_steps.images.root import _lay_out, early_files, late_files
from oscar_steps.images.store import BaseImage, ImageStore
from oscar_steps.manifest import MANIFEST_FILE
from oscar_steps.matrix.recipes import BootstrapRecipe, ImageRecipe

RECIPE = BootstrapRecipe(
    name="tiny",
    kind="bootstrap",
    origin="Debian",
    suite="bookworm",
    architecture="x86_64",
    native="amd64",
    boot="bios",
    network="ifupdown",
    initrd="initramfs-tools",
    packages=("linux-image-cloud-amd64",),
    pool_folder="/tftpboot/distro/tiny",
    disk_mib=1024,
)
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="makes mounts in a namespace of its own")


INDEX = "package index of bookworm"


def _quiet(_line: str) -> None:
    pass


def key_of(recipe: BootstrapRecipe, index: str = "1") -> str:
    """The image's key on a day on which the mirror's index is `index`."""
    own = own_digests(imagebuild.kind_of(recipe).own_contents(recipe))
    return ImageKey(recipe.model_dump(mode="json"), own, {INDEX: index}).digest


class Mirror:
    """In place of the mirror: what its index is today; None: it cannot be reached."""

    index: str | None = "1"
    asked = 0

    async def outside(self, _recipe: BootstrapRecipe) -> dict[str, str]:
        self.asked += 1
        if self.index is None:
            raise OutsideUnknown("the mirror http://m cannot be asked for 'bookworm' (Connection refused)")
        return {INDEX: self.index}


def _wait_until(holds: Callable[[], bool], seconds: float = 20) -> None:
    """Look until it holds: for what ends by the kernel's hand and sends us no event."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "it never came to be"
        time.sleep(0.05)


class FakeBuild:
    """In place of a build: writes the files of an image, counting how often."""

    runs = 0
    fails = False

    def __init__(
        self, _recipe: ImageRecipe, directory: Path, *, machine_id: str, report: imagebuild.Report, **_more: object
    ) -> None:
        assert len(machine_id) == 32
        self.directory = directory
        self.report = report

    async def run(self) -> None:
        FakeBuild.runs += 1
        self.report("building")
        await asyncio.sleep(0.1)
        (self.directory / imagebuild.LOG).write_text("E: Unable to locate package nonsense\n")
        if FakeBuild.fails:
            raise ImageBuildFailed("mmdebstrap ended with status 100: E: Unable to locate package nonsense")
        for name in (imagebuild.DISK, imagebuild.KERNEL):
            (self.directory / name).write_text(name)
        (self.directory / MANIFEST_FILE).write_text("bash 5.2 amd64\n")


@pytest.fixture
def mirror(monkeypatch: pytest.MonkeyPatch) -> Mirror:
    mirror = Mirror()
    monkeypatch.setattr(Bootstrap, "outside", lambda _kind, recipe: mirror.outside(recipe))
    monkeypatch.setattr(outside, "GOOD_SECONDS", -1.0)
    monkeypatch.setattr(outside, "BAD_SECONDS", -1.0)
    return mirror


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mirror: Mirror) -> ImageStore:  # noqa: ARG001 - in place
    FakeBuild.runs, FakeBuild.fails = 0, False
    monkeypatch.setattr(images, "ImageBuild", FakeBuild)
    monkeypatch.setattr(images, "check_host", lambda _recipe: None)

    async def remove(command: list[str], _log: Path) -> None:
        shutil.rmtree(command[-1])

    monkeypatch.setattr(images, "run_jailed", remove)
    return ImageStore(tmp_path / "store")


def test_an_image_is_built_once_and_then_found(store: ImageStore) -> None:
    first = asyncio.run(store.ensure(RECIPE, _quiet))
    for again in (asyncio.run(store.ensure(RECIPE, _quiet)), store.find(key_of(RECIPE))):
        assert again and (again.path, again.record) == (first.path, first.record)
    assert FakeBuild.runs == 1
    assert first.path.read_text() == imagebuild.DISK
    assert first.kernel.is_file()
    assert first.digest == key_of(RECIPE) == first.path.parent.name


def test_nobody_may_write_to_an_image(store: ImageStore) -> None:
    image = asyncio.run(store.ensure(RECIPE, _quiet))
    assert stat.S_IMODE(image.path.stat().st_mode) == 0o400
    assert stat.S_IMODE(image.path.parent.stat().st_mode) == 0o500


def test_a_store_is_for_its_user_alone_also_one_that_was_left_open(store: ImageStore) -> None:
    os.umask(0)
    old = store.directory / "0123"
    old.mkdir(parents=True)
    (old / imagebuild.DISK).touch(0o444)
    old.chmod(0o555)
    root = store.directory / f"tmp-{key_of(RECIPE)}-1" / "root"
    root.mkdir(parents=True)
    root.chmod(0o755)
    store._close()
    assert root.stat().st_mode & 0o777 == 0o755  # it is the root folder of a guest that is being made
    for _ in range(2):
        asyncio.run(store.ensure(RECIPE, _quiet))
        for path in (store.directory, *store.directory.rglob("*")):
            assert path.stat().st_mode & 0o077 == 0, path


def test_a_store_that_an_administrator_shares_is_open_to_its_group_and_to_nobody_else(store: ImageStore) -> None:
    store.directory.mkdir()
    store.directory.chmod(0o2755)
    image = asyncio.run(store.ensure(RECIPE, _quiet))
    modes = [stat.S_IMODE(path.stat().st_mode) for path in (store.directory, image.path.parent, image.path)]
    assert [oct(mode & 0o777) for mode in modes] == ["0o750", "0o550", "0o440"]
    (lock,) = store.directory.glob("*.lock")
    assert oct(lock.stat().st_mode & 0o777) == "0o660"  # another member of the group builds the next image


_IN_ANOTHERS_STORE = """
import asyncio, os, sys
from pathlib import Path
from tests.unit.images.test_store import RECIPE, Bootstrap, Mirror, images
from oscar_steps.errors import HostError
images.check_host = images.require_user = lambda *_: None
Bootstrap.outside = Mirror().outside
os.setgroups([])
os.setresgid(4242, 4242, 4242)
os.setresuid(4243, 4243, 4243)
try:
    asyncio.run(images.ImageStore(Path(sys.argv[1])).ensure(RECIPE, print))
except HostError as failure:
    print(failure.explain())
"""


@needs_root
def test_what_another_member_of_the_group_has_closed_is_named() -> None:
    with tempfile.TemporaryDirectory(prefix="farm-shared-") as folder:
        place = Path(folder)
        lock = place / f"{key_of(RECIPE)}.lock"
        (place / f"tmp-{key_of(RECIPE)}-4711").mkdir(mode=0o700)
        lock.touch(0o600)
        for path in (place, *place.iterdir()):
            os.chown(path, 4244, 4242)
        place.chmod(0o2770)
        command = [sys.executable, "-c", _IN_ANOTHERS_STORE, place]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stdout == (
        f"the image store {place} is shared, but this user may not open {lock}\n"
        f"  its owner or root opens it to the group: chmod g+rw {lock}\n"
    ), done.stderr


def test_of_two_that_want_the_same_image_one_builds_and_the_other_says_that_it_waits(store: ImageStore) -> None:
    said: list[list[str]] = [[], []]

    async def both() -> None:
        await asyncio.gather(*(store.ensure(RECIPE, lines.append) for lines in said))

    asyncio.run(both())
    assert FakeBuild.runs == 1
    assert said == [["building"], ["another process builds this image; waiting for it"]]


@pytest.mark.parametrize(
    "change",
    [
        {"suite": "trixie"},
        {"packages": ("perl",)},
        {"masked_units": ("fstrim.timer",)},
        {"kernel_parameters": ("quiet",)},
    ],
)
def test_another_recipe_is_another_image(change: dict[str, object]) -> None:
    assert key_of(RECIPE.model_copy(update=change)) != key_of(RECIPE)


FOLDERS = ("apt", "image", "disk", "initrd/initramfs-tools")
IN_IMAGES = [path for folder in FOLDERS for path in (Path(guest.__file__).parent / folder).rglob("*") if path.is_file()]


@pytest.mark.parametrize("file", IN_IMAGES, ids=lambda file: file.name)
def test_another_file_of_the_guests_is_another_image(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    boot = next((way for way in ("bios", "uefi") if file in disk.scripts(way)), RECIPE.boot)
    recipe = RECIPE.model_copy(update={"initrd_modules": ("virtio_blk",), "boot": boot})
    before = key_of(recipe)
    copy = tmp_path / "guest"
    shutil.copytree(Path(guest.__file__).parent, copy)
    monkeypatch.setattr(guest, "_FOLDER", copy)
    assert key_of(recipe) == before
    with (copy / file.relative_to(Path(guest.__file__).parent)).open("a") as more:
        more.write("# changed\n")
    assert key_of(recipe) != before


def test_a_failed_build_leaves_its_log_and_nothing_else(store: ImageStore) -> None:
    FakeBuild.fails = True
    with pytest.raises(ImageBuildFailed, match=r"image tiny: .*Unable to locate package nonsense") as caught:
        asyncio.run(store.ensure(RECIPE, _quiet))
    log = store.directory / "failed-tiny.log"
    assert str(log) in caught.value.hint
    assert log.read_text() == "E: Unable to locate package nonsense\n"
    assert not list(store.directory.glob("tmp-*"))
    assert store.find(key_of(RECIPE)) is None


def test_another_index_of_the_mirror_is_another_image_and_the_old_one_stays(store: ImageStore, mirror: Mirror) -> None:
    old = asyncio.run(store.ensure(RECIPE, _quiet))
    mirror.index = "2"
    new = asyncio.run(store.ensure(RECIPE, _quiet))
    assert (old.digest, new.digest) == (key_of(RECIPE, "1"), key_of(RECIPE, "2"))
    assert new.record.image_key.differences(old.record.image_key) == [INDEX]
    assert old.path.exists()


def test_a_recipe_that_is_proven_now_needs_no_other_image(store: ImageStore) -> None:
    unproven = RECIPE.model_copy(update={"unproven": True})
    first = asyncio.run(store.ensure(unproven, _quiet))
    assert asyncio.run(store.ensure(RECIPE, _quiet)).digest == first.digest
    assert FakeBuild.runs == 1


def test_the_mirror_is_not_asked_again_for_a_few_minutes(
    store: ImageStore, mirror: Mirror, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outside, "GOOD_SECONDS", 300.0)
    monkeypatch.setattr(outside, "FRESH_SECONDS", 300.0)
    for _ in range(2):
        asyncio.run(store.ensure(RECIPE, _quiet))
    assert mirror.asked == 1
    outside.forget(store.directory)
    asyncio.run(store.ensure(RECIPE, _quiet))
    assert mirror.asked == 2


def test_a_build_begins_with_what_the_mirror_has_then_and_not_some_minutes_ago(
    store: ImageStore, mirror: Mirror, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outside, "GOOD_SECONDS", 300.0)
    monkeypatch.setattr(outside, "FRESH_SECONDS", -1.0)
    asyncio.run(store.key_of(RECIPE))
    mirror.index = "2"
    assert asyncio.run(store.ensure(RECIPE, _quiet)).digest == key_of(RECIPE, "2")
    mirror.index = "3"  # that one is not asked for: the image of some minutes ago is there
    assert asyncio.run(store.ensure(RECIPE, _quiet)).digest == key_of(RECIPE, "2")


def test_a_mirror_that_does_not_answer_is_not_asked_again_by_each_cell(
    store: ImageStore, mirror: Mirror, monkeypatch: pytest.MonkeyPatch
) -> None:
    asyncio.run(store.ensure(RECIPE, _quiet))
    monkeypatch.setattr(outside, "BAD_SECONDS", 60.0)
    mirror.index = None
    for _ in range(2):
        asyncio.run(store.ensure(RECIPE, _quiet))
    assert mirror.asked == 2


def test_where_the_mirror_is_away_the_newest_image_of_the_same_recipe_and_code_is_used(
    store: ImageStore, mirror: Mirror
) -> None:
    for index in ("1", "2"):
        mirror.index = index
        asyncio.run(store.ensure(RECIPE, _quiet))
    other = RECIPE.model_copy(update={"packages": ("perl",)})
    asyncio.run(store.ensure(other, _quiet))
    mirror.index = None
    said: list[str] = []
    image = asyncio.run(store.ensure(RECIPE, said.append))
    assert image.digest == key_of(RECIPE, "2")
    assert said == [
        "the mirror http://m cannot be asked for 'bookworm' (Connection refused); "
        f"using the image of {time.strftime('%Y-%m-%d')}"
    ]


def test_a_host_without_apt_uses_the_image_that_is_there(
    store: ImageStore, mirror: Mirror, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = asyncio.run(store.ensure(RECIPE, _quiet))

    async def outside(_recipe: BootstrapRecipe) -> dict[str, str]:
        return {INDEX: await output_of("no-apt-get", "indextargets")}

    monkeypatch.setattr(mirror, "outside", outside)
    said: list[str] = []
    assert asyncio.run(store.ensure(RECIPE, said.append)).digest == old.digest
    assert said[0].startswith("no-apt-get is missing on this host; using the image of ")


def test_where_the_mirror_is_away_and_there_is_no_image_one_sentence_says_so(store: ImageStore, mirror: Mirror) -> None:
    mirror.index = None
    with pytest.raises(ImageBuildFailed) as caught:
        asyncio.run(store.ensure(RECIPE, _quiet))
    assert caught.value.sentence == (
        "the mirror http://m cannot be asked for 'bookworm' (Connection refused); "
        "and the store has no image tiny of an earlier day"
    )


def test_a_service_that_may_build_none_uses_the_newest_image_until_another_has_built_that_of_today(
    store: ImageStore, mirror: Mirror, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = asyncio.run(store.ensure(RECIPE, _quiet))
    mirror.index = "2"

    def refuse() -> None:
        raise HostError("images cannot be built here")

    monkeypatch.setattr(images, "require_user", refuse)
    said: list[str] = []
    assert asyncio.run(store.ensure(RECIPE, said.append)).digest == old.digest
    assert said == [f"images cannot be built here; using the image of {time.strftime('%Y-%m-%d')}"]


def test_a_pinned_key_gets_the_very_image_whatever_the_mirror_has(store: ImageStore, mirror: Mirror) -> None:
    old = asyncio.run(store.ensure(RECIPE, _quiet))
    for mirror.index in ("2", None):
        assert asyncio.run(store.ensure(RECIPE, _quiet, pinned=old.digest[:12])).digest == old.digest
    assert FakeBuild.runs == 1


@pytest.mark.parametrize(
    ("pinned", "change", "said"),
    [
        ("0123456789", {}, "there is no image 0123456789 in the store"),
        ("", {}, "2 images have a key that begins with"),
        ("own", {"name": "other"}, "is one of tiny, not of other"),
    ],
)
def test_a_pinned_key_that_is_not_there_is_said(
    store: ImageStore, mirror: Mirror, pinned: str, change: dict[str, str], said: str
) -> None:
    for mirror.index in ("1", "2"):
        image = asyncio.run(store.ensure(RECIPE, _quiet))
    if not pinned:  # a beginning that both have
        renamed = store.directory / (image.digest[:40] + key_of(RECIPE, "1")[40:])
        (store.directory / key_of(RECIPE, "1")).rename(renamed)
        record = ImageRecord.model_validate_json((renamed / KEY_FILE).read_bytes())
        renamed.chmod(0o700)
        (renamed / KEY_FILE).unlink()
        (renamed / KEY_FILE).write_text(record.model_copy(update={"key": renamed.name}).model_dump_json())
    wanted = {"own": image.digest, "": image.digest[:40]}.get(pinned, pinned)
    with pytest.raises(ConfigError, match=said):
        asyncio.run(store.ensure(RECIPE.model_copy(update=change), _quiet, pinned=wanted))


def test_what_is_known_of_an_image_is_kept_beside_it(store: ImageStore) -> None:
    image = asyncio.run(store.ensure(RECIPE, _quiet))
    record = ImageRecord.load(image.path.parent)
    assert record == image.record
    assert (record.name, record.outside, record.recipe["suite"]) == ("tiny", {INDEX: "1"}, "bookworm")
    assert set(record.files) == {imagebuild.DISK, imagebuild.KERNEL, imagebuild.LOG, MANIFEST_FILE}
    assert record.manifest
    assert image.packages.read_text() == "bash 5.2 amd64\n"


def test_an_image_is_in_use_as_long_as_the_one_that_asked_for_it_holds_it(store: ImageStore) -> None:
    image: BaseImage | None = asyncio.run(store.ensure(RECIPE, _quiet))
    assert image
    folder = image.path.parent
    with lease.unused(folder) as unused:
        assert not unused
    del image
    gc.collect()
    with lease.unused(folder) as unused:
        assert unused


def test_an_image_whose_disk_was_cut_short_is_taken_out_of_use_and_built_anew(store: ImageStore) -> None:
    image = asyncio.run(store.ensure(RECIPE, _quiet))
    image.path.chmod(0o600)
    image.path.write_text("short")
    again = asyncio.run(store.ensure(RECIPE, _quiet))
    assert again.path.read_text() == imagebuild.DISK
    assert FakeBuild.runs == 2
    assert (store.directory / f"damaged-{image.digest}").is_dir()


def test_a_record_that_cannot_be_read_is_no_image(store: ImageStore) -> None:
    image = asyncio.run(store.ensure(RECIPE, _quiet))
    path = image.path.with_name(KEY_FILE)
    path.chmod(0o600)
    path.write_text("{")
    assert store.find(image.digest) is None
    assert asyncio.run(store.ensure(RECIPE, _quiet)).digest == image.digest


def test_a_full_disk_is_said_in_one_sentence_with_a_way_out(store: ImageStore, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_words: object, **_more: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(images, "describe", full)
    with pytest.raises(HostError, match="has no room left: No space left on device") as caught:
        asyncio.run(store.ensure(RECIPE, _quiet))
    assert f"oscar-testdriver images prune --images {store.directory} --all" in caught.value.hint
    assert not list(store.directory.glob("tmp-*"))


def test_what_a_killed_builder_left_is_removed_and_what_a_living_one_makes_is_not(store: ImageStore) -> None:
    orphan, living = (store.directory / f"tmp-{digest}-4711" for digest in ("dead", "alive"))
    for folder in (orphan, living):
        (folder / "root/etc").mkdir(parents=True)
    with FileLock(store.directory / "alive.lock"):
        asyncio.run(store.ensure(RECIPE, _quiet))
    assert not orphan.exists()
    assert living.exists()


def test_a_store_that_cannot_be_written_is_the_hosts_fault(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(HostError, match="image store"):
        asyncio.run(ImageStore(tmp_path / "file" / "store").ensure(RECIPE, _quiet))


_KILLED = """
import asyncio, pathlib, sys
from oscar_steps.images.jail import run_jailed
folder = pathlib.Path(sys.argv[1])
script = f"mount -t tmpfs none {folder}/mnt; sleep 4711 & echo up >{folder}/up; wait"
asyncio.run(run_jailed(["sh", "-c", script], folder / "log"))
"""


def _sleepers() -> list[psutil.Process]:
    return [p for p in psutil.process_iter(["cmdline"]) if p.info["cmdline"] == ["sleep", "4711"]]


@needs_root
def test_a_builder_killed_with_9_leaves_no_process_and_no_mount(tmp_path: Path) -> None:
    (tmp_path / "mnt").mkdir()
    builder = subprocess.Popen([sys.executable, "-c", _KILLED, str(tmp_path)])
    try:
        _wait_until((tmp_path / "up").exists)
        _wait_until(_sleepers)
    finally:
        builder.send_signal(signal.SIGKILL)
        builder.wait()
    _wait_until(lambda: not _sleepers())
    assert str(tmp_path) not in Path("/proc/mounts").read_text()


@needs_root
def test_a_cancelled_build_leaves_no_process(tmp_path: Path) -> None:
    async def cancelled() -> None:
        build = run_jailed(["sh", "-c", f"sleep 4711 & touch {tmp_path}/up; wait"], tmp_path / "log")
        building = asyncio.create_task(build)
        await asyncio.to_thread(_wait_until, (tmp_path / "up").exists)
        building.cancel()
        await building

    with pytest.raises(asyncio.CancelledError):
        asyncio.run(cancelled())
    _wait_until(lambda: not _sleepers())


@needs_root
def test_nothing_of_the_caller_reaches_what_makes_an_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    caller = {"TZ": "Asia/Tokyo", "HOME": "/home/eve", "TMPDIR": "/home/eve/t", "LANG": "de_DE", "USER": "eve"}
    for name, value in {**caller, "http_proxy": "http://eve:3128/", "TAR_OPTIONS": "--xattrs"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    (tmp_path / "printenv").write_text("#!/bin/sh\necho eve\n")
    (tmp_path / "printenv").chmod(0o755)
    before = os.umask(0o077)
    try:
        script = f"umask; printenv; mkdir {tmp_path}/folder"
        asyncio.run(run_jailed(["sh", "-c", script], tmp_path / "log"))
    finally:
        os.umask(before)
    said = (tmp_path / "log").read_text().splitlines()[2:]
    assert said[0] == "0022"
    assert not [line for line in said if "eve" in line or "proxy" in line or "TAR_" in line or "Tokyo" in line]
    assert "LC_ALL=C.UTF-8" in said
    assert (tmp_path / "folder").stat().st_mode & 0o777 == 0o755


def test_our_own_files_bring_folders_that_everybody_may_enter_whatever_the_callers_umask(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        _lay_out(late_files(RECIPE), tmp_path, ("fstrim.timer",))
    finally:
        os.umask(before)
    folders = [tmp_path, *(path for path in tmp_path.rglob("*") if path.is_dir())]
    assert {oct(path.stat().st_mode & 0o777) for path in folders} == {"0o755"}


@needs_root
def test_a_failing_program_is_quoted(tmp_path: Path) -> None:
    script = "echo fine; echo 'E: Unable to locate package nonsense'; echo bye; exit 3"
    with pytest.raises(ImageBuildFailed, match="sh ended with status 3: E: Unable to locate package nonsense"):
        asyncio.run(run_jailed(["sh", "-c", script], tmp_path / "log"))


def test_the_hosts_own_sources_are_used_with_updates_and_security_fixes() -> None:
    known = (
        AptSource("http://a/debian", "bookworm", "bookworm", "Debian"),
        AptSource("http://a/debian", "bookworm-updates", "bookworm-updates", "Debian"),
        AptSource("http://s/security", "stable-security", "bookworm-security", "Debian"),
        AptSource("http://other", "bookworm", "bookworm", "Somebody"),
    )
    assert sources_for(RECIPE, known) == (
        "deb http://a/debian bookworm main",
        "deb http://a/debian bookworm-updates main",
        "deb http://s/security stable-security main",
    )
    without = RECIPE.model_copy(update={"pockets": ("updates",)})
    assert sources_for(without, known) == sources_for(RECIPE, known)[:2]


def test_a_suite_that_the_host_has_not_comes_from_its_mirror() -> None:
    known = (
        AptSource("http://s/security", "bookworm-security", "bookworm-security", "Debian"),
        AptSource("http://a/debian", "bookworm", "bookworm", "Debian", "/usr/share/keyrings/debian.gpg"),
    )
    trixie = RECIPE.model_copy(update={"suite": "trixie", "components": ("main", "contrib")})
    line = "deb [signed-by=/usr/share/keyrings/debian.gpg] http://a/debian trixie main contrib"
    assert sources_for(trixie, known) == (line,)


def test_a_host_without_a_debian_mirror_is_told_so() -> None:
    with pytest.raises(ImageBuildFailed, match="no Debian mirror"):
        sources_for(RECIPE, (AptSource("http://u/ubuntu", "noble", "noble", "Ubuntu"),))


def test_only_a_recipe_that_lists_modules_gets_the_small_initrd() -> None:
    small = early_files(RECIPE.model_copy(update={"initrd_modules": ("virtio_blk", "virtio_net")}))
    assert small["usr/share/initramfs-tools/modules.d/farm"][0] == b"virtio_blk\nvirtio_net\n"
    assert not [name for name in early_files(RECIPE) if "initramfs" in name]
