"""`oscar-testdriver lint` as a person and as a Buildbot step call it."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from demo.faults import Fault
from demo.judge import Finished, complaints
from demo.repository import Repository, apply_patch
from demo.rest import Build
from oscar_steps.testdriver.cli import cli
from oscar_steps.verdict import Category, ExitStatus, Outcome, Stage, Verdict

STANDIN = Path(__file__).parents[1] / "oscar_standin"

pytestmark = pytest.mark.skipif(shutil.which("bwrap") is None, reason="bubblewrap is missing")


def lint(*words: str | Path) -> Result:
    return CliRunner().invoke(cli, ["lint", *map(str, words)])


@pytest.fixture
def broken(tmp_path: Path) -> Path:
    tree = shutil.copytree(STANDIN / "tree", tmp_path / "tree", symlinks=True)
    apply_patch(STANDIN / "faults/main-cli-does-not-compile.patch")(tree)
    return tree


def test_a_good_tree_ends_with_0_and_one_line() -> None:
    done = lint("--tree", STANDIN / "tree")
    assert done.exit_code == ExitStatus.PASSED
    assert done.output.startswith("lint: no problem in ")
    assert done.output.count("\n") == 1


def test_a_revision_is_exported_with_its_execute_bits_and_its_problems_become_a_verdict(
    broken: Path, tmp_path: Path
) -> None:
    Repository(tmp_path / "svn", broken, users=("somebody",))
    url, run = (tmp_path / "svn/oscar").as_uri() + "/trunk", tmp_path / "runs" / "lint-r1-b7"
    done = lint("HEAD", "--url", url, "--run", run)
    assert done.exit_code == ExitStatus.FAILED
    first, *_ = done.output.splitlines()
    assert first.startswith("src/cli/main_cli:15: perl: syntax error")
    verdict = Verdict.load(run)
    assert (verdict.outcome, verdict.category, verdict.cell) == (Outcome.FAILED, Category.OSCAR, "lint")
    assert (verdict.run_id, verdict.revision, verdict.sentence) == ("lint-r1-b7", "1", first)
    (evidence,) = verdict.evidence
    assert (run / evidence.file).read_text().splitlines()[evidence.first_line - 1] == evidence.lines[0]


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
        ([], ExitStatus.USAGE, "what is to be looked at?"),
        (["5", "--tree", "."], ExitStatus.USAGE, "what is to be looked at?"),
        (["--tree", "/nowhere"], ExitStatus.USAGE, "/nowhere: there is no such directory"),
        (["5", "--url", "nonsense"], ExitStatus.USAGE, "'nonsense' is not the URL of a Subversion repository"),
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
