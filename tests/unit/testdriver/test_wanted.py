"""What a run is to show, and on which cluster: the profile's, with the hypervisor, nodes and boot way of its job."""

from __future__ import annotations

import pytest

from oscar_steps.job import CellPlan, Source, Timeouts
from oscar_steps.matrix.cells import default_profiles, load_matrix
from oscar_steps.oscar.flavour import FlavourName
from oscar_steps.testdriver.record.verdicts import replay_command
from oscar_steps.testdriver.wanted import Wanted, cluster_of
from oscar_steps.v3m.profiles.vm import BootDevice

SOURCE = Source(url="svn://host/oscar/trunk", revision="1")


@pytest.fixture
def plan() -> CellPlan:
    matrix = load_matrix(default_profiles())
    return CellPlan.of(matrix, matrix.cell("debian-12-x86_64"), Timeouts())


def with_settings(plan: CellPlan, **settings: object) -> CellPlan:
    return CellPlan(**{**vars(plan), "cell": plan.cell.model_copy(update=settings)})


def test_a_cells_hypervisor_is_that_of_every_machine_also_of_added_nodes(plan: CellPlan) -> None:
    cluster = cluster_of(with_settings(plan, hypervisor="Kvm", nodes=4).job("r", SOURCE))
    assert [machine.type for machine in cluster.machines] == ["Kvm"] * 5
    plain = cluster_of(plan.job("r", SOURCE))
    assert {machine.type for machine in plain.machines} == {"Qemu"}
    assert plain.nodes == tuple(cluster_of(plan.job("r", SOURCE, boot="network")).nodes)


def test_a_cells_boot_way_and_nodes_are_what_the_run_has_to_show(plan: CellPlan) -> None:
    special = with_settings(plan, boot="network", nodes=3)
    job = special.job("r", SOURCE)
    assert cluster_of(job).boot is BootDevice.NETWORK
    wanted = Wanted.of(job, FlavourName.INSTALL_CLUSTER)
    assert (wanted.boot, wanted.nodes) == ("network", 3)
    assert replay_command(job).endswith("--nodes 3 --boot network")
    assert Wanted.of(special.job("r", SOURCE, boot="cdrom", nodes=1), FlavourName.INSTALL_CLUSTER).nodes == 1
