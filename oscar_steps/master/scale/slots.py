"""A worker has a few slots, whatever the number of cells: a cell is data, and nothing of it is on the worker.

Buildbot's own makes an object and a folder on each worker for every builder, and a round trip for each when the worker
connects. Twisted allows 1,024 such objects on a connection: with more cells nothing was built, and only the log said
why. A worker of ours has an object and a folder per build at a time; a build takes one that is free, and gives it back.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from buildbot.plugins import worker
from buildbot.process.workerforbuilder import States, WorkerForBuilder
from twisted.internet import defer

MAX_BUILDS = 500
"""At a time on one worker: a build has at most two of the 1,024 objects at a time, and the connection some itself."""


class Slots:
    """A connection's slots by the builders that have them. Buildbot asks it where to send a builder's commands."""

    def __init__(self) -> None:
        self._remotes: Mapping[str, Any] = {}
        self._slot_of: dict[str, str] = {}

    def offer(self, remotes: Mapping[str, Any]) -> None:
        """The worker's slots, by name; those that builds have stay theirs."""
        self._remotes = remotes

    def __len__(self) -> int:
        return len(self._remotes)

    def take(self, builder: str) -> None:
        """Give the builder's build a slot. There is a free one: the worker accepts no more builds than it has slots."""
        taken = set(self._slot_of.values())
        self._slot_of[builder] = next(name for name in self._remotes if name not in taken)

    def release(self, builder: str) -> None:
        self._slot_of.pop(builder, None)

    def get(self, builder: str) -> Any:
        """What on the worker runs the commands of the builder's build."""
        return self._remotes[self._slot_of[builder]]


class SlotWorker(worker.Worker):
    """A worker whose builds take slots. `workerforbuilders` holds only those that have a build."""

    def room_for(self, builder: Any) -> bool:
        """Whether a build of this builder may begin here, as far as the number of builds goes.

        Clusters (builds that need a lock) leave one slot for the first tier, also while they wait for their lock.
        """
        if not builder.config.locks:
            return True
        clusters = sum(1 for each in self.workerforbuilders.values() if each.builder.config.locks)
        return clusters < self.max_builds - 1

    def canStartBuild(self) -> bool:
        slots = self.conn.builders if self.conn else None
        return isinstance(slots, Slots) and len(self.workerforbuilders) < len(slots) and super().canStartBuild()

    async def reconfigServiceWithSibling(self, sibling: Any) -> None:
        await super().reconfigServiceWithSibling(sibling)
        await self.updateWorker()  # the number of its builds may have grown
        # Buildbot looks for builds before it configures workers: it has not seen what this one may do more than before.
        self.botmaster.maybeStartBuildsForWorker(self.name)

    def detached(self) -> Any:
        """Buildbot, which calls it, runs no coroutines here."""
        return defer.ensureDeferred(self._leave())

    async def _leave(self) -> None:
        """Buildbot's own notes that in the database first. A worker that connects again meanwhile is lost with its old
        connection then: it is connected, and no builder knows it.
        """
        await super().detached()
        if self.conn is not None:
            self.stopMissingTimer()
            await self.updateWorker()
            self.botmaster.maybeStartBuildsForWorker(self.name)

    async def sendBuilderList(self) -> None:
        """Have the slots made on the worker, and let every builder know it. Slots are never taken away."""
        conn: Any = self.conn
        # One for each connection: a reconfiguration may ask while an attachment waits for its answer.
        slots = conn.__dict__.setdefault("oscar_slots", Slots())
        if len(slots) < self.max_builds:
            names = [f"slot{number}" for number in range(1, self.max_builds + 1)]
            slots.offer(await conn.remoteSetBuilderList(builders=[(name, name) for name in names]))
            conn.builders = slots
        if self.conn is conn:
            for builder in self.botmaster.getBuildersForWorker(self.name):
                self.attachBuilder(builder)

    def attachBuilder(self, builder: Any) -> None:
        """Make the builder know the worker: at once, as there is nothing to be done on the worker."""
        if any(each.worker is self for each in builder.workers):
            return
        here = WorkerForBuilder(builder)
        here.remoteCommands = self.worker_commands
        here.worker = self
        here.state = States.AVAILABLE
        builder.workers.append(here)

    def buildStarted(self, here: Any) -> None:
        self.workerforbuilders[here.builder_name] = here
        self.conn.builders.take(here.builder_name)

    def buildFinished(self, here: Any) -> None:
        self.workerforbuilders.pop(here.builder_name, None)
        slots = getattr(self.conn, "builders", None)
        if isinstance(slots, Slots):  # not that of a new connection that has not been asked yet
            slots.release(here.builder_name)
        super().buildFinished(here)
