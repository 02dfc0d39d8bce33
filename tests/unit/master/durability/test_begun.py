"""A build whose worker is lost in the wrong moment ends, and its request is taken up again."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from buildbot.process.build import Build
from buildbot.process.results import EXCEPTION, FAILURE, RETRY, SKIPPED, SUCCESS
from twisted.internet import defer
from twisted.python import log

from oscar_steps.master.durability.begun import NOTHING_TO_DO, FarmBuild, FarmFactory


class Builder:
    """Notes which builds have ended, and how."""

    def __init__(self) -> None:
        self.name, self.config, self.config_version = "c", None, 1
        self.building: list[Any] = []
        self.ended: list[int] = []
        self.looks = 0
        self.master = SimpleNamespace(reactor=None)
        self.botmaster = SimpleNamespace(maybeStartBuildsForAllBuilders=self._look)

    def _look(self) -> None:
        self.looks += 1

    def buildFinished(self, build: Any, _worker: Any) -> None:
        self.building.remove(build)
        self.ended.append(build.results)


def build_of(builder: Builder) -> Any:
    request = SimpleNamespace(mergeSourceStampsWith=lambda _others: [], mergeReasons=lambda _others: "")
    build = FarmFactory([]).newBuild([request], builder)
    build.workerforbuilder = SimpleNamespace(worker=None, buildFinished=lambda: None)
    build.stopBuildConsumer = SimpleNamespace(stopConsuming=lambda: None)
    build.buildid, build.conn = 1, None
    updates = SimpleNamespace(
        setBuildStateString=lambda *_: defer.succeed(None), finishBuild=lambda *_: defer.succeed(None)
    )
    builder.master.data = SimpleNamespace(updates=updates)
    builder.building.append(build)
    return build


def lost(_build: Any, _worker: Any) -> Any:
    return defer.fail(AttributeError("'NoneType' object has no attribute 'putInQuarantine'"))


@pytest.fixture
def errors() -> Any:
    seen: list[Any] = []

    def note(event: Any) -> None:
        if event["isError"]:
            seen.append(event)

    log.addObserver(note)
    yield seen
    log.removeObserver(note)


@pytest.mark.usefixtures("errors")
def test_a_build_whose_worker_is_lost_while_it_is_prepared_ends_as_retry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Build, "startBuild", lost)
    builder = Builder()
    build = build_of(builder)
    assert build.startBuild(build.workerforbuilder).called
    assert builder.ended == [RETRY]


@pytest.mark.usefixtures("errors")
def test_one_that_could_not_even_be_noted_ends_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Build, "startBuild", lost)
    builder = Builder()
    build = build_of(builder)
    del build.stopBuildConsumer
    assert build.startBuild(build.workerforbuilder).called
    assert builder.ended == [RETRY]


@pytest.mark.parametrize("result", [SUCCESS, EXCEPTION, RETRY])
def test_a_build_whose_worker_is_lost_while_its_end_is_written_down_ends_once(result: int, errors: list[Any]) -> None:
    builder = Builder()
    build = build_of(builder)
    assert isinstance(build, FarmBuild)
    assert build.buildFinished(["done"], result).called
    assert builder.ended == [result]
    assert len(errors) == (result == EXCEPTION), "Buildbot's own stumbles over the quarantine of no worker"


@pytest.mark.parametrize(("results", "ends"), [(SUCCESS, SKIPPED), (FAILURE, FAILURE), (RETRY, RETRY)])
def test_a_build_that_had_nothing_to_do_is_skipped_unless_it_went_wrong(results: int, ends: int) -> None:
    builder = Builder()
    build = build_of(builder)
    build.setProperty(NOTHING_TO_DO, "nothing changed since build 3 (passed)", "test")
    said: list[str] = []
    updates = builder.master.data.updates
    updates.setBuildStateString = lambda _number, text: defer.succeed(said.append(text))
    build.results = results
    build.buildFinished(["build", "successful"], results)
    assert builder.ended == [ends]
    assert (said == ["nothing changed since build 3 (passed)"]) == (ends == SKIPPED)
