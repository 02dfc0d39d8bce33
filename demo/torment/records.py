"""What a tormented farm has written down: builds in the master's database, mails in the sink."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from email.utils import getaddresses
from pathlib import Path

from buildbot.process.results import RETRY

from demo.mailsink import read_mail
from demo.torment.judge import Attempt, Posted

DATABASE = "state.sqlite"
_BUILDS = """
SELECT builds.number, builds.results,
    (SELECT value FROM build_properties WHERE buildid = builds.id AND name = 'verdict'),
    (SELECT value FROM build_properties WHERE buildid = builds.id AND name = 'revision')
FROM builds JOIN builders ON builders.id = builds.builderid
WHERE builders.name = ? AND builds.complete_at IS NOT NULL ORDER BY builds.number
"""


@contextmanager
def opened(database: Path) -> Iterator[sqlite3.Connection]:
    """The master's database, beside the master itself."""
    with closing(sqlite3.connect(database, timeout=30, isolation_level=None)) as connection:
        yield connection


def tested(database: Path, cell: str) -> list[Attempt]:
    """The cell's builds that have ended."""
    with opened(database) as connection:
        rows = connection.execute(_BUILDS, (cell,)).fetchall()
    # What was cut short in its last step may have its verdict already: it says nothing, its request begins again.
    return [
        Attempt(number, _revision(revision), "" if results == RETRY else _outcome(verdict))
        for number, results, verdict, revision in rows
    ]


def open_requests(database: Path) -> int:
    """How many builds are asked for or running."""
    with opened(database) as connection:
        (count,) = connection.execute("SELECT count(*) FROM buildrequests WHERE complete = 0").fetchone()
    return int(count)


def spooled(spool: Path) -> int:
    """How many mails wait to go out."""
    return len(list(spool.glob("*.mail")))


def posted(mails: Path, cell: str) -> list[Posted]:
    """The mails of the cell's builds."""
    found = []
    for path in sorted(mails.glob("*.eml")):
        mail = read_mail(path)
        if mail["X-Oscar-Farm-Builder"] == cell:
            to = tuple(address for _name, address in getaddresses(mail.get_all("To", [])))
            found.append(Posted(str(mail["Message-ID"]), int(mail["X-Oscar-Farm-Build"]), to))
    return found


def _revision(value: str | None) -> int:
    number = json.loads(value) if value else None
    return int(number) if number else 0


def _outcome(value: str | None) -> str:
    verdict = json.loads(value) if value else {}
    return str(verdict.get("outcome", "")) if isinstance(verdict, dict) else ""
