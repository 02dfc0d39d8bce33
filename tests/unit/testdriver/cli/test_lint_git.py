"""The first tier of a commit of git's: compared with its first parent, or with what was before several commits."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from oscar_steps.errors import SourceError
from oscar_steps.sources.git_history import change_of_git
from oscar_steps.sources.mirror import mirror_of
from oscar_steps.testdriver.cli.lint import look
from oscar_steps.testdriver.cli.lint_report import verdict_of
from oscar_steps.testdriver.cli.lint_trees import Trees, trees_of_git
from tests.unit.git_server import Repository

GOOD = b"#!/bin/sh\necho good\n"
BROKEN = b"#!/bin/sh\nif true; then\n"


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    made = Repository(tmp_path / "oscar.git")
    made.commit({"install_cluster": GOOD, "lib/a b.pm": b"1;\n"})
    return made


def trees(repository: Repository, wanted: str, cache: Path, first: str | None = None) -> Trees:
    with mirror_of(repository.url, cache) as mirror:
        change = change_of_git(mirror, mirror.resolve(wanted), mirror.resolve(first) if first else None)
        return trees_of_git(change, mirror)


def test_a_commit_is_compared_with_the_one_before_it(repository: Repository, tmp_path: Path) -> None:
    repository.commit({"install_cluster": b"two\n"})
    repository.commit({"install_cluster": b"three\n", "lib/a b.pm": None})
    found = trees(repository, "main", tmp_path / "cache")
    assert found.before is not None
    assert found.before.files["install_cluster"].content == b"two\n"
    assert found.after.files["install_cluster"].content == b"three\n"
    assert "lib/a b.pm" in found.before.files
    assert "lib/a b.pm" not in found.after.files


def test_the_first_commit_of_all_has_none_before_it(repository: Repository, tmp_path: Path) -> None:
    assert trees(repository, "main", tmp_path / "cache").before is None


def test_what_a_merge_brings_is_the_merges(repository: Repository, tmp_path: Path) -> None:
    start = repository.tip("main")
    side = repository.commit({"side": b"1\n"}, branch="side", parents=(start,), author="Eve <eve@example.org>")
    ours = repository.commit({"ours": b"1\n"})
    merge = repository.commit({"side": b"1\n"}, parents=(ours, side), author="Mel <mel@example.org>")
    with mirror_of(repository.url, tmp_path / "cache") as mirror:
        change = change_of_git(mirror, merge)
    assert change.base_id == ours
    assert [commit.author for commit in change.commits] == ["Mel <mel@example.org>"]


def test_several_commits_are_compared_with_the_one_before_the_first(repository: Repository, tmp_path: Path) -> None:
    before = repository.tip("main")
    first = repository.commit({"one": b"1\n"}, author="Ada <ada@example.org>")
    last = repository.commit({"two": b"2\n"}, author="Ünal Çelik <u@example.org>")
    with mirror_of(repository.url, tmp_path / "cache") as mirror:
        change = change_of_git(mirror, last, first)
    assert (change.base_id, [commit.id for commit in change.commits]) == (before, [first, last])
    assert [commit.revision for commit in change.commits] == [2, 3]
    brought = change.brought_by("two")
    assert brought is not None
    assert brought.author == "Ünal Çelik <u@example.org>"


def test_a_renamed_file_is_known_as_a_copy(repository: Repository, tmp_path: Path) -> None:
    text = b"".join(b"line %d\n" % number for number in range(50))
    repository.commit({"old": text})
    repository.commit({"old": None, "new": text})
    assert trees(repository, "main", tmp_path / "cache").copied == {"new": "old"}


def test_hooks_filters_and_leftovers_change_nothing(repository: Repository, tmp_path: Path) -> None:
    repository.commit(
        {".gitattributes": b"* filter=evil\n", ".gitmodules": b'[submodule "x"]\n\tpath = x\n\turl = ext::sh\n'}
    )
    with mirror_of(repository.url, tmp_path / "cache") as mirror:
        hook = mirror.place / "hooks" / "post-checkout"
        hook.parent.mkdir(exist_ok=True)
        hook.write_text(f"#!/bin/sh\ntouch {tmp_path}/ran\n")
        hook.chmod(0o755)
        left = mirror.place.with_suffix(".tree")
        left.mkdir()
        (left / "leftover").write_text("x")
    found = trees(repository, "main", tmp_path / "cache")
    assert not os.path.lexists(tmp_path / "ran")
    assert "leftover" not in found.after.files
    assert found.after.files["install_cluster"].content == GOOD


def test_a_commit_that_breaks_a_script_fails_and_is_named_by_its_id(repository: Repository, tmp_path: Path) -> None:
    broken = repository.commit({"install_cluster": BROKEN})
    looked = look(repository.url, "main", None, tmp_path / "cache")
    verdict = verdict_of(looked, "lint")
    assert [problem.file for problem in looked.new] == ["install_cluster"]
    assert (verdict.revision, looked.source.short) == (broken, f"g{broken[:12]}")
    assert verdict.replay == f"oscar-testdriver lint {broken} --url {repository.url}"


def test_a_first_commit_that_is_none_is_refused(repository: Repository, tmp_path: Path) -> None:
    with pytest.raises(SourceError):
        look(repository.url, "main", "--x", tmp_path / "cache")
