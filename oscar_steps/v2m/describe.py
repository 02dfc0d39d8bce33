"""What a profile means and what it becomes here: as one line, as a value for JSON, as tables for a terminal.

What it becomes is what a run would start, made by the same functions; nothing is looked up on the host, so a profile
can be shown on a machine that has no hypervisor.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from oscar_steps.errors import FarmError
from oscar_steps.v3m.boards import board_of
from oscar_steps.v3m.boot import BootPlan
from oscar_steps.v3m.host.accelerator import Accelerator
from oscar_steps.v3m.host.settings import DEFAULTS, HostSettings
from oscar_steps.v3m.host.taps import Place
from oscar_steps.v3m.libvirt import domain
from oscar_steps.v3m.libvirt.networks import connection_uri, plan_networks
from oscar_steps.v3m.profiles.cluster import ClusterProfile, Profiles
from oscar_steps.v3m.profiles.vm import BootDevice, Nic, VMProfile, beside
from oscar_steps.v3m.qemu import network
from oscar_steps.v3m.qemu.command import Part, qemu_parts
from oscar_steps.v3m.qemu.network import MachineNetwork
from oscar_steps.v3m.runtime import at_home, check_backend

_QMP_DESCRIPTOR = 3
_INSTALLER_CD = Path("boot.iso")
_PURPOSE_WIDTH = 36
_NOTES = (
    "Relative paths are relative to the directory of the machine's system (v2m) or of the run.",
    f"Descriptor {_QMP_DESCRIPTOR} stands for the socket by which the run controls the machine, others for taps.",
    "The accelerator is found by trying when a run begins; type Qemu takes kvm where it works and tcg elsewhere.",
)


@dataclass(frozen=True, slots=True)
class Becomes:
    """What a machine is started as: a program and its arguments, or libvirt's definition of it (XML).

    Or neither, and the sentence that says why it cannot be started.
    """

    program: str = ""
    parts: tuple[Part, ...] = ()
    definition: str = ""
    refused: str = ""


@dataclass(frozen=True, slots=True)
class Described:
    """A machine, its part in the cluster ('head', 'node', or 'vm' outside of one), and what it becomes."""

    role: str
    profile: VMProfile
    becomes: Becomes


def describe(
    profiles: Profiles, *, install: bool = False, directory: Path = Path("/"), settings: HostSettings = DEFAULTS
) -> tuple[Described, ...]:
    """Every machine and what it becomes. `install`: in the boot that installs it, where there is one.

    `directory`: the absolute one that relative paths of the profiles start from. `settings`: of the host that it is to
    run on. A cluster's machines are shown as a run has them, single ones as v2m does.
    """
    if isinstance(profiles, ClusterProfile):
        return tuple(_cluster(profiles, install, directory, settings.of_runs))
    return tuple(_single(vm, install, directory, settings.switched) for vm in profiles)


def _single(vm: VMProfile, install: bool, directory: Path, settings: HostSettings) -> Described:
    its = beside(directory, vm)
    plan = replace(_install_plan(its) if install else _plan(its), durable=True)
    sockets = [f"{network.VLAN_DIRECTORY}/n{number}" for number, _ in enumerate(vm.vlan_nics)]
    nets = network.joining(its, sockets, settings, _stand_ins((its,), settings))
    return Described("vm", vm, becomes(its, (its,), nets, plan, directory, settings))


def _cluster(cluster: ClusterProfile, install: bool, directory: Path, settings: HostSettings) -> Iterator[Described]:
    networks = network.plan(cluster, settings, _stand_ins(cluster.machines, settings))
    for vm in cluster.machines:
        is_head = vm is cluster.head
        plan = BootPlan(cluster.boot, _INSTALLER_CD) if install and not is_head else _plan(vm)
        started = becomes(at_home(vm), cluster.machines, networks[vm.name], plan, directory, settings)
        yield Described("head" if is_head else "node", vm, started)


@dataclass(frozen=True, slots=True)
class _StandIn:
    """For a tap, of which there is none where nothing is started."""

    descriptor: int

    def fileno(self) -> int:
        return self.descriptor


def _stand_ins(machines: tuple[VMProfile, ...], settings: HostSettings) -> dict[Place, _StandIn]:
    places = [place for wanted in network.wanted_taps(machines, settings) for place in wanted]
    return {place: _StandIn(number) for number, place in enumerate(places, start=_QMP_DESCRIPTOR + 1)}


def _plan(vm: VMProfile) -> BootPlan:
    return BootPlan(cdrom=None if vm.cdrom is None else Path(vm.cdrom))


def _install_plan(vm: VMProfile) -> BootPlan:
    """From its CD where it has one, else from the network."""
    return BootPlan(BootDevice.NETWORK) if vm.cdrom is None else BootPlan(BootDevice.CDROM, Path(vm.cdrom))


def becomes(
    vm: VMProfile,
    all_machines: tuple[VMProfile, ...],
    nets: MachineNetwork,
    plan: BootPlan,
    directory: Path,
    settings: HostSettings,
) -> Becomes:
    """What `vm` is started as, on a host where its type works. `all_machines`: those that may share a VLAN with it."""
    accelerator = Accelerator("kvm" if vm.type == "Kvm" else "tcg", "not tried", 0.0)
    try:
        if vm.type in ("Xen", "XenHVM", "VMWare"):
            definition = domain.domain_xml(vm, directory, plan, plan_networks(all_machines))
            return Becomes(f"a libvirt domain at {connection_uri(vm.type)}", definition=definition)
        check_backend(vm, accelerator, settings)
        console = f"console/{vm.name}.log"
        parts = qemu_parts(vm, nets, accelerator, plan, console=console, qmp_fd=_QMP_DESCRIPTOR)
    except FarmError as error:
        return Becomes(refused=error.sentence)
    return Becomes(board_of(vm).program, tuple(parts))


# --- one line --------------------------------------------------------------------------------------------------------


def sentence(vm: VMProfile) -> str:
    """The profile as one line; what it leaves to the hypervisor is not said."""
    said = [vm.type or "any hypervisor", f"{vm.cpu} CPU", f"{vm.memory_mib} MiB"]
    said += [word for word in (vm.architecture, vm.machine, vm.firmware) if word]
    if vm.option:
        said.append(f"option {vm.option}")
    if vm.boot:
        said.append(f"boots {', '.join(vm.boot)}")
    said.append(f"{vm.disk_bus} disk {_disk(vm)}")
    said += [f"{disk.id} {disk.path}" for disk in vm.virtual_disks]
    if vm.cdrom is not None:
        said.append(f"CD {vm.cdrom}")
    said += [_nic(nic) for nic in vm.nics] or ["no NIC"]
    return f"{vm.name}: {'; '.join(said)}"


def _disk(vm: VMProfile) -> str:
    return vm.image.path if vm.image.size_mib is None else f"{vm.image.path} ({vm.image.size_mib} MiB)"


def _nic(nic: Nic) -> str:
    option = "" if nic.option is None else f" by {nic.option}"
    if nic.is_vlan:
        return f"{nic.mac} VLAN{f' {nic.vlan}' if nic.vlan else ''}{option}"
    return f"{nic.mac} {nic.type or 'to the host'}{option}"


# --- JSON ------------------------------------------------------------------------------------------------------------


def to_json(profiles: Profiles, described: tuple[Described, ...]) -> dict[str, object]:
    """A value for `json.dumps`: `kind` is 'cluster' or 'profiles'; `machines` in their order."""
    whole: dict[str, object] = {"kind": "profiles"}
    if isinstance(profiles, ClusterProfile):
        whole = {"kind": "cluster", "name": profiles.name, "boot": profiles.boot.value}
        whole["memory_mib"] = profiles.memory_mib
    machines = [
        {"role": each.role, **profile_to_json(each.profile), "becomes": _becomes_to_json(each.becomes)}
        for each in described
    ]
    return {**whole, "machines": machines}


def profile_to_json(vm: VMProfile) -> dict[str, object]:
    """Every value of the profile; null is what it leaves to the hypervisor."""
    return {
        "name": vm.name,
        "type": vm.type,
        "option": vm.option,
        "cpu": vm.cpu,
        "memory_mib": vm.memory_mib,
        "architecture": vm.architecture,
        "machine": vm.machine,
        "firmware": vm.firmware,
        "boot": list(vm.boot),
        "image": {"path": vm.image.path, "size_mib": vm.image.size_mib, "bus": vm.disk_bus},
        "virtual_disks": [{"id": disk.id, "path": disk.path} for disk in vm.virtual_disks],
        "cdrom": vm.cdrom,
        "nics": [{"type": n.type, "mac": n.mac, "vlan": n.vlan, "option": n.option} for n in vm.nics],
    }


def _becomes_to_json(started: Becomes) -> dict[str, object]:
    if started.refused:
        return {"refused": started.refused}
    if started.definition:
        return {"program": started.program, "definition": started.definition}
    parts = [{"for": part.purpose, "arguments": list(part.arguments)} for part in started.parts]
    return {"program": started.program, "parts": parts}


# --- tables ----------------------------------------------------------------------------------------------------------


def tables(profiles: Profiles, described: tuple[Described, ...]) -> RenderableType:
    """What the profiles are, and below it what each machine becomes."""
    shown: list[RenderableType] = [_overview(profiles, described)]
    for each in described:
        shown += [Text(), _command(each)]
    if any(each.becomes.parts for each in described):
        shown += [Text(), Text("\n".join(_NOTES), style="dim")]
    return Group(*shown)


def _overview(profiles: Profiles, described: tuple[Described, ...]) -> Table:
    title = ""
    if isinstance(profiles, ClusterProfile):
        boot, memory = profiles.boot.value, profiles.memory_mib
        title = f"cluster {profiles.name}: nodes are installed from {boot}, {memory} MiB of memory in all"
    table = Table(title=Text(title) if title else None, title_justify="left")
    for heading in ("", "name", "type", "CPU", "MiB", "disk", "NICs", "more"):
        table.add_column(heading, overflow="fold")
    for each in described:
        vm = each.profile
        cells = (each.role, vm.name, vm.type or "any", str(vm.cpu), str(vm.memory_mib), f"{_disk(vm)} on {vm.disk_bus}")
        nics = "\n".join(_nic(nic) for nic in vm.nics) or "none"
        table.add_row(*(Text(cell) for cell in (*cells, nics, "\n".join(_more(vm)))))
    return table


def _more(vm: VMProfile) -> Iterator[str]:
    """What only some profiles have."""
    yield from (word for word in (vm.architecture, vm.machine, vm.firmware) if word)
    if vm.boot:
        yield f"boots {', '.join(vm.boot)}"
    if vm.option:
        yield f"option {vm.option}"
    if vm.cdrom is not None:
        yield f"CD {vm.cdrom}"
    yield from (f"{disk.id} {disk.path}" for disk in vm.virtual_disks)


def _command(each: Described) -> RenderableType:
    if each.becomes.refused:
        return Text(f"{each.profile.name} cannot be started here: {each.becomes.refused}")
    title = Text(f"{each.profile.name} becomes {each.becomes.program}")
    if each.becomes.definition:
        return Group(title, Text(each.becomes.definition.rstrip()))
    table = Table(title=title, title_justify="left", box=None)
    table.add_column("what for", overflow="fold", max_width=_PURPOSE_WIDTH)
    table.add_column("arguments", overflow="fold")
    for part in each.becomes.parts:
        # A line for each option: a value never begins with a dash.
        lines = shlex.join(part.arguments).replace(" -", "\n-")
        table.add_row(Text(part.purpose), Text(lines))
    return table
