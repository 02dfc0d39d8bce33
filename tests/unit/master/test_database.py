"""What keeps a master from a database on a server is one sentence. A real server: tests/farm/test_postgresql.py."""

from __future__ import annotations

import os
import socket
import sys
from pathlib import Path
from typing import Any

import pytest
from alembic.script import ScriptDirectory
from buildbot.db import enginestrategy, model
from sqlalchemy.engine import make_url

from demo.ports import free_port
from oscar_steps.master import database
from oscar_steps.repositories import Repository
from oscar_steps.site import Database, Secrets, Site, Worker
from tests.farm.postgres import Postgres

HEAD = ScriptDirectory(str(Path(model.__file__).with_name("migrations"))).get_current_head()


def site(url: str, folder: Path) -> Site:
    return Site(
        repository=Repository(url="svn://127.0.0.1/oscar"),
        database=Database(url=url),
        secrets=Secrets(directory=folder),
        worker=(Worker(name="worker1"),),
    )


def faults(url: str, folder: Path) -> list[str]:
    return list(database.faults(site(url, folder), folder))


def test_a_missing_driver_is_one_sentence_with_the_command_that_installs_the_locked_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "psycopg2", None)
    (said,) = faults("postgresql://farm@127.0.0.1/farm", tmp_path)
    start, _, command = said.rpartition(": ")
    assert start == "the driver for 'postgresql' is not installed; install it"
    program, *options, lock = command.split()
    assert Path(program).name == "pip" and "--require-hashes" in options
    assert "psycopg2-binary==" in Path(lock).read_text()


def test_a_server_that_is_away_is_one_sentence(tmp_path: Path) -> None:
    port = free_port()
    (said,) = faults(f"postgresql://farm@127.0.0.1:{port}/farm", tmp_path)
    assert f'"127.0.0.1", port {port} failed: Connection refused; is its server running' in said
    assert "\n" not in said


def test_a_database_that_is_a_file_is_not_asked(tmp_path: Path) -> None:
    assert faults("sqlite:///state.sqlite", tmp_path) == []
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("said", "advice"),
    [
        ('FATAL:  password authentication failed for user "farm"', "farm.toml database-password --ask --new"),
        ("fe_sendauth: no password supplied", "farm.toml database-password --ask --new"),
        ('FATAL:  database "oscar" does not exist', "--owner farm oscar"),
        ("FATAL:  Passwort-Authentifizierung für Benutzer »farm« fehlgeschlagen", "is this its address?"),
    ],
)
def test_what_the_server_says_comes_with_what_to_type(said: str, advice: str) -> None:
    assert database._remedy(said, make_url("postgresql://farm@h/oscar")).endswith(advice)


@pytest.mark.parametrize(
    ("schema", "said"),
    [
        (HEAD, None),
        (None, "has no tables yet; as the master's user: "),
        ("059", "has the tables of an older Buildbot; as the master's user: "),
        ("999", "has the tables of a newer Buildbot (version 999)"),
    ],
)
def test_tables_of_another_version_are_one_sentence_with_the_command(schema: str | None, said: str | None) -> None:
    found = list(database._schema(schema, Path("/m")))
    assert (said is None and found == []) or (len(found) == 1 and str(said) in found[0])
    if said and "newer" not in said:
        assert found[0].endswith("/bin/buildbot upgrade-master /m")


def test_only_the_command_that_upgrades_takes_an_old_database(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "buildbot.scripts.upgrade_master", raising=False)
    assert not database._is_upgraded_now()
    module: Any = object()
    monkeypatch.setitem(sys.modules, "buildbot.scripts.upgrade_master", module)
    assert database._is_upgraded_now()


@pytest.mark.parametrize("password", ["a/b@c", "p@ss:w/ord%40?ß#&", "%", "ключ"])
def test_a_password_of_any_letters_arrives_as_it_is(tmp_path: Path, password: str) -> None:
    secret = tmp_path / "database-password"
    secret.touch(0o600)
    secret.write_text(password, encoding="utf-8")
    address = database.database_address(site("postgresql://farm@h/f", tmp_path))
    assert isinstance(address, database.DatabaseAddress)
    assert str(address) == "postgresql://farm@h/f"
    assert make_url(address.getRenderingFor(None)).password == password


def test_a_server_that_does_not_even_say_that_it_is_gone_is_noticed_within_a_minute(
    postgresql: Postgres, tmp_path: Path
) -> None:
    postgresql.make_database("secret")
    settings = database.database_settings(site(postgresql.url(), tmp_path))
    url = make_url(settings["db_url"]).set(password="secret")
    engine: Any = enginestrategy.create_engine(url, basedir=str(tmp_path), **settings["engine_kwargs"])
    with engine.connect() as connection, socket.socket(fileno=os.dup(connection.connection.fileno())) as wire:
        idle, interval, count, unheard = (
            wire.getsockopt(socket.IPPROTO_TCP, option)
            for option in (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT, socket.TCP_USER_TIMEOUT)
        )
    engine.dispose()
    assert idle + interval * count <= 60
    assert unheard == 60_000


@pytest.mark.parametrize("url", ["sqlite:///state.sqlite", "mysql://farm@h/farm", "nothing://h/x"])
def test_another_database_gets_no_settings_of_postgresqls(url: str, tmp_path: Path) -> None:
    assert "connect_args" not in database.database_settings(site(url, tmp_path)).get("engine_kwargs", {})
