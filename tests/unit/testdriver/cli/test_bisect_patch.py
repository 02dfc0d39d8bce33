"""`oscar-testdriver bisect --patch FIX`: a second fault behind the first one. Each run exports its revision and patches
it; the tree says what the run's verdict is.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from oscar_steps.job import Job
from oscar_steps.sources.diffs import changes_of, rejection, script_of
from oscar_steps.testdriver.cli import bisect as module
from oscar_steps.testdriver.cli.main import cli
from oscar_steps.verdict import Category, InstallReport, Outcome, Stage, Verdict
from oscar_steps.words import ExitStatus

CELL = "debian-12-x86_64"
FIRST, SECOND = 4, 7
"""The revisions that bring the first fault, and the second one behind it."""
LAST = 9
FIX = """\
--- image
+++ image
@@ -1,2 +1,2 @@
 build
-broken
+mended
"""


def _run(*words: object) -> None:
    subprocess.run([str(word) for word in words], check=True, capture_output=True)


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> str:
    if not all(map(shutil.which, ("svn", "svnadmin", "patch"))):
        pytest.skip("no Subversion, or no patch")
    folder = tmp_path_factory.mktemp("svn")
    _run("svnadmin", "create", folder / "oscar")
    root = (folder / "oscar").as_uri()
    _run("svn", "mkdir", "-q", "--parents", "-m", "r1", f"{root}/trunk")
    copy = folder / "copy"
    _run("svn", "checkout", "-q", f"{root}/trunk", copy)
    for revision in range(2, LAST + 1):
        (copy / "image").write_text(f"build\n{'broken' if revision >= FIRST else 'whole'}\n")
        (copy / "nodes").write_text(f"{'panic' if revision >= SECOND else 'boot'}\n{revision}\n")
        _run("svn", "add", "-q", "--force", copy / "image", copy / "nodes")
        _run("svn", "commit", "-q", "-m", "more", "--username", f"dev{revision}", copy)
    return f"{root}/trunk"


class Trees:
    """Stands in for the driver: it gets each tree, patches it as a head node does, and looks what is in it."""

    def __init__(self) -> None:
        self.jobs = list[Job]()

    def __call__(self, directory: Path, job: Job, _images: Path) -> Verdict:
        self.jobs.append(job)
        directory.mkdir(parents=True)
        job.save(directory / "job.json")
        verdict = self.judged(directory / "tree", job)
        verdict.save(directory)
        return verdict

    def judged(self, tree: Path, job: Job) -> Verdict:
        _run("svn", "export", "-q", "-r", job.source.revision, job.source.url, tree)
        if (patch := job.source.patch) is not None:
            script = script_of(patch, changes_of(patch), str(tree))
            done = subprocess.run(["sh", "-s"], input=script, capture_output=True, check=False)
            if done.returncode:
                said = rejection(patch, changes_of(patch), done.returncode, done.stdout.decode()).sentence
                return self.verdict(job, said, Stage.CHECKOUT, Category.FARM, Outcome.INFRASTRUCTURE)
        if "broken" in (tree / "image").read_text():
            return self.verdict(job, "the image failed", Stage.START_INSTALL, oscar_stage="image")
        if "panic" in (tree / "nodes").read_text():
            past = (InstallReport(stage="image", result="passed"),)
            return self.verdict(job, "a node panicked", Stage.WAIT_NODES).model_copy(update={"installer": past})
        return self.verdict(job, "passed", None, Category.NONE, Outcome.PASSED)

    def verdict(
        self,
        job: Job,
        sentence: str,
        stage: Stage | None,
        category: Category = Category.OSCAR,
        outcome: Outcome = Outcome.FAILED,
        oscar_stage: str = "",
    ) -> Verdict:
        return Verdict(
            run_id=job.run_id,
            cell=job.cell,
            source=job.source.url,
            revision=job.source.revision,
            tested=job.source.without_text(),
            outcome=outcome,
            sentence=sentence,
            category=category,
            stage=stage,
            oscar_stage=oscar_stage,
        )


@pytest.fixture
def ask(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    def ask(trees: Trees, *words: str, fix: str = FIX) -> Result:
        (tmp_path / "fix.diff").write_text(fix)
        monkeypatch.setattr(module, "_execute", trees)
        monkeypatch.setattr(
            module, "new_id", lambda cell, source: f"{cell}-{source.short}-{id(trees)}-{len(trees.jobs)}"
        )
        arguments = ["bisect", "2", str(LAST), "--cell", CELL, "--url", url, "--runs", str(tmp_path / "runs"), *words]
        return CliRunner().invoke(cli, arguments)

    return ask


def test_without_the_fix_the_first_fault_is_found(ask: Callable[..., Result]) -> None:
    result = ask(Trees())
    assert f"r{FIRST} (dev{FIRST}) did it" in result.output


def test_with_the_fix_the_second_fault_is_found_and_older_trees_are_tested_as_they_are(
    ask: Callable[..., Result], tmp_path: Path
) -> None:
    trees = Trees()
    result = ask(trees, "--patch", str(tmp_path / "fix.diff"))
    assert result.exit_code == ExitStatus.PASSED, result.output
    assert f"r{SECOND} (dev{SECOND}) did it" in result.output
    assert "the image failed" not in result.output
    good = [job for job in trees.jobs if job.source.revision == "2"]
    assert [job.source.patch is None for job in good] == [False, True]
    assert "does not apply" in result.output and "it is tested as it is" in result.output
    # A search without the fix has runs of its own, and one with it goes on with its own.
    assert f"r{FIRST} (dev{FIRST}) did it" in ask(Trees()).output
    again = ask(Trees(), "--patch", str(tmp_path / "fix.diff"))
    assert f"{len(trees.jobs)} runs are there already" in again.output
    assert f"r{SECOND} (dev{SECOND}) did it" in again.output


def test_a_fault_behind_the_one_that_is_looked_for_is_reported_with_how_to_search_for_it(
    ask: Callable[..., Result],
) -> None:
    class OnceMended(Trees):
        """The third run gets past the image, and fails behind it."""

        def judged(self, tree: Path, job: Job) -> Verdict:
            if len(self.jobs) != 3:
                return super().judged(tree, job)
            past = (InstallReport(stage="image", result="passed"),)
            return self.verdict(job, "a node panicked", Stage.WAIT_NODES).model_copy(update={"installer": past})

    trees = OnceMended()
    result = ask(trees)
    assert f"another fault: {trees.jobs[2].source.short} failed at wait-nodes: a node panicked" in result.output
    assert "to search for it: --like " in result.output and trees.jobs[2].run_id in result.output


def test_a_fix_that_does_not_apply_to_the_bad_revision_ends_the_search_in_a_sentence(
    ask: Callable[..., Result], tmp_path: Path
) -> None:
    fix = FIX.replace("-broken", "-something else")
    for runs in (1, 0):
        trees = Trees()
        result = ask(trees, "--patch", str(tmp_path / "fix.diff"), fix=fix)
        assert result.exit_code == ExitStatus.USAGE
        assert "does not apply" in result.output and "make the patch against the bad revision" in result.output
        assert len(trees.jobs) == runs


def test_a_fix_behind_which_all_is_well_leaves_no_second_fault(ask: Callable[..., Result], tmp_path: Path) -> None:
    fix = FIX + "--- nodes\n+++ nodes\n@@ -1,2 +1,2 @@\n-panic\n+boot\n 9\n"
    result = ask(Trees(), "--patch", str(tmp_path / "fix.diff"), fix=fix)
    assert result.exit_code == ExitStatus.NOT_REACHED
    assert "it does not come back" in result.output
