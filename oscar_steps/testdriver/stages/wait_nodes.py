"""Stage 6: the node barrier. It opens in the moment the last node answers by SSH."""

from __future__ import annotations

from oscar_steps.errors import InstallerFailed, InstallerHung
from oscar_steps.oscar import hook
from oscar_steps.testdriver.head.installer import Installer
from oscar_steps.testdriver.nodes.board import NodeBoard, NodeState
from oscar_steps.testdriver.reached import Installing
from oscar_steps.testdriver.run import Run


async def run_stage(run: Run, installing: Installing) -> None:
    """Ends when all nodes are up; a node that fails ends it through the run's alarm, within its state's own limit.

    This stage opens the barrier, because the next one waits for its command, and OSCAR need not wait for that. The
    barrier opens with the last node's banner. Meanwhile root's login, which takes a slow node a second or two, is tried
    on each node. A refusal before that keeps the barrier shut. A later one ends the run here.
    """
    board, installer = installing.board, installing.installer
    with run.diary.step("all nodes to install themselves and answer by SSH"):
        for node in board:
            await node.answers.wait()
    run.check_alarm()
    with run.holding_back(InstallerFailed, InstallerHung):  # what OSCAR does from now on is the next stage's
        await _open(run, board, installer)
        with run.diary.step("all nodes to let root in from the head node"):
            for node in board:
                await node.up.wait()
        run.diary.write("nodes-up", board.summary())
        run.check_alarm()


async def _open(run: Run, board: NodeBoard, installer: Installer) -> None:
    await installer.open_barrier(hook.open_command())
    late = run.diary.elapsed - max(node.reached(NodeState.ANSWERING) or node.since for node in board)
    run.diary.write(
        "barrier-open",
        f"barrier open, {late:.2f} s after the last node's SSH banner",
        after_last_banner=round(late, 3),
    )
