"""The stages of a run, one module each, in the order of `oscar_steps.verdict.Stage`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

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

HANDLERS: dict[Stage, Callable[[Run], Awaitable[None]]] = {
    Stage.CREATE_IMAGE: create_image.run_stage,
    Stage.BOOT_HEADNODE: boot_headnode.run_stage,
    Stage.CHECKOUT: checkout.run_stage,
    Stage.START_INSTALL: start_install.run_stage,
    Stage.BOOT_NODES: boot_nodes.run_stage,
    Stage.WAIT_NODES: wait_nodes.run_stage,
    Stage.FINALIZE: finalize.run_stage,
    Stage.EXTRACT_LOGS: extract_logs.run_stage,
    Stage.TEARDOWN: teardown.run_stage,
}
