"""A cell turns red with sixteen commits in one build: the farm finds the one that did it, and says so in one mail."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from email.message import EmailMessage
from typing import Any

import httpx
import pytest

from demo.farm import USERS, Farm
from demo.mailsink import body_of, read_mail
from demo.repository import edit_readme
from oscar_steps.master.schedules.names import FIND
from tests.farm.support import FAKE_DRIVER, eventually, nothing_to_install
from tests.farm.test_master_with_fake_driver import play

COMMITS = 16
OPERATOR = "operator@"
DEVELOPERS = "developers@list.example"
OLD = "apt 1.0 amd64\nbash 1.1 amd64\ncurl 1.2 amd64\ndash 1.3 amd64\n"
NEW = OLD.replace(" 1.", " 2.")
FAILURE, SUCCESS = 2, 0


class QuietFarm(Farm):
    """A farm that waits until a branch is quiet: what is committed together is one build."""

    search = True

    def _site(self, web_port: int, master_port: int) -> str:
        site = super()._site(web_port, master_port).replace("tree_stable = 0", "tree_stable = 15")
        return site.replace("always = true", f'always = true\ndevelopers = "{DEVELOPERS}"')


@pytest.fixture(scope="module")
def farm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[QuietFarm]:
    with (
        nothing_to_install(tmp_path_factory.mktemp("standin")),
        QuietFarm(tmp_path_factory.mktemp("farm") / "f", driver=[sys.executable, str(FAKE_DRIVER)]) as farm,
    ):
        yield farm


def builds(farm: Farm) -> list[dict[str, Any]]:
    builder = farm.master._get("builders", "builders", name=farm.cell)[0]["builderid"]
    return farm.master._get(f"builders/{builder}/builds", "builds", order="buildid")


def ended(farm: Farm, number: int) -> dict[str, Any]:
    """The build of this number, when it has ended."""
    return eventually(lambda: next((b for b in builds(farm) if b["number"] == number and b["complete"]), None), 120)


def mails(farm: Farm, words: str) -> list[EmailMessage]:
    found = map(read_mail, sorted((farm.directory / "mails").glob("*.eml")))
    return [mail for mail in found if words in str(mail["Subject"])]


def committed(farm: Farm) -> list[int]:
    """Sixteen commits, by two developers in turn."""
    return [farm.repository.commit(USERS[number % 2], f"Commit {number}", edit_readme) for number in range(COMMITS)]


def kill_master(farm: Farm) -> None:
    """As a power cut would; and start it again."""
    farm.master_server.kill()
    farm.master_server.start_again()
    farm.master_server.wait_until(farm.master.answers, "serving its web page", 90)


@pytest.mark.farm
@pytest.mark.timeout(600)
def test_the_farm_finds_the_one_of_sixteen_commits_also_where_its_master_is_killed_meanwhile(farm: QuietFarm) -> None:
    play(farm, "pass")
    farm.repository.commit(USERS[0], "A good one", edit_readme)
    first = ended(farm, 1)
    assert first["results"] == SUCCESS
    revisions = committed(farm)
    culprit = revisions[10]
    play(farm, "by-revision", fail=[r for r in revisions if r >= culprit], infrastructure=[])
    assert ended(farm, 2)["results"] == FAILURE

    ended(farm, 4)
    kill_master(farm)
    [mail] = eventually(lambda: mails(farm, "broke it"), 240)

    assert f"r{culprit} ({USERS[0]}) broke it" in str(mail["Subject"])
    assert f"{USERS[0]}@" in str(mail["To"]) and OPERATOR in str(mail["To"])
    said = body_of(mail)
    assert f"r{culprit} ({USERS[0]}) did it" in said
    assert f"r{culprit - 1} passed" in said and f"r{culprit} failed" in said
    assert "rsync: read error" in said
    steps = builds(farm)[2:]
    properties = [farm.master.property(step["buildid"], "bisect") for step in steps]
    assert all(found[0] == builds(farm)[1]["buildid"] for found in properties)
    assert [found[1] for found in properties][:2] == [COMMITS, 0]
    assert len(steps) <= 2 + 4 + 1

    # None of the search's builds is in a mail of its own, and the cell's next result is compared with the red one.
    assert not [mail for mail in mails(farm, farm.cell) if mail["X-Oscar-Farm-Build"] not in ("1", "2", None)]
    play(farm, "pass")
    farm.repository.commit(USERS[1], "Mend it", edit_readme)
    [fixed] = eventually(lambda: mails(farm, ": fixed"), 120)
    assert f"{USERS[1]}@" in str(fixed["To"])
    assert len(mails(farm, "broke it")) == 1


def last_number(farm: Farm) -> int:
    return max((int(build["number"]) for build in builds(farm)), default=0)


def press(farm: Farm, **wishes: str) -> dict[str, Any]:
    """The button 'Find the commit that broke it' of the cell, as a browser presses it."""
    cell = farm.master._get("builders", "builders", name=farm.cell)[0]["builderid"]
    parameters = {"builderid": str(cell), "branch": "trunk", "revision": "", "good": "", **wishes}
    message = {"id": 1, "jsonrpc": "2.0", "method": "force", "params": parameters}
    url = f"{farm.master.base}api/v2/forceschedulers/{FIND}"
    answer: dict[str, Any] = httpx.post(url, json=message, trust_env=False, timeout=60).json()
    return answer


def commit_alone(farm: QuietFarm, author: str) -> int:
    """A commit whose build is its own; its result has to be there."""
    number = last_number(farm)
    revision = farm.repository.commit(author, "A commit alone", edit_readme)
    ended(farm, number + 1)
    return revision


@pytest.mark.farm
@pytest.mark.timeout(600)
def test_a_person_has_the_farm_find_what_broke_a_cell_that_is_red_for_long(farm: QuietFarm) -> None:
    play(farm, "pass")
    good = commit_alone(farm, USERS[0])
    play(farm, "by-revision", fail=[*range(good + 1, good + 9)], infrastructure=[])
    culprit, last = commit_alone(farm, USERS[1]), commit_alone(farm, USERS[0])
    number, told = last_number(farm), len(mails(farm, "broke it"))

    wrong = press(farm, revision=str(good))
    assert f"has no build of r{good} on trunk that failed" in wrong["error"]["message"]["revision"]
    begun = press(farm, username=USERS[0])
    assert [*begun["result"][1].values()], begun
    again = press(farm)
    assert f"a search for what broke r{last}" in again["error"]["message"]["revision"]
    assert "goes on already" in again["error"]["message"]["revision"]

    ended(farm, number + 1)
    kill_master(farm)
    eventually(lambda: len(mails(farm, "broke it")) > told, 240)
    mail = mails(farm, "broke it")[-1]
    assert f"r{culprit} ({USERS[1]}) broke it" in str(mail["Subject"])
    assert all(f"{login}@" in str(mail["To"]) for login in USERS[:2])
    assert f"as {USERS[0]} had asked" in body_of(mail)
    assert len(mails(farm, "broke it")) == told + 1

    number = last_number(farm)
    assert press(farm, good=str(culprit))["result"], "with another revision that is said to be good"
    ended(farm, number + 1)
    mail = eventually(lambda: mails(farm, "not clear")[:1], 120)[0]
    assert f"r{culprit}, which was good, shows the fault now as well" in body_of(mail)
    assert "is said to be good" in body_of(mail)


@pytest.mark.farm
@pytest.mark.timeout(600)
def test_where_a_package_did_it_no_commit_is_blamed_and_the_farm_finds_the_package(farm: QuietFarm) -> None:
    play(farm, "by-package", packages=OLD, breaks="curl 2.2 amd64")
    commit_alone(farm, USERS[0])
    play(farm, "by-package", packages=NEW, breaks="curl 2.2 amd64")
    number = last_number(farm)
    for author in USERS[:2]:
        farm.repository.commit(author, "Innocent", edit_readme)
    assert ended(farm, number + 1)["results"] == FAILURE

    ended(farm, number + 4)
    kill_master(farm)
    [mail] = eventually(lambda: mails(farm, "no commit broke it"), 240)
    assert "the package curl 1.2 -> 2.2 did it" in " ".join(str(mail["Subject"]).split())
    assert OPERATOR in str(mail["To"]) and DEVELOPERS in str(mail["To"])
    assert not any(f"{login}@" in str(mail["To"]) for login in USERS)
    said = " ".join(body_of(mail).split())
    assert "4 packages of the distribution changed" in said
    assert "the base images differ: 1 package of the distribution changed" in said
    assert "oscar-testdriver bisect-packages" in said
