"""From a push to a git repository to the mail: real master, worker, server of git; only the driver is a fake."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from email.message import EmailMessage
from typing import Any

import pytest

from demo import children
from demo.farm import Farm
from demo.mailsink import body_of, read_mail
from oscar_steps.verdict import LINT
from tests.farm.support import FAKE_DRIVER, eventually, nothing_to_install
from tests.farm.test_master_with_fake_driver import force, last_build, play
from tests.farm.watching_git import GitServer
from tests.unit.git_server import Repository

ADA, BOB = "Ada <ada@home.test>", "Bob <bob@home.test>"


class FarmWithGit(Farm):
    """Subversion and git beside each other."""

    url = ""

    def _site(self, web_port: int, master_port: int) -> str:
        table = f'[[git]]\nname = "oscar"\nurl = "{self.url}"\npoll = 1\n\n[schedule]\n'
        return super()._site(web_port, master_port).replace("[schedule]\n", table)


class Developers:
    """Push to the farm's repository."""

    def __init__(self, made: Repository, server: GitServer) -> None:
        self.made, self.server, self.number = made, server, 0

    def push(self, author: str = ADA, **more: Any) -> str:
        """One more commit; its id."""
        commit = self.make(author, **more)
        self.made.git("push", "--quiet", self.server.repository.as_uri(), "main")
        return commit

    def make(self, author: str, **more: Any) -> str:
        self.number += 1
        return self.made.commit({"README": f"{self.number}\n".encode()}, author=author, **more)


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[FarmWithGit, Developers]]:
    folder = tmp_path_factory.mktemp("git")
    directory = tmp_path_factory.mktemp("farm") / "f"
    server = GitServer("daemon", folder, {**os.environ, children.MARK: f"{directory}-server"})
    try:
        developers = Developers(Repository(folder / "made.git"), server)
        developers.push()
        with nothing_to_install(tmp_path_factory.mktemp("standin")):
            farm = FarmWithGit(directory, driver=[sys.executable, str(FAKE_DRIVER)])
            farm.url = server.url
            with farm:
                log = farm.directory / "master.log"
                eventually(lambda: b"GitPoller oscar: finished polling" in log.read_bytes(), 60)
                yield farm, developers
    finally:
        server.close()


def mail_about(farm: Farm, commit: str, builder: str) -> EmailMessage:
    def found() -> EmailMessage | None:
        mails = map(read_mail, sorted((farm.directory / "mails").glob("*.eml")))
        ours = (mail for mail in mails if mail["X-Oscar-Farm-Builder"] == builder)
        return next((mail for mail in ours if commit[:12] in str(mail["Subject"])), None)

    return eventually(found, 90)


def test_a_commit_that_breaks_the_cluster_is_mailed_to_the_address_in_it(rig: tuple[FarmWithGit, Developers]) -> None:
    farm, developers = rig
    play(farm, "fail")
    commit = developers.push()
    mail = mail_about(farm, commit, farm.cell)
    assert str(mail["To"]) == "ada@home.test"
    assert f"Commit    {commit[:12]} by {ADA}: a commit" in body_of(mail)
    build = last_build(farm)
    assert farm.master.property(build["buildid"], "got_revision") == commit
    assert farm.master.property(build["buildid"], "branch") == "git/oscar/main"
    tested = farm.master.property(build["buildid"], "tested")
    assert isinstance(tested, dict) and (tested["kind"], tested["url"]) == ("git", developers.server.url)


def test_a_commit_that_does_not_compile_is_mailed_by_the_first_tier_and_installed_nowhere(
    rig: tuple[FarmWithGit, Developers],
) -> None:
    farm, developers = rig
    play(farm, "lint-fails", author=BOB)
    number = last_build(farm).get("number", 0)
    commit = developers.push(BOB)
    assert str(mail_about(farm, commit, LINT)["To"]) == "bob@home.test"
    assert last_build(farm).get("number", 0) == number


def test_a_merge_that_breaks_something_is_mailed_to_those_whose_commits_it_brought(
    rig: tuple[FarmWithGit, Developers],
) -> None:
    farm, developers = rig
    play(farm, "fail")
    before = developers.made.tip("main")
    topic = developers.make(BOB, branch="topic", parents=(before,))
    commit = developers.push(parents=(before, topic))
    mail = mail_about(farm, commit, farm.cell)
    assert sorted(str(mail["To"]).split(", ")) == ["ada@home.test", "bob@home.test"]


def test_a_person_forces_a_commit_by_the_beginning_of_its_id(rig: tuple[FarmWithGit, Developers]) -> None:
    farm, developers = rig
    play(farm, "pass")
    commit = developers.made.git("rev-parse", "main~1")
    number = last_build(farm)["number"]
    force(farm, branch="git/oscar/main", revision=commit[:9])

    def done() -> dict[str, Any] | None:
        build = last_build(farm)
        return build if build["number"] > number and build["complete"] else None

    build = eventually(done, 90)
    assert (build["results"], farm.master.property(build["buildid"], "got_revision")) == (0, commit)
