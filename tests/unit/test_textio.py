"""State files are whole or old, and external programs get nothing of the caller's locale."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from urllib.parse import unquote_to_bytes

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oscar_steps.environment import tool_environment
from oscar_steps.textio import json_line, json_object, one_line, printable_name, seen_line, write_atomically


def test_a_file_has_its_mode_whatever_the_callers_umask(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        write_atomically(tmp_path / "open", "ü\n", mode=0o644)
        write_atomically(tmp_path / "closed", b"\xff")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "open").stat().st_mode) == 0o644
    assert stat.S_IMODE((tmp_path / "closed").stat().st_mode) == 0o600
    assert (tmp_path / "open").read_bytes() == "ü\n".encode()


def test_where_writing_fails_the_old_content_stands_and_nothing_is_left_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "state").write_text("old")

    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_atomically(tmp_path / "state", "new")
    assert [path.name for path in tmp_path.iterdir()] == ["state"]
    assert (tmp_path / "state").read_text() == "old"


def test_programs_get_one_locale_and_none_of_the_callers_switches(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("LANG", "de_DE.ISO-8859-1"), ("LC_MESSAGES", "de_DE"), ("TAR_OPTIONS", "--xattrs")):
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("HOME", "/somewhere")
    found = tool_environment(EXTRA="1")
    assert (found["LC_ALL"], found["LANG"], found["HOME"], found["EXTRA"]) == ("C.UTF-8", "C.UTF-8", "/somewhere", "1")
    assert not {"LC_MESSAGES", "TAR_OPTIONS"} & set(found)
    assert "/usr/sbin" in found["PATH"].split(os.pathsep)


@given(st.binary(max_size=40))
def test_any_name_becomes_printable_and_comes_back(name: bytes) -> None:
    printable = printable_name(name)
    assert printable.isprintable()
    assert unquote_to_bytes(printable) == name
    assert printable_name(name.decode("utf-8", "surrogateescape")) == printable


def test_a_name_that_can_be_printed_stays_as_it_is() -> None:
    assert printable_name("Übersicht 1.log") == "Übersicht 1.log"
    assert printable_name(b"caf\xe9.log") == "caf%E9.log"
    assert printable_name("100%\n") == "100%25%0A"
    assert printable_name("\ud800").isascii()


SEQUENCES = [
    "\x1b(B",
    "\x1b[m",
    "\x1b[0;1;31m",
    "\x1b]0;title\x07",
    "\x1b]8;;http://h/\x1b\\",
    "\x0e",
    "\x0f",
    "\x1b=",
    "\x1b7",
]
SEQUENCES += [
    "\x1bPq#0\x1b\\",
    "\x1b[?25l",
    "\x9b1m",
    "\x1b[>4;2m",
    "\x1b%G",
    "\x1b#8",
    "\x1b]P0000000",
    "\x00",
    "\x07",
    "\x1bc",
]


@given(
    st.lists(st.sampled_from([*SEQUENCES, "=", "a", "Z", "é", " b"]), max_size=30),
    st.sampled_from(["", " ", "\r", "  \r\n"]),
)
def test_sequences_are_not_seen_whatever_they_are_and_wherever_they_stand(pieces: list[str], end: str) -> None:
    words = "".join(piece for piece in pieces if piece not in SEQUENCES)
    assert seen_line("".join(pieces) + end) == words.rstrip()


@given(st.text(alphabet="\x1b\x9b\x07\b\r\\[](BPX;0mKGa é"))
def test_no_line_breaks_the_filter_and_nothing_is_left_to_filter(line: str) -> None:
    seen = seen_line(line)
    assert not set(seen) & set("\x1b\x9b\x07\b\r")
    assert seen_line(seen) == seen


@pytest.mark.parametrize(
    ("line", "seen"),
    [
        ("10 %\r 20 %\rdone  ", "done"),
        ("done\r\x1b[K", "done"),
        ("old\x1b[1Gnew", "new"),
        ("|\b/\b-\bready", "ready"),
        ("ab\b\b\b\bX", "Xb"),
        ("Starting\x1b[60G[ OK ]", "Starting [ OK ]"),
        ("\x1b]0;a title that never ends: FAILED", "0;a title that never ends: FAILED"),
        ("cut\x1b[3", "cut"),
        ("a\tb", "a\tb"),
    ],
)
def test_a_line_is_what_a_person_would_have_seen(line: str, seen: str) -> None:
    assert seen_line(line) == seen


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("\x1b[1;31mred\x1b[0m", "red"),
        ("a\r\nb\tc", "a b c"),
        ("\x1b]0;title\x07x", "x"),
        ("y" * 300, "y" * 157 + "..."),
    ],
)
def test_text_from_a_guest_becomes_one_printable_line(text: str, line: str) -> None:
    assert one_line(text) == line


def test_an_object_is_one_line_of_json_and_comes_back() -> None:
    line = json_line({"text": "a\nb \u2028 ü"})
    assert line.count(b"\n") == 1
    assert json_object(line) == {"text": "a\nb \u2028 ü"}


@pytest.mark.parametrize("line", ["", "[]", "7", '"x"', "null", "{", b"\xff{}", "[" * 100_000, '{"a":' * 100_000])
def test_what_is_no_object_of_json_is_a_value_error(line: str | bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        json_object(line)


def test_a_file_that_need_not_last_waits_for_no_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[int] = []
    monkeypatch.setattr(os, "fsync", synced.append)
    write_atomically(tmp_path / "cache", "x", durable=False)
    assert ((tmp_path / "cache").read_text(), synced) == ("x", [])
    write_atomically(tmp_path / "state", "x")
    assert len(synced) == 2
