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
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from oscar_steps.environment import tool_environment
from oscar_steps.errors import HostError
from oscar_steps.v3m.boot import DirectKernel
from oscar_steps.v3m.host.accelerator import Accelerator
from oscar_steps.v3m.host.settings import HostSettings, NetworkSettings, ToHost, VlanKind
from oscar_steps.v3m.host.taps import make_vlans
from oscar_steps.v3m.machine import EndReason
from oscar_steps.v3m.profiles.cluster import load_cluster
from oscar_steps.v3m.runtime import VirtualCluster
from tests.vm.tiny_guest import MODULES, SAMPLE, make_guest, parameters, tiny

MEGABYTES = int(os.environ.get("RSYNC_MB", "20"))
NODES = 4
LIMIT = 240 + 4 * MEGABYTES

# A node stands at its head node's gate when the daemon has taken its wish, before the first byte: the daemon asks the
# host, which answers when all nodes of all clusters stand there. So they copy at once however fast each cluster boots.
COPY = """
    nic=eth0; [ $host = 1 ] && nic=eth1
    ip link set lo up; ip link set $nic up; ip address add 10.0.0.$host/24 dev $nic
    if [ $host = 1 ]; then
        ip link set eth0 up; ip address add 10.0.2.15/24 dev eth0
        mkdir /data; for disk in /dev/vd?; do mount -t ext4 -o ro $disk /data && break; done
        printf '#!/bin/sh\\n[ "$(nc 10.0.2.2 '$gate' < /dev/null)" = open ]\\n' > /bin/gate; chmod +x /bin/gate
        printf 'uid = 0\\ngid = 0\\nuse chroot = no\\n[data]\\npath = /data\\npre-xfer exec = gate\\n' > /rsyncd.conf
        rsync --daemon --no-detach --config=/rsyncd.conf > /dev/console 2>&1
    fi
    mount -t tmpfs -o size=95% tmp /tmp
    until rsync rsync://10.0.0.1/; do sleep 0.2; done > /dev/null 2>&1
    rsync --whole-file rsync://10.0.0.1/data/random /tmp/ > /dev/console 2>&1
    say "has $(sha256sum < /tmp/random)"
    poweroff -f"""


class Gate:
    """A server on the host that lets whoever comes wait, and opens for all when as many as it needs are there."""

    def __init__(self, needs: int) -> None:
        self.opened = asyncio.Event()
        self._needs = needs
        self._there = 0

    @asynccontextmanager
    async def port(self) -> AsyncIterator[int]:
        async with await asyncio.start_server(self._let_through, "127.0.0.1", 0) as server:
            yield server.sockets[0].getsockname()[1]

    async def _let_through(self, _: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._there += 1
        if self._there == self._needs:
            self.opened.set()
        await self.opened.wait()
        writer.write(b"open\n")
        await writer.drain()
        writer.close()


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
    subprocess.run(make, check=True, capture_output=True, env=tool_environment())  # it is in sbin
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
    settings = HostSettings(network=NetworkSettings(vlan=kind, to_host=ToHost.OPEN))
    profile = replace(profile, nodes=nodes)
    return VirtualCluster(profile, directory, accelerator, base, disk, kernel=kernel, settings=settings)


@pytest.mark.slow
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

    async def scenario() -> tuple[float, list[str]]:
        gate = Gate(2 * NODES)
        async with gate.port() as port:
            kernel = replace(copier, parameters=parameters(f"do=copy gate={port}"))
            clusters = [make_cluster(run_directory / name, accelerator, kernel, disk, kind) for name in ("a", "b")]
            nodes = [node for cluster in clusters for node in cluster.nodes]
            try:
                for cluster in clusters:
                    await cluster.create()
                    for machine in cluster.machines:
                        await machine.boot()
                async with asyncio.timeout(LIMIT):
                    await gate.opened.wait()
                    began = asyncio.get_running_loop().time()
                    ends = await asyncio.gather(*(node.wait_ended() for node in nodes))
                    seconds = asyncio.get_running_loop().time() - began
            finally:
                await asyncio.gather(*(cluster.destroy() for cluster in clusters))
        assert {ended.reason for ended in ends} == {EndReason.GUEST_SHUTDOWN}
        return seconds, [node.console.read_text(errors="replace") for node in nodes]

    seconds, told = asyncio.run(scenario())
    assert [re.findall(r"GUEST has (\w+)", console) for console in told] == [[sha256]] * 2 * NODES
    print(f"{kind}: {2 * NODES} times {MEGABYTES} MB at once, all of it there and its checksum told in {seconds:.0f} s")
