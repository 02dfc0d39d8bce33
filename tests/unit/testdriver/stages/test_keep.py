"""A cluster that is kept at the run's end: for a while, until somebody ends it, and with the run's own verdict."""

from __future__ import annotations

import asyncio
import math
from pathlib import Path
from typing import Any

import pytest

from oscar_steps.errors import HostError
from oscar_steps.testdriver.reached import Begun, Booting, Prepared
from oscar_steps.testdriver.run import Gate, Run, RunOptions
from oscar_steps.testdriver.stages import HANDLERS
from oscar_steps.verdict import Stage, Verdict
from tests.unit.testdriver.having import having
from tests.unit.testdriver.record.test_verdict import make_job, nothing
from tests.unit.testdriver.stages.test_failed_stages import Cluster, Held

MOMENT = 0.2 / 3600
"""Hours."""


def run_to_its_end(directory: Path, keep: float, kind: type[Begun] = Booting, ends: str = "") -> tuple[Verdict, Run]:
    """A run that fails after it has reached `kind`, and keeps its cluster. `ends`: why somebody ends it then."""

    async def fails(run: Run) -> None:
        made = {"cluster": Cluster()} if kind is Booting else {}
        run.reached = having(kind, room=Held(), **made)
        raise HostError("it broke")

    async def do() -> tuple[Verdict, Run]:
        run = Run(directory, make_job(), RunOptions(image_store=directory, keep=keep), Gate(open_=True))
        table: Any = dict.fromkeys(Stage, nothing)
        table |= {Stage.CREATE_IMAGE: fails, Stage.TEARDOWN: HANDLERS[Stage.TEARDOWN]}

        def listen(event: Any) -> None:
            if ends and "the cluster is kept" in event.text:
                run.hold(asyncio.ensure_future(run.cancel(ends)))

        with run.diary.listening(listen):
            async with asyncio.timeout(30):
                return await run.execute(table), run

    directory.mkdir(exist_ok=True)
    return asyncio.run(do())


def kept(run: Run) -> list[str]:
    return [event.text for event in run.diary.past if "the cluster is kept" in event.text]


def test_a_cluster_that_nobody_ends_is_ended_when_its_time_is_up(tmp_path: Path) -> None:
    verdict, run = run_to_its_end(tmp_path, MOMENT)
    (words,) = kept(run)
    assert f"`oscar-testdriver ssh {tmp_path}` logs in to its head node" in words
    assert f"`oscar-testdriver destroy {tmp_path}` ends it before" in words
    assert verdict.sentence == "it broke"
    assert run.reached.cluster.destroyed  # type: ignore[attr-defined]


@pytest.mark.parametrize("hours", [8.0, math.inf])
def test_a_cluster_that_is_ended_before_keeps_the_verdict_of_its_run(tmp_path: Path, hours: float) -> None:
    verdict, run = run_to_its_end(tmp_path, hours, ends="`oscar-testdriver destroy` was asked for")
    assert len(kept(run)) == 1
    assert verdict.sentence == "it broke"
    assert run.reached.cluster.destroyed  # type: ignore[attr-defined]


@pytest.mark.parametrize(("hours", "kind"), [(8.0, Prepared), (0.0, Booting)])
def test_where_there_is_no_cluster_or_nobody_wants_it_nothing_is_kept(
    tmp_path: Path, hours: float, kind: type[Begun]
) -> None:
    verdict, run = run_to_its_end(tmp_path, hours, kind)
    assert (verdict.sentence, kept(run)) == ("it broke", [])
