"""A cluster on Xen: a head node and a compute node, both para-virtual guests, and the node pings it on their VLAN.

`python -m tests.vm.xen.cluster`, in a Xen host. The cluster is the sample one, with nothing but its types changed.
"""

from __future__ import annotations

import asyncio
import re
import tempfile
from dataclasses import replace
from pathlib import Path

from oscar_steps.v3m.boot import DirectKernel
from oscar_steps.v3m.host import ledger
from oscar_steps.v3m.host.accelerator import Accelerator
from oscar_steps.v3m.machine import EndReason
from oscar_steps.v3m.profiles.cluster import load_cluster
from oscar_steps.v3m.runtime import VirtualCluster
from tests.vm.tiny_guest import SAMPLE, XEN_MODULES, make_guest, parameters, says, tiny, until

LIMIT = 300.0
RECEIVED = re.compile(rb"60 packets transmitted, (\d+) packets received")


async def _ping(directory: Path) -> str:
    """What the node says of its sixty packets."""
    sample = tiny(load_cluster(SAMPLE))
    profile = replace(sample, head=replace(sample.head, type="Xen"), nodes=(replace(sample.nodes[0], type="Xen"),))
    base = directory / "base.raw"
    base.write_bytes(bytes(1 << 20))
    guest = make_guest(directory / "guest", modules=XEN_MODULES)
    kernel = DirectKernel(guest.kernel, guest.initrd, parameters("do=ping", "hvc0"))
    cluster = VirtualCluster(profile, directory, Accelerator("tcg", "", 1.0), base, kernel=kernel)
    node = cluster.nodes[0]
    try:
        await cluster.create()
        await cluster.head.boot()
        await until(lambda: says(cluster.head.console, b"GUEST is up"), LIMIT)
        await node.boot()
        async with asyncio.timeout(LIMIT):
            ended = await node.wait_ended()
    finally:
        await cluster.destroy()
    assert ended.reason is EndReason.GUEST_SHUTDOWN, ended
    assert ledger.find_leftovers(directory) == []
    found = RECEIVED.search(node.console.read_bytes())
    assert found, "the node has not pinged"
    assert int(found[1]) >= 57, found[0]
    return found[0].decode()


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="xen-cluster-") as directory:
        print(f"two Xen guests on one VLAN: {asyncio.run(_ping(Path(directory)))}", flush=True)


if __name__ == "__main__":
    main()
