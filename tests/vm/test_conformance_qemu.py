"""The conformance suite on QEMU's machines, emulated and with KVM."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import pytest

from oscar_steps.v3m.host.accelerator import Accelerator
from oscar_steps.v3m.machine import Listener, Machine
from oscar_steps.v3m.profiles.cluster import ClusterProfile
from oscar_steps.v3m.profiles.vm import Hypervisor
from oscar_steps.v3m.qemu import network
from oscar_steps.v3m.qemu.machine import QemuMachine
from oscar_steps.v3m.runtime import check_backend
from tests.vm.conformance import MachineConformance
from tests.vm.conformance_rig import Backend, Wanted


@dataclass(frozen=True)
class QemuBackend(Backend):
    """Machines of QEMU's own, on a VLAN of theirs."""

    type: ClassVar[Hypervisor] = "Qemu"
    accelerator: Accelerator

    @property
    def seconds(self) -> float:
        return super().seconds * self.accelerator.slowness

    def machines(self, wanted: list[Wanted], listener: Listener | None) -> list[Machine]:
        head, *nodes = [want.profile for want in wanted]
        networks = network.plan(ClusterProfile("conformance", head, tuple(nodes)))
        made: list[Machine] = []
        for want in wanted:
            check_backend(want.profile, self.accelerator)
            machine = QemuMachine(
                want.profile,
                self.directory,
                self.accelerator,
                networks[want.profile.name],
                head=made[0] if made else None,
                base_image=want.base_image,
                on_event=listener,
                kernel=want.kernel,
            )
            made.append(machine)
        return made

    def twin(self, machine: Machine, listener: Listener) -> Machine:
        """In another directory, which stands for another host, and leads to the same disk and VLAN."""
        there = self.directory / "there"
        there.mkdir()
        for shared in ("disks", "vlan"):
            (there / shared).symlink_to(self.directory / shared)
        assert isinstance(machine, QemuMachine)
        return QemuMachine(
            machine.profile, there, self.accelerator, machine._network, head=machine._head, on_event=listener
        )


@dataclass(frozen=True)
class KvmBackend(QemuBackend):
    """The same machines, which must have KVM."""

    type: ClassVar[Hypervisor] = "Kvm"

    def unproven(self, operation: str) -> str | None:  # noqa: ARG002 - it holds for all of them
        if self.accelerator.name == "kvm":
            return None
        seen = self.accelerator.reason.partition(";")[0]  # behind it is what emulation took
        return f"KVM was tried: {seen}"


class TestQemu(MachineConformance):
    """QEMU emulates, also where KVM works: that is the column `Kvm`."""

    @pytest.fixture
    def backend(self, run_directory: Path, accelerator: Accelerator) -> Backend:
        return QemuBackend(run_directory, replace(accelerator, name="tcg"))


class TestKvm(MachineConformance):
    """Skipped where KVM was tried and does not work."""

    @pytest.fixture
    def backend(self, run_directory: Path, accelerator: Accelerator) -> Backend:
        return KvmBackend(run_directory, accelerator)
