"""The operator's guide on backup and restore: its own commands, with a master that is killed and wiped in between."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from demo.farm import USERS, WORKER, Farm
from demo.mailsink import read_mail
from tests.farm.support import FAKE_DRIVER, eventually, nothing_to_install
from tests.farm.test_master_with_fake_driver import commit, hanging, play
from tests.farm.test_operator_guide import blocks

DEVELOPER = USERS[1]


class SavedFarm(Farm):
    """A farm that is saved and restored as the guide says, but in its own folder, and as the user of this test."""

    busy = "each"  # each commit has a report of its own

    def follow_the_guide(self, section: str) -> str:
        """Type the blocks of a section; what they print."""
        text = "".join(blocks("docs/operator-guide.md", section))
        for old, new in (
            ("/var/lib/oscar-farm/", f"{self.directory}/"),
            ("/opt/oscar-farm/.venv/bin/", f"{Path(sys.executable).parent}/"),
            ("setpriv --reuid oscar-farm --regid oscar-farm --init-groups ", ""),
            ("install -d -o oscar-farm -g oscar-farm ", "install -d "),
        ):
            assert old in text, f"the guide does not say {old!r} any more"
            text = text.replace(old, new)
        done = subprocess.run(["sh", "-e"], input=text, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def save(self) -> None:
        assert self.follow_the_guide("Make a backup").splitlines()[-1] == "ok"

    def stop_the_master(self) -> None:
        """As `kill -9` does."""
        self._servers.remove(self.master_server)
        self.master_server.kill()

    def start_the_master(self) -> None:
        child = self._twistd("the Buildbot master", self.directory / "master", self.directory / "master.log")
        self.master_server = child
        self._serve(child, 15)
        child.wait_until(lambda: self.master.answers() and self.master.has_worker(WORKER), "going on", 120)

    def lose_the_master(self) -> None:
        """Its machine burns down."""
        self.stop_the_master()
        shutil.rmtree(self.directory / "master")

    def spooled(self) -> list[Path]:
        return list((self.directory / "master/spool").glob("*.mail"))

    def wait_for_an_empty_spool(self) -> None:
        """The relay has a mail a moment before the master knows."""
        eventually(lambda: not self.spooled(), 60)

    def reports(self, revision: int) -> list[str]:
        """The identities of the mails about a revision."""
        mails = map(read_mail, sorted((self.directory / "mails").glob("*.eml")))
        return [str(mail["Message-ID"]) for mail in mails if f"r{revision}:" in str(mail["Subject"])]

    def builds(self, revision: int) -> int:
        """How many builds of the cell with a result the master knows of this revision."""
        number = 0
        for change in self.master._get("changes", "changes", revision=str(revision)):
            builder = self.master._get("builders", "builders", name=self.cell)[0]["builderid"]
            found = self.master._get(f"changes/{change['changeid']}/builds", "builds")
            number += sum(1 for build in found if build["builderid"] == builder and build["results"] == 0)
        return number


@pytest.fixture
def farm(tmp_path: Path) -> Iterator[SavedFarm]:
    (tmp_path / "standin").mkdir()
    with (
        nothing_to_install(tmp_path / "standin"),
        SavedFarm(tmp_path / "f", driver=[sys.executable, str(FAKE_DRIVER)]) as farm,
    ):
        play(farm, "pass")
        yield farm


def test_what_ended_before_the_backup_or_came_after_the_loss_is_tested_and_reported_once(farm: SavedFarm) -> None:
    before = commit(farm).revision
    farm.wait_for_an_empty_spool()
    farm.save()
    between = commit(farm).revision
    farm.lose_the_master()
    meanwhile = farm.commit_harmless(DEVELOPER)
    farm.follow_the_guide("Restore it")
    # As the guide says for those who know that everything up to here has its result.
    (farm.directory / "master/svn-last-revision").write_text(f"{between}\n")
    farm.start_the_master()
    eventually(lambda: farm.reports(meanwhile), 90)
    after = commit(farm).revision
    revisions = (before, between, meanwhile, after)
    assert [len(farm.reports(revision)) for revision in revisions] == [1, 1, 1, 1]
    assert [farm.builds(revision) for revision in revisions] == [1, 0, 1, 1], "the build in between was with the master"


def test_what_happened_between_backup_and_loss_happens_once_more_and_nothing_is_lost(farm: SavedFarm) -> None:
    ended = commit(farm).revision
    farm.wait_for_an_empty_spool()
    farm.mails.close()  # the relay is away: this commit's mail waits in the spool
    waiting = farm.commit_harmless(DEVELOPER)
    eventually(lambda: farm.builds(waiting) and farm.spooled(), 90)
    running = int(farm.master.property(hanging(farm)["buildid"], "exact_revision"))
    farm.save()
    farm.mails.reopen()
    play(farm, "pass")
    farm.stop_the_master()
    farm.start_the_master()  # the build that was running begins again
    after = commit(farm).revision
    eventually(lambda: farm.reports(waiting) and farm.reports(running), 90)
    farm.lose_the_master()
    farm.follow_the_guide("Restore it")
    farm.start_the_master()
    last = commit(farm).revision
    eventually(lambda: all(len(farm.reports(revision)) > 1 for revision in (waiting, running, after)), 90)
    reports = [farm.reports(revision) for revision in (ended, waiting, running, after, last)]
    assert [len(mails) for mails in reports] == [1, 2, 2, 2, 1]
    assert [len(set(mails)) for mails in reports] == [1, 1, 2, 2, 1], "a mail of the spool is the same mail"
    assert [farm.builds(revision) for revision in (ended, waiting, running, after, last)] == [1, 1, 1, 1, 1]
