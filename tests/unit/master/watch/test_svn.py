"""Changes: the right branch for every path, no neighbour's commits, none lost."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest
from buildbot.changes.filter import ChangeFilter
from twisted.internet import reactor

from demo.children import Child
from demo.ports import LOOPBACK, accepts, free_port
from oscar_steps.errors import HostError, SourceError
from oscar_steps.master.schedules.commit import WatchedBranch
from oscar_steps.master.watch import looks
from oscar_steps.master.watch.asking import exact_revision
from oscar_steps.master.watch.looks import FAILURES_BEFORE_MAIL
from oscar_steps.master.watch.svn import BranchSplitter, FarmPoller
from oscar_steps.site import Schedule
from oscar_steps.sources.resolve import resolve_revision
from oscar_steps.sources.svn_xml import UNREADABLE, log_entries
from tests.unit.master.watch.support import REPOSITORY, AtRepository, FakeUpdates, run


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
    everything = WatchedBranch(Schedule(branches=("*",)))
    assert [everything(branch) for branch in ("trunk", "x", "tarballs/ftp")] == [True, True, False], "no release is one"
    assert ChangeFilter(branch_fn=watched) == ChangeFilter(branch_fn=WatchedBranch(Schedule()))


class WithRepository(AtRepository):
    """Against a real repository, by file."""

    async def test_a_note_of_the_last_revision_that_is_no_file_makes_nobody_deaf(self) -> None:
        for make in (lambda path: path.mkdir(), os.mkfifo, lambda path: path.symlink_to("/dev/zero")):
            state = self.path.parent / "state"
            make(state)
            updates = FakeUpdates("")
            poller = await self.looking(updates, state=state)
            for number in range(FAILURES_BEFORE_MAIL + 1):
                await poller.poll()
                self.commit(f"trunk/{make}-{number}".replace(" ", ""))
            assert len(updates.stored) == FAILURES_BEFORE_MAIL
            assert poller.trouble == ""
            shutil.rmtree(state, ignore_errors=True)
            state.unlink(missing_ok=True)

    async def test_more_revisions_than_the_history_holds_are_all_seen(self) -> None:
        updates = FakeUpdates("")
        poller = await self.looking(updates)
        await poller.poll()
        assert updates.stored == []
        for number in range(13):
            self.commit(f"trunk/d{number}")
        await poller.poll()
        assert updates.stored == [str(number) for number in range(2, 15)]

    async def test_a_change_that_could_not_be_stored_is_asked_for_again(self) -> None:
        updates = FakeUpdates("3")
        poller = await self.looking(updates)
        await poller.poll()
        for number in range(3):
            self.commit(f"trunk/d{number}")
        await poller.poll()
        assert len(self.flushLoggedErrors(OSError)) == 1
        assert updates.stored == ["2"]
        await poller.poll()
        assert updates.stored == ["2", "3", "4"]

    async def test_a_laptop_and_the_farm_test_the_same_revision(self) -> None:
        """The last one that changed the branch, or the one that was asked for."""
        self.commit("branches")
        run("svn", "copy", "--quiet", "-m", "branch", f"{self.url}/trunk", f"{self.url}/branches/5.1")
        self.commit("tags")
        for branch, wanted, number in (("trunk", "HEAD", "1"), ("branches/5.1", "HEAD", "3"), ("trunk", "2", "2")):
            url = f"{self.url}/{branch}"
            assert await exact_revision(reactor, url, wanted.replace("HEAD", "") or None) == number
            assert resolve_revision(url, wanted) == number

    async def test_a_branch_that_came_with_the_copy_of_a_folder_above_it_is_there_at_its_revision(self) -> None:
        run("svn", "copy", "--quiet", "-m", "moved", f"{self.url}/trunk", f"{self.url}/old")
        run("svn", "mkdir", "--quiet", "-m", "more", f"{self.url}/old/trunk")
        run("svn", "copy", "--quiet", "-m", "all of it", f"{self.url}/old", f"{self.url}/new")
        url = f"{self.url}/new/trunk"
        number = await exact_revision(reactor, url, None)
        assert number == resolve_revision(url, "HEAD") == "4"
        run("svn", "info", f"{url}@{number}")

    async def test_a_fault_of_the_source_has_one_owner_and_one_sentence_on_a_laptop_and_on_the_farm(self) -> None:
        self.commit("branches")
        run("svn", "copy", "--quiet", "-m", "branch", f"{self.url}/trunk", f"{self.url}/branches/5.1")
        broken = self.path.parent / "broken"
        shutil.copytree(self.path, broken)
        (broken / "format").write_text("99\n")
        for url, wanted, owner in (
            (f"{self.url}/trunk", "99", SourceError),
            (f"{self.url}/nowhere", None, SourceError),
            (f"{self.url}/branches/5.1", "2", SourceError),  # it was made later
            (f"{self.url}-/trunk", None, SourceError),
            (f"{self.url}/../trunk", None, SourceError),
            ("svn://127.0.0.1:9/oscar/trunk", None, HostError),
            (f"{broken.as_uri()}/trunk", None, HostError),
        ):
            with self.assertRaises((SourceError, HostError)) as farm:
                await exact_revision(reactor, url, wanted)
            with self.assertRaises((SourceError, HostError)) as laptop:
                resolve_revision(url, wanted or "HEAD")
            assert type(farm.exception) is type(laptop.exception) is owner, url
            assert farm.exception.explain() == laptop.exception.explain()
            assert url in farm.exception.sentence

    def commit_raw(self, message: bytes, folder: str = "trunk/raw", author: bytes = b"eric") -> None:
        """Commit, then give the revision a message and an author that are written as they are."""
        self.commit(folder)
        number = (
            subprocess.run(["svnlook", "youngest", self.path], check=True, capture_output=True).stdout.decode().strip()
        )
        with tempfile.NamedTemporaryFile() as file:
            for name, value in (("svn:log", message), ("svn:author", author)):
                Path(file.name).write_bytes(value)
                run("svnadmin", "setrevprop", self.path, "-r", number, name, file.name)

    async def test_a_message_that_no_xml_may_hold_hides_no_commit(self) -> None:
        updates = FakeUpdates("")
        poller = await self.looking(updates)
        await poller.poll()
        hostile = (
            b"a \xef\xbf\xbf b",
            b"\xef\xbf\xbe",
            b"\xf4\x8f\xbf\xbf </msg><logentry revision='9'>",
            b"]]> &#0; \x7f",
        )
        for number, message in enumerate(hostile):
            self.commit_raw(message, f"trunk/d{number}")
        self.commit_raw(b"fine", "trunk/e", b"eric\xef\xbf\xbf")
        self.commit("trunk/caf\u00e9")
        self.commit("trunk/no\uffffname")
        self.commit("trunk/last")
        await poller.poll()
        assert updates.stored == [str(number) for number in range(2, 10)]
        assert updates.changes[0]["comments"] == "a \ufffd b"
        assert updates.changes[4]["author"] == "eric\ufffd"
        assert updates.changes[5]["files"] == ["caf\u00e9"]
        assert updates.changes[6]["files"] == ["no\ufffdname"]

    async def test_a_state_file_that_a_power_cut_emptied_loses_no_commit(self) -> None:
        updates = FakeUpdates("")
        state = self.path.parent / "svn-last-revision"
        poller = await self.looking(updates, state=state)
        await poller.poll()
        assert state.read_text() == "1\n"
        self.commit("trunk/seen")
        await poller.poll()
        assert state.read_text() == "2\n"
        for broken in (b"", b"\0" * 9, b"\xff", b"12 13", None):
            if broken is None:
                state.unlink()
            else:
                state.write_bytes(broken)
            before = len(updates.stored)
            self.commit(f"trunk/while-down-{before}")
            poller = await self.looking(updates, state=state)
            await poller.poll()
            assert len(updates.stored) == before + 1, broken
            assert state.read_text().strip() == updates.stored[-1]
        assert updates.stored == [str(number) for number in range(2, 8)]

    async def test_a_look_that_ended_between_database_and_file_stores_nothing_twice(self) -> None:
        updates = FakeUpdates("")
        state = self.path.parent / "svn-last-revision"
        poller = await self.looking(updates, state=state)
        await poller.poll()
        self.commit("trunk/once")
        await poller.poll()
        state.write_text("1\n")
        await (await self.looking(updates, state=state)).poll()
        assert updates.stored == ["2"]

    async def test_an_address_is_the_same_in_every_spelling_that_svn_takes(self) -> None:
        root = self.path.as_uri()
        self.commit("my project")
        self.commit("caf\u00e9")
        self.commit("at@1")
        spellings = {
            "my project": ("my%20project", "/my%20project", "my%20project/", "./my%20project//"),
            "at@1": ("at@1", "at%401"),
            "caf\u00e9": ("caf%C3%A9", "caf%c3%a9", "caf\u00e9", "%63af%C3%A9"),
        }
        for folder, urls in spellings.items():
            self.commit(f"{folder}/trunk")
            for number, spelling in enumerate(urls):
                updates = FakeUpdates("")
                poller = await self.looking(updates, url=f"{root}/{spelling}")
                await poller.poll()
                self.commit(f"{folder}/trunk/d{number}")
                await poller.poll()
                assert [change["files"] for change in updates.changes] == [[f"d{number}"]], spelling

    async def test_a_host_in_capitals_is_the_same_server(self) -> None:
        port = free_port()
        words = ("--daemon", "--foreground", "--root", str(self.path.parent), "--listen-host", LOOPBACK)
        server = Child(
            "the Subversion server",
            ["svnserve", *words, "--listen-port", str(port)],
            log=self.path.with_name("svnserve.log"),
            cwd=self.path.parent,
            environment=os.environ,
        )
        self.addCleanup(server.kill)
        server.wait_until(lambda: accepts(port), "listening", 60)
        for number, host in enumerate(("LocalHost", "localhost", LOOPBACK)):
            updates = FakeUpdates("")
            poller = await self.looking(updates, url=f"SVN://{host}:{port}/{self.path.name}")
            await poller.poll()
            self.commit(f"trunk/of-{number}")
            await poller.poll()
            assert [change["files"] for change in updates.changes] == [[f"of-{number}"]], host

    async def test_a_deaf_poller_is_told_once_and_so_is_that_it_hears_again(self) -> None:
        told: list[tuple[str, str]] = []
        self.patch(looks, "notify_operator", lambda _master, subject, text: told.append((subject, text)))
        updates = FakeUpdates("")
        poller = await self.looking(updates)
        await poller.poll()
        heard = poller.last_success
        away = self.path.with_name("away")
        self.path.rename(away)
        for _ in range(FAILURES_BEFORE_MAIL - 1):
            await poller.poll()
        assert (told, poller.trouble) == ([], "")
        for _ in range(4):
            await poller.poll()
        assert len(told) == 1
        assert self.url in poller.trouble and poller.trouble in told[0][1]
        assert poller.last_success == heard
        away.rename(self.path)
        self.commit("trunk/meanwhile")
        for _ in range(3):
            await poller.poll()
        assert [subject for subject, _ in told[1:]] == ["the repository can be read again"]
        assert (poller.trouble, updates.stored) == ("", ["2"])
        assert poller.last_success and heard and poller.last_success > heard
        assert len(self.flushLoggedErrors(HostError)) == FAILURES_BEFORE_MAIL + 3

    async def test_a_revision_whose_log_svn_cannot_print_is_tested_all_the_same_and_hides_no_other(self) -> None:
        updates = FakeUpdates("")
        poller = await self.looking(updates)
        await poller.poll()
        for number in range(3):
            self.commit(f"trunk/d{number}")
        ask = poller._ask

        async def fails_at_three(*words: str) -> bytes:
            if words[0] == "log" and words[4] in ("3", "4:2") and "--quiet" not in words:
                raise HostError("E000022: Can't convert string")
            return await ask(*words)

        self.patch(poller, "_ask", fails_at_three)
        await poller.poll()
        assert updates.stored == ["2", "3", "4"]
        assert (updates.changes[1]["branch"], updates.changes[1]["comments"]) == ("trunk", UNREADABLE)
        assert updates.changes[1]["files"] == ["d1"], "only its message cannot be read"
        assert updates.changes[2]["files"] == ["d2"]

    async def test_a_repository_that_goes_away_while_its_log_is_read_makes_no_commits_up(self) -> None:
        updates = FakeUpdates("")
        poller = await self.looking(updates)
        await poller.poll()
        self.commit("trunk/d")
        ask = poller._ask
        asked: list[str] = []

        async def answers_once(*words: str) -> bytes:
            asked.append(words[0])
            if len(asked) > 1:
                raise HostError("the repository does not answer")
            return await ask(*words)

        poller._ask = answers_once  # type: ignore[method-assign]
        await poller.poll()
        assert len(self.flushLoggedErrors(HostError)) == 1
        assert updates.stored == []
        poller._ask = ask  # type: ignore[method-assign]
        await poller.poll()
        assert updates.stored == ["2"]

    async def test_a_repository_that_began_anew_is_said_and_not_silently_ignored(self) -> None:
        state = self.path.parent / "svn-last-revision"
        state.write_text("4711\n")
        poller = await self.looking(FakeUpdates(""), state=state)
        for _ in range(FAILURES_BEFORE_MAIL):
            await poller.poll()
        self.flushLoggedErrors(HostError)
        assert "has seen 4711 already" in poller.trouble
        assert state.read_text() == "4711\n"


def test_an_entry_that_cannot_be_read_is_tested_all_the_same_and_hides_no_other() -> None:
    log = (
        b'<?xml version="1.0"?><log>'
        b'<logentry revision="7"><author>eric</author><paths><path kind="file" action="M">/trunk/a</path></paths>'
        b"<msg>fine</msg></logentry>"
        b'<logentry revision="6"><author>jane</author><paths><path kind="file" action="M">/trunk/b&bad;</path>'
        b'<path kind="file" action="M">/branches/x/c</path></paths><msg>a <b> c</msg></logentry>'
        b'<logentry revision="5"><author>&nope;</author><msg>&nope;</msg></logentry></log>'
    )
    entries = log_entries(log, "/trunk/?")
    assert [entry.getAttribute("revision") for entry in entries] == ["7", "6", "5"]
    said = [[node.toxml() for node in entry.getElementsByTagName("path")] for entry in entries[1:]]
    assert said == [['<path kind="file" action="M">/branches/x/c</path>'], ["<path>/trunk/?</path>"]]
    assert UNREADABLE in entries[1].toxml() and UNREADABLE in entries[2].toxml()
    assert "jane" in entries[1].toxml()


def test_a_branch_with_a_blank_is_asked_for_by_its_address() -> None:
    assert REPOSITORY.source_url("branches/5 1%41") == "svn://127.0.0.1/oscar/branches/5%201%2541"
