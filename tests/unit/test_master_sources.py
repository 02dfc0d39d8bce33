"""Changes: the right branch for every path, no neighbour's commits, none lost."""

from __future__ import annotations

import subprocess
import tempfile
from pathlib import Path
from typing import Any

import pytest
from buildbot.changes.filter import ChangeFilter
from twisted.internet import defer, reactor
from twisted.trial import unittest

from oscar_steps.errors import HostError, SourceError
from oscar_steps.master.schedulers import WatchedBranch
from oscar_steps.master.sources import BranchSplitter, FarmPoller, exact_revision
from oscar_steps.site import Repository, Schedule

REPOSITORY = Repository(url="svn://127.0.0.1/oscar")


@pytest.mark.parametrize(
    ("path", "branch", "file"),
    [
        ("trunk/lib/OSCAR/Env.pm", "trunk", "lib/OSCAR/Env.pm"),
        ("trunk/", "trunk", ""),
        ("branches/5.1.x/VERSION", "branches/5.1.x", "VERSION"),
        ("branches/5.1.x/", "branches/5.1.x", ""),
        ("tags/rel-5.0/install_cluster", "tags/rel-5.0", "install_cluster"),
    ],
)
def test_a_path_names_its_branch(path: str, branch: str, file: str) -> None:
    assert BranchSplitter(REPOSITORY)(path) == {"project": "oscar", "branch": branch, "path": file}


@pytest.mark.parametrize("path", ["README", "branches/", "branches/file", "trunks/x", "wiki/trunk/x", ""])
def test_what_is_on_no_branch_is_not_ours(path: str) -> None:
    assert BranchSplitter(REPOSITORY)(path) is None


def test_a_neighbour_with_a_longer_name_is_not_ours() -> None:
    poller = FarmPoller("svn://h/svn/oscar", name="svn", split_file=BranchSplitter(REPOSITORY))
    poller.split_file = BranchSplitter(REPOSITORY)
    poller._prefix = "oscar"
    assert poller._transform_path("oscar-website/trunk/x") is None
    assert poller._transform_path("oscar/trunk/x") == {"project": "oscar", "branch": "trunk", "path": "x"}


def test_only_commits_on_watched_branches_are_tested() -> None:
    watched = WatchedBranch(Schedule())
    assert [watched(branch) for branch in ("trunk", "branches/5.1", "tags/5.0", None)] == [True, True, False, False]
    assert ChangeFilter(branch_fn=watched) == ChangeFilter(branch_fn=WatchedBranch(Schedule()))


class FakeUpdates:
    """Stores changes; fails once for a revision."""

    def __init__(self, fails_at: str) -> None:
        self.fails_at = fails_at
        self.stored: list[str] = []

    async def addChange(self, *, revision: str, **_more: Any) -> None:
        if revision == self.fails_at:
            self.fails_at = ""
            raise OSError("the database is locked")
        self.stored.append(revision)


class Fake:
    """Attributes and nothing else."""

    def __init__(self, **attributes: Any) -> None:
        vars(self).update(attributes)


def run(*words: str | Path) -> None:
    subprocess.run([str(word) for word in words], check=True, capture_output=True)


class Alone(FarmPoller):
    """A poller without a master's service tree."""

    master: Any = None


class WithRepository(unittest.TestCase):
    """Against a real repository, by file."""

    def setUp(self) -> None:
        # Not trial's own mktemp: it writes into the current directory.
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.path = Path(folder.name) / "repository"
        run("svnadmin", "create", self.path)
        self.url = self.path.as_uri()
        self.commit("trunk")

    def commit(self, folder: str) -> None:
        run("svn", "mkdir", "--quiet", "--username", "eric", "-m", f"add {folder}", f"{self.url}/{folder}")

    def poller(self, updates: FakeUpdates) -> FarmPoller:
        poller = Alone(self.url, name="svn")
        poller.master = Fake(reactor=reactor, data=Fake(updates=updates))
        poller.repourl, poller.split_file = self.url, BranchSplitter(REPOSITORY)
        poller.svnbin, poller.histmax, poller.environ = "svn", 10, None
        poller.svnuser = poller.svnpasswd = poller.extra_args = poller.cachepath = None
        poller.project, poller.revlinktmpl, poller.category = "oscar", "", None
        return poller

    @defer.inlineCallbacks
    def test_more_revisions_than_the_history_holds_are_all_seen(self) -> Any:
        updates = FakeUpdates("")
        poller = self.poller(updates)
        yield poller.poll()
        assert updates.stored == []
        for number in range(13):
            self.commit(f"trunk/d{number}")
        yield poller.poll()
        assert updates.stored == [str(number) for number in range(2, 15)]

    @defer.inlineCallbacks
    def test_a_change_that_could_not_be_stored_is_asked_for_again(self) -> Any:
        updates = FakeUpdates("3")
        poller = self.poller(updates)
        yield poller.poll()
        for number in range(3):
            self.commit(f"trunk/d{number}")
        yield poller.poll()
        self.flushLoggedErrors(OSError)
        assert updates.stored == ["2"]
        yield poller.poll()
        assert updates.stored == ["2", "3", "4"]

    async def test_the_last_revision_of_a_branch_is_the_one_that_changed_it(self) -> None:
        self.commit("branches")
        assert await exact_revision(reactor, f"{self.url}/trunk", None) == "1"
        assert await exact_revision(reactor, f"{self.url}/trunk", "2") == "2"

    async def test_a_revision_or_branch_that_does_not_exist_is_the_askers_mistake(self) -> None:
        for url, revision in ((f"{self.url}/trunk", "99"), (f"{self.url}/nowhere", None)):
            try:
                await exact_revision(reactor, url, revision)
            except SourceError as error:
                assert "there is no " in str(error)
                assert url in str(error)
            else:
                self.fail("it was found")

    async def test_a_repository_that_does_not_answer_is_nobodys_commit(self) -> None:
        try:
            await exact_revision(reactor, "svn://127.0.0.1:9/oscar/trunk", None)
        except HostError as error:
            assert "svn://127.0.0.1:9/oscar/trunk does not answer" in str(error)
        else:
            self.fail("it answered")
