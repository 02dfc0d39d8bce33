"""A branch with an odd name goes through the whole farm: poller, exact revision, first tier, head node."""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from twisted.internet import reactor
from twisted.trial import unittest

from oscar_steps.master.watch.exact import Asked, exact_source
from oscar_steps.repositories import Repository as Watched
from oscar_steps.site import Site, Worker
from oscar_steps.testdriver.cli.lint import look
from oscar_steps.testdriver.deadline import Deadline
from oscar_steps.testdriver.lookahead import fetch
from oscar_steps.testdriver.record.events import Diary
from oscar_steps.testdriver.stages.sources import svn
from tests.unit.master.watch.support import Alone, BranchSplitter, Fake, FakeUpdates
from tests.unit.svn_server import Repository, served
from tests.unit.testdriver.stages.test_git import Head

NAMES = (
    "50% off @home \u00fc",
    "5@1",
    "100%41",
    "-r 5",
    'it\'s "q" & <b>',
    "$HOME;x",
    "\u65e5\u672c#?",
    "x y+z",
)


class OddBranches(unittest.TestCase):  # type: ignore[misc]
    """Against svnserve."""

    def setUp(self) -> None:
        scratch = tempfile.TemporaryDirectory()
        self.addCleanup(scratch.cleanup)
        self.folder = Path(scratch.name)
        self.repository = Repository(self.folder / "oscar")
        self.repository.put(
            {"trunk/install_cluster": "#!/bin/sh\n", "trunk/lib/": "", "common/f": "1\n", "branches/": ""}
        )
        self.repository.externals("trunk", "^/common ext")
        self.repository.commit()
        server = served(self.folder)
        self.url = f"{server.__enter__()}/oscar"
        self.addCleanup(server.__exit__, None, None, None)

    async def test_each_name_is_seen_found_linted_and_checked_out(self) -> None:
        site = Site(repository=Watched(url=self.url), worker=(Worker(name="w"),))
        updates = FakeUpdates("")
        poller = Alone(self.url, name="svn")
        poller.master = Fake(
            reactor=reactor, data=Fake(updates=updates, get=updates.get), service_manager=Fake(namedServices={})
        )
        assert site.repository is not None
        settings: dict[str, Any] = {"split_file": BranchSplitter(site.repository), "project": "oscar"}
        await poller.reconfigService(self.url, name="svn", **settings)
        await poller.poll()
        for name in NAMES:
            place = self.repository.copy / "branches" / name
            self.repository.svn("copy", "--quiet", "trunk", f"{place}@")
            self.repository.commit()
            (place / "install_cluster").write_text(f"#!/bin/sh\n# {name}\n")
            self.repository.commit()
        await poller.poll()
        seen = [(change["branch"], change["revision"], change["files"]) for change in updates.changes]
        assert [branch for branch, _, _ in seen[1::2]] == [f"branches/{name}" for name in NAMES]
        for number, (branch, revision, files) in enumerate(seen[1::2]):
            assert files == ["install_cluster"], branch
            source = await exact_source(reactor, site, Asked("", branch, revision, folder=self.folder))
            newest = await exact_source(reactor, site, Asked("", branch, "", folder=self.folder))
            assert newest.identity == source.identity and [each.path for each in source.externals] == ["ext"], branch
            looked = look(source.url, source.revision, None, self.folder / f"cache{number}")
            assert looked.change is not None and looked.change.base == int(revision) - 1, branch
            self.check_out(source, self.folder / f"run{number}", branch)

    def check_out(self, source: Any, folder: Path, branch: str) -> None:
        """On the worker, and in the head node."""
        folder.mkdir()
        text = f"# {branch.removeprefix('branches/')}\n"
        job = SimpleNamespace(source=source, answers=SimpleNamespace(oscar_home=str(folder / "home")))
        run, booted = SimpleNamespace(directory=folder, job=job, diary=Diary(folder)), SimpleNamespace(head=Head())

        async def both() -> None:
            assert text in (await fetch(source, folder))["install_cluster"]
            await svn.bring(cast("Any", run), cast("Any", booted), Deadline(60))

        asyncio.run(both())
        assert (folder / "home/install_cluster").read_text().endswith(text)
        assert (folder / "home/ext/f").read_text() == "1\n"
