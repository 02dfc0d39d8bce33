"""What a host can run, what a cell needs, and what a worker may say of its host."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oscar_steps.capacity import ASSUMED, LONGEST, SAYS_NOTHING, Host, Need, read_host, why_not
from oscar_steps.job import CellPlan, Timeouts
from oscar_steps.matrix.cells import default_profiles, load_matrix
from oscar_steps.matrix.clusters import cluster_facts
from oscar_steps.v3m.profiles.cluster import parse_cluster

GOOD = {"architectures": {"x86_64": "kvm"}, "hypervisors": ["Qemu", "Kvm"], "memory_mib": 4096, "processors": 8}


def test_what_a_worker_says_of_its_host_is_read_and_what_a_newer_one_adds_is_left_out() -> None:
    host, fault = read_host(json.dumps(GOOD | {"colour": "green"}))
    assert (host.architectures, host.memory_mib, fault) == ({"x86_64": "kvm"}, 4096, "")


def test_a_worker_that_says_nothing_is_taken_for_a_small_pc() -> None:
    assert read_host(None) == (ASSUMED, SAYS_NOTHING)


@pytest.mark.parametrize(
    ("said", "names"),
    [
        (GOOD | {"memory_mib": -1}, "memory_mib"),
        (GOOD | {"processors": 10**30}, "processors"),
        (GOOD | {"processors": True}, "processors"),
        (GOOD | {"memory_mib": "much"}, "memory_mib"),
        (GOOD | {"memory_mib": 1e400}, "memory_mib"),
        (GOOD | {"architectures": {}}, "architectures"),
        (GOOD | {"architectures": {"\x1b[2J": "kvm"}}, "architectures"),
        (GOOD | {"architectures": {"x86_64": "magic"}}, "architectures"),
        (GOOD | {"hypervisors": ["<b>"] * 2}, "hypervisors"),
        ({}, "architectures"),
        ([], "not a JSON object"),
        ("x", "not a JSON object"),
    ],
)
def test_a_worker_that_lies_is_not_believed_and_one_sentence_says_which_value(said: object, names: str) -> None:
    host, fault = read_host(json.dumps(said))
    assert host == ASSUMED
    assert names in fault
    assert fault.isprintable() and len(fault) <= 200


@given(st.one_of(st.text(), st.binary(), st.integers(), st.none(), st.lists(st.text())))
def test_whatever_comes_through_the_connection_gives_a_host_and_no_traceback(said: object) -> None:
    host, fault = read_host(said)
    assert host == ASSUMED and fault


@pytest.mark.parametrize("said", ["[" * 50000, " " * (LONGEST + 1), json.dumps(GOOD) + " " * LONGEST, "\x00"])
def test_what_is_huge_nested_or_no_text_is_refused(said: str) -> None:
    host, fault = read_host(said)
    assert host == ASSUMED and "cannot be used" in fault


HOST = Host.model_validate(GOOD)


@pytest.mark.parametrize(
    ("need", "why"),
    [
        (Need(architecture="x86_64", hypervisors=("Qemu",), memory_mib=4096, processors=99), ""),
        (Need(architecture="aarch64"), "has the architectures x86_64, not aarch64"),
        (Need(architecture="x86_64", hypervisors=("Qemu", "Xen")), "has the hypervisor types Qemu, Kvm, not Xen"),
        (Need(architecture="x86_64", memory_mib=4097), "has 4.0 GiB of memory, the cluster needs 4.0 GiB"),
    ],
)
def test_a_cell_fits_a_host_that_has_its_architecture_its_hypervisor_and_its_memory(need: Need, why: str) -> None:
    assert why_not(need, HOST) == why


def test_the_matrix_counts_what_the_driver_will_reserve_for_each_cell() -> None:
    matrix = load_matrix(default_profiles())
    for cell in matrix.cells:
        need = CellPlan.of(matrix, cell, Timeouts()).need(nodes=5)
        profile = parse_cluster(matrix.cluster_xml(cell), "x").resized(5)
        assert need.memory_mib == profile.memory_mib + 256
        assert need.processors == sum(machine.cpu for machine in profile.machines)
        assert need.architecture == cell.architecture


MACHINE = "<profile><name>n{0}</name><type>{1}</type>{2}<image>x</image></profile>"


def cluster(*machines: str) -> str:
    head, *nodes = machines
    return f"<cluster><head>{head}</head><nodes>{''.join(nodes)}</nodes></cluster>"


def test_a_machine_s_type_memory_and_processors_have_the_driver_s_defaults_and_what_is_wrong_is_the_driver_s() -> None:
    head = MACHINE.format(1, "Qemu", "<cpu> 2 </cpu><memory>0512</memory>")
    xml = cluster(head, MACHINE.format(2, "Xen", "<memory>much</memory>"), MACHINE.format(3, "", ""))
    facts = cluster_facts(xml)
    assert [(each.memory_mib, each.processors, each.hypervisor) for each in facts.machines] == [
        (512, 2, "Qemu"),
        (128, 1, "Xen"),
        (128, 1, ""),
    ]
    assert facts.need("i386").hypervisors == ("Qemu", "Xen")
    assert facts.need("i386", 1).memory_mib == 640
    assert facts.need("i386", 4, "Kvm") == Need(
        architecture="i386", hypervisors=("Kvm",), memory_mib=512 + 4 * 128, processors=6
    )


def test_a_cluster_that_cannot_be_read_needs_nothing_here() -> None:
    assert cluster_facts("<cluster").need("x86_64", 3) == Need(architecture="x86_64")
