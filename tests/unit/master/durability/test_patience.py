"""The master waits for a database that cannot be written just now, and for no other fault of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import sqlalchemy as sa
from buildbot.db import enginestrategy
from buildbot.db.pool import DBThreadPool

from oscar_steps.master.durability.patience import PatientServer, patiently, wait_for_the_database

Spoil = Callable[[sa.Connection, Path], None]


def _fill(connection: sa.Connection, _path: Path) -> None:
    connection.exec_driver_sql("PRAGMA max_page_count = 3")
    connection.exec_driver_sql("INSERT INTO t VALUES (zeroblob(100000))")


def _lock(connection: sa.Connection, path: Path) -> None:
    other = sa.create_engine(f"sqlite:///{path}").connect()
    other.exec_driver_sql("BEGIN IMMEDIATE")
    connection.exec_driver_sql("PRAGMA busy_timeout = 10")
    try:
        connection.exec_driver_sql("INSERT INTO t VALUES (1)")
    finally:
        other.close()


def _mistype(connection: sa.Connection, _path: Path) -> None:
    connection.exec_driver_sql("INSERT INTO nothing VALUES (1)")


@pytest.mark.parametrize(("spoil", "passes"), [(_fill, True), (_lock, True), (_mistype, False)])
def test_a_full_disk_and_a_lock_are_waited_for_and_a_wrong_query_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spoil: Spoil, passes: bool
) -> None:
    monkeypatch.setattr(enginestrategy, "SqlLiteStrategy", enginestrategy.SqlLiteStrategy)
    wait_for_the_database()
    engine: Any = enginestrategy.create_engine(f"sqlite:///{tmp_path}/d", basedir=str(tmp_path))
    with engine.connect() as connection:
        connection.exec_driver_sql("CREATE TABLE t (x)")
        connection.commit()
        with pytest.raises(sa.exc.OperationalError) as refused:
            spoil(connection, tmp_path / "d")
    engine.dispose()
    assert engine.should_retry(refused.value) is passes


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> PatientServer:
    monkeypatch.setattr(enginestrategy, "Strategy", enginestrategy.Strategy)
    monkeypatch.setattr(enginestrategy, "SqlLiteStrategy", enginestrategy.SqlLiteStrategy)
    wait_for_the_database()
    strategy = enginestrategy.get_drivers_strategy("postgresql")
    assert isinstance(strategy, PatientServer)
    return strategy


@pytest.mark.parametrize(
    ("state", "invalidated", "passes"),
    [
        ("57P01", False, True),  # the administrator ends the connection
        ("57P03", False, True),  # the server starts
        ("40P01", False, True),  # deadlock
        ("53300", False, True),  # too many connections
        (None, True, True),  # the server is gone and says nothing
        ("42P01", False, False),  # no such table
        (None, False, False),
    ],
)
def test_a_server_that_goes_away_is_waited_for_and_a_wrong_query_is_not(
    server: PatientServer, state: str | None, invalidated: bool, passes: bool
) -> None:
    said = SimpleNamespace(pgcode=state)
    error = sa.exc.OperationalError("SELECT 1", {}, said, connection_invalidated=invalidated)  # type: ignore[arg-type]
    assert server.should_retry(error) is passes


def test_a_connection_is_asked_for_again_until_the_server_is_back() -> None:
    answers = [OSError("refused"), OSError("the database system\nis starting up"), "connection"]
    pauses: list[float] = []

    def ask() -> str:
        answer = answers.pop(0)
        if isinstance(answer, OSError):
            raise answer
        return str(answer)

    assert patiently(ask, OSError, pauses.append) == "connection"
    assert pauses == [1.0, 1.5]


def test_a_server_that_is_away_for_more_than_a_day_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(DBThreadPool, "MAX_OPERATIONALERROR_TIME", -1)
    tried: list[int] = []

    def ask() -> None:
        tried.append(1)
        raise OSError("refused")

    with pytest.raises(OSError, match="refused"):
        patiently(ask, OSError, pytest.fail)
    assert tried == [1]


def test_a_lost_connection_by_any_name_is_one_that_the_pool_tries_again(server: PatientServer, tmp_path: Path) -> None:
    engine = sa.create_engine(f"sqlite:///{tmp_path}/d")
    server.set_up(None, engine)
    engine.dialect.is_disconnect = lambda error, *_rest: "closed" in str(error)  # type: ignore[method-assign]
    with engine.connect() as connection, pytest.raises(sa.exc.OperationalError) as lost:
        # SQLite says so with a ProgrammingError, as psycopg2 does with an InterfaceError.
        raw: Any = connection.connection.driver_connection
        raw.close()
        connection.exec_driver_sql("SELECT 1")
    assert "closed" in str(lost.value)
    assert server.should_retry(lost.value)
