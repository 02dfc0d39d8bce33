"""A run does not begin where its files, or the image that it has to build, find no room."""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from oscar_steps.errors import HostError
from oscar_steps.images.key import ImageKey
from oscar_steps.images.store import ImageStore
from oscar_steps.job import Job, Source, Timeouts
from oscar_steps.matrix.cells import default_profiles, load_matrix
from oscar_steps.testdriver.run import Gate, Run, RunOptions
from oscar_steps.testdriver.stages import create_image, teardown
from oscar_steps.v3m.host import checks, reservations
from oscar_steps.v3m.host.accelerator import Accelerator
from oscar_steps.v3m.host.reservations import Reservation, Reservations, Room
from oscar_steps.verdict import Category, Outcome, Stage, Verdict

FULL, ROOMY = 4095, 4096


async def nothing(_run: Run) -> None:
    pass


def job(head_mib: int = 1024, timeouts: Timeouts | None = None) -> Job:
    matrix = load_matrix(default_profiles())
    cell = matrix.cells[0]
    return Job(
        run_id="space",
        cell=cell.name,
        source=Source(url="svn://127.0.0.1/x", revision="1"),
        image=matrix.image(cell),
        cluster_xml=matrix.cluster_xml(cell).replace("<memory>1024</memory>", f"<memory>{head_mib}</memory>"),
        answers=matrix.answers(cell),
        timeouts=timeouts or Timeouts(),
    )


def execute(tmp_path: Path, a_job: Job, **stages: Any) -> Verdict:
    """The verdict of a run that prepares, and does nothing in its other stages but what `stages` says."""

    async def run() -> Verdict:
        options = RunOptions(image_store=tmp_path / "store")
        table = dict.fromkeys(Stage, nothing) | {Stage.CREATE_IMAGE: create_image.run_stage}
        table |= {Stage[name.upper()]: handler for name, handler in stages.items()}
        return await Run(tmp_path / "run", a_job, options, Gate(open_=True)).execute(table)

    return asyncio.run(run())


def verdict_where(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, run: int, store: int, image: object = None
) -> Verdict:
    """The verdict with so many MiB free below the run's folder and the image store; building an image says so."""

    async def key_of(_store: ImageStore, recipe: Any, **_how: bool) -> ImageKey:
        return ImageKey(recipe.model_dump(mode="json"), {}, {})

    def found(_store: ImageStore, _key: str, **_more: object) -> object:
        if image is not None:
            raise HostError("the image would be used")
        return None

    async def builds(*_arguments: object) -> Any:
        raise HostError("the image would be built")

    free = {tmp_path / "run": run, tmp_path / "store": store}
    monkeypatch.setattr(checks.shutil, "disk_usage", lambda path: SimpleNamespace(free=free[path] << 20))
    monkeypatch.setattr(checks, "_tool", lambda name, _package: checks.Check(name, True, ""))
    monkeypatch.setattr(checks, "_memory", lambda _wanted: checks.Check("memory", True, ""))
    monkeypatch.setattr(ImageStore, "key_of", key_of)
    monkeypatch.setattr(ImageStore, "find", found)
    monkeypatch.setattr(ImageStore, "_build", builds)
    monkeypatch.setenv("OSCAR_FARM_IMAGES_GIB", "1")
    for folder in free:
        folder.mkdir()
    return execute(tmp_path, job())


@pytest.mark.parametrize(
    ("run", "store", "said"),
    [
        (FULL, ROOMY, "4095 MiB are free in {}/run, a run needs 4096 MiB"),
        (ROOMY, FULL, "4095 MiB are free in {}/store, the base image debian-12-x86_64 needs 4096 MiB"),
    ],
)
def test_a_run_without_room_for_it_or_for_its_image_does_not_begin_and_blames_the_host(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run: int, store: int, said: str
) -> None:
    verdict = verdict_where(tmp_path, monkeypatch, run=run, store=store)
    assert (verdict.outcome, verdict.category) == (Outcome.INFRASTRUCTURE, Category.HOST)
    assert said.format(tmp_path) in verdict.sentence


def test_a_host_with_just_enough_room_builds_the_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    verdict = verdict_where(tmp_path, monkeypatch, run=ROOMY, store=ROOMY)
    assert "the image would be built" in verdict.sentence


def test_a_full_image_store_that_has_the_image_stops_no_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    verdict = verdict_where(tmp_path, monkeypatch, run=ROOMY, store=0, image=object())
    assert "the image would be used" in verdict.sentence


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Reservations:
    """A host of 4000 MiB that has all a run needs, the base image too."""
    image = SimpleNamespace(digest="x", kernel=tmp_path / "vmlinuz", record=SimpleNamespace(manifest=""))

    async def found(*_arguments: object) -> Any:
        return image

    async def accelerator(*_arguments: object) -> Accelerator:
        return Accelerator("tcg", "emulation", 2.0)

    for folder in ("lock", "run", "store"):
        (tmp_path / folder).mkdir()
    host = Reservations(tmp_path / "lock", Room(4000, 4))
    monkeypatch.setattr(reservations, "free_memory_mib", lambda: 1 << 30)
    monkeypatch.setattr(Reservations, "of_host", lambda **_: host)
    monkeypatch.setattr(checks, "_tool", lambda name, _package: checks.Check(name, True, ""))
    monkeypatch.setattr(ImageStore, "ensure", found)
    monkeypatch.setattr(create_image, "look_ahead", found)
    monkeypatch.setattr(create_image, "find_accelerator", accelerator)
    return host


def test_a_cluster_bigger_than_its_host_is_the_host_s_fault_whatever_its_worker_has_said(
    tmp_path: Path, host: Reservations
) -> None:
    assert host.room.memory_mib == 4000
    verdict = execute(tmp_path, job(head_mib=1 << 20))
    assert (verdict.outcome, verdict.category) == (Outcome.INFRASTRUCTURE, Category.HOST)
    assert "the cluster needs 1025.2 GiB of memory, this host has 3.9 GiB for machines in all" in verdict.sentence


def test_a_run_has_its_part_of_the_host_from_before_its_first_machine_to_its_teardown(
    tmp_path: Path, host: Reservations
) -> None:
    seen: list[list[Reservation]] = []

    async def look(_run: Run) -> None:
        seen.append(await host.all())

    async def ends(run: Run) -> None:
        await look(run)
        await teardown.run_stage(run)
        await look(run)

    execute(tmp_path, job(), boot_headnode=look, teardown=ends)
    assert [[(each.what, each.memory_mib, each.processors, each.granted) for each in all_] for all_ in seen] == [
        [("run space", 2304, 4.0, True)],
        [("run space", 2304, 4.0, True)],
        [],
    ]


def test_a_run_that_gets_no_room_is_infrastructure_with_who_has_it_and_is_no_failure_of_oscar_s(
    tmp_path: Path, host: Reservations
) -> None:
    other = asyncio.run(host.note("run of somebody", Room(3000, 1)))
    verdict = execute(tmp_path, job(timeouts=Timeouts(room=0.2)))
    other.release()
    assert (verdict.outcome, verdict.category, verdict.stage) == (
        Outcome.INFRASTRUCTURE,
        Category.HOST,
        Stage.CREATE_IMAGE,
    )
    assert "waiting for 2.2 GiB of memory: run of somebody of user" in verdict.sentence
    assert "waiting for 2.2 GiB of memory: run of somebody" in (tmp_path / "run" / "events.jsonl").read_text()
