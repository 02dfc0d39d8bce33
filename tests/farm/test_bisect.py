"""A cell turns red with sixteen commits in one build: the farm finds the one that did it, and says so in one mail."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from email.message import EmailMessage
from typing import Any

import pytest

from demo.farm import USERS, Farm
from demo.mailsink import body_of, read_mail
from demo.repository import edit_readme
from tests.farm.support import FAKE_DRIVER, eventually, nothing_to_install
from tests.farm.test_master_with_fake_driver import play

COMMITS = 16
OPERATOR = "operator@"
FAILURE, SUCCESS = 2, 0


class QuietFarm(Farm):
    """A farm that waits until a branch is quiet: what is committed together is one build."""

    search = True

    def _site(self, web_port: int, master_port: int) -> str:
        return super()._site(web_port, master_port).replace("tree_stable = 0", "tree_stable = 15")


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
