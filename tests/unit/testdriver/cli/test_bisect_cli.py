"""`oscar-testdriver bisect` and `compare`, with runs that need no machine."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from oscar_steps.job import Job
from oscar_steps.sources import resolve
from oscar_steps.sources.resolve import exact, source_as_asked
from oscar_steps.testdriver.cli import bisect as module
from oscar_steps.testdriver.cli import bisecting
from oscar_steps.testdriver.cli.main import cli
from oscar_steps.verdict import Category, ImageReport, Outcome, Stage, Verdict
from oscar_steps.words import ExitStatus
from tests.unit.git_server import Repository
from tests.unit.images.test_upgrade import stored
from tests.unit.svn_server import Repository as SubversionRepository

CELL = "debian-12-x86_64"
COMMITS = 8
GOOD, BROKEN = (Outcome.PASSED, "passed"), (Outcome.FAILED, "the image failed: no such package")


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A repository whose trunk has r2 to r9 on it, after r1."""
    folder = tmp_path_factory.mktemp("svn")
    for program in ("svn", "svnadmin"):
        if shutil.which(program) is None:
            pytest.skip(f"no {program}")
    _run("svnadmin", "create", folder / "oscar")
    root = (folder / "oscar").as_uri()
    tree = folder / "tree"
    tree.mkdir()
    (tree / "install_cluster").write_text("1")
    _run("svn", "import", "-q", "-m", "r1", tree, f"{root}/trunk")
    _run("svn", "checkout", "-q", f"{root}/trunk", folder / "copy")
    for number in range(COMMITS):
        (folder / "copy" / "install_cluster").write_text(f"{number}\n")
        _run("svn", "commit", "-q", "-m", "more", "--username", f"dev{number}", folder / "copy")
    return f"{root}/trunk"


def _run(*words: object) -> None:
    subprocess.run([str(word) for word in words], check=True, capture_output=True)


@pytest.fixture(scope="module")
def git(tmp_path_factory: pytest.TempPathFactory) -> Repository:
    """A git repository with sixteen commits after the first one; what a merge brings comes from a side branch."""
    made = Repository(tmp_path_factory.mktemp("git") / "oscar")
    made.commit({"install_cluster": b"0"})
    for number in range(1, 17):
        start = made.tip("main")
        side = (made.commit({"side": b"%d" % number}, branch="side", parents=(start,)),) if number == 9 else ()
        author = f"dev{number} <dev{number}@example.org>"
        made.commit({"install_cluster": b"%d" % number}, author=author, parents=(start, *side))
    return made


class Runs:
    """Stands in for the driver: what each revision's run says, and which were run."""

    def __init__(self, outcome: Callable[[int], tuple[Outcome, str]]) -> None:
        self.outcome = outcome
        self.number: Callable[[str], int] = int
        self.jobs = list[Job]()

    def __call__(self, directory: Path, job: Job, images: Path) -> Verdict:
        assert images
        self.jobs.append(job)
        outcome, sentence = self.outcome(self.number(job.source.revision))
        red = outcome is Outcome.FAILED
        verdict = Verdict(
            run_id=job.run_id,
            cell=job.cell,
            source=job.source.url,
            revision=job.source.revision,
            tested=job.source,
            outcome=outcome,
            sentence=sentence,
            category=Category.OSCAR if red else Category.NONE,
            stage=Stage.START_INSTALL if red else None,
            image=ImageReport(key="ab" * 32),
            image_failed=outcome is Outcome.INFRASTRUCTURE,
            seconds=60,
        )
        directory.mkdir(parents=True)
        job.save(directory / "job.json")
        verdict.save(directory)
        return verdict

    @property
    def revisions(self) -> list[int]:
        return [self.number(job.source.revision) for job in self.jobs]


def broken_since(culprit: int) -> Callable[[int], tuple[Outcome, str]]:
    return lambda revision: BROKEN if revision >= culprit else GOOD


@pytest.fixture
def ask(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    def ask(runs: Runs, *words: str) -> Result:
        monkeypatch.setattr(module, "_execute", runs)
        monkeypatch.setattr(module, "new_id", lambda cell, source: f"{cell}-{source.short}-{id(runs)}-{len(runs.jobs)}")
        arguments = words or ("bisect", "1", "9", "--cell", CELL, "--url", url)
        folders = ("--runs", str(tmp_path / "runs"))
        return CliRunner().invoke(cli, [*arguments, *folders])

    return ask


def test_the_commit_that_broke_it_is_found_and_the_two_runs_are_shown(ask: Callable[..., Result]) -> None:
    runs = Runs(broken_since(6))
    result = ask(runs)
    assert result.exit_code == ExitStatus.PASSED, result.output
    assert runs.revisions[:2] == [9, 1]
    assert len(runs.revisions) == 5
    assert "r6 (dev4) did it" in result.output
    assert "r5 passed" in result.output and "r6 failed at start-install: the image failed" in result.output


def test_the_commit_of_a_git_repository_that_broke_it_is_found_among_sixteen(
    ask: Callable[..., Result], git: Repository
) -> None:
    chain = git.git("rev-list", "--first-parent", "--reverse", "main").split()
    runs = Runs(broken_since(9))
    runs.number = chain.index
    result = ask(runs, "bisect", chain[0][:12], "main", "--cell", CELL, "--git", "--url", git.url)
    assert result.exit_code == ExitStatus.PASSED, result.output
    assert runs.revisions[:2] == [16, 0]
    assert len(runs.revisions) == 6
    assert f"{chain[9][:12]} (dev9) did it" in result.output
    assert f"g{chain[8][:12]} passed" in result.output
    assert all(job.source.kind == "git" and job.run_id.startswith(f"{CELL}-g") for job in runs.jobs)


@pytest.mark.parametrize(("good", "bad"), [("main", "{0}"), ("{16}", "main"), ("side", "main")])
def test_of_git_the_good_commit_has_to_be_earlier_on_the_same_branch(
    ask: Callable[..., Result], git: Repository, good: str, bad: str
) -> None:
    chain = git.git("rev-list", "--first-parent", "--reverse", "main").split()
    runs = Runs(broken_since(9))
    ends = [word.format(*chain) for word in (good, bad)]
    result = ask(runs, "bisect", *ends, "--cell", CELL, "--git", "--url", git.url)
    assert result.exit_code == ExitStatus.USAGE
    assert "on its branch (first parents)" in result.output
    assert runs.jobs == []


def test_all_runs_have_the_first_ones_image(ask: Callable[..., Result]) -> None:
    runs = Runs(broken_since(6))
    ask(runs)
    assert [job.image_key for job in runs.jobs] == ["", *["ab" * 32] * 4]


@pytest.fixture
def tree(tmp_path: Path) -> SubversionRepository:
    """Trunk r2 to r9, of which r4 brings one external and r6 another one; what they are changes with r5."""
    made = SubversionRepository(tmp_path / "oscar")
    made.put({"trunk/install_cluster": "1\n", "common/one/f": "1\n", "common/two/f": "1\n"})
    for number in range(2, 10):
        made.put({"trunk/install_cluster": f"{number}\n"} | ({"common/one/f": "5\n"} if number == 5 else {}))
        if number in (3, 5):
            made.externals("trunk", "^/common/one one\n" + ("-r1 ^/common/two two\n" if number == 5 else ""))
    return made


def test_each_run_has_the_exact_externals_of_its_revision(
    ask: Callable[..., Result], tree: SubversionRepository
) -> None:
    runs, url = Runs(broken_since(6)), f"{tree.place.as_uri()}/trunk"
    result = ask(runs, "bisect", "2", "9", "--cell", CELL, "--url", url)
    assert "r6 (" in result.output and "did it" in result.output, result.output
    assert "the externals: + two from" in result.output
    for job in runs.jobs:
        assert job.source.externals == exact(source_as_asked(url, job.source.revision), tree.place).externals


def test_the_externals_of_all_runs_cost_one_reading_of_a_tree_that_has_the_same(
    ask: Callable[..., Result], tree: SubversionRepository, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, real = list[list[str]](), resolve.run_svn
    monkeypatch.setattr(resolve, "run_svn", lambda words, *more: [asked.append(words), real(words, *more)][1])
    runs, url = Runs(broken_since(8)), f"{tree.place.as_uri()}/trunk"
    ask(runs, "bisect", "6", "9", "--cell", CELL, "--url", url)
    assert len(runs.jobs) == 4
    assert len([words for words in asked if "propget" in words and f"{url}@" in words[-1]]) == 1


def test_a_revision_whose_externals_nobody_can_check_out_is_not_tested_and_its_neighbours_are(
    ask: Callable[..., Result], tree: SubversionRepository
) -> None:
    tree.externals("trunk", "^/nowhere two")
    tree.commit()
    tree.externals("trunk", "^/common/two two")
    for number in range(11, 14):
        tree.put({"trunk/install_cluster": f"{number}\n"})
    runs = Runs(broken_since(12))
    words = ("bisect", "8", "12", "--cell", CELL, "--url", f"{tree.place.as_uri()}/trunk")
    result = ask(runs, *words)
    assert "not tested: svn:externals of" in result.output, result.output
    assert "r12 (" in result.output and "did it" in result.output
    assert "10" not in [job.source.revision for job in runs.jobs]


def test_a_search_goes_on_with_the_externals_that_it_began_with(
    ask: Callable[..., Result], tree: SubversionRepository
) -> None:
    first, second = Runs(broken_since(6)), Runs(broken_since(6))
    words = ("bisect", "2", "9", "--cell", CELL, "--url", f"{tree.place.as_uri()}/trunk")
    ask(first, *words)
    tree.put({"common/one/f": "later\n"})
    result = ask(second, *words)
    assert f"{len(first.jobs)} runs are there already" in result.output
    assert second.jobs == []


def test_runs_without_the_externals_that_their_revision_has_do_not_count(
    ask: Callable[..., Result], tree: SubversionRepository, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ("bisect", "2", "9", "--cell", CELL, "--url", f"{tree.place.as_uri()}/trunk")
    monkeypatch.setattr(bisecting, "externals_at", lambda *_: ())
    first, second = Runs(broken_since(6)), Runs(broken_since(6))
    ask(first, *words)
    monkeypatch.undo()
    result = ask(second, *words)
    assert "1 runs are there already" in result.output
    assert len(second.jobs) == len(first.jobs) - 1


def test_a_search_that_was_ended_goes_on_where_it_stopped(ask: Callable[..., Result]) -> None:
    def until_the_third(revision: int) -> tuple[Outcome, str]:
        return (Outcome.CANCELLED, "Ctrl-C") if len(first.jobs) == 3 else broken_since(6)(revision)

    first, second = Runs(until_the_third), Runs(broken_since(6))
    stopped = ask(first)
    assert stopped.exit_code == ExitStatus.CANCELLED
    assert "goes on from here" in stopped.output
    result = ask(second)
    assert "2 runs are there already" in result.output
    assert "r6 (dev4) did it" in result.output
    assert len(second.jobs) == 3


def test_another_failure_is_not_the_one_that_is_looked_for(ask: Callable[..., Result]) -> None:
    def tell(revision: int) -> tuple[Outcome, str]:
        return (Outcome.FAILED, "it does not compile") if revision == 5 else broken_since(7)(revision)

    result = ask(Runs(tell))
    assert "r7 (dev5) did it" in result.output
    assert "fails otherwise" in result.output


def test_a_fault_that_does_not_come_back_ends_without_a_culprit(ask: Callable[..., Result]) -> None:
    result = ask(Runs(broken_since(99)))
    assert result.exit_code == ExitStatus.NOT_REACHED
    assert "it does not come back" in result.output


@pytest.mark.parametrize(("good", "bad", "said"), [("9", "1", "r9 is not before r1"), ("1", "77", "No such revision")])
def test_a_range_that_cannot_be_searched_is_refused_in_a_sentence(
    ask: Callable[..., Result], url: str, good: str, bad: str, said: str
) -> None:
    result = ask(Runs(broken_since(6)), "bisect", good, bad, "--cell", CELL, "--url", url)
    assert result.exit_code == ExitStatus.USAGE
    assert said in result.output


def test_compare_says_that_there_is_no_such_run(ask: Callable[..., Result]) -> None:
    result = ask(Runs(broken_since(6)), "compare", "nothing", "none")
    assert result.exit_code == ExitStatus.USAGE
    assert "there is no run 'nothing'" in result.output


class ImageRuns(Runs):
    """What the run of each image says, by the packages that were brought to other versions."""

    def __init__(self, outcome: Callable[[Job], tuple[Outcome, str]]) -> None:
        super().__init__(lambda _: outcome(self.jobs[-1]))


def two_images(store: Path) -> tuple[str, str]:
    old = stored(store, index="1", listed="".join(f"{name} 1.{n} all\n" for n, name in enumerate("abcd")))
    return old, stored(store, index="2", listed="".join(f"{name} 2.{n} all\n" for n, name in enumerate("abcd")))


def test_the_package_that_broke_it_is_found_on_images_with_more_and_more_of_them(
    ask: Callable[..., Result], url: str, tmp_path: Path
) -> None:
    old, new = two_images(tmp_path / "store")
    runs = ImageRuns(lambda job: BROKEN if job.image_key == new or "c" in job.image_versions else GOOD)
    words = ("bisect-packages", old, new, "--cell", CELL, "--url", url, "--revision", "3")
    result = ask(runs, *words, "--images", str(tmp_path / "store"))
    assert result.exit_code == ExitStatus.PASSED, result.output
    assert "c 1.2 -> 2.2 did it" in result.output
    assert runs.jobs[1].image_key == old and runs.jobs[1].image_versions == {}
    assert {"a": "2.0", "b": "2.1", "c": "2.2"} in [job.image_versions for job in runs.jobs]
    again = ask(ImageRuns(lambda _: GOOD), *words, "--images", str(tmp_path / "store"))
    assert f"{len(runs.jobs)} runs are there already" in again.output
    assert "c 1.2 -> 2.2 did it" in again.output


def test_an_image_that_cannot_be_made_is_left_out(ask: Callable[..., Result], url: str, tmp_path: Path) -> None:
    old, new = two_images(tmp_path / "store")

    def tell(job: Job) -> tuple[Outcome, str]:
        if len(job.image_versions) == 2:
            return Outcome.INFRASTRUCTURE, "the mirror has no b 2.1"
        return BROKEN if job.image_key == new or "c" in job.image_versions else GOOD

    words = ("bisect-packages", old, new, "--cell", CELL, "--url", url, "--revision", "3")
    result = ask(ImageRuns(tell), *words, "--images", str(tmp_path / "store"))
    assert result.exit_code == ExitStatus.NOT_REACHED
    assert "cannot be told between b 1.1 -> 2.1 and c 1.2 -> 2.2" in " ".join(result.output.split())
