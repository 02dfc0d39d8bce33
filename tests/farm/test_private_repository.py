"""A repository that nobody reads without a password: commits are tested, with their externals, and no one sees it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from demo.children import run
from demo.farm import USERS, Farm
from oscar_steps.sources.source import Source
from tests.farm.support import FAKE_DRIVER, nothing_to_install

SECRET = "a-secret-of-the-repository-0123456789"


class Private(Farm):
    """A farm with a login, at a server that lets nobody else read."""

    def _site(self, web_port: int, master_port: int) -> str:
        conf = self.directory / "svn/oscar/conf"
        (conf / "svnserve.conf").write_text("[general]\nanon-access = none\npassword-db = passwd\n")
        (conf / "passwd").write_text(f"[users]\nfarm = {SECRET}\n")
        secret = self.directory / "master/secrets/svn-password"
        secret.touch(mode=0o600)
        secret.write_text(f"{SECRET}\n")
        return super()._site(web_port, master_port).replace("poll = ", 'user = "farm"\npoll = ', 1)

    def commit_externals(self, user: str) -> int:
        """Commit svn:externals of the trunk; its revision. By the repository's folder: that asks for no password."""
        url, copy = (self.directory / "svn/oscar").as_uri(), self.directory / "copy"
        run("svn", "mkdir", "--quiet", "-m", "shared", f"{url}/tags/shared")
        run("svn", "checkout", "--quiet", f"{url}/trunk", copy)
        run("svn", "propset", "--quiet", "svn:externals", "^/tags/shared ext", copy)
        run("svn", "commit", "--quiet", "--username", user, "-m", "externals", copy)
        return int(run("svn", "info", "--show-item", "last-changed-revision", "--no-newline", f"{url}/trunk"))


@pytest.fixture
def farm(tmp_path: Path) -> Iterator[Private]:
    (tmp_path / "standin").mkdir()
    with (
        nothing_to_install(tmp_path / "standin"),
        Private(tmp_path / "f", driver=[sys.executable, str(FAKE_DRIVER)]) as farm,
    ):
        yield farm


def test_a_commit_is_tested_with_its_externals_and_the_password_is_in_no_file_of_the_farm(farm: Private) -> None:
    (farm.directory / "scenario").write_text('{"play": "pass", "stage": "wait-nodes"}')
    revision = farm.commit_externals(USERS[1])
    done = farm.follow(revision, USERS[1], lambda _line: None, seconds=90)
    assert done.build.result_name == "success" and done.mail is not None
    tested = Source.model_validate(farm.master.property(done.build.build_id, "tested"))
    url = farm.repository.url
    assert [str(each) for each in tested.externals] == [f"ext from {url}/tags/shared@{revision - 1}"]
    assert list(farm.runs.rglob("job.json"))
    kept = {farm.directory / "svn/oscar/conf/passwd", farm.directory / "master/secrets/svn-password"}
    files = {path for path in farm.directory.rglob("*") if path.is_file()} - kept
    assert {path.name for path in files} >= {"master.log", "worker.log", "state.sqlite"}
    assert [path for path in files if SECRET.encode() in path.read_bytes()] == []
