"""The conformance suite on Xen's machines: on a Xen host (`make test-xen`). Elsewhere only definitions are tried.

What libvirt's Xen driver does not offer is listed with the back-end's own words for it.
"""

from __future__ import annotations

import asyncio
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import pytest

from oscar_steps.v3m.libvirt.domain import domain_xml
from oscar_steps.v3m.libvirt.guard import scope_of
from oscar_steps.v3m.libvirt.machine import LibvirtMachine
from oscar_steps.v3m.libvirt.networks import connection_uri
from oscar_steps.v3m.machine import Listener, Machine
from oscar_steps.v3m.profiles.vm import Hypervisor
from tests.vm.conformance import MachineConformance
from tests.vm.conformance_rig import HEAD, Backend, Rig, proves
from tests.vm.test_conformance_vmware import LibvirtBackend
from tests.vm.test_v3m_definitions import expected_vif, xl_configuration, xl_disk

XEN = Path("/proc/xen/capabilities")
NO_XEN = "this is no Xen host: `make test-xen SUITE=all` brings one up and tries it there"


@dataclass(frozen=True)
class XenBackend(LibvirtBackend):
    """Para-virtual guests."""

    type: ClassVar[Hypervisor] = "Xen"
    console = "hvc0"
    has_firmware = False
    refused: ClassVar[dict[str, str]] = {
        "reset": "libvirt cannot reset",
        "screenshot": "no screen",
        "CD in and out": "keeps its CD",
        "install from CD-ROM": "no firmware to boot a CD",
        "migrate": "only migrates to another host",
    }

    @property
    def seconds(self) -> float:
        return 300.0

    def where(self) -> str:
        return "tried in a Xen host that is itself emulated" if XEN.exists() else ""

    def unproven(self, operation: str) -> str | None:
        return None if operation == "definition" or XEN.exists() else NO_XEN

    def twin(self, machine: Machine, listener: Listener) -> Machine:
        assert isinstance(machine, LibvirtMachine)
        return LibvirtMachine(machine.profile, self.directory / "there", on_event=listener)

    async def kill(self, machine: Machine) -> None:
        assert isinstance(machine, LibvirtMachine)
        command = ("virsh", "-c", connection_uri(self.type), "destroy", machine.uuid)
        process = await asyncio.create_subprocess_exec(*command)
        assert await process.wait() == 0

    def left(self) -> list[str]:
        if not XEN.exists():
            return []
        command = ["virsh", "-c", connection_uri(self.type), "list", "--name"]
        shown = subprocess.run(command, check=True, capture_output=True, text=True)
        return [name for name in shown.stdout.split() if name.startswith(scope_of(self.directory))]


@dataclass(frozen=True)
class XenHvmBackend(XenBackend):
    """Fully virtual guests."""

    type: ClassVar[Hypervisor] = "XenHVM"
    console = "ttyS0"
    has_firmware = True
    refused: ClassVar[dict[str, str]] = {
        "reset": "libvirt cannot reset",
        "screenshot": "no screenshots",
        "migrate": "only migrates to another host",
    }

    def unproven(self, operation: str) -> str | None:
        if (reason := XenBackend.unproven(self, operation)) or operation == "definition":
            return reason
        shown = subprocess.run(["xl", "info", "virt_caps"], check=True, capture_output=True, text=True).stdout
        return None if "hvm" in shown.split() else f"this Xen host's processor runs no fully virtual guests: {shown}"


class XenConformance(MachineConformance):
    @proves("definition")
    async def test_the_profile_with_another_type_is_a_machine_of_it(self, rig: Rig) -> None:
        with rig.trying("definition"):
            profile = rig.profile(HEAD)
            found = xl_configuration(domain_xml(profile, rig.directory))
            assert (found["name"], found["memory"]) == (profile.name, str(profile.memory_mib))
            assert [xl_disk(disk)["target"] for disk in found["disk"]] == [str(rig.directory / profile.image.path)]
            assert found["vif"] == [expected_vif(profile, nic) for nic in profile.nics]
            assert ("builder" in found) == rig.backend.has_firmware


class TestXen(XenConformance):
    @pytest.fixture
    def backend(self, run_directory: Path) -> Backend:
        return XenBackend(run_directory)


class TestXenHVM(XenConformance):
    @pytest.fixture
    def backend(self, run_directory: Path) -> Backend:
        return XenHvmBackend(run_directory)
