"""Whose commits a red build may be about: all since the cell's last result on the branch."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from buildbot.process.results import CANCELLED, EXCEPTION, FAILURE, SUCCESS
from buildbot.reporters import utils

from oscar_steps.master.reports.facts import note_of
from oscar_steps.master.schedules.names import CHANGES
from oscar_steps.master.steps.results import VERDICT
from oscar_steps.verdict import LINT, Outcome, Verdict

Build = tuple[int, str, list[int]]
"""Result, branch, changes."""


class Farm:
    """A master with the builds of one cell; the change N is r10N by author N."""

    def __init__(self, builds: dict[int, Build]) -> None:
        self.builds = builds
        self.data = SimpleNamespace(get=self._get)
        self.config = SimpleNamespace(buildbotURL="http://farm/")

    async def _get(self, path: tuple[Any, ...]) -> Any:
        if path[0] == "changes":
            number = path[1]
            return {"revision": f"10{number}", "author": f"author{number}", "comments": "x", "revlink": ""}
        if path[0] == "builders":
            number = path[3]
            return {"buildid": number, "results": self.builds[number][0]} if number in self.builds else None
        _, branch, changes = self.builds[path[1]]
        return {"branch": (branch, "s"), CHANGES: (changes, "s")}

    def authors(self, outcome: Outcome, changes: list[int], cell: str = "c") -> list[str]:
        verdict = Verdict(run_id="c-r9-b9", cell=cell, source="s", revision="9", outcome=outcome, sentence="")
        said = {"branch": ("trunk", "s"), CHANGES: (changes, "s"), VERDICT: (verdict.model_dump(mode="json"), "s")}
        build = {"number": 9, "builder": {"builderid": 1, "name": cell}, "results": FAILURE, "properties": said}
        return [change.author for change in asyncio.run(note_of(self, build)).changes]


@pytest.fixture(autouse=True)
def address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(utils, "getURLForBuild", lambda *_: "http://farm/build")


@pytest.fixture
def farm() -> Farm:
    return Farm(
        {
            4: (EXCEPTION, "trunk", [1]),
            5: (SUCCESS, "trunk", [2]),
            6: (EXCEPTION, "trunk", [3]),
            7: (FAILURE, "branches/x", [4]),
            8: (CANCELLED, "trunk", [5, 6]),
        }
    )


def test_authors_whose_commits_the_farm_failed_to_test_since_the_last_result_are_candidates_too(farm: Farm) -> None:
    assert farm.authors(Outcome.FAILED, [7]) == ["author3", "author5", "author6", "author7"]


def test_nobody_but_its_own_authors_hears_of_a_green_build(farm: Farm) -> None:
    assert farm.authors(Outcome.PASSED, [7]) == ["author7"]


def test_no_commit_is_a_candidate_where_a_build_is_for_none(farm: Farm) -> None:
    assert farm.authors(Outcome.FAILED, []) == []


def test_the_first_tier_compares_two_revisions_so_only_the_last_ones_count(farm: Farm) -> None:
    assert farm.authors(Outcome.FAILED, [7], LINT) == ["author7"]
