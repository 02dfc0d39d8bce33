"""What the mirror has today, by its InRelease files; the mirror here is a server on loopback."""

from __future__ import annotations

import asyncio
import functools
import shutil
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from oscar_steps.errors import OutsideUnknown
from oscar_steps.images import aptindex

pytestmark = pytest.mark.skipif(shutil.which("apt-get") is None, reason="asks by apt")
RELEASE = f"""\
-----BEGIN PGP SIGNED MESSAGE-----
Origin: Debian
Date: Sat, 28 Nov 2026 10:00:00 UTC
SHA256:
 {"a" * 64} 1234 main/binary-amd64/Packages
 {"b" * 64} 234 main/binary-amd64/Packages.xz
 {"c" * 64} 34 main/binary-arm64/Packages.xz
 {"d" * 64} 34 contrib/binary-amd64/Packages.xz
 {"e" * 64} 34 main/i18n/Translation-en
-----BEGIN PGP SIGNATURE-----
"""


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_words: object) -> None:
        pass


@pytest.fixture
def mirror(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """Address of a mirror with the suites `one` and `two`, and its folder."""
    for suite in ("one", "two"):
        (tmp_path / "dists" / suite).mkdir(parents=True)
        (tmp_path / "dists" / suite / "InRelease").write_text(RELEASE)
    with ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=tmp_path)) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}", tmp_path
        server.shutdown()
        thread.join()


def ask(*lines: str, architecture: str = "amd64") -> dict[str, str]:
    return asyncio.run(aptindex.digests(lines, architecture))


def test_each_source_of_the_build_is_asked_for_and_named_by_its_suite(mirror: tuple[str, Path]) -> None:
    site, _folder = mirror
    found = ask(f"deb [signed-by=/usr/share/k.gpg] {site} one main", f"deb {site}/ two main", f"deb {site} two main")
    assert list(found) == [
        "package index of one",
        "package index of two",
        f"package index of two at {site}",
    ]


@pytest.mark.parametrize(
    ("old", "new", "differs"),
    [
        ("b" * 64, "0" * 64, True),
        ("c" * 64, "0" * 64, False),
        ("d" * 64, "0" * 64, False),
        ("28 Nov", "29 Nov", False),
        ("SIGNATURE", "SIGNATURE-----\nanother", False),
    ],
    ids=["our packages", "another architecture", "another component", "the date", "the signature"],
)
def test_only_another_list_of_our_packages_is_another_index(
    mirror: tuple[str, Path], old: str, new: str, differs: bool
) -> None:
    site, folder = mirror
    before = ask(f"deb {site} one main")
    (folder / "dists/one/InRelease").write_text(RELEASE.replace(old, new))
    assert (ask(f"deb {site} one main") != before) == differs


def test_an_index_that_names_no_packages_of_ours_counts_as_a_whole(mirror: tuple[str, Path]) -> None:
    site, folder = mirror
    found = []
    for text in ("one", "another"):
        (folder / "dists/one/InRelease").write_text(text)
        found.append(ask(f"deb {site} one main"))
    assert found[0] != found[1]


def test_a_suite_that_the_mirror_does_not_have_is_said(mirror: tuple[str, Path]) -> None:
    site, _folder = mirror
    with pytest.raises(OutsideUnknown) as caught:
        ask(f"deb {site} three main")
    assert (
        caught.value.sentence
        == f"the mirror {site} cannot be asked for 'three' (404 File not found [IP: 127.0.0.1 {site[17:]}])"
    )


@pytest.mark.parametrize(
    ("site", "name"),
    [
        ("http://deb.example.org/debian/", "deb.example.org_debian"),
        ("http://127.0.0.1:80/~me/my_debian", "127.0.0.1:80_%7eme_my%5fdebian"),
        ("https://me:secret@deb.example.org/debian", "deb.example.org_debian"),
        ("file:/srv/debian", "_srv_debian"),
        ("file:///srv/debian", "_srv_debian"),
    ],
)
def test_the_index_that_a_build_used_is_found_among_apts_lists(tmp_path: Path, site: str, name: str) -> None:
    (tmp_path / f"{name}_dists_one_InRelease").write_text(RELEASE)
    expected = {"package index of one": aptindex.digest(RELEASE, ["main"], "amd64")}
    assert aptindex.used(tmp_path, [f"deb {site} one main"], "amd64") == expected


def test_a_mirror_that_is_away_is_said() -> None:
    with pytest.raises(OutsideUnknown, match=r"the mirror http://127.0.0.1:1 cannot be asked for 'one' \(.*refused\)"):
        ask("deb http://127.0.0.1:1 one main")


def test_a_mirror_that_does_not_answer_is_not_waited_for(
    mirror: tuple[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    site, folder = mirror
    monkeypatch.setattr(aptindex, "_SECONDS", 0.5)
    helper = folder / "helper"
    helper.write_text("#!/bin/sh\nexec sleep 60\n")
    helper.chmod(0o755)
    monkeypatch.setattr(aptindex, "_HELPER", str(helper))
    with pytest.raises(OutsideUnknown, match=r"timed out after 0\.5 s"):
        ask(f"deb {site} one main")


def test_a_mirror_that_sends_without_end_fills_no_disk(
    mirror: tuple[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    site, folder = mirror
    monkeypatch.setattr(aptindex, "_MOST_KIB", 1)
    (folder / "dists/one/InRelease").write_text("x" * 4096)
    with pytest.raises(OutsideUnknown):
        ask(f"deb {site} one main")


def test_an_empty_answer_of_a_mirror_is_no_index(mirror: tuple[str, Path]) -> None:
    site, folder = mirror
    (folder / "dists/one/InRelease").write_text("\n")
    with pytest.raises(OutsideUnknown, match=r"cannot be asked for 'one' \(its InRelease is empty\)"):
        ask(f"deb {site} one main")
