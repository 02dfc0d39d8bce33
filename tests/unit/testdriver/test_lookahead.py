"""A revision that cannot be installed is told before anything boots: with real repositories, and no machine at all."""

from __future__ import annotations

import asyncio
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from oscar_steps.errors import HostError
from oscar_steps.images.store import ImageStore
from oscar_steps.job import Job, Source
from oscar_steps.matrix.cells import default_profiles, load_matrix
from oscar_steps.testdriver import lookahead
from oscar_steps.testdriver.run import Gate, Run, RunOptions
from oscar_steps.testdriver.stages import create_image
from oscar_steps.v3m.host import checks
from oscar_steps.verdict import Category, Outcome, Stage, Verdict

STANDIN = Path(__file__).parents[2] / "oscar_standin" / "tree"


async def _nothing(_run: Run) -> None:
    pass


def repository(folder: Path, change: Callable[[Path], None]) -> str:
    """The URL of a repository with one revision: the stand-in, changed."""
    tree = folder / "import"
    shutil.copytree(STANDIN, tree)
    change(tree)
    subprocess.run(["svnadmin", "create", folder / "r"], check=True)
    command = ["svn", "import", "-q", "-m", "first", tree, f"file://{folder}/r/oscar/trunk"]
    subprocess.run(command, check=True, timeout=60)
    return f"file://{folder}/r/oscar/trunk"


def verdict_of_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, url: str, *, served: bool = True) -> Verdict:
    """The verdict of a run that would go on to build an image, which it says instead.

    `served`: the repository, a folder, stands for one that a server has.
    """
    if served:
        monkeypatch.setattr(create_image, "check_reach", lambda *_job, **_host: None)

    async def builds(*_arguments: object) -> Any:
        raise HostError("the image would be built")

    monkeypatch.setattr(checks, "_tool", lambda name, _package: checks.Check(name, True, ""))
    monkeypatch.setattr(checks, "_memory", lambda _wanted: checks.Check("memory", True, ""))
    monkeypatch.setattr(ImageStore, "ensure", builds)
    matrix = load_matrix(default_profiles())
    cell = matrix.cells[0]
    job = Job(
        run_id="ahead",
        cell=cell.name,
        source=Source(url=url, revision="1"),
        image=matrix.image(cell),
        cluster_xml=matrix.cluster_xml(cell),
        answers=matrix.answers(cell),
    )
    (tmp_path / "run").mkdir()

    async def execute() -> Verdict:
        run = Run(tmp_path / "run", job, RunOptions(image_store=tmp_path / "store"), Gate(open_=True))
        table = dict.fromkeys(Stage, _nothing) | {Stage.CREATE_IMAGE: create_image.run_stage}
        return await run.execute(table)

    return asyncio.run(execute())


def test_a_revision_whose_command_line_is_incomplete_ends_before_anything_boots(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def older(tree: Path) -> None:
        installer = tree / "install_cluster"
        installer.write_text(installer.read_text().replace("'bootscript=s',", ""))

    url = repository(tmp_path, older)
    verdict = verdict_of_run(tmp_path, monkeypatch, url)
    assert (verdict.outcome, verdict.category) == (Outcome.INFRASTRUCTURE, Category.ANSWERS)
    assert verdict.stage is Stage.CREATE_IMAGE
    assert re.fullmatch(
        r"this OSCAR cannot be installed by its command line: install_cluster:\d+ does not take --bootscript",
        verdict.sentence,
    )


@pytest.mark.parametrize("folder", ["", "lib"], ids=["whole", "without a folder"])
def test_a_revision_that_can_be_installed_goes_on_and_leaves_no_sources_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder: str
) -> None:
    url = repository(tmp_path, lambda tree: shutil.rmtree(tree / folder) if folder else None)
    verdict = verdict_of_run(tmp_path, monkeypatch, url)
    assert "the image would be built" in verdict.sentence
    assert "this OSCAR is installed by install_cluster" in (tmp_path / "run" / "events.jsonl").read_text()
    assert not list((tmp_path / "run").glob("sources-*"))


def test_a_repository_that_no_head_node_reaches_is_a_mistake_of_the_person_who_named_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    verdict = verdict_of_run(tmp_path, monkeypatch, f"file://{tmp_path}/svn", served=False)
    assert (verdict.outcome, verdict.stage) == (Outcome.INFRASTRUCTURE, Stage.CREATE_IMAGE)
    assert "; it can reach svn://, http://, https://, followed by a host" in verdict.sentence
    assert "svnserve" in verdict.hint


@pytest.mark.parametrize("kind", ["no repository", "no answer"])
def test_where_the_repository_cannot_be_asked_from_here_the_head_node_will_see(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    url = f"file://{tmp_path}/none"
    if kind == "no answer":
        monkeypatch.setattr(lookahead, "EXPORT_SECONDS", 0.2)
        monkeypatch.setattr(lookahead, "owned", lambda _command: ["sleep", "60"])
    verdict = verdict_of_run(tmp_path, monkeypatch, url)
    assert "the image would be built" in verdict.sentence
    said = (tmp_path / "run" / "events.jsonl").read_text()
    assert "the head node will find its flavour" in said
    assert "this OSCAR is installed by" not in said
    assert (kind == "no answer") == ("timed out after 0.2 s waiting for the repository" in said)


def test_links_and_what_is_too_long_are_there_without_text(tmp_path: Path) -> None:
    (tmp_path / "scripts").mkdir()
    (tmp_path / "scripts/link").symlink_to("/nowhere")
    (tmp_path / "scripts/long").write_bytes(b"x" * (lookahead.LONGEST_SOURCE + 1))
    (tmp_path / "scripts/old").write_bytes(b"\xfc\n")
    texts = lookahead.texts_below(tmp_path)
    assert texts == {"scripts/link": "", "scripts/long": "", "scripts/old": "ü\n"}


def test_texts_that_nobody_asks_for_are_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lookahead, "MOST_TEXT", 10)
    for path in ("lib/tarball", "scripts/one", "scripts/two", "scripts/three"):
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_text("12345678")
    texts = lookahead.texts_below(tmp_path)
    assert len(texts) == 4
    assert texts["lib/tarball"] == ""
    assert sum(len(text) for text in texts.values()) == 16
