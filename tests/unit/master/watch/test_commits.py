"""What a commit did to which branch, and which commits start no test."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from oscar_steps.addresses import address_fault
from oscar_steps.master.schedules.commit import first_tier
from oscar_steps.master.watch.commits import Commit, Touched, commits_of, starts_tests
from oscar_steps.master.watch.svn import BranchSplitter
from oscar_steps.site import Site
from oscar_steps.sources.svn import NOBODY
from oscar_steps.sources.svn_xml import log_entries
from tests.unit.master.watch.support import REPOSITORY, AtRepository, FakeUpdates, run


class NothingThatIsInstalled(AtRepository):
    """Commits that no test could tell from the one before."""

    async def category_of(self, change: Callable[[Path], None], branch: str = "trunk") -> str | None:
        """The category of the change that a commit in a fresh working copy becomes."""
        updates = FakeUpdates("")
        poller = await self.looking(updates)
        await poller.poll()
        with tempfile.TemporaryDirectory() as folder:
            copy = Path(folder) / "copy"
            run("svn", "checkout", "--quiet", f"{self.url}/{quote(branch)}@", copy)
            change(copy)
            run("svn", "add", "--quiet", "--force", copy)
            run("svn", "commit", "--quiet", "--username", "eric", "-m", "a change", copy)
        await poller.poll()
        assert len(updates.changes) == 1
        category: str | None = updates.changes[0]["category"]
        return category

    def setUp(self) -> None:
        super().setUp()
        with tempfile.TemporaryDirectory() as folder:
            copy = Path(folder)
            run("svn", "checkout", "--quiet", f"{self.url}/trunk", copy)
            (copy / "doc").mkdir()
            for name in ("ChangeLog", "install_cluster", "doc/manual.tex"):
                (copy / name).write_text("one\n")
            run("svn", "add", "--quiet", "--force", copy)
            run("svn", "commit", "--quiet", "-m", "a tree", copy)

    async def test_a_commit_to_what_nobody_installs_starts_no_test_and_says_so(self) -> None:
        def write(*names: str) -> Callable[[Path], None]:
            def change(copy: Path) -> None:
                for name in names:
                    (copy / name).write_text(f"two {names}\n")

            return change

        said = await self.category_of(write("ChangeLog"))
        assert said == "not tested: only ChangeLog, nothing that is installed"
        said = await self.category_of(write("ChangeLog", "doc/manual.tex", "doc/new file@1%41.tex"))
        assert said == "not tested: only ChangeLog, doc/*, nothing that is installed"
        assert starts_tests(said) is False
        for names in (("install_cluster",), ("doc/manual.tex", "install_cluster"), ("doc.sh",), ("lib-ChangeLog",)):
            assert starts_tests(await self.category_of(write(*names))), names

    async def test_a_file_that_is_removed_may_be_missed_by_an_installer(self) -> None:
        assert starts_tests(await self.category_of(lambda copy: run("svn", "rm", "--quiet", copy / "doc/manual.tex")))

    async def test_only_properties_that_change_no_file_start_no_test(self) -> None:
        def put(name: str, value: str, *paths: str) -> Callable[[Path], None]:
            def change(copy: Path) -> None:
                for path in paths:
                    run("svn", "propset", "-q", name, value, copy / path)

            return change

        said = await self.category_of(put("svn:mergeinfo", "/branches/x:1", "."))
        assert said == "not tested: only the properties svn:mergeinfo, nothing that is installed"
        hostile = "*.o\nAdded: svn:executable\nModified: x"
        assert not starts_tests(await self.category_of(put("svn:ignore", hostile, ".", "doc")))
        for name in ("svn:executable", "svn:externals", "svn:keywords", "colour"):
            value = "^/trunk/doc there" if name == "svn:externals" else "Id"
            paths = (".",) if name == "svn:externals" else ("install_cluster",)
            assert starts_tests(await self.category_of(put(name, value, *paths))), name

        def both(copy: Path) -> None:
            put("svn:ignore", "*.a", ".")(copy)
            put("colour", "red", "doc")(copy)

        assert starts_tests(await self.category_of(both))

    async def test_a_branch_with_a_strange_name_is_asked_for_its_properties_too(self) -> None:
        self.commit("branches")
        branch = "branches/5 1@2%41caf\u00e9"
        run("svn", "copy", "--quiet", "-m", "branch", f"{self.url}/trunk", f"{self.url}/{quote(branch)}@")
        said = await self.category_of(
            lambda copy: run("svn", "propset", "-q", "svn:mergeinfo", "/trunk:1-2", copy), branch
        )
        assert said == "not tested: only the properties svn:mergeinfo, nothing that is installed"

    async def test_a_site_that_skips_nothing_tests_every_commit(self) -> None:
        poller = await self.looking(FakeUpdates(""))
        poller.skip = ()
        commit = Commit("2", "eric", "", "trunk", [Touched("ChangeLog", "M")])
        assert await poller._category(commit) is None


def entry(paths: str, author: str = "<author>eric</author>") -> Any:
    text = f'<log><logentry revision="7">{author}<paths>{paths}</paths><msg>m</msg></logentry></log>'
    return log_entries(text.encode(), "")[0]


def split(path: str) -> dict[str, str] | None:
    return BranchSplitter(REPOSITORY)(path)


@pytest.mark.parametrize(
    ("paths", "branches"),
    [
        # svn mv of a branch: the old one is gone, the new one is tested.
        (
            '<path action="D" kind="dir">/branches/a</path><path action="A" kind="dir" copyfrom-path="/branches/a" '
            'copyfrom-rev="6">/branches/b</path>',
            ["branches/b"],
        ),
        ('<path action="D" kind="dir">/branches/a</path>', []),
        ('<path action="R" kind="dir" copyfrom-path="/trunk" copyfrom-rev="1">/branches/a</path>', ["branches/a"]),
        # Servers before 1.6 do not say what is a folder.
        ('<path action="A" copyfrom-path="/trunk" copyfrom-rev="1">/branches/a</path>', ["branches/a"]),
        ('<path action="D" kind="">/branches/a</path>', []),
        ('<path action="M" kind="file">/branches/README</path>', []),
        ('<path action="M" kind="file">/tmp/x/trunk/y</path>', []),
        (
            '<path action="M" kind="file">/trunk/a</path><path action="M" kind="file">/branches/b/a</path>',
            ["trunk", "branches/b"],
        ),
        ("", []),
    ],
)
def test_each_branch_that_a_commit_leaves_changed_is_a_change(paths: str, branches: list[str]) -> None:
    assert [commit.branch for commit in commits_of(entry(paths), split, "trunk")] == branches


def test_a_project_that_is_renamed_brings_its_trunk() -> None:
    renamed = entry('<path action="A" kind="dir" copyfrom-path="/old" copyfrom-rev="1">/new</path>')

    def below(path: str) -> dict[str, str] | None:
        return split(path.removeprefix("new/")) if path.startswith("new/") else None

    assert [commit.branch for commit in commits_of(renamed, below, "new/trunk")] == ["trunk"]


@pytest.mark.parametrize("author", ["", "<author></author>", "<author>  </author>"])
def test_a_commit_without_an_author_is_nobodys_and_gets_no_mail(author: str) -> None:
    (commit,) = commits_of(entry('<path action="M" kind="file">/trunk/a</path>', author), split, "trunk")
    assert commit.author == NOBODY
    assert address_fault(f"{NOBODY}@example.org")


@pytest.mark.parametrize(("burst", "each"), [("newest", set()), ("each", {"svn://h/oscar"})])
def test_the_site_says_whether_each_commit_of_a_burst_is_tested(burst: str, each: set[str]) -> None:
    site = Site.model_validate({"repository": {"url": "svn://h/oscar/", "burst": burst}, "worker": [{"name": "w"}]})
    settings = first_tier(site)._config_kwargs
    assert (settings["treeStableTimer"], settings["each"]) == (60, each)
