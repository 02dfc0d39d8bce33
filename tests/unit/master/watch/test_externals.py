"""The master asks for the externals of a build, once for all cells of a commit."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

from twisted.internet import defer, reactor
from twisted.trial import unittest

from oscar_steps.errors import HostError
from oscar_steps.master.watch import externals
from oscar_steps.master.watch.exact import Asked, exact_source
from oscar_steps.master.watch.externals import MEMORY_FILE
from oscar_steps.repositories import Repository as Watched
from oscar_steps.site import Site, Worker
from tests.unit.svn_server import Repository, served


class WithServer(unittest.TestCase):  # type: ignore[misc]
    """Against a real server."""

    def setUp(self) -> None:
        scratch = tempfile.TemporaryDirectory()
        self.addCleanup(scratch.cleanup)
        self.folder = Path(scratch.name)
        self.repository = Repository(self.folder / "oscar")
        self.repository.put({"trunk/install_cluster": "x\n", "common/f": "1\n"})
        self.repository.externals("trunk", "^/common lib")
        self.repository.commit()
        server = served(self.folder)
        self.url = f"{server.__enter__()}/oscar"
        self.addCleanup(server.__exit__, None, None, None)
        self.site = Site(repository=Watched(url=self.url), worker=(Worker(name="w"),))
        self.commands: list[str] = []
        real = externals.run_svn

        async def noted(reactor: Any, words: list[str], *more: Any) -> Any:
            self.commands.append(words[0])
            return await real(reactor, words, *more)

        self.patch(externals, "run_svn", noted)

    async def source(self, revision: str = "2") -> Any:
        return await exact_source(reactor, self.site, Asked("", "trunk", revision, folder=self.folder))

    async def test_all_cells_of_a_commit_read_the_tree_once(self) -> None:
        found = await defer.gatherResults([defer.ensureDeferred(self.source()) for _ in range(4)])
        assert {str(source.externals[0]) for source in found} == {f"lib from {self.url}/common@1"}
        assert len({source.identity for source in found}) == 1
        assert self.commands.count("list") == 2, "that of the trunk, and that of its external"

    async def test_what_was_read_is_known_after_a_restart_and_a_broken_note_of_it_harms_nobody(self) -> None:
        first = await self.source()
        note = self.folder / MEMORY_FILE
        assert note.stat().st_mode & 0o777 == 0o600
        for broken, reads in ((None, 2), (b"", 4), (b"\xff", 6), (b'{"x": 1}', 8), (b'[{"x": [1, {}]}]', 10)):
            if broken is not None:
                note.write_bytes(broken)
            assert await self.source() == first
            assert self.commands.count("list") == reads
        assert len(json.loads(note.read_text())) == 2

    async def test_a_server_that_went_away_keeps_nobody_from_asking_again(self) -> None:
        away = self.repository.place.rename(self.folder / "away")
        with self.assertRaises(Exception) as caught:
            await externals.externals_at(reactor, f"{self.url}/trunk", "2", self.folder)
        assert "oscar/trunk@2" in str(caught.exception)
        away.rename(self.repository.place)
        assert len((await self.source()).externals) == 1

    async def test_where_nothing_listens_it_is_the_hosts_fault(self) -> None:
        with self.assertRaises(HostError):
            await externals.externals_at(reactor, "svn://127.0.0.1:9/oscar/trunk", "2", self.folder)
