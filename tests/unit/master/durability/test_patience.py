"""The master waits for a database that cannot be written just now, and for no other fault of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from buildbot.db import enginestrategy

from oscar_steps.master.durability.patience import wait_for_the_disk

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
    wait_for_the_disk()
    engine: Any = enginestrategy.create_engine(f"sqlite:///{tmp_path}/d", basedir=str(tmp_path))
    with engine.connect() as connection:
        connection.exec_driver_sql("CREATE TABLE t (x)")
        connection.commit()
        with pytest.raises(sa.exc.OperationalError) as refused:
            spoil(connection, tmp_path / "d")
    engine.dispose()
    assert engine.should_retry(refused.value) is passes
