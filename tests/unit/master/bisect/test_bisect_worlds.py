"""Where no commit did it: the farm names the recipe, itself, or the package. The database is a stand-in, in memory."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from buildbot.process.results import EXCEPTION, FAILURE, SUCCESS
from hypothesis import given
from hypothesis import strategies as st

from oscar_steps.bisect.images import Images
from oscar_steps.bisect.search import LIMIT
from oscar_steps.job import JOB_FILE
from oscar_steps.manifest import MANIFEST_FILE, digest
from oscar_steps.master.bisect.case import Case
from oscar_steps.master.bisect.letter import _elsewhere
from oscar_steps.master.bisect.service import PRIORITY
from oscar_steps.master.bisect.worlds import Elsewhere, Worlds
from oscar_steps.master.history.record import FARM, NOT_COUNTED, RECIPE
from oscar_steps.master.schedules.names import IMAGE_WANTED, ONLY_ON
from oscar_steps.master.web.run_files import RUNS
from oscar_steps.sources.source import External, Source
from oscar_steps.verdict import Category, Outcome, Stage, Verdict
from tests.unit.master.bisect.test_bisect_service import (
    BAD,
    GOOD,
    RED,
    FakeMaster,
    finished,
    result,
    searched,
    verdict,
)
from tests.unit.testdriver.record.test_verdict import make_job

OLD_IMAGE, NEW_IMAGE = "a" * 64, "b" * 64
NAMES = ("apt", "bash", "curl", "dash")
OLD = "".join(f"{name} 1.{number} amd64\n" for number, name in enumerate(NAMES))
NEW = "".join(f"{name} 2.{number} amd64\n" for number, name in enumerate(NAMES))
GOOD_BUILD = 40
Wanted = dict[str, Any]


def image(key: str, packages: str) -> dict[str, str]:
    return {"key": key, "manifest": digest(packages)}


class Farm(FakeMaster):
    """Its last good build had the old image; every revision fails on the new one. `bad`: which images are."""

    def __init__(self, folder: Path, *, packages: str = NEW, key: str = NEW_IMAGE, **now: str) -> None:
        super().__init__(folder)
        self.new, self.tested = image(key, packages), None
        self.results = [result(GOOD_BUILD, "passed", image=OLD_IMAGE)]
        good = verdict(GOOD, Outcome.PASSED, run_id="cell-r100-b40", image=image(OLD_IMAGE, OLD))
        self.said[GOOD_BUILD] = {"verdict": good, RECIPE: "recipe", FARM: "farm", "workername": "w1"}
        self.now = {RECIPE: "recipe", FARM: "farm", "workername": "w2", **now}
        self.keep("cell-r100-b40", OLD)
        self.keep(f"cell-r{GOOD}", packages)

    def externals(self, then: str, now: str) -> None:
        """The last good build, and each of today, had the external at these revisions."""
        source = Source(url="svn://h/trunk", revision=str(GOOD))
        one = External(path="vendor", url="svn://h/vendor", revision=then)
        self.said[GOOD_BUILD]["verdict"]["tested"] = source.model_copy(update={"externals": (one,)}).model_dump()
        other = one.model_copy(update={"revision": now})
        self.tested = source.model_copy(update={"externals": (other,)}).model_dump()

    def keep(self, run_id: str, packages: str) -> None:
        folder = Path(self.basedir) / RUNS / run_id
        folder.mkdir(parents=True)
        (folder / MANIFEST_FILE).write_text(packages)

    @property
    def images(self) -> list[Wanted]:
        """Those that were asked for."""
        return [each["properties"][IMAGE_WANTED][0] for each in self.asked if IMAGE_WANTED in each["properties"]]

    def search(self, is_bad: Callable[[Wanted], bool] = lambda _: True) -> tuple[str, str, list[str]]:
        """Subject, text and logins of the one mail at the end."""

        def run(revision: int) -> tuple[int, dict[str, Any]]:
            wanted = self.asked[-1]["properties"].get(IMAGE_WANTED, ({},))[0]
            on = image(wanted["image_key"], "") if wanted else self.new
            if wanted and not is_bad(wanted):
                return SUCCESS, verdict(revision, Outcome.PASSED, image=on)
            return FAILURE, verdict(revision, Outcome.FAILED, image=on, tested=self.tested)

        searched(self, run)
        [(_, subject, text, logins)] = self.mails
        return subject, text, logins


def test_where_only_the_farm_differs_it_is_named_without_a_search(tmp_path: Path) -> None:
    farm = Farm(tmp_path, packages=OLD, key=OLD_IMAGE, farm="another")
    subject, text, logins = farm.search()
    assert subject == "cell: no commit broke it: the farm's own version or settings did it"
    assert logins == [] and not farm.developers
    assert len(farm.asked) == 2
    assert "shows the fault now as well" in text and "r100 passed" in text and "r100 failed" in text


def test_the_mail_says_which_setting_of_the_farm_differs(tmp_path: Path) -> None:
    farm = Farm(tmp_path, packages=OLD, key=OLD_IMAGE, farm="another")
    for run_id, nodes in (("cell-r100-b40", 2), (f"cell-r{GOOD}", 4)):
        make_job().model_copy(update={"nodes": nodes}).save(Path(farm.basedir) / RUNS / run_id / JOB_FILE)
    assert "the job's nodes: 2, then 4" in farm.search()[1]


def test_where_only_the_recipe_differs_it_is_named_without_a_search(tmp_path: Path) -> None:
    farm = Farm(tmp_path, packages=OLD, recipe="another")
    assert farm.search()[0] == "cell: no commit broke it: the recipe of the base image did it"
    assert farm.images == []


def test_where_only_an_external_differs_it_is_named_without_a_search(tmp_path: Path) -> None:
    farm = Farm(tmp_path, packages=OLD, key=OLD_IMAGE)
    farm.externals("4", "5")
    subject, text, logins = farm.search()
    assert subject == "cell: no commit broke it: what svn:externals bring did it"
    assert logins == [] and farm.images == []
    assert "the externals: + vendor from svn://h/vendor@5, - vendor from svn://h/vendor@4" in text


def test_where_the_old_image_fails_with_another_external_the_external_did_it(tmp_path: Path) -> None:
    farm = Farm(tmp_path)
    farm.externals("4", "5")
    assert farm.search()[0].endswith("what svn:externals bring did it: the old image shows it now as well")
    farm = Farm(tmp_path / "both", farm="another")
    farm.externals("4", "5")
    said = "one of these did it: the farm's own version or settings, what svn:externals bring"
    assert f"{said}: the old image shows it now as well" in farm.search()[1]


def test_where_nothing_differs_nobody_is_named(tmp_path: Path) -> None:
    subject, text, logins = Farm(tmp_path, packages=OLD, key=OLD_IMAGE).search()
    assert "not clear" in subject and logins == []
    assert "neither packages, recipe, the farm nor externals differ" in text


def test_the_package_that_did_it_is_found_on_the_worker_that_has_the_old_image(tmp_path: Path) -> None:
    farm = Farm(tmp_path)
    subject, text, logins = farm.search(lambda wanted: "curl" in wanted["image_versions"])
    assert subject == "cell: no commit broke it: the package curl 1.2 -> 2.2 did it"
    assert logins == [] and farm.developers
    assert "4 packages of the distribution changed" in text
    assert f"r{GOOD} on the image {OLD_IMAGE[:12]} with all up to bash 1.1 -> 2.1 passed" in text
    assert farm.images[0] == {"image_key": OLD_IMAGE, "image_versions": {}}
    assert {"image_key": OLD_IMAGE, "image_versions": {"apt": "2.0", "bash": "2.1"}} in farm.images
    for asked in farm.asked[2:]:
        assert asked["properties"][ONLY_ON] == ("w1", "Bisect")
        assert asked["properties"][NOT_COUNTED] == (True, "Bisect")
        assert asked["priority"] == PRIORITY
        assert asked["sourcestamps"][0]["revision"] == str(GOOD)
    assert len(farm.asked) <= 2 + 1 + 3


def test_the_command_for_a_person_reads_git_from_where_it_is() -> None:
    commit, url = "a" * 40, "https://git.example.org/oscar"
    red = Verdict.model_validate(verdict(BAD, Outcome.FAILED))
    good = replace(result(GOOD_BUILD, "passed"), url=url, revision=commit)
    case = Case(1, 1, "cell", 1, red, good, (), {"branch": "git/oscar/main"}, {})
    images = Images(OLD_IMAGE, NEW_IMAGE, ())
    text = "\n".join(_elsewhere(Elsewhere(Worlds(images=images, worker="w1")), case))
    assert "on the worker w1: " in text
    assert f"--cell cell --url {url} --git --revision {commit}" in text


def test_where_the_old_image_fails_today_as_well_the_farm_did_it(tmp_path: Path) -> None:
    farm = Farm(tmp_path, farm="another")
    subject, text, _ = farm.search()
    assert subject.endswith("the farm's own version or settings did it: the old image shows it now as well")
    assert len(farm.images) == 1 and not farm.developers
    assert "the distribution's packages, the farm's own version or settings" in " ".join(text.split())


def test_where_recipe_and_farm_differ_one_run_on_the_old_image_tells(tmp_path: Path) -> None:
    farm = Farm(tmp_path, packages=OLD, recipe="another", farm="another")
    assert "the recipe of the base image did it" in farm.search(lambda _: False)[0]
    assert farm.images == [{"image_key": OLD_IMAGE, "image_versions": {}}]


def test_where_the_old_image_is_gone_the_mail_says_what_differs(tmp_path: Path) -> None:
    farm = Farm(tmp_path)

    def run(revision: int) -> tuple[int, dict[str, Any]]:
        if IMAGE_WANTED in farm.asked[-1]["properties"]:
            sentence, stage = f"there is no image {OLD_IMAGE[:12]}", Stage.CREATE_IMAGE
            gone = {"category": Category.HOST, "sentence": sentence, "stage": stage}
            return EXCEPTION, verdict(revision, Outcome.INFRASTRUCTURE, **gone)
        return FAILURE, verdict(revision, Outcome.FAILED, image=farm.new)

    searched(farm, run)
    [(_, _, text, logins)] = farm.mails
    assert f"the old image cannot be used any more: there is no image {OLD_IMAGE[:12]}" in text
    assert "apt 1.0 -> 2.0" in text
    assert logins == [] and len(farm.images) == 2


def test_where_the_mirror_has_the_new_versions_no_more_the_search_ends_soon(tmp_path: Path) -> None:
    names = [f"p{number}" for number in range(40)]
    new = "".join(f"{name} 2.{n} all\n" for n, name in enumerate(names))
    farm = Farm(tmp_path, packages=new)
    listed = Path(farm.basedir) / RUNS / "cell-r100-b40" / MANIFEST_FILE
    listed.write_text("".join(f"{name} 1.{n} all\n" for n, name in enumerate(names)))

    def run(revision: int) -> tuple[int, dict[str, Any]]:
        wanted = farm.asked[-1]["properties"].get(IMAGE_WANTED, ({},))[0]
        if wanted.get("image_versions"):
            facts = {"image_failed": True, "category": Category.HOST, "sentence": "apt has no p1 2.1"}
            return EXCEPTION, verdict(revision, Outcome.INFRASTRUCTURE, **facts)
        if wanted and wanted["image_key"] == OLD_IMAGE:
            return SUCCESS, verdict(revision, Outcome.PASSED, image=image(OLD_IMAGE, OLD))
        return FAILURE, verdict(revision, Outcome.FAILED, image=farm.new)

    searched(farm, run)
    [(_, subject, text, _)] = farm.mails
    assert "the distribution's packages did it" in subject
    assert "8 images could not be made; of the last one: apt has no p1 2.1" in text
    assert len(farm.images) == 9


@pytest.mark.parametrize("why", ["worker", "lists"])
def test_where_no_search_is_possible_the_packages_are_named_together_and_why(tmp_path: Path, why: str) -> None:
    farm = Farm(tmp_path)
    if why == "worker":
        farm.workers = [{"name": "w2"}]
    else:
        (Path(farm.basedir) / RUNS / "cell-r100-b40" / MANIFEST_FILE).unlink()
    subject, text, logins = farm.search()
    assert subject == "cell: no commit broke it: the distribution's packages did it"
    assert logins == [] and farm.developers and farm.images == []
    said = {"worker": "the worker w1, which had the old image, does not run", "lists": "were not kept"}
    assert said[why] in text


def test_the_lists_of_packages_may_go_while_a_search_goes_on(tmp_path: Path) -> None:
    farm = Farm(tmp_path)

    def is_bad(wanted: Wanted) -> bool:
        for path in (Path(farm.basedir) / RUNS).glob(f"*/{MANIFEST_FILE}"):
            path.unlink()
        return "dash" in wanted["image_versions"]

    assert "the package dash 1.3 -> 2.3 did it" in farm.search(is_bad)[0]


def test_a_commit_that_did_it_is_told_as_ever(tmp_path: Path) -> None:
    farm = Farm(tmp_path, farm="another")
    finished(farm, RED)
    searched(
        farm,
        lambda revision: (
            (FAILURE, verdict(revision, Outcome.FAILED))
            if revision == BAD
            else (SUCCESS, verdict(revision, Outcome.PASSED))
        ),
    )
    assert [logins for _, _, _, logins in farm.mails] == [[f"dev{BAD}"]]


KINDS = ("good", "bad", "other", "lost", "not made")


@given(st.integers(0, len(NAMES) + 2), st.dictionaries(st.integers(0, 5), st.sampled_from(KINDS)), st.randoms())
def test_whatever_the_images_say_a_search_ends_with_one_mail_that_names_a_package_only_where_two_images_say_so(
    tmp_path_factory: pytest.TempPathFactory, culprit: int, odd: dict[int, str], chance: random.Random
) -> None:
    farm = Farm(tmp_path_factory.mktemp("farm"), farm=chance.choice(["farm", "another"]))
    said = dict[int, list[str]]()

    def run(revision: int) -> tuple[int, dict[str, Any]]:
        wanted = farm.asked[-1]["properties"].get(IMAGE_WANTED, ({},))[0]
        if not wanted:
            return FAILURE, verdict(revision, Outcome.FAILED, image=farm.new)
        place = len(wanted["image_versions"]) if wanted["image_key"] == OLD_IMAGE else len(NAMES) + 1
        kind = odd.get(place, "") if chance.random() < 0.9 else chance.choice(KINDS)
        kind = kind or ("bad" if place >= culprit else "good")
        said.setdefault(place, []).append(kind)
        lost = {"category": Category.HOST, "stage": Stage.CREATE_IMAGE}
        return {
            "good": (SUCCESS, verdict(revision, Outcome.PASSED)),
            "bad": (FAILURE, verdict(revision, Outcome.FAILED)),
            "other": (FAILURE, verdict(revision, Outcome.FAILED, "it does not compile")),
            "lost": (EXCEPTION, verdict(revision, Outcome.INFRASTRUCTURE, "no room", **lost)),
            "not made": (EXCEPTION, verdict(revision, Outcome.INFRASTRUCTURE, "apt", image_failed=True, **lost)),
        }[kind]

    searched(farm, run, LIMIT + 3)
    assert len(farm.asked) <= LIMIT + 2
    [(_, subject, _, logins)] = farm.mails
    assert logins == []
    for place, name in enumerate(NAMES, 1):
        if f"the package {name} " in subject:
            assert "bad" in said[place] and "good" in said[place - 1]
    if "settings did it" in subject:
        assert "bad" in said[0]
