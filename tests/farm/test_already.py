"""Nothing is installed for nothing: nights in which nothing has changed, and commits that are judged already."""

from __future__ import annotations

import json
import shutil
import sqlite3
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from demo.farm import CHECKOUT, USERS, Farm
from demo.mailsink import body_of, read_mail
from oscar_steps.master.schedules.names import NIGHTLY
from tests.farm.support import FAKE_DRIVER, eventually, nothing_to_install
from tests.farm.test_master_with_fake_driver import SKIPPED, commit, order, play
from tests.farm.test_restarts import RestartedFarm, builds_of_cell

AUTHOR, DEVELOPER = USERS
SUCCESS, FAILURE = 0, 2
MONDAY, TUESDAY = "a" * 64, "b" * 64
"""Keys of the base image, by the packages of the day."""
DAY = 86400.0


class NightFarm(RestartedFarm):
    """Its night is an hour ago: a master that starts makes up for it where it has had none since."""

    def __init__(self, directory: Path, folder: Path) -> None:
        self.profiles = folder / "profiles"
        shutil.copytree(CHECKOUT / "profiles", self.profiles)
        matrix = self.profiles / "matrix.toml"
        text = matrix.read_text().replace('defaults.labels = ["nightly"]', "defaults.labels = []")
        matrix.write_text(text)
        super().__init__(directory, driver=[sys.executable, str(FAKE_DRIVER)])

    def _site(self, web_port: int, master_port: int) -> str:
        self.at = datetime.now() - timedelta(hours=1)
        hour = f'hour = {self.at.hour}\nminute = {self.at.minute}\nnightly = "changes"\n'
        return super()._site(web_port, master_port).replace("[schedule]\n", f"[schedule]\n{hour}")

    def ask(self, *queries: str, **values: Any) -> list[Any]:
        """Ask the database of a master that is off."""
        rows: list[Any] = []
        with closing(sqlite3.connect(self.directory / "master/state.sqlite")) as database:
            for query in queries:
                rows = database.execute(query, values).fetchall()
            database.commit()
        return rows

    def night(self) -> dict[str, Any]:
        """A night passes; the cell's build of it when it has ended."""
        before = len(builds_of_cell(self))
        self.buildbot("stop")
        last = json.dumps(self.at.timestamp() - DAY)
        for name in ("last_build", "night_done"):
            self.ask(
                "DELETE FROM object_state WHERE name = :name AND objectid IN (SELECT id FROM objects WHERE name = :by)",
                "INSERT INTO object_state (objectid, name, value_json) SELECT id, :name, :last FROM objects "
                "WHERE name = :by",
                by=NIGHTLY,
                name=name,
                last=last,
            )
        self.buildbot("start")
        return self.ended(before + 1)

    def ended(self, number: int) -> dict[str, Any]:
        """The cell's last build as soon as it has so many, all of which have ended."""

        def found() -> dict[str, Any] | None:
            builds = builds_of_cell(self)
            return builds[-1] if len(builds) == number and all(build["complete"] for build in builds) else None

        return eventually(found, 90)

    def delivered_again(self, revision: int, author: str) -> dict[str, Any]:
        """The commit is stored once more while the master is off; the cell's build of it."""
        before = len(builds_of_cell(self))
        self.buildbot("stop")
        ((old,), *_) = self.ask("SELECT changeid FROM changes WHERE revision = :it", it=str(revision))
        columns = [row[1] for row in self.ask("PRAGMA table_info(changes)")]
        taken = {"changeid": "(SELECT MAX(changeid) + 1 FROM changes)", "author": ":author"}
        values = ", ".join(taken.get(column, column) for column in columns)
        query = f"INSERT INTO changes ({', '.join(columns)}) SELECT {values} FROM changes WHERE changeid = :old"
        self.ask(query, author=author, old=old)
        self.buildbot("start")
        return self.ended(before + 1)

    def mails_about(self, revision: int) -> list[Any]:
        mails = map(read_mail, sorted((self.directory / "mails").glob("*.eml")))
        return [mail for mail in mails if f"{self.cell} r{revision}:" in " ".join(str(mail["Subject"]).split())]

    def state_of(self, build: dict[str, Any]) -> str:
        return str(build["state_string"])


@pytest.fixture(scope="module")
def farm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NightFarm]:
    with nothing_to_install(tmp_path_factory.mktemp("standin")):
        directory = tmp_path_factory.mktemp("farm") / "f"
        with NightFarm(directory, tmp_path_factory.mktemp("profiles")) as farm:
            farm.to_the_background()
            play(farm, "pass", image=MONDAY)
            yield farm


def ran(farm: Farm, build: dict[str, Any]) -> bool:
    """Whether a cluster was installed."""
    steps = {step["name"]: step["results"] for step in farm.master.steps(build["buildid"])}
    return bool(steps["boot-headnode"] != SKIPPED)


def test_a_night_in_which_neither_commits_nor_packages_nor_the_farm_have_changed_is_left_out(farm: NightFarm) -> None:
    first = farm.night()
    assert (first["results"], ran(farm, first)) == (SUCCESS, True)
    quiet = farm.night()
    assert quiet["results"] == SKIPPED
    assert farm.state_of(quiet) == f"nothing changed since build {first['number']} (passed)"
    assert not list(farm.runs.glob(f"*-b{quiet['number']}")), "it keeps no run directory"
    began, ended = quiet["started_at"], quiet["complete_at"]
    assert ended - began < 20
    play(farm, "pass", image=TUESDAY)
    other = farm.night()
    assert (other["results"], ran(farm, other)) == (SUCCESS, True)
    also_quiet = farm.night()
    assert also_quiet["results"] == SKIPPED
    done = commit(farm)
    about = {read_mail(path)["X-Oscar-Farm-Build"] for path in (farm.directory / "mails").glob("*.eml")}
    assert done.mail and str(other["number"]) in about
    assert not {str(quiet["number"]), str(also_quiet["number"])} & about, "nobody gets a mail about a quiet night"


def test_a_night_after_a_commit_and_one_whose_mirror_is_away_are_tested(farm: NightFarm) -> None:
    play(farm, "pass", image=TUESDAY)
    number = len(builds_of_cell(farm))
    done = commit(farm)
    assert done.build.result_name == "success"
    farm.ended(number + 1)
    assert ran(farm, farm.night())
    assert farm.night()["results"] == SKIPPED
    play(farm, "pass")
    away = farm.night()
    assert (away["results"], ran(farm, away)) == (SUCCESS, True)
    steps = {step["name"]: step["state_string"] for step in farm.master.steps(away["buildid"])}
    assert steps["already tested"] == "the packages of today are not known, so the cell is tested"


def test_a_commit_that_is_delivered_twice_is_judged_once_and_a_new_author_hears_of_its_red(farm: NightFarm) -> None:
    play(farm, "fail", image=TUESDAY)
    number = len(builds_of_cell(farm))
    revision = farm.commit_harmless(DEVELOPER)
    red = farm.ended(number + 1)
    eventually(lambda: farm.mails_about(revision))
    again = farm.delivered_again(revision, DEVELOPER)
    assert (again["results"], ran(farm, again)) == (FAILURE, False)
    assert farm.state_of(again).endswith(f"this was tested already, by build {red['number']}, with the same packages")
    other = farm.delivered_again(revision, AUTHOR)
    assert (other["results"], ran(farm, other)) == (FAILURE, False)
    (first, second) = eventually(lambda: found if len(found := farm.mails_about(revision)) > 1 else None)
    assert (DEVELOPER in first["To"], second["To"]) == (True, f"{AUTHOR}@oscar.test")
    assert f"this was tested already, by build {red['number']}" in body_of(second)
    assert f"/plugins/runs/{farm.master.property(red['buildid'], 'run_id')}/" in body_of(second)


def test_a_build_that_a_person_wants_again_is_tested_again(farm: NightFarm) -> None:
    play(farm, "pass", image=TUESDAY)
    number = len(builds_of_cell(farm))
    last = builds_of_cell(farm)[-1]
    order(farm, f"builds/{last['buildid']}", "rebuild")
    build = farm.ended(number + 1)
    assert (build["results"], ran(farm, build)) == (SUCCESS, True)


def test_where_the_packages_differ_or_red_and_green_are_known_a_commit_is_tested_again(farm: NightFarm) -> None:
    play(farm, "pass", image=MONDAY)
    number = len(builds_of_cell(farm))
    revision = farm.commit_harmless(DEVELOPER)
    farm.ended(number + 1)
    play(farm, "fail", image=TUESDAY)
    build = farm.delivered_again(revision, DEVELOPER)
    assert (build["results"], ran(farm, build)) == (FAILURE, True)
    play(farm, "pass", image=TUESDAY)
    order(farm, f"builds/{build['buildid']}", "rebuild")
    farm.ended(number + 3)
    flaky = farm.delivered_again(revision, DEVELOPER)
    assert (flaky["results"], ran(farm, flaky)) == (SUCCESS, True)
    assert time.time() - flaky["complete_at"] < 300
