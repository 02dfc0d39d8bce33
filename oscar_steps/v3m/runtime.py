"""A virtual cluster that runs: the machines of a cluster profile, each by the back-end that its `type` names."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from oscar_steps.errors import HostError, ProfileError
from oscar_steps.v3m.boards import board_of
from oscar_steps.v3m.boot import DirectKernel
from oscar_steps.v3m.host import taps as bridge
from oscar_steps.v3m.host.accelerator import Accelerator
from oscar_steps.v3m.host.settings import DEFAULTS, HostSettings, VlanKind
from oscar_steps.v3m.host.taps import Taps
from oscar_steps.v3m.libvirt import domain
from oscar_steps.v3m.libvirt.guard import HostVlans, scope_of, vlan_bridges
from oscar_steps.v3m.libvirt.machine import LibvirtMachine
from oscar_steps.v3m.libvirt.networks import connection_uri, plan_networks
from oscar_steps.v3m.machine import Listener, Machine
from oscar_steps.v3m.profiles.cluster import ClusterProfile
from oscar_steps.v3m.profiles.vm import DiskImage, VMProfile
from oscar_steps.v3m.qemu import command, network
from oscar_steps.v3m.qemu.machine import QemuMachine


class VirtualCluster:
    """The head node and the compute nodes of one run. Nothing is done before `create`.

    Every machine has its disk in the run directory, `disks/NAME.qcow2`, whatever file its profile names: a run touches
    nothing outside of it. The head node's is an overlay on `base_image`; `seed` is its second disk, serial 'seed'.
    `settings`: what the host's networks are made of; taps, where they want any, are there as long as a machine of the
    cluster is. Raises ProfileError for a type without a back-end, HostError for `Kvm` on a host where KVM does not
    work, and for a network that the host does not give.
    """

    def __init__(
        self,
        profile: ClusterProfile,
        run_directory: Path,
        accelerator: Accelerator,
        base_image: Path | None,
        seed: Path | None = None,
        on_event: Listener | None = None,
        *,
        kernel: DirectKernel | None = None,
        settings: HostSettings = DEFAULTS,
    ) -> None:
        self.profile = replace(
            profile, head=at_home(profile.head), nodes=tuple(at_home(node) for node in profile.nodes)
        )
        settings = settings.of_runs
        for vm in self.profile.machines:
            check_backend(vm, accelerator, settings)
        self._vlans: HostVlans | None = None
        self._bridges: tuple[str, ...] = ()
        make = self._libvirts if self._is_libvirts() else partial(self._qemus, accelerator, settings)
        self.head, *nodes = make(run_directory, base_image, seed, on_event, kernel)
        self.nodes: tuple[Machine, ...] = tuple(nodes)

    def _is_libvirts(self) -> bool:
        families = {domain.is_libvirts(vm) for vm in self.profile.machines}
        if len(families) > 1:
            what = f"the cluster {self.profile.name} has machines of QEMU and of libvirt, which cannot share a VLAN"
            raise ProfileError(f"{what}; give all its machines one type")
        return families == {True}

    def _qemus(
        self,
        accelerator: Accelerator,
        settings: HostSettings,
        run_directory: Path,
        base_image: Path | None,
        seed: Path | None,
        on_event: Listener | None,
        kernel: DirectKernel | None,
    ) -> list[Machine]:
        networks = network.plan(self.profile, settings, make_taps(self.profile.machines, settings))
        is_star = settings.network.vlan is VlanKind.STAR
        lines = networks[self.profile.head.name]
        head = QemuMachine(
            self.profile.head, run_directory, accelerator, lines,
            base_image=base_image, seed=seed, on_event=on_event, kernel=kernel,
        )  # fmt: skip
        nodes = [
            QemuMachine(
                node, run_directory, accelerator, networks[node.name],
                head=head if is_star else None, on_event=on_event, kernel=kernel,
            )
            for node in self.profile.nodes
        ]  # fmt: skip
        return [head, *nodes]

    def _libvirts(
        self,
        run_directory: Path,
        base_image: Path | None,
        seed: Path | None,
        on_event: Listener | None,
        kernel: DirectKernel | None,
    ) -> list[Machine]:
        networks = plan_networks(self.profile.machines, scope=scope_of(run_directory))
        self._vlans = HostVlans(connection_uri(self.profile.head.type), run_directory)
        self._bridges = vlan_bridges(networks)
        head = LibvirtMachine(
            self.profile.head, run_directory, networks=networks,
            base_image=base_image, seed=seed, on_event=on_event, kernel=kernel,
        )  # fmt: skip
        nodes = [
            LibvirtMachine(node, run_directory, networks=networks, on_event=on_event, kernel=kernel)
            for node in self.profile.nodes
        ]
        return [head, *nodes]

    @property
    def machines(self) -> tuple[Machine, ...]:
        """All of them, the head node first."""
        return (self.head, *self.nodes)

    async def create(self) -> None:
        """Make all disks, and libvirt's VLANs. Raises HostError when one is there already or cannot be made."""
        if self._vlans is not None:
            await self._vlans.start(self._bridges)
        for machine in self.machines:
            await machine.create()

    async def power_off(self) -> None:
        """End every machine, at the same time; disks stay."""
        await asyncio.gather(*(machine.power_off() for machine in self.machines))

    async def destroy(self) -> None:
        """End every machine and delete its disk; logs stay. May be called at any time, and again."""
        try:
            await asyncio.gather(*(machine.destroy() for machine in self.machines))
        finally:
            if self._vlans is not None:
                await self._vlans.end()


def make_taps(machines: Sequence[VMProfile], settings: HostSettings) -> Taps:
    """The taps of machines that belong together, where the host's settings want any. Raises HostError."""
    vlans, bridges = network.wanted_taps(machines, settings)
    taps = dict(zip(vlans, bridge.make_vlans(list(vlans.values())) if vlans else (), strict=True))
    return taps | {place: bridge.join(name) for place, name in bridges.items()}


def check_backend(profile: VMProfile, accelerator: Accelerator, settings: HostSettings = DEFAULTS) -> None:
    """Raise where `profile.type` has no back-end, or not on this host, or not for all that the profile asks for."""
    match profile.type:
        case None | "Qemu":
            pass
        case "Kvm":
            if accelerator.name != "kvm":
                hint = "set the type Qemu, which takes KVM where it works and emulation elsewhere"
                raise HostError(
                    f"{profile.name} is of type Kvm, but KVM does not work here: {accelerator.reason}", hint=hint
                )
            if not (board := board_of(profile)).is_native:
                what = f"{profile.name} is of type Kvm and {board.name}, which this host can only emulate"
                raise HostError(what, hint="set the type Qemu")
        case "VMM-HPC":
            domain.refuse(profile)
        case "Xen" | "XenHVM":
            domain.check(profile)
        case "VMWare":
            domain.check(profile)
            why = "which can be defined but not run: libvirt's driver for VMware does not report the end of a machine"
            raise ProfileError(f"{profile.name} is of type VMWare, {why}; set the type Qemu, Kvm or Xen")
    if not domain.is_libvirts(profile):
        network.check(profile, settings)
        command.check(profile)


def at_home(profile: VMProfile) -> VMProfile:
    """The profile with the disk that it has in a run's directory."""
    kind = "vmdk" if profile.type == "VMWare" else "qcow2"
    return replace(profile, image=DiskImage(f"disks/{profile.name}.{kind}", profile.image.size_mib))
