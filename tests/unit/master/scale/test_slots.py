"""A worker has a slot for each build at a time, however many cells there are, and one is for the first tier."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from buildbot.process.workerforbuilder import States
from buildbot.util.subscription import SubscriptionPoint
from buildbot.worker.protocols import pb
from twisted.internet import defer

from oscar_steps.master.scale.slots import Slots, SlotWorker


class Connection(pb.Connection):
    """A connection of Buildbot's own whose worker notes what it is asked for."""

    def __init__(self) -> None:
        self.asked: list[list[tuple[str, str]]] = []
        self.called: list[tuple[Any, ...]] = []
        self.mind = SimpleNamespace(callRemote=self._answer)

    def _answer(self, what: str, builders: list[tuple[str, str]]) -> Any:
        assert what == "setBuilderList"
        self.asked.append(builders)
        return defer.succeed({name: self._remote(name) for name, _folder in builders})

    def _remote(self, slot: str) -> Any:
        return SimpleNamespace(callRemote=lambda *words: self.called.append((slot, *words)))


class Builder:
    def __init__(self, name: str, *locks: object) -> None:
        self.name = name
        self.config = SimpleNamespace(locks=list(locks))
        self.workers: list[Any] = []


class Alone(SlotWorker):
    """A worker without a master's service tree."""

    botmaster: Any = None
    master: Any = None


def attached(builders: list[Builder], builds: int = 2) -> Any:
    worker: Any = Alone("w", "secret", max_builds=builds + 1)
    worker.checkConfig("w", "secret", max_builds=builds + 1)
    worker.botmaster = SimpleNamespace(getBuildersForWorker=lambda _name: builders, maybeStartBuildsForWorker=str)
    worker.locks = []
    worker.conn = Connection()
    asyncio.run(worker.sendBuilderList())
    return worker


def test_a_worker_is_asked_for_as_many_slots_as_builds_and_knows_all_cells() -> None:
    builders = [Builder(f"c{number}", "lock") for number in range(3000)]
    worker = attached(builders)
    assert worker.conn.asked == [[("slot1", "slot1"), ("slot2", "slot2"), ("slot3", "slot3")]]
    assert all(builder.workers[0].isAvailable() for builder in builders)
    asyncio.run(worker.sendBuilderList())
    assert len(worker.conn.asked) == 1
    assert all(len(builder.workers) == 1 for builder in builders)


def test_commands_of_a_build_go_to_its_slot_and_a_slot_has_one_build() -> None:
    builders = [Builder(f"c{number}", "lock") for number in range(9)]
    worker = attached(builders)
    for builder in builders[3:5]:
        builder.workers[0].buildStarted()
        worker.conn.remoteStartBuild(builder.name)
    assert worker.conn.called == [("slot1", "startBuild"), ("slot2", "startBuild")]
    builders[3].workers[0].buildFinished()
    builders[7].workers[0].buildStarted()
    worker.conn.remoteInterruptCommand("c7", "17", "enough")
    assert worker.conn.called[-1] == ("slot1", "interruptCommand", "17", "enough")


def test_clusters_leave_a_slot_to_the_first_tier_and_all_slots_taken_is_full() -> None:
    cells, lint = [Builder(f"c{number}", "lock") for number in range(4)], Builder("lint")
    worker = attached([*cells, lint])
    for cell in cells[:2]:
        assert worker.room_for(cell)
        cell.workers[0].buildStarted()
    assert not worker.room_for(cells[2])
    assert worker.room_for(lint) and lint.workers[0].isAvailable()
    lint.workers[0].buildStarted()
    assert not worker.canStartBuild()
    cells[0].workers[0].buildFinished()
    assert worker.canStartBuild() and worker.room_for(cells[2])


def test_more_builds_after_a_reconfiguration_get_more_slots_and_running_builds_keep_theirs() -> None:
    cells = [Builder(f"c{number}", "lock") for number in range(4)]
    worker = attached(cells, builds=1)
    cells[0].workers[0].buildStarted()
    worker.max_builds = 4
    asyncio.run(worker.sendBuilderList())
    assert len(worker.conn.builders) == 4
    worker.conn.remoteStartBuild("c0")
    assert worker.conn.called == [("slot1", "startBuild")]
    worker.max_builds = 2
    asyncio.run(worker.sendBuilderList())
    assert len(worker.conn.builders) == 4, "a build may have one of them"


def test_a_reconfiguration_while_the_worker_answers_takes_no_slot_from_a_build() -> None:
    cells = [Builder("c0", "lock")]
    worker = attached(cells)
    answers: list[Any] = []

    def ask(_what: str, builders: list[tuple[str, str]]) -> Any:
        answers.append(defer.Deferred())
        return answers[-1].addCallback(lambda _: {name: worker.conn._remote(name) for name, _folder in builders})

    worker.conn = Connection()
    worker.conn.mind = SimpleNamespace(callRemote=ask)
    cells[0].workers.clear()
    both = [defer.ensureDeferred(worker.sendBuilderList()) for _ in ("attached", "reconfigured")]
    answers[0].callback(None)
    cells[0].workers[0].buildStarted()
    answers[-1].callback(None)
    assert all(each.called for each in both)
    worker.conn.remoteStartBuild("c0")
    assert worker.conn.called == [("slot1", "startBuild")]


def test_a_worker_that_comes_again_while_the_database_notes_its_going_is_known_to_the_builders() -> None:
    cells = [Builder("c0", "lock")]
    worker, noted, looked = attached(cells), defer.Deferred(), []

    def lost(_worker: Any) -> None:
        for here in cells[0].workers:
            here.detached()
        cells[0].workers.clear()

    builders = worker.botmaster.getBuildersForWorker
    worker.botmaster = SimpleNamespace(
        getBuildersForWorker=builders, maybeStartBuildsForWorker=looked.append, workerLost=lost
    )
    updates = SimpleNamespace(workerDisconnected=lambda **_: noted)
    worker.master, worker.workerid = SimpleNamespace(data=SimpleNamespace(updates=updates), masterid=1), 1
    worker.conn.waitShutdown = lambda: defer.succeed(None)
    disconnected = SubscriptionPoint("as a connection has one")
    disconnected.subscribe(worker.detached)
    disconnected.deliver()
    worker.conn = Connection()
    asyncio.run(worker.sendBuilderList())
    noted.callback(None)
    assert disconnected.waitForDeliveriesToFinish().called
    assert cells[0].workers[0].isAvailable()
    assert looked == ["w"]


def test_a_reconfiguration_has_builds_looked_for_on_the_worker_when_it_knows_its_new_capacity(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    worker, seen = attached([Builder("c0", "lock")]), []

    async def reconfigured(self: Any, _sibling: Any) -> None:
        self.max_builds = 7

    monkeypatch.setattr(SlotWorker.__mro__[1], "reconfigServiceWithSibling", reconfigured)
    worker.botmaster.maybeStartBuildsForWorker = lambda name: seen.append((name, len(worker.conn.builders)))
    asyncio.run(worker.reconfigServiceWithSibling(None))
    assert seen == [("w", 7)]


def test_a_worker_that_is_lost_forgets_its_builds() -> None:
    cells = [Builder(f"c{number}", "lock") for number in range(2)]
    worker = attached(cells)
    here = cells[0].workers[0]
    here.buildStarted()
    worker.conn = None
    assert not worker.canStartBuild()
    here.detached()
    assert here.state is States.DETACHED
    assert worker.workerforbuilders == {}


def test_a_builder_without_a_build_has_no_slot() -> None:
    with pytest.raises(KeyError):
        Slots().get("c1")
