"""What a run says of the fault that is looked for, and two runs side by side."""

from __future__ import annotations

from typing import Any

import pytest

from oscar_steps.bisect.compare import Side, compare
from oscar_steps.bisect.search import Seen
from oscar_steps.bisect.seen import seen
from oscar_steps.errors import Evidence
from oscar_steps.sources.source import External, Source
from oscar_steps.verdict import (
    Category,
    ImageReport,
    InstallReport,
    NodeReport,
    Outcome,
    Stage,
    StageReport,
    StageResult,
    Verdict,
)


def verdict(**more: Any) -> Verdict:
    facts = {"run_id": "r", "cell": "c", "source": "svn://h/trunk", "revision": "9", "outcome": Outcome.PASSED}
    return Verdict.model_validate({**facts, "sentence": "passed", **more})


def failed(sentence: str, **more: Any) -> Verdict:
    facts = {"outcome": Outcome.FAILED, "category": Category.OSCAR, "stage": Stage.START_INSTALL}
    return verdict(**{**facts, "sentence": sentence, **more})


BAD = failed("the image failed after 31 s: no such package", oscar_stage="image")


@pytest.mark.parametrize(
    ("run", "said"),
    [
        (verdict(), Seen.GOOD),
        (failed("the image failed after 44.5 s: no such package", oscar_stage="image"), Seen.BAD),
        (failed("the image failed after 31 s: disk full", oscar_stage="image"), Seen.OTHER),
        (failed("preflight failed", oscar_stage="preflight"), Seen.OTHER),
        (verdict(outcome=Outcome.INFRASTRUCTURE, category=Category.HOST, sentence="no KVM"), Seen.LOST),
        (verdict(outcome=Outcome.CANCELLED, sentence="stopped"), Seen.LOST),
        (
            verdict(
                outcome=Outcome.INFRASTRUCTURE, category=Category.FARM, stage=Stage.CHECKOUT, sentence="no such path"
            ),
            Seen.UNTESTABLE,
        ),
    ],
)
def test_what_a_run_says_of_the_fault(run: Verdict, said: Seen) -> None:
    assert seen(run, BAD) is said


def test_a_run_that_got_past_the_fault_is_good_although_it_failed_later() -> None:
    past = (InstallReport(stage="image", result="passed"),)
    later = failed("node 1 never asked", stage=Stage.WAIT_NODES, oscar_stage="barrier", installer=past)
    assert seen(later, BAD) is Seen.GOOD


def test_a_broken_distribution_can_be_searched_for_as_well() -> None:
    broken = verdict(outcome=Outcome.INFRASTRUCTURE, category=Category.DISTRIBUTION, sentence="perl is broken")
    assert seen(broken, broken) is Seen.BAD
    assert seen(broken, BAD) is Seen.OTHER


def test_two_runs_side_by_side_say_where_they_parted_and_what_was_different() -> None:
    def node(*states: str) -> tuple[NodeReport, ...]:
        history = tuple((state, float(number)) for number, state in enumerate(states))
        return (NodeReport(name="oscarnode1", state=states[-1], since=9.0, history=history),)

    def stages(seconds: float) -> tuple[StageReport, ...]:
        return (StageReport(stage=Stage.BOOT_HEADNODE, result=StageResult.PASSED, seconds=seconds),)

    good = verdict(
        run_id="good-1",
        seconds=300,
        nodes=node("powered on", "imaged", "up"),
        stages=stages(25),
        installer=(InstallReport(stage="server", result="passed"), InstallReport(stage="image", result="passed")),
        image=ImageReport(key="a" * 64),
    )
    bad = failed(
        "the image failed",
        run_id="bad-1",
        seconds=100,
        nodes=node("powered on"),
        stages=stages(95),
        installer=(InstallReport(stage="server", result="passed"), InstallReport(stage="image", result="failed")),
        image=ImageReport(key="b" * 64),
        evidence=(Evidence("logs/oscarinstall.log", 7, ("", "E: no such package\x1b[2J")),),
    )
    said = compare(Side(good, "perl 5.36-1 amd64\n", "http://farm/good"), Side(bad, "perl 5.36-2 amd64\n"))
    assert said == [
        "r9 passed: passed",
        "    run good-1, 300 s",
        "    http://farm/good",
        "r9 failed at start-install: the image failed",
        "    run bad-1, 100 s",
        "    logs/oscarinstall.log, lines 7 to 8:",
        said[6],
        "OSCAR's installer: the first difference is image: passed, then failed",
        "node oscarnode1: 'imaged' was reached, and then it was not; the end was 'powered on'",
        "the stage boot-headnode took 25 s, then 95 s",
        "the base images differ: 1 package of the distribution changed",
        "    perl 5.36-1 -> 5.36-2",
    ]
    assert "no such package" in said[6] and "\x1b" not in said[6]


def test_two_runs_side_by_side_say_what_their_jobs_had_different() -> None:
    job = {
        "run_id": "1", "cell": "c", "nodes": 2, "cluster_xml": "<a>\n</a>", "boot": None,
        "image": {"suite": "bookworm", "packages": ["perl", "sed"]}, "known_issues": [1],
    }  # fmt: skip
    other = {
        **job, "run_id": "2", "nodes": 4, "cluster_xml": "<b>\n</b>", "boot": "network",
        "image": {"suite": "trixie", "packages": ["sed", "zstd"]}, "known_issues": [],
    }  # fmt: skip
    said = compare(Side(verdict(), job=job), Side(verdict(cell="d", source="svn://h/branch"), job=other))
    assert said[4:] == [
        "two cells: c, then d",
        "two places: svn://h/trunk, then svn://h/branch",
        "the job's nodes: 2, then 4",
        "the job's cluster_xml differs",
        "the job's boot: nothing, then network",
        "the job's image.suite: bookworm, then trixie",
        "the job's image.packages: + zstd, - perl",
    ]


def test_two_runs_of_the_same_source_are_said_to_be_so() -> None:
    tested = Source(url="svn://h/trunk", revision="9")
    said = compare(Side(verdict(tested=tested)), Side(failed("it failed", tested=tested)))
    assert "both tested the same: svn://h/trunk@9" in said


def test_two_runs_side_by_side_name_the_externals_that_differ() -> None:
    def tested(*names: str, revision: str) -> Source:
        found = (External(path=name, url=f"svn://h/{name}", revision=revision) for name in names)
        return Source(url="svn://h/trunk", revision="9", externals=tuple(found))

    before, after = tested("same", "gone", revision="4"), tested("same", revision="4")
    new = External(path="new", url="svn://h/new", revision="5")
    after = after.model_copy(update={"externals": (*after.externals, new)})
    said = compare(Side(verdict(tested=before)), Side(failed("it failed", tested=after)))
    assert "the externals: + new from svn://h/new@5, - gone from svn://h/gone@4" in said
    assert not [line for line in said if "same" in line]


def test_nodes_that_parted_in_the_same_way_are_one_line() -> None:
    def nodes(state: str, *names: str) -> tuple[NodeReport, ...]:
        history = (("up", 9.0),) if state == "up" else ()
        return tuple(NodeReport(name=name, state=state, since=9.0, history=history) for name in names)

    for names, said in ((("n1", "n2"), "nodes n1 and n2: "), (("n1", "n2", "n3"), "nodes n1 and 2 more: ")):
        found = compare(Side(verdict(nodes=nodes("up", *names))), Side(failed("x", nodes=nodes("defined", *names))))
        assert [line.startswith(said) for line in found if line.startswith("node")] == [True]


def test_nodes_that_came_up_by_another_way_have_not_parted() -> None:
    def node(*states: str) -> tuple[NodeReport, ...]:
        history = tuple((state, float(number)) for number, state in enumerate(states))
        return (NodeReport(name="n1", state=states[-1], since=9.0, history=history),)

    said = compare(Side(verdict(nodes=node("powered on", "given its address", "up"))), Side(verdict(nodes=node("up"))))
    assert not [line for line in said if line.startswith("node")]
