"""Step 6: the node barrier. It opens in the moment the last node answers by SSH."""

from __future__ import annotations

from oscar_steps.testdriver.run import Run, need


async def run_stage(run: Run) -> None:
    """Ends when all nodes are up; a node that fails ends it through the run's alarm, within its state's own limit."""
    board = need(run.board, "the nodes")
    with run.diary.step("all nodes to install themselves and answer by SSH"):
        for node in board:
            await node.up.wait()
    run.diary.write("nodes-up", board.summary())
