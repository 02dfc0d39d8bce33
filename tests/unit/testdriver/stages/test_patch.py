"""A developer's patch in the head node, against a small SSH server that runs commands here."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from oscar_steps.errors import FarmError, HostError, PatchRefused
from oscar_steps.sources.source import Patch
from oscar_steps.testdriver.deadline import Deadline
from oscar_steps.testdriver.head.headnode import HeadNode
from oscar_steps.testdriver.record.events import Diary
from oscar_steps.testdriver.record.verdicts import record_of
from oscar_steps.testdriver.stages.sources.patch import apply
from tests.unit.testdriver.head.sshd import Server, server, with_head

__all__ = ["server"]
DIFF = "--- tool\t(revision 1)\n+++ tool\t(working copy)\n@@ -1,2 +1,2 @@\n one\n-{}\n+three\n"


def applied(server: Server, folder: Path, text: str, home: str = "oscar") -> FarmError | None:
    (folder / "oscar").mkdir()
    (folder / "oscar/tool").write_text("one\ntwo\n")
    job = SimpleNamespace(answers=SimpleNamespace(oscar_home=str(folder / home)))
    run: Any = SimpleNamespace(directory=folder, job=job, diary=Diary(folder))
    found: list[FarmError] = []

    async def work(head: HeadNode) -> None:
        booted: Any = SimpleNamespace(head=head)
        try:
            await apply(run, booted, Patch.of(text, "eric"), Deadline(20))
        except FarmError as error:
            found.append(error)

    with_head(server, work)
    assert (folder / "patch.diff").read_text() == text
    return found[0] if found else None


def test_a_patch_is_applied_in_the_head_node(server: Server, tmp_path: Path) -> None:
    assert applied(server, tmp_path, DIFF.format("two")) is None
    assert (tmp_path / "oscar/tool").read_text() == "one\nthree\n"
    assert [path.name for path in (tmp_path / "oscar").iterdir()] == ["tool"]
    assert "of eric changes 1 file" in (tmp_path / "events.jsonl").read_text()


def test_a_hunk_that_finds_no_place_is_its_authors_mistake_and_is_shown(server: Server, tmp_path: Path) -> None:
    error = applied(server, tmp_path, DIFF.format("other"))
    assert isinstance(error, PatchRefused)
    kept = record_of(error)
    assert (kept["outcome"], kept["category"]) == ("infrastructure", "farm")
    (shown,) = kept["evidence"]
    assert (shown["file"], shown["first_line"]) == ("patch.diff", 3)
    assert "-other" in shown["lines"]
    assert (tmp_path / "oscar/tool").read_text() == "one\ntwo\n"


def test_a_head_node_that_cannot_apply_any_patch_is_no_mistake_of_its_author(server: Server, tmp_path: Path) -> None:
    error = applied(server, tmp_path, DIFF.format("two"), home="nowhere")
    assert isinstance(error, HostError)
    assert "could not apply the patch" in error.sentence


@pytest.mark.parametrize("text", ["", "--- ../x\n+++ ../x\n@@ -1 +1 @@\n-a\n+b\n"])
def test_what_the_master_would_have_refused_reaches_no_head_node(server: Server, tmp_path: Path, text: str) -> None:
    assert isinstance(applied(server, tmp_path, text), PatchRefused)
