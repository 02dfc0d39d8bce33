"""A whole history of git, with all that developers do to a repository, is seen commit by commit by a real master."""

from __future__ import annotations

import os
from collections import defaultdict
from pathlib import Path

import pytest

from demo import children
from demo.mailsink import read_mail
from tests.farm.generated_git import Generated, generate
from tests.farm.support import eventually
from tests.farm.watching_git import GitServer, WatchingGit

FIRST, KILLED, DOWN, AWAY = 2, 90, 130, 200
"""The pushes before the master's first look, before it is killed, before it starts again, before the server goes."""


@pytest.fixture
def made(tmp_path: Path) -> Generated:
    return generate(tmp_path)


@pytest.mark.parametrize("kind", ["daemon", pytest.param("apache", marks=pytest.mark.slow)])
def test_each_commit_of_each_branch_is_seen_once_in_order_whatever_master_and_server_suffer(
    kind: str, made: Generated, tmp_path: Path
) -> None:
    directory, pushes = tmp_path / "farm", made.pushes
    log = directory / "master.log"
    server = GitServer(kind, tmp_path, {**os.environ, children.MARK: f"{directory}-server"})
    try:
        server.load(made, pushes[:FIRST])
        with WatchingGit(directory, server.url) as farm:

            def two_looks() -> None:
                before = farm.looks()
                eventually(lambda: farm.looks() > before + 1, 30)

            server.load(made, pushes[FIRST:KILLED], two_looks)
            eventually(farm.seen, 30)  # the first are stored, perhaps not all
            farm.kill_master()
            server.load(made, pushes[KILLED:DOWN])
            farm.start_master()
            eventually(lambda: len(farm.seen()) >= len(made.seen(FIRST, DOWN)), 90)
            server.away()
            size = log.stat().st_size
            eventually(lambda: b"could not be polled" in log.read_bytes()[size:], 30)
            server.load(made, pushes[DOWN:AWAY])
            server.back()
            eventually(lambda: len(farm.seen()) > len(made.seen(FIRST, DOWN)), 60)
            farm.kill_master()
            farm.start_master()
            server.load(made, pushes[AWAY:], two_looks)
            expected = made.seen(FIRST)
            eventually(lambda: len(farm.seen()) >= len(expected), 90)
            two_looks()
            seen = farm.seen()
            assert sorted(seen) == sorted(expected)
            assert _by_branch(seen) == _by_branch(expected)
            mails = [str(read_mail(path)["Subject"]) for path in (directory / "mails").glob("*.eml")]
            replaced = [subject for subject in mails if "branches that were replaced" in subject]
            assert len(replaced) == sum(push.told for push in pushes)
        assert farm.leftovers == []
    finally:
        server.close()


def _by_branch(seen: list[tuple[str, str, str]]) -> dict[str, list[str]]:
    found = defaultdict[str, list[str]](list)
    for commit, branch, _ in seen:
        found[branch].append(commit)
    return found
