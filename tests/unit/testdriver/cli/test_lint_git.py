"""The first tier of a commit of git's: compared with its first parent, or with what was before several commits."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from pathlib import Path

import pytest

from demo.children import run
from demo.farm import STANDIN
from demo.repository import apply_patch
from oscar_steps.errors import SourceError
from oscar_steps.sources import git_history
from oscar_steps.sources import mirror as mirrors
from oscar_steps.sources.git import url_words
from oscar_steps.sources.git_history import change_of_git
from oscar_steps.sources.mirror import mirror_of
from oscar_steps.sources.source import Source
from oscar_steps.testdriver.cli.lint import look, look_at_folder
from oscar_steps.testdriver.cli.lint_report import as_json, judgement_of, verdict_of
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


@pytest.mark.parametrize("left", ["index.lock", "HEAD.lock"])
def test_what_a_git_has_left_that_was_killed_at_a_checkout_stops_no_later_look(
    repository: Repository, tmp_path: Path, left: str
) -> None:
    repository.commit({"install_cluster": b"two\n"})
    trees(repository, "main", tmp_path / "cache")
    [copy] = (tmp_path / "cache").glob("*.git")
    (copy / left).touch()
    assert trees(repository, "main", tmp_path / "cache").after.files["install_cluster"].content == b"two\n"


@pytest.mark.parametrize(("depth", "blob"), [(8, b"x"), (3, b"x" * (1 << 20))], ids=["files", "bytes"])
def test_a_commit_of_a_thousand_million_files_or_of_terabytes_is_refused_before_git_writes_any(
    repository: Repository, tmp_path: Path, depth: int, blob: bytes
) -> None:
    made = repository.commit_tree(repository.folders_in_folders(depth, blob))
    for _ in range(2):  # itself, and as what was there before the next one
        with pytest.raises(SourceError, match=f"{made} has more than 100000 files, or 4 GiB"):
            trees(repository, "main", tmp_path / "cache")
        repository.commit({"install_cluster": b"#!/bin/sh\n"})
    assert not [*(tmp_path / "cache").glob("*.tree")]


def test_the_copies_of_repositories_that_nobody_looks_at_any_more_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mirrors, "MAX_COPIES", 2)
    cache = tmp_path / "cache"
    urls = [Repository(tmp_path / f"{name}.git") for name in ("one", "two", "three")]
    for repository in (*urls[:2], urls[0], urls[2]):
        repository.commit({"install_cluster": GOOD})
        trees(repository, "main", cache)
    kept = [hashlib.sha256(repository.url.encode()).hexdigest()[:16] for repository in (urls[0], urls[2])]
    found = {path.name for path in cache.iterdir() if path.is_dir()}
    assert found == {f"{name}{kind}" for name in kept for kind in (".git", ".tree")}


def raw_tree(repository: Repository, name: bytes, inner: str = "") -> str:
    """A tree as nobody's git makes it: of one file of any name, or with a tree in it."""
    blob = repository.git("hash-object", "-w", "--stdin", stdin=b"#!/usr/bin/perl\nif (;\n")
    entry = (b"40000 " if inner else b"100644 ") + name + b"\0" + bytes.fromhex(inner or blob)
    return repository.git("hash-object", "-t", "tree", "-w", "--literally", "--stdin", stdin=entry)


@pytest.mark.parametrize("name", [b"caf\xe9.pl", b"\xff\n.pm"])
def test_names_that_are_no_utf8_come_and_go_as_others_do(repository: Repository, tmp_path: Path, name: bytes) -> None:
    repository.commit_tree(raw_tree(repository, name))
    came = look(repository.url, "main", None, tmp_path / "cache")
    repository.commit({"install_cluster": GOOD, '"caf\\351.pl"': None, '"\\377\\n.pm"': None})
    gone = look(repository.url, "main", None, tmp_path / "cache")
    for looked in (came, gone):
        json.dumps(as_json(looked)).encode()
        verdict_of(looked, "lint").model_dump_json()


def test_paths_that_no_host_can_have_are_the_commits_mistake_and_harm_no_later_look(
    repository: Repository, tmp_path: Path
) -> None:
    good, file = repository.tip("main"), raw_tree(repository, b"x")
    deep = file
    for _ in range(120):
        deep = raw_tree(repository, b"dd", deep)
    for tree in (
        raw_tree(repository, b".git", file),
        raw_tree(repository, b"..", file),
        raw_tree(repository, b"a" * 256),
        deep,
    ):
        made = repository.commit_tree(tree)
        with pytest.raises(SourceError, match=f"the commit {made} has the path"):
            trees(repository, "main", tmp_path / "cache")
        repository.git("update-ref", "refs/heads/main", good)
        assert trees(repository, "main", tmp_path / "cache").after.files["install_cluster"].content == GOOD


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


def test_of_very_many_commits_in_a_row_none_is_named_and_git_is_not_asked_of_each(
    repository: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = repository.tip("main")
    first, *_, last = [repository.commit({f"new{number}": b"1\n"}) for number in range(4)]
    checked = list[str]()
    check = mirrors.Mirror.check

    def noted(mirror: mirrors.Mirror, identity: str) -> None:
        checked.append(identity)
        check(mirror, identity)

    monkeypatch.setattr(mirrors.Mirror, "check", noted)
    monkeypatch.setattr(git_history, "_MOST_NAMED", 3)
    with mirror_of(repository.url, tmp_path / "cache") as mirror:
        change = change_of_git(mirror, last, first)
    assert (len(change.commits), change.brought_by("new1"), checked) == (4, None, [base, last])


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
    assert (verdict.revision, verdict.short) == (broken, f"g{broken[:12]}")
    assert verdict.replay == f"oscar-testdriver lint {broken} --url {repository.url}"


def test_a_commit_that_was_pushed_over_is_judged_from_where_the_branch_left_it(
    repository: Repository, tmp_path: Path
) -> None:
    start = repository.tip("main")
    gone = repository.commit({"one": b"1\n"})
    repository.git("update-ref", "refs/heads/main", start)
    new = [repository.commit({f"new{number}": b"1\n"}) for number in range(2)]
    with mirror_of(repository.url, tmp_path / "cache") as mirror:
        change = change_of_git(mirror, new[1], mirror.resolve(gone))
    assert (change.base_id, [commit.id for commit in change.commits]) == (start, new)


def test_where_the_first_of_several_commits_is_gone_from_the_server_the_last_one_is_judged_alone(
    repository: Repository, tmp_path: Path
) -> None:
    last = repository.commit({"install_cluster": BROKEN})
    looked = look(repository.url, last, "0" * 39 + "1", tmp_path / "cache")
    assert looked.change is not None
    assert [commit.id for commit in looked.change.commits] == [last]


def test_what_the_master_keeps_names_each_commit_by_its_id(repository: Repository, tmp_path: Path) -> None:
    before = repository.tip("main")
    first = repository.commit({"README": b"1\n"})
    broken = repository.commit({"install_cluster": BROKEN}, author="Eve <eve@example.org>")
    looked = look(repository.url, "main", first, tmp_path / "cache")
    said, printed = judgement_of(looked), as_json(looked)
    assert (printed["revision"], printed["base"]) == (broken, before)
    assert (said.revision, said.base, said.commit, said.chain) == (3, 1, broken, (broken, first, before))
    [new] = said.new
    assert (new.revision, new.commit, new.author) == (3, broken, "Eve <eve@example.org>")


def test_the_same_tree_gets_the_same_judgement_from_subversion_and_from_git(tmp_path: Path) -> None:
    trunk, git = tmp_path / "trunk", Repository(tmp_path / "oscar.git")
    shutil.copytree(STANDIN / "tree", trunk, symlinks=True)
    run("svnadmin", "create", tmp_path / "svn")
    url = f"file://{tmp_path}/svn"
    run("svn", "import", "--quiet", "--no-ignore", "-m", "1", trunk, f"{url}/trunk")
    git.commit_folder(trunk)
    (trunk / "lib/gone.pl").unlink(missing_ok=True)
    apply_patch(STANDIN / "faults/main-cli-does-not-compile.patch")(trunk)
    (trunk / "scripts/new").write_bytes(BROKEN)
    (trunk / "install_cluster").chmod(0o644)
    run("svn", "checkout", "--quiet", f"{url}/trunk", tmp_path / "copy")
    run("cp", "-a", f"{trunk}/.", tmp_path / "copy")
    run("svn", "add", "--quiet", "--force", "--no-ignore", ".", cwd=tmp_path / "copy")
    run("svn", "propdel", "--quiet", "svn:executable", "install_cluster", cwd=tmp_path / "copy")
    run("svn", "commit", "--quiet", "-m", "2", cwd=tmp_path / "copy")
    git.commit_folder(trunk)
    of_svn = judgement_of(look(f"{url}/trunk", "2", None, tmp_path / "cache"))
    of_git = judgement_of(look(git.url, "main", None, tmp_path / "cache"))
    of_folder = look_at_folder(trunk, tmp_path / "cache").report
    assert [problem.file for problem in of_git.new] == [problem.file for problem in of_svn.new]
    assert {"src/cli/main_cli", "scripts/new", "install_cluster"} <= {problem.file for problem in of_git.new}
    for kind in ("new", "mended", "standing"):
        words = [
            [(each.key, each.file, each.line, each.what, each.right, each.gates) for each in getattr(said, kind)]
            for said in (of_svn, of_git)
        ]
        assert words[0] == words[1]
    assert {(each.file, each.line) for each in of_folder.problems} == {
        (each.file, each.line) for each in (*of_git.new, *of_git.standing)
    }


def test_a_repository_that_does_not_look_like_gits_is_named_as_one_in_what_repeats_the_check() -> None:
    source = Source(kind="git", url="https://host/oscar", revision="0" * 40)
    assert url_words(source) == ["--url", "https://host/oscar", "--git"]
    assert url_words(source.model_copy(update={"url": "https://host/oscar.git"})) == ["--url", "https://host/oscar.git"]


def test_a_first_commit_that_is_none_is_refused(repository: Repository, tmp_path: Path) -> None:
    with pytest.raises(SourceError):
        look(repository.url, "main", "--x", tmp_path / "cache")
