"""The book-keeping of the conformance suite: a cell says what a test saw, and nothing better. No machine is started."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import pytest

from oscar_steps.errors import NotOffered
from oscar_steps.v3m.boot import DirectKernel
from oscar_steps.v3m.machine import Listener, Machine
from oscar_steps.v3m.profiles.vm import Hypervisor
from tests.vm.conformance import MachineConformance
from tests.vm.conformance_rig import Backend, Rig, Wanted, proves
from tests.vm.conformance_table import (
    BACKENDS,
    BEGIN,
    END,
    NOT_RUN,
    OPERATIONS,
    Outcome,
    Result,
    Results,
    markdown,
    write_markdown,
)

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class NoMachines(Backend):
    """A back-end that is expected to have no reset button."""

    type: ClassVar[Hypervisor] = "Xen"
    refused: ClassVar[dict[str, str]] = {"reset": "no reset button"}

    def machines(self, wanted: list[Wanted], listener: Listener | None) -> list[Machine]:
        raise NotOffered(f"there are no machines, not even {len(wanted)}, for {listener}")


@pytest.fixture
def rig(tmp_path: Path) -> Rig:
    return Rig(NoMachines(tmp_path), DirectKernel(tmp_path / "vmlinuz"), Results())


def ran(rig: Rig, *operations: str, test: Callable[[Rig], None]) -> None:
    """A test of the suite that declares `operations` and does what `test` does."""

    @proves(*operations)
    async def method(_self: object, rig: Rig) -> None:
        test(rig)

    method(None, replace(rig, operations=operations))


def tries(operation: str, error: BaseException | None = None) -> Callable[[Rig], None]:
    def test(rig: Rig) -> None:
        with rig.trying(operation):
            if error is not None:
                raise error

    return test


def cells(rig: Rig) -> dict[str, tuple[Outcome, str]]:
    return {result.operation: (result.outcome, result.reason) for result in rig.results}


def test_every_operation_is_proven_by_one_test_of_the_suite() -> None:
    declared = [
        name
        for _, test in inspect.getmembers(MachineConformance, inspect.isfunction)
        for mark in getattr(test, "pytestmark", [])
        for name in mark.args
    ]
    assert sorted(declared) == sorted(OPERATIONS)


def test_what_was_tried_and_held_has_passed(rig: Rig) -> None:
    ran(rig, "boot", test=tries("boot"))
    assert cells(rig) == {"boot": (Outcome.PASSED, "")}


def test_a_refusal_that_is_expected_is_reported_with_its_sentence_and_the_test_goes_on(rig: Rig) -> None:
    def test(rig: Rig) -> None:
        tries("reset", NotOffered("it has no reset button"))(rig)
        tries("boot")(rig)

    ran(rig, "reset", "boot", test=test)
    assert cells(rig) == {"reset": (Outcome.REFUSED, "it has no reset button"), "boot": (Outcome.PASSED, "")}


def test_a_reason_does_not_say_where_the_test_had_its_files(rig: Rig) -> None:
    ran(rig, "reset", test=tries("reset", NotOffered(f"it has no reset button: see {rig.directory}/console/x.log")))
    assert cells(rig) == {"reset": (Outcome.REFUSED, "it has no reset button: see console/x.log")}


@pytest.mark.parametrize(
    ("operation", "sentence"), [("boot", "it has no reset button"), ("reset", "something else")], ids=["other", "words"]
)
def test_a_refusal_that_is_not_expected_fails(rig: Rig, operation: str, sentence: str) -> None:
    with pytest.raises(AssertionError, match="is not expected to refuse"):
        ran(rig, operation, test=tries(operation, NotOffered(sentence)))
    assert cells(rig)[operation][0] is Outcome.FAILED


def test_a_refusal_that_is_expected_and_does_not_come_fails(rig: Rig) -> None:
    with pytest.raises(AssertionError, match="Xen is expected to refuse 'reset', and it works"):
        ran(rig, "reset", test=tries("reset"))
    assert cells(rig)["reset"][0] is Outcome.FAILED


def test_after_a_failure_the_rest_of_the_test_has_failed_as_well(rig: Rig) -> None:
    with pytest.raises(RuntimeError):
        ran(rig, "boot", "status", test=tries("boot", RuntimeError("no\nnot at all")))
    assert cells(rig) == {"boot": (Outcome.FAILED, "no"), "status": (Outcome.FAILED, "not reached: no")}


def test_what_is_declared_and_not_tried_fails(rig: Rig) -> None:
    with pytest.raises(AssertionError, match="has declared what it has not tried"):
        ran(rig, "boot", "status", test=tries("boot"))
    assert "status" not in cells(rig)


def test_a_skipped_test_proves_nothing(rig: Rig) -> None:
    with pytest.raises(pytest.skip.Exception):
        ran(rig, "boot", "status", test=tries("boot", pytest.skip.Exception("no tool")))
    assert cells(rig) == dict.fromkeys(("boot", "status"), (Outcome.UNPROVEN, "no tool"))


def test_a_cell_without_a_test_is_unproven() -> None:
    cell = Results().cell("boot", "Qemu")
    assert (cell.outcome, cell.reason) == (Outcome.UNPROVEN, NOT_RUN)


def test_results_of_another_host_count_where_nothing_could_be_tried_here(tmp_path: Path) -> None:
    there, here = Results(), Results()
    there.add(Result("boot", "Xen", Outcome.PASSED, where="a Xen host"))
    there.add(Result("reset", "Xen", Outcome.FAILED, "it hangs", where="a Xen host"))
    there.save(tmp_path / "there.jsonl")
    for operation in ("boot", "reset"):
        here.add(Result(operation, "Xen", Outcome.UNPROVEN, "no Xen"))
    here.add(Result("status", "Xen", Outcome.PASSED))
    here.merge(tmp_path / "there.jsonl")
    table = markdown(here)
    assert "| boot                          | unproven here (1) | unproven here (1) | passed (2) " in table
    assert "FAILED (" in table
    assert "2. a Xen host\n" in table
    assert "a Xen host: it hangs" in table


@pytest.mark.parametrize(
    "line",
    [
        "nonsense",
        "[]",
        '{"operation": "boot"}',
        '{"operation": "boot", "backend": "Qemu", "outcome": "fine"}',
        '{"operation": "fly", "backend": "Qemu", "outcome": "passed"}',
        '{"operation": "boot", "backend": "Qemu", "outcome": "passed", "more": 1}',
    ],
)
def test_a_line_that_is_no_result_is_named(tmp_path: Path, line: str) -> None:
    file = tmp_path / "there.jsonl"
    file.write_text(f"\n{line}\n".lstrip("\n"), encoding="utf-8")
    with pytest.raises(ValueError, match=r"there\.jsonl:1: this is no result of a conformance test"):
        Results().merge(file)


def test_the_table_in_a_document_is_replaced_and_nothing_else(tmp_path: Path) -> None:
    new, old = tmp_path / "new.md", tmp_path / "old.md"
    write_markdown(new, "| a |\n")
    assert new.read_text(encoding="utf-8") == f"{BEGIN}\n\n| a |\n\n{END}\n"
    old.write_text(f"before\n{new.read_text(encoding='utf-8')}after\n", encoding="utf-8")
    for _ in range(2):
        write_markdown(old, "| b |\n")
        assert old.read_text(encoding="utf-8") == f"before\n{BEGIN}\n\n| b |\n\n{END}\nafter\n"


def test_a_document_without_a_place_for_the_table_is_left_alone(tmp_path: Path) -> None:
    document = tmp_path / "document.md"
    document.write_text(f"text\n{BEGIN}\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"document\.md: it has no place for the table"):
        write_markdown(document, "| a |\n")
    assert document.read_text(encoding="utf-8") == f"text\n{BEGIN}\n"


def test_the_document_that_make_names_has_a_place_for_the_table_and_its_rows_and_columns() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    (named,) = set(re.findall(r"make conformance .*MARKDOWN=(docs/\S+)", makefile))
    _, begun, rest = (ROOT / named).read_text(encoding="utf-8").partition(f"{BEGIN}\n")
    table, ended, _ = rest.partition(f"{END}\n")
    assert begun and ended
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines() if line[:2] == "| "]
    assert rows[0] == ["operation", *BACKENDS]
    assert tuple(row[0] for row in rows[1:]) == OPERATIONS
