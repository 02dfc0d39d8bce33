"""A distribution that is new to the farm is installed, after nothing but data was added for it."""

from __future__ import annotations

from pathlib import Path

import pytest

from demo.new_distribution import proof


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_a_debian_that_was_unknown_is_installed_with_data_alone(tmp_path: Path) -> None:
    seen = list(proof("debian-13-x86_64", tmp_path, tmp_path / "runs"))
    assert seen[-1][0] == "and it is installed"
    assert [what for what, good in seen if not good] == []
