"""The colours that the guides name are those of Buildbot's own pages."""

from __future__ import annotations

import re
from pathlib import Path

import buildbot_www
import pytest
from buildbot.process.results import Results

from oscar_steps.master.steps.results import RESULT_OF_OUTCOME
from oscar_steps.verdict import Outcome

DOCS = Path(__file__).resolve().parents[3] / "docs"
CALLED = {"green": "#8d4", "red": "#e88", "orange": "#fa3", "purple": "#c6c", "pink": "#ecc"}
"""What a person would call Buildbot's colours."""


def colour_of(result: str) -> str:
    """The background of a build's badge, by the style sheet of the pages."""
    style = "".join(path.read_text() for path in Path(buildbot_www.__file__).parent.glob("static/assets/*.css"))
    rules = re.findall(rf"\.bb-badge-round\.results_{result.upper()}\b[^{{]*\{{([^}}]*)\}}", style)
    (colour,) = {found for rule in rules for found in re.findall(r"background(?:-color)?:(#\w+)", rule)}
    return str(colour)


def rows(page: str, words: str) -> list[tuple[str, str]]:
    return re.findall(words, (DOCS / page).read_text(), re.MULTILINE)


@pytest.mark.parametrize(
    ("colour", "result"),
    [
        *rows("operator-guide.md", rf"^\| (\w+) \| ({'|'.join(Results)}) \|"),
        *(
            (colour, Results[RESULT_OF_OUTCOME[Outcome(outcome)]])
            for outcome, colour in rows("user-guide.md", r"^\| `(\w+)` +\| (\w+) ")
            if outcome in list(Outcome)
        ),
    ],
)
def test_a_guide_calls_a_result_by_the_colour_that_it_has_on_the_pages(colour: str, result: str) -> None:
    assert CALLED[colour] == colour_of(result)


def test_both_guides_name_a_colour_for_every_result_that_a_build_ends_with() -> None:
    of_operator = {result for _, result in rows("operator-guide.md", rf"^\| (\w+) \| ({'|'.join(Results)}) \|")}
    assert of_operator == set(Results) - {"skipped"}
    of_users = {outcome for outcome, _ in rows("user-guide.md", r"^\| `(\w+)` +\| (\w+) ")}
    assert of_users >= set(Outcome)
