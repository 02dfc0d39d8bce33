"""Stage 5: boot the virtual compute nodes, from the CD-ROM that OSCAR made or from the network."""

from __future__ import annotations

import asyncio
from pathlib import Path

from oscar_steps.errors import InstallerFailed
from oscar_steps.testdriver.cleanup import BOOT_CD_FILE
from oscar_steps.testdriver.head.check import HeadCheck, head_rebooted
from oscar_steps.testdriver.nodes.head_logs import follow_dhcp_log, follow_rsyncd_log
from oscar_steps.testdriver.nodes.ssh_probe import SshProbe
from oscar_steps.testdriver.nodes.watch import NodeWatch
from oscar_steps.testdriver.reached import Installing
from oscar_steps.testdriver.run import Run
from oscar_steps.v3m.profiles.vm import BootDevice

BOOT_CD = "/tmp/oscar_bootcd.iso"  # where OSCAR always puts it (si_mkautoinstallcd --out-file), one for all nodes


async def run_stage(run: Run, installing: Installing) -> None:
    """Raises InstallerFailed where OSCAR made no CD."""
    head, cluster, board = installing.head, installing.cluster, installing.board
    cd = await _fetch_cd(run, installing) if installing.profile.boot is BootDevice.CDROM else None
    board.learn_macs({machine.name: machine.profile.vlan_nics[0].mac for machine in cluster.nodes})
    check, probe = (
        HeadCheck(head),
        SshProbe(head, board, lambda: head_rebooted(run.running_installer, run.diary.current_step)),
    )
    run.in_background(follow_rsyncd_log(head, board, run.raise_alarm))
    run.in_background(follow_dhcp_log(head, board, run.raise_alarm, run.directory))
    run.in_background(probe.follow(run.raise_alarm))
    for machine in cluster.nodes:
        watch = NodeWatch(
            machine, board, head, check, probe,
            timeouts=run.job.timeouts, speed=installing.speed, directory=run.directory, cd=cd, alarm=run.raise_alarm,
        )  # fmt: skip
        run.in_background(watch.watch())
    with run.diary.step(f"{len(cluster.nodes)} compute nodes to be powered on"):
        await asyncio.gather(*(node.powered_on.wait() for node in board))


async def _fetch_cd(run: Run, installing: Installing) -> Path:
    head = installing.head
    if not (await head.run(f"test -s {BOOT_CD}")).ok:
        raise InstallerFailed(
            f"OSCAR said that nodes may boot, but it did not make the CD {BOOT_CD}",
            oscar_stage="network",
        )
    with run.diary.step("OSCAR's boot CD to come from the head node"):
        image = await head.read(f"cat {BOOT_CD}", seconds=installing.speed.deadline(180).seconds)
    path = run.directory / BOOT_CD_FILE
    path.write_bytes(image)
    run.diary.write("boot-cd", f"OSCAR's boot CD: {len(image) / 1e6:.0f} MB", bytes=len(image))
    return path
