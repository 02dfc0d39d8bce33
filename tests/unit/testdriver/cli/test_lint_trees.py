"""The trees that the first tier compares: from Subversion, cheaply, and safe against whatever befell the last lint."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest

from demo.children import run
from oscar_steps.errors import HostError, SourceError
from oscar_steps.lint.tree import Tree
from oscar_steps.sources import history
from oscar_steps.sources.history import Change, change_of
from oscar_steps.testdriver.cli import lint_trees
from oscar_steps.testdriver.cli.lint import look
from oscar_steps.testdriver.cli.lint_trees import trees_of, trees_of_folder

PROGRAM = "scripts/go"


class Repo:
    """A small repository, reached by its files."""

    def __init__(self, place: Path) -> None:
        self.url = place.as_uri()
        self.trunk = f"{self.url}/trunk"
        self.copy = place.with_suffix(".wc")
        run("svnadmin", "create", place)
        run("svn", "mkdir", "--quiet", "-m", "layout", self.trunk, f"{self.url}/branches")
        run("svn", "checkout", "--quiet", self.url, self.copy)
        self.commit(install_cluster="#!/bin/sh\n", **{PROGRAM: "one\n"})

    def commit(self, *, user: str = "jane", top: str = "trunk", **files: str) -> int:
        for name, text in files.items():
            path = self.copy / top / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return self.done(user)

    def done(self, user: str = "jane") -> int:
        run("svn", "add", "--quiet", "--force", self.copy)
        run("svn", "commit", "--quiet", "--username", user, "-m", "a change", self.copy)
        run("svn", "update", "--quiet", self.copy)
        return int(run("svn", "info", "--show-item", "revision", "--no-newline", self.copy))

    def svn(self, *words: str | Path) -> None:
        run("svn", *words, cwd=self.copy)


@pytest.fixture
def repo(tmp_path: Path) -> Repo:
    return Repo(tmp_path / "svn")


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def texts(change: Change, cache: Path) -> tuple[str | None, str]:
    trees = trees_of(change, cache)
    before = trees.before.files[PROGRAM].text if trees.before else None
    return before, trees.after.files[PROGRAM].text


def test_a_commit_is_compared_with_the_one_before_it_on_its_branch(repo: Repo, cache: Path) -> None:
    repo.commit(**{PROGRAM: "two\n"})
    repo.commit(top="branches/other", install_cluster="x\n")
    last = repo.commit(user="eric", **{PROGRAM: "three\n"})
    change = change_of(repo.trunk, str(last))
    assert (change.revision, change.base, change.brought_by(PROGRAM).author) == (last, last - 2, "eric")
    assert texts(change, cache) == ("two\n", "three\n")


def test_the_first_revision_of_a_branch_is_compared_with_its_origin(repo: Repo, cache: Path) -> None:
    origin = repo.commit(**{PROGRAM: "two\n"})
    repo.svn("copy", "--quiet", "trunk", "branches/b")
    (repo.copy / "branches/b" / PROGRAM).write_text("b\n")
    made = repo.done()
    change = change_of(f"{repo.url}/branches/b", str(made))
    assert (change.base, change.base_url) == (origin, repo.trunk)
    assert texts(change, cache) == ("two\n", "b\n")


def test_the_first_revision_of_all_has_none_before_it(tmp_path: Path, cache: Path) -> None:
    run("svnadmin", "create", tmp_path / "svn")
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree/install_cluster").write_text("x\n")
    url = (tmp_path / "svn").as_uri()
    run("svn", "import", "--quiet", "-m", "x", tmp_path / "tree", f"{url}/trunk")
    change = change_of(f"{url}/trunk", "HEAD")
    assert (change.revision, change.base) == (1, 0)
    assert trees_of(change, cache).before is None


def test_several_commits_are_compared_with_the_one_before_the_first(repo: Repo, cache: Path) -> None:
    first = repo.commit(user="jane", **{PROGRAM: "two\n"})
    last = repo.commit(user="eric", VERSION="1\n")
    change = change_of(repo.trunk, str(last), first)
    assert [commit.author for commit in change.commits] == ["jane", "eric"]
    assert (change.brought_by(PROGRAM).author, change.brought_by("VERSION").author) == ("jane", "eric")
    assert texts(change, cache) == ("one\n", "two\n")


def test_a_revision_in_which_the_branch_did_not_change_is_its_last_change(repo: Repo) -> None:
    last = repo.commit(**{PROGRAM: "two\n"})
    later = repo.commit(top="branches/other", install_cluster="x\n")
    assert change_of(repo.trunk, str(later)).revision == last


def test_what_was_copied_is_known_by_its_path_in_the_tree(repo: Repo) -> None:
    repo.svn("move", "--quiet", "trunk/scripts", "trunk/programs")
    moved = repo.done()
    repo.svn("move", "--quiet", "trunk/programs/go", "trunk/programs/run")
    last = repo.done()
    assert change_of(repo.trunk, str(moved)).copied == {"programs": "scripts"}
    assert change_of(repo.trunk, str(last), moved).copied == {"programs": "scripts", "programs/run": PROGRAM}


def test_what_svn_would_expand_and_execute_bits_are_as_a_checkout_has_them(repo: Repo, cache: Path) -> None:
    repo.svn("propset", "--quiet", "svn:executable", "*", f"trunk/{PROGRAM}")
    repo.svn("propset", "--quiet", "svn:keywords", "Revision", f"trunk/{PROGRAM}")
    last = repo.commit(**{PROGRAM: "$Revision$\n"})
    trees = trees_of(change_of(repo.trunk, str(last)), cache)
    assert trees.before and not trees.before.files[PROGRAM].executable
    assert trees.after.files[PROGRAM].executable
    assert trees.after.files[PROGRAM].text == f"$Revision: {last} $\n"


@pytest.fixture
def fetched(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """How the working copy came to its trees."""
    done, svn = list[str](), lint_trees.svn

    def noted(*words: str, **more: object) -> bytes:
        done.append(words[0])
        return svn(*words, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(lint_trees, "svn", noted)
    yield done


def test_the_next_commit_fetches_only_what_it_changed(repo: Repo, cache: Path, fetched: list[str]) -> None:
    second = repo.commit(**{PROGRAM: "two\n"})
    trees_of(change_of(repo.trunk, str(second)), cache)
    fetched.clear()
    third = repo.commit(**{PROGRAM: "three\n"})
    assert texts(change_of(repo.trunk, str(third)), cache) == ("two\n", "three\n")
    assert [word for word in fetched if word in ("checkout", "switch")] == ["switch"]


def spoil(place: Path, how: str) -> None:
    copy = next(path for path in place.iterdir() if path.is_dir())
    if how == "cut short":
        copy.with_suffix(".at").unlink()
        (copy / ".svn/wc.db").write_bytes(b"half")
    elif how == "a file more":
        (copy / "scripts/more").write_text("x\n")
    elif how == "a file edited":
        (copy / PROGRAM).write_text("spoiled\n")
    elif how == "a file gone":
        (copy / PROGRAM).unlink()
    elif how == "no working copy":
        shutil.rmtree(copy / ".svn")
    elif how == "a file in its place":
        shutil.rmtree(copy)
        copy.write_text("x\n")
    else:
        shutil.rmtree(copy)


@pytest.mark.parametrize(
    "how",
    ["cut short", "a file more", "a file edited", "a file gone", "no working copy", "a file in its place", "gone"],
)
def test_what_is_spoiled_is_made_anew(repo: Repo, cache: Path, how: str) -> None:
    change = change_of(repo.trunk, str(repo.commit(**{PROGRAM: "two\n"})))
    assert texts(change, cache) == ("one\n", "two\n")
    spoil(cache, how)
    trees = trees_of(change, cache)
    assert trees.before and trees.before.files[PROGRAM].text == "one\n"
    assert (trees.after.files[PROGRAM].text, "scripts/more" in trees.after) == ("two\n", False)


def test_another_repository_at_the_same_address_is_not_taken_for_the_old_one(
    repo: Repo, cache: Path, tmp_path: Path
) -> None:
    trees_of(change_of(repo.trunk, str(repo.commit(**{PROGRAM: "two\n"}))), cache)
    shutil.rmtree(tmp_path / "svn")
    shutil.rmtree(repo.copy)
    other = Repo(tmp_path / "svn")
    last = other.commit(**{PROGRAM: "other\n"})
    assert texts(change_of(other.trunk, str(last)), cache) == ("one\n", "other\n")


def test_the_working_copies_of_repositories_that_nobody_looks_at_any_more_go(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lint_trees, "MAX_COPIES", 2)
    for name in ("one", "two", "three"):
        repo = Repo(tmp_path / name)
        trees_of(change_of(repo.trunk, "HEAD"), cache)
    assert len([path for path in cache.iterdir() if path.is_dir()]) == 2


def test_a_working_copy_that_another_lint_has_just_let_go_harms_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here.at").touch()
    monkeypatch.setattr(Path, "glob", lambda *_: iter([tmp_path / "gone.at", tmp_path / "here.at"]))
    lint_trees._let_old_ones_go(tmp_path)
    assert (tmp_path / "here.at").exists()


def test_more_commits_than_are_read_are_compared_with_the_one_before_the_first(
    repo: Repo, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(history, "MAX_COMMITS", 2)
    before = repo.commit(VERSION="0\n")
    first, *_, last = [repo.commit(**{PROGRAM: f"{text}\n"}) for text in ("two", "three", "four")]
    change = change_of(repo.trunk, str(last), first)
    assert change.base == before
    assert texts(change, cache) == ("one\n", "four\n")
    assert change_of(repo.trunk, str(last), 1).base == 0
    repo.svn("mkdir", "--quiet", "newer")
    began = repo.commit(top="newer", install_cluster="x\n")
    repo.commit(top="newer", install_cluster="y\n")
    assert change_of(f"{repo.url}/newer", "HEAD", began).base == 0


def test_of_several_commits_the_one_that_took_away_or_copied_is_named_and_where_it_may_be_any_none(repo: Repo) -> None:
    repo.commit(**{"lib/Gone.pm": "1;\n", "tools/a": "x\n"})
    repo.svn("remove", "--quiet", "trunk/lib")
    first = repo.done("alice")
    repo.commit(user="bob", README="x\n")
    repo.svn("copy", "--quiet", "trunk/tools", "trunk/more")
    last = repo.done("carl")
    change = change_of(repo.trunk, str(last), first)

    def author(path: str, because: str = "") -> str:
        commit = change.brought_by(path, because)
        return commit.author if commit else ""

    assert author(PROGRAM, "lib/Gone.pm") == "alice"
    assert author("more/a") == "carl"
    assert author(PROGRAM) == ""
    assert author("README", "lib/Gone.pm") == "", "either may have brought it"


def both(url: str, revision: str, cache: Path) -> tuple[str | None, str]:
    return texts(change_of(url, revision), cache)


def test_two_lints_at_once_do_not_disturb_each_other(repo: Repo, cache: Path) -> None:
    revisions = [repo.commit(**{PROGRAM: f"{number}\n"}) for number in range(4)]
    with ProcessPoolExecutor(4) as pool:
        found = list(pool.map(both, *zip(*[(repo.trunk, str(r), cache) for r in revisions], strict=True)))
    assert found == [("one\n", "0\n"), ("0\n", "1\n"), ("1\n", "2\n"), ("2\n", "3\n")]


def test_a_disk_without_room_is_the_hosts_fault(repo: Repo, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*words: str, about: str, **_more: object) -> bytes:
        raise HostError(f"{about}: svn {words[0]} says E000028: Can't write: No space left on device")

    change = change_of(repo.trunk, str(repo.commit(VERSION="1\n")))
    monkeypatch.setattr(lint_trees, "svn", full)
    with pytest.raises(HostError, match="has no room for a tree"):
        trees_of(change, cache)
    monkeypatch.undo()
    assert trees_of(change, cache).after.files[PROGRAM].text == "one\n"


def test_a_cache_that_cannot_be_used_is_the_hosts_fault(repo: Repo, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(HostError, match="cannot be used"):
        trees_of(change_of(repo.trunk, "HEAD"), tmp_path / "file/cache")


@pytest.mark.parametrize(
    ("path", "words", "hint"),
    [
        ("", "is not an OSCAR tree, but holds one", "/trunk@"),
        ("/branches", "has no file at its top", "trunk"),
        ("/trunk/install_cluster", "is a file", "folder"),
        ("/nowhere", "nowhere", "--url"),
    ],
)
def test_an_address_that_is_no_tree_is_told_as_such(repo: Repo, path: str, words: str, hint: str) -> None:
    repo.commit(top="branches/other", install_cluster="x\n")
    with pytest.raises(SourceError, match=words) as told:
        change_of(f"{repo.url}{path}", "HEAD")
    assert hint in told.value.hint


def test_externals_are_known_and_are_not_called_missing(repo: Repo, cache: Path) -> None:
    lines = f"^/branches Ext\n-r 2 {repo.url}/branches More\nOld {repo.url}/branches\n# no ^/x\n"
    repo.svn("propset", "--quiet", "svn:externals", lines, "trunk/scripts")
    tree = trees_of(change_of(repo.trunk, str(repo.done())), cache).after
    assert tree.externals == {"scripts/Ext", "scripts/More", "scripts/Old"}


def test_a_working_copy_is_compared_with_what_was_committed_last(repo: Repo) -> None:
    (repo.copy / "trunk" / PROGRAM).write_text("edited\n")
    trees = trees_of_folder(repo.copy / "trunk")
    assert trees.before and trees.before.files[PROGRAM].text == "one\n"
    assert trees.after.files[PROGRAM].text == "edited\n"


def test_a_working_copy_may_have_an_at_sign_in_its_name(repo: Repo) -> None:
    place = repo.copy.rename(repo.copy.with_name("job@2")) / "trunk"
    (place / PROGRAM).write_text("edited\n")
    trees = trees_of_folder(place)
    assert trees.before and trees.before.files[PROGRAM].text == "one\n"


def test_a_working_copy_of_gits_is_as_well_below_its_top_too(tmp_path: Path) -> None:
    tree = tmp_path / "git/below"
    tree.mkdir(parents=True)
    (tree / "install_cluster").write_text("one\n")
    (tree / "outside").symlink_to("/etc/passwd")
    git = ("git", "-C", str(tree), "-c", "user.name=x", "-c", "user.email=x@x")
    for words in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "x"]):
        subprocess.run([*git, *words], check=True)
    (tree / "install_cluster").write_text("two\n")
    trees = trees_of_folder(tree)
    assert trees.before and trees.before.files["install_cluster"].text == "one\n"


def test_any_other_folder_has_nothing_before_it(tmp_path: Path) -> None:
    (tmp_path / "install_cluster").write_text("x\n")
    trees = trees_of_folder(tmp_path)
    assert trees.before is None
    assert isinstance(trees.after, Tree)


def test_a_module_that_a_commit_takes_away_is_what_that_commit_brought(repo: Repo, cache: Path) -> None:
    repo.commit(
        install_cluster="#!/usr/bin/perl\nuse OSCAR::Say;\n", **{"lib/OSCAR/Say.pm": "package OSCAR::Say; 1;\n"}
    )
    repo.svn("propset", "--quiet", "svn:executable", "yes", "trunk/install_cluster")
    repo.done()
    repo.svn("remove", "--quiet", "trunk/lib/OSCAR/Say.pm")
    new = look(repo.trunk, str(repo.done()), None, cache).comparison.new
    assert [(problem.file, problem.line, problem.gates) for problem in new] == [("install_cluster", 2, True)]
