"""What a guest writes to its console gives no orders to the terminal of the person who reads it."""

from __future__ import annotations

import io
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oscar_steps.v3m.consoleview import Typed, show

ORDERS = (
    b"\x1b]0;title\x07",
    b"\x1b[6n",
    b"\x1b[31m",
    b"\x1bc",
    b"\x1b]8;;http://h/\x1b\\",
    b"\x1bP$q\x1b\\",
    b"\xc2\x9b2J",
    b"\x1b(0",
    b"\x1b[?1049h",
)
CONTROL = re.compile(r"[\x00-\x06\x0b\x0c\x0e-\x1f\x7f-\x9f]")


def shown(tmp_path: Path, data: bytes, **options: object) -> bytes:
    log = tmp_path / "vm.log"
    log.write_bytes(data)
    out = io.BytesIO()
    show(log, out, **options)  # type: ignore[arg-type]
    return out.getvalue()


@pytest.mark.parametrize("order", ORDERS)
def test_a_log_is_shown_without_the_orders_in_it_and_with_them_only_on_request(tmp_path: Path, order: bytes) -> None:
    data = b"before" + order + b"behind\r\nnext\r\n"
    assert shown(tmp_path, data) == b"beforebehind\nnext\n"
    assert shown(tmp_path, data, raw=True) == data


def test_only_the_last_lines_are_shown_where_that_is_asked_for(tmp_path: Path) -> None:
    assert shown(tmp_path, b"one\r\ntwo\r\nthree\r\n", lines=2) == b"two\nthree\n"
    assert shown(tmp_path, b"one\r\ntwo\r\nthree\r\n", lines=0) == b""


def test_a_line_without_an_end_is_ended_for_the_reader_so_that_no_look_begins_at_its_beginning(tmp_path: Path) -> None:
    looks = iter((*(True,) * 3, False))
    log = tmp_path / "vm.log"
    log.write_bytes(b"a" * 70_000)

    def goes_on() -> bool:
        with log.open("ab") as guest:
            guest.write(b"b" * 10)
        return next(looks)

    out = io.BytesIO()
    show(log, out, goes_on=goes_on)
    assert out.getvalue() == b"a" * 70_000 + b"\n" + b"b" * 40 + b"\n"


def test_who_follows_sees_a_prompt_what_is_typed_behind_it_and_what_comes_behind_a_cut(tmp_path: Path) -> None:
    log = tmp_path / "vm.log"
    log.write_bytes(b"up\r\nhost login: ")
    out = io.BytesIO()
    steps = iter(
        [
            (b"up\nhost login:", "ab", b"root\r\n"),
            (b"up\nhost login: root\n", "wb", b"cut\r\n"),
            (b"up\nhost login: root\n", "ab", b"new\r\n"),
        ]
    )

    def goes_on() -> bool:
        so_far, mode, more = next(steps, (None, "", b""))
        if so_far is None:
            return False
        assert out.getvalue() == so_far
        with log.open(mode) as file:
            file.write(more)
        return True

    show(log, out, goes_on=goes_on)
    assert out.getvalue() == b"up\nhost login: root\nnew\n"


@pytest.mark.parametrize("order", ORDERS)
def test_who_types_gets_no_orders_either_however_they_are_cut_into_pieces(order: bytes) -> None:
    data = b"$ ls\r\n" + order + b"file\b\x07\r\n\x1b7$ "
    for size in range(1, len(data)):
        typed = Typed()
        pieces = [typed.feed(data[begin : begin + size]) for begin in range(0, len(data), size)]
        assert b"".join(pieces) == b"$ ls\r\nfile\b\x07\r\n$ ", size


@given(st.lists(st.binary(max_size=60), max_size=12))
def test_no_bytes_make_control_characters_for_who_types(pieces: list[bytes]) -> None:
    typed = Typed()
    assert not CONTROL.search(b"".join(map(typed.feed, pieces)).decode())


def test_a_sequence_without_end_does_not_hide_what_comes_for_ever() -> None:
    typed = Typed()
    assert typed.feed(b"\x1b]0;") == b""
    assert b"login:" in b"".join(typed.feed(b"login: ") for _ in range(1000))
