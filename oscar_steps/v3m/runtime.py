"""A virtual cluster that runs: the machines of a cluster profile, each by the back-end that its `type` names."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from oscar_steps.errors import HostError, ProfileError
from oscar_steps.v3m import bridge, command, libvirtxml, network
from oscar_steps.v3m.accelerator import Accelerator
from oscar_steps.v3m.bridge import Taps
from oscar_steps.v3m.cluster import ClusterProfile
from oscar_steps.v3m.machine import DirectKernel, Listener, Machine
from oscar_steps.v3m.profile import DiskImage, VMProfile
from oscar_steps.v3m.qemu import QemuMachine
from oscar_steps.v3m.settings import DEFAULTS, HostSettings, VlanKind


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
        for vm in self.profile.machines:
            check_backend(vm, accelerator, settings)
        networks = network.plan(self.profile, settings, make_taps(self.profile.machines, settings))
        is_star = settings.network.vlan is VlanKind.STAR

        self.head: Machine = QemuMachine(
            self.profile.head,
            run_directory,
            accelerator,
            networks[self.profile.head.name],
            base_image=base_image,
            seed=seed,
            on_event=on_event,
            kernel=kernel,
        )
        self.nodes: tuple[Machine, ...] = tuple(
            QemuMachine(
                node,
                run_directory,
                accelerator,
                networks[node.name],
                head=self.head if is_star else None,
                on_event=on_event,
                kernel=kernel,
            )
            for node in self.profile.nodes
        )

    @property
    def machines(self) -> tuple[Machine, ...]:
        """All of them, the head node first."""
        return (self.head, *self.nodes)

    async def create(self) -> None:
        """Make all disks. Raises HostError when one is there already or cannot be made."""
        for machine in self.machines:
            await machine.create()

    async def power_off(self) -> None:
        """End every machine, at the same time; disks stay."""
        await asyncio.gather(*(machine.power_off() for machine in self.machines))

    async def destroy(self) -> None:
        """End every machine and delete its disk; logs stay. May be called at any time, and again."""
        await asyncio.gather(*(machine.destroy() for machine in self.machines))


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
                    f"{profile.name} is of type Kvm, but KVM is no use here: {accelerator.reason}", hint=hint
                )
        case "VMM-HPC":
            libvirtxml.refuse(profile)
        case other:
            libvirtxml.check(profile)
            sentence = f"{profile.name} is of type {other}, which can be defined but not run yet; there are: Qemu, Kvm"
            raise ProfileError(sentence)
    network.check(profile, settings)
    command.check(profile)


def at_home(profile: VMProfile) -> VMProfile:
    """The profile with the disk that it has in a run's directory."""
    kind = "vmdk" if profile.type == "VMWare" else "qcow2"
    return replace(profile, image=DiskImage(f"disks/{profile.name}.{kind}", profile.image.size_mib))
