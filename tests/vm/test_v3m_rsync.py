"""What an installation does to a VLAN: every node copies from its head node at once, in two clusters side by side.

Both clusters have the same MACs and the same addresses. RSYNC_MB is how many megabytes each node copies (20); the full
size is 200.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from oscar_steps.errors import HostError
from oscar_steps.v3m.accelerator import Accelerator
from oscar_steps.v3m.bridge import make_vlans
from oscar_steps.v3m.cluster import load_cluster
from oscar_steps.v3m.machine import DirectKernel, EndReason
from oscar_steps.v3m.runtime import VirtualCluster
from oscar_steps.v3m.settings import HostSettings, NetworkSettings, VlanKind
from tests.vm.tiny_guest import MODULES, SAMPLE, make_guest, parameters, tiny

MEGABYTES = int(os.environ.get("RSYNC_MB", "20"))
NODES = 4
LIMIT = 240 + 4 * MEGABYTES

# The head node serves when it sees all nodes, which wait for it: so they begin together. $(date) is the host's time.
COPY = f"""
    nic=eth0; [ $host = 1 ] && nic=eth1
    ip link set lo up; ip link set $nic up; ip address add 10.0.0.$host/24 dev $nic
    if [ $host = 1 ]; then
        mkdir /data; for disk in /dev/vd?; do mount -t ext4 -o ro $disk /data && break; done
        printf 'uid = 0\\ngid = 0\\nuse chroot = no\\n[data]\\npath = /data\\n' > /rsyncd.conf
        node=17; while [ $node -lt {17 + NODES} ]; do ping -c 1 -w 1 10.0.0.$node && node=$((node + 1)); done
        rsync --daemon --no-detach --config=/rsyncd.conf > /dev/console 2>&1
    fi
    mount -t tmpfs -o size=95% tmp /tmp
    until rsync rsync://10.0.0.1/data/; do sleep 0.2; done > /dev/null 2>&1
    say "begins at $(date +%s)"
    rsync --whole-file rsync://10.0.0.1/data/random /tmp/ > /dev/console 2>&1
    say "ends at $(date +%s)"
    say "has $(sha256sum < /tmp/random)"
    poweroff -f"""


@pytest.fixture(scope="module")
def copier(tmp_path_factory: pytest.TempPathFactory) -> DirectKernel:
    rsync = shutil.which("rsync")
    if rsync is None:
        pytest.skip("the program rsync is missing: apt-get install rsync")
    directory = tmp_path_factory.mktemp("copier")
    return make_guest(directory, modules=(*MODULES, "ext4"), cases={"copy": COPY}, files={"bin/rsync": Path(rsync)})


def random_disk(directory: Path) -> tuple[Path, str]:
    """A file system with the file 'random', and the file's SHA-256."""
    (directory / "data").mkdir()
    digest = hashlib.sha256()
    with (directory / "data" / "random").open("wb") as file:
        for _ in range(MEGABYTES):
            block = os.urandom(1_000_000)
            digest.update(block)
            file.write(block)
    disk = directory / "data.ext4"
    size = f"{MEGABYTES * 6 // 5 + 20}M"
    make = ["mke2fs", "-q", "-t", "ext4", "-d", directory / "data", disk, size]
    subprocess.run(make, check=True, capture_output=True)
    shutil.rmtree(directory / "data")
    return disk, digest.hexdigest()


def make_cluster(
    directory: Path, accelerator: Accelerator, kernel: DirectKernel, disk: Path, kind: VlanKind
) -> VirtualCluster:
    profile = tiny(load_cluster(SAMPLE).resized(NODES))
    nodes = tuple(replace(node, memory_mib=160 + MEGABYTES * 6 // 5) for node in profile.nodes)
    directory.mkdir()
    base = directory / "base.raw"
    base.write_bytes(bytes(1 << 20))
    settings = HostSettings(network=NetworkSettings(vlan=kind))
    profile = replace(profile, nodes=nodes)
    return VirtualCluster(profile, directory, accelerator, base, disk, kernel=kernel, settings=settings)


@pytest.mark.timeout(LIMIT + 60)
@pytest.mark.parametrize("kind", list(VlanKind))
def test_all_nodes_of_two_clusters_copy_from_their_head_nodes_at_once(
    accelerator: Accelerator, copier: DirectKernel, run_directory: Path, kind: VlanKind
) -> None:
    if kind is VlanKind.BRIDGE:
        try:
            make_vlans(["x"])
        except HostError as error:
            pytest.skip(error.explain())
    disk, sha256 = random_disk(run_directory)
    kernel = replace(copier, parameters=parameters("do=copy"))

    async def scenario() -> list[str]:
        clusters = [make_cluster(run_directory / name, accelerator, kernel, disk, kind) for name in ("a", "b")]
        nodes = [node for cluster in clusters for node in cluster.nodes]
        try:
            for cluster in clusters:
                await cluster.create()
                for machine in cluster.machines:
                    await machine.boot()
            async with asyncio.timeout(LIMIT):
                ends = await asyncio.gather(*(node.wait_ended() for node in nodes))
        finally:
            await asyncio.gather(*(cluster.destroy() for cluster in clusters))
        assert {ended.reason for ended in ends} == {EndReason.GUEST_SHUTDOWN}
        return [node.console.read_text(errors="replace") for node in nodes]

    told = asyncio.run(scenario())
    assert [re.findall(r"GUEST has (\w+)", console) for console in told] == [[sha256]] * 2 * NODES
    begins, ends = (
        [int(t) for console in told for t in re.findall(rf"GUEST {w} at (\d+)", console)] for w in ("begins", "ends")
    )
    seconds, together = max(ends) - min(begins), min(ends) - max(begins)
    if accelerator.name == "tcg":  # elsewhere it may be over in less than the clusters' boots differ
        assert together > 0
    print(f"{kind}: {2 * NODES} times {MEGABYTES} MB in {seconds} s, all at once for {together} s")
