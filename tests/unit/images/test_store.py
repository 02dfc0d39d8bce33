"""The image store: one build for many who want it, nothing half made, nothing left by the killed."""

from __future__ import annotations

import asyncio
import os
import re
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
from oscar_steps.errors import ImageBuildFailed
from oscar_steps.images import build as imagebuild
from oscar_steps.images import disk
from oscar_steps.images import store as images
from oscar_steps.images.jail import run_jailed
from oscar_steps.images.kinds.bootstrap import AptSource, sources_for
from oscar_steps.images.root import _lay_out_own_files, guest_files
from oscar_steps.images.store import ImageStore, digest_of
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


def _quiet(_line: str) -> None:
    pass


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

    def __init__(self, _recipe: ImageRecipe, directory: Path, *, machine_id: str, report: imagebuild.Report) -> None:
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


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ImageStore:
    FakeBuild.runs, FakeBuild.fails = 0, False
    monkeypatch.setattr(images, "ImageBuild", FakeBuild)
    monkeypatch.setattr(images, "check_host", lambda _recipe: None)

    async def remove(command: list[str], _log: Path) -> None:
        shutil.rmtree(command[-1])

    monkeypatch.setattr(images, "run_jailed", remove)
    return ImageStore(tmp_path / "store")


def test_an_image_is_built_once_and_then_found(store: ImageStore) -> None:
    first = asyncio.run(store.ensure(RECIPE, _quiet))
    assert asyncio.run(store.ensure(RECIPE, _quiet)) == first == store.find(RECIPE)
    assert FakeBuild.runs == 1
    assert first.path.read_text() == imagebuild.DISK
    assert first.kernel.is_file()


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
    root = store.directory / f"tmp-{digest_of(RECIPE)}-1" / "root"
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
from tests.unit.images.test_store import RECIPE, images
from oscar_steps.errors import ImageBuildFailed
images.check_host = images.require_user = lambda *_: None
os.setgroups([])
os.setresgid(4242, 4242, 4242)
os.setresuid(4243, 4243, 4243)
try:
    asyncio.run(images.ImageStore(Path(sys.argv[1])).ensure(RECIPE, print))
except ImageBuildFailed as failure:
    print(failure.explain())
"""


@needs_root
def test_what_another_member_of_the_group_has_closed_is_named() -> None:
    with tempfile.TemporaryDirectory(prefix="farm-shared-") as folder:
        place = Path(folder)
        lock = place / f"{digest_of(RECIPE)}.lock"
        (place / f"tmp-{digest_of(RECIPE)}-4711").mkdir(mode=0o700)
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
    assert digest_of(RECIPE.model_copy(update=change)) != digest_of(RECIPE)


FOLDERS = ("apt", "image", "disk", "initrd/initramfs-tools")
IN_IMAGES = [path for folder in FOLDERS for path in (Path(guest.__file__).parent / folder).rglob("*") if path.is_file()]


@pytest.mark.parametrize("file", IN_IMAGES, ids=lambda file: file.name)
def test_another_file_of_the_guests_is_another_image(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    boot = next((way for way in ("bios", "uefi") if file in disk.scripts(way)), RECIPE.boot)
    recipe = RECIPE.model_copy(update={"initrd_modules": ("virtio_blk",), "boot": boot})
    before = digest_of(recipe)
    copy = tmp_path / "guest"
    shutil.copytree(Path(guest.__file__).parent, copy)
    monkeypatch.setattr(guest, "_FOLDER", copy)
    assert digest_of(recipe) == before
    with (copy / file.relative_to(Path(guest.__file__).parent)).open("a") as more:
        more.write("# changed\n")
    assert digest_of(recipe) != before


@pytest.mark.parametrize(("bad", "status"), [("", 0), ("a", 1)])
def test_the_service_builds_the_other_images_where_one_cannot_be_built(tmp_path: Path, bad: str, status: int) -> None:
    for name in "abc":
        (tmp_path / f"{name}.toml").touch()
    unit = (Path(__file__).resolve().parents[3] / "workers/oscar-farm-images.service").read_text()
    (script,) = re.findall(r"^ExecStart=/bin/sh -ec '(.*?)'$", unit.replace("\\\n", " "), re.MULTILINE)
    script = script.replace("/opt/oscar-farm/profiles/images", str(tmp_path))
    script = script.replace("/opt/oscar-farm/.venv/bin/python", "build")
    build = f'build() {{ echo "${{3##*/}}"; [ "$3" != "{tmp_path}/{bad}.toml" ]; }}\n'
    done = subprocess.run(["/bin/sh", "-ec", build + script], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.split()) == (status, ["a.toml", "b.toml", "c.toml"])


def test_a_failed_build_leaves_its_log_and_nothing_else(store: ImageStore) -> None:
    FakeBuild.fails = True
    with pytest.raises(ImageBuildFailed, match=r"image tiny: .*Unable to locate package nonsense") as caught:
        asyncio.run(store.ensure(RECIPE, _quiet))
    log = store.directory / "failed-tiny.log"
    assert str(log) in caught.value.hint
    assert log.read_text() == "E: Unable to locate package nonsense\n"
    assert not list(store.directory.glob("tmp-*"))
    assert store.find(RECIPE) is None


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
    with pytest.raises(ImageBuildFailed, match="image store"):
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
        _lay_out_own_files(RECIPE, tmp_path)
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
    small = guest_files(RECIPE.model_copy(update={"initrd_modules": ("virtio_blk", "virtio_net")}))
    assert small["usr/share/initramfs-tools/modules.d/farm"][0] == b"virtio_blk\nvirtio_net\n"
    assert not [name for name in guest_files(RECIPE) if "initramfs" in name]
