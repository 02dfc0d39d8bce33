"""Reports are kept by content: the same tree costs nothing, another one is never taken for it."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from oscar_steps.lint import remember
from oscar_steps.lint.perl import starts
from oscar_steps.lint.perl.starts import READ, read_perl
from oscar_steps.lint.problems import LeftAlone, Problem, Report
from oscar_steps.lint.remember import fingerprint, report_of
from oscar_steps.lint.tree import Tree

REPORT = Report((Problem("a", 3, "odd", "even", gates=True, rank=4),), (LeftAlone("b", "Qt"),), 2, 1.5)


@pytest.fixture
def top(tmp_path: Path) -> Path:
    (tmp_path / "tree/scripts").mkdir(parents=True)
    (tmp_path / "tree/scripts/a").write_text("one\n")
    (tmp_path / "tree/install_cluster").write_text("x\n")
    return tmp_path / "tree"


@pytest.fixture
def looked(monkeypatch: pytest.MonkeyPatch) -> list[Tree]:
    seen: list[Tree] = []

    def check(tree: Tree, *_more: object, **_named: object) -> Report:
        seen.append(tree)
        return REPORT

    monkeypatch.setattr(remember, "check_tree", check)
    return seen


def test_the_same_tree_is_looked_at_once_and_its_report_is_the_same(
    top: Path, tmp_path: Path, looked: list[Tree]
) -> None:
    first = report_of(Tree(top), tmp_path / "cache")
    again = report_of(Tree(top), tmp_path / "cache")
    assert (first, again, len(looked)) == (REPORT, REPORT, 1)
    assert again.problems[0].rank == 4


def test_without_a_cache_every_tree_is_looked_at(top: Path, looked: list[Tree]) -> None:
    assert [report_of(Tree(top), None), report_of(Tree(top), None)] == [REPORT, REPORT]
    assert len(looked) == 2


@pytest.mark.parametrize(
    "change",
    [
        lambda top: (top / "scripts/a").write_text("two\n"),
        lambda top: (top / "scripts/a").chmod(0o755),
        lambda top: (top / "scripts/a").rename(top / "scripts/b"),
        lambda top: (top / "scripts/b").write_text(""),
        lambda top: (top / "more").mkdir(),
        lambda top: (top / "link").symlink_to("scripts/a"),
    ],
    ids=["content", "execute bit", "name", "an empty file", "a folder", "a link"],
)
def test_whatever_changes_in_a_tree_makes_it_another_one(top: Path, change: Callable[[Path], object]) -> None:
    before = fingerprint(Tree(top))
    change(top)
    assert fingerprint(Tree(top)) != before


def test_what_is_in_a_tarball_makes_no_difference_but_that_it_is_one_does(top: Path) -> None:
    def of(content: bytes) -> str:
        (top / "x.tar").write_bytes(content)
        return fingerprint(Tree(top))

    assert of(b"\0one") == of(b"\0two")
    assert of(b"\0one") != of(b"one")


def test_externals_make_it_another_tree_too(top: Path) -> None:
    assert fingerprint(Tree(top)) != fingerprint(Tree(top, ["lib/Ext"]))


@pytest.mark.parametrize("text", [b"", b"half", b'0\n{"problems": []}', b"\xff\n"])
def test_a_spoiled_report_is_made_anew(top: Path, tmp_path: Path, looked: list[Tree], text: bytes) -> None:
    report_of(Tree(top), tmp_path / "cache")
    (entry,) = (tmp_path / "cache/reports").iterdir()
    entry.write_bytes(text)
    assert report_of(Tree(top), tmp_path / "cache") == REPORT
    assert len(looked) == 2


def test_what_a_busy_host_did_not_get_through_is_not_kept(
    top: Path, tmp_path: Path, looked: list[Tree], monkeypatch: pytest.MonkeyPatch
) -> None:
    busy = Report((), (LeftAlone("a", "its check was not finished"),), 2, 1.5)
    monkeypatch.setattr(remember, "check_tree", lambda _tree, **_more: busy)
    assert report_of(Tree(top), tmp_path / "cache") == busy
    assert not (tmp_path / "cache/reports").exists()
    assert looked == []


def test_a_cache_that_cannot_be_written_costs_time_and_nothing_else(
    top: Path, tmp_path: Path, looked: list[Tree]
) -> None:
    (tmp_path / "cache").write_text("a file")
    assert report_of(Tree(top), tmp_path / "cache") == REPORT
    assert len(looked) == 1


def test_the_oldest_reports_go_where_there_are_too_many(
    top: Path, tmp_path: Path, looked: list[Tree], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remember, "MAX_REPORTS", 2)
    folder = tmp_path / "cache/reports"
    for number in range(3):
        (top / "scripts/a").write_text(f"{number}\n")
        report_of(Tree(top), tmp_path / "cache")
        os.utime(folder / fingerprint(Tree(top)), (number, number))
    assert len(looked) == 3
    assert len(list(folder.iterdir())) == 2


def test_what_perl_sources_start_and_load_is_kept_from_one_lint_to_the_next(
    top: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = "#!/usr/bin/perl\nuse OSCAR::Network;\nsystem('./scripts/b') and die;\n"
    (top / "scripts/a").write_text(text)

    def look(tree: Tree, **_more: object) -> Report:
        found.append(read_perl(tree.files["scripts/a"]))
        return Report((), (), 1, 0.1)

    def begin() -> None:
        """As another process would."""
        read_perl.cache_clear()
        READ.clear()
        remember._recalled.clear()

    found: list[object] = []
    monkeypatch.setattr(remember, "check_tree", look)
    begin()
    report_of(Tree(top), tmp_path / "cache")
    begin()
    (top / "more").write_text("another tree\n")
    monkeypatch.setattr(starts, "_Reader", None)
    report_of(Tree(top), tmp_path / "cache")
    assert found[0] == found[1]
    assert found[0] != ((), ())
    begin()
    (tmp_path / "cache/sources").write_bytes(b"spoiled")
    monkeypatch.undo()
    monkeypatch.setattr(remember, "check_tree", look)
    (top / "more").write_text("a third tree\n")
    report_of(Tree(top), tmp_path / "cache")
    assert found[2] == found[0]
