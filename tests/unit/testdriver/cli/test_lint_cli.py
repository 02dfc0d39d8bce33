"""`oscar-testdriver lint` as a person and as a Buildbot step call it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from demo.children import run
from demo.faults import Fault
from demo.judge import Finished, complaints
from demo.repository import Repository, apply_patch, edit_readme
from demo.rest import Build
from oscar_steps.job import Source
from oscar_steps.judgement import Judgement
from oscar_steps.lint.baseline import Comparison
from oscar_steps.lint.problems import Problem, Report
from oscar_steps.master.web.standing import Standing, take
from oscar_steps.testdriver.cli.lint_report import Looked, judgement_of
from oscar_steps.testdriver.cli.main import cli
from oscar_steps.verdict import Category, ExitStatus, Outcome, Stage, Verdict

STANDIN = Path(__file__).parents[3] / "oscar_standin"

FAULT = STANDIN / "faults/main-cli-does-not-compile.patch"

pytestmark = pytest.mark.skipif(shutil.which("bwrap") is None, reason="bubblewrap is missing")


@pytest.fixture(autouse=True)
def cache_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home-cache"))


def lint(*words: str | Path) -> Result:
    return CliRunner().invoke(cli, ["lint", *map(str, words)])


def commit(url: str, copy: Path, change: Callable[[Path], None]) -> None:
    """Without a server: by the repository's files."""
    run("svn", "checkout", "--quiet", url, copy)
    change(copy)
    run("svn", "add", "--quiet", "--force", copy)
    run("svn", "commit", "--quiet", "--username", "somebody", "-m", "a change", copy)


def take_back(copy: Path) -> None:
    run("patch", "-R", "-p1", "-i", FAULT, "-d", copy)


@pytest.fixture
def broken(tmp_path: Path) -> Path:
    tree = shutil.copytree(STANDIN / "tree", tmp_path / "tree", symlinks=True)
    apply_patch(STANDIN / "faults/main-cli-does-not-compile.patch")(tree)
    return tree


def test_a_good_tree_ends_with_0_and_one_line(tmp_path: Path) -> None:
    tree = shutil.copytree(STANDIN / "tree", tmp_path / "tree", symlinks=True)
    done = lint("--tree", tree)
    assert done.exit_code == ExitStatus.PASSED
    files = sum(path.is_file() for path in tree.rglob("*"))
    assert done.output.startswith(f"lint: no problem in {files} files")
    assert done.output.count("\n") == 1


def test_a_commit_that_breaks_the_installer_fails_and_the_next_ones_hear_nothing_until_it_is_mended(
    tmp_path: Path,
) -> None:
    tree = shutil.copytree(STANDIN / "tree", tmp_path / "tree", symlinks=True)
    Repository(tmp_path / "svn", tree, users=("somebody",))
    url = (tmp_path / "svn/oscar").as_uri() + "/trunk"

    def judged(run: str) -> tuple[Result, Verdict, Judgement]:
        where = tmp_path / "runs" / run
        done = lint("HEAD", "--url", url, "--run", where, "--cache", tmp_path / "cache")
        return done, Verdict.load(where), Judgement.model_validate_json((where / "lint.json").read_bytes())

    done, verdict, said = judged("lint-r1-b1")
    assert (done.exit_code, verdict.outcome, said.base) == (ExitStatus.PASSED, Outcome.PASSED, 0)
    commit(url, tmp_path / "wc", apply_patch(FAULT))
    done, verdict, said = judged("lint-r2-b2")
    assert done.exit_code == ExitStatus.FAILED
    first, *_ = done.output.splitlines()
    assert first.startswith("src/cli/main_cli:15: perl: syntax error")
    assert (verdict.outcome, verdict.category, verdict.cell) == (Outcome.FAILED, Category.OSCAR, "lint")
    assert (verdict.run_id, verdict.revision, verdict.sentence) == ("lint-r2-b2", "2", first)
    (evidence,) = verdict.evidence
    log = tmp_path / "runs/lint-r2-b2" / evidence.file
    assert log.read_text().splitlines()[evidence.first_line - 1] == evidence.lines[0]
    assert [(new.revision, new.author, new.gates) for new in said.new] == [(2, "somebody", True)]
    broken = said.new[0].key

    commit(url, tmp_path / "wc", edit_readme)
    done, verdict, said = judged("lint-r3-b3")
    assert (done.exit_code, verdict.outcome, said.new) == (ExitStatus.PASSED, Outcome.PASSED, ())
    assert [stands.was for stands in said.standing] == [broken]
    assert "standing: 1" in done.output

    commit(url, tmp_path / "wc", take_back)
    done, verdict, said = judged("lint-r4-b4")
    assert (done.exit_code, verdict.outcome) == (ExitStatus.PASSED, Outcome.PASSED)
    assert verdict.mended[0].startswith("mended: src/cli/main_cli:15: perl: syntax error")
    assert done.output.startswith(verdict.mended[0])

    run("svn", "mkdir", "--quiet", "-m", "elsewhere", url.replace("trunk", "tags/5.1"))
    assert judged("lint-r4-b5")[1].revision == "4"


def test_a_patch_is_judged_by_the_revision_that_it_is_applied_to_and_leaves_no_trace_there(tmp_path: Path) -> None:
    tree = shutil.copytree(STANDIN / "tree", tmp_path / "tree", symlinks=True)
    Repository(tmp_path / "svn", tree, users=("somebody",))
    url = (tmp_path / "svn/oscar").as_uri() + "/trunk"
    words = ("1", "--url", url, "--cache", tmp_path / "cache", "--run")
    done = lint(*words, tmp_path / "one", "--patch", FAULT, "--strip", 1, "--patch-of", "eric")
    assert done.exit_code == ExitStatus.FAILED, done.output
    assert done.output.startswith("src/cli/main_cli:15: perl: syntax error")
    verdict = Verdict.load(tmp_path / "one")
    assert (verdict.outcome, verdict.revision) == (Outcome.FAILED, "1")
    assert verdict.replay.endswith("--patch patch.diff --strip 1")
    assert lint(*words, tmp_path / "two").exit_code == ExitStatus.PASSED
    wrong = tmp_path / "wrong.diff"
    wrong.write_text("--- VERSION\n+++ VERSION\n@@ -1 +1 @@\n-not there\n+new\n")
    done = lint(*words, tmp_path / "three", "--patch", wrong, "--patch-of", "eric")
    assert done.exit_code == ExitStatus.USAGE
    verdict = Verdict.load(tmp_path / "three")
    assert "of eric does not apply: the hunk on line 3 of the diff finds no such lines in 'VERSION'" in verdict.sentence
    assert (verdict.outcome, verdict.category) == (Outcome.INFRASTRUCTURE, Category.FARM)
    assert verdict.evidence[0].lines == ("@@ -1 +1 @@", "-not there", "+new")


def test_a_module_that_a_commit_takes_away_is_new_with_the_commit_that_did_it(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    (tree / "lib/OSCAR").mkdir(parents=True)
    (tree / "lib/OSCAR/Gone.pm").write_text("package OSCAR::Gone;\n1;\n")
    (tree / "lib/OSCAR/User.pm").write_text("package OSCAR::User;\nuse OSCAR::Gone;\n1;\n")
    (tree / "install_cluster").write_text("#!/bin/sh\n")
    Repository(tmp_path / "svn", tree, users=("somebody",))
    url, where = (tmp_path / "svn/oscar").as_uri() + "/trunk", tmp_path / "run"
    commit(url, tmp_path / "wc", lambda copy: print(run("svn", "remove", copy / "lib/OSCAR/Gone.pm")))
    done = lint("HEAD", "--url", url, "--run", where)
    assert done.exit_code in (ExitStatus.FAILED, ExitStatus.WARNING), done.output
    (new,) = Judgement.model_validate_json((where / "lint.json").read_bytes()).new
    assert (new.file, new.line, new.author) == ("lib/OSCAR/User.pm", 2, "somebody")


def test_the_demo_calls_it_good_when_the_first_tier_names_the_file_of_a_fault(tmp_path: Path) -> None:
    fault = Fault(title="a fault", stage=Stage.START_INSTALL, lint="src/cli/main_cli")
    mail = tmp_path / "1.eml"
    mail.write_text("Subject: x\n\nfailed\nsrc/cli/main_cli:15: perl: syntax error\n")
    said = Verdict(
        run_id="lint-r2-b1", cell="lint", source="", revision="2", outcome=Outcome.FAILED,
        sentence="src/cli/main_cli:15: perl: syntax error",
    )  # fmt: skip
    done = Finished(2, Build(1, "", True, 2), said, mail)
    assert complaints(done, fault) == []
    (other,) = complaints(replace(done, verdict=said.model_copy(update={"sentence": "VERSION: is missing"})), fault)
    assert "the first tier should have named src/cli/main_cli" in other
    (unseen,) = complaints(done, fault.model_copy(update={"lint": "", "words": ("perl",)}))[:1]
    assert "it should have failed at start-install, not at no stage" in unseen


def test_a_menu_that_the_answers_do_not_fit_is_not_blamed_on_the_commit(tmp_path: Path) -> None:
    tree = shutil.copytree(STANDIN / "tree", tmp_path / "tree", symlinks=True)
    menu = tree / "lib/OSCAR/CLI_MAC.pm"
    menu.write_text(menu.read_text().replace("8)  Build AutoInstall CD", "8)  Burn a disc"))
    done = lint("--tree", tree, "--run", tmp_path / "lint-r1-b1")
    assert "lib/OSCAR/CLI_MAC.pm:" in done.output
    assert "'Build AutoInstall CD'" in done.output
    verdict = Verdict.load(tmp_path / "lint-r1-b1")
    assert (verdict.outcome, verdict.category) == (Outcome.INFRASTRUCTURE, Category.ANSWERS)
    assert done.exit_code == ExitStatus.INFRASTRUCTURE


def test_the_report_as_json_is_one_value(broken: Path) -> None:
    done = lint("--tree", broken, "--json")
    report = json.loads(done.output)
    assert [problem["file"] for problem in report["problems"]] == ["src/cli/main_cli"]
    assert done.exit_code == ExitStatus.FAILED


@pytest.mark.parametrize(
    ("words", "status", "sentence"),
    [
        ([], ExitStatus.USAGE, "nothing to lint: give a REVISION"),
        (["5", "--tree", "."], ExitStatus.USAGE, "nothing to lint: give a REVISION"),
        (["--tree", "/nowhere"], ExitStatus.USAGE, "/nowhere: there is no such directory"),
        (["5", "--url", "nonsense"], ExitStatus.USAGE, "'nonsense' is not the URL of a Subversion or git repository"),
        (["5", "--url", "file:///nowhere"], ExitStatus.USAGE, "file:///nowhere"),
    ],
)
def test_a_mistake_in_what_was_asked_for_is_one_sentence(words: list[str], status: int, sentence: str) -> None:
    done = lint(*words)
    assert done.exit_code == status
    assert sentence in done.output
    assert "Traceback" not in done.output


def test_a_host_without_the_sandbox_blames_no_commit(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("shutil.which", lambda name: None if name == "bwrap" else name)
    run = tmp_path / "lint-r1-b1"
    done = lint("--tree", STANDIN / "tree", "--run", run)
    assert done.exit_code == ExitStatus.INFRASTRUCTURE
    assert "'bwrap' is missing on this host" in done.output
    verdict = Verdict.load(run)
    assert (verdict.outcome, verdict.category) == (Outcome.INFRASTRUCTURE, Category.HOST)


def test_a_call_of_what_a_commit_takes_away_is_told_once(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    (tree / "lib/OSCAR").mkdir(parents=True)
    module = "package OSCAR::Made;\nuse base 'Exporter';\nour @EXPORT = qw(make_it);\nsub make_it { return 1 }\n1;\n"
    (tree / "lib/OSCAR/Made.pm").write_text(module)
    (tree / "lib/OSCAR/User.pm").write_text("package OSCAR::User;\nuse OSCAR::Made;\nsub go { make_it(1) }\n1;\n")
    (tree / "install_cluster").write_text("#!/bin/sh\n")
    (tree / "install_cluster").chmod(0o755)
    Repository(tmp_path / "svn", tree, users=("somebody",))
    url = (tmp_path / "svn/oscar").as_uri() + "/trunk"

    def rename(copy: Path) -> None:
        (copy / "lib/OSCAR/Made.pm").write_text(module.replace("make_it", "make_them"))

    commit(url, tmp_path / "wc", rename)
    where = tmp_path / "runs/lint-r2-b2"
    lint("HEAD", "--url", url, "--run", where)
    said = Judgement.model_validate_json((where / "lint.json").read_bytes())
    assert [(new.file, new.line) for new in said.new if new.file.endswith("User.pm")] == [("lib/OSCAR/User.pm", 3)]


@pytest.mark.parametrize("mend", ["back", "edit"])
def test_what_a_commit_takes_away_stands_until_a_later_one_mends_it_and_the_author_hears(
    tmp_path: Path, mend: str
) -> None:
    tree = tmp_path / "tree"
    (tree / "lib/OSCAR").mkdir(parents=True)
    (tree / "lib/OSCAR/Gone.pm").write_text("package OSCAR::Gone;\n1;\n")
    (tree / "install_cluster").write_text("#!/usr/bin/perl\nuse OSCAR::Gone;\n")
    (tree / "install_cluster").chmod(0o755)
    Repository(tmp_path / "svn", tree, users=("somebody",))
    url, standing = (tmp_path / "svn/oscar").as_uri() + "/trunk", Standing()

    def judged(number: int, change: Callable[[Path], object]) -> tuple[str, ...]:
        commit(url, tmp_path / f"wc{number}", change)
        lint("HEAD", "--url", url, "--run", tmp_path / f"run{number}", "--cache", tmp_path / "cache")
        said = Judgement.model_validate_json((tmp_path / f"run{number}/lint.json").read_bytes())
        return take(standing, "trunk", said, now=1.0)

    def mended(copy: Path) -> None:
        if mend == "back":
            (copy / "lib/OSCAR/Gone.pm").write_text("package OSCAR::Gone;\n1;\n")
        else:
            (copy / "install_cluster").write_text("#!/usr/bin/perl\n")

    judged(2, lambda copy: run("svn", "remove", copy / "lib/OSCAR/Gone.pm"))
    judged(3, edit_readme)
    (entry,) = (each for each in standing.branches["trunk"].problems.values() if each.of_change)
    assert (entry.file, entry.author, entry.revision) == ("install_cluster", "somebody", 2)
    assert judged(4, mended) == ("somebody",)
    assert not any(each.of_change for each in standing.branches["trunk"].problems.values())


def test_long_problems_that_say_the_same_have_names_of_their_own() -> None:
    problems = tuple(Problem("scripts/a", line, "x" * 900, "it has to be there") for line in (3, 4))
    report = Report(problems, (), 1, 0.1)
    said = judgement_of(Looked(Source(url="u", revision="5"), None, report, Comparison(new=problems), None, 0.1))
    assert len({told.key for told in said.new}) == 2
