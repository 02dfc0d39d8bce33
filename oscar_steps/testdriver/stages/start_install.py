"""Step 4: start OSCAR's installer in its non-interactive command-line mode, follow it until nodes may boot."""

from __future__ import annotations

import asyncio

from oscar_steps.job import Job
from oscar_steps.oscar.answers import AnswerFiles, NodeAddress, installer_command, node_addresses, render_answers
from oscar_steps.oscar.installlog import InstallLog
from oscar_steps.testdriver.installer import Installer, Limits
from oscar_steps.testdriver.nodes import NodeBoard
from oscar_steps.testdriver.run import Run, need
from oscar_steps.v3m.cluster import ClusterProfile


def answer_files(job: Job, profile: ClusterProfile) -> AnswerFiles:
    """The answers of `job` for this cluster. Raises UserError where OSCAR would not do what is asked for."""
    nodes = [NodeAddress(node.name, node.vlan_nics[0].mac) for node in profile.nodes]
    return render_answers(**job.answers.model_dump(), nodes=nodes, boot=profile.boot.value)


def addresses(job: Job, profile: ClusterProfile) -> dict[str, str]:
    """Node name to IP address, as OSCAR will define them."""
    wanted = {"base_name", "starting_number", "padding", "head_address", "first_address", "netmask"}
    return node_addresses(**job.answers.model_dump(include=wanted), count=len(profile.nodes))


async def run_stage(run: Run) -> None:
    """Raises InstallerFailed and InstallerHung through the run's alarm; StageTimeout."""
    head, profile, speed = (
        need(run.head, "the head node"),
        need(run.profile, "the profile"),
        need(run.speed, "the speed"),
    )
    answers, timeouts = run.job.answers, run.job.timeouts
    files = answer_files(run.job, profile)
    with run.diary.step("the answers to reach the head node"):
        await head.write_files({path: (text, files.mode(path)) for path, text in files.files.items()})
    run.board = NodeBoard(addresses(run.job, profile), lambda: run.diary.elapsed)
    run.board.on_change(run.node_changed)
    log = InstallLog(expected_nodes=len(profile.nodes), boot=profile.boot.value, image_name=answers.image_name)
    limits = Limits(silence=timeouts.silence * speed.factor, log_bytes=run.job.log_limit_mib << 20)
    run.installer = installer = Installer(head, log, run.directory, run.diary, limits)
    await installer.start(installer_command(answers.oscar_home, files.arguments))
    for task in (installer.follow(run.raise_alarm), installer.watch_silence(run.raise_alarm)):
        run.in_background(task)
    deadline = speed.deadline(timeouts.install)
    with run.diary.step("OSCAR to build its image and to say that nodes may boot"):
        # An installer that ends before its --bootscript hook raises the alarm, which ends this stage.
        try:
            async with asyncio.timeout(deadline.left):
                await installer.reached_barrier.wait()
        except TimeoutError:
            raise installer.overdue(deadline.seconds) from None
