"""The installer of autumn 2006, which has no word for the end of its checks and of its test."""

from __future__ import annotations

import pytest

from oscar_steps.oscar.stages import InstallStage
from tests.unit.oscar.logs.test_installlog import GOOD, RULE, failure_of, fed, result

BANNER = "== Running OSCAR install_cluster script    Thu Jun 14 05:00:00 UTC 2007"
USER_TESTS = [result(f"SSH {name}", "", "PASSED") for name in ("ping test", "server->node", "node->server")]


def of_2006(*test: str, banner: tuple[str, ...] = (BANNER, "")) -> list[str]:
    """The good run as OSCAR of autumn 2006 writes it, with what its test says: nothing of the checks and the test."""
    lines = [line for line in GOOD[: GOOD.index("== Test Cluster Setup")] if line != "System checked"]
    lines[lines.index(BANNER) : lines.index(BANNER) + 1] = banner
    lines[lines.index("== Installing OSCAR Server Packages")] = "== Installing Packages"
    return [*lines, "== Test Cluster Setup", RULE, "", *test, *GOOD[-2:]]


GOOD_TEST_OF_2006 = (
    "Performing root tests...",
    "Creating mailbox file: No such file or directory",
    result("/home mounts", "", "PASSED"),
    "Preparing user tests...",
    "Performing user tests...",
    *USER_TESTS,
)


def test_going_on_after_the_checks_and_the_test_is_enough_where_the_terminal_is_of_2006() -> None:
    assert fed(of_2006(*GOOD_TEST_OF_2006))[0].conclude(0) is None
    failure = failure_of(of_2006(*GOOD_TEST_OF_2006, banner=(BANNER,)))
    assert failure.stage is InstallStage.PREFLIGHT and "never said 'System checked'" in failure.sentence


@pytest.mark.parametrize("gone", ["Performing user tests...", *USER_TESTS[2:]])
def test_a_test_of_2006_that_did_not_come_to_its_end_is_not_good(gone: str) -> None:
    failure = failure_of(of_2006(*(line for line in GOOD_TEST_OF_2006 if line != gone)))
    assert failure.stage is InstallStage.TEST and "and yet its command line ended with status 0" in failure.sentence


@pytest.mark.parametrize(
    "death",
    [
        *(
            "Killed",
            "Segmentation fault (core dumped)",
            "su: user oscartst does not exist",
            "sh: foo: command not found",
        ),
        *("/home/oscartst/pvm/test_user: No such file or directory", "Session terminated, killing shell... ...killed."),
    ],
)
@pytest.mark.parametrize("after", range(4))
def test_a_program_of_the_test_of_2006_that_dies_is_not_good(death: str, after: int) -> None:
    # It was said before as well, where it does no harm: a line that is known must count here.
    lines = [*GOOD_TEST_OF_2006[:5], *USER_TESTS[:after], death, *USER_TESTS[after:]]
    failure = failure_of(of_2006(GOOD_TEST_OF_2006[0], death, *lines[1:]))
    assert failure.stage is InstallStage.TEST and death.removeprefix("sh: ") in failure.sentence
