"""A developer's diff: as Subversion, git and diff make one, and with all that may be wrong with it."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from oscar_steps.errors import PatchRefused
from oscar_steps.sources.diffs import REFUSED, changes_of, rejection, script_of
from oscar_steps.sources.source import Patch

ONE = """\
Index: scripts/one
===================================================================
--- scripts/one\t(revision 5)
+++ scripts/one\t(working copy)
@@ -1,3 +1,3 @@
 first
-second
+zweite
 third
"""


def patch_of(text: str | bytes, strip: int = 0) -> Patch:
    return Patch.of_bytes(text if isinstance(text, bytes) else text.encode(), "eric", strip)


def apply(patch: Patch, top: Path) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(["sh", "-s"], input=script_of(patch, changes_of(patch), str(top)), capture_output=True)


def files_of(top: Path) -> dict[str, tuple[bytes, bool]]:
    found = (path for path in top.rglob("*") if path.is_file() and not {".git", ".svn"} & {*path.parts})
    return {str(path.relative_to(top)): (path.read_bytes(), bool(path.stat().st_mode & 0o100)) for path in found}


def program(folder: Path, *words: str | Path) -> bytes:
    safe = ("-c", "user.name=x", "-c", "user.email=x@y.z") if words[0] == "git" else ()
    return subprocess.run([words[0], *safe, *words[1:]], cwd=folder, check=True, capture_output=True).stdout


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    top = tmp_path / "tree"
    (top / "scripts").mkdir(parents=True)
    (top / "scripts/one").write_text("first\nsecond\nthird\n")
    (top / "scripts/two words").write_text("".join(f"line {number}\n" for number in range(30)))
    (top / "scripts/grün").write_bytes(b"gr\xfcn\nblau\n")
    (top / "scripts/dos").write_bytes(b"one\r\ntwo\r\nthree\r\n")
    (top / "README").write_text("no newline at its end")
    (top / "moved").write_text("".join(f"stays {number}\n" for number in range(20)))
    return top


def edit(top: Path) -> None:
    """What a developer may do: in every way that a diff can say without loss."""
    (top / "scripts/one").write_text("first\n2\nthird\n")
    (top / "scripts/two words").write_text("".join(f"line {number}\n" for number in range(2, 30)) + "more\n")
    (top / "scripts/grün").write_bytes(b"gr\xfcn\nrot\n")
    (top / "scripts/dos").write_bytes(b"one\r\nzwei\r\nthree\r\n")
    (top / "README").write_text("none here either")
    (top / "new").mkdir()
    (top / "new/-- tool").write_text("#!/bin/sh\n")
    (top / "new/-- tool").chmod(0o755)
    (top / "new/empty").write_text("")


def by_git(top: Path, *options: str) -> bytes:
    program(top, "git", "init", "-q")
    program(top, "git", "add", "-A")
    program(top, "git", "commit", "-qm", "x")
    edit(top)
    program(top, "git", "mv", "moved", "scripts/moved away")
    (top / "scripts/moved away").write_text((top / "scripts/moved away").read_text() + "and more\n")
    program(top, "git", "rm", "-q", "--cached", "scripts/one")
    (top / "scripts/one").unlink()
    program(top, "git", "add", "-A")
    return program(top, "git", "diff", "--cached", "-M", *options, "HEAD")


@pytest.mark.parametrize("options", [(), ("--no-prefix",), ("--no-renames", "--full-index")], ids=str)
def test_what_git_diff_says_is_done(tree: Path, tmp_path: Path, options: tuple[str, ...]) -> None:
    copy = shutil.copytree(tree, tmp_path / "copy")
    patch = patch_of(by_git(tree, *options))
    done = apply(patch, copy)
    assert (done.returncode, done.stderr) == (0, b""), done.stdout
    assert files_of(copy) == files_of(tree)


@pytest.mark.parametrize("options", [(), ("--git",)], ids=str)
def test_what_svn_diff_says_is_done(tree: Path, tmp_path: Path, options: tuple[str, ...]) -> None:
    program(tmp_path, "svnadmin", "create", "repository")
    url = (tmp_path / "repository").as_uri()
    program(tmp_path, "svn", "import", "-q", "-m", "x", tree, f"{url}/trunk")
    work = tmp_path / "work"
    program(tmp_path, "svn", "checkout", "-q", f"{url}/trunk", work)
    edit(work)
    program(work, "svn", "rm", "-q", "--force", "scripts/one")
    (work / "new/empty").unlink()  # of an empty file Subversion says nothing
    program(work, "svn", "add", "-q", "new")
    program(work, "svn", "propset", "-q", "svn:mergeinfo", "/branches/x:1", ".")
    if options:
        program(work, "svn", "mv", "-q", "moved", "scripts/moved")
    done = apply(patch_of(program(work, "svn", "diff", *options)), tree)
    assert (done.returncode, done.stderr) == (0, b""), done.stdout
    assert files_of(tree) == files_of(work)


def test_what_diff_says_of_two_folders_is_done(tree: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(tree, tmp_path / "copy")
    edit(tree)
    (tree / "new/-- tool").chmod(0o644)  # diff says nothing of modes
    said = subprocess.run(["diff", "-urN", "copy", "tree"], cwd=tmp_path, capture_output=True).stdout
    done = apply(patch_of(said, strip=1), copy)
    assert (done.returncode, done.stderr) == (0, b""), done.stdout
    (tree / "new/empty").unlink()  # it says nothing of an empty file either
    assert files_of(copy) == files_of(tree)


def test_a_patch_that_came_with_other_line_ends_or_without_blanks_at_line_ends_is_the_same(tree: Path) -> None:
    (tree / "scripts/one").write_text("first\nsecond\n\n")
    text = ONE.replace(" third\n", "\n").replace("\n", "\r\n")
    assert apply(patch_of(text), tree).returncode == 0
    assert (tree / "scripts/one").read_text() == "first\nzweite\n\n"


GIT = "diff --git a/x b/x\nnew file mode {}\n--- /dev/null\n+++ b/x\n@@ -0,0 +1 @@\n+/etc/passwd\n"
NAMED = "--- {0}\n+++ {0}\n@@ -1 +1 @@\n-a\n+b\n"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (NAMED.format("/etc/passwd"), "line 1: '/etc/passwd' is no path within the tree"),
        (NAMED.format("a/../../x"), "line 1: 'a/../../x' is not in the tree itself"),
        (NAMED.format("C:\\x"), "is no path within the tree"),
        (NAMED.format(".svn/wc.db"), "is not in the tree itself"),
        (NAMED.format('"a\\nb"'), "is no name of a file that the farm takes"),
        (NAMED.format("-e"), "is no name of a file that the farm takes"),
        (NAMED.format("x") * 2, "line 6: 'x' comes twice (first on line 1)"),
        (GIT.format("120000"), "line 2: it makes a symbolic link"),
        (GIT.format("160000"), "line 2: it makes a symbolic link or a submodule"),
        (f"{ONE}\nProperty changes on: x\n______\nAdded: svn:special\n", "line 13: it makes a symbolic link"),
        (f"{ONE}\nProperty changes on: .\n______\nModified: svn:externals\n", "line 13: it changes svn:externals"),
        ("diff --git a/x b/x\nindex 1..2 100644\nGIT binary patch\nliteral 3\n", "line 3: it changes a binary file"),
        ("Index: x\n====\nCannot display: file marked as a binary type.\n", "line 3: it changes a binary file"),
        ("Binary files a/x and b/x differ\n", "line 1: it changes a binary file"),
        ("*** a\t2007\n--- b\t2007\n****\n", "line 1: this is a context diff"),
        ("Only in new: x\n", "line 1: it lacks a file"),
        ("@@ -1 +1 @@\n-a\n+b\n", "line 1: a hunk has no file"),
        (ONE.removesuffix(" third\n"), "line 9: the hunk that begins on line 5 is not complete"),
        (ONE.replace(" first", "first"), "line 6: the hunk that begins on line 5 is not complete"),
        (ONE.replace("-1,3", "-1,2"), "line 9: the hunk has more lines than its '@@' says"),
        ("--- x\t(.../trunk/y)\t(revision 3)\n+++ x\t(working copy)\n@@ -1 +1 @@\n-a\n+b\n", "--show-copies-as-adds"),
        ("a\0b", "it has binary data"),
        ("hello\n", "it changes no file"),
        ("", "it changes no file"),
        ("1c1\n< a\n---\n> b\n", "it changes no file"),
        ("diff --git\n", "it changes no file"),
        ('diff --git "a b\nrename from \nrename to x\n', "it changes no file"),
        ("diff --git \nnew file mode 100644\n", "names no file"),
    ],
)
def test_a_patch_that_cannot_be_used_is_refused_in_one_sentence_that_names_its_line(text: str, said: str) -> None:
    with pytest.raises(PatchRefused) as refused:
        changes_of(patch_of(text))
    assert said in refused.value.sentence
    assert refused.value.sentence.startswith("the patch cannot be used: ")
    assert "\n" not in refused.value.sentence


@pytest.mark.parametrize("line", ["--- a" + " " * 10**6 + "x", "--- a" + "\r" * 10**6 + "x", "--- a " + "(" * 10**6])
def test_a_line_of_a_megabyte_is_read_at_once_whatever_is_in_it(line: str) -> None:
    with pytest.raises(PatchRefused, match="no name of a file"):
        changes_of(Patch.of(f"{line}\n+++ a\n@@ -1 +1 @@\n-a\n+b\n", "dev"))


def test_a_level_that_takes_all_of_a_name_is_refused() -> None:
    with pytest.raises(PatchRefused, match="'scripts/one' has no 2 folders"):
        changes_of(patch_of(ONE, strip=2))


def refusal(patch: Patch, tree: Path) -> tuple[str, Sequence[str]]:
    before = files_of(tree)
    done = apply(patch, tree)
    assert done.returncode in (1, REFUSED)
    assert files_of(tree) == before, "half of it was applied"
    error = rejection(patch, changes_of(patch), done.returncode, done.stdout.decode())
    return error.sentence, [line for evidence in error.evidence for line in evidence.lines]


def test_a_hunk_that_finds_no_place_is_shown_and_nothing_is_changed(tree: Path) -> None:
    both = patch_of(NAMED.format("README").replace("-a", "-no newline at its end") + ONE.replace("second", "other"))
    (tree / "README").write_text("no newline at its end\n")
    sentence, lines = refusal(both, tree)
    assert sentence.endswith("the hunk on line 10 of the diff finds no such lines in 'scripts/one'")
    assert f"{both.sha256[:8]} of eric does not apply" in sentence
    assert lines == ["@@ -1,3 +1,3 @@", " first", "-other", "+zweite", " third"]


def away(tree: Path) -> None:
    shutil.rmtree(tree / "scripts")


def linked_file(tree: Path) -> None:
    (tree / "other").write_text((tree / "scripts/one").read_text())
    (tree / "scripts/one").unlink()
    (tree / "scripts/one").symlink_to("../other")


def linked_folder(tree: Path) -> None:
    outside = shutil.move(tree / "scripts", tree.parent / "outside")
    (tree / "scripts").symlink_to(outside)


@pytest.mark.parametrize(
    ("change", "text", "said"),
    [
        (away, ONE, "'scripts/one' is not in the tree"),
        (linked_file, ONE, "'scripts/one' is a symbolic link"),
        (linked_folder, ONE, "'scripts' is a symbolic link"),
        (linked_folder, GIT.format("100644").replace("x", "scripts/x"), "'scripts' is a symbolic link"),
        (
            str,
            GIT.format("100644").replace(" b/x", " b/README").replace(" a/x", " a/README"),
            "'README' is in the tree",
        ),
        (str, ONE.replace("-second", "-zweite").replace("+zweite", "+second"), "finds no such lines in 'scripts/one'"),
    ],
    ids=["no file", "link", "linked folder", "new behind a link", "it is there", "backwards"],
)
def test_a_tree_that_is_not_as_the_patch_says_is_left_alone(
    tree: Path, change: Callable[[Path], object], text: str, said: str
) -> None:
    change(tree)
    assert said in refusal(patch_of(text), tree)[0]


def test_names_that_are_commands_are_only_names(tree: Path) -> None:
    for name in ("@@end", "$(touch pwned)", "a'; touch pwned; '", "`touch pwned`", "b\t"):
        text = NAMED.format(f"{name}\t2007").replace("-1 ", "-0,0 ").replace("-a\n", "")
        assert apply(patch_of(text), tree).returncode == 0, name
        assert (tree / name.strip()).read_text() == "b\n"
    assert not (tree / "pwned").exists()
