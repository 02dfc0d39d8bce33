"""A cloud image: downloaded, resumed, checked before it is used, and never one that reaches for other files."""

from __future__ import annotations

import asyncio
import hashlib
import os
import subprocess
import threading
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace

import pytest

from oscar_steps.errors import ImageBuildFailed
from oscar_steps.images import download
from oscar_steps.images.build import ImageBuild
from oscar_steps.images.kind import DISK, Report
from oscar_steps.matrix.recipes import CloudImageRecipe

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="makes namespaces as root does")


@dataclass
class Vendor:
    """A server with one file. `closes_after`: bytes of an answer after which it hangs up, once."""

    data: bytes
    url: str = ""
    closes_after: int | None = None
    resumes: bool = True
    asked: list[str] = field(default_factory=list)
    goes_on: threading.Event = field(default_factory=threading.Event)
    """Whether it sends more than the first bytes."""


@pytest.fixture
def vendor(tmp_path: Path) -> Iterator[Vendor]:
    disk = tmp_path / "vendor.qcow2"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", str(disk), "16M"], check=True)
    subprocess.run(["qemu-io", "-f", "qcow2", "-c", "write -P 7 0 1M", str(disk)], check=True, capture_output=True)
    vendor = Vendor(disk.read_bytes())
    vendor.goes_on.set()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            wanted = self.headers.get("Range", "")
            vendor.asked.append(wanted)
            start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted and vendor.resumes else 0
            if self.path.endswith("?endless"):
                self.send_response(200)
                self.end_headers()
                with suppress(OSError):
                    while True:
                        self.wfile.write(bytes(1 << 20))
            if self.path != "/disk.qcow2":
                self.send_error(404)
                return
            part = vendor.data[start:]
            self.send_response(206 if start else 200)
            if start:
                self.send_header("Content-Range", f"bytes {start}-{len(vendor.data) - 1}/{len(vendor.data)}")
            self.send_header("Content-Length", str(len(part)))
            self.end_headers()
            self.wfile.write(part[:2_000])
            vendor.goes_on.wait(60)
            with suppress(OSError):
                self.wfile.write(part[2_000 : vendor.closes_after])
            vendor.closes_after = None

        def log_message(self, *_words: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    vendor.url = f"http://127.0.0.1:{server.server_port}/disk.qcow2"
    yield vendor
    server.shutdown()
    thread.join()
    server.server_close()


def recipe(url: str, sha256: str, disk_mib: int = 512) -> CloudImageRecipe:
    return CloudImageRecipe(
        name="vendors", kind="cloud-image", architecture="x86_64", disk_mib=disk_mib, url=url, sha256=sha256
    )


def _built(store: Path, wanted: CloudImageRecipe, report: Report | None = None) -> tuple[Path, list[str]]:
    """The disk, and what was said."""
    said: list[str] = []
    folder = store / f"tmp-{len(list(store.glob('tmp-*')))}"
    folder.mkdir(parents=True)
    asyncio.run(ImageBuild(wanted, folder, "0" * 32, report or said.append).run())
    return folder / DISK, said


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _size_and_first_byte(disk: Path) -> tuple[int, bytes]:
    raw = disk.with_suffix(".raw")
    subprocess.run(["qemu-img", "convert", "-O", "raw", str(disk), str(raw)], check=True)
    with raw.open("rb") as file:
        return raw.stat().st_size, file.read(1)


def test_a_vendors_disk_becomes_an_image_as_large_as_the_recipe_says(vendor: Vendor, tmp_path: Path) -> None:
    disk, said = _built(tmp_path / "store", recipe(vendor.url, _sha256(vendor.data)))
    assert _size_and_first_byte(disk) == (512 << 20, b"\7")
    assert said == [f"downloading {vendor.url}", "making the disk"]
    assert not [path for path in (tmp_path / "store").glob("download-*") if path.suffix != ".lock"]


def test_a_download_says_how_far_it_is(vendor: Vendor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "_PROGRESS", 0.01)
    vendor.goes_on.clear()
    said: list[str] = []

    def report(line: str) -> None:
        said.append(line)
        if line == "0 MiB of 1 MiB have come":
            vendor.goes_on.set()

    _built(tmp_path / "store", recipe(vendor.url, _sha256(vendor.data)), report)
    assert "0 MiB of 1 MiB have come" in said


def test_a_file_of_this_host_will_do(vendor: Vendor, tmp_path: Path) -> None:
    url = (tmp_path / "vendor.qcow2").as_uri()
    disk, _said = _built(tmp_path / "store", recipe(url, _sha256(vendor.data)))
    assert _size_and_first_byte(disk)[1] == b"\7"


def test_a_download_that_was_cut_is_resumed(vendor: Vendor, tmp_path: Path) -> None:
    wanted = recipe(vendor.url, _sha256(vendor.data))
    vendor.closes_after = 2500
    with pytest.raises(ImageBuildFailed, match=rf"{vendor.url} could not be downloaded: .*bytes remaining") as caught:
        _built(tmp_path / "store", wanted)
    assert "\n" not in caught.value.sentence
    assert (tmp_path / f"store/download-{wanted.sha256}").stat().st_size == 2500
    disk, _said = _built(tmp_path / "store", wanted)
    assert vendor.asked == ["", "bytes=2500-"]
    assert _size_and_first_byte(disk)[1] == b"\7"


@pytest.mark.parametrize("resumes", [True, False])
def test_what_cannot_be_resumed_is_begun_again(vendor: Vendor, tmp_path: Path, resumes: bool) -> None:
    """The server knows no ranges; or what is there is the beginning of another file."""
    vendor.resumes = resumes
    wanted = recipe(vendor.url, _sha256(vendor.data))
    (tmp_path / "store").mkdir()
    (tmp_path / f"store/download-{wanted.sha256}").write_bytes(b"x" * 2000)
    disk, said = _built(tmp_path / "store", wanted)
    assert f"{vendor.url} could not be resumed; downloading it from the beginning" in said
    assert _size_and_first_byte(disk)[1] == b"\7"


def test_a_disk_with_another_checksum_is_never_used(vendor: Vendor, tmp_path: Path) -> None:
    with pytest.raises(ImageBuildFailed) as caught:
        _built(tmp_path / "store", recipe(vendor.url, "0" * 64))
    found = _sha256(vendor.data)
    assert caught.value.sentence == (
        f"{vendor.url} has the SHA-256 {found}, not that of the recipe, {'0' * 64}; it was not used"
    )
    assert not list((tmp_path / "store").glob("*/image.qcow2"))
    assert not (tmp_path / f"store/download-{'0' * 64}").exists()


def test_what_the_vendor_does_not_have_is_one_sentence(vendor: Vendor, tmp_path: Path) -> None:
    url = vendor.url.replace("disk", "other")
    with pytest.raises(ImageBuildFailed) as caught:
        _built(tmp_path / "store", recipe(url, "0" * 64))
    assert caught.value.sentence == f"{url} could not be downloaded: The requested URL returned error: 404"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["-f", "qcow2", "-b", "/etc/shadow", "-F", "raw", "-u"], "refers to another file"),
        (["-f", "qcow2", "-o", "data_file={folder}/other"], "refers to another file"),
        (["-f", "raw"], "is no qcow2 image"),
        (["-f", "qcow2"], "is a disk of 600 MiB; the recipe's disk_mib is 512, so it is too small"),
    ],
)
def test_a_disk_that_cannot_be_an_image_is_one_sentence(tmp_path: Path, options: list[str], said: str) -> None:
    disk = tmp_path / "disk.qcow2"
    words = [option.format(folder=tmp_path) for option in options]
    size = "16M" if "raw" in options or "refers" in said else "600M"
    subprocess.run(["qemu-img", "create", "-q", *words, str(disk), size], check=True)
    with pytest.raises(ImageBuildFailed) as caught:
        _built(tmp_path / "store", recipe(disk.as_uri(), _sha256(disk.read_bytes())))
    assert caught.value.sentence.startswith(f"{disk.as_uri()} {said}")


def test_a_complete_file_that_a_killed_run_has_left_is_not_asked_for_again(vendor: Vendor, tmp_path: Path) -> None:
    wanted = recipe(vendor.url, _sha256(vendor.data))
    (tmp_path / "store").mkdir()
    (tmp_path / f"store/download-{wanted.sha256}").write_bytes(vendor.data)
    disk, said = _built(tmp_path / "store", wanted)
    assert (vendor.asked, said) == ([], ["making the disk"])
    assert _size_and_first_byte(disk)[1] == b"\7"


def test_a_server_that_is_away_costs_nothing_of_what_has_come(vendor: Vendor, tmp_path: Path) -> None:
    wanted = recipe(vendor.url.replace("disk", "other"), _sha256(vendor.data))
    (tmp_path / "store").mkdir()
    begun = tmp_path / f"store/download-{wanted.sha256}"
    begun.write_bytes(vendor.data[:2000])
    with pytest.raises(ImageBuildFailed, match="could not be downloaded: The requested URL returned error: 404"):
        _built(tmp_path / "store", wanted)
    assert begun.read_bytes() == vendor.data[:2000]


def test_a_server_that_sends_without_end_is_left_at_the_size_that_the_file_may_have(
    vendor: Vendor, tmp_path: Path
) -> None:
    endless = f"{vendor.url}?endless"
    with pytest.raises(ImageBuildFailed) as caught:
        _built(tmp_path / "store", recipe(endless, "0" * 64))
    assert caught.value.sentence == f"{endless} has more than 520 MiB; a disk of disk_mib = 512 cannot have so many"
    assert not (tmp_path / f"store/download-{'0' * 64}").exists()


def test_a_server_that_sends_more_than_the_disk_has_room_for_leaves_nothing_on_it(
    vendor: Vendor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    free = SimpleNamespace(free=(download._SPARE_MIB + 3) << 20)
    monkeypatch.setattr(download.shutil, "disk_usage", lambda _path: free)
    endless = f"{vendor.url}?endless"
    with pytest.raises(ImageBuildFailed, match="could not be downloaded: No space left on device for it"):
        _built(tmp_path / "store", recipe(endless, "0" * 64))
    assert not (tmp_path / f"store/download-{'0' * 64}").exists()


@pytest.mark.parametrize(
    ("limit", "said"), [("_SLOW_SECONDS", "Operation too slow"), ("_LONGEST_SECONDS", "timed out after")]
)
def test_a_server_that_stalls_or_never_comes_to_an_end_is_left_and_what_has_come_is_kept(
    vendor: Vendor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: str, said: str
) -> None:
    monkeypatch.setattr(download, limit, 1)
    vendor.goes_on.clear()
    wanted = recipe(vendor.url, _sha256(vendor.data))
    with pytest.raises(ImageBuildFailed, match=rf"{vendor.url} could not be downloaded: .*{said}") as caught:
        _built(tmp_path / "store", wanted)
    vendor.goes_on.set()
    assert "\n" not in caught.value.sentence
    assert (tmp_path / f"store/download-{wanted.sha256}").stat().st_size == 2000
    _built(tmp_path / "store", wanted)
    assert vendor.asked == ["", "bytes=2000-"]
