"""What is in a tarball: what a release holds is kept, each trick is refused in one sentence."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import tarfile
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest

from oscar_steps.archive import Limits
from oscar_steps.sources.tarballs.contents import BadTarball, checked_copy
from oscar_steps.sources.tarballs.names import TarName
from oscar_steps.sources.tarballs.released import difference

SMALL = Limits(files=50, total_bytes=1 << 20, file_bytes=1 << 19, depth=10)


def entry(name: str, content: bytes = b"", **how: object) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.size = len(content)
    for key, value in how.items():
        setattr(info, key, value)
    return info, content


def tar(*entries: tuple[tarfile.TarInfo, bytes], format: int = tarfile.GNU_FORMAT) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=format, encoding="utf-8", errors="surrogateescape") as out:
        for info, content in entries:
            out.addfile(info, io.BytesIO(content))
    return file.getvalue()


GOOD = (
    entry("oscar-5.1/", type=tarfile.DIRTYPE, mode=0o2775),
    entry("oscar-5.1/VERSION", b"major=5\nminor=1\nrelease=0\ngreek=\nwant_svn=0\n"),
    entry("oscar-5.1/install_cluster", b"#!/usr/bin/perl\n", mode=0o755),
    entry("oscar-5.1/lib/OSCAR/ODA/mysql.pm", b"1;\n"),
    entry("oscar-5.1/lib/OSCAR/oda.pm", type=tarfile.SYMTYPE, linkname="ODA/mysql.pm"),
    entry("oscar-5.1/share/sets/testing", type=tarfile.SYMTYPE, linkname="../../lib/OSCAR/"),
    entry("oscar-5.1/lib/same", type=tarfile.LNKTYPE, linkname="oscar-5.1/lib/OSCAR/ODA/mysql.pm"),
    entry("./oscar-5.1/caf\udce9", b"latin-1"),
)


def checked(tmp_path: Path, data: bytes, limits: Limits = SMALL) -> tuple[list[tarfile.TarInfo], Path]:
    archive, copy = tmp_path / "oscar-base-5.1.tar.gz", tmp_path / "copy.tar"
    archive.write_bytes(data)
    checked_copy(archive, copy, limits)
    with tarfile.open(copy, "r:", encoding="utf-8", errors="surrogateescape") as tar:
        return tar.getmembers(), copy


@pytest.mark.parametrize("pack", [bytes, gzip.compress, bz2.compress, lzma.compress])
def test_a_release_is_kept_whole_however_it_is_packed(tmp_path: Path, pack: Callable[[bytes], bytes]) -> None:
    archive, copy = tmp_path / "oscar-base-5.1.tar.gz", tmp_path / "copy.tar"
    archive.write_bytes(pack(tar(*GOOD)))
    found = checked_copy(archive, copy, SMALL)
    assert found.folder(archive.name) == "oscar-5.1"
    assert difference(TarName.parse(archive.name), found.version_text) == ""
    with tarfile.open(copy, "r:", encoding="utf-8", errors="surrogateescape") as out:
        assert [m.name for m in out] == [i.name.strip("/").removeprefix("./") for i, _ in GOOD]
        assert out.extractfile("oscar-5.1/VERSION").read().startswith(b"major=5")  # type: ignore[union-attr]
        assert out.getmember("oscar-5.1").mode == 0o775
        assert out.getmember("oscar-5.1/install_cluster").mode == 0o755
        assert {m.uid for m in out} == {0}


def test_two_packed_streams_behind_each_other_are_one_archive(tmp_path: Path) -> None:
    data = tar(*GOOD)
    for pack in (gzip.compress, bz2.compress, lzma.compress):
        members, _ = checked(tmp_path, pack(data[:700]) + pack(data[700:]))
        assert len(members) == len(GOOD)


TRICKS = {
    "leads out": [entry("oscar-5.1/../../etc/passwd", b"x")],
    "absolute path": [entry("/etc/passwd", b"x")],
    "absolute path ": [entry("oscar-5.1/x", type=tarfile.LNKTYPE, linkname="/etc/shadow")],
    "link out of the tree": [entry("oscar-5.1/x", type=tarfile.SYMTYPE, linkname="/etc")],
    "link out of the tree ": [entry("oscar-5.1/x", type=tarfile.SYMTYPE, linkname="../../etc")],
    "link out of the tree  ": [entry("oscar-5.1/x", type=tarfile.SYMTYPE, linkname="a/b/../../../../etc")],
    "link out of the tree   ": [entry("oscar-5.1/x", type=tarfile.SYMTYPE, linkname="lib/up/../x")],
    "link out of the tree    ": [entry("oscar-5.1/x", type=tarfile.SYMTYPE, linkname="..")],
    "which is a link": [
        entry("oscar-5.1/x", type=tarfile.SYMTYPE, linkname="lib"),
        entry("oscar-5.1/x/passwd", b"x"),
    ],
    "which is a file": [entry("oscar-5.1/x", b"1"), entry("oscar-5.1/x/y", b"2")],
    "there twice": [entry("oscar-5.1/x", type=tarfile.SYMTYPE, linkname="lib"), entry("oscar-5.1/x", b"x")],
    "no file before it": [entry("oscar-5.1/x", type=tarfile.LNKTYPE, linkname="oscar-5.1/nothing")],
    "no file before it ": [
        entry("oscar-5.1/l", type=tarfile.SYMTYPE, linkname="lib"),
        entry("oscar-5.1/x", type=tarfile.LNKTYPE, linkname="oscar-5.1/l"),
    ],
    "leads out ": [entry("oscar-5.1/x", type=tarfile.LNKTYPE, linkname="../../etc/shadow")],
    "is a device": [entry("oscar-5.1/null", type=tarfile.CHRTYPE, devmajor=1, devminor=3)],
    "is a device ": [entry("oscar-5.1/disk", type=tarfile.BLKTYPE, devmajor=8)],
    "is a device  ": [entry("oscar-5.1/pipe", type=tarfile.FIFOTYPE)],
    "setuid": [entry("oscar-5.1/su", b"x", mode=0o4755)],
    "setuid or setgid": [entry("oscar-5.1/sg", b"x", mode=0o2755)],
    "control characters": [entry("oscar-5.1/a\nb", b"x")],
    "control characters ": [entry("oscar-5.1/a\x1b[2J", b"x")],
    "control characters  ": [entry("oscar-5.1/\u202egpj", b"x")],
    "too deep": [entry("oscar-5.1/" + "d/" * 40 + "x", b"x")],
    "too long": [entry("oscar-5.1/" + "n" * 300, b"x")],
    "not in the folder": [entry("install_cluster", b"x")],
    "more than 50 files": [entry(f"oscar-5.1/{number}", b"x") for number in range(60)],
    "a file may have": [entry("oscar-5.1/zeros", bytes(600_000))],
    "unpacks to more than 1 MiB": [entry(f"oscar-5.1/{number}", bytes(500_000)) for number in range(4)],
    "it holds no file": [],
}


@pytest.mark.parametrize("why", TRICKS)
@pytest.mark.parametrize("format", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_each_trick_is_refused_in_one_sentence_that_names_the_tarball(tmp_path: Path, why: str, format: int) -> None:
    before = GOOD[:4] if TRICKS[why] else ()
    with pytest.raises(BadTarball) as refused:
        checked(tmp_path, gzip.compress(tar(*before, *TRICKS[why], format=format)))
    assert why.strip() in refused.value.sentence
    assert refused.value.sentence.startswith("oscar-base-5.1.tar.gz is refused: ")
    assert refused.value.sentence.isprintable()


def test_a_header_that_announces_more_than_there_is_and_a_cut_archive_are_refused(tmp_path: Path) -> None:
    whole = gzip.compress(tar(*GOOD, entry("oscar-5.1/end", bytes(100_000))))
    for data in (whole[:-200], whole[: len(whole) // 2], b"", b"<html>404</html>" * 100, whole[:40] + b"\xff" * 900):
        with pytest.raises(BadTarball, match="cut off, damaged or no tar"):
            checked(tmp_path, data)


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress, lzma.compress])
def test_a_small_file_that_unpacks_to_very_much_is_refused_early(
    tmp_path: Path, pack: Callable[[bytes], bytes]
) -> None:
    info, _ = entry("oscar-5.1/zeros")
    info.size = 1 << 40
    bomb = pack(info.tobuf() + bytes(16 << 20))
    assert len(bomb) < 200_000
    with pytest.raises(BadTarball, match="a file may have"):
        checked(tmp_path, bomb)
    headers = pack(b"".join(entry(f"oscar-5.1/{'d/' * 3}{number}", b"")[0].tobuf() for number in range(20_000)))
    with pytest.raises(BadTarball, match="more than 50 files"):
        checked(tmp_path, headers)


def test_a_header_without_end_is_refused(tmp_path: Path) -> None:
    info = tarfile.TarInfo("././@LongLink")
    info.type, info.size = tarfile.GNUTYPE_LONGNAME, 1 << 33
    with pytest.raises(BadTarball):
        checked(tmp_path, gzip.compress(info.tobuf() + b"n" * (8 << 20)))


def test_xz_that_asks_for_gigabytes_of_memory_is_refused(tmp_path: Path) -> None:
    packed = bytearray(lzma.compress(tar(*GOOD)))
    end = 12 + (packed[12] + 1) * 4  # of the first block's header, whose last four bytes are its checksum
    assert packed[14:16] == b"\x21\x01"
    packed[16] = 40  # the dictionary: 4 GiB
    packed[end - 4 : end] = zlib.crc32(packed[12 : end - 4]).to_bytes(4, "little")
    with pytest.raises(BadTarball, match=r"damaged.*[Mm]emory"):
        checked(tmp_path, bytes(packed))


def test_several_folders_in_one_tarball_are_said(tmp_path: Path) -> None:
    archive = tmp_path / "oscar-base-5.1.tar.gz"
    archive.write_bytes(tar(*GOOD, entry("oscar-5.0/x", b"x")))
    with pytest.raises(BadTarball, match=r"has to hold one folder, and holds 'oscar-5.0', 'oscar-5.1'"):
        checked_copy(archive, None, SMALL).folder(archive.name)


def version(**settings: object) -> str:
    return "# the version\n" + "".join(f"{name}={value}\n" for name, value in settings.items())


AGREE = [
    ("oscar-base-5.1a1r5916.tar.gz", version(major=5, minor=1, release=0, greek="a1", want_svn=1, svn_r="r5916")),
    ("oscar-base-5.1a1r5916nightly-20070615.tar.gz",
     version(major=5, minor=1, release=0, greek="a1", want_svn=1, svn_r="r5916nightly")),
    ("oscar-base-5.1a1r5916nightly-20070615.tar.gz",
     version(major=5, minor=1, release=0, greek="a1", want_svn=1, svn_r="r5916")),
    ("oscar-base-5.1a1r59:61M.tar.gz", version(major=5, minor=1, release=0, greek="a1", want_svn=1, svn_r="r59:61M")),
    ("oscar-6.0.5.tar.gz", version(major=6, minor=0, release=5, greek="", want_svn="", svn_r=-1)),
    ("oscar-6.3.tar.gz", version(major=6, minor=3, release=0, greek="", want_build_r=1, build_r=-1)),
    ("oscar-6.3.0.tar.gz", version(major=6, minor=3, release=0, greek="", want_build_r=1, build_r=-1)),
    ("oscar-6.3r7436.tar.gz", version(major=6, minor=3, release=0, greek="", want_build_r=1, build_r="r7436")),
    ("oscar-6.1.320220707git.tar.gz", version(major=6, minor=1, release=3, greek="", want_build_r=1, build_r=-1)),
    ("oscar-4.2.1b3.tar.gz", version(major=4, minor=2, release=1, greek="b3", want_svn=0, svn_r=-1)),
]  # fmt: skip
DIFFER = [
    ("oscar-base-5.1a1r5917.tar.gz", version(major=5, minor=1, release=0, greek="a1", want_svn=1, svn_r="r5916")),
    ("oscar-base-5.1.tar.gz", version(major=5, minor=1, release=0, greek="a1", want_svn=0)),
    ("oscar-base-5.1.tar.gz", version(major=5, minor=1, release=0, greek="", want_svn=1, svn_r="r5916")),
    ("oscar-base-5.10.tar.gz", version(major=5, minor=1, release=0, greek="", want_svn=1, svn_r=-1)),
    ("oscar-base-5.1rc1.tar.gz", version(major=5, minor=1, release=0, greek="", want_svn=1, svn_r=-1)),
    ("oscar-6.0.5.tar.gz", version(major=6, minor=0, release=4, greek="", want_svn=0)),
    ("oscar-6.0.5.tar.gz", "\x1b]0;nothing\n"),
]


@pytest.mark.parametrize(("name", "text"), AGREE)
def test_the_file_version_agrees_with_the_name_of_its_tarball(name: str, text: str) -> None:
    assert difference(TarName.parse(name), text) == ""


@pytest.mark.parametrize(("name", "text"), DIFFER)
def test_a_file_version_that_says_something_else_is_a_difference(name: str, text: str) -> None:
    said = difference(TarName.parse(name), text)
    assert said.startswith(f"{name} says in its file VERSION that it is OSCAR ")
    assert said.isprintable()


def test_a_tarball_without_a_file_version_says_so() -> None:
    assert (
        difference(TarName.parse("oscar-6.3.tar.gz"), None) == "oscar-6.3.tar.gz has no file VERSION in its top folder"
    )
