"""Step 6: the node barrier. It opens in the moment the last node answers by SSH."""

from __future__ import annotations

from oscar_steps.errors import InstallerFailed, InstallerHung
from oscar_steps.oscar import hook
from oscar_steps.testdriver.head.installer import Installer
from oscar_steps.testdriver.nodes.board import NodeBoard, NodeState
from oscar_steps.testdriver.reached import Installing
from oscar_steps.testdriver.run import Run


async def run_stage(run: Run, installing: Installing) -> None:
    """Ends when all nodes are up; a node that fails ends it through the run's alarm, within its state's own limit.

    The barrier is opened here and not by the next stage: that one waits for its command, OSCAR need not. It
    opens with the last node's banner. Root's login, which a slow node needs a second or two for, is tried on each node
    as it comes up: one that was refused before keeps the barrier shut, one that is refused later ends the run here.
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
