"""A poller without a master, at a real repository by file."""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from twisted.internet import reactor
from twisted.trial import unittest

from oscar_steps.environment import tool_environment
from oscar_steps.master.watch.svn import BranchSplitter, FarmPoller
from oscar_steps.repositories import Repository

REPOSITORY = Repository(url="svn://127.0.0.1/oscar")


class FakeUpdates:
    """Stores changes; fails once for a revision."""

    def __init__(self, fails_at: str) -> None:
        self.fails_at = fails_at
        self.stored: list[str] = []
        self.changes: list[dict[str, Any]] = []

    async def addChange(self, *, revision: str, **more: Any) -> None:
        if revision == self.fails_at:
            self.fails_at = ""
            raise OSError("the database is locked")
        self.stored.append(revision)
        self.changes.append({"changeid": len(self.changes) + 1, "revision": revision, **more})

    async def get(
        self, _path: tuple[str, ...], filters: Sequence[Any] = (), limit: int | None = None, **_more: Any
    ) -> list[dict[str, Any]]:
        """The changes of the database, the newest first."""
        found = [change for change in self.changes[::-1] if all(change[f.field] in f.values for f in filters)]
        return found[:limit]


class Fake:
    """Attributes and nothing else."""

    def __init__(self, **attributes: Any) -> None:
        vars(self).update(attributes)


def run(*words: str | Path) -> None:
    subprocess.run([str(word) for word in words], check=True, capture_output=True, env=tool_environment())


class Alone(FarmPoller):
    """A poller without a master's service tree."""

    master: Any = None


class AtRepository(unittest.TestCase):  # type: ignore[misc]
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
        run("svn", "mkdir", "--quiet", "--username", "eric", "-m", f"add {folder}", f"{self.url}/{folder}@")

    async def looking(self, updates: FakeUpdates, url: str = "", state: Path | None = None) -> FarmPoller:
        """A poller as the master starts it."""
        poller = Alone(url or self.url, name="svn")
        poller.master = Fake(
            reactor=reactor, data=Fake(updates=updates, get=updates.get), service_manager=Fake(namedServices={})
        )
        splitter = BranchSplitter(REPOSITORY)
        cachepath = str(state) if state else None
        await poller.reconfigService(
            url or self.url, name="svn", split_file=splitter, project="oscar", cachepath=cachepath
        )
        return poller
