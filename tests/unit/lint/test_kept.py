"""Answers of the compilers, kept by content: the same where nothing changed, new where anything that matters did."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from oscar_steps.lint import check, kept
from oscar_steps.lint.check import check_tree
from oscar_steps.lint.confine import Answer, Sandbox, Task
from oscar_steps.lint.entries import version_of
from oscar_steps.lint.problems import Report

pytestmark = pytest.mark.skipif(shutil.which("bwrap") is None, reason="bubblewrap is missing")

USER = "scripts/user"
FILES = {
    "install_cluster": "#!/bin/bash\ntrue\n",
    USER: "#!/usr/bin/perl\nuse strict;\nuse lib '../lib';\nuse OSCAR::One qw(one);\none(1);\n",
    "scripts/other": "#!/usr/bin/perl\nuse strict;\nmy $x = 1;\n",
    "lib/OSCAR/One.pm": "package OSCAR::One;\nuse base qw(Exporter);\nuse OSCAR::Two;\n"
    "our @EXPORT_OK = qw(one);\nsub one ($) { return two() }\n1;\n",
    "lib/OSCAR/Two.pm": "package OSCAR::Two;\nuse base 'Exporter';\nour @EXPORT = qw(two);\nsub two { return 2 }\n1;\n",
}


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for path, text in FILES.items():
        file = tmp_path / "tree" / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        file.chmod(0o755)
    return tmp_path / "tree"


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Paths of the files that were really compiled."""
    paths: list[str] = []
    ask = Sandbox.check

    def noted(self: Sandbox, tasks: list[Task], until: float) -> list[Answer]:
        paths.extend(task.path for task in tasks)
        return ask(self, tasks, until)

    monkeypatch.setattr(Sandbox, "check", noted)
    return paths


@pytest.fixture
def again(tree: Path, tmp_path: Path, asked: list[str]) -> Callable[[], Report]:
    """The tree is checked once; then what is returned checks it again, and leaves in `asked` what that compiled."""
    cache = tmp_path / "cache"
    check_tree(tree, cache=cache)

    def check_again() -> Report:
        asked.clear()
        return check_tree(tree, cache=cache)

    return check_again


def test_a_tree_that_did_not_change_is_not_compiled_again(again: Callable[[], Report], asked: list[str]) -> None:
    assert again().blamed == ()
    assert asked == []


def test_only_what_changed_and_what_loads_it_is_compiled_again(
    tree: Path, again: Callable[[], Report], asked: list[str]
) -> None:
    (tree / "scripts/other").write_text("#!/usr/bin/perl\nuse strict;\nmy $x = ;\n")
    assert [problem.file for problem in again().blamed] == ["scripts/other"]
    assert asked == ["scripts/other"]
    two = tree / "lib/OSCAR/Two.pm"
    two.write_text(two.read_text().replace("sub two {", "sub two { # more"))
    again()
    assert sorted(asked) == ["lib/OSCAR/One.pm", "lib/OSCAR/Two.pm", USER]


def test_a_problem_that_was_kept_is_said_again_and_is_gone_when_it_is_mended(
    tree: Path, again: Callable[[], Report], asked: list[str]
) -> None:
    one = tree / "lib/OSCAR/One.pm"
    one.write_text(one.read_text().replace("sub one ($)", "sub one ($$)"))
    first, second = again(), again()
    assert [(p.file, p.line) for p in first.blamed] == [(USER, 5)]
    assert "Not enough arguments for OSCAR::One::one" in first.blamed[0].what
    assert second.blamed == first.blamed
    assert asked == []
    one.write_text(one.read_text().replace("sub one ($$)", "sub one ($)"))
    assert again().blamed == ()


def test_a_module_that_was_missing_and_is_there_now_changes_the_answer(tree: Path, again: Callable[[], Report]) -> None:
    (tree / "scripts/other").write_text("#!/usr/bin/perl\nuse lib '../lib';\nuse OSCAR::Three qw(three);\nthree(1);\n")
    assert again().blamed == ()
    (tree / "lib/OSCAR/Three.pm").write_text("package OSCAR::Three;\nuse base qw(Exporter);\n1;\n")
    assert ["three" in str(problem) for problem in again().blamed] == [True]
    (tree / "lib/OSCAR/Three.pm").unlink()
    assert again().blamed == ()


def test_a_module_that_is_loaded_by_a_name_made_at_run_time_counts_as_well(
    tree: Path, again: Callable[[], Report], asked: list[str]
) -> None:
    loads = (
        "#!/usr/bin/perl\nBEGIN { push @INC, '../lib'; my $x = join '::', 'OSCAR', 'Two'; eval \"require $x\"; }\n1;\n"
    )
    (tree / "scripts/other").write_text(loads)
    again()
    (tree / "lib/OSCAR/Two.pm").write_text(FILES["lib/OSCAR/Two.pm"] + "\n")
    again()
    assert "scripts/other" in asked


def test_a_file_cannot_forge_what_it_depends_on(tree: Path, again: Callable[[], Report], asked: list[str]) -> None:
    """A module that is loaded could say of its user what it likes, for as long as it is there itself, and no longer."""
    lies = "BEGIN { truncate($FarmLoader::notes, 0); POSIX::_exit(255) }\n"
    (tree / "lib/OSCAR/Two.pm").write_text(lies + FILES["lib/OSCAR/Two.pm"])
    assert {one.file for one in again().left_alone} >= {USER}
    (tree / "lib/OSCAR/Two.pm").write_text(FILES["lib/OSCAR/Two.pm"] + "# mended\n")
    report = again()
    assert USER in asked
    assert report.left_alone == ()


@pytest.mark.parametrize(
    "harm",
    [
        'unlink "/tmp/said"; mkdir "/tmp/said"',
        'unlink "/tmp/notes"; mkdir "/tmp/notes"',
        'unlink "/tmp/noise"; mkdir "/tmp/noise"; mkdir "/tmp/noise/x"; chmod 0, "/tmp/noise"',
    ],
)
def test_what_one_file_does_in_its_sandbox_changes_no_answer_on_another(
    tree: Path, again: Callable[[], Report], asked: list[str], monkeypatch: pytest.MonkeyPatch, harm: str
) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: 1)  # one sandbox for all
    (tree / "scripts/other").write_text("#!/usr/bin/perl\nuse strict;\nmy $x = ;\n")
    for path in (USER, "scripts/zebra"):  # 'word' may be exported by the module that is not here
        (tree / path).write_text("#!/usr/bin/perl\nuse strict;\nuse Not::There;\nmy $x = word;\n")
    expected = again()
    (tree / "scripts/mean").write_text(f"#!/usr/bin/perl\nBEGIN {{ {harm} }}\n")
    for path in (USER, "scripts/zebra", "scripts/other"):
        (tree / path).write_text((tree / path).read_text() + "# once more\n")
    for _ in range(2):
        report = again()
        assert (report.blamed, report.left_alone) == (expected.blamed, expected.left_alone)
    assert asked == []


def test_a_file_whose_words_cannot_be_taken_down_is_left_alone_and_asked_again(
    tree: Path, again: Callable[[], Report], asked: list[str]
) -> None:
    (tree / "scripts/other").write_text("#!/usr/bin/perl\nBEGIN { POSIX::_exit(126) }\n")
    for _ in range(2):
        assert [str(one) for one in again().left_alone] == ["scripts/other: left alone: its check was not finished"]
        assert asked == ["scripts/other"]


@pytest.mark.parametrize("load", ['require"OSCAR/Two.pm"', "require'OSCAR/Two.pm'", 'require("OSCAR/Two.pm")'])
def test_a_module_counts_however_its_name_is_written(
    tree: Path, again: Callable[[], Report], asked: list[str], load: str
) -> None:
    (tree / "scripts/other").write_text(f"#!/usr/bin/perl\nuse lib '../lib';\nBEGIN{{{load}; POSIX::_exit(255) }}\n")
    lies = "BEGIN { truncate($FarmLoader::notes, 0); POSIX::_exit(255) }\n"
    (tree / "lib/OSCAR/Two.pm").write_text(lies + FILES["lib/OSCAR/Two.pm"])
    again()
    (tree / "lib/OSCAR/Two.pm").write_text(FILES["lib/OSCAR/Two.pm"] + "# mended\n")
    again()
    assert "scripts/other" in asked


@pytest.mark.parametrize("spoil", [b"", b"nonsense", b"\0", None])
def test_a_spoiled_entry_is_made_again_and_never_believed(
    tmp_path: Path, again: Callable[[], Report], asked: list[str], spoil: bytes | None
) -> None:
    entries = sorted((tmp_path / "cache").iterdir())
    assert len(entries) == len(FILES)
    for entry in entries:
        content = entry.read_bytes()
        entry.write_bytes(content.replace(b'"status": 0', b'"status": 1') if spoil is None else spoil)
    report = again()
    assert sorted(asked) == sorted(FILES)
    assert (report.blamed, report.left_alone) == ((), ())
    again()
    assert asked == []


def test_entries_of_another_version_of_ours_are_not_believed(
    again: Callable[[], Report], asked: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kept, "_version", lambda: "another")
    again()
    assert sorted(asked) == sorted(FILES)


ROOM = Path(kept.__file__).parent
SOURCES = sorted(path.relative_to(ROOM) for path in ROOM.rglob("*") if path.suffix in (".py", ".pl", ".pm"))


def test_each_source_of_the_lint_is_a_part_of_its_version(tmp_path: Path) -> None:
    """Of kept answers and of kept reports: an entry of another version is never believed."""
    copy = tmp_path / "lint"
    shutil.copytree(ROOM, copy, ignore=shutil.ignore_patterns("__pycache__"))
    versions = [version_of(ROOM), version_of(copy)]
    assert len(set(versions)) == 1
    for source in SOURCES:
        with (copy / source).open("a") as more:
            more.write("#\n")
        versions.append(version_of(copy))
    assert len(set(versions)) == 1 + len(SOURCES)
    assert kept._version() == versions[0]


def test_the_oldest_entries_go_when_there_are_too_many(
    tree: Path, tmp_path: Path, again: Callable[[], Report], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kept, "MAX_ENTRIES", 10)
    old = [tmp_path / "cache" / f"old{number}" for number in range(20)]
    for path in old:
        path.write_text("")
        os.utime(path, (1, 1))
    (tree / "scripts/other").write_text("#!/usr/bin/perl\n1;\n")
    again()
    left = list((tmp_path / "cache").iterdir())
    assert len(left) == 9
    assert len(set(left) & set(old)) == 9 - len(FILES) - 1


@pytest.mark.parametrize("kind", ["file", "unwritable"])
def test_a_folder_that_cannot_be_used_costs_time_and_nothing_else(tree: Path, tmp_path: Path, kind: str) -> None:
    place = tmp_path / "cache"
    if kind == "file":
        place.write_text("")
    else:
        place = Path("/proc/cache")
    assert check_tree(tree, cache=place).blamed == ()


def test_what_did_not_end_in_time_is_not_kept(
    tree: Path, tmp_path: Path, asked: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(check, "_tasks", lambda _: [Task("perl", "scripts/other")])
    monkeypatch.setattr("oscar_steps.lint.confine.SECONDS_PER_FILE", 1)
    (tree / "scripts/other").write_text("#!/usr/bin/perl\nBEGIN { sleep 100 }\n")
    for _ in range(2):
        report = check_tree(tree, cache=tmp_path / "cache")
        assert "did not end" in report.blamed[0].what
    assert asked == ["scripts/other"] * 2
