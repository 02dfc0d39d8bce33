"""The oldest Python that the farm runs on is Debian 12's own, 3.11.2: what that one lacks, or does wrong."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import oscar_steps

PACKAGE = Path(oscar_steps.__file__).parent
GROUP_WITHOUT_RETURN = re.compile(r"(?<!\\)\)(?:[*+?]|\{[\d,]+\})\+")
"""A possessive quantifier behind a group."""


def nodes() -> Iterator[tuple[str, ast.AST]]:
    for path in sorted(PACKAGE.rglob("*.py")):
        name = path.relative_to(PACKAGE)
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            yield f"{name}:{getattr(node, 'lineno', 0)}", node


def test_no_group_is_repeated_possessively_which_python_3_11_2_matches_too_far() -> None:
    """`(?:::\\w+)*+` takes the last '::' of '::a::;' there; `(?>(?:::\\w+)*)` is right (CPython's gh-106052)."""
    found = [
        place
        for place, node in nodes()
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and GROUP_WITHOUT_RETURN.search(node.value)
    ]
    assert found == []


@pytest.mark.parametrize("expression", [r"(?:a|b)*+", r"(::\w+)++", r"(x)?+", r"(x){2,3}+"])
def test_a_possessive_group_would_be_found(expression: str) -> None:
    assert GROUP_WITHOUT_RETURN.search(expression)


def test_no_archive_is_unpacked_with_an_argument_that_python_3_11_2_does_not_know() -> None:
    found = [
        place
        for place, node in nodes()
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr in {"extract", "extractall"}
        and any(word.arg == "filter" for word in node.keywords)
    ]
    assert found == []
