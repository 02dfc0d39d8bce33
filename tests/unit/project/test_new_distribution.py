"""A new distribution is data alone: Debian 13 is taken out of a copy of the checkout, and put in again."""

from __future__ import annotations

from pathlib import Path

import pytest

from demo.new_distribution import Checkout, proof, without

CELL = "debian-13-x86_64"


def test_a_new_distribution_needs_no_program_but_profiles_and_the_stand_in_s_lists(tmp_path: Path) -> None:
    seen = list(proof(CELL, tmp_path, None))
    assert [what for what, good in seen if not good] == []
    added = [what for what, _ in seen if what.startswith("added or changed: ")]
    assert "added or changed: profiles/matrix.toml" in added
    assert f"added or changed: profiles/images/{CELL}.toml" in added


def test_a_program_that_has_to_change_is_no_data(tmp_path: Path) -> None:
    before, after = Checkout(tmp_path / "before"), Checkout(tmp_path / "after")
    before.forget("debian", "13")
    with (before.directory / "oscar_steps" / "words.py").open("a") as module:
        module.write("# without a table of distributions\n")
    assert "oscar_steps/words.py" in after.changes_since(before)


@pytest.mark.parametrize(
    ("line", "left"),
    [
        ('    {version = ["11", "12", "13"]},', '    {version = ["11", "12"]},'),
        ('    {version = ["13", "12"]},', '    {version = ["12"]},'),
        ('    {version = ["13"], architecture = "x86_64"},', None),
        ('    {version = "13", architecture = "x86_64"},', None),
        ('    {architecture = "x86_64", version = "13"},', None),
        ('    {version = "12", nodes = 13},', '    {version = "12", nodes = 13},'),
    ],
)
def test_a_version_is_taken_out_of_a_line_of_the_matrix(line: str, left: str | None) -> None:
    assert without(line, "13") == left
