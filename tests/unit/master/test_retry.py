"""Purple is not the end, a planned restart loses nothing, and a person's mistake is no worker's fault."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from buildbot.process.results import CANCELLED, EXCEPTION, FAILURE, RETRY, SKIPPED, SUCCESS
from buildbot.schedulers.forcesched import ValidationError
from twisted.internet import defer
from twisted.internet.task import Clock

from oscar_steps.errors import HostError, SourceError
from oscar_steps.master import again
from oscar_steps.master.builders import HostWorker
from oscar_steps.master.durability import once
from oscar_steps.master.durability.restarts import MASTER_SHUTDOWN, RESTARTED, CutShort, cut_short
from oscar_steps.master.fair import memory_of
from oscar_steps.master.schedules.all import build_schedulers
from oscar_steps.master.schedules.commit import StartCells, start_cells
from oscar_steps.master.schedules.names import CHANGES, ONLY_ON, PER_COMMIT
from oscar_steps.master.steps.first import ASKERS_MISTAKE
from oscar_steps.master.steps.results import VERDICT
from oscar_steps.master.steps.stages import MAX_TRIES, JobStep
from oscar_steps.master.watch import exact as exact_module
from oscar_steps.site import Site
from oscar_steps.verdict import LINT, Category, ImageReport, Outcome, Stage, Verdict

SITE = Site.model_validate(
    {"repository": {"url": "svn://127.0.0.1/oscar"}, "worker": [{"name": "w1"}], "web": {"open": True}}
)
PAUSES = (60.0, 600.0)


class NothingWasReplaced:
    """A database in which no commit's request was replaced by a newer one."""

    model = None

    @property
    def pool(self) -> NothingWasReplaced:
        return self

    async def do(self, *_query: Any) -> list[int]:
        return []


class FakeData:
    """A database of one buildset and what is added to it."""

    def __init__(self, answers: dict[tuple[Any, ...], Any]) -> None:
        self.answers = answers
        self.added: list[dict[str, Any]] = []
        self.closed: list[tuple[list[int], int]] = []
        self.updates = SimpleNamespace(addBuildset=self._add, completeBuildRequests=self._close)

    async def get(self, path: tuple[Any, ...], **_how: Any) -> Any:
        return self.answers[path]

    async def _add(self, **what: Any) -> Any:
        self.added.append(what)
        return 8, {4: 21}

    async def _close(self, requests: list[int], result: int) -> None:
        self.closed.append((requests, result))


async def _builder_id() -> int:
    return 4


def fake_step(**properties: Any) -> Any:
    values = {CHANGES: [11], "scheduler": "commit", "workername": "w1", **properties}
    of_request = {name: (value, "Scheduler") for name, value in values.items() if name != "workername"}
    data = FakeData(
        {
            ("buildsets", 7): {"bsid": 7, "sourcestamps": [{"ssid": 3}]},
            ("buildsets", 7, "properties"): of_request,
            ("buildrequests", 9, "builds"): [{"buildid": 5, "complete": False, "results": None}],
        }
    )
    return SimpleNamespace(
        getProperty=lambda name, default=None: values.get(name, default),
        setProperty=lambda name, value, _source: values.__setitem__(name, value),
        master=SimpleNamespace(data=data, botmaster=SimpleNamespace(shuttingDown=False), db=NothingWasReplaced()),
        build=SimpleNamespace(
            buildid=5,
            requests=[SimpleNamespace(id=9, bsid=7)],
            getBuilderId=_builder_id,
            stopped_reason=None,
            conn=object(),
            executedSteps=[],
            getSourceStamp=lambda _codebase: None,
        ),
        stopped=False,
        values=values,
    )


def verdict(outcome: Outcome = Outcome.INFRASTRUCTURE, category: Category = Category.HOST) -> Verdict:
    return Verdict(
        run_id="c-r7-b1", cell="c", source="s", revision="7", outcome=outcome, sentence="it broke", category=category
    )


def ask(step: Any, said: Verdict, cell: str = "c", pauses: tuple[float, ...] = PAUSES) -> Verdict:
    return asyncio.run(again.ask_again(step, cell, said, pauses))


@pytest.mark.parametrize("category", [Category.HOST, Category.FARM, Category.NONE])
def test_a_commit_that_the_farm_failed_is_asked_for_again_with_all_that_it_had(category: Category) -> None:
    step = fake_step(nodes=4)
    said = ask(step, verdict(category=category))
    (added,) = step.master.data.added
    assert (added["sourcestamps"], added["builderids"], added["scheduler"]) == ([3], [4], "commit")
    properties = {name: value for name, (value, _) in added["properties"].items()}
    assert (properties[CHANGES], properties["nodes"], properties[again.TRIES_BEFORE]) == ([11], 4, 1)
    assert properties[again.NOT_ON] == ["w1"]
    assert (properties[once.AGAIN_OF], added["parent_buildid"]) == (9, 5)
    assert step.values[again.TRIED_AGAIN] == 21
    assert "retried in 60 s, at most 2 times" in said.hint


@pytest.mark.parametrize("scheduler", ["nightly", "weekly"])
def test_a_run_by_the_clock_that_the_farm_failed_is_asked_for_again_and_a_forced_one_is_not(scheduler: str) -> None:
    step = fake_step(**{CHANGES: None, "scheduler": scheduler})
    assert "is retried" in ask(step, verdict()).hint
    assert len(step.master.data.added) == 1
    forced = fake_step(**{CHANGES: None, "scheduler": "force"})
    assert ask(forced, verdict()) == verdict()


def test_the_second_try_waits_longer_and_after_the_last_it_is_given_up_in_words() -> None:
    step = fake_step(**{again.TRIES_BEFORE: 1, again.NOT_ON: ["w0"]})
    assert "retried in 600 s, at most 1 times" in ask(step, verdict()).hint
    assert step.master.data.added[0]["properties"][again.NOT_ON][0] == ["w0", "w1"]
    last = fake_step(**{again.TRIES_BEFORE: 2})
    assert "failed this commit 3 times; it is not retried" in ask(last, verdict()).hint
    assert last.master.data.added == []
    assert again.TRIED_AGAIN not in last.values


@pytest.mark.parametrize(
    ("said", "cell", "properties", "pauses"),
    [
        (verdict(Outcome.FAILED, Category.OSCAR), "c", {}, PAUSES),
        (verdict(Outcome.PASSED, Category.NONE), "c", {}, PAUSES),
        (verdict(Outcome.CANCELLED, Category.NONE), "c", {}, PAUSES),
        (verdict(category=Category.DISTRIBUTION), "c", {}, PAUSES),
        (verdict(category=Category.ANSWERS), "c", {}, PAUSES),
        (verdict(), LINT, {}, PAUSES),
        (verdict(), "c", {CHANGES: None}, PAUSES),
        (verdict(), "c", {again.FINAL: True}, PAUSES),
        (verdict(), "c", {}, ()),
    ],
)
def test_what_another_try_would_not_change_is_not_tried_again(
    said: Verdict, cell: str, properties: dict[str, Any], pauses: tuple[float, ...]
) -> None:
    step = fake_step(**properties)
    assert ask(step, said, cell, pauses) == said
    assert step.master.data.added == []


def test_a_build_that_began_anew_after_it_had_asked_for_another_try_asks_no_second_time() -> None:
    step = fake_step()
    step.master.data.answers["buildrequests", 9, "builds"].insert(0, {"buildid": 4, "complete": True, "results": RETRY})
    step.master.data.answers["buildsets",] = [{"bsid": 8, "parent_buildid": 4}]
    step.master.data.answers["buildrequests",] = [{"buildrequestid": 20}]
    assert "is retried" in ask(step, verdict()).hint
    assert step.master.data.added == []
    assert step.values[again.TRIED_AGAIN] == 20
    step.master.data.answers["buildsets",] = []
    ask(step, verdict())
    assert len(step.master.data.added) == 1, "cut short before it had asked"


def request(number: int, *, submitted: float = 2.0**40, **properties: Any) -> Any:
    return SimpleNamespace(id=number, submittedAt=submitted, properties=SimpleNamespace(getProperty=properties.get))


def next_of(builder: Any, requests: list[Any]) -> Any:
    return again.next_build(builder, requests).result


def builder_of(*workers: tuple[str, bool]) -> Any:
    looks: list[str] = []
    return SimpleNamespace(
        name="c",
        looks=looks,
        botmaster=SimpleNamespace(maybeStartBuildsForBuilder=looks.append),
        master=SimpleNamespace(reactor=Clock(), data=FakeData({})),
        workers=[
            SimpleNamespace(
                worker=SimpleNamespace(workername=name, conn=object() if there else None, isPaused=lambda: False)
            )
            for name, there in workers
        ],
    )


def test_a_pause_holds_up_nobody_else_and_its_end_starts_the_try(monkeypatch: pytest.MonkeyPatch) -> None:
    builder = builder_of(("w1", True))
    monkeypatch.setattr(again.time, "time", lambda: 1000.0)
    waits, plain = request(1, not_before=1030.0, tries_before=1), request(2)
    assert next_of(builder, [waits, plain]) is plain
    assert next_of(builder, [waits]) is None
    assert len(builder.master.reactor.getDelayedCalls()) == 1, "it is woken once"
    builder.master.reactor.advance(31)
    assert builder.looks == ["c"]
    monkeypatch.setattr(again.time, "time", lambda: 1031.0)
    assert next_of(builder, [waits]) is waits
    assert next_of(builder, [waits, plain]) is plain


@pytest.fixture
def nothing_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(once, "_looked_at", set())


@pytest.mark.usefixtures("nothing_looked_at")
@pytest.mark.parametrize("result", [SUCCESS, FAILURE, EXCEPTION, CANCELLED])
def test_a_request_whose_build_had_ended_when_the_master_was_killed_is_closed_and_not_built_again(result: int) -> None:
    builder = builder_of(("w1", True))
    ended = [{"complete": True, "results": RETRY}, {"complete": True, "results": result}]
    builder.master.data.answers["buildrequests", 31, "builds"] = ended
    other = request(32)
    assert next_of(builder, [request(31, submitted=0.0), other]) is other
    assert builder.master.data.closed == [([31], result)]


@pytest.mark.usefixtures("nothing_looked_at")
def test_a_request_whose_build_was_cut_short_is_built_again_and_looked_at_once() -> None:
    builder = builder_of(("w1", True))
    builder.master.data.answers["buildrequests", 33, "builds"] = [{"complete": True, "results": RETRY}]
    cut = request(33, submitted=0.0)
    assert next_of(builder, [cut]) is cut
    del builder.master.data.answers["buildrequests", 33, "builds"]
    assert next_of(builder, [cut]) is cut
    assert builder.master.data.closed == []


def test_a_second_try_waits_for_the_first_that_began_anew_and_is_dropped_where_that_has_its_verdict() -> None:
    builder = builder_of(("w1", True))
    first = builder.master.data.answers["buildrequests", 41] = {"complete": False, "results": None}
    second, other = request(42, again_of=41), request(43)
    assert next_of(builder, [second]) is None
    assert next_of(builder, [second, other]) is other
    first.update(complete=True, results=EXCEPTION)
    assert next_of(builder, [second]) is second
    assert builder.master.data.closed == []
    first.update(results=SUCCESS)
    assert next_of(builder, [second, other]) is other
    assert builder.master.data.closed == [([42], SKIPPED)]


def cells_step(*, results: int = SUCCESS, scheduler: str = LINT) -> Any:
    step = fake_step(scheduler=scheduler)
    step.build.results = results
    return step


def starts_cells(step: Any) -> bool:
    return bool(start_cells().doStepIf(step).result)


def test_the_first_tier_that_began_anew_starts_no_cells_a_second_time() -> None:
    assert starts_cells(cells_step())
    assert not starts_cells(cells_step(results=FAILURE))
    assert not starts_cells(cells_step(scheduler="force"))
    step = cells_step()
    step.master.data.answers["buildrequests", 9, "builds"].insert(0, {"buildid": 4, "complete": True, "results": RETRY})
    step.master.data.answers["buildsets",] = [{"bsid": 8, "parent_buildid": 4}]
    assert not starts_cells(step)
    step.master.data.answers["buildsets",] = []
    assert starts_cells(step), "cut short before it had started them"


@pytest.mark.parametrize("ends", [True, False])
def test_cells_that_were_asked_for_stand_when_the_master_ends_and_fall_when_a_person_stops(ends: bool) -> None:
    cancelled: list[Any] = []
    step: Any = object.__new__(StartCells)
    vars(step).update(vars(fake_step()), brids=[5], running=False, ended=False)
    step.master.data.control = lambda action, _arguments, path: cancelled.append((action, path))
    step.master.botmaster.shuttingDown = ends
    step.build.stopped_reason = MASTER_SHUTDOWN if ends else "a person"
    step.interrupt("why")
    assert cancelled == ([] if ends else [("cancel", ("buildrequests", 5))])


def test_to_start_many_cells_costs_a_few_links_and_listens_for_the_end_of_none() -> None:
    links: list[str] = []
    asked = (8, {number: number for number in range(1500)})
    scheduler = SimpleNamespace(name=PER_COMMIT, trigger=lambda **_how: (defer.succeed(asked), defer.Deferred()))

    async def note(_step: int, name: str, _url: str) -> None:
        links.append(name)

    step: Any = object.__new__(StartCells)
    vars(step).update(vars(fake_step()), brids=[], running=False, ended=False, stepid=1, waitForFinish=False)
    step.build.stopped = False
    step.getSchedulersAndProperties = lambda: [(PER_COMMIT, {})]
    step.getSchedulerByName, step.createTriggerProperties = lambda _name: scheduler, lambda wish: wish
    step.prepareSourcestampListForTrigger, step.parent_relationship = list, ""
    step.master.config = SimpleNamespace(buildbotURL="http://farm/")
    step.master.data.updates.addStepURL = note
    step.master.mq = None  # nobody to listen to
    done = defer.ensureDeferred(step.run())
    assert done.result == SUCCESS
    assert step.brids == [*range(1500)], "who stops the step cancels all of them"
    assert links == [f"{PER_COMMIT} #{number}" for number in range(20)]


def test_it_is_tried_elsewhere_first_if_there_is_another_worker() -> None:
    wanted = request(21, not_on=["w1"])
    both = builder_of(("w1", True), ("w2", True))
    assert not again.may_begin_here(both, both.workers[0], wanted)
    assert again.may_begin_here(both, both.workers[1], wanted)
    assert again.may_begin_here(both, both.workers[0], request(22))
    alone = builder_of(("w1", True), ("w2", False))
    assert again.may_begin_here(alone, alone.workers[0], wanted)


def test_a_build_that_wants_the_image_of_one_worker_begins_there_alone() -> None:
    wanted = request(21, **{ONLY_ON: "w2"})
    both = builder_of(("w1", True), ("w2", True))
    assert not again.may_begin_here(both, both.workers[0], wanted)
    assert again.may_begin_here(both, both.workers[1], wanted)


def test_a_step_that_the_masters_end_interrupts_is_done_again_and_one_that_a_person_stops_is_not() -> None:
    step = fake_step()
    assert cut_short(step) is None
    step.stopped = True
    assert cut_short(step) == CANCELLED
    step.build.stopped_reason, step.master.botmaster.shuttingDown = MASTER_SHUTDOWN, True
    assert cut_short(step) == RETRY
    assert step.values[RESTARTED] is True
    step.build.executedSteps = [SimpleNamespace(results=FAILURE), SimpleNamespace(results=CANCELLED)]
    assert cut_short(step) == CANCELLED, "a person had stopped it before"
    lost = fake_step()
    lost.build.conn = None
    assert cut_short(lost) == RETRY
    assert RESTARTED not in lost.values


@pytest.mark.parametrize(("ends", "running", "stopped"), [(True, False, []), (True, True, [1]), (False, False, [1])])
def test_a_step_that_has_not_begun_when_the_master_ends_begins_and_is_not_cancelled(
    ends: bool, running: bool, stopped: list[int]
) -> None:
    interrupted: list[int] = []
    base = type("Base", (), {"interrupt": lambda _self, _reason: interrupted.append(1)})
    step = type("Step", (CutShort, base), {})()
    vars(step).update(vars(fake_step()), _running=running)
    step.master.reactor = Clock()
    step.master.botmaster.shuttingDown = ends
    step.build.stopped_reason = MASTER_SHUTDOWN if ends else "a person"
    step.interrupt("why")
    assert interrupted == stopped


def tries(builds: list[tuple[str, dict[str, Any]]]) -> Any:
    """A job step whose request had these builds: state and properties."""
    step = fake_step()
    data = step.master.data.answers
    data["buildrequests", 9, "builds"] = [
        {"buildid": number, "results": RETRY, "state_string": state} for number, (state, _) in enumerate(builds)
    ]
    data.update({("builds", number, "properties"): properties for number, (_, properties) in enumerate(builds)})
    step.name = "job"
    return step


def test_planned_restarts_and_a_killed_master_are_no_losses_of_the_worker() -> None:
    restarts = [("retry (Master Shutdown)", {RESTARTED: (True, "Build")})] * MAX_TRIES
    cut = [("retry (Master Shutdown) lost connection", {RESTARTED: (True, "Build")})] * MAX_TRIES
    killed: list[tuple[str, dict[str, Any]]] = [("building", {})] * MAX_TRIES
    lost: list[tuple[str, dict[str, Any]]] = [("retry lost connection", {})] * (MAX_TRIES - 1)
    step = tries([*restarts, *cut, *killed, *lost])
    asyncio.run(JobStep.check(step))
    step = tries([*restarts, *lost, lost[0]])
    with pytest.raises(HostError, match="was lost 3 times"):
        asyncio.run(JobStep.check(step))
    assert step.values[again.FINAL] is True


@pytest.mark.parametrize(
    ("changes", "words"), [([11], "retried in 60 s"), ([], "")], ids=["a commit", "a forced build"]
)
def test_a_commit_whose_repository_is_not_there_is_tried_again_and_a_mistyped_revision_is_not(
    monkeypatch: pytest.MonkeyPatch, changes: list[int], words: str
) -> None:
    async def gone(*_: Any) -> str:
        raise SourceError("svn://127.0.0.1/oscar/trunk at revision 5: E210005: No repository found")

    monkeypatch.setattr(exact_module, "exact_revision", gone)
    step = fake_step(**{CHANGES: changes, "branch": "trunk", "revision": "5", "buildnumber": 1})
    step.name, step.cell, step.site, step.svn = "job", "c", SITE, set()
    step.build.stopped, step.master.reactor, step.master.basedir, step.oscar_names = False, None, "/x", ()
    step.check = lambda: JobStep.check(step)
    step._no_run = lambda error: JobStep._no_run(step, error)
    assert asyncio.run(JobStep.run(step)) == EXCEPTION
    said = Verdict.model_validate(step.values[VERDICT])
    assert words in ask(step, said).hint
    assert len(step.master.data.added) == len(changes)


class Alone(HostWorker):
    """A worker without a master's service tree."""

    master: Any = None
    botmaster: Any = None


def quarantine_after(*builds: tuple[int, bool, bool]) -> bool:
    """Whether a worker is in quarantine when these builds of its are at their end: result, mistake, finished."""
    worker = Alone("w1", "secret")
    worker.quarantine_timer = None
    worker.master = SimpleNamespace(reactor=Clock())
    building = [
        SimpleNamespace(
            finished=finished,
            results=results,
            workerforbuilder=SimpleNamespace(worker=worker),
            getProperty={ASKERS_MISTAKE: mistake}.get,
        )
        for results, mistake, finished in builds
    ]
    worker.botmaster = SimpleNamespace(getBuildersForWorker=lambda _name: [SimpleNamespace(building=building)])
    worker.putInQuarantine()
    return worker.quarantine_timer is not None


def test_a_mistyped_revision_puts_no_worker_into_quarantine_and_everything_else_does() -> None:
    assert not quarantine_after((EXCEPTION, True, True))
    assert not quarantine_after((EXCEPTION, True, True), (SUCCESS, False, False))
    assert quarantine_after((EXCEPTION, False, True))
    assert quarantine_after((EXCEPTION, True, True), (EXCEPTION, False, True))
    assert quarantine_after((SUCCESS, False, False)), "a worker that cannot prepare a build"


def image_failed(worker: Any, cell: str, *, failed: bool = True) -> bool:
    """Whether the worker is in quarantine after a build of the cell that got no further than its image."""
    worker.quarantine_timer = None
    build = SimpleNamespace(
        finished=True,
        results=EXCEPTION,
        builder=SimpleNamespace(name=cell),
        workerforbuilder=SimpleNamespace(worker=worker),
        getProperty={again.IMAGE_FAILED: failed}.get,
    )
    worker.botmaster = SimpleNamespace(getBuildersForWorker=lambda _name: [SimpleNamespace(building=[build])])
    worker.putInQuarantine()
    return worker.quarantine_timer is not None


def test_one_cell_without_an_image_puts_no_worker_into_quarantine_and_two_in_a_row_do() -> None:
    worker = Alone("w1", "secret")
    worker.master = SimpleNamespace(reactor=Clock())
    assert not image_failed(worker, "a")
    assert not image_failed(worker, "a")
    assert image_failed(worker, "b")
    worker.resetQuarantine()
    assert not image_failed(worker, "b")
    assert image_failed(worker, "b", failed=False)


def without_image(
    step: Any, outcome: Outcome = Outcome.INFRASTRUCTURE, stage: Stage | None = Stage.CREATE_IMAGE
) -> Any:
    of_image = {"stage": stage, "image_failed": stage is Stage.CREATE_IMAGE}
    again.note_image(step, "c", verdict(outcome).model_copy(update=of_image))
    return memory_of(step.master).images.get("c")


def test_a_cell_that_gets_no_further_than_its_image_backs_off_alone_and_a_person_may_still_ask(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = 1000.0
    monkeypatch.setattr(again.time, "time", lambda: now)
    step = fake_step()
    assert without_image(step).until == 1060
    assert step.values[again.IMAGE_FAILED]
    assert without_image(step).until == 1120
    for _ in range(20):
        without_image(step)
    assert without_image(step).until == 1000 + 3600
    here, elsewhere = builder_of(), builder_of()
    elsewhere.name = "d"
    here.master = elsewhere.master = step.master
    assert again.due(here, request(31)) == 4600
    assert again.due(elsewhere, request(31)) == 0
    assert again.due(here, request(31, owner="ann")) == 0
    assert again.due(here, request(31, not_before=5000.0)) == 5000


@pytest.mark.parametrize(
    ("outcome", "stage"),
    [(Outcome.PASSED, None), (Outcome.INFRASTRUCTURE, Stage.CHECKOUT), (Outcome.FAILED, Stage.FINALIZE)],
)
def test_a_build_that_gets_past_its_image_ends_the_pause_and_one_that_did_not_begin_says_nothing(
    outcome: Outcome, stage: Stage | None
) -> None:
    step = fake_step()
    assert without_image(step)
    assert without_image(step, Outcome.INFRASTRUCTURE, None)
    assert without_image(step, outcome, stage) is None


def fields() -> dict[str, Any]:
    (force,) = (each for each in build_schedulers(SITE, []) if each.name == "force")
    (code,), (_label, nodes, *_more) = force._config_kwargs["codebases"], force._config_kwargs["properties"]
    return {**{field.name: field for field in code.fields}, "nodes": nodes}


@pytest.mark.parametrize(
    ("name", "text"),
    [
        *(("branch", bad) for bad in ("branches/..", "branches/.", "tags/...", "trunk\n", "\ntrunk", "trunk/x", "x")),
        *(("branch", bad) for bad in ("branches/a/b", "branches/a b", "branches/", "trunk@5", "branches/\u00e9")),
        *(("revision", bad) for bad in ("5\n", "-1", "HEAD", "r5", "\u0663", "9" * 40, "0", "5 6")),
        *(("nodes", bad) for bad in ("-3", "100000", "129", "4.5", "four", "\u0663", "1e2", "9" * 5000)),
    ],
)
def test_the_form_refuses_what_cannot_be_in_one_sentence(name: str, text: str) -> None:
    field = fields()[name]
    with pytest.raises(ValidationError) as refused:
        field.getFromKwargs({field.fullName: [text]})
    assert " is not valid; give " in str(refused.value)
    assert len(str(refused.value)) < 300
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("branch", "trunk", "trunk"),
        ("branch", "branches/5.1.x", "branches/5.1.x"),
        ("branch", "tags/..5", "tags/..5"),
        ("revision", "4711", "4711"),
        ("revision", "", ""),
        ("nodes", "0", 0),
        ("nodes", "128", 128),
    ],
)
def test_the_form_takes_what_can_be(name: str, text: str, value: str | int) -> None:
    field = fields()[name]
    assert field.getFromKwargs({field.fullName: [text]}) == value


def test_a_build_that_had_its_image_and_waited_for_room_on_its_host_until_the_limit_pauses_no_cell() -> None:
    step = fake_step()
    assert without_image(step)
    step.values.clear()
    had = verdict().model_copy(update={"stage": Stage.CREATE_IMAGE, "image": ImageReport(key="0" * 64)})
    again.note_image(step, "c", had)
    assert "c" not in memory_of(step.master).images
    assert again.IMAGE_FAILED not in step.values


def test_what_ends_a_build_before_its_image_and_is_not_the_images_fault_pauses_no_cell() -> None:
    step = fake_step()
    full = verdict().model_copy(update={"stage": Stage.CREATE_IMAGE, "sentence": "the image store has no room left"})
    again.note_image(step, "c", full)
    assert "c" not in memory_of(step.master).images
    assert again.IMAGE_FAILED not in step.values
