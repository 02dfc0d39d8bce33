"""A commit in Subversion installs a whole virtual cluster, and its developer gets the result by mail."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from demo import children
from demo.farm import CHECKOUT, DOMAIN, USERS, Farm
from demo.judge import complaints
from demo.mailsink import read_mail
from oscar_steps.verdict import Outcome

# A base image may have to be built first, on a slow host, and then a cluster is installed.
pytestmark = [pytest.mark.farm, pytest.mark.timeout(3600)]

_SLOW_FAULTS = ("image-build-fails", "node-stops-in-mid-pull")
# `make faults` runs each fault there is, these among them.
FAULTS = ("cluster-test-fails", *(pytest.param(name, marks=pytest.mark.slow) for name in _SLOW_FAULTS))


@pytest.fixture(scope="module")
def farm() -> Iterator[Farm]:
    with Farm(CHECKOUT / ".farm" / "test") as farm:
        yield farm
    assert farm.leftovers == [], "the farm's end left processes"
    assert children.marked(str(farm.directory)) == []


def test_a_good_commit_turns_green_and_its_developer_is_told(farm: Farm) -> None:
    revision = farm.commit_harmless()
    finished = farm.follow(revision, USERS[0], print)
    assert complaints(finished, None) == []
    assert finished.verdict is not None
    assert finished.verdict.revision == str(revision)
    assert [node.state for node in finished.verdict.nodes] == ["up", "up"]
    extracted = farm.runs / finished.verdict.run_id / "logs"
    assert "Linux version" in (extracted / "head/tmp/farm-commands/journal.txt").read_text(errors="replace")
    assert (extracted / "oscarnode2/etc/fstab").is_file()


@pytest.mark.parametrize("name", FAULTS)
def test_a_broken_commit_turns_red_at_its_stage_and_the_mail_says_why(farm: Farm, name: str) -> None:
    revision = farm.commit_fault(name)
    finished = farm.follow(revision, USERS[1], print)
    assert complaints(finished, farm.faults[name]) == []
    assert finished.verdict is not None and finished.verdict.outcome is Outcome.FAILED
    assert finished.verdict.evidence, "a failure without evidence"
    assert finished.mail is not None
    assert read_mail(finished.mail)["To"] == f"{USERS[1]}@{DOMAIN}", "only the committer is told"


def test_no_run_is_left_when_its_build_is_over(farm: Farm) -> None:
    commands = [" ".join(process.cmdline()) for process in children.marked(str(farm.directory))]
    assert [command for command in commands if "qemu" in command or "testdriver" in command] == []
