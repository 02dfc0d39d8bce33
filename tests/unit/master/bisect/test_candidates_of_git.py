"""The candidates of a search over commits of git: those of the branch, from the good one to the red one."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from twisted.internet import reactor
from twisted.trial import unittest

from oscar_steps.master.bisect import case
from oscar_steps.master.bisect.case import _on_branch
from oscar_steps.master.watch import copy as copies
from oscar_steps.master.watch.copy import Copy
from oscar_steps.repositories import Git
from tests.unit.git_server import Repository
from tests.unit.master.watch.support import Fake


class OnBranch(unittest.TestCase):  # type: ignore[misc]
    """Against a real repository, by file."""

    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)
        self.repository = Repository(self.folder / "oscar.git")
        self.place = Git(name="oscar", url=self.repository.url)
        self.good = self.repository.commit({"README": b"0\n"})

    async def candidates(self, first: str, last: str) -> list[tuple[str, str]]:
        """Revision and author of each."""
        await Copy(self.place.copy_below(self.folder), self.place.url, reactor).update()
        found = await _on_branch(Fake(basedir=str(self.folder), reactor=reactor), self.place, first, last)
        return [(each.revision, each.author) for each in found]

    async def test_what_a_merge_brought_is_the_merges(self) -> None:
        side = self.repository.commit({"side": b"1\n"}, branch="side", parents=(self.good,))
        ours = self.repository.commit({"README": b"1\n"})
        merge = self.repository.commit({"side": b"1\n"}, parents=(ours, side), author="Mel <mel@example.org>")
        last = self.repository.commit({"README": b"2\n"})
        assert await self.candidates(self.good, last) == [
            (ours, "Ada <ada@example.org>"),
            (merge, "Mel <mel@example.org>"),
            (last, "Ada <ada@example.org>"),
        ]
        assert await self.candidates(side, last) == [], "it was good elsewhere"

    async def test_after_a_forced_push_that_took_the_good_commit_away_there_are_none(self) -> None:
        gone = self.repository.commit({"README": b"1\n"})
        await self.candidates(self.good, gone)
        self.repository.git("update-ref", "refs/heads/main", self.good)
        for number in range(2):
            last = self.repository.commit({"README": b"other %d\n" % number})
        assert await self.candidates(gone, last) == []
        assert len(await self.candidates(self.good, last)) == 2
        assert await self.candidates("0" * 40, last) == []

    async def test_too_many_are_not_searched(self) -> None:
        self.patch(case, "MAX_CANDIDATES", 2)
        last = [self.repository.commit({"README": b"%d\n" % number}) for number in range(3)]
        assert len(await self.candidates(self.good, last[1])) == 2
        assert await self.candidates(self.good, last[2]) == []

    async def test_a_red_commit_that_the_copy_has_no_more_has_none(self) -> None:
        last = self.repository.commit({"README": b"1\n"})
        assert len(await self.candidates(self.good, last)) == 1
        assert await self.candidates(self.good, "0" * 40) == []

    async def test_git_is_asked_once_for_all_and_for_each_alone_where_they_say_too_much(self) -> None:
        words = ["one\n\nline\n", "\u00fc <b> \x1b[31m", "x" * 5000, "y" * 5000, ""]
        last = [self.repository.commit({"README": b"%d\n" % n}, message=text) for n, text in enumerate(words)][-1]
        await self.candidates(self.good, last)
        asked, real = list[str](), copies.run_program

        async def run_program(reactor: Any, command: list[str], *more: Any) -> Any:
            asked.append(command[command.index("git") + 2])
            return await real(reactor, command, *more)

        async def told() -> list[tuple[str, str]]:
            asked.clear()
            found = await _on_branch(Fake(basedir=str(self.folder), reactor=reactor), self.place, self.good, last)
            return [(each.message, each.author) for each in found]

        self.patch(copies, "run_program", run_program)
        at_once = await told()
        assert asked.count("log") == 1
        assert [message.strip() for message, _ in at_once] == [text.strip() for text in words]
        self.patch(copies, "_LISTED_BYTES", 8000)
        assert await told() == at_once
        assert asked.count("log") == 1 + len(words)
