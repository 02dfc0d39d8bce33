"""The line of a setting is the one where it stands, however its file is written."""

from __future__ import annotations

import tomllib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oscar_steps.tomlfile import line_of

TEXT = '''\
# name = "not this one"
title = """
name = "nor this"
"""
dotted.key = 'x # y'
inline = {a = 1, b = [1, 2], "c d" = "}"}

[table]
list = [
  "one",  # a comment, with ]
  {name = "two"},

  'thr"ee',
]
"quoted.key" = 2024-01-01 10:00:00

[[cell]]
name = "first"
[cell.sub]
name = "below the first"
[[cell]]
name = "second"
  [[cell.part]]
  name = "part"
'''


@pytest.mark.parametrize(
    ("location", "line"),
    [
        (("title",), 2),
        (("dotted",), 5),
        (("dotted", "key"), 5),
        (("inline", "b", 1), 6),
        (("inline", "c d"), 6),
        (("table",), 8),
        (("table", "list", 0), 10),
        (("table", "list", 1, "name"), 11),
        (("table", "list", 2), 13),
        (("table", "quoted.key"), 15),
        (("cell", 0, "name"), 18),
        (("cell", 0, "sub", "name"), 20),
        (("cell", 1), 21),
        (("cell", 1, "name"), 22),
        (("cell", 1, "part", 0, "name"), 24),
        (("cell", 1, "missing"), 21),
        (("table", "list", 9), 9),
        (("nowhere", "list"), 9),
        (("nowhere",), 1),
        ((), 1),
    ],
)
def test_a_setting_is_found_where_it_stands(location: tuple[int | str, ...], line: int) -> None:
    tomllib.loads(TEXT)
    assert line_of(TEXT, location) == line
    assert line_of(TEXT.replace("\n", "\r\n"), location) == line


@given(st.text(alphabet="ab.=[]{}\"'# \n,\\1", max_size=60))
def test_any_text_has_a_line(text: str) -> None:
    assert 1 <= line_of(text, ("a", 0, "b")) <= text.count("\n") + 1


def test_a_text_that_is_nested_without_end_has_a_line() -> None:
    assert line_of("x = 1\na = " + "[" * 100000, ("a", 0)) == 2
