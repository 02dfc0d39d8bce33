"""A red is repeated where the evidence says so: one mail with both results, also where the master is killed between."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from email.message import EmailMessage
from typing import Any

import psutil
import pytest

from demo.farm import USERS
from demo.mailsink import body_of, read_mail
from oscar_steps.master.durability.once import REPEAT_OF
from oscar_steps.master.history.repeat import REPEATED_BY
from tests.farm.support import FAKE_DRIVER, eventually, nothing_to_install
from tests.farm.test_master_with_fake_driver import CANCELLED, RETRY, order, play
from tests.farm.test_restarts import RestartedFarm, builds_of_cell

pytestmark = pytest.mark.slow
DEVELOPER = USERS[1]
GREEN, RED = 0, 2


@pytest.fixture(scope="module")
def farm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RestartedFarm]:
    with nothing_to_install(tmp_path_factory.mktemp("standin")):
        directory = tmp_path_factory.mktemp("farm") / "f"
        with RestartedFarm(directory, driver=[sys.executable, str(FAKE_DRIVER)]) as farm:
            farm.to_the_background()
            yield farm


def mails_about(farm: RestartedFarm, revision: int) -> list[EmailMessage]:
    """All mails of the cell about a revision."""
    mails = map(read_mail, sorted((farm.directory / "mails").glob("*.eml")))
    return [mail for mail in mails if f" r{revision}: " in mail["Subject"]]


def builds_of(farm: RestartedFarm, revision: int) -> list[dict[str, Any]]:
    of_cell = [(build, farm.master.property(build["buildid"], "got_revision")) for build in builds_of_cell(farm)]
    return [build for build, tested in of_cell if tested == str(revision)]


def ended(farm: RestartedFarm, revision: int, *results: int) -> list[dict[str, Any]]:
    """The builds of a revision, as soon as they have all ended and their results, RETRY left out, are these."""

    def found() -> list[dict[str, Any]] | None:
        builds = builds_of(farm, revision)
        said = [build["results"] for build in builds if build["results"] != RETRY]
        return builds if said == list(results) else None

    return eventually(found, 60)


def second_run(farm: RestartedFarm, revision: int) -> dict[str, Any]:
    """The repetition, as soon as it stands still in its stage."""

    def found() -> dict[str, Any] | None:
        builds = builds_of(farm, revision)
        run = farm.master.property(builds[-1]["buildid"], "run_id") if len(builds) > 1 else None
        return builds[-1] if run and (farm.runs / run / "hanging").exists() else None

    return eventually(found, 60)


def kill_master(farm: RestartedFarm) -> None:
    pid = farm.master_pid
    os.kill(pid, signal.SIGKILL)
    eventually(lambda: not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE)
    # Where nobody has taken its exit status yet twistd would take the dead one for a running master.
    (farm.directory / "master/twistd.pid").unlink(missing_ok=True)


def test_a_red_of_a_cell_that_has_never_flaked_is_not_repeated_and_a_green_of_the_same_makes_it_flaky(
    farm: RestartedFarm,
) -> None:
    play(farm, "fail", sentence="the first fault")
    revision = farm.commit_harmless(DEVELOPER)
    (red,) = ended(farm, revision, RED)
    (mail,) = eventually(lambda: mails_about(farm, revision))
    assert DEVELOPER in mail["To"]
    assert farm.master.property(red["buildid"], REPEATED_BY) is None
    play(farm, "pass")
    order(farm, f"builds/{red['buildid']}", "rebuild")
    ended(farm, revision, RED, GREEN)


def test_a_repetition_that_is_green_blames_nobody_and_its_one_mail_has_both_results_over_a_kill_of_the_master(
    farm: RestartedFarm,
) -> None:
    play(farm, "first-fails", then="hang", sentence="a second fault, which comes and goes")
    revision = farm.commit_harmless(DEVELOPER)
    red, _ = builds_of(farm, revision) if second_run(farm, revision) else ()
    assert red["results"] == RED
    assert mails_about(farm, revision) == [], "the mail waits for the second result"
    kill_master(farm)
    play(farm, "first-fails", then="pass", sentence="a second fault, which comes and goes")
    farm.buildbot("start")
    builds = ended(farm, revision, RED, GREEN)
    assert farm.master.property(builds[-1]["buildid"], REPEAT_OF) == red["buildrequestid"]
    (mail,) = eventually(lambda: mails_about(farm, revision))
    assert DEVELOPER not in mail["To"]
    assert "flaky: failed at wait-nodes: a second fault" in mail["Subject"]
    body = body_of(mail)
    assert f"Repeated  build {builds[-1]['number']} passed" in body
    assert "of the last 4 runs of this cell that passed or failed, 1 was red in this way" in body
    assert mail["X-Oscar-Farm-Build"] == str(red["number"])


def test_a_repetition_that_is_red_too_reaches_the_author_once_also_where_the_master_is_killed_after_it(
    farm: RestartedFarm,
) -> None:
    play(farm, "first-fails", then="hang", sentence="a third fault, which stays")
    revision = farm.commit_harmless(DEVELOPER)
    second_run(farm, revision)
    kill_master(farm)
    play(farm, "fail", sentence="a third fault, which stays")
    farm.buildbot("start")
    builds = ended(farm, revision, RED, RED)
    kill_master(farm)
    farm.buildbot("start")
    mail, *copies = eventually(lambda: mails_about(farm, revision), 60)
    # The relay may have taken it in the moment of the kill: then it is sent once more, as the same mail.
    assert {each["Message-ID"] for each in copies} <= {mail["Message-ID"]}
    assert DEVELOPER in mail["To"]
    assert "flaky" not in mail["Subject"]
    assert f"Repeated  build {builds[-1]['number']} failed in the same way" in body_of(mail)


def test_a_failure_that_is_known_in_the_cell_is_not_repeated_and_a_cancelled_repetition_hides_no_red(
    farm: RestartedFarm,
) -> None:
    play(farm, "fail", sentence="a third fault, which stays")
    revision = farm.commit_harmless(DEVELOPER)
    (red,) = ended(farm, revision, RED)
    assert farm.master.property(red["buildid"], REPEATED_BY) is None
    play(farm, "first-fails", then="hang", sentence="a fourth fault")
    revision = farm.commit_harmless(DEVELOPER)
    second = second_run(farm, revision)
    order(farm, f"builds/{second['buildid']}", "stop", reason="enough")
    ended(farm, revision, RED, CANCELLED)
    (mail,) = eventually(lambda: mails_about(farm, revision))
    assert DEVELOPER in mail["To"]
    assert f"Repeated  build {second['number']} cancelled" in body_of(mail)
