"""A farm that watches a git repository: one of sixteen commits turns a cell red, and a developer tries a diff."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from demo.children import run
from demo.farm import Farm
from demo.mailsink import body_of
from tests.farm.support import FAKE_DRIVER, eventually, nothing_to_install
from tests.farm.test_bisect import FAILURE, SUCCESS, builds, ended, mails
from tests.farm.test_master_with_fake_driver import play
from tests.unit.git_server import Repository, served

COMMITS = 16
BRANCH = "git/oscar/main"
AUTHORS = ("Ada Byron <ada@example.org>", "Grace <grace@example.org>")

pytestmark = [pytest.mark.farm, pytest.mark.timeout(600)]


class GitFarm(Farm):
    """Watches a git repository beside Subversion's, and waits until a branch is quiet."""

    search = True
    try_users = ("developer",)

    def __init__(self, directory: Path, url: str) -> None:
        self.git_url = url
        super().__init__(directory, driver=[sys.executable, str(FAKE_DRIVER)])

    def _site(self, web_port: int, master_port: int) -> str:
        git = f'[[git]]\nname = "oscar"\nurl = {json.dumps(self.git_url)}\npoll = 1\n'
        return super()._site(web_port, master_port).replace("tree_stable = 0", "tree_stable = 8") + git


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Repository:
    made = Repository(tmp_path_factory.mktemp("git") / "oscar.git")
    made.commit({"install_cluster": b"#!/bin/sh\n", "README": b"1\n"})
    return made


@pytest.fixture(scope="module")
def farm(repository: Repository, tmp_path_factory: pytest.TempPathFactory) -> Iterator[GitFarm]:
    with (
        served(repository) as url,
        nothing_to_install(tmp_path_factory.mktemp("standin")),
        GitFarm(tmp_path_factory.mktemp("farm") / "f", url) as farm,
    ):
        copy = farm.directory / "master/git-oscar.git/HEAD"
        eventually(copy.exists, 60)
        play(farm, "pass")
        yield farm


def test_the_one_of_sixteen_commits_that_turned_the_cell_red_is_found(farm: GitFarm, repository: Repository) -> None:
    repository.commit({"README": b"2\n"}, author=AUTHORS[0])
    assert ended(farm, 1)["results"] == SUCCESS
    chain = [repository.commit({"README": b"%d\n" % n}, author=AUTHORS[n % 2]) for n in range(10, 10 + COMMITS)]
    culprit = 10
    play(farm, "by-revision", fail=chain[culprit:], infrastructure=[])
    assert ended(farm, 2)["results"] == FAILURE
    [mail] = eventually(lambda: mails(farm, "broke it"), 240)
    assert f"{chain[culprit][:12]} (Ada Byron) broke it" in " ".join(str(mail["Subject"]).split())
    assert "ada@example.org" in str(mail["To"]) and "grace" not in str(mail["To"])
    said = body_of(mail)
    assert f"{chain[culprit][:12]} (Ada Byron) did it" in said
    assert f"g{chain[culprit - 1][:12]} passed" in said and f"g{chain[culprit][:12]} failed" in said
    assert len(builds(farm)[2:]) <= 2 + 4 + 1
    page = httpx.get(f"{farm.master.base}plugins/standing/", trust_env=False, timeout=60).text
    assert f"<h2>{BRANCH}</h2>\n<p>{chain[-1][:12]}: no problem</p>" in page


def buildbot_try(farm: GitFarm, place: Path, *words: str) -> subprocess.CompletedProcess[str]:
    buildbot = [str(Path(sys.executable).parent / "buildbot"), "try", "--connect=pb", "--wait", "--username=developer"]
    words = (f"--master=127.0.0.1:{farm.try_port}", "--passwd=only-on-loopback", *words)
    command = [*buildbot, *words, *([f"--diff={place}"] if place.is_file() else [])]
    cwd = place.parent if place.is_file() else place
    return subprocess.run(command, capture_output=True, text=True, timeout=180, check=False, cwd=cwd)


def test_a_diff_against_a_commit_of_git_is_tried_and_only_its_developer_hears_of_it(
    farm: GitFarm, repository: Repository, tmp_path: Path
) -> None:
    play(farm, "pass")
    diff = tmp_path / "mine.diff"
    base = repository.tip("main")
    diff.write_text("diff --git a/README b/README\n--- a/README\n+++ b/README\n@@ -1 +1 @@\n-25\n+mine\n")
    tried = buildbot_try(farm, diff, f"--branch={BRANCH}", f"--baserev={base[:10]}", f"--builder={farm.cell}")
    assert tried.returncode == 0, tried.stdout + tried.stderr
    [mail] = eventually(lambda: mails(farm, "your patch"), 60)
    assert str(mail["To"]) == "developer@oscar.test"
    assert f"g{base[:12]}.p" in str(mail["Subject"])
    assert f"commit {base}" in body_of(mail)


@pytest.mark.parametrize("words", [("--branch=origin/main",), ()], ids=["remote-branch", "own-branch"])
def test_what_is_changed_in_a_clone_is_tried_as_it_is(
    farm: GitFarm, repository: Repository, tmp_path: Path, words: tuple[str, ...]
) -> None:
    clone, base = tmp_path / "clone", repository.tip("main")
    run("git", "clone", "--quiet", repository.path, clone)
    (clone / "README").write_text("mine\n")
    before = len(mails(farm, "your patch"))
    tried = buildbot_try(farm, clone, "--vc=git", f"--builder={farm.cell}", *words)
    assert tried.returncode == 0, tried.stdout + tried.stderr
    mail = eventually(lambda: mails(farm, "your patch")[before:], 60)[0]
    assert f"g{base[:12]}.p" in str(mail["Subject"])
    assert BRANCH in body_of(mail)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((f"--branch={BRANCH}", "--baserev=-x"), f"'-x' is no revision of {BRANCH}; give --baserev with a commit's id"),
        ((f"--branch={BRANCH}", f"--baserev={'0' * 40}"), f"has no branch, tag or commit '{'0' * 40}'"),
        (("--branch=git/none/main", "--baserev=main"), "farm.toml has no repository for the branch 'git/none/main'"),
    ],
    ids=["no-revision", "no-commit", "no-repository"],
)
def test_what_a_diff_is_made_for_has_to_be_there(
    farm: GitFarm, tmp_path: Path, words: tuple[str, ...], said: str
) -> None:
    diff = tmp_path / "mine.diff"
    diff.write_text("diff --git a/README b/README\n--- a/README\n+++ b/README\n@@ -1 +1 @@\n-25\n+mine\n")
    before = len(mails(farm, "your patch"))
    assert buildbot_try(farm, diff, *words).returncode == 1
    mail = eventually(lambda: mails(farm, "your patch")[before:], 60)[0]
    assert said in " ".join(body_of(mail).split())
