"""The verdict of a run is made from its directory: at its end, after a kill, from an archive, and always the same."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from oscar_steps.errors import Evidence, FarmError, HostError, NodeFailed, UserError
from oscar_steps.job import Job
from oscar_steps.matrix.cells import default_profiles
from oscar_steps.matrix.recipes import load_recipe
from oscar_steps.oscar.flavour import FlavourName
from oscar_steps.oscar.logs.installlog import InstallLog
from oscar_steps.testdriver.cli.main import cli
from oscar_steps.testdriver.head.headnode import CommandResult, HeadNode
from oscar_steps.testdriver.head.installer import TIMES_FILE, Installer, Limits
from oscar_steps.testdriver.nodes.board import NodeBoard, NodeState, write_changes
from oscar_steps.testdriver.process.postmortem import verdict_of_dead_run
from oscar_steps.testdriver.reached import Installing
from oscar_steps.testdriver.record.rejudge import END_MARK, TERMINAL_FILE
from oscar_steps.testdriver.record.verdicts import verdict_of
from oscar_steps.testdriver.run import Gate, Run, RunOptions
from oscar_steps.verdict import Category, Outcome, Stage, StageResult, Verdict
from tests.unit.testdriver.having import having
from tests.unit.testdriver.record.test_transcripts import cases, edited, good, written

Handler = Callable[[Run], Awaitable[None]]
JOB: dict[str, Any] = {
    "run_id": "cell-r7-b1",
    "cell": "debian-12-x86_64",
    "source": {"url": "svn://127.0.0.1/oscar/trunk", "revision": "7"},
    "image": load_recipe(default_profiles() / "images/debian-12-x86_64.toml"),
    "cluster_xml": (default_profiles() / "clusters" / "head-and-two-nodes.xml").read_text(encoding="utf-8"),
    "answers": {"partition_file": "oscarsamples/scsi.disk", "tests": []},
}


LOST = SimpleNamespace(connected=False)
NO_CLUSTER = SimpleNamespace(head=None, machines=())


class FakeHead:
    """A head node whose installer has written `text`, and then, ten times a second, `more`."""

    def __init__(self, text: str, more: str = "") -> None:
        self.text, self.more = text.encode(), more.encode()

    async def write_files(self, files: object) -> None:
        pass

    async def check(self, command: str) -> None:
        pass

    async def run(self, command: str, **_limits: float) -> CommandResult:
        return CommandResult(command, 0, "")

    async def follow(self, _path: str, from_byte: int) -> AsyncIterator[bytes]:
        for at in range(from_byte, len(self.text), 1000):
            yield self.text[at : at + 1000]
        while True:
            await asyncio.sleep(0.1)
            if self.more:
                yield self.more


async def nothing(_run: Run) -> None:
    pass


def installing(
    lines: list[str],
    *,
    status: int | None = 0,
    silence: float = 30,
    log_bytes: int = 1 << 20,
    more: str = "",
    seconds: float = 20,
) -> Handler:
    """A start-install that follows an installer to its end, for so many `seconds` at most.

    `status` None: it comes to none, and goes on (`more`).
    """
    end = "" if status is None else f"\n{END_MARK} {status}\n"

    async def handler(run: Run) -> None:
        board = NodeBoard({"oscarnode1": "10.0.0.2", "oscarnode2": "10.0.0.3"}, lambda: run.diary.elapsed)
        write_changes(board, run.diary)
        log = InstallLog(expected_nodes=2, boot="cdrom", image_name="oscarimage")
        head = cast(HeadNode, FakeHead("\n".join(lines) + "\n" + end, more))
        installer = Installer(head, log, run.directory, run.diary, Limits(silence, log_bytes))
        run.reached = having(Installing, board=board, installer=installer, head=LOST, cluster=NO_CLUSTER)
        await installer.start("./install_cluster")
        run.diary.write("installer-started", flavour=FlavourName.INSTALL_CLUSTER)
        for task in (installer.follow(run.raise_alarm), installer.watch_silence(run.raise_alarm)):
            run.in_background(task)
        try:
            async with asyncio.timeout(seconds):
                await installer.ended.wait()
        except TimeoutError:
            raise installer.overdue(seconds) from None

    return handler


def execute(directory: Path, job: dict[str, Any] | None = None, **handlers: Handler) -> Verdict:
    directory.mkdir(exist_ok=True)

    async def do() -> Verdict:
        run = Run(directory, Job.model_validate(JOB | (job or {})), RunOptions(image_store=directory), Gate(open_=True))
        return await run.execute({stage: handlers.get(stage.name.lower(), nothing) for stage in Stage})

    return asyncio.run(do())


def of_case(name: str) -> list[str]:
    return written(edited(next(case for case in cases() if case["name"] == name)), "2007")


def raising(error: FarmError) -> Handler:
    async def handler(_run: Run) -> None:
        raise error

    return handler


async def one_node_panics(run: Run) -> None:
    assert isinstance(run.reached, Installing)
    nodes = run.reached.board.nodes
    nodes["oscarnode1"].reach(NodeState.POWERED_ON)
    nodes["oscarnode2"].reach(NodeState.POWERED_ON, note="by hand")
    nodes["oscarnode2"].reach(NodeState.FAILED, note="its kernel panicked")
    lines = tuple(f"[ 1.0] line {n}" for n in range(60))
    evidence = (Evidence("console/oscarnode2.log", 11, lines),)
    raise NodeFailed("oscarnode2 failed: it panicked", hint="see", oscar_stage="barrier", evidence=evidence)


async def somebody_cancels(run: Run) -> None:
    await run.cancel("Ctrl-C")
    await asyncio.Event().wait()


SILENT = of_case("an image name that is not known: a silent endless loop")
RUNS: dict[str, tuple[dict[str, Handler], Outcome, Category, str]] = {
    "a good run": (
        {"start_install": installing(written(good(), "2007"))},
        Outcome.PASSED, Category.NONE, "OSCAR installed a head node and 2 compute nodes",
    ),
    "the later format": (
        {"start_install": installing(written(good(), "later"))},
        Outcome.PASSED, Category.NONE, "OSCAR installed a head node and 2 compute nodes",
    ),
    "the image fails": (
        {"start_install": installing(of_case("a failed image ends with 0 and is blamed on step 5"), status=2)},
        Outcome.FAILED, Category.OSCAR, "could not build the client image",
    ),
    "it ends with 0 in the middle": (
        {"start_install": installing(of_case("it ends with 0 in the middle of a step"))},
        Outcome.FAILED, Category.OSCAR, "it ended with status 0 while building the client image",
    ),
    "the mirror is broken": (
        {"start_install": installing(of_case("the mirror has no name any more"), status=4)},
        Outcome.INFRASTRUCTURE, Category.DISTRIBUTION, "the distribution's mirror",
    ),
    "the answers do not fit": (
        {"start_install": installing(of_case("DHCP before the installation mode"), status=4)},
        Outcome.INFRASTRUCTURE, Category.ANSWERS, "DHCP was asked for before",
    ),
    "silence": (
        {"start_install": installing(SILENT, status=None, silence=0.5)},
        Outcome.FAILED, Category.OSCAR, "has been silent for 0 s while defining the compute nodes",
    ),
    "nothing new": (
        {"start_install": installing(SILENT, status=None, silence=2, more="waiting for headers\n")},
        Outcome.FAILED, Category.OSCAR, "has said nothing new for 2 s",
    ),
    "a line that grows is something new": (
        {"start_install": installing(SILENT, status=None, silence=3, more=".", seconds=4)},
        Outcome.FAILED, Category.OSCAR, "has not ended within 4 s",
    ),
    "a flood": (
        {"start_install": installing([*SILENT, *(f"line {n}" for n in range(9000))], status=None, log_bytes=20_000)},
        Outcome.FAILED, Category.OSCAR, "has written 0 MiB into its log",
    ),
    "a known loop": (
        {"start_install": installing(of_case("no 10 at the end, or CRLF: the menu repeats itself for ever"))},
        Outcome.FAILED, Category.OSCAR, "the network menu repeats itself for ever",
    ),
    "no end in time": (
        {"start_install": installing(SILENT, status=None, seconds=2)},
        Outcome.FAILED, Category.OSCAR, "has not ended within 2 s",
    ),
    "a node panics": (
        {"start_install": installing(written(good(), "2007")), "wait_nodes": one_node_panics},
        Outcome.FAILED, Category.OSCAR, "oscarnode2 failed",
    ),
    "the host": ({"checkout": raising(HostError("no disk"))}, Outcome.INFRASTRUCTURE, Category.HOST, "no disk"),
    "cancelled": ({"boot_headnode": somebody_cancels}, Outcome.CANCELLED, Category.NONE, "Ctrl-C"),
}  # fmt: skip


@pytest.mark.parametrize("name", RUNS)
def test_the_runs_own_verdict_is_the_one_that_its_files_give_to_the_byte(tmp_path: Path, name: str) -> None:
    handlers, outcome, category, words = RUNS[name]
    verdict = execute(tmp_path, **handlers)
    assert (verdict.outcome, verdict.category) == (outcome, category), verdict.sentence
    assert words in verdict.sentence
    stored = (tmp_path / "verdict.json").read_bytes()
    (tmp_path / "verdict.json").unlink()
    for _ in range(2):
        again = verdict_of(tmp_path)
        assert (again.model_dump_json(indent=2) + "\n").encode() == stored
    assert all(len(piece.lines) <= 40 for piece in verdict.evidence)


def test_nodes_stages_and_evidence_are_in_the_verdict(tmp_path: Path) -> None:
    verdict = execute(tmp_path, **RUNS["a node panics"][0])
    assert [(node.name, node.state) for node in verdict.nodes] == [
        ("oscarnode1", "powered on"),
        ("oscarnode2", "failed"),
    ]
    assert [state for state, _ in verdict.nodes[1].history] == ["defined", "powered on", "failed"]
    assert verdict.nodes[1].note == "its kernel panicked"
    assert (verdict.evidence[0].first_line, len(verdict.evidence[0].lines), verdict.evidence[0].last_line) == (
        31,
        40,
        70,
    )
    assert (verdict.stage, verdict.hint) == (Stage.WAIT_NODES, "see")
    assert "oscar-testdriver run --cell debian-12-x86_64" in verdict.replay


def test_each_stage_of_oscars_installer_has_its_result_and_its_time(tmp_path: Path) -> None:
    verdict = execute(tmp_path, **RUNS["the image fails"][0])
    results = {report.stage: report.result for report in verdict.installer}
    assert results["server"] == "passed"
    assert (results["image"], results["define"], results["done"]) == ("failed", "not-reached", "not-reached")
    assert all(report.seconds is not None for report in verdict.installer if report.result == "passed")
    hung = execute(tmp_path / "2", **RUNS["silence"][0])
    assert {report.stage: report.result for report in hung.installer}["define"] == "hung"


def test_every_line_of_the_terminal_has_its_time(tmp_path: Path) -> None:
    execute(tmp_path, **RUNS["a good run"][0])
    rows = [row.split() for row in (tmp_path / TIMES_FILE).read_text().splitlines()]
    times, lines = [float(time) for time, _ in rows], [int(line) for _, line in rows]
    assert (times, lines) == (sorted(times), sorted(lines))
    assert lines[0] < len(written(good(), "2007")) <= lines[-1]


def test_a_job_whose_profile_cannot_be_used_any_more_is_named(tmp_path: Path) -> None:
    execute(tmp_path, **RUNS["the image fails"][0])
    Job.model_validate(JOB | {"cluster_xml": "<cluster/>"}).save(tmp_path / "job.json")
    with pytest.raises(UserError, match=f"the cluster profile in {tmp_path}/job.json:1:1: "):
        verdict_of(tmp_path)


def test_a_finding_outlives_the_kill_of_its_run(tmp_path: Path) -> None:
    verdict = execute(tmp_path, **RUNS["the image fails"][0])
    kill(tmp_path, Stage.EXTRACT_LOGS)
    after = verdict_of_dead_run(tmp_path)
    assert (after.outcome, after.sentence) == (verdict.outcome, verdict.sentence)
    assert {report.stage: report.result for report in after.stages}[Stage.EXTRACT_LOGS] is StageResult.INFRASTRUCTURE


def kill(directory: Path, stage: Stage) -> None:
    """Leave what a `kill -9` in the beginning of `stage` leaves."""
    lines = (directory / "events.jsonl").read_text().splitlines()
    cut = next(n for n, line in enumerate(lines) if f'"stage-started", "text": "== {stage}"' in line)
    (directory / "events.jsonl").write_text("\n".join(lines[: cut + 1]) + '\n{"time": "half a li')
    (directory / "verdict.json").unlink()


def test_a_killed_run_gives_the_same_verdict_whenever_it_is_asked_for(tmp_path: Path) -> None:
    execute(tmp_path, **RUNS["a good run"][0])
    kill(tmp_path, Stage.WAIT_NODES)
    first = verdict_of_dead_run(tmp_path)
    assert first.outcome is Outcome.INFRASTRUCTURE
    assert "killed in the stage wait-nodes" in first.sentence and "no VM was left" in first.sentence
    assert verdict_of(tmp_path) == first == Verdict.load(tmp_path)


def test_an_archive_that_lost_the_terminal_is_not_good(tmp_path: Path) -> None:
    execute(tmp_path, **RUNS["a good run"][0])
    text = (tmp_path / TERMINAL_FILE).read_bytes()
    (tmp_path / TERMINAL_FILE).write_bytes(text[: len(text) // 2])
    assert verdict_of(tmp_path).outcome is Outcome.FAILED
    (tmp_path / TERMINAL_FILE).unlink()
    lost = verdict_of(tmp_path)
    assert (lost.outcome, lost.category) == (Outcome.INFRASTRUCTURE, Category.HOST)
    assert "nothing proves" in lost.sentence


@pytest.mark.parametrize("place", ["logs/head/opt/oscar", "logs/head/var/log/oscar"])
def test_without_the_terminal_the_installers_own_log_is_read_in_either_place(tmp_path: Path, place: str) -> None:
    execute(tmp_path, **RUNS["a good run"][0])
    lines = written(good(), "2007")
    (tmp_path / place).mkdir(parents=True)
    (tmp_path / place / "oscarinstall.log").write_text("\n".join(lines[lines.index("System checked") + 1 :]) + "\n")
    (tmp_path / place / "oscarinstall.log_1").write_text("an older one\n")
    (tmp_path / TERMINAL_FILE).unlink()
    assert verdict_of(tmp_path).outcome is Outcome.PASSED
    (tmp_path / place / "oscarinstall.log").write_text("\n".join(lines[lines.index("System checked") + 1 : -1]) + "\n")
    failed = verdict_of(tmp_path)
    assert (failed.outcome, failed.oscar_stage) == (Outcome.FAILED, "done")
    assert failed.evidence[0].file == f"{place}/oscarinstall.log"


def test_a_failure_is_not_made_good_by_a_terminal_that_was_made_good(tmp_path: Path) -> None:
    before = execute(tmp_path, **RUNS["the image fails"][0])
    (tmp_path / TERMINAL_FILE).write_text("\n".join(written(good(), "2007")) + f"\n\n{END_MARK} 0\n")
    after = verdict_of(tmp_path)
    assert (after.outcome, after.sentence) == (before.outcome, before.sentence)


class HeadInParts(FakeHead):
    """A head node whose installer writes its parts one by one, each when it is asked for."""

    def __init__(self, *parts: list[str]) -> None:
        super().__init__("")
        self.parts, self.next = ["".join(f"{line}\n" for line in part).encode() for part in parts], asyncio.Semaphore(0)
        self.taken = asyncio.Semaphore(0)

    async def follow(self, _path: str, from_byte: int) -> AsyncIterator[bytes]:
        assert from_byte == 0
        for part in self.parts:
            await self.next.acquire()
            yield part
            self.taken.release()
        await asyncio.Event().wait()


async def alarms_after_each(tmp_path: Path, *parts: list[str]) -> tuple[list[list[str]], bool]:
    """What had been raised after each part of the terminal, and whether nodes may boot."""
    head, alarms, seen = HeadInParts(*parts), list[FarmError](), list[list[str]]()
    run = Run(tmp_path, Job.model_validate(JOB), RunOptions(image_store=tmp_path), Gate(open_=True))
    log = InstallLog(expected_nodes=2, boot="cdrom", image_name="oscarimage")
    installer = Installer(cast(HeadNode, head), log, tmp_path, run.diary, Limits(30, 1 << 20))
    task = asyncio.create_task(installer.follow(alarms.append))
    for _ in parts:
        head.next.release()
        await asyncio.wait([asyncio.create_task(head.taken.acquire()), task], return_when=asyncio.FIRST_COMPLETED)
        seen.append([error.sentence for error in alarms])
    task.cancel()
    return seen, installer.reached_barrier.is_set()


def test_an_installer_that_goes_on_after_a_failed_test_is_let_go_on_to_its_end(tmp_path: Path) -> None:
    lines = written(good(), "2007")
    at = next(n for n, line in enumerate(lines) if "SSH ping test" in line)
    bad = [line for name in ("one", "other") for line in written([f"@result {name} test | | FAILED"], "2007")]
    parts = [*lines[:at], bad[0]], [bad[1], *lines[at:]], ["", f"{END_MARK} 0"]
    seen, _ = asyncio.run(alarms_after_each(tmp_path, *parts))
    assert seen == [[], [], ["the cluster's test failed: 'one test' failed, 'other test' failed"]]


def test_a_cluster_whose_network_is_not_set_up_ends_at_the_barrier_and_boots_no_node(tmp_path: Path) -> None:
    lines = [line for line in written(good(), "2007") if line != "--> Step 6: Successfully ran command"]
    at = lines.index("farm barrier: waiting")
    seen, booting = asyncio.run(alarms_after_each(tmp_path, lines[:at], lines[at : at + 1]))
    assert seen[0] == [] and len(seen[1]) == 1 and "the DHCP server was not configured" in seen[1][0]
    assert not booting


ISSUE = {"text": "Package install failed", "reference": "ticket 412", "note": "known to the packager"}


@pytest.mark.parametrize(
    ("issue", "words"),
    [
        ({"expires": "2999-01-01"}, "known issue (ticket 412: known to the packager), until 2999-01-01"),
        ({"expires": "2001-01-01"}, "ticket 412: known to the packager), which expired on 2001-01-01"),
        ({"expires": "2999-01-01", "cells": "fedora-*"}, ""),
        ({"expires": "2999-01-01", "text": "something else"}, ""),
    ],
)
def test_a_known_issue_is_named_in_the_hint_and_changes_nothing_else(
    tmp_path: Path, issue: dict[str, str], words: str
) -> None:
    plain = execute(tmp_path / "plain", **RUNS["the image fails"][0])
    known = execute(tmp_path / "known", {"known_issues": [ISSUE | issue]}, **RUNS["the image fails"][0])
    assert words in known.hint
    assert plain.hint in known.hint
    assert bool(words) is (known.hint != plain.hint)
    same = {"outcome", "sentence", "stage", "oscar_stage", "category", "evidence"}
    assert known.model_dump(include=same) == plain.model_dump(include=same)


def test_a_good_run_has_no_known_issue(tmp_path: Path) -> None:
    issue = ISSUE | {"text": "OSCAR installed", "expires": "2999-01-01"}
    assert execute(tmp_path, {"known_issues": [issue]}, **RUNS["a good run"][0]).hint == ""


def test_the_command_makes_the_verdict_anew_and_shows_the_stored_one_on_demand(tmp_path: Path) -> None:
    execute(tmp_path, **RUNS["the image fails"][0])
    stored = Verdict.load(tmp_path)
    stored.model_copy(update={"sentence": "what an older farm said"}).save(tmp_path)
    anew = CliRunner().invoke(cli, ["verdict", str(tmp_path), "--json"])
    assert anew.exit_code == 10
    assert Verdict.model_validate_json(anew.output) == stored
    old = CliRunner().invoke(cli, ["verdict", str(tmp_path), "--stored"])
    assert old.exit_code == 10
    assert "what an older farm said" in old.output


def test_a_directory_without_a_run_is_a_mistake_of_the_user(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such job file"):
        verdict_of(tmp_path)
    Job.model_validate(JOB).save(tmp_path / "job.json")
    with pytest.raises(UserError, match="has not begun"):
        verdict_of(tmp_path)


@pytest.fixture(scope="module")
def failed_runs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    names = ("the image fails", "a node panics", "the host", "cancelled", "it ends with 0 in the middle")
    paths = [tmp_path_factory.mktemp(name.replace(" ", "-")) for name in names]
    for name, path in zip(names, paths, strict=True):
        execute(path, **RUNS[name][0])
    return paths


def test_without_the_word_that_an_installer_was_started_nothing_proves_a_good_run(tmp_path: Path) -> None:
    execute(tmp_path, **RUNS["a good run"][0])
    events = (tmp_path / "events.jsonl").read_bytes().splitlines(keepends=True)
    (tmp_path / "events.jsonl").write_bytes(b"".join(line for line in events if b'"installer-started"' not in line))
    assert verdict_of(tmp_path).outcome is Outcome.INFRASTRUCTURE


@settings(max_examples=60)
@given(st.data())
def test_no_damage_to_its_events_makes_a_failed_run_green(failed_runs: list[Path], data: st.DataObject) -> None:
    source = data.draw(st.sampled_from(failed_runs))
    events = (source / "events.jsonl").read_bytes().splitlines()
    for _ in range(data.draw(st.integers(1, 6))):
        at = data.draw(st.integers(0, len(events) - 1))
        how = data.draw(st.sampled_from(["drop", "twice", "cut", "garble", "swap", "junk"]))
        line = events[at]
        if how == "drop" and len(events) > 1:
            del events[at]
        elif how == "twice":
            events.insert(at, line)
        elif how == "cut":
            events[at] = line[: data.draw(st.integers(0, len(line)))]
        elif how == "garble" and line:
            place = data.draw(st.integers(0, len(line) - 1))
            events[at] = line[:place] + data.draw(st.binary(min_size=1, max_size=1)) + line[place + 1 :]
        elif how == "swap":
            other = data.draw(st.integers(0, len(events) - 1))
            events[at], events[other] = events[other], events[at]
        else:
            events.insert(at, json.dumps(data.draw(st.recursive(st.integers() | st.text(), st.lists))).encode())
    damaged = source.with_name(f"{source.name}-damaged")
    shutil.rmtree(damaged, ignore_errors=True)
    shutil.copytree(source, damaged)
    (damaged / "events.jsonl").write_bytes(b"\n".join(events) + b"\n")
    try:
        assert verdict_of(damaged).outcome is not Outcome.PASSED
    except UserError as error:
        assert "has not begun" in error.sentence
