"""The conformance suite on the types that do not run here: of VMware there are definitions, of VMM-HPC nothing."""

from __future__ import annotations

import re
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import pytest

from oscar_steps.v3m.libvirt.domain import domain_xml
from oscar_steps.v3m.libvirt.machine import LibvirtMachine
from oscar_steps.v3m.machine import Listener, Machine
from oscar_steps.v3m.profiles.vm import Hypervisor
from tests import libvirt_converters as converters
from tests.vm.conformance import MachineConformance
from tests.vm.conformance_rig import HEAD, Backend, Rig, Wanted, proves
from tests.vm.conformance_table import OPERATIONS


@dataclass(frozen=True)
class LibvirtBackend(Backend):
    """Machines of libvirt's, each alone. Raises NotOffered for a type that there is no back-end for."""

    def machines(self, wanted: list[Wanted], listener: Listener | None) -> list[Machine]:
        return [
            LibvirtMachine(
                want.profile, self.directory, base_image=want.base_image, on_event=listener, kernel=want.kernel
            )
            for want in wanted
        ]


@dataclass(frozen=True)
class VMWareBackend(LibvirtBackend):
    type: ClassVar[Hypervisor] = "VMWare"
    ending = "vmdk"

    refused = dict.fromkeys(set(OPERATIONS) - {"definition"}, "can be defined .* but not run")

    def machines(self, wanted: list[Wanted], listener: Listener | None) -> list[Machine]:
        """Objects there are, without a kernel from outside; what `create` and `boot` say first is heard at once."""
        made = super().machines([replace(want, kernel=None) for want in wanted], listener)
        for machine in made:
            assert isinstance(machine, LibvirtMachine)
            machine._check_offered()
        return made


@dataclass(frozen=True)
class VmmHpcBackend(LibvirtBackend):
    type: ClassVar[Hypervisor] = "VMM-HPC"
    refused = dict.fromkeys(OPERATIONS, "VMM-HPC, a research prototype .* set the type")


class TestVMWare(MachineConformance):
    """What can be proven without VMware: libvirt's own converter makes VMware's configuration of the same machine."""

    @pytest.fixture
    def backend(self, run_directory: Path) -> Backend:
        return VMWareBackend(run_directory)

    @pytest.mark.usefixtures("player")
    @proves("definition")
    async def test_the_profile_with_another_type_is_a_machine_of_it(self, rig: Rig) -> None:
        with rig.trying("definition"):
            if shutil.which("virsh") is None:
                pytest.skip("the program virsh is missing: apt-get install libvirt-clients")
            profile = rig.profile(HEAD)
            vmx = await converters.to_vmx(domain_xml(profile, rig.directory))
            found = dict(re.findall(r'^(\S+) = "(.*)"$', vmx, re.MULTILINE))
            assert (found["displayName"], found["memsize"]) == (profile.name, str(profile.memory_mib))
            assert found["scsi0:0.fileName"] == str(rig.directory / profile.image.path)
            for number, nic in enumerate(profile.nics):
                assert found[f"ethernet{number}.address"] == nic.mac


class TestVmmHpc(MachineConformance):
    """Every operation is refused, with one sentence."""

    @pytest.fixture
    def backend(self, run_directory: Path) -> Backend:
        return VmmHpcBackend(run_directory)
