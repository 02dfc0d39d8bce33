"""Both databases that a master may have, for tests of what is asked of them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count

import pytest
import sqlalchemy as sa
from buildbot.db.model import Model
from sqlalchemy.pool import NullPool, StaticPool

from tests.farm.postgres import PROGRAMS, Postgres, postgres

_TABLES = "tables"
_numbers = count(1)


@pytest.fixture(scope="session")
def postgresql() -> Iterator[Postgres]:
    """One server for all tests of a session; its database `tables` has Buildbot's tables."""
    with postgres() as server:
        server.administer(f"CREATE DATABASE {_TABLES}")
        with _opened(server.administrators_url(_TABLES), NullPool) as engine:
            Model.metadata.create_all(engine)
        yield server


@pytest.fixture(params=["sqlite", "postgresql"])
def engine(request: pytest.FixtureRequest) -> Iterator[sa.Engine]:
    """A database of the test's own, with Buildbot's tables and no rows."""
    if request.param == "sqlite":
        with _opened("sqlite://", StaticPool) as made:
            Model.metadata.create_all(made)
            yield made
        return
    if not (PROGRAMS / "initdb").exists():
        pytest.skip("PostgreSQL is not installed: apt-get install postgresql")
    server: Postgres = request.getfixturevalue("postgresql")
    name = f"test{next(_numbers)}"
    server.administer(f"CREATE DATABASE {name} TEMPLATE {_TABLES}")
    with _opened(server.administrators_url(name), sa.pool.QueuePool) as made:
        yield made
    server.administer(f"DROP DATABASE {name}")


@contextmanager
def _opened(url: str, pool: type[sa.Pool]) -> Iterator[sa.Engine]:
    engine = sa.create_engine(url, poolclass=pool)
    yield engine
    engine.dispose()
