"""Outcomes, exit statuses, what a killed run leaves, and what a guest's archive may not do."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from oscar_steps.daemon import claim
from oscar_steps.errors import (
    Cancelled,
    FarmError,
    HostError,
    ImageBuildFailed,
    InstallerFailed,
    NodeFailed,
    OutsideUnknown,
    SourceError,
    StageTimeout,
)
from oscar_steps.job import Job
from oscar_steps.matrix.cells import default_profiles
from oscar_steps.matrix.recipes import load_recipe
from oscar_steps.testdriver.deadline import HostSpeed
from oscar_steps.testdriver.head.console import last_lines
from oscar_steps.testdriver.lines import LineSplitter
from oscar_steps.testdriver.process.postmortem import verdict_of_dead_run
from oscar_steps.testdriver.process.rundirectory import LOCK_FILE, is_running
from oscar_steps.testdriver.record.events import Diary, read_events
from oscar_steps.testdriver.record.verdicts import outcome_of
from oscar_steps.testdriver.run import Gate, Run, RunOptions
from oscar_steps.verdict import Category, ExitStatus, Outcome, Stage, StageResult, Verdict

Handler = Callable[[Run], Awaitable[None]]


def make_job() -> Job:
    return Job.model_validate(
        {
            "run_id": "cell-r7-b1",
            "cell": "debian-12-x86_64",
            "source": {"url": "svn://127.0.0.1/oscar/trunk", "revision": "7"},
            "image": load_recipe(default_profiles() / "images/debian-12-x86_64.toml"),
            "cluster_xml": "<cluster/>",
            "answers": {"partition_file": "oscarsamples/scsi.disk"},
        }
    )


async def nothing(_run: Run) -> None:
    pass


def execute(directory: Path, **handlers: Handler) -> tuple[Verdict, Run]:
    directory.mkdir(exist_ok=True)

    async def do() -> tuple[Verdict, Run]:
        run = Run(directory, make_job(), RunOptions(image_store=directory), Gate(open_=True))
        table = {stage: handlers.get(stage.name.lower(), nothing) for stage in Stage}
        return await run.execute(table), run

    return asyncio.run(do())


def raising(error: BaseException) -> Handler:
    async def handler(_run: Run) -> None:
        raise error

    return handler


def test_a_run_whose_stages_all_pass_is_not_green_where_no_installer_said_that_it_did_well(tmp_path: Path) -> None:
    verdict, _ = execute(tmp_path)
    assert verdict.outcome is Outcome.INFRASTRUCTURE
    assert "nothing proves that it succeeded" in verdict.sentence
    assert {report.result for report in verdict.stages} == {StageResult.PASSED}
    assert Verdict.load(tmp_path) == verdict


def test_a_failure_that_belongs_to_the_next_stage_is_told_there_and_the_first_cause_comes_first(tmp_path: Path) -> None:
    def waiting(trouble: FarmError | None) -> Handler:
        async def handler(run: Run) -> None:
            with run.holding_back(InstallerFailed):
                run.raise_alarm(InstallerFailed("OSCAR went on and failed"))
                await asyncio.sleep(0)
                if trouble:
                    run.raise_alarm(trouble)
                    await asyncio.sleep(60)

        return handler

    verdict, _ = execute(tmp_path / "a", wait_nodes=waiting(None))
    assert (verdict.stage, verdict.sentence) == (Stage.FINALIZE, "OSCAR went on and failed")
    results = {report.stage: report.result for report in verdict.stages}
    assert (results[Stage.WAIT_NODES], results[Stage.FINALIZE]) == (StageResult.PASSED, StageResult.FAILED)
    verdict, _ = execute(tmp_path / "b", wait_nodes=waiting(NodeFailed("a node lets nobody in")))
    assert (verdict.stage, verdict.sentence) == (Stage.WAIT_NODES, "a node lets nobody in")


@pytest.mark.parametrize(
    ("error", "outcome", "category"),
    [
        (InstallerFailed("x"), Outcome.FAILED, Category.OSCAR),
        (NodeFailed("x"), Outcome.FAILED, Category.OSCAR),
        (InstallerFailed("x", category="answers"), Outcome.INFRASTRUCTURE, Category.ANSWERS),
        (HostError("x"), Outcome.INFRASTRUCTURE, Category.HOST),
        (StageTimeout("x"), Outcome.INFRASTRUCTURE, Category.HOST),
        (SourceError("x"), Outcome.INFRASTRUCTURE, Category.FARM),
        (Cancelled("x"), Outcome.CANCELLED, Category.NONE),
    ],
)
def test_only_a_finding_about_oscar_is_blamed_on_a_commit(
    tmp_path: Path, error: FarmError, outcome: Outcome, category: Category
) -> None:
    verdict, _ = execute(tmp_path, start_install=raising(error))
    assert (verdict.outcome, verdict.category, verdict.stage) == (outcome, category, Stage.START_INSTALL)


def test_after_a_failure_only_logs_and_teardown_run(tmp_path: Path) -> None:
    ran: list[str] = []

    def noting(name: str) -> Handler:
        async def handler(_run: Run) -> None:
            ran.append(name)

        return handler

    names = [stage.name.lower() for stage in Stage]
    handlers = {name: noting(name) for name in names} | {"checkout": raising(HostError("no"))}
    verdict, _ = execute(tmp_path, **handlers)
    assert ran == ["create_image", "boot_headnode", "extract_logs", "teardown"]
    assert [r.result for r in verdict.stages if r.stage is Stage.FINALIZE] == [StageResult.NOT_REACHED]


def test_the_first_failure_is_the_verdict_and_later_ones_do_not_bury_it(tmp_path: Path) -> None:
    verdict, _ = execute(tmp_path, checkout=raising(HostError("first")), extract_logs=raising(HostError("second")))
    assert verdict.sentence == "first"


def test_a_bug_of_ours_is_infrastructure_and_still_gives_a_verdict(tmp_path: Path) -> None:
    verdict, _ = execute(tmp_path, boot_nodes=raising(KeyError("oops")))
    assert verdict.outcome is Outcome.INFRASTRUCTURE
    assert "bug" in verdict.sentence


def test_an_alarm_from_the_background_ends_the_stage_at_once(tmp_path: Path) -> None:
    async def waits_for_ever(run: Run) -> None:
        asyncio.get_running_loop().call_later(0.05, run.raise_alarm, NodeFailed("oscarnode2 panicked"))
        await asyncio.Event().wait()

    verdict, run = execute(tmp_path, wait_nodes=waits_for_ever)
    assert verdict.sentence == "oscarnode2 panicked"
    assert run.diary.elapsed < 5


def test_cancelling_skips_the_logs_but_not_the_teardown(tmp_path: Path) -> None:
    async def is_cancelled(run: Run) -> None:
        await run.cancel("Ctrl-C")
        await asyncio.Event().wait()

    verdict, _ = execute(tmp_path, boot_headnode=is_cancelled)
    results = {report.stage: report.result for report in verdict.stages}
    assert verdict.outcome is Outcome.CANCELLED
    assert results[Stage.EXTRACT_LOGS] is StageResult.NOT_REACHED
    assert results[Stage.TEARDOWN] is StageResult.PASSED


def test_every_result_and_outcome_has_an_exit_status_of_its_own() -> None:
    assert len({ExitStatus.of(outcome) for outcome in Outcome}) == len(Outcome)
    assert all(int(ExitStatus.of(result)) not in (1, 2) for result in StageResult)
    assert outcome_of(None) is Outcome.PASSED


def test_a_run_that_was_killed_is_infrastructure_and_says_where_it_was(tmp_path: Path) -> None:
    execute(tmp_path)
    events = (tmp_path / "events.jsonl").read_text().splitlines()
    cut = next(n for n, line in enumerate(events) if json.loads(line)["kind"] == "stage-started" and "checkout" in line)
    (tmp_path / "events.jsonl").write_text("\n".join(events[: cut + 1]) + '\n{"time": "half a li')
    (tmp_path / "verdict.json").unlink()
    verdict = verdict_of_dead_run(tmp_path)
    assert verdict.outcome is Outcome.INFRASTRUCTURE
    assert verdict.stage is Stage.CHECKOUT
    assert "killed in the stage checkout" in verdict.sentence
    assert [r.result for r in verdict.stages][:4] == ["passed", "passed", "infrastructure", "not-reached"]


def test_the_lock_of_a_run_directory_tells_whether_its_process_is_there(tmp_path: Path) -> None:
    lock = claim(tmp_path / LOCK_FILE)
    assert lock is not None
    assert is_running(tmp_path)
    lock.close()
    assert not is_running(tmp_path)


def test_cancelling_between_two_stages_still_gives_a_verdict(tmp_path: Path) -> None:
    async def do() -> Verdict:
        run = Run(tmp_path, make_job(), RunOptions(image_store=tmp_path), Gate(open_=False))
        await run.gate.permit(Stage.CREATE_IMAGE)
        execution = asyncio.ensure_future(run.execute(dict.fromkeys(Stage, nothing)))
        await run.done[Stage.CREATE_IMAGE].wait()
        await run.cancel("nobody was connected")
        return await execution

    verdict = asyncio.run(do())
    assert verdict.outcome is Outcome.CANCELLED
    assert verdict.sentence == "nobody was connected"


def test_what_a_stage_says_while_it_is_being_ended_does_not_mask_the_alarm(tmp_path: Path) -> None:
    async def breaks_when_ended(run: Run) -> None:
        run.raise_alarm(InstallerFailed("OSCAR failed"))
        try:
            await asyncio.Event().wait()
        finally:
            raise HostError("the connection broke")

    verdict, _ = execute(tmp_path, start_install=breaks_when_ended)
    assert (verdict.outcome, verdict.sentence) == (Outcome.FAILED, "OSCAR failed")


def test_a_display_that_is_gone_does_not_end_the_run(tmp_path: Path) -> None:
    def broken_pipe(_event: object) -> None:
        raise BrokenPipeError

    async def do() -> Verdict:
        run = Run(tmp_path, make_job(), RunOptions(image_store=tmp_path), Gate(open_=True))
        with run.diary.listening(broken_pipe):
            return await run.execute(dict.fromkeys(Stage, nothing))

    assert {report.result for report in asyncio.run(do()).stages} == {StageResult.PASSED}


def test_odd_characters_lose_no_event(tmp_path: Path) -> None:
    diary = Diary(tmp_path)
    for text in ("a\u2028b", "c\u0085d", "e\nf", 'g"h\\i'):
        diary.say(text)
    assert [event.text for event in read_events(tmp_path)] == ["a\u2028b", "c\u0085d", "e\nf", 'g"h\\i']


def test_a_line_without_an_end_is_handed_out_in_pieces() -> None:
    splitter = LineSplitter()
    lines = [line for _ in range(64) for line in splitter.feed(b"x" * 10_000)]
    assert sum(map(len, lines)) + len(splitter.rest()) == 640_000
    assert len(splitter.rest()) <= 1 << 16


def test_evidence_from_a_console_has_its_line_numbers_and_no_terminal_codes(tmp_path: Path) -> None:
    console = tmp_path / "node.log"
    console.write_bytes(b"".join(b"line %d \x1b[2J\r\n" % number for number in range(1, 20_001)) + b"login: ")
    first, lines = last_lines(console, 3)
    assert (first, len(lines)) == (19_999, 3)
    assert lines[0].startswith("line 19999")
    assert all(line.isprintable() for line in lines)


def test_a_slow_boot_of_the_head_node_stretches_the_limits_that_follow() -> None:
    speed = HostSpeed(2.0)
    assert speed.deadline(10).seconds == 10
    speed.seen(75.0, 25.0)
    assert speed.deadline(10).seconds == 30
    speed.seen(1.0, 25.0)
    assert speed.deadline(10).seconds == 30


@pytest.mark.parametrize(
    ("error", "of_image"),
    [(ImageBuildFailed, True), (OutsideUnknown, True), (StageTimeout, True), (HostError, False), (SourceError, False)],
)
def test_a_verdict_says_whether_it_was_the_image_that_failed(
    tmp_path: Path, error: type[FarmError], of_image: bool
) -> None:
    async def breaks(_run: Run) -> None:
        raise error("it broke")

    verdict, _ = execute(tmp_path, create_image=breaks)
    assert (verdict.outcome, verdict.stage) == (Outcome.INFRASTRUCTURE, Stage.CREATE_IMAGE)
    assert verdict.image_failed is of_image
