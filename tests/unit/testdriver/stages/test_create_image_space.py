"""A run does not begin where its files, or the image that it has to build, find no room."""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from oscar_steps.errors import HostError
from oscar_steps.images.store import ImageStore
from oscar_steps.job import Job, Source
from oscar_steps.matrix.cells import default_profiles, load_matrix
from oscar_steps.testdriver.run import Gate, Run, RunOptions
from oscar_steps.testdriver.stages import create_image
from oscar_steps.v3m.host import checks
from oscar_steps.verdict import Category, Outcome, Stage, Verdict

FULL, ROOMY = 4095, 4096


async def nothing(_run: Run) -> None:
    pass


def verdict_where(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, run: int, store: int, image: object = None
) -> Verdict:
    """The verdict with so many MiB free below the run's folder and the image store; building an image says so."""

    async def builds(*_arguments: object) -> Any:
        raise HostError("the image would be built")

    free = {tmp_path / "run": run, tmp_path / "store": store}
    monkeypatch.setattr(checks.shutil, "disk_usage", lambda path: SimpleNamespace(free=free[path] << 20))
    monkeypatch.setattr(checks, "_tool", lambda name, _package: checks.Check(name, True, ""))
    monkeypatch.setattr(checks, "_memory", lambda _wanted: checks.Check("memory", True, ""))
    monkeypatch.setattr(ImageStore, "find", lambda _store, _recipe: image)
    monkeypatch.setattr(ImageStore, "ensure", builds)
    for folder in free:
        folder.mkdir()
    matrix = load_matrix(default_profiles())
    cell = matrix.cells[0]
    job = Job(
        run_id="space",
        cell=cell.name,
        source=Source(url="svn://127.0.0.1/x", revision="1"),
        image=matrix.image(cell),
        cluster_xml=matrix.cluster_xml(cell),
        answers=matrix.answers(cell),
    )

    async def execute() -> Verdict:
        options = RunOptions(image_store=tmp_path / "store")
        table = dict.fromkeys(Stage, nothing) | {Stage.CREATE_IMAGE: create_image.run_stage}
        return await Run(tmp_path / "run", job, options, Gate(open_=True)).execute(table)

    return asyncio.run(execute())


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
    assert "the image would be built" in verdict.sentence
