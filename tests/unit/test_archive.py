"""Archives of guests and workers: nothing leaves its folder, and no limit is passed."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import tarfile
import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from oscar_steps.archive import plain_files, unpack
from oscar_steps.errors import HostError
from oscar_steps.testdriver.stages.extract_logs import LOGS


def tar_of(*names: str, content: bytes = b"abc", kind: bytes = tarfile.REGTYPE) -> bytes:
    """A tar with members of these names."""
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w:gz") as tar:
        for name in names:
            member = tarfile.TarInfo(name)
            member.type, member.mode, member.linkname = kind, 0o755, "/etc/passwd"
            member.size = len(content) if kind == tarfile.REGTYPE else 0
            tar.addfile(member, io.BytesIO(content))
    return data.getvalue()


@pytest.mark.parametrize("name", ["/etc/passwd", "../out", "a/../../out", "a/" * 12 + "deep", "."])
def test_a_name_that_leads_out_of_the_folder_is_not_unpacked_by_any_python(tmp_path: Path, name: str) -> None:
    assert unpack(tar_of(name, "a/b"), tmp_path / "new", LOGS) == ["a/b"]
    assert [path.name for path in tmp_path.iterdir()] == ["new"]


@pytest.mark.parametrize(
    "kind", [tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE]
)
def test_what_is_no_plain_file_is_left_out_and_a_link_is_an_empty_file_where_that_is_wanted(kind: bytes) -> None:
    assert list(plain_files(tar_of("a", kind=kind), LOGS)) == []
    wanted = [member.content for member in plain_files(tar_of("a", kind=kind), LOGS, links=True)]
    assert wanted == ([b""] if kind == tarfile.SYMTYPE else [])


def test_the_first_of_two_files_of_one_name_stays_and_the_limits_hold(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"ours")
    assert unpack(tar_of("a", "b", "c"), tmp_path, replace(LOGS, files=2)) == ["b"]
    assert (tmp_path / "a").read_bytes() == b"ours"
    assert unpack(tar_of("d", "e", "f"), tmp_path, replace(LOGS, total_bytes=7)) == ["d", "e"]


def test_an_archive_that_was_cut_off_gives_what_came_before(tmp_path: Path) -> None:
    whole = tar_of("a", "b", content=os.urandom(100_000))
    assert unpack(whole[: len(whole) * 6 // 10], tmp_path, LOGS) == ["a"]


def pax(content: bytes, **headers: str) -> bytes:
    """A tar with a good file, and behind it one with these headers, a dot in their names written as two bars."""
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w", format=tarfile.PAX_FORMAT) as tar:
        tar.addfile(tarfile.TarInfo("good"))
        member = tarfile.TarInfo("odd")
        member.pax_headers = {name.replace("__", "."): value for name, value in headers.items()}
        member.size = len(content)
        tar.addfile(member, io.BytesIO(content))
    return data.getvalue()


def names_without_end() -> bytes:
    """A tar with a good file, and behind it names that are too long for a header, each name's file being a name."""
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as tar:
        tar.addfile(tarfile.TarInfo("good"))
        member = tarfile.TarInfo("odd")
        member.type, member.size = tarfile.GNUTYPE_LONGNAME, 1
        for _ in range(2000):
            tar.addfile(member, io.BytesIO(b"x"))
    return data.getvalue()


@pytest.mark.parametrize(
    "archive",
    [
        pax(b"", GNU__sparse__map="x,y"),
        pax(b"", GNU__sparse__size="x", GNU__sparse__numblocks="1"),
        pax(b"x\n" * 300, GNU__sparse__major="1", GNU__sparse__minor="0", GNU__sparse__realsize="5"),
        names_without_end(),
    ],
    ids=["map", "size", "numbers", "names"],
)
def test_headers_written_with_ill_intent_end_an_archive_as_a_cut_does(tmp_path: Path, archive: bytes) -> None:
    assert unpack(archive, tmp_path, LOGS) == ["good"]


@pytest.mark.parametrize("compress", [bz2.compress, lzma.compress])
def test_only_gzip_is_unpacked(tmp_path: Path, compress: Callable[[bytes], bytes]) -> None:
    archive = tmp_path / "sent"
    archive.write_bytes(compress(b"x" * 100_000))
    for sent in (archive, archive.read_bytes()):
        with pytest.raises(HostError, match=r"not a tar archive: [^\n]*$"):
            unpack(sent, tmp_path / "logs", LOGS)
    with pytest.raises(HostError, match="not a tar archive"):
        unpack(compress(gzip.decompress(tar_of("a"))), tmp_path / "logs", LOGS)


def test_the_right_to_execute_is_kept_where_it_is_wanted(tmp_path: Path) -> None:
    for executable in (True, False):
        unpack(tar_of(f"{executable}"), tmp_path, LOGS, executable=executable)
        assert bool((tmp_path / f"{executable}").stat().st_mode & 0o100) is executable


def test_a_disk_that_is_full_is_not_taken_for_a_bad_archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "open", full)
    with pytest.raises(OSError, match="No space left"):
        unpack(tar_of("a"), tmp_path, LOGS)


def test_an_archive_from_a_guest_cannot_leave_its_folder(tmp_path: Path) -> None:
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w:gz") as tar:
        for name in ("../../outside", "/etc/hosts", "var/log/syslog"):
            member = tarfile.TarInfo(name)
            member.size = 3
            tar.addfile(member, io.BytesIO(b"abc"))
        link = tarfile.TarInfo("link")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
    assert len(unpack(data.getvalue(), tmp_path / "logs", LOGS, rooted=True)) == 2
    found = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file())
    assert found == ["logs/etc/hosts", "logs/var/log/syslog"]


def test_names_that_are_no_text_are_kept_in_printable_form(tmp_path: Path) -> None:
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w:gz") as tar:
        for name in (b"var/log/caf\xe9.log", "var/log/Übersicht".encode(), b"var/log/a\nb\x1b[1m", b"l" * 255):
            member = tarfile.TarInfo(name.decode("utf-8", "surrogateescape"))
            member.size = 3
            tar.addfile(member, io.BytesIO(b"abc"))
        for name in (b"\xe9" * 200, b"d/" * 2000 + b"deep"):  # cannot be kept: left out, and the rest still comes
            tar.addfile(tarfile.TarInfo(name.decode("utf-8", "surrogateescape")))
        tar.addfile(tarfile.TarInfo("last"))
    assert len(unpack(data.getvalue(), tmp_path, LOGS, rooted=True)) == 5
    found = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file())
    names = ["last", "l" * 255, "var/log/a%0Ab%1B[1m", "var/log/caf%E9.log", "var/log/Übersicht"]
    assert found == sorted(names)


def test_what_is_no_archive_is_the_farms_error(tmp_path: Path) -> None:
    with pytest.raises(HostError, match="not a tar archive"):
        unpack(b"not a tar", tmp_path / "logs", LOGS)


def test_one_bad_name_in_an_archive_costs_only_its_own_file(tmp_path: Path) -> None:
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as tar:
        for name in ("a", "a/b", "x" * 300, "good"):
            member = tarfile.TarInfo(name)
            member.size = 1
            tar.addfile(member, io.BytesIO(b"1"))
    unpack(data.getvalue(), tmp_path, LOGS)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "good"]


def test_a_file_that_is_huge_beyond_all_limits_is_not_read_through(tmp_path: Path) -> None:
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w:gz") as tar:
        for name, size in (("a", 3), ("large", 5 << 20), ("huge", 20 << 20), ("b", 3)):
            member = tarfile.TarInfo(name)
            member.size = size
            tar.addfile(member, io.BytesIO(bytes(size)))
    assert unpack(data.getvalue(), tmp_path, replace(LOGS, file_bytes=100, total_bytes=1000)) == ["a", "large"]


def test_a_huge_file_keeps_its_beginning_and_its_end(tmp_path: Path) -> None:
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w:gz") as tar:
        member = tarfile.TarInfo("log")
        member.size = 300_000
        tar.addfile(member, io.BytesIO(b"first" + b"x" * 299_991 + b"last"))
    unpack(data.getvalue(), tmp_path, replace(LOGS, file_bytes=1000))
    kept = (tmp_path / "log").read_bytes()
    assert kept.startswith(b"first")
    assert kept.endswith(b"last")
    assert b"299000 bytes left out" in kept
    assert len(kept) < 1100


def header(name: str, kind: bytes = tarfile.REGTYPE, size: int = 0) -> bytes:
    """A member's header alone, whatever follows it."""
    member = tarfile.TarInfo(name)
    member.type, member.size = kind, size
    return member.tobuf(tarfile.GNU_FORMAT)


def block(content: bytes) -> bytes:
    return content + bytes(-len(content) % 512)


def pax(**records: str) -> bytes:
    """A header in front of a header; records of less than 100 bytes."""
    lines = [f" {key.replace('__', '.')}={value}\n".encode() for key, value in records.items()]
    body = b"".join(
        b"%d%s" % (len(line) + 2, line) if len(line) > 7 else b"%d%s" % (len(line) + 1, line) for line in lines
    )
    return header("pax", tarfile.XHDTYPE, len(body)) + block(body)


FIRST = header("first", size=1) + block(b"1")
LAST = header("last", size=1) + block(b"2")


@pytest.mark.parametrize(
    "rest",
    [
        pytest.param(
            header("x", b"L", 512) * 1 + (block(b"a") + header("x", b"L", 512)) * 2000, id="long-names-of-long-names"
        ),
        pytest.param(pax(comment="abcdefg") * 2000 + LAST, id="headers-of-headers"),
        pytest.param(pax(size="-5000") + LAST + LAST, id="a-negative-size"),
        pytest.param(pax(size="-1536") + header("again", b"Z"), id="a-size-that-leads-back-to-its-own-header"),
        pytest.param(pax(size="9" * 60) + header("far", b"Z") + LAST, id="a-size-without-end"),
        pytest.param(pax(GNU__sparse__map="x,y", GNU__sparse__size="1") + LAST, id="a-sparse-map-of-words"),
        pytest.param(pax(GNU__sparse__major="1", GNU__sparse__minor="0") + LAST, id="a-sparse-file-without-map"),
        pytest.param(header("p", b"x", 512) + b"9" * 490 + block(b" a=b\n"), id="a-record-of-endless-length"),
    ],
)
@pytest.mark.timeout(20)
def test_a_damaged_header_gives_what_came_before(rest: bytes) -> None:
    assert [member.parts for member in plain_files(FIRST + rest, LOGS)][:1] == [("first",)]
    assert next(iter(plain_files(gzip.compress(FIRST + rest), LOGS))).content == b"1"


@pytest.mark.parametrize("kind", [tarfile.GNUTYPE_LONGNAME, tarfile.XHDTYPE, tarfile.XGLTYPE])
def test_a_header_that_fits_into_no_memory_is_not_read(kind: bytes) -> None:
    small = gzip.compress(FIRST + header("x", kind, 16 << 20) + bytes(16 << 20), 1)
    tracemalloc.start()
    try:
        assert [member.content for member in plain_files(small, replace(LOGS, file_bytes=1 << 20))] == [b"1"]
        assert tracemalloc.get_traced_memory()[1] < 8 << 20
    finally:
        tracemalloc.stop()


def test_what_is_skipped_counts_too_and_every_member_before_the_limit_is_there() -> None:
    skipped = header("skipped", b"Z", 20 << 20) + bytes(20 << 20)
    archive = gzip.compress(FIRST + skipped + LAST, 1)
    assert [member.content for member in plain_files(archive, LOGS)] == [b"1", b"2"]
    assert [member.content for member in plain_files(archive, replace(LOGS, total_bytes=1000))] == [b"1"]
