"""Stage 8: extract logs and output, from the head node and from every node that answers. Always runs."""

from __future__ import annotations

import asyncio
import shlex
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from oscar_steps.archive import Limits, unpack
from oscar_steps.errors import FarmError, HeadNodeCutOff, HeadNodeLost, HeadNodeRebooted, HostError
from oscar_steps.oscar import hook
from oscar_steps.oscar.logs.extract import HEAD_COMMANDS, NODE_GLOBS, head_globs
from oscar_steps.testdriver.head.diskread import logs_from_disk
from oscar_steps.testdriver.head.headnode import LOCALE
from oscar_steps.testdriver.nodes.board import Node, NodeState
from oscar_steps.testdriver.reached import Booted, Booting, Installing
from oscar_steps.testdriver.run import Run
from oscar_steps.v3m.machine import MachineState

if TYPE_CHECKING:
    from oscar_steps.testdriver.head.headnode import HeadNode
    from oscar_steps.testdriver.head.installer import Installer
    from oscar_steps.v3m.machine import Machine

BUTTON_SECONDS = 10.0
"""How long a head node may take to say on its console, or by its end, that its power button means something to it."""
SHUTDOWN_SECONDS = 60.0
"""How long it may then take to shut down."""
END_SECONDS = 30.0
"""How long OSCAR's installer may take to end, when the barrier is shut or it has got TERM."""


async def run_stage(run: Run) -> None:
    """Raises FarmError where the head node was up and gave nothing."""
    logs = run.directory / "logs"
    logs.mkdir(exist_ok=True)
    reached = run.reached
    await _screenshots(run)
    if not isinstance(reached, Booted):
        run.diary.say("no head node to extract logs from; the consoles are in the run directory")
        return
    try:
        await reached.head.reconnect()
    except HeadNodeLost as lost:
        await _from_disk(run, reached.cluster.head, logs / "head", lost)
        if run.failure is None:  # nothing else is wrong, but a run without the logs of its end is not good
            raise
        return
    if isinstance(reached, Installing):
        await _shut_barrier(run, reached.installer)
    deadline = reached.speed.deadline(run.job.timeouts.extract_logs)
    with run.diary.step("logs to come from the head node"):
        await _fetch(reached.head, head_command(run.job.answers.oscar_home), logs / "head", deadline.left)
    for node in reached.board if isinstance(reached, Installing) else ():
        if node.state is NodeState.UP:
            with run.diary.step(f"logs to come from {node.name}"):
                await _from_node(run, reached.head, node, logs / node.name, deadline.left)
    count = sum(path.is_file() for path in logs.rglob("*"))
    run.diary.write("logs", f"{count} log files extracted", files=count)


LOGS = Limits(files=2000, total_bytes=512 << 20, file_bytes=32 << 20)
COMMANDS_OUTPUT = "tmp/farm-commands"


def head_command(oscar_home: str) -> str:
    """Shell line for a tar of all the files that exist. A missing file is no error, nor is one that grows meanwhile."""
    output = f"/{COMMANDS_OUTPUT}"
    commands = "; ".join(f"({line}) >{output}/{name} 2>&1" for name, line in HEAD_COMMANDS)
    globs = " ".join(glob.lstrip("/") for glob in head_globs(oscar_home))
    script = f"shopt -s globstar nullglob; cd /; mkdir -p {output}; {commands}; "
    script += f"tar -cf - --no-recursion --ignore-failed-read {globs} {COMMANDS_OUTPUT}/* 2>/dev/null | gzip -1"
    return f"bash -c {shlex.quote(script)}"


def node_command(address: str) -> str:
    """The same on a compute node, over the head node's own SSH."""
    inner = f"{LOCALE}cd / && tar -cf - $(ls -d {' '.join(NODE_GLOBS)} 2>/dev/null) 2>/dev/null || true"
    options = "-o BatchMode=yes -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o ConnectTimeout=30"
    return f"ssh -n {options} root@{address} {shlex.quote(inner)} 2>/dev/null | gzip -1"


async def _fetch(head: HeadNode, command: str, into: Path, seconds: float) -> None:
    archive = await head.read(command, seconds=max(seconds, 5.0))
    try:
        await asyncio.to_thread(unpack, archive, into, LOGS, rooted=True)
    except OSError as error:  # the host's disk is full
        raise HostError(f"the logs of {into.name} cannot be written: {error.strerror}") from error


async def _from_disk(run: Run, head: Machine, into: Path, lost: HeadNodeLost) -> None:
    """End the machine of a head node that does not answer, and read the logs from its disk. A run does without them."""
    if run.options.keep and head.state is not MachineState.OFF:
        run.diary.say(f"no logs from the head node, which is kept: {lost}; the consoles are in the run directory")
        return
    try:
        with run.diary.step("the head node to end, so that its disk can be read"):
            by_itself = await _shut_down(head)
        with run.diary.step("logs to come from the head node's disk"):
            count = await asyncio.to_thread(logs_from_disk, head.disk, into, run.job.answers.oscar_home)
    except (FarmError, OSError) as error:
        run.diary.say(f"no logs from the head node's disk: {error}; the consoles are in the run directory")
        return
    words = "" if by_itself else " (it did not shut down by itself: the last seconds may be missing)"
    run.diary.write("logs", f"{count} log files read from the head node's disk{words}: {lost}", files=count)


async def _shut_down(head: Machine) -> bool:
    """Press the power button, so that the guest writes what it still has in memory; pull the plug where it does not."""
    if head.state is MachineState.OFF:
        return False
    by_itself = False
    with suppress(FarmError, TimeoutError):
        async with asyncio.timeout(BUTTON_SECONDS):  # a hypervisor that stands still says nothing for a minute
            state = await head.status()
        if state is MachineState.RUNNING:
            said = _size(head.console)
            await head.shut_down()
            by_itself = await _ends(head, BUTTON_SECONDS)
            if not by_itself and _size(head.console) > said:
                by_itself = await _ends(head, SHUTDOWN_SECONDS)
    await head.power_off()
    return by_itself


async def _ends(head: Machine, seconds: float) -> bool:
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            return (await head.wait_ended()).by_guest
    return False


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


async def _from_node(run: Run, head: HeadNode, node: Node, into: Path, seconds: float) -> None:
    try:
        await _fetch(head, node_command(node.address), into, seconds)
    except FarmError as error:
        # A run does without the logs of its nodes: their consoles are here already.
        run.diary.say(f"no logs from {node.name}: {error}")


async def _screenshots(run: Run) -> None:
    """What a person would see on the screens of the VMs that still run. A run does without them."""
    screens = run.directory / "screens"
    screens.mkdir(exist_ok=True)
    for machine in run.reached.cluster.machines if isinstance(run.reached, Booting) else ():
        try:
            await machine.screenshot(screens / f"{machine.name}.png")
        except (FarmError, OSError) as error:
            run.diary.write("no-screenshot", "", machine=machine.name, why=str(error))


async def _shut_barrier(run: Run, installer: Installer) -> None:
    """Where the run failed while OSCAR waits at the barrier: shut it, so that OSCAR ends with its own words."""
    if run.failure is None or installer.ended.is_set():
        return
    # Its installer is gone, and its process ids are others'; or what knows of the installer is gone.
    if isinstance(run.failure, (HeadNodeRebooted, HeadNodeCutOff)):
        return
    try:
        if installer.reached_barrier.is_set() and not installer.barrier_is_open:
            await installer.open_barrier(hook.shut_command(run.failure.sentence))
        else:
            await installer.end()
        async with asyncio.timeout(END_SECONDS):
            await installer.ended.wait()
    except (TimeoutError, FarmError) as error:
        why = str(error) or f"it still runs after {END_SECONDS:.0f} s"
        run.diary.say(f"OSCAR's installer did not end by itself: {why}")
