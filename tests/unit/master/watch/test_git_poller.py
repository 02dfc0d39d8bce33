"""Changes of git: each commit of a watched branch once, in order, whatever is pushed and whenever the master ends."""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

from twisted.internet import defer, protocol, reactor, task
from twisted.trial import unittest

from oscar_steps.environment import tool_environment
from oscar_steps.errors import HostError, SourceError
from oscar_steps.master.watch import asking, looks
from oscar_steps.master.watch import git as pollers
from oscar_steps.master.watch.exact import Asked, exact_source
from oscar_steps.master.watch.git import MERGED_AUTHORS, GitPoller
from oscar_steps.master.watch.looks import FAILURES_BEFORE_MAIL
from oscar_steps.repositories import Git
from oscar_steps.site import Site
from oscar_steps.sources.git import author_of
from oscar_steps.sources.svn import NOBODY
from tests.unit.git_server import Repository
from tests.unit.master.watch.support import Fake, FakeUpdates

FILE = "install_cluster"


class Alone(GitPoller):
    """A poller without a master's service tree."""

    master: Any = None


class AtGit(unittest.TestCase):  # type: ignore[misc]
    """Against a real repository, by file."""

    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)
        self.state = self.folder / "master"
        self.state.mkdir()
        self.repository = Repository(self.folder / "oscar.git")
        self.number = 0
        self.told: list[tuple[str, str]] = []
        self.names: list[str] = []
        self.mail_runs = True
        self.updates = FakeUpdates("")

        def notify(_master: Any, subject: str, text: str, *_addresses: Any, **how: Any) -> bool:
            if self.mail_runs:
                self.names.append(how.get("name", ""))
                self.told.append((subject, text))
            return self.mail_runs

        self.patch(pollers, "notify", notify)
        self.patch(pollers, "notify_operator", notify)
        self.patch(looks, "notify_operator", notify)

    def commit(self, branch: str = "main", **more: Any) -> str:
        """A commit that no other is like."""
        self.number += 1
        files = more.pop("files", {FILE: f"{self.number}\n".encode()})
        return self.repository.commit(files, branch=branch, **more)

    def poller(self, **settings: Any) -> GitPoller:
        """A poller as the master starts it, with what an earlier one has left."""
        table = Git.model_validate({"name": "oscar", "url": self.repository.url, **settings})
        poller = Alone(name="git-oscar", table=table, folder=self.state)
        poller.table, poller.folder = table, self.state
        poller.master = Fake(reactor=reactor, data=Fake(updates=self.updates, get=self.updates.get))
        return poller

    def seen(self) -> list[tuple[str, str]]:
        return [(change["branch"].removeprefix("git/oscar/"), change["revision"]) for change in self.updates.changes]

    async def test_the_first_look_notes_where_branches_are_and_each_commit_after_it_is_seen_once_in_order(
        self,
    ) -> None:
        self.commit()
        poller = self.poller()
        await poller.poll()
        assert self.seen() == []
        first, second = self.commit(), self.commit(author="J\u00f6rg <joerg@example.org>", message="naïve")
        await poller.poll()
        await poller.poll()
        assert self.seen() == [("main", first), ("main", second)]
        last = self.updates.changes[-1]
        assert (last["author"], last["comments"]) == ("J\u00f6rg <joerg@example.org>", "na\u00efve")
        assert (last["files"], last["repository"], last["project"]) == ([FILE], self.repository.url, "oscar")
        assert poller.trouble == "" and poller.last_success

    async def test_a_branch_that_goes_off_a_known_one_begins_with_its_own_commits(self) -> None:
        root = self.commit()
        poller = self.poller()
        await poller.poll()
        own = [self.commit("5-1", parents=(root,)), self.commit("5-1")]
        self.repository.git("update-ref", "refs/heads/same", root)
        await poller.poll()
        assert self.seen() == [("5-1", identity) for identity in own]
        more = self.commit("same")
        await poller.poll()
        assert self.seen()[2:] == [("same", more)]

    async def test_a_clock_that_was_wrong_brings_nobody_elses_commits(self) -> None:
        """Git's own list goes by the dates of commits."""
        for _ in range(9):
            self.commit()
        fork = self.repository.tip("main")
        self.repository.clock = 1_600_000_000
        for _ in range(9):
            self.commit()
        self.repository.clock = 1_800_000_000
        poller = self.poller()
        await poller.poll()
        own = self.commit("5-1", parents=(fork,), author="Own <own@example.org>")
        merge = self.commit(parents=(self.repository.tip("main"), own), author="Bob <bob@example.org>")
        await poller.poll()
        assert self.seen() == [("5-1", own), ("main", merge)]
        assert self.updates.changes[1]["properties"] == {MERGED_AUTHORS: ["Own <own@example.org>"]}
        more = self.commit("5-2", parents=(fork,))
        await poller.poll()
        assert self.seen()[2:] == [("5-2", more)]

    async def test_a_branch_with_a_history_of_its_own_begins_with_its_last_commit(self) -> None:
        self.commit()
        poller = self.poller()
        await poller.poll()
        self.commit("gh-pages", parents=())
        last = self.commit("gh-pages")
        await poller.poll()
        assert self.seen() == [("gh-pages", last)]

    async def test_what_a_merge_brings_is_the_merges_with_its_authors(self) -> None:
        root = self.commit()
        poller = self.poller()
        await poller.poll()
        self.commit("topic", parents=(root,), author="Eve <eve@example.org>")
        topic = self.commit("topic", author="Bob <bob@example.org>")
        merge = self.commit(parents=(root, topic), files={"README": b"merged\n", FILE: b"merged\n"})
        self.repository.git("update-ref", "-d", "refs/heads/topic")
        await poller.poll()
        assert self.seen() == [("main", merge)]
        (change,) = self.updates.changes
        assert change["properties"] == {MERGED_AUTHORS: ["Bob <bob@example.org>", "Eve <eve@example.org>"]}
        assert change["files"] == ["README", FILE]

    async def test_a_branch_that_is_made_and_merged_between_two_looks_has_its_own_commits_also_over_a_kill(
        self,
    ) -> None:
        root = self.commit()
        await self.poller().poll()
        topic = [self.commit("topic", parents=(root,)), self.commit("topic")]
        above = self.commit("above", parents=(topic[1],))
        merge = self.commit(parents=(root, above))
        self.repository.git("update-ref", "refs/heads/same", merge)
        last = self.commit()
        self.updates.fails_at = merge
        await self.poller().poll()
        assert len(self.flushLoggedErrors(OSError)) == 1
        new = [("topic", topic[0]), ("topic", topic[1]), ("above", above)]
        assert self.seen() == new
        await self.poller().poll()
        assert self.seen() == [*new, ("main", merge), ("main", last)]

    async def test_a_branch_that_is_fast_forwarded_has_each_commit_for_itself(self) -> None:
        root = self.commit()
        poller = self.poller()
        await poller.poll()
        topic = [self.commit("topic", parents=(root,)), self.commit("topic")]
        await poller.poll()
        self.repository.git("update-ref", "refs/heads/main", topic[-1])
        await poller.poll()
        assert self.seen() == [*(("topic", each) for each in topic), *(("main", each) for each in topic)]

    async def test_a_force_push_is_told_once_and_its_last_commit_is_tested(self) -> None:
        root = self.commit()
        poller = self.poller()
        await poller.poll()
        old = self.commit()
        await poller.poll()
        self.commit(parents=(root,))
        new = self.commit()
        self.mail_runs = False
        await poller.poll()
        assert self.seen() == [("main", old)], "what cannot be told yet waits"
        self.mail_runs = True
        await poller.poll()
        await poller.poll()
        assert self.seen() == [("main", old), ("main", new)]
        ((subject, text),) = self.told
        assert subject == "the repository oscar has branches that were replaced"
        assert f"main: was at {old[:12]}, and is at {new[:12]}" in text

    async def test_a_branch_that_is_replaced_once_more_in_the_same_way_is_told_once_more(self) -> None:
        root = self.commit()
        ours = self.commit()
        poller = self.poller()
        await poller.poll()
        theirs = self.commit(parents=(root,))
        for tip in (theirs, ours, theirs):
            self.repository.git("update-ref", "refs/heads/main", tip)
            await poller.poll()
            await poller.poll()
            poller = self.poller()
            await poller.poll()
        assert self.seen() == [("main", theirs), ("main", ours)], "what was seen there before is not seen once more"
        assert len(self.told) == len({*self.names}) == 3

    async def test_what_is_told_before_the_master_is_killed_is_told_in_the_same_letter(self) -> None:
        root = self.commit()
        self.commit()
        await self.poller().poll()
        new = self.commit(parents=(root,))
        self.updates.fails_at = new
        await self.poller().poll()
        assert len(self.flushLoggedErrors(OSError)) == 1
        await self.poller().poll()
        assert self.seen() == [("main", new)]
        assert (len(self.names), len({*self.names})) == (2, 1), "the mail service sends the second one to nobody"

    async def test_another_repository_in_its_place_is_told_as_a_force_push(self) -> None:
        self.commit()
        self.commit("5-1")
        poller = self.poller()
        await poller.poll()
        shutil.rmtree(self.repository.path)
        self.repository = Repository(self.repository.path)
        tips = {branch: self.commit(branch, author=f"{branch} <x@example.org>") for branch in ("main", "5-1")}
        await poller.poll()
        assert sorted(self.seen()) == sorted(tips.items())
        assert len(self.told) == 1

    async def test_a_branch_that_is_deleted_and_comes_again_shows_nothing_twice(self) -> None:
        root = self.commit()
        poller = self.poller()
        await poller.poll()
        topic = self.commit("topic", parents=(root,))
        await poller.poll()
        self.repository.git("update-ref", "-d", "refs/heads/topic")
        await poller.poll()
        self.repository.git("update-ref", "refs/heads/topic", topic)
        more = self.commit("topic")
        await poller.poll()
        assert self.seen() == [("topic", topic), ("topic", more)]
        assert self.told == []
        self.repository.git("update-ref", "-d", "refs/heads/topic")
        below = self.commit("topic/below", parents=(root,))  # a folder where a file was
        await poller.poll()
        assert self.seen()[2:] == [("topic/below", below)]

    async def test_only_watched_branches_are_seen_and_a_new_one_does_not_begin_with_others_commits(self) -> None:
        root = self.commit()
        poller = self.poller(branches=["main", "5-*"])
        await poller.poll()
        self.commit("topic", parents=(root,))
        topic = self.commit("topic")
        await poller.poll()
        release = self.commit("5-1", parents=(topic,))
        await poller.poll()
        assert self.seen() == [("5-1", release)]

    async def test_of_new_branches_that_share_commits_each_has_its_own(self) -> None:
        root = self.commit()
        poller = self.poller(branches=["main", "5-*"])
        await poller.poll()
        below = [self.commit("5-2", parents=(root,)), self.commit("5-2")]
        above = self.commit("5-1", parents=(below[-1],))
        self.commit("topic", parents=(above,))
        await poller.poll()
        assert self.seen() == [*(("5-2", each) for each in below), ("5-1", above)]

    async def test_a_master_that_is_killed_after_a_change_is_stored_neither_loses_nor_doubles_one(self) -> None:
        self.commit()
        await self.poller().poll()
        commits = [self.commit() for _ in range(4)]
        note = self.state / "git-oscar.json"
        before = note.read_bytes()
        self.updates.fails_at = commits[2]
        killed = self.poller()
        await killed.poll()
        assert len(self.flushLoggedErrors(OSError)) == 1
        note.write_bytes(before)  # as if the mark had not reached the disk
        await self.poller().poll()
        assert self.seen() == [("main", each) for each in commits]

    async def test_without_its_file_the_poller_goes_on_from_what_the_database_has(self) -> None:
        for make in (Path.unlink, lambda path: path.write_bytes(b"\xff{"), lambda path: (path.unlink(), path.mkdir())):
            self.setUp()
            self.commit()
            await self.poller().poll()
            first = self.commit()
            await self.poller().poll()
            more = [self.commit(), self.commit()]
            make(self.state / "git-oscar.json")
            await self.poller().poll()
            assert self.seen() == [("main", each) for each in (first, *more)]

    async def test_without_its_file_the_poller_knows_branches_that_were_quiet_while_others_had_many_commits(
        self,
    ) -> None:
        self.commit()
        quiet = self.commit("5-1")
        await self.poller().poll()
        first = self.commit("5-1")
        await self.poller().poll()
        for number in range(600):
            await self.updates.addChange(revision=str(number), branch="trunk")
        (self.state / "git-oscar.json").unlink()
        second = self.commit("5-1")
        await self.poller().poll()
        seen = [revision for branch, revision in self.seen() if branch == "5-1"]
        assert quiet not in seen and seen == [first, second]

    async def test_a_copy_that_is_lost_or_damaged_is_made_anew_and_loses_nothing(self) -> None:
        def spoil(copy: Path) -> None:
            for pack in [*copy.glob("objects/pack/*"), *copy.glob("objects/??/*")]:
                pack.chmod(0o600)
                pack.write_bytes(b"nothing")

        def lock(copy: Path) -> None:
            (copy / "refs/heads").mkdir(exist_ok=True)
            (copy / "refs/heads/main.lock").touch()
            copy.with_suffix(".new").mkdir()

        for harm in (shutil.rmtree, spoil, lock, lambda copy: (copy / "HEAD").write_bytes(b"")):
            self.setUp()
            self.commit()
            poller = self.poller()
            await poller.poll()
            commits = [self.commit(), self.commit()]
            harm(self.state / "git-oscar.git")
            for _ in range(2):
                await poller.poll()
            self.flushLoggedErrors(HostError)
            assert self.seen() == [("main", each) for each in commits]
            assert self.told == []
            assert sorted(path.name for path in self.state.iterdir()) == ["git-oscar.git", "git-oscar.json"]

    async def test_what_nobody_installs_is_not_tested_and_says_why(self) -> None:
        self.commit(files={FILE: b"x\n", "doc/a": b"x\n"})
        poller = self.poller()
        await poller.poll()
        self.commit(files={"doc/a": b"y\n", '"doc/b\\nc"': b"y\n"})
        self.commit(files={})
        self.commit(files={"doc/a": b"z\n", FILE: b"z\n"})
        self.commit(files={"doc/a": None})
        await poller.poll()
        assert [change["category"] for change in self.updates.changes] == [
            "not tested: only doc/*, nothing that is installed",
            "not tested: it changes no file",
            None,
            None,
        ]
        assert self.updates.changes[0]["files"] == ["doc/a", "doc/b\ufffdc"]

    async def test_a_commit_of_a_thousand_million_files_or_with_an_endless_message_stops_nothing(self) -> None:
        self.commit()
        poller = self.poller()
        await poller.poll()
        made = [self.repository.commit_tree(self.repository.folders_in_folders(depth)) for depth in (4, 8)]
        made.append(self.commit(message="m" * (17 << 20)))
        made.append(self.commit())
        for _ in range(2):
            await poller.poll()
        assert self.seen() == [("main", each) for each in made]
        few, many, long, last = self.updates.changes
        assert [change["category"] for change in self.updates.changes] == [None] * 4
        assert few["files"][-1] == "... and 99501 more" and many["files"] == ["... and more files than the farm lists"]
        assert many["comments"] == "many" and "characters in all" in long["comments"] and last["files"] == [FILE]
        assert poller.trouble == "" and not poller._copy.damaged

    async def test_hostile_names_and_messages_are_shown_as_text(self) -> None:
        self.commit()
        poller = self.poller()
        await poller.poll()
        raw = b"tree %s\nparent %s\n" % tuple(
            self.repository.git("rev-parse", name).encode() for name in ("main^{tree}", "main")
        )
        who = b"A\xff\x1b[31m <b@x.org\x07> 1700000000 +0000\n"
        made = raw + b"author " + who + b"committer " + who + b"\n\xff\xfe" + b"x" * 9000 + b"\x00hidden"
        identity = self.repository.git("hash-object", "-t", "commit", "-w", "--literally", "--stdin", stdin=made)
        self.repository.git("update-ref", "refs/heads/main", identity)
        for name in ("-rf", "<script>", "a;b$(c)", "caf\u00e9"):
            self.repository.git("update-ref", f"refs/heads/{name}", identity)
        with (self.repository.path / "packed-refs").open("ab") as refs:
            refs.write(b"%s refs/heads/bad\xff\n" % identity.encode())
        await poller.poll()
        assert self.seen() == [("main", identity)]
        change = self.updates.changes[0]
        assert "\x1b" not in change["author"] and change["author"].endswith("<b@x.org\ufffd>")
        assert change["comments"].endswith(f"(9002 characters in all: git show -s {identity})")
        for name in ("-rf", "<script>", "a;b$(c)", "caf\u00e9"):
            own = self.commit(name)
            await poller.poll()
            assert self.seen()[-1] == (name, own)
        assert poller.trouble == ""

    async def test_a_repository_that_cannot_be_read_is_told_once_and_again_when_it_can_be(self) -> None:
        self.commit()
        poller = self.poller()
        await poller.poll()
        away = self.repository.path.with_name("away")
        self.repository.path.rename(away)
        for _ in range(FAILURES_BEFORE_MAIL + 2):
            await poller.poll()
        assert "git says" in poller.trouble
        away.rename(self.repository.path)
        more = self.commit()
        await poller.poll()
        assert [subject for subject, _ in self.told] == [
            "the repository cannot be read",
            "the repository can be read again",
        ]
        assert len(self.flushLoggedErrors(SourceError)) == FAILURES_BEFORE_MAIL + 2
        assert self.seen() == [("main", more)]

    async def test_a_repository_without_any_branch_is_a_fault_and_forgets_nothing(self) -> None:
        self.commit()
        poller = self.poller()
        await poller.poll()
        tip = self.commit()
        self.repository.git("update-ref", "-d", "refs/heads/main")
        await poller.poll()
        (error,) = self.flushLoggedErrors(HostError)
        assert "has no branches any more" in str(error.value)
        self.repository.git("update-ref", "refs/heads/main", tip)
        await poller.poll()
        assert self.seen() == [("main", tip)]

    async def test_what_the_first_look_has_seen_is_on_the_disk_before_anything_else_happens(self) -> None:
        poller = self.poller()
        await poller.poll()  # nobody has pushed yet
        first = self.commit()
        await self.poller().poll()
        assert self.seen() == [("main", first)]
        (self.state / "git-oscar.json").unlink()
        self.updates.changes.clear()
        await self.poller().poll()
        second = self.commit()
        await self.poller().poll()
        assert self.seen() == [("main", second)]

    async def test_a_new_branch_at_a_commit_that_no_watched_branch_has_begins_with_it(self) -> None:
        root = self.commit()
        poller = self.poller(branches=["main", "5-*"])
        await poller.poll()
        self.commit("topic", parents=(root,))
        topic = self.commit("topic")
        await poller.poll()
        self.repository.git("update-ref", "refs/heads/5-1", topic)
        self.repository.git("update-ref", "refs/heads/5-0", root)
        await poller.poll()
        assert self.seen() == [("5-1", topic)]

    async def test_a_site_whose_main_branch_is_not_there_is_told_so_whenever_it_goes(self) -> None:
        self.commit("master")
        poller = self.poller()
        await poller.poll()
        await poller.poll()
        ((_, text),) = self.told
        assert "no branch 'main'" in text and "There are: master." in text
        self.commit("main")
        await poller.poll()
        self.repository.git("update-ref", "-d", "refs/heads/main")
        await poller.poll()
        assert [text] * 2 == [said for _, said in self.told]

    def server(self, said: bytes) -> str:
        """The address of a server that says this to everybody, and then waits (b"": only that)."""

        class Talker(protocol.Protocol):  # type: ignore[misc]
            def connectionMade(self) -> None:
                self.transport.write(said)
                if said:
                    self.transport.loseConnection()

        port = reactor.listenTCP(0, protocol.Factory.forProtocol(Talker), interface="127.0.0.1")  # type: ignore[attr-defined]
        self.addCleanup(port.stopListening)
        return f"git://127.0.0.1:{port.getHost().port}/x"

    async def test_a_server_that_answers_nonsense_is_told_of_and_harms_nothing(self) -> None:
        self.commit()
        await self.poller().poll()
        note = (self.state / "git-oscar.json").read_bytes()
        for said in (b"\x00\xff" * 5000, b"0006a\n0000", b"003f" + b"0" * 40 + b" refs/heads/a..b\n0000"):
            poller = self.poller(url=self.server(said))
            for _ in range(FAILURES_BEFORE_MAIL):
                await poller.poll()
            assert poller.trouble
        assert len(self.told) == 3
        assert (self.state / "git-oscar.json").read_bytes() == note
        self.flushLoggedErrors(HostError, SourceError)

    async def test_a_poller_that_stops_does_not_wait_for_a_server_that_does_not_answer(self) -> None:
        poller = self.poller(url=self.server(b""))
        looking = defer.ensureDeferred(poller.poll())
        while poller._copy is None or not poller._copy.running:
            await task.deferLater(reactor, 0.02, lambda: None)
        poller._copy.close()
        looking.addTimeout(30, reactor)
        await looking
        assert (poller.trouble, poller._failures) == ("", 0)

    async def test_a_program_that_prints_without_end_is_ended(self) -> None:
        self.patch(asking, "_MOST_BYTES", 100_000)
        status, output, said = await asking.run_program(reactor, ["yes"], tool_environment(), 60)
        assert status < 0 and len(output) == 100_000 and "ended after it had printed" in said

    async def test_a_build_tests_the_tip_a_tag_or_a_commit_exactly(self) -> None:
        first = self.commit()
        tip = self.commit()
        who = {"GIT_COMMITTER_NAME": "x", "GIT_COMMITTER_EMAIL": "x@y"}
        self.repository.git("tag", "-a", "-m", "x", "rel-1", first, environment=who)
        site = Site.model_validate({"git": [{"name": "oscar", "url": self.repository.url}], "worker": [{"name": "w"}]})

        async def exact(branch: str, revision: str = "") -> tuple[str, str]:
            asked = Asked(repository="", branch=branch, revision=revision, folder=self.state)
            source = await exact_source(reactor, site, asked)
            assert (source.kind, source.url) == ("git", self.repository.url)
            return source.branch, source.revision

        assert await exact("") == ("git/oscar/main", tip)
        assert await exact("git/oscar/main") == ("git/oscar/main", tip)
        assert await exact("main", "rel-1") == ("git/oscar/main", first)
        assert await exact("git/oscar/rel-1") == ("git/oscar/rel-1", first)
        assert await exact("git/oscar/main", first) == ("git/oscar/main", first)
        self.repository.git("update-ref", "refs/heads/rel-1", tip)
        assert await exact("git/oscar/rel-1") == ("git/oscar/rel-1", tip), "a branch, not the tag of this name"
        self.repository.git("symbolic-ref", "HEAD", "refs/heads/rel-1")
        self.repository.git("update-ref", "refs/heads/rel-1", first)
        assert await exact("git/oscar/main", "HEAD") == ("git/oscar/main", tip), "the last one of that branch"
        await self.poller().poll()
        assert await exact("git/oscar/main", first[:9]) == ("git/oscar/main", first)
        self.commit("side", parents=())
        dropped = self.commit("side")
        assert await exact("git/oscar/main", dropped) == ("git/oscar/main", dropped)
        away = self.repository.path.rename(self.repository.path.with_name("away"))
        assert await exact("git/oscar/main", first) == ("git/oscar/main", first), "the copy has it"
        away.rename(self.repository.path)
        for branch, revision in (
            ("git/oscar/no", ""),
            ("git/oscar/main", "0" * 40),
            ("git/oscar/a..b", ""),
            ("git/x/y", ""),
        ):
            with self.assertRaises(SourceError):
                await exact(branch, revision)
        down = Site.model_validate(
            {"git": [{"name": "oscar", "url": "git://127.0.0.1:9/o"}], "worker": [{"name": "w"}]}
        )
        with self.assertRaises(HostError):
            await exact_source(reactor, down, Asked(repository="", branch="", revision="", folder=self.state / "no"))

    async def test_a_note_is_whole_json_that_others_may_not_read(self) -> None:
        tip = self.commit()
        await self.poller().poll()
        assert json.loads((self.state / "git-oscar.json").read_text()) == {"branches": {"main": tip}, "told": 0}
        assert (self.state / "git-oscar.json").stat().st_mode & 0o077 == 0


def test_an_author_is_a_name_and_an_address_that_fit_where_they_are_kept() -> None:
    assert author_of("Ada  L.\n", "ada@x.org") == "Ada L. <ada@x.org>"
    assert author_of("", "ada@x.org") == "ada@x.org"
    assert author_of("ada", "") == "ada"
    assert author_of("", "") == NOBODY
    assert author_of("a" * 500, "a@x.org") == f"{'a' * 100} <a@x.org>"
