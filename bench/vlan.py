"""How fast each kind of VLAN is, between tiny guests: head node to one node, and to four nodes at once.

    python -m bench.vlan [--seconds N] [--kinds star,bridge]

`star` and `bridge` are the farm's own kinds; `mcast` (multicast, kept on the loopback interface) and `socket` (one TCP
connection, so two guests only) are QEMU's other ones without privileges, for comparison. The numbers are the guests'
own, by iperf3. Emulated guests are the limit more often than the network, and machines are noisy: compare the ratios of
one run.
"""

from __future__ import annotations

import argparse
import asyncio
import re
import shutil
import socket
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from rich.console import Console
from rich.table import Table

from oscar_steps.errors import FarmError, HostError, ToolMissing
from oscar_steps.v3m.boot import DirectKernel
from oscar_steps.v3m.host.accelerator import Accelerator, find_accelerator
from oscar_steps.v3m.host.settings import HostSettings, NetworkSettings, VlanKind
from oscar_steps.v3m.machine import EndReason
from oscar_steps.v3m.profiles.cluster import ClusterProfile, load_cluster
from oscar_steps.v3m.qemu import network
from oscar_steps.v3m.qemu.machine import QemuMachine
from oscar_steps.v3m.qemu.network import MachineNetwork
from oscar_steps.v3m.runtime import make_taps
from tests.vm.tiny_guest import SAMPLE, make_guest, parameters, tiny

KINDS = ("star", "bridge", "mcast", "socket")
MANY = 4
UDP_MBITS = 50
LIMIT = 300.0

# Machines know themselves by the last byte of their MAC: the head node is 2, nodes are 17 and on. It serves when
# it sees all nodes, which wait for it: so they begin together. Data goes from the head node to the nodes (-R).
MEASURE = f"""
    ip link set lo up; ip link set eth0 up; ip address add 10.0.0.$host/24 dev eth0
    if [ $host = 2 ]; then
        node=17; while [ $node -lt $((17 + nodes)) ]; do ping -c 1 -w 1 10.0.0.$node && node=$((node + 1)); done
        while [ $node -gt 17 ]; do node=$((node - 1)); iperf3 -s -D -p $((5200 + node)); done
        rest
    fi
    ask() {{
        until iperf3 -c 10.0.0.2 -p $((5200 + host)) -R -f m -t $seconds "$@" > /tmp/report 2>&1; do sleep 0.2; done
        cat /tmp/report > /dev/console
    }}
    ask
    [ $nodes = 1 ] && ask -u -b {UDP_MBITS}M
    grep Udp: /proc/net/snmp > /dev/console
    poweroff -f"""
_TCP = re.compile(r"([\d.]+) Mbits/sec +receiver")
_UDP = re.compile(r"ms +(\d+)/(\d+) \([\d.e+-]+%\) +receiver")
_NOT_READ = re.compile(r"^Udp: +\d+ +\d+ +\d+ +\d+ +(\d+)", re.MULTILINE)
"""Packets that came, and that the node's kernel threw away since iperf3 did not read them in time."""


@dataclass(frozen=True)
class Speed:
    """Mbit/s to one node, and to all of several nodes at once; the share (%) of UDP packets that did not come."""

    one: float
    lost: float
    many: float | None


@dataclass(frozen=True)
class Bench:
    """What all measurements share."""

    accelerator: Accelerator
    guest: DirectKernel
    directory: Path
    seconds: int

    async def speed(self, kind: str) -> Speed:
        """Raises HostError where the guests do not come to their end, or the host does not give this kind."""
        [report] = await self._run(kind, 1)
        many = None if kind == "socket" else await self._run(kind, MANY)
        udp, tcp, not_read = _UDP.search(report), _TCP.search(report), _NOT_READ.search(report)
        if udp is None or tcp is None or not_read is None:
            raise HostError(f"{kind}: the node reported no speed; the end of its console: {report[-300:]!r}")
        rates = None if many is None else [float(rate) for console in many for rate in _TCP.findall(console)]
        if rates is not None and len(rates) != MANY:
            raise HostError(f"{kind}: {len(rates)} of {MANY} nodes reported their speed")
        lost = max(0, int(udp[1]) - int(not_read[1]))
        return Speed(float(tcp[1]), 100 * lost / int(udp[2]), None if rates is None else sum(rates))

    async def _run(self, kind: str, nodes: int) -> list[str]:
        """The consoles of the nodes of a cluster that has measured itself."""
        cluster = _cluster(nodes)
        directory = self.directory / f"{kind}-{nodes}"
        directory.mkdir()
        (directory / "base.raw").write_bytes(bytes(1 << 20))
        words = f"do=measure nodes={nodes} seconds={self.seconds}"
        kernel = replace(self.guest, parameters=parameters(words))
        networks = _networks(kind, cluster)
        machines = [
            QemuMachine(
                vm, directory, self.accelerator, networks[vm.name], base_image=directory / "base.raw", kernel=kernel
            )
            for vm in cluster.machines
        ]
        try:
            for machine in machines:
                await machine.create()
                await machine.boot()
            async with asyncio.timeout(LIMIT):
                ends = await asyncio.gather(*(machine.wait_ended() for machine in machines[1:]))
        except TimeoutError:
            raise HostError(f"{kind}: the nodes did not come to their end within {LIMIT:.0f} s") from None
        finally:
            await asyncio.gather(*(machine.destroy() for machine in machines))
        if any(ended.reason is not EndReason.GUEST_SHUTDOWN for ended in ends):
            raise HostError(f"{kind}: a node ended in its own way: {ends}")
        return [machine.console.read_text(errors="replace") for machine in machines[1:]]


def _cluster(nodes: int) -> ClusterProfile:
    """Tiny machines with a NIC on the VLAN and no other."""
    profile = tiny(load_cluster(SAMPLE).resized(nodes))
    return replace(profile, head=replace(profile.head, nics=profile.head.vlan_nics))


def _networks(kind: str, cluster: ClusterProfile) -> dict[str, MachineNetwork]:
    if kind in ("mcast", "socket"):
        port = _free_port()
        return {vm.name: _other(kind, port, is_head=vm is cluster.head) for vm in cluster.machines}
    settings = HostSettings(network=NetworkSettings(vlan=VlanKind(kind)))
    return network.plan(cluster, settings, make_taps(cluster.machines, settings))


def _other(kind: str, port: int, *, is_head: bool) -> MachineNetwork:
    """QEMU's own kinds, which the farm does not use."""
    if kind == "mcast":
        ends = f"mcast=239.77.0.1:{port},localaddr=127.0.0.1"
    else:
        ends = f"{'listen' if is_head else 'connect'}=127.0.0.1:{port}"
    return MachineNetwork(("-netdev", f"socket,id=net0,{ends}"), ("net0",))


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def table(speeds: dict[str, Speed]) -> Table:
    """All kinds, compared with the first one."""
    first = next(iter(speeds.values()))
    shown = Table(title=f"VLANs: TCP in Mbit/s; UDP of {UDP_MBITS} Mbit/s, lost on the way")
    for heading in ("kind", "to one node", "ratio", f"to {MANY} at once", "ratio", "UDP lost"):
        shown.add_column(heading, justify="left" if heading == "kind" else "right")
    for kind, speed in speeds.items():
        many = ("", "")
        if speed.many is not None and first.many is not None:
            many = (f"{speed.many:.0f}", f"{speed.many / first.many:.2f}")
        shown.add_row(kind, f"{speed.one:.0f}", f"{speed.one / first.one:.2f}", *many, f"{speed.lost:.2f} %")
    return shown


async def measure(kinds: Sequence[str], seconds: int, directory: Path) -> dict[str, Speed]:
    """Every kind's speed. Raises ToolMissing without iperf3, HostError as `Bench.speed` does."""
    iperf3 = shutil.which("iperf3")
    if iperf3 is None:
        raise ToolMissing("the program iperf3 is missing, which the guests run", hint="apt-get install iperf3")
    guest = make_guest(directory / "guest", cases={"measure": MEASURE}, files={"bin/iperf3": Path(iperf3)})
    accelerator = await find_accelerator(directory / "cache", guest.kernel)
    print(f"accelerator {accelerator.name}, probe {accelerator.seconds:.1f} s; {seconds} s each", flush=True)
    bench = Bench(accelerator, guest, directory, seconds)
    return {kind: await bench.speed(kind) for kind in kinds}


def main() -> int:
    """Prints a table; ends with status 20 where the host does not let us measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=int, default=10, help="of each measurement (%(default)s)")
    parser.add_argument("--kinds", type=lambda text: text.split(","), default=list(KINDS), help=",".join(KINDS))
    options = parser.parse_args()
    unknown = [kind for kind in options.kinds if kind not in KINDS]
    if unknown:
        parser.error(f"there is no kind '{unknown[0]}'; there are: {', '.join(KINDS)}")
    try:
        with tempfile.TemporaryDirectory(prefix="bench-vlan-") as directory:
            Console().print(table(asyncio.run(measure(options.kinds, options.seconds, Path(directory)))))
    except FarmError as error:
        print(error.explain(), file=sys.stderr)
        return 20
    return 0


if __name__ == "__main__":
    sys.exit(main())
