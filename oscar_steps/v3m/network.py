"""The networks of a cluster, as QEMU's arguments: nothing on the host is changed, and no privilege is needed.

*To the host*: QEMU's user network. The guest is 10.0.2.15, the host 10.0.2.2; TUN/TAP, TUN/TAP+NAT and BRIDGED_TAP all
mean this here. A port of the host, chosen by its kernel, leads to the guest's SSH server.

*VLAN*: a star. The head node holds one hub per VLAN and listens on a Unix socket for each node's NIC; a node connects
to its socket. It is lossless, private by the run directory's permissions and needs no port, so that clusters side by
side cannot see each other, whatever their MACs. The head node has to run first; a node may end and come again.

A node takes every frame from its socket at once, also while its NIC has no driver (its firmware runs, or hangs): there
is a hub in the node, too, whose third port has nobody on it and so is always ready. What the NIC cannot take yet waits
in QEMU's queue for it, which holds 10,000 frames. Without that the socket would fill up, and the head node's QEMU,
which writes to it without O_NONBLOCK (QEMU 7.2 sets that on the listening socket only), would stand still as a whole:
three or four hundred ARP requests for a node that does not boot are enough.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from oscar_steps.v3m.cluster import ClusterProfile
from oscar_steps.v3m.profile import Nic, VMProfile

VLAN_DIRECTORY = "vlan"
SINK = "sink"
"""The hub port that nobody is on. QEMU warns of it; that is no news."""
_FORWARD = re.compile(r"TCP\[HOST_FORWARD\]\s+\d+\s+(\S+)\s+(\d+)\s+\S+\s+22\b")


@dataclass(frozen=True, slots=True)
class MachineNetwork:
    """QEMU's `-netdev` arguments of one machine, and for each NIC (in the profile's order) the netdev that it is on."""

    arguments: tuple[str, ...]
    netdevs: tuple[str, ...]


def plan(cluster: ClusterProfile) -> dict[str, MachineNetwork]:
    """The network of every machine of the cluster, by name."""
    hubs = _hubs(cluster.head)
    networks: dict[str, MachineNetwork] = {}
    spokes: list[str] = []
    for node in cluster.nodes:
        networks[node.name] = _node(node, hubs, spokes)
    head = plan_single(cluster.head)
    networks[cluster.head.name] = MachineNetwork((*head.arguments, *spokes), head.netdevs)
    return networks


def plan_single(profile: VMProfile) -> MachineNetwork:
    """The network of a head node without nodes, or of a machine alone: each of its VLANs is a hub that nobody is on."""
    arguments: list[str] = []
    hubs = _hubs(profile)
    for number, nic in enumerate(profile.nics):
        if nic.is_vlan:
            arguments += ["-netdev", f"hubport,id=net{number},hubid={hubs[nic.vlan]}"]
        else:
            arguments += ["-netdev", _user(profile, number, nic)]
    return MachineNetwork(tuple(arguments), tuple(f"net{number}" for number in range(len(profile.nics))))


def _hubs(head: VMProfile) -> dict[str | None, int]:
    """A hub for each VLAN that the head node is on; two NICs on one VLAN share it."""
    return {vlan: number for number, vlan in enumerate(dict.fromkeys(nic.vlan for nic in head.vlan_nics))}


def _node(node: VMProfile, hubs: dict[str | None, int], spokes: list[str]) -> MachineNetwork:
    """The node's own arguments; the head node's half of each connection is added to `spokes`."""
    arguments: list[str] = []
    for number, nic in enumerate(node.nics):
        if not nic.is_vlan:
            arguments += ["-netdev", _user(node, number, nic)]
            continue
        spoke = len(spokes) // 4
        address = f"addr.type=unix,addr.path={VLAN_DIRECTORY}/n{spoke}"
        arguments += ["-netdev", f"stream,id=line{number},server=off,{address}"]
        arguments += ["-netdev", f"hubport,id=plug{number},hubid={number},netdev=line{number}"]
        arguments += ["-netdev", f"hubport,id=net{number},hubid={number}"]
        arguments += ["-netdev", f"hubport,id={SINK}{number},hubid={number}"]
        spokes += ["-netdev", f"stream,id=spoke{spoke},server=on,{address}"]
        spokes += ["-netdev", f"hubport,id=hub{spoke},hubid={hubs[nic.vlan]},netdev=spoke{spoke}"]
    return MachineNetwork(tuple(arguments), tuple(f"net{number}" for number in range(len(node.nics))))


def _user(profile: VMProfile, number: int, nic: Nic) -> str:
    """The user network; the first one of a machine forwards to SSH, from a port (0) that the host's kernel chooses."""
    forward = ",hostfwd=tcp:127.0.0.1:0-:22" if nic == profile.host_nics[0] else ""
    return f"user,id=net{number},ipv6=off{forward}"


def ssh_port(usernet: str) -> int | None:
    """The host's port that leads to the guest's port 22, out of what `info usernet` answers."""
    match = _FORWARD.search(usernet)
    return int(match[2]) if match else None
