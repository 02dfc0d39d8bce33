"""The master waits for a database that cannot be written just now: what it had to note is not lost with the attempt.

Buildbot's own waits for a database that is locked, and gives up at once where the disk is full: the commit, the build
or the result that was to be noted is gone then, although somebody makes room a minute later.
"""

from __future__ import annotations

from typing import Any

from buildbot.db import enginestrategy

_PASSES = ("disk is full", "disk I/O error")
"""SQLite's words. A write-ahead log that cannot grow on a full disk is an I/O error."""


class PatientSqlite(enginestrategy.SqlLiteStrategy):
    """Knows which of SQLite's errors are temporary."""

    def should_retry(self, operational_error: Any) -> bool:
        """Whether the same may work later."""
        text = str(operational_error.args[0]) if operational_error.args else ""
        return bool(super().should_retry(operational_error)) or any(words in text for words in _PASSES)


def wait_for_the_disk() -> None:
    """Have Buildbot wait. Call it before it opens its database."""
    enginestrategy.SqlLiteStrategy = PatientSqlite
