"""Results: green only with a verdict that says so, red only for OSCAR, everything unknown the farm's own fault."""

from __future__ import annotations

from dataclasses import replace

import pytest
from buildbot.process.results import CANCELLED, EXCEPTION, FAILURE, SKIPPED, SUCCESS, WARNINGS

from oscar_steps.master.steps.results import (
    RESULT_OF_OUTCOME,
    RESULT_OF_STATUS,
    RunIdentity,
    agreed,
    lost_worker,
    read_verdict,
    stage_result,
)
from oscar_steps.sources.source import Source
from oscar_steps.verdict import LINT, ExitStatus, Outcome, Stage

IDENTITY = RunIdentity(run_id="c-r7-b1", cell="c", source="svn://h/oscar/trunk", revision="7")


def said(outcome: Outcome) -> str:
    return IDENTITY.verdict(outcome, "so it was").model_dump_json()


def test_a_verdict_of_the_masters_own_says_what_was_tested_as_far_as_it_is_known() -> None:
    source = Source(kind="git", url="git://host/oscar", revision="0a" * 20, branch="git/oscar/main")
    known = {"tested": source.model_dump(mode="json"), "exact_revision": source.revision}
    lost = lost_worker(RunIdentity.of_build("c", 1, known.get), "w1")
    assert (lost.tested, lost.short) == (source, "g0a0a0a0a0a0a")
    assert RunIdentity.of_build("c", 1, {"revision": "main"}.get).verdict(Outcome.INFRASTRUCTURE, "no").tested is None


def test_a_verdict_of_the_first_tier_says_what_the_master_asked_for() -> None:
    source = Source(kind="git", url="git://host/oscar", revision="0a" * 20, branch="git/oscar/main")
    identity = replace(IDENTITY, cell=LINT, tested=source)
    said = replace(identity, tested=source.model_copy(update={"branch": ""})).verdict(Outcome.PASSED, "fine")
    assert read_verdict(identity, said.model_dump_json()).tested == source


@pytest.mark.parametrize(
    ("status", "result"),
    [
        (ExitStatus.PASSED, SUCCESS),
        (ExitStatus.FAILED, FAILURE),
        (ExitStatus.INFRASTRUCTURE, EXCEPTION),
        (ExitStatus.CANCELLED, CANCELLED),
        (ExitStatus.NOT_REACHED, SKIPPED),
        (ExitStatus.USAGE, EXCEPTION),
        (1, EXCEPTION),
        (2, EXCEPTION),
        (127, EXCEPTION),
        (-9, EXCEPTION),
        (None, EXCEPTION),
    ],
)
def test_an_exit_status_is_mapped_on_purpose(status: int | None, result: int) -> None:
    assert stage_result(Stage.WAIT_NODES, status, SUCCESS) == result


def test_every_outcome_has_a_result_and_no_status_of_a_stage_is_a_warning() -> None:
    assert set(RESULT_OF_OUTCOME) == set(Outcome)
    assert WARNINGS not in RESULT_OF_STATUS.values()
    assert stage_result(Stage.WAIT_NODES, ExitStatus.WARNING, SUCCESS) == EXCEPTION


def test_only_the_first_tier_may_warn() -> None:
    warning = IDENTITY.verdict(Outcome.WARNING, "scripts/a:3: odd")
    assert read_verdict(IDENTITY, warning.model_dump_json()).outcome is Outcome.INFRASTRUCTURE
    first_tier = replace(IDENTITY, cell=LINT)
    warning = first_tier.verdict(Outcome.WARNING, "scripts/a:3: odd")
    assert read_verdict(first_tier, warning.model_dump_json()).outcome is Outcome.WARNING
    assert agreed(warning, WARNINGS, "lint") == warning
    assert agreed(warning, SUCCESS, "lint").outcome is Outcome.WARNING
    assert agreed(warning, FAILURE, "lint").outcome is Outcome.INFRASTRUCTURE


def test_trouble_in_teardown_does_not_hide_a_finding_about_oscar() -> None:
    assert stage_result(Stage.TEARDOWN, ExitStatus.INFRASTRUCTURE, FAILURE) == WARNINGS
    assert stage_result(Stage.TEARDOWN, ExitStatus.INFRASTRUCTURE, SUCCESS) == EXCEPTION


@pytest.mark.parametrize("text", [None, "", "{}", '{"outcome": "passed"}', "not json"])
def test_a_verdict_that_cannot_be_had_is_infrastructure(text: str | None) -> None:
    assert read_verdict(IDENTITY, text).outcome is Outcome.INFRASTRUCTURE


def test_the_verdict_of_another_run_is_not_believed() -> None:
    other = RunIdentity(run_id="c-r6-b1", cell="c", source="s", revision="6").verdict(Outcome.PASSED, "fine")
    assert read_verdict(IDENTITY, other.model_dump_json()).outcome is Outcome.INFRASTRUCTURE


@pytest.mark.parametrize(
    ("outcome", "stages", "agreement"),
    [
        (Outcome.PASSED, SUCCESS, Outcome.PASSED),
        (Outcome.PASSED, WARNINGS, Outcome.PASSED),
        (Outcome.PASSED, FAILURE, Outcome.INFRASTRUCTURE),
        (Outcome.PASSED, EXCEPTION, Outcome.INFRASTRUCTURE),
        (Outcome.FAILED, FAILURE, Outcome.FAILED),
        (Outcome.FAILED, SUCCESS, Outcome.FAILED),
        (Outcome.FAILED, EXCEPTION, Outcome.INFRASTRUCTURE),
        (Outcome.FAILED, CANCELLED, Outcome.CANCELLED),
        (Outcome.INFRASTRUCTURE, FAILURE, Outcome.INFRASTRUCTURE),
    ],
)
def test_the_build_and_its_verdict_agree(outcome: Outcome, stages: int, agreement: Outcome) -> None:
    assert agreed(read_verdict(IDENTITY, said(outcome)), stages, "wait-nodes").outcome is agreement
