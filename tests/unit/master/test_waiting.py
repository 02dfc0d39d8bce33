"""Why a cell waits, and when it might run."""

from __future__ import annotations

import asyncio
import json
import time
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest

from oscar_steps.capacity import INFO_FILE, Need
from oscar_steps.master import again
from oscar_steps.master.fair import memory_of
from oscar_steps.master.fitting import CellFits, Describing
from oscar_steps.master.schedules.names import ONLY_ON
from oscar_steps.master.waiting import WaitingCell, lines_of, waiting_cells
from oscar_steps.master.web.standing import Standing
from oscar_steps.master.web.standing_page import Queue, html_of

NOW = 1_800_000_000.0
PC = {"architectures": {"x86_64": "tcg", "i386": "tcg"}, "hypervisors": ["Qemu"], "memory_mib": 4096, "processors": 2}


class Worker(Describing):
    max_builds = 3
    quarantine_timer: Any = None

    def __init__(self, name: str, *, there: bool = True, paused: bool = False, room: bool = True) -> None:
        self.name, self.paused, self.room = name, paused, room
        self.conn = object() if there else None
        self.master = SimpleNamespace(reactor=SimpleNamespace(seconds=lambda: 0.0))
        self.hear_of_host({INFO_FILE: json.dumps(PC)})

    def isPaused(self) -> bool:
        return self.paused

    def room_for(self, _builder: Any) -> bool:
        return self.room


class Builder:
    def __init__(self, number: int, name: str, architecture: str, *workers: str) -> None:
        self.number, self.name, self.building = number, name, list[Any]()
        fits = CellFits(lambda _nodes: Need(architecture=architecture, memory_mib=2304), again.may_begin_here)
        self.config = SimpleNamespace(canStartBuild=fits, workernames=workers, locks=["clusters"], tags=[])

    async def getBuilderId(self) -> int:
        return self.number


def at(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


def farm(workers: list[Worker], builders: list[Builder], requests: list[tuple[int, dict[str, Any]]]) -> Any:
    """A master whose builders have these requests, by the builder's number, with their properties."""
    rows = [
        {"buildrequestid": n, "builderid": builder, "buildsetid": n, "submitted_at": at(NOW - 60)}
        for n, (builder, _) in enumerate(requests)
    ]
    answers: dict[tuple[Any, ...], Any] = {("buildrequests",): rows}
    for n, (_, properties) in enumerate(requests):
        answers["buildsets", n, "properties"] = {name: (value, "x") for name, value in properties.items()}

    async def get(path: tuple[Any, ...], **_how: Any) -> Any:
        return answers[path]

    by_number = {builder.number: builder for builder in builders}
    master = SimpleNamespace(
        data=SimpleNamespace(get=get),
        workers=SimpleNamespace(workers={worker.name: worker for worker in workers}),
        botmaster=SimpleNamespace(getBuilderById=by_number.get, builders={each.name: each for each in builders}),
    )
    memory_of(master).complete = True
    return master


@pytest.fixture(autouse=True)
def _now(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "time", lambda: NOW)


def why(master: Any) -> tuple[bool, str]:
    ((cell,), more) = asyncio.run(waiting_cells(master))
    assert more == []
    return cell.stuck, cell.why


def test_a_cell_that_no_worker_can_take_says_what_each_of_them_lacks() -> None:
    workers = [Worker("w1"), Worker("w2", there=False), Worker("w3", paused=True)]
    master = farm(workers, [Builder(1, "c", "aarch64", "w1", "w2", "w3")], [(1, {})])
    stuck, said = why(master)
    assert stuck
    assert said.startswith("no connected worker can take it: w1 has the architectures x86_64, i386, not aarch64; ")
    assert "w2 is not connected" in said
    paused = farm(workers[2:], [Builder(1, "c", "i386", "w3")], [(1, {})])
    assert why(paused) == (True, "no connected worker can take it: w3 is paused")


def running(worker: Worker, number: int) -> Any:
    return SimpleNamespace(buildid=number, workerforbuilder=SimpleNamespace(worker=worker))


def test_a_full_worker_says_how_many_clusters_it_has_and_when_the_next_one_ends() -> None:
    worker = Worker("w1", room=False)
    other, builder = Builder(2, "other", "i386", "w1"), Builder(1, "c", "i386", "w1")
    other.building = [running(worker, 8), running(worker, 9)]
    spans = {2: [300, 600, 9000]}
    begun = {("builds", 8): {"started_at": at(NOW - 360)}, ("builds", 9): {"started_at": at(NOW - 10)}}
    master = farm([worker], [builder, other], [(1, {})])
    ask = master.data.get

    async def get(path: tuple[Any, ...], **how: Any) -> Any:
        return begun[path] if path in begun else await ask(path, **how)

    async def do(_query: Any, _model: Any, builder: int) -> Any:
        return spans[builder]

    master.data.get, master.db = get, SimpleNamespace(model=None, pool=SimpleNamespace(do=do))
    full = "w1 is full: 2 of 2 clusters"
    assert why(master) == (False, f"{full}; the next of them ends in about 4 min (median of its last runs)")
    begun["builds", 8] = {"started_at": at(NOW - 4000)}
    assert why(master)[1] == f"{full}; the next of them is late (by the median of its last runs)"
    spans[2] = []
    assert why(master)[1] == full


def test_a_build_that_wants_the_image_of_one_worker_waits_for_that() -> None:
    builder = Builder(1, "c", "i386", "w1", "w2")
    master = farm([Worker("w1"), Worker("w2")], [builder], [(1, {ONLY_ON: "w2"})])
    assert why(master) == (False, "w1 has not the old image, which a search wants; w2 can begin it")


def test_a_cell_without_an_image_a_retry_and_a_worker_in_quarantine_say_for_how_long() -> None:
    worker, builder = Worker("w1"), Builder(1, "c", "i386", "w1")
    master = farm([worker], [builder], [(1, {})])
    assert why(master) == (False, "w1 can begin it")
    for _ in range(2):
        memory_of(master).image_ended("c", NOW, failed=True)
    assert "its last 2 builds got no further than the base image: the next one begins in 2 min; " in why(master)[1]
    retry = farm([worker], [builder], [(1, {again.NOT_BEFORE: NOW + 600, again.NOT_ON: ["w1"]})])
    said = why(retry)[1]
    assert said.startswith("the farm failed it before: it is tried again in 10 min; w1 failed this build before")
    worker.quarantine_timer = SimpleNamespace(getTime=lambda: 40.0)
    assert why(retry)[1].endswith("w1 has failed a build and takes none for 40 s")


def test_the_first_hundred_are_explained_and_the_others_counted() -> None:
    builders = [Builder(n, f"c{n:03}", "i386", "w1") for n in range(120)]
    cells, more = asyncio.run(waiting_cells(farm([Worker("w1")], builders, [(n, {}) for n in range(120)])))
    assert ([cells[0].cell, len(cells)], more[0], len(more)) == (["c000", 100], "c100", 20)
    assert lines_of(cells[:1], len(more)) == ["c000 (1 build): w1 can begin it", "... and 20 more"]


def test_the_page_shows_who_waits_and_why_and_makes_no_html_of_it() -> None:
    cell = WaitingCell("c<1>", 2, NOW - 7200, stuck=True, why="no connected worker can take it: <w> & co")
    page = html_of(Standing().model_dump() | {"trouble": ""}, NOW, Queue([cell], 3))
    assert "c&lt;1&gt;" in page and "&lt;w&gt; &amp; co" in page and "<w>" not in page
    assert "2 hours" in page and "3 more cells wait behind these" in page and "4 cells wait" in page
    empty = html_of(Standing().model_dump() | {"trouble": ""}, NOW)
    assert "Cells that wait" in empty and "None." in empty
    broken = html_of(Standing().model_dump() | {"trouble": ""}, NOW, Queue(trouble="the list cannot be made"))
    assert "the list cannot be made" in broken
