"""The master is restarted in mid-build, as the operator's guide says: no commit loses its verdict."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from demo import children
from demo.farm import USERS, WORKER, Farm
from demo.mailsink import read_mail
from tests.farm.support import FAKE_DRIVER, eventually, nothing_to_install
from tests.farm.test_master_with_fake_driver import commit, hanging, mails_to, play

CHANCES = 5
_BUILDBOT = str(Path(sys.executable).parent / "buildbot")


class RestartedFarm(Farm):
    """A farm whose master runs as the operator's guide says: in the background, by `buildbot start`."""

    again = (5.0, 5.0, 5.0)

    def _serve(self, child: Any, patience: float) -> None:
        if "master" in child.name:
            # The child of the demo's own start gives way to a daemon as soon as it has made its database.
            self.foreground = child
        super()._serve(child, patience)

    def to_the_background(self) -> None:
        self._servers.remove(self.foreground)
        self.foreground.stop(30)
        self.buildbot("start")
        self._stack.callback(self.buildbot, "stop")
        eventually(lambda: self.master.answers() and self.master.has_worker(WORKER), 60)

    def buildbot(self, word: str) -> str:
        """What `buildbot WORD MASTER` prints; it must succeed."""
        # Not through pipes: the daemon would keep them open.
        said = self.directory / f"{word}.txt"
        patience = ["--start_timeout=100"] if word in ("start", "restart") else []  # on a busy machine: 10 s otherwise
        with said.open("wb") as output:
            done = subprocess.run(
                [_BUILDBOT, word, *patience, str(self.directory / "master")],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, children.MARK: str(self.directory)},
                timeout=120,
                check=False,
            )
        text = said.read_text(errors="replace")
        assert done.returncode == 0, text
        return text

    def restart(self) -> None:
        """As the guide says, also where a slow disk lets the old master need longer than `buildbot restart` waits."""
        old = self.master_pid
        try:
            self.buildbot("restart")
        except AssertionError as slow:
            if "never saw process go away" not in str(slow):
                raise
            eventually(lambda: not psutil.pid_exists(old), 60)
            self.buildbot("start")

    @property
    def master_pid(self) -> int:
        return int((self.directory / "master/twistd.pid").read_text())


@pytest.fixture(scope="module")
def farm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RestartedFarm]:
    with nothing_to_install(tmp_path_factory.mktemp("standin")):
        directory = tmp_path_factory.mktemp("farm") / "f"
        with RestartedFarm(directory, driver=[sys.executable, str(FAKE_DRIVER)]) as farm:
            farm.to_the_background()
            play(farm, "pass")
            commit(farm)
            yield farm


def builds_of_cell(farm: Farm) -> list[dict[str, Any]]:
    builder = farm.master._get("builders", "builders", name=farm.cell)[0]["builderid"]
    return farm.master._get(f"builders/{builder}/builds", "builds", order="buildid")


def test_a_restart_in_mid_build_ends_in_time_and_the_build_begins_again_more_often_than_a_worker_may_be_lost(
    farm: RestartedFarm,
) -> None:
    build = hanging(farm)
    first = len(builds_of_cell(farm)) - 1
    for times in range(1, CHANCES + 1):
        before = farm.master_pid
        if times == CHANCES:
            play(farm, "pass")
        said = farm.buildbot("restart")
        assert "never saw process go away" not in said
        assert farm.master_pid != before
        assert not psutil.pid_exists(before)

        def again(times: int = times) -> dict[str, Any] | None:
            builds = builds_of_cell(farm)[first:]
            if len(builds) <= times:
                return None
            run = farm.master.property(builds[times]["buildid"], "run_id")
            begun = run and (farm.runs / run / "hanging").exists()
            return builds[times] if builds[times]["complete"] or begun else None

        build = eventually(again, 90)
    build = eventually(lambda: next((b for b in builds_of_cell(farm)[first:] if b["results"] == 0), None), 90)
    revision = farm.master.property(build["buildid"], "got_revision")
    results = [each["results"] for each in builds_of_cell(farm)[first:]]
    assert results == [5] * CHANCES + [0], "each interrupted build is 'retry', and the last one is the verdict"

    def told() -> list[str]:
        mails = map(read_mail, sorted((farm.directory / "mails").glob("*.eml")))
        return [f"{mail['To']} {mail['Subject']}" for mail in mails if f"r{revision}:" in str(mail["Subject"])]

    eventually(told)
    assert len(told()) == 1 and USERS[1] in told()[0] and "passed" in told()[0]


def test_a_reconfiguration_in_mid_build_leaves_the_build_alone(farm: RestartedFarm) -> None:
    build = hanging(farm)
    farm.buildbot("reconfig")
    number = len(builds_of_cell(farm))
    assert not farm.master.build(build["buildid"]).complete
    run = farm.master.property(build["buildid"], "run_id")
    play(farm, "pass")
    os.kill(int((farm.runs / run / "hanging").read_text()), 15)
    done = eventually(lambda: farm.master.build(build["buildid"]).complete and farm.master.build(build["buildid"]))
    assert done.results is not None
    assert len(builds_of_cell(farm)) == number


def test_a_commit_that_the_farm_failed_is_tried_again_over_a_restart_and_its_author_hears_the_true_result(
    farm: RestartedFarm,
) -> None:
    play(farm, "infrastructure")
    first = len(builds_of_cell(farm))
    operator = len(mails_to(farm, "operator"))
    revision = farm.commit_harmless(USERS[1])

    def purple() -> bool:
        builds = builds_of_cell(farm)
        return len(builds) > first and all(build["complete"] for build in builds[first:])

    eventually(purple, 90)
    play(farm, "fail")
    farm.restart()

    def red() -> dict[str, Any] | None:
        return next((build for build in builds_of_cell(farm)[first:] if build["results"] == 2), None)

    build = eventually(red, 120)
    assert farm.master.property(build["buildid"], "got_revision") == str(revision)
    results = [each["results"] for each in builds_of_cell(farm)[first:]]
    assert results[-1] == 2
    assert set(results[:-1]) == {4}
    eventually(lambda: [subject for subject in mails_to(farm, USERS[1]) if f"r{revision}: failed" in subject])
    assert len([subject for subject in mails_to(farm, USERS[1]) if f"r{revision}:" in subject]) == 1
    assert len(mails_to(farm, "operator")) == operator + 1, "the operator hears of the first of them"
