"""However far a run came before it failed: its logs are asked for, and what it has made is ended."""

from __future__ import annotations

import asyncio
from dataclasses import fields
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from oscar_steps.errors import HeadNodeLost, HostError
from oscar_steps.testdriver.reached import Begun, Booted, Booting, CheckedOut, Installing, Prepared
from oscar_steps.testdriver.run import Run
from oscar_steps.testdriver.stages import HANDLERS
from oscar_steps.v3m.machine import MachineState
from oscar_steps.verdict import Outcome, Stage, StageResult
from tests.unit.testdriver.having import having
from tests.unit.testdriver.record.test_verdict import execute


class Cluster:
    """A cluster whose head node is off, and whose end is noted."""

    machines = ()
    head = SimpleNamespace(state=MachineState.OFF, disk=Path("no disk"))

    def __init__(self) -> None:
        self.destroyed = False

    async def destroy(self) -> None:
        self.destroyed = True


class Head:
    """An SSH connection that is lost, and whose end is noted."""

    connected = closed = False

    async def reconnect(self) -> None:
        raise HeadNodeLost("the head node does not answer")

    def close(self) -> None:
        self.closed = True


class Held:
    """What is reserved of the host, whose end is noted."""

    released = False

    def release(self) -> None:
        self.released = True


@pytest.mark.parametrize("kind", [Begun, Prepared, Booting, Booted, CheckedOut, Installing])
def test_after_any_failure_the_cluster_and_the_connection_that_exist_by_then_are_ended(
    tmp_path: Path, kind: type[Begun]
) -> None:
    cluster, head, room = Cluster(), Head(), Held()
    given = {
        "room": room,
        "cluster": cluster,
        "head": head,
        "board": (),
        "installer": SimpleNamespace(ended=asyncio.Event()),
    }

    async def fails(run: Run) -> None:
        run.reached = having(kind, **{field.name: given[field.name] for field in fields(kind) if field.name in given})
        raise HostError("it broke")

    always = {stage.name.lower(): HANDLERS[stage] for stage in Stage if stage.always_runs}
    verdict, _ = execute(tmp_path, create_image=fails, **always)
    results = {report.stage: report.result for report in verdict.stages}
    assert (verdict.sentence, verdict.stage) == ("it broke", Stage.CREATE_IMAGE)
    assert {results[stage] for stage in Stage if stage.always_runs} == {StageResult.PASSED}
    assert cluster.destroyed == issubclass(kind, Booting)
    assert head.closed == issubclass(kind, Booted)
    assert room.released == issubclass(kind, Prepared)


def test_a_stage_that_does_not_get_what_it_needs_is_a_bug_of_the_farm(tmp_path: Path) -> None:
    verdict, _ = execute(tmp_path, checkout=HANDLERS[Stage.CHECKOUT])
    assert (verdict.outcome, verdict.stage) == (Outcome.INFRASTRUCTURE, Stage.CHECKOUT)
    assert "the farm has a bug in the stage checkout: AssertionError: Booted is needed" in verdict.sentence


@pytest.mark.parametrize(
    ("kind", "ended", "runs"),
    [(Installing, False, True), (Installing, True, False), (CheckedOut, False, False)],
)
def test_oscars_installer_runs_from_its_start_to_its_end(kind: type[Begun], ended: bool, runs: bool) -> None:
    installer = SimpleNamespace(ended=SimpleNamespace(is_set=lambda: ended))
    reached = having(kind, **({"installer": installer} if kind is Installing else {}))
    found: Any = Run.running_installer.fget(SimpleNamespace(reached=reached))  # type: ignore[attr-defined]
    assert found is (installer if runs else None)
