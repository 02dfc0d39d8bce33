"""The master waits for a database that cannot be reached or written just now: what it had to note is not lost.

Buildbot's own waits for an SQLite file that is locked. It gives up at once where the disk is full, and where the server
of a database is restarted: the commit, the build or the result that was to be noted is gone then, although somebody
makes room, or the server is back, a minute later.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import sqlalchemy as sa
from buildbot.db import enginestrategy
from buildbot.db.pool import DBThreadPool
from twisted.python import log

_PASSES = ("disk is full", "disk I/O error")
"""SQLite's words. A write-ahead log that cannot grow on a full disk is an I/O error."""
_TRANSIENT = ("08", "40", "53", "57")
"""Classes of SQLSTATE that pass: connection, two transactions in each other's way, no resources, server shut down."""
_SLOWEST = 30.0
"""Seconds between two tries of a server that is away."""


class PatientSqlite(enginestrategy.SqlLiteStrategy):
    """Knows which of SQLite's errors are temporary."""

    def should_retry(self, operational_error: Any) -> bool:
        """Whether the same may work later."""
        text = str(operational_error.args[0]) if operational_error.args else ""
        return bool(super().should_retry(operational_error)) or any(words in text for words in _PASSES)


class PatientServer(enginestrategy.Strategy):
    """Waits for PostgreSQL: Buildbot's pool asks it about a query, and not about the connection before that."""

    def set_up(self, _url: Any, engine: Any) -> None:
        """Wait for each connection, and show the pool a lost one as the kind of error after which it asks."""
        sa.event.listen(engine, "do_connect", _connect)
        sa.event.listen(engine, "handle_error", _as_operational)

    def should_retry(self, error: Any) -> bool:
        """Whether the same may work later, with another connection."""
        state = getattr(error.orig, "pgcode", None) or ""
        return bool(error.connection_invalidated or state.startswith(_TRANSIENT) or super().should_retry(error))


def _connect(dialect: Any, _record: Any, arguments: Any, settings: Any) -> Any:
    """A connection, as soon as the server gives one: within a day, as Buildbot's pool has it with queries.

    Whatever the server says: a start has tried the same before, so it is no mistake in the site.
    """
    return patiently(lambda: dialect.connect(*arguments, **settings), dialect.loaded_dbapi.OperationalError)


def patiently(ask: Callable[[], Any], temporary: type[Exception], sleep: Callable[[float], None] = time.sleep) -> Any:
    """What `ask` returns, as soon as it raises nothing `temporary`. Runs in a thread of the database's pool."""
    pause, end = DBThreadPool.BACKOFF_START, time.monotonic() + DBThreadPool.MAX_OPERATIONALERROR_TIME
    while True:
        try:
            return ask()
        except temporary as error:
            if time.monotonic() > end:
                raise
            log.msg(
                f"the database cannot be reached; it is asked again in {pause:.0f} s: {' '.join(str(error).split())}"
            )
        sleep(pause)
        pause = min(_SLOWEST, pause * 1.5)


def _as_operational(context: Any) -> None:
    """A driver has several names for a connection that is lost; Buildbot's pool tries again after one of them."""
    if context.is_disconnect and not isinstance(context.sqlalchemy_exception, sa.exc.OperationalError):
        raise sa.exc.OperationalError(
            context.statement, context.parameters, context.original_exception, connection_invalidated=True
        ) from context.original_exception


def wait_for_the_database() -> None:
    """Have Buildbot wait. Call it before it opens its database."""
    enginestrategy.SqlLiteStrategy = PatientSqlite
    enginestrategy.Strategy = PatientServer
