"""A red run's mail says what changed in the distribution since the cell's last good run."""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from buildbot.process.results import EXCEPTION, FAILURE, SUCCESS

from oscar_steps.manifest import MANIFEST_FILE
from oscar_steps.master.history.record import NOT_COUNTED
from oscar_steps.master.reports.distribution import changed_since_good
from oscar_steps.master.steps.results import VERDICT
from oscar_steps.verdict import ImageReport, Outcome, Verdict

OLD = "bash 5.2 amd64\nopenssh-server 9.2p1-2 amd64\n"
NEW = "bash 5.2 amd64\nopenssh-server 9.2p1-3 amd64\n"


def verdict(number: int, outcome: Outcome = Outcome.PASSED, key: str = "aa", manifest: str = "") -> Verdict:
    image = ImageReport(key=key, manifest=manifest) if key else None
    return Verdict(
        run_id=f"c-r{number}-b{number}", cell="c", source="s", revision=str(number), outcome=outcome, sentence="",
        image=image,
    )  # fmt: skip


class Farm:
    """A master with the builds of one cell, and what it keeps of their runs."""

    def __init__(self, basedir: Path, builds: dict[int, tuple[int, Verdict | None]]) -> None:
        self.basedir = str(basedir)
        self.builds = builds
        self.experiments = set[int]()
        self.data = SimpleNamespace(get=self._get)

    async def _get(self, path: tuple[Any, ...]) -> Any:
        if path[0] == "builders":
            number = path[3]
            return {"buildid": number, "results": self.builds[number][0]} if number in self.builds else None
        said = self.builds[path[1]][1]
        found = {VERDICT: (said.model_dump(mode="json"), "step")} if said else {}
        return found | ({NOT_COUNTED: (True, "Bisect")} if path[1] in self.experiments else {})

    def keep(self, run: Verdict, text: str) -> None:
        folder = Path(self.basedir) / "runs" / run.run_id
        folder.mkdir(parents=True)
        (folder / MANIFEST_FILE).write_text(text)

    def said(self, run: Verdict) -> str:
        return asyncio.run(changed_since_good(self, {"number": 9, "builder": {"builderid": 1}}, run))


RED = verdict(9, Outcome.FAILED, "bb", "2")


def test_packages_that_changed_since_the_last_good_run_are_named(tmp_path: Path) -> None:
    good = verdict(5, manifest="1")
    farm = Farm(tmp_path, {5: (SUCCESS, good), 6: (EXCEPTION, None), 8: (FAILURE, verdict(8, Outcome.FAILED, "bb"))})
    farm.keep(good, OLD)
    farm.keep(RED, NEW)
    said = "1 package of the distribution changed: openssh-server 9.2p1-2 -> 9.2p1-3"
    assert farm.said(RED) == f"since the last good run (r5) {said}"


def test_a_build_of_a_search_is_not_the_last_good_run(tmp_path: Path) -> None:
    farm = Farm(tmp_path, {5: (SUCCESS, verdict(5, manifest="1")), 8: (SUCCESS, verdict(3, key="bb"))})
    farm.experiments.add(8)
    assert farm.said(RED).startswith("since the last good run (r5)")


def test_where_the_lists_are_gone_it_says_that_the_image_is_another(tmp_path: Path) -> None:
    farm = Farm(tmp_path, {5: (SUCCESS, verdict(5, manifest="1"))})
    assert farm.said(RED) == "since the last good run (r5) the base image has changed; its packages were not kept"


@pytest.mark.parametrize(
    ("run", "good"),
    [
        (verdict(9, Outcome.PASSED, "bb"), verdict(5)),
        (verdict(9, Outcome.FAILED, "aa"), verdict(5)),
        (verdict(9, Outcome.FAILED, ""), verdict(5)),
        (RED, verdict(5, manifest="2")),
        (RED, verdict(5, key="")),
        (RED, None),
    ],
    ids=["green", "the same image", "no image", "the same packages", "an image unknown", "no verdict"],
)
def test_nothing_is_said_where_the_distribution_is_no_suspect(
    tmp_path: Path, run: Verdict, good: Verdict | None
) -> None:
    assert Farm(tmp_path, {5: (SUCCESS, good)}).said(run) == ""


def test_a_cell_that_was_never_good_has_nothing_to_compare_with(tmp_path: Path) -> None:
    assert Farm(tmp_path, {}).said(RED) == ""


def test_a_run_whose_name_leads_elsewhere_is_not_looked_for(tmp_path: Path) -> None:
    run = RED.model_copy(update={"run_id": "../../etc"})
    assert "were not kept" in Farm(tmp_path, {5: (SUCCESS, verdict(5, manifest="1"))}).said(run)
