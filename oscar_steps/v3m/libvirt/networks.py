"""The host's side of libvirt's machines: which of its networks stand for a profile's, and how libvirt is reached."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from urllib.parse import quote

from lxml import etree

from oscar_steps.errors import ConfigError, ProfileError
from oscar_steps.v3m.profiles.vm import Hypervisor, VMProfile

INTERFACE = re.compile(r"(?!\.{1,2}$)[A-Za-z0-9_.-]{1,15}")
"""Linux takes names of up to 15 bytes; these characters of them are safe in Xen's own configuration, too."""
VMWARE_NETWORK = re.compile(r"vmnet[0-9]{1,3}")

_HOST = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9.-]{0,252}[A-Za-z0-9])?|\[[0-9A-Fa-f:.]+\]")
_FIRST_VMWARE_VLAN = 2
_VMWARE_NETWORKS = 256
_VMWARE_OWN = (1, 8)
"""VMware's networks to the host alone, and by NAT. vmnet0 is its bridge."""


@dataclass(frozen=True, slots=True)
class Networks:
    """Which networks of the host a machine's NICs are on.

    `nat`: libvirt's network for TUN/TAP and TUN/TAP+NAT (Xen; VMware has its own NAT). `bridge`: for a BRIDGED_TAP that
    names none. `vlans`: name in the profile (None: without a name) to bridge (Xen) or VMware network.
    """

    nat: str = "default"
    bridge: str = "xenbr0"
    vlans: Mapping[str | None, str] = field(default_factory=dict)

    def vlan(self, machine: str, name: str | None) -> str:
        """The host's network for a VLAN of `machine`. Raises ProfileError where the host has none for it."""
        if name in self.vlans:
            return self.vlans[name]
        there_are = ", ".join(sorted(vlan or "the one without a name" for vlan in self.vlans)) or "none"
        raise ProfileError(
            f"{machine} is on the VLAN {name or 'without a name'}; the host has networks for: {there_are}"
        )


def plan_networks(
    machines: Iterable[VMProfile], *, scope: str = "", first_vmware: int = _FIRST_VMWARE_VLAN
) -> Networks:
    """Networks for machines that belong together; each of their VLANs gets one of its own.

    On Xen it is a bridge, named after the VLAN and after `scope`, different for each cluster on a host: with another
    scope, all bridges are others. VMware's networks only have numbers: `first_vmware` distinguishes clusters.
    Raises ProfileError where VMware has not so many.
    """
    machines = tuple(machines)
    vlans = tuple(dict.fromkeys(nic.vlan for machine in machines for nic in machine.vlan_nics))
    if not any(machine.type == "VMWare" for machine in machines):
        return Networks(vlans={vlan: _bridge(vlan, scope) for vlan in vlans})
    if any(machine.type != "VMWare" for machine in machines):
        raise ProfileError("VMware's networks reach no guest of another hypervisor; give all machines one type")
    numbers = [number for number in range(first_vmware, _VMWARE_NETWORKS) if number not in _VMWARE_OWN]
    if len(vlans) > len(numbers):
        raise ProfileError(
            f"there are {len(vlans)} VLANs; VMware has {len(numbers)} networks from vmnet{first_vmware} on"
        )
    return Networks(bridge="vmnet0", vlans={vlan: f"vmnet{n}" for vlan, n in zip(vlans, numbers, strict=False)})


def _bridge(vlan: str | None, scope: str) -> str:
    """A readable name where it is short enough and there is no scope, else a hash."""
    name = "vlan" if vlan is None else f"vlan-{vlan}"
    if not scope and INTERFACE.fullmatch(name):
        return name
    return f"v3m-{hashlib.sha256(f'{scope}/{name}'.encode()).hexdigest()[:11]}"


def vlan_network_xml(bridge: str) -> str:
    """libvirt's definition of an isolated network: the bridge of a VLAN, without addresses, DHCP or a way out."""
    root = etree.Element("network")
    etree.SubElement(root, "name").text = bridge
    etree.SubElement(root, "bridge", name=bridge, stp="off", delay="0")
    return etree.tostring(root, pretty_print=True, encoding="unicode")


# --- connections -----------------------------------------------------------------------------------------------------


def connection_uri(hypervisor: Hypervisor | None, host: str | None = None, user: str | None = None) -> str:
    """Where libvirt finds a type's hypervisor: Xen here or by SSH on `host`; VMware's Player here, or ESX on `host`.

    Raises ConfigError for a host or user that cannot be one, and for a type that is not libvirt's.
    """
    if user is not None and host is None:
        raise ConfigError(f"the user '{user}' is for another host, and none is named")
    match hypervisor:
        case "Xen" | "XenHVM":
            return "xen:///system" if host is None else f"xen+ssh://{_authority(host, user)}/system"
        case "VMWare":
            return "vmwareplayer:///session" if host is None else f"esx://{_authority(host, user or 'root')}/"
        case _:
            raise ConfigError(
                f"machines of type {hypervisor or 'Qemu'} are not reached by libvirt; there are: Xen, XenHVM, VMWare"
            )


def _authority(host: str, user: str | None) -> str:
    if not _HOST.fullmatch(host):
        raise ConfigError(f"'{host}' is not a host name or address; write, e.g., xen1.example.org or [fe80::1]")
    if user is None:
        return host
    if not user or not user.isprintable() or user.startswith("-"):
        raise ConfigError(f"'{user}' is not a user name; write, e.g., root")
    return f"{quote(user, safe='')}@{host}"
