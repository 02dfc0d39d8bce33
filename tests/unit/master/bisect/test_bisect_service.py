"""The farm's own search: when it begins, what it asks for, how it ends. The database is a stand-in, in memory."""

from __future__ import annotations

import dataclasses
import datetime
import random
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from buildbot.process.results import CANCELLED, EXCEPTION, FAILURE, SUCCESS
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet import defer

from oscar_steps.bisect.search import LIMIT
from oscar_steps.errors import UserError
from oscar_steps.master.bisect.service import PRIORITY, BisectService
from oscar_steps.master.durability.once import REPEAT_OF
from oscar_steps.master.history.record import NOT_COUNTED, Result
from oscar_steps.master.history.table import Rate
from oscar_steps.master.operator_mail import MAIL_SERVICE
from oscar_steps.master.schedules.names import BISECT, CHANGES, PATCH_OF
from oscar_steps.master.steps.results import RUN_DIRECTORY
from oscar_steps.verdict import Category, Outcome, Stability, Stage, Verdict

REPOSITORY, BRANCH = "svn://h/oscar", "trunk"
COMMITS = 16
GOOD, BAD = 100, 100 + COMMITS
RED = 50
"""Id of the build that turned red."""


def verdict(revision: int, outcome: Outcome, sentence: str = "the image failed", **more: Any) -> dict[str, Any]:
    red = outcome is Outcome.FAILED
    facts: dict[str, Any] = {
        "run_id": f"cell-r{revision}",
        "cell": "cell",
        "source": f"{REPOSITORY}/trunk",
        "revision": str(revision),
        "outcome": outcome,
        "sentence": "passed" if outcome is Outcome.PASSED else sentence,
        "category": Category.OSCAR if red else Category.NONE,
        "stage": Stage.START_INSTALL if red else None,
    }
    return Verdict.model_validate({**facts, **more}).model_dump(mode="json")


def result(build: int, outcome: str, **more: Any) -> Result:
    return Result(
        build=build, number=build, request=build, cell="cell", branch=BRANCH, identity=f"i{build}", source=f"r{GOOD}",
        url=f"{REPOSITORY}/trunk", revision=str(GOOD), outcome=outcome, **more,
    )  # fmt: skip


class FakeMaster:
    """What the service asks of Buildbot."""

    def __init__(self, tmp_path: Path, **red: Any) -> None:
        self.basedir = str(tmp_path)
        self.config = SimpleNamespace(buildbotURL="http://farm/")
        self.said: dict[int, dict[str, Any]] = {
            RED: {"verdict": verdict(BAD, Outcome.FAILED), CHANGES: [1], "branch": BRANCH, **red}
        }
        self.builds = {RED: self._build(RED, FAILURE)}
        self.asked: list[dict[str, Any]] = []
        self.results = [result(40, "passed")]
        self.later: list[Result] = []
        self.flake = Rate()
        self.states: dict[Any, Any] = {}
        self.mails: list[tuple[str, str, str, list[str]]] = []
        self.developers = False
        self.now: dict[str, Any] = {}
        """What the builds of a search have beside it."""
        self.workers = [{"name": "w1"}]
        self.mail_runs = True
        self.data = SimpleNamespace(get=self._get, updates=SimpleNamespace(addBuildset=self._add))
        self.db = SimpleNamespace(
            pool=SimpleNamespace(do=self._do),
            model=None,
            state=SimpleNamespace(getObjectId=self._object, getState=self._state, setState=self._set_state),
        )
        mail = SimpleNamespace(send_to_logins=self._mail)
        self.service_manager = SimpleNamespace(namedServices={MAIL_SERVICE: mail})

    @staticmethod
    def _build(number: int, results: int) -> dict[str, Any]:
        when = datetime.datetime.now(datetime.UTC)
        return {
            "buildid": number, "number": number, "builderid": 3, "buildrequestid": number, "complete": True,
            "results": results, "complete_at": when,
        }  # fmt: skip

    async def _get(self, path: tuple[Any, ...], **_more: Any) -> Any:  # noqa: PLR0911 - a table
        match path:
            case ("builds",):
                return [build for build in self.builds.values() if build["results"] == FAILURE]
            case ("builds", number):
                return self.builds.get(number)
            case ("builds", number, "properties"):
                return {name: (value, "x") for name, value in self.said.get(number, {}).items()}
            case ("builders", _):
                return {"name": "cell"}
            case ("builders", _, "workers"):
                return self.workers
            case ("buildrequests", number):
                return {"buildsetid": number}
            case ("buildsets", _):
                stamp = {"codebase": "", "repository": REPOSITORY, "branch": BRANCH, "project": "oscar"}
                return {"sourcestamps": [{**stamp, "revision": str(BAD), "ssid": 1}]}
            case ("changes",):
                return [
                    {"changeid": n, "revision": str(n), "author": f"dev{n}", "comments": "words"}
                    for n in range(GOOD - 5, BAD + 4)
                ]
            case ("buildrequests",):
                [number] = _more["filters"][0].values
                return [{"buildrequestid": number, "complete": number in self.builds}]
            case ("buildrequests", number, "builds"):
                return [self.builds[number]] if number in self.builds else []
        raise AssertionError(path)

    async def _add(self, **wanted: Any) -> tuple[int, dict[int, int]]:
        self.asked.append(wanted)
        number = 99 + len(self.asked)
        return number, {3: number}

    async def _do(self, question: Callable[..., Any], *_arguments: Any, **_more: Any) -> Any:
        name = question.__name__
        if name == "_asked_for":
            return [(100 + n, tuple(each["properties"][BISECT][0])) for n, each in enumerate(self.asked)]
        if name == "flake_rate":
            return self.flake
        if name == "result_of_build":
            return next((each for each in self.later if each.build == _arguments[0]), None)
        assert name == "results_of"
        return self.results if _more.get("before") else [*self.later, *self.results]

    async def _object(self, name: str, kind: str) -> Any:
        return name, kind

    async def _state(self, number: Any, name: str, default: Any) -> Any:
        return self.states.get((number, name), default)

    async def _set_state(self, number: Any, name: str, value: Any) -> None:
        self.states[number, name] = value

    async def _mail(self, name: str, subject: str, text: str, logins: list[str], *, developers: bool) -> bool:
        self.developers = developers
        if self.mail_runs:
            self.mails.append((name, subject, text, logins))
        return self.mail_runs

    def run(self, outcome: Callable[[int], tuple[int, dict[str, Any]]]) -> None:
        """Build what was asked for last."""
        number = 99 + len(self.asked)
        asked = self.asked[-1]
        results, said = outcome(int(asked["sourcestamps"][0]["revision"]))
        self.builds[number] = self._build(number, results)
        self.said[number] = {"verdict": said, BISECT: asked["properties"][BISECT][0], NOT_COUNTED: True, **self.now}


def service(master: FakeMaster) -> BisectService:
    """A service of a master that has just begun."""
    made = BisectService()
    made.parent = SimpleNamespace(master=master)
    made._turn = defer.DeferredLock()
    made._consumer = object()
    return made


def finished(master: FakeMaster, build: int) -> None:
    done = service(master)._heard(None, master.builds[build])
    assert done.called


def broken_since(culprit: int) -> Callable[[int], tuple[int, dict[str, Any]]]:
    def run(revision: int) -> tuple[int, dict[str, Any]]:
        bad = revision >= culprit
        return (FAILURE, verdict(revision, Outcome.FAILED)) if bad else (SUCCESS, verdict(revision, Outcome.PASSED))

    return run


def searched(master: FakeMaster, run: Callable[[int], tuple[int, dict[str, Any]]], most: int = 40) -> list[int]:
    """Run the search to its end; the revisions that were run. Each step is another master's."""
    finished(master, RED)
    built = 0
    while len(master.asked) > built and built < most:
        built = len(master.asked)
        master.run(run)
        finished(master, 99 + built)
    return [int(each["sourcestamps"][0]["revision"]) for each in master.asked]


def test_an_answer_that_could_not_be_mailed_is_mailed_by_the_next_master(tmp_path: Path) -> None:
    master = FakeMaster(tmp_path)
    master.mail_runs = False
    searched(master, broken_since(107))
    assert master.mails == []
    master.mail_runs = True
    finished(master, 99 + len(master.asked))
    finished(master, 99 + len(master.asked))
    assert [subject for _, subject, _, _ in master.mails] == ["cell: r107 (dev107) broke it"]


def test_one_mail_says_who_did_it_with_the_two_runs_beside_each_other(tmp_path: Path) -> None:
    master = FakeMaster(tmp_path)
    revisions = searched(master, broken_since(107))
    assert revisions[:2] == [BAD, GOOD]
    assert len(revisions) <= 7
    [(name, subject, text, logins)] = master.mails
    assert name == f"bisect-{RED}"
    assert subject == "cell: r107 (dev107) broke it"
    assert logins == ["dev107"]
    assert "r106 passed" in text and "r107 failed at start-install: the image failed" in text
    assert f"http://farm/#/builders/3/builds/{RED}" in text


@pytest.mark.parametrize(("others", "is_one"), [("w1", True), ("w2", False)])
def test_the_mail_has_the_command_that_compares_the_two_runs_where_one_worker_has_both(
    tmp_path: Path, others: str, is_one: bool
) -> None:
    master = FakeMaster(tmp_path)

    def run(revision: int) -> tuple[int, dict[str, Any]]:
        master.now = {"workername": others if revision == 107 else "w1", RUN_DIRECTORY: f"/runs/of farm/r{revision}"}
        return broken_since(107)(revision)

    searched(master, run)
    command = "on the worker w1, as long as it keeps them: oscar-testdriver compare '/runs/of farm/r106' "
    assert (f"By hand, {command}'/runs/of farm/r107'" in master.mails[0][2]) is is_one
    assert ("By hand" in master.mails[0][2]) is is_one


def test_its_builds_have_low_priority_and_count_for_nothing(tmp_path: Path) -> None:
    master = FakeMaster(tmp_path, nodes=4)
    searched(master, broken_since(107))
    for asked in master.asked:
        assert asked["priority"] == PRIORITY < 0
        assert asked["properties"][NOT_COUNTED] == (True, "Bisect")
        assert asked["properties"]["nodes"] == (4, "Bisect")
        assert CHANGES not in asked["properties"]


def test_a_search_that_is_over_is_not_begun_again_by_a_start_of_the_master(tmp_path: Path) -> None:
    master = FakeMaster(tmp_path)
    searched(master, broken_since(107))
    asked = len(master.asked)
    assert defer.ensureDeferred(service(master)._catch_up()).called
    assert (len(master.asked), len(master.mails)) == (asked, 1)


def test_a_start_of_the_master_asks_for_what_a_killed_one_did_not(tmp_path: Path) -> None:
    master = FakeMaster(tmp_path)
    assert defer.ensureDeferred(service(master)._catch_up()).called
    assert len(master.asked) == 1
    assert defer.ensureDeferred(service(master)._catch_up()).called
    assert len(master.asked) == 1, "the build that it waits for has not ended"
    master.run(broken_since(107))
    assert defer.ensureDeferred(service(master)._catch_up()).called
    assert len(master.asked) == 2


def test_a_search_ends_where_the_cell_is_mended_meanwhile(tmp_path: Path) -> None:
    master = FakeMaster(tmp_path)
    finished(master, RED)
    master.later = [result(60, "passed")]
    master.run(broken_since(107))
    finished(master, 100)
    assert (len(master.asked), master.mails) == (1, [])


def test_a_person_who_stops_a_build_of_a_search_stops_the_search(tmp_path: Path) -> None:
    master = FakeMaster(tmp_path)
    revisions = searched(master, lambda revision: (CANCELLED, verdict(revision, Outcome.CANCELLED)))
    assert (len(revisions), master.mails) == (1, [])


def test_a_build_that_leaves_no_verdict_is_the_farms_fault_and_does_not_end_the_search(tmp_path: Path) -> None:
    lost = iter([True])

    def run(revision: int) -> tuple[int, Any]:
        return (EXCEPTION, None) if next(lost, False) else broken_since(107)(revision)

    master = FakeMaster(tmp_path)
    assert searched(master, run)[:3] == [BAD, BAD, GOOD]
    assert master.mails[0][3] == ["dev107"]


KINDS = ("good", "bad", "other", "lost", "no verdict", "no such path")


@given(st.integers(GOOD, BAD + 1), st.dictionaries(st.integers(GOOD, BAD), st.sampled_from(KINDS)), st.randoms())
def test_whatever_its_builds_say_a_search_ends_with_one_mail_at_most_that_blames_only_whom_they_speak_against(
    tmp_path_factory: pytest.TempPathFactory, culprit: int, odd: dict[int, str], chance: random.Random
) -> None:
    said = dict[int, list[str]]()

    def run(revision: int) -> tuple[int, Any]:
        kind = odd.get(revision, "") if chance.random() < 0.9 else chance.choice(KINDS)
        kind = kind or ("bad" if revision >= culprit else "good")
        said.setdefault(revision, []).append(kind)
        farm = {"category": Category.FARM, "stage": Stage.CHECKOUT}
        return {
            "good": (SUCCESS, verdict(revision, Outcome.PASSED)),
            "bad": (FAILURE, verdict(revision, Outcome.FAILED)),
            "other": (FAILURE, verdict(revision, Outcome.FAILED, "it does not compile")),
            "lost": (EXCEPTION, verdict(revision, Outcome.INFRASTRUCTURE, "no room", category=Category.HOST)),
            "no verdict": (EXCEPTION, None),
            "no such path": (EXCEPTION, verdict(revision, Outcome.INFRASTRUCTURE, "no such path", **farm)),
        }[kind]

    master = FakeMaster(tmp_path_factory.mktemp("farm"))
    searched(master, run, LIMIT + 1)
    assert len(master.asked) <= LIMIT
    assert defer.ensureDeferred(service(master)._catch_up()).called
    assert len(master.mails) <= 1
    assert any(name == "answer" and value for (_, name), value in master.states.items()), "it has no end"
    for _, _, _, blamed in master.mails:
        for login in blamed:
            revision = int(login.removeprefix("dev"))
            assert "bad" in said[revision] and "good" in said[revision - 1]


def test_where_the_last_good_revision_fails_today_nobody_is_blamed(tmp_path: Path) -> None:
    master = FakeMaster(tmp_path)
    searched(master, lambda revision: (FAILURE, verdict(revision, Outcome.FAILED)))
    [(_, subject, text, logins)] = master.mails
    assert logins == []
    assert "No commit did it" in text and "r100, which was good, shows the fault now as well" in text
    assert "the farm does not know what the good run had" in text
    assert "not clear" in subject


def test_a_red_that_does_not_come_back_ends_without_a_mail(tmp_path: Path) -> None:
    master = FakeMaster(tmp_path)
    assert searched(master, lambda revision: (SUCCESS, verdict(revision, Outcome.PASSED))) == [BAD, GOOD]
    assert master.mails == []


def test_another_failure_is_not_taken_for_this_one(tmp_path: Path) -> None:
    def run(revision: int) -> tuple[int, dict[str, Any]]:
        if 106 <= revision <= 108:
            return FAILURE, verdict(revision, Outcome.FAILED, "it does not compile")
        return broken_since(111)(revision)

    master = FakeMaster(tmp_path)
    searched(master, run)
    assert master.mails[0][3] == ["dev111"]


@pytest.mark.parametrize(
    "red",
    [
        {"owner": "somebody"},
        {"scheduler": "force"},
        {NOT_COUNTED: True},
        {REPEAT_OF: 7},
        {"verdict": verdict(BAD, Outcome.FAILED, stability=Stability.UNSTABLE)},
        {"verdict": verdict(BAD, Outcome.INFRASTRUCTURE, category=Category.HOST)},
        {"verdict": verdict(GOOD + 1, Outcome.FAILED)},
    ],
    ids=["asked-for", "forced", "experiment", "repeat", "unstable", "farm", "one-candidate"],
)
def test_nothing_is_searched_for_where_no_commit_is_to_be_blamed_or_it_can_be_only_one(
    tmp_path: Path, red: dict[str, Any]
) -> None:
    master = FakeMaster(tmp_path, **red)
    finished(master, RED)
    assert master.asked == []


def test_a_cell_that_was_red_before_begins_no_search(tmp_path: Path) -> None:
    master = FakeMaster(tmp_path)
    master.results = [result(45, "infrastructure"), result(44, "failed"), result(40, "passed")]
    finished(master, RED)
    assert master.asked == []


def test_the_same_fault_in_another_cell_is_searched_for_once(tmp_path: Path) -> None:
    master = FakeMaster(tmp_path)
    finished(master, RED)
    master.builds[51], master.said[51] = master._build(51, FAILURE), dict(master.said[RED])
    finished(master, 51)
    assert len(master.asked) == 1


def test_a_cell_that_flakes_is_asked_more_often(tmp_path: Path) -> None:
    steady, flaky = FakeMaster(tmp_path), FakeMaster(tmp_path)
    flaky.flake = Rate(flaky=4, of=20)
    assert len(searched(flaky, broken_since(107))) > len(searched(steady, broken_since(107))) + 5


def red_result(revision: int = BAD, **more: Any) -> Result:
    facts = {"signature": "start-install:1", "category": "oscar", "revision": str(revision), "source": f"r{revision}"}
    return dataclasses.replace(result(RED, "failed"), **{**facts, **more})


def asked_for(master: FakeMaster, bad: str = "", good: str = "", who: str = "dev") -> Any:
    """What a person who presses the button gets: the first request, or why not."""
    got: list[Any] = []
    done = defer.ensureDeferred(service(master).ask_for(3, BRANCH, bad, good, who))
    done.addCallbacks(got.append, lambda failure: got.append(failure.value))
    if isinstance(got[0], Exception) and not isinstance(got[0], UserError):
        raise got[0]
    return got[0]


def long_red(tmp_path: Path) -> FakeMaster:
    """A cell that was red before: no search begins by itself."""
    master = FakeMaster(tmp_path)
    master.results = [result(45, "failed", signature="x:1"), result(40, "passed")]
    master.later = [red_result()]
    return master


def test_a_red_step_of_a_search_and_a_patch_are_no_build_to_search_for(tmp_path: Path) -> None:
    master = long_red(tmp_path)
    master.later = [dataclasses.replace(red_result(115), build=number) for number in (62, 61)] + master.later
    master.said |= {62: {BISECT: [50, 0]}, 61: {PATCH_OF: "dev"}}
    asked_for(master)
    assert master.asked[0]["properties"][BISECT][0] == [RED, COMMITS]


def run_to_its_end(master: FakeMaster, run: Callable[[int], tuple[int, dict[str, Any]]]) -> None:
    built = 0
    while len(master.asked) > built:
        built = len(master.asked)
        master.run(run)
        finished(master, 99 + built)


def test_a_person_has_it_searched_from_the_last_revision_that_passed(tmp_path: Path) -> None:
    master = long_red(tmp_path)
    finished(master, RED)
    assert master.asked == []
    assert asked_for(master) == (100, {3: 100})
    run_to_its_end(master, broken_since(107))
    [(_, subject, text, logins)] = master.mails
    assert subject == "cell: r107 (dev107) broke it"
    assert logins == ["dev107", "dev"]
    assert "as dev had asked" in text


def test_a_search_that_goes_on_is_not_begun_a_second_time(tmp_path: Path) -> None:
    master = long_red(tmp_path)
    asked_for(master)
    again = asked_for(master, good="105")
    assert "what broke r116 (build 50) goes on already: 1 of its builds so far" in str(again)
    assert len(master.asked) == 1


def test_a_search_whose_case_the_farm_has_forgotten_is_over_and_another_may_be_asked_for(tmp_path: Path) -> None:
    master = long_red(tmp_path)
    asked_for(master)
    known, master.results = master.results, []
    master.run(broken_since(107))
    finished(master, 100)
    assert (len(master.asked), master.mails) == (1, [])
    master.results = known
    assert asked_for(master, good="105") == (101, {3: 101})


def test_a_red_build_that_was_never_searched_for_is_not_noted_as_over(tmp_path: Path) -> None:
    master = long_red(tmp_path)
    finished(master, RED)
    assert master.states == {}


def test_a_search_that_has_ended_may_be_asked_for_again_with_another_good_revision(tmp_path: Path) -> None:
    master = long_red(tmp_path)
    asked_for(master)
    run_to_its_end(master, broken_since(107))
    before = len(master.asked)
    asked_for(master, good="110")
    assert [int(each["sourcestamps"][0]["revision"]) for each in master.asked[before:]] == [BAD]
    run_to_its_end(master, broken_since(107))
    assert len(master.mails) == 2
    assert "r110, which was good, shows the fault now as well" in master.mails[1][2]
    assert "is said to be good at r110" in master.mails[1][2]
    assert defer.ensureDeferred(service(master)._catch_up()).called
    assert len(master.mails) == 2


def test_who_asked_hears_that_it_does_not_come_back(tmp_path: Path) -> None:
    master = long_red(tmp_path)
    asked_for(master)
    run_to_its_end(master, lambda revision: (SUCCESS, verdict(revision, Outcome.PASSED)))
    assert master.mails[0][1] == "cell: the fault of r116 (dev116) does not come back"
    assert master.mails[0][3] == ["dev"]


@pytest.mark.parametrize(
    ("bad", "good", "red", "said"),
    [
        ("", "", {"category": "farm"}, "has no build on trunk that failed"),
        ("115", "", {}, "has no build of r115 on trunk that failed"),
        ("", "116", {}, "between r116 and r116 there are not 1 to 300 commits"),
        ("", "117", {}, "between r117 and r116 there are not 1 to 300 commits"),
    ],
)
def test_what_cannot_be_searched_is_refused_in_a_sentence(
    tmp_path: Path, bad: str, good: str, red: dict[str, Any], said: str
) -> None:
    master = long_red(tmp_path)
    master.later = [red_result(**red)]
    master.results = [result(40, "passed")]
    assert said in str(asked_for(master, bad, good))
    assert master.asked == []


def test_a_farm_that_does_not_search_by_itself_does_so_for_a_person(tmp_path: Path) -> None:
    master = FakeMaster(tmp_path)
    master.later = [red_result()]
    made = service(master)
    made.automatic = False
    made._heard(None, master.builds[RED])
    assert defer.ensureDeferred(made._catch_up()).called
    assert master.asked == []
    asked_for(master)
    assert len(master.asked) == 1
