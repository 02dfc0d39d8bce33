"""The first tier's step: what it asks the worker for, and what it notes of the answer."""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal

import pytest
from buildbot.process.results import EXCEPTION

from oscar_steps.judgement import Judgement, ReportedProblem
from oscar_steps.master.schedules.names import CHANGES
from oscar_steps.master.steps import lint
from oscar_steps.master.steps.lint import LintStep
from oscar_steps.master.web.standing import GATED_BEFORE, STANDING_FILE, load, note_judgement
from oscar_steps.sources.source import Source

URL = "svn://host/oscar/trunk"
NEW = ReportedProblem(
    key="a", file="src/cli/main_cli", line=3, what="odd", right="even", gates=True, revision=5, author="x"
)


class Data:
    """Changes by their ids."""

    def __init__(self, **revisions: str) -> None:
        self.revisions = revisions

    async def get(self, path: tuple[str, int]) -> dict[str, str] | None:
        found = self.revisions.get(f"c{path[1]}")
        return {"revision": found} if found else None


@pytest.fixture
def step(tmp_path: Path) -> Any:
    made: Any = LintStep.__new__(LintStep)
    properties: dict[str, Any] = {"branch": "trunk"}
    made.build = SimpleNamespace(properties=properties, urls=[])
    made.getProperty = properties.get
    made.setProperty = lambda name, value, _source: properties.update({name: value})

    async def add_url(name: str, url: str) -> None:
        made.build.urls.append((name, url))

    made.addURL = add_url
    made.name = "lint"
    made.site = SimpleNamespace(repository=SimpleNamespace(trunk="trunk"))
    made.master = SimpleNamespace(
        basedir=tmp_path, data=Data(c1="5", c2="7", c3="6"), config=SimpleNamespace(buildbotURL="http://h/")
    )
    return made


@pytest.mark.parametrize(
    ("changes", "words"),
    [([1, 2, 3], ["--first", "5"]), ([2], []), ([], []), (None, []), ([99], []), ([3, 2], ["--first", "6"])],
)
def test_a_build_of_several_commits_is_judged_from_the_first_of_them_on(
    step: Any, changes: list[int] | None, words: list[str]
) -> None:
    step.build.properties[CHANGES] = changes
    assert asyncio.run(step._first_of_several(Source(url=URL, revision="7"))) == words


FIRST, SECOND, LAST = "a" * 40, "1" * 40, "c" * 40


@pytest.mark.parametrize(
    ("changes", "words"),
    [([1, 2, 3], ["--first", FIRST]), ([3, 2], ["--first", SECOND]), ([3], []), ([], []), ([99], []), ([4, 3], [])],
)
def test_of_git_the_first_of_several_commits_is_the_one_that_was_stored_first(
    step: Any, changes: list[int], words: list[str]
) -> None:
    step.master.data = Data(c1=FIRST, c2=SECOND, c3=LAST, c4="--json")
    step.build.properties[CHANGES] = changes
    assert asyncio.run(step._first_of_several(Source(kind="git", url="https://h/oscar", revision=LAST))) == words


@pytest.mark.parametrize(("kind", "words"), [("git", ["--git"]), ("svn", [])])
def test_the_driver_hears_what_kind_of_repository_it_is(
    step: Any, monkeypatch: pytest.MonkeyPatch, kind: Literal["git", "svn"], words: list[str]
) -> None:
    asked: list[list[str]] = []

    async def command(command: list[str]) -> Any:
        asked.append(command)
        return SimpleNamespace(rc=0)

    async def nothing(*_arguments: Any) -> None:
        return None

    monkeypatch.setattr(lint, "cut_short", lambda _step: None)
    step.site.driver = SimpleNamespace(command=["driver"])
    step.makeRemoteShellCommand, step.runCommand = command, nothing
    step.addLogObserver, step._note_what_stands = lambda *_arguments: None, nothing
    step.timed_out = False
    source = Source(kind=kind, url="https://h/oscar", revision=LAST if kind == "git" else "7")
    asyncio.run(step.begin(source, "run", "/runs/run"))
    [words_asked] = asked
    plain = ["driver", "lint", source.revision, "--url", "https://h/oscar", "--run", "/runs/run"]
    assert words_asked == plain + words


def test_a_change_that_is_later_than_what_is_tested_is_not_the_first(step: Any) -> None:
    step.build.properties[CHANGES] = [2]
    assert asyncio.run(step._first_of_several(Source(url=URL, revision="6"))) == []


def noted(step: Any, monkeypatch: pytest.MonkeyPatch, text: str, rc: int = 0) -> dict[str, Any]:
    """The build's properties once the worker has delivered `text`."""

    async def upload(_step: Any, _directory: str, _file: str, writer: Any, _limit: int) -> bool:
        writer.buffer = text
        return rc == 0

    async def at_once(function: Any, *arguments: Any) -> Any:
        return function(*arguments)

    monkeypatch.setattr(lint, "upload", upload)
    monkeypatch.setattr(lint.threads, "deferToThread", at_once)
    asyncio.run(step._note_what_stands("/runs/lint-r5-b1", URL))
    properties: dict[str, Any] = step.build.properties
    return properties


def test_what_was_judged_is_in_the_list_and_the_build_links_to_it(step: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    noted(step, monkeypatch, Judgement(url=URL, revision=5, base=4, new=(NEW,)).model_dump_json())
    assert load(step.master.basedir).branches["trunk"].problems["a"].author == "x"
    assert step.build.urls == [("standing problems", "http://h/plugins/standing/")]


def test_the_mended_problem_of_a_commit_that_was_kept_from_its_cells_names_its_author(
    step: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    note_judgement(step.master.basedir, "trunk", Judgement(url=URL, revision=5, base=4, new=(NEW,)))
    said = Judgement(url=URL, revision=6, base=5, mended=(NEW,))
    assert noted(step, monkeypatch, said.model_dump_json())[GATED_BEFORE] == ["x"]


@pytest.mark.parametrize(
    ("text", "rc"),
    [("", 1), ("", 0), ("no json", 0), ("{}", 0), (Judgement(url="svn://elsewhere", revision=5).model_dump_json(), 0)],
)
def test_what_cannot_be_used_is_not_noted_and_harms_nothing(
    step: Any, monkeypatch: pytest.MonkeyPatch, text: str, rc: int
) -> None:
    assert GATED_BEFORE not in noted(step, monkeypatch, text, rc)
    assert not (step.master.basedir / STANDING_FILE).exists()


def test_a_list_that_is_spoiled_is_told_to_the_operator(step: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    monkeypatch.setattr(lint, "notify_operator", lambda _master, subject, _text: told.append(subject))
    (step.master.basedir / STANDING_FILE).write_text("spoiled")
    noted(step, monkeypatch, Judgement(url=URL, revision=5).model_dump_json())
    assert told == ["the list of standing problems was reset"]
    assert load(step.master.basedir).branches["trunk"].revision == 5


def test_the_line_of_the_step_is_what_the_first_tier_says_in_the_end(step: Any) -> None:
    step.summary, step.results = "", EXCEPTION
    assert step.getResultSummary() == {"step": "lint: exception"}
    step._show("lint: no problem")
    assert step.getResultSummary() == {"step": "lint: no problem"}
