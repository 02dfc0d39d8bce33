"""What changed in the distribution between two lists of packages, whatever is in them."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oscar_steps import manifest
from oscar_steps.manifest import Change, changes, read_manifest, summary

OLD = (
    "bash 5.2 amd64\nopenssh-server 1:9.2p1-2 amd64\nsed 4.9 amd64\ndropbear 2022.83 amd64 pool\nbash 5.2 amd64 pool\n"
)
NEW = (
    "bash 5.3 amd64\nopenssh-server 1:9.2p1-2 amd64\nzstd 1.5 amd64\ndropbear 2022.84 amd64 pool\nbash 5.3 amd64 pool\n"
)


def test_packages_that_changed_came_and_went_are_named_once_each() -> None:
    assert changes(OLD, NEW) == [
        Change("bash", "5.2", "5.3"),
        Change("dropbear", "2022.83", "2022.84"),
        Change("sed", "4.9", ""),
        Change("zstd", "", "1.5"),
    ]
    assert changes(OLD, OLD) == []


def test_the_summary_counts_all_and_shows_the_first() -> None:
    assert summary([]) == "no package of the distribution changed"
    assert summary(changes(OLD, NEW)[:1]) == "1 package of the distribution changed: bash 5.2 -> 5.3"
    many = [Change(f"p{n}", "1", "2") for n in range(14)]
    assert summary(many).startswith("14 packages of the distribution changed: p0 1 -> 2; p1 1 -> 2; ")
    assert summary(many).endswith("; and 10 more")
    assert "sed 4.9 is gone; zstd 1.5 is new" in summary(changes(OLD, NEW))


def test_a_package_of_two_architectures_or_in_two_versions_is_kept_apart() -> None:
    both = "libc6 2.36 amd64\nlibc6 2.36 i386\nkernel 1 x86_64\nkernel 2 x86_64\n"
    assert changes(both, both.replace("libc6 2.36 i386\n", "")) == [Change("libc6", "2.36", "")]
    assert changes(both, both.replace("kernel 1", "kernel 3")) == [Change("kernel", "1, 2", "2, 3")]


def test_a_manifest_is_read_only_where_it_is_a_file_of_a_sensible_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert read_manifest(tmp_path / "none") is None
    assert read_manifest(tmp_path) is None
    (tmp_path / "odd").write_bytes(b"caf\xe9 1 all\n")
    assert read_manifest(tmp_path / "odd") == "caf\N{REPLACEMENT CHARACTER} 1 all\n"
    monkeypatch.setattr(manifest, "MAX_BYTES", 4)
    assert read_manifest(tmp_path / "odd") is None


def test_what_a_hostile_list_names_gives_a_terminal_no_orders() -> None:
    (change,) = changes("", "\x1b]0;owned\x07evil 1\x1b[2J all\n")
    assert "\x1b" not in str(change)


@given(st.text(), st.text())
def test_any_two_texts_can_be_compared(old: str, new: str) -> None:
    assert summary(changes(old, new)).isprintable()


def test_a_package_that_is_installed_in_both_is_not_gone_because_the_pool_has_it_no_more() -> None:
    old = "sed 4.8 amd64\nsed 4.8 amd64 pool\nzip 1 amd64 pool\n"
    assert [str(change) for change in changes(old, "sed 4.9 amd64\n")] == ["sed 4.8 -> 4.9", "zip 1 is gone"]
