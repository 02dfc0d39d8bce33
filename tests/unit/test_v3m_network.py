"""The private network on QEMU itself, without any guest: a node that takes no frames must not stop the head node."""

from __future__ import annotations

import json
import socket
import struct
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from oscar_steps.v3m.cluster import load_cluster
from oscar_steps.v3m.network import VLAN_DIRECTORY, plan

ROOT = Path(__file__).resolve().parents[2]
FRAMES = 2000
ARP = b"\xff" * 6 + bytes.fromhex("525400000002") + b"\x08\x06" + bytes(46)


@contextmanager
def qemu(directory: Path, *arguments: str) -> Iterator[None]:
    words = ["qemu-system-x86_64", "-nodefaults", "-display", "none", *arguments]
    process = subprocess.Popen(words, cwd=directory, stderr=subprocess.DEVNULL)
    try:
        yield
    finally:
        process.kill()
        process.wait()


def connected(path: Path) -> socket.socket:
    end = time.monotonic() + 20
    while True:
        try:
            connection = socket.socket(socket.AF_UNIX)
            connection.connect(str(path))
            return connection
        except OSError:
            connection.close()
            if time.monotonic() > end:
                raise
            time.sleep(0.05)


def answers(qmp: socket.socket) -> bool:
    """Whether QEMU's main loop runs: it obeys a command."""
    qmp.settimeout(10)
    with qmp.makefile("rw") as stream:
        for command in ("qmp_capabilities", "query-status"):
            stream.write(json.dumps({"execute": command}) + "\n")
            stream.flush()
            try:
                while "return" not in json.loads(stream.readline()):
                    pass
            except TimeoutError:
                return False
    return True


@pytest.mark.timeout(90)
def test_a_node_whose_network_card_has_no_driver_does_not_freeze_the_head_node(tmp_path: Path) -> None:
    cluster = load_cluster(ROOT / "profiles/clusters/head-and-two-nodes.xml")
    networks = plan(cluster)
    (tmp_path / VLAN_DIRECTORY).mkdir()
    (tmp_path / "halt.bin").write_bytes(b"\xf4" * 65536)  # firmware of one instruction: the node never gets any further
    source = "stream,id=source,server=on,addr.type=unix,addr.path=source"
    with ExitStack() as stack:
        head = [*networks[cluster.head.name].arguments, "-netdev", source]
        head += ["-netdev", "hubport,id=from-source,hubid=0,netdev=source", "-qmp", "unix:qmp,server=on,wait=off"]
        stack.enter_context(qemu(tmp_path, "-machine", "none", *head))
        qmp, frames = (stack.enter_context(connected(tmp_path / name)) for name in ("qmp", "source"))
        node = networks[cluster.nodes[0].name]
        card = ["-device", f"virtio-net-pci,netdev={node.netdevs[0]},mac=52:54:00:00:00:11"]
        stack.enter_context(qemu(tmp_path, "-machine", "q35", "-m", "16", "-bios", "halt.bin", *node.arguments, *card))
        time.sleep(1.0)  # the node's QEMU connects; there is nobody there who could say when
        frames.settimeout(10)
        for _ in range(FRAMES):
            frames.sendall(struct.pack(">I", len(ARP)) + ARP)
        assert answers(qmp)
