"""docs/security.md names a test for each wall: there must be one of that name in that file."""

from __future__ import annotations

import re
from pathlib import Path

HERE = Path(__file__).resolve().parents[3]


def test_each_test_that_the_page_names_exists() -> None:
    page = (HERE / "docs/security.md").read_text()
    file, seen = "", 0
    for name in re.findall(r"`(test_\w+(?:\.py)?)`", page):
        if name.endswith(".py"):
            file = name
            assert list((HERE / "tests").rglob(file)), f"there is no {file}"
            continue
        texts = [path.read_text() for path in (HERE / "tests").rglob(file)]
        assert any(f"def {name}(" in text for text in texts), f"{file} has no {name}"
        seen += 1
    assert seen > 15, seen
