"""A whole history, with all that developers do to a repository, is seen revision by revision by a real master."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from demo import children
from tests.farm.generated_repository import generate
from tests.farm.support import eventually
from tests.farm.watching import Server, Watching

FIRST, KILLED, DOWN, AWAY = 1, 120, 160, 240
"""The newest revision at the master's first look, when it is killed, when it starts again, when the server goes."""


@pytest.mark.parametrize("kind", ["svnserve", pytest.param("apache", marks=pytest.mark.slow)])
def test_each_revision_is_seen_once_in_order_whatever_master_and_server_suffer(kind: str, tmp_path: Path) -> None:
    made = generate()
    directory = tmp_path / "farm"
    server = Server(kind, tmp_path, {**os.environ, children.MARK: f"{directory}-server"})
    try:
        server.load(made.dumps[:FIRST])
        with Watching(directory, server.url, **{"poll = 2": "poll = 1"}) as farm:
            server.load(made.dumps[FIRST:KILLED])
            eventually(farm.changes, 30)  # the first are stored, perhaps not all
            farm.kill_master()
            server.load(made.dumps[KILLED:DOWN])
            farm.start_master()
            wanted = [change for change in made.changes(FIRST) if change[0] <= DOWN]
            eventually(lambda: len(farm.changes()) >= len(wanted), 90)
            server.away()
            log = (directory / "master.log").stat().st_size
            eventually(lambda: b"could not be polled" in (directory / "master.log").read_bytes()[log:], 30)
            server.load(made.dumps[DOWN:AWAY])
            server.back()
            eventually(lambda: max(revision for revision, *_ in farm.changes()) > DOWN, 60)
            farm.kill_master()
            farm.start_master()
            server.load(made.dumps[AWAY:])
            expected = made.changes(FIRST)
            eventually(lambda: len(farm.changes()) >= len(expected), 90)
            looks = (directory / "master.log").read_bytes().count(b"finished polling")
            eventually(lambda: (directory / "master.log").read_bytes().count(b"finished polling") > looks + 1, 30)
            seen = farm.changes()
            assert [revision for revision, *_ in seen] == sorted(revision for revision, *_ in seen)
            assert sorted(seen) == sorted(expected)
        assert farm.leftovers == []
    finally:
        server.close()
