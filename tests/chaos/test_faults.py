"""Every fault of the stand-in, run for real: the farm's stage, OSCAR's stage, the words, and whose fault it is.

`make faults` runs the same and prints a table, with what was said and how long after the fault it was certain.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from demo.farm import STANDIN
from demo.fault_table import NONE, Proving
from demo.faults import FaultBook

BOOK = FaultBook(STANDIN / "faults")


@pytest.fixture(scope="module")
def proving(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proving]:
    with Proving(tmp_path_factory.mktemp("faults"), BOOK).serving() as proving:
        yield proving


@pytest.mark.parametrize("name", [NONE, *BOOK.faults])
def test_each_fault_is_told_at_its_stage_with_its_cause(name: str, proving: Proving) -> None:
    row = proving.row(name)
    print(f"\n{name}: {row.said}: {row.verdict.sentence if row.verdict else 'no verdict'}")
    assert row.wrong == ()
