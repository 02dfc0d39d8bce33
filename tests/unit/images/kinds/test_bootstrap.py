"""A bootstrap from mirrors that are not what they should be: a small signed repository, served on loopback."""

from __future__ import annotations

import asyncio
import functools
import hashlib
import os
import shutil
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from oscar_steps.errors import ImageBuildFailed
from oscar_steps.images.build import ImageBuild
from oscar_steps.images.jail import complaint
from oscar_steps.images.kinds import bootstrap
from oscar_steps.images.kinds.bootstrap import AptSource
from tests.unit.images.test_store import RECIPE

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or not (shutil.which("gpg") and shutil.which("mmdebstrap")), reason="root, gpg and mmdebstrap"
)
RELEASE = """\
Origin: Tiny
Suite: one
Codename: one
Architectures: amd64
Components: main
Date: Sat, 28 Nov 2026 10:00:00 UTC
SHA256:
 {sha256} {size} main/binary-amd64/Packages
"""
PACKAGE = """\
Package: tiny
Version: 1
Architecture: amd64
Essential: yes
Priority: required
Maintainer: nobody <nobody@example.org>
Description: nothing
Filename: pool/tiny.deb
Size: 50000
SHA256: {sha256}

"""


@dataclass
class Mirror:
    """A repository with the suite `one`, whose only package breaks off while it is sent."""

    url: str
    folder: Path
    key: Path


@pytest.fixture(scope="module")
def mirror(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mirror]:
    folder = tmp_path_factory.mktemp("mirror")
    index = folder / "dists/one/main/binary-amd64/Packages"
    index.parent.mkdir(parents=True)
    index.write_text(PACKAGE.format(sha256=hashlib.sha256(bytes(50_000)).hexdigest()))
    release = folder / "dists/one/Release"
    release.write_text(RELEASE.format(sha256=hashlib.sha256(index.read_bytes()).hexdigest(), size=index.stat().st_size))
    _sign(folder)

    class Handler(SimpleHTTPRequestHandler):
        def do_GET(self) -> None:
            if not self.path.endswith(".deb"):
                return super().do_GET()
            self.send_response(200)
            self.send_header("Content-Length", "50000")
            self.end_headers()
            self.wfile.write(bytes(1000))
            return None

        def log_message(self, *_words: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=folder)) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield Mirror(f"http://127.0.0.1:{server.server_address[1]}", folder, folder / "key.gpg")
        server.shutdown()
        thread.join()


def _sign(folder: Path) -> None:
    """Sign the suite with a key made for it."""
    home = folder / "gnupg"
    home.mkdir(mode=0o700)
    gpg = ["gpg", "--homedir", str(home), "--batch", "--quiet"]
    try:
        new = ["--passphrase", "", "--quick-gen-key", "Tiny <tiny@example.org>", "ed25519", "sign", "never"]
        subprocess.run([*gpg, *new], check=True, capture_output=True)
        subprocess.run([*gpg, "--output", folder / "key.gpg", "--export"], check=True)
        suite = folder / "dists/one"
        subprocess.run([*gpg, "--output", suite / "InRelease", "--clearsign", suite / "Release"], check=True)
    finally:
        subprocess.run(["gpgconf", "--homedir", home, "--kill", "gpg-agent"], check=False)


def _failure(mirror: Mirror, folder: Path, monkeypatch: pytest.MonkeyPatch, suite: str = "one") -> str:
    """The sentence with which a build from the mirror fails."""

    async def sources() -> tuple[AptSource, ...]:
        return (AptSource(mirror.url, "other", "other", "Tiny", str(mirror.key)),)

    monkeypatch.setattr(bootstrap, "host_sources", sources)
    recipe = RECIPE.model_copy(update={"suite": suite, "origin": "Tiny", "packages": ("tiny",)})
    folder.mkdir()
    with pytest.raises(ImageBuildFailed) as caught:
        asyncio.run(ImageBuild(recipe, folder, "0" * 32, print).run())
    assert not (folder / "image.qcow2").exists()
    assert "\n" not in caught.value.sentence
    return caught.value.sentence


def test_a_mirror_that_dies_in_mid_build_is_one_sentence(
    mirror: Mirror, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = _failure(mirror, tmp_path / "a", monkeypatch)
    assert said.startswith(f"mmdebstrap ended with status 25: E: Failed to fetch {mirror.url}/pool/tiny.deb")


def test_a_suite_that_the_mirror_does_not_have_is_named(
    mirror: Mirror, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = _failure(mirror, tmp_path / "a", monkeypatch, suite="two")
    assert said == (
        f"mmdebstrap ended with status 25: E: The repository '{mirror.url} two Release' does not have a Release file."
    )


def test_a_bad_signature_is_never_accepted_and_named(
    mirror: Mirror, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    signed = mirror.folder / "dists/one/InRelease"
    good = signed.read_text()
    signed.write_text(good.replace("Date: Sat, 28", "Date: Fri, 27"))
    try:
        said = _failure(mirror, tmp_path / "a", monkeypatch)
    finally:
        signed.write_text(good)
    assert said.startswith(f"mmdebstrap ended with status 25: W: GPG error: {mirror.url} one InRelease: ")
    assert "BADSIG" in said


def test_what_wraps_an_error_is_not_taken_for_it() -> None:
    assert complaint(["E: Failed to fetch X  404", "E: apt-get update --x failed", "E: mmdebstrap failed to run"]) == (
        "E: Failed to fetch X  404"
    )
    assert complaint(["E: mmdebstrap failed to run"]) == "E: mmdebstrap failed to run"


def test_of_a_host_with_a_list_of_mirrors_the_first_one_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = ((f"mirror+file:{tmp_path}/list", "one", "$(SIGNED_BY)"), ("http://other.example.org", "two", ""))
    for _site, suite, _key in rows:
        (tmp_path / f"{suite}_InRelease").write_text(f"Origin: Tiny\nCodename: {suite}\n")

    async def printed(*words: str) -> str:
        if words[0] == "apt-config":
            return f"lists='{tmp_path}/'\n"
        file = "main_binary-amd64_Packages"
        return "".join(
            f"{site}|{suite}|{key}|main/binary-amd64/Packages|/nowhere/{suite}_{file}\n" for site, suite, key in rows
        )

    monkeypatch.setattr(bootstrap, "output_of", printed)
    with pytest.raises(ImageBuildFailed, match=r"list cannot be read: No such file"):
        asyncio.run(bootstrap.host_sources())
    (tmp_path / "list").write_text("# ours\nhttp://first.example.org/debian\tpriority:1\nhttp://second.example.org\n")
    sites = [source.site for source in asyncio.run(bootstrap.host_sources())]
    assert sites == ["http://first.example.org/debian", "http://other.example.org"]


def test_what_the_hosts_repositories_say_of_themselves_is_read_without_apts_cache_of_all_packages(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A repository with two components is one; one that apt has nothing of yet is none."""
    monkeypatch.setattr(bootstrap, "_mirror", lambda site: site)
    (tmp_path / "m_debian_dists_twelve_InRelease").write_text(
        "Hash: SHA512\n\nOrigin: Tiny \nSuite: stable\nCodename: bookworm\nSHA256:\n"
    )
    (tmp_path / "m_old_dists_eleven_Release").write_text("Origin: Tiny\n")
    asked: list[tuple[str, ...]] = []

    async def printed(*words: str) -> str:
        if words[0] == "apt-config":
            return f"lists='{tmp_path}/'\n"
        asked.append(words)
        named = "http://m/debian|twelve|/key.gpg", "http://m/old|eleven|$(SIGNED_BY)", "http://m/new|ten|"
        return "".join(
            f"{repository}|{part}/binary-amd64/Packages|/nowhere/{site}_dists_{suite}_{part}_binary-amd64_Packages\n"
            for repository, site, suite in zip(
                named, ("m_debian", "m_old", "m_new"), ("twelve", "eleven", "ten"), strict=True
            )
            for part in ("main", "contrib")
        )

    monkeypatch.setattr(bootstrap, "output_of", printed)
    assert asyncio.run(bootstrap.host_sources()) == (
        AptSource("http://m/debian", "twelve", "bookworm", "Tiny", "/key.gpg"),
        AptSource("http://m/old", "eleven", "", "Tiny", ""),
    )
    assert any(word.startswith("Dir::State::lists=/proc/self/") for word in asked[0])
