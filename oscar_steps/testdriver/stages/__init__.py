"""The stages of a run, one module each, in the order of `oscar_steps.words.Stage`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

from oscar_steps.testdriver.reached import Begun, Booted, CheckedOut, Installing, Prepared
from oscar_steps.testdriver.run import Run
from oscar_steps.testdriver.stages import (
    boot_headnode,
    boot_nodes,
    checkout,
    create_image,
    extract_logs,
    finalize,
    start_install,
    teardown,
    wait_nodes,
)
from oscar_steps.verdict import Stage

_Reached = TypeVar("_Reached", bound=Begun)
Handler = Callable[[Run], Awaitable[None]]


def _after(needed: type[_Reached], stage: Callable[[Run, _Reached], Awaitable[None]]) -> Handler:
    """`stage` with what the stages before it have made."""

    async def handler(run: Run) -> None:
        assert isinstance(run.reached, needed), f"{needed.__name__} is needed, {run.reached} is there"
        await stage(run, run.reached)

    return handler


HANDLERS: dict[Stage, Handler] = {
    Stage.CREATE_IMAGE: create_image.run_stage,
    Stage.BOOT_HEADNODE: _after(Prepared, boot_headnode.run_stage),
    Stage.CHECKOUT: _after(Booted, checkout.run_stage),
    Stage.START_INSTALL: _after(CheckedOut, start_install.run_stage),
    Stage.BOOT_NODES: _after(Installing, boot_nodes.run_stage),
    Stage.WAIT_NODES: _after(Installing, wait_nodes.run_stage),
    Stage.FINALIZE: _after(Installing, finalize.run_stage),
    Stage.EXTRACT_LOGS: extract_logs.run_stage,
    Stage.TEARDOWN: teardown.run_stage,
}
