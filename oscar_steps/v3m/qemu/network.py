"""The networks of a cluster, as QEMU's arguments. By default nothing on the host is changed; no privilege is needed.

What a network is made of is the host's own matter (`settings.py`), never the profile's.

*To the host*: QEMU's user network. The guest is 10.0.2.15, the host 10.0.2.2; TUN/TAP and TUN/TAP+NAT both mean this,
since it cannot let a guest reach the host and no further: it reaches all that the host reaches or, cut off, nothing.
Runs are cut off unless the settings open them. A port of the host, chosen by its kernel, leads to the guest's SSH
server.

*BRIDGED_TAP*: a tap in a bridge of the host, where the settings name one (`host/taps.py`); else the user network.

*VLAN, bridge*: a tap in a private bridge of the kernel's (`host/taps.py`).

*VLAN, star*: the head node holds one hub per VLAN and listens on a Unix socket for each node's NIC; a node connects
to its socket. It is lossless, private by the run directory's permissions and needs no port, so that clusters side by
side cannot see each other, whatever their MACs. The head node has to run first; a node may end and come again.

A node takes every frame from its socket at once, also while its NIC has no driver (its firmware runs, or hangs): there
is a hub in the node, too, whose third port has no peer and so is always ready. What the NIC cannot take yet waits
in QEMU's queue for it, which holds 10,000 frames. Without that the socket would fill up, and the head node's QEMU,
which writes to it without O_NONBLOCK (QEMU 7.2 sets that on the listening socket only), would stand still as a whole:
three or four hundred ARP requests for a node that does not boot are enough.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

from oscar_steps.errors import ProfileError
from oscar_steps.v3m.host.settings import DEFAULTS, SETTINGS_FILE, HostSettings, ToHost, VlanKind
from oscar_steps.v3m.host.taps import HasDescriptor, Place, Taps
from oscar_steps.v3m.profiles.cluster import ClusterProfile
from oscar_steps.v3m.profiles.vm import Nic, VMProfile

VLAN_DIRECTORY = "vlan"
SINK = "sink"
"""The hub port without a peer. QEMU's warning about it is expected."""
NO_TAPS: Taps = {}
_FORWARD = re.compile(r"TCP\[HOST_FORWARD\]\s+\d+\s+(\S+)\s+(\d+)\s+\S+\s+22\b")
_UNANSWERED = re.compile(r"TCP\[SYN_SENT\]\s+\d+\s+\S+\s+\d+\s+\S+\s+22\b")


@dataclass(frozen=True, slots=True)
class MachineNetwork:
    """QEMU's `-netdev` arguments of one machine, and for each NIC (in the profile's order) the netdev that it is on.

    `taps`: whose descriptors QEMU has to be given; they live as long as this does. `forwards_ssh`: whether a port of
    the host leads to the guest's SSH server.
    """

    arguments: tuple[str, ...]
    netdevs: tuple[str, ...]
    taps: tuple[HasDescriptor, ...] = ()
    forwards_ssh: bool = False

    @property
    def descriptors(self) -> tuple[int, ...]:
        return tuple(tap.fileno() for tap in self.taps)


def plan(cluster: ClusterProfile, settings: HostSettings = DEFAULTS, taps: Taps = NO_TAPS) -> dict[str, MachineNetwork]:
    """The network of every machine of the cluster, by name. A VLAN's NIC that has no tap is on a star."""
    hubs = _hubs(cluster.head)
    spokes: list[str] = []
    networks: dict[str, MachineNetwork] = {}
    for node in cluster.nodes:
        networks[node.name] = _machine(
            node, settings, taps, lambda number, nic: _node_end(number, hubs[nic.vlan], spokes)
        )
    head = plan_single(cluster.head, settings, taps)
    networks[cluster.head.name] = replace(head, arguments=(*head.arguments, *spokes))
    return networks


def plan_single(profile: VMProfile, settings: HostSettings = DEFAULTS, taps: Taps = NO_TAPS) -> MachineNetwork:
    """The network of a head node without nodes, or of a machine alone: each of its VLANs is a hub of its own."""
    hubs = _hubs(profile)
    return _machine(
        profile, settings, taps, lambda number, nic: ["-netdev", f"hubport,id=net{number},hubid={hubs[nic.vlan]}"]
    )


def joining(
    profile: VMProfile, sockets: Iterable[str], settings: HostSettings = DEFAULTS, taps: Taps = NO_TAPS
) -> MachineNetwork:
    """A machine whose VLANs another process holds: `sockets` lead there, one for each of its NICs on a VLAN."""
    addresses = (f"addr.type=unix,addr.path={socket}" for socket in sockets)
    return _machine(profile, settings, taps, lambda number, _nic: _line(number, next(addresses)))


def bridge_of(profile: VMProfile, nic: Nic, settings: HostSettings) -> str | None:
    """The bridge of the host that a NIC joins: the one it names, else the first that the settings let it join."""
    if nic.type != "BRIDGED_TAP":
        return None
    return nic.option or profile.option or next(iter(settings.network.bridges), None)


def wanted_taps(machines: Iterable[VMProfile], settings: HostSettings) -> tuple[dict[Place, str], dict[Place, str]]:
    """The NICs that are to have a tap: those on VLANs with the VLAN's name, those on the host's bridges with theirs."""
    vlans: dict[Place, str] = {}
    bridges: dict[Place, str] = {}
    for vm in machines:
        for number, nic in enumerate(vm.nics):
            name = bridge_of(vm, nic, settings)
            if name is not None:
                bridges[vm.name, number] = name
            elif nic.is_vlan and settings.network.vlan is VlanKind.BRIDGE:
                vlans[vm.name, number] = nic.vlan or ""
    return vlans, bridges


def check(profile: VMProfile, settings: HostSettings = DEFAULTS) -> None:
    """Raise ProfileError for an `option` that nothing comes of, or that names a bridge which is not to be joined."""
    bridged = [nic for nic in profile.nics if nic.type == "BRIDGED_TAP"]
    unused = [nic.option for nic in profile.nics if nic not in bridged] + ([] if bridged else [profile.option])
    for option in unused:
        if option is not None:
            what = f"{profile.name} names the host's interface '{option}' to bridge or NAT (option)"
            raise ProfileError(f"{what}; QEMU's user network, which is used here, has none: leave the option out")
    allowed = settings.network.bridges
    for nic in bridged:
        option = bridge_of(profile, nic, settings)
        if option is not None and option not in allowed:
            there_are = f"lets NICs join: {', '.join(allowed)}" if allowed else "allows no NIC to join a bridge"
            hint = f"leave the option out, or add the bridge to [network] bridges in {SETTINGS_FILE}"
            what = f"{profile.name} names the host's interface '{option}' to bridge (option), but this host {there_are}"
            raise ProfileError(what, hint=hint)


def _hubs(head: VMProfile) -> dict[str | None, int]:
    """A hub for each VLAN that the head node is on; two NICs on one VLAN share it."""
    return {vlan: number for number, vlan in enumerate(dict.fromkeys(nic.vlan for nic in head.vlan_nics))}


def _machine(
    profile: VMProfile, settings: HostSettings, taps: Taps, star_end: Callable[[int, Nic], list[str]]
) -> MachineNetwork:
    """`star_end`: the arguments of a VLAN's NIC without a tap, of which the netdev is called net and its number."""
    arguments: list[str] = []
    its: list[HasDescriptor] = []
    forwards_ssh = False
    for number, nic in enumerate(profile.nics):
        tap = taps.get((profile.name, number))
        if tap is not None:
            its.append(tap)
            arguments += ["-netdev", f"tap,id=net{number},fd={tap.fileno()}"]
        elif nic.is_vlan:
            arguments += star_end(number, nic)
        else:
            arguments += ["-netdev", _user(number, settings, forward=not forwards_ssh)]
            forwards_ssh = True
    netdevs = tuple(f"net{number}" for number in range(len(profile.nics)))
    return MachineNetwork(tuple(arguments), netdevs, tuple(its), forwards_ssh)


def _node_end(number: int, hub: int, spokes: list[str]) -> list[str]:
    """A node's end of its line to the head node, whose end is added to `spokes`."""
    spoke = len(spokes) // 4
    address = f"addr.type=unix,addr.path={VLAN_DIRECTORY}/n{spoke}"
    spokes += ["-netdev", f"stream,id=spoke{spoke},server=on,{address}"]
    spokes += ["-netdev", f"hubport,id=hub{spoke},hubid={hub},netdev=spoke{spoke}"]
    return _line(number, address)


def _line(number: int, address: str) -> list[str]:
    """A machine's end of its line to the process that holds the VLAN's hub and listens at `address`."""
    netdevs = (
        f"stream,id=line{number},server=off,{address}",
        f"hubport,id=plug{number},hubid={number},netdev=line{number}",
        f"hubport,id=net{number},hubid={number}",
        f"hubport,id={SINK}{number},hubid={number}",
    )
    return [argument for netdev in netdevs for argument in ("-netdev", netdev)]


def _user(number: int, settings: HostSettings, *, forward: bool) -> str:
    """The user network; the first one of a machine forwards to SSH, from a port (0) that the host's kernel chooses."""
    restrict = ",restrict=on" if settings.network.to_host is ToHost.CUT_OFF else ""
    return f"user,id=net{number},ipv6=off{restrict}{',hostfwd=tcp:127.0.0.1:0-:22' if forward else ''}"


def ssh_port(usernet: str) -> int | None:
    """The host's port that leads to the guest's port 22, out of what `info usernet` answers."""
    match = _FORWARD.search(usernet)
    return int(match[2]) if match else None


def has_unanswered_ssh(usernet: str) -> bool:
    """Whether `info usernet` lists a connection to the guest's port 22 that the guest's kernel has not answered."""
    return bool(_UNANSWERED.search(usernet))
