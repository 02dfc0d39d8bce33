"""The farm on a real PostgreSQL: from commit to mail, also where the database dies in the middle."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
import sqlalchemy as sa
from buildbot.config.errors import ConfigErrors
from buildbot.config.master import FileLoader
from psycopg2 import sql
from sqlalchemy.engine import make_url

from demo import children
from demo.farm import CHECKOUT, USERS, Farm
from demo.mailsink import read_mail
from demo.ports import LOOPBACK, free_port
from oscar_steps.master.durability import leaving
from oscar_steps.site import DATABASE_PASSWORD
from tests.farm.postgres import DATABASE, PROGRAMS, USER, Postgres, postgres
from tests.farm.support import FAKE_DRIVER, eventually, nothing_to_install

pytestmark = [
    pytest.mark.timeout(600),
    pytest.mark.skipif(
        not (PROGRAMS / "initdb").exists(), reason="PostgreSQL is not installed: apt-get install postgresql"
    ),
]
PASSWORD = "p@ss:w/ord%40?ß#&"
DEVELOPER = USERS[1]
BUILDBOT = Path(sys.executable).with_name("buildbot")
SITE = """\
[repository]
url = "svn://127.0.0.1/oscar"
[web]
port = {web}
[master]
port = "tcp:{port}:interface=127.0.0.1"
[[worker]]
name = "worker1"
[database]
url = "{url}"
"""


@pytest.fixture(scope="module")
def server() -> Iterator[Postgres]:
    with postgres() as server:
        server.make_database(PASSWORD)
        yield server


@pytest.fixture(scope="module")
def farm(server: Postgres, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Farm]:
    farm = Farm(tmp_path_factory.mktemp("farm") / "f", driver=[sys.executable, str(FAKE_DRIVER)])
    farm.database, farm.database_password = server.url(), PASSWORD
    with nothing_to_install(tmp_path_factory.mktemp("standin")), farm:
        play(farm, "pass")
        yield farm


def play(farm: Farm, name: str) -> None:
    (farm.directory / "scenario").write_text(json.dumps({"play": name, "stage": "wait-nodes"}))


def mails_about(farm: Farm, revision: int) -> list[str]:
    mails = map(read_mail, sorted((farm.directory / "mails").glob("*.eml")))
    return [str(mail["Subject"]) for mail in mails if f"r{revision}:" in str(mail["Subject"])]


def test_a_commit_is_built_and_its_mail_arrives(farm: Farm, server: Postgres) -> None:
    done = farm.follow(farm.commit_harmless(DEVELOPER), DEVELOPER, lambda _line: None, seconds=60)
    assert done.build.result_name == "success"
    (count,) = server.administer(f"SELECT numbackends FROM pg_stat_database WHERE datname = '{DATABASE}'")[0]
    assert count > 0


def test_a_database_that_dies_and_comes_back_in_the_middle_loses_nothing(farm: Farm, server: Postgres) -> None:
    play(farm, "wait")
    before = farm.commit_harmless(DEVELOPER)
    eventually((farm.directory / "waiting").exists)
    server.server.kill()
    meanwhile = farm.commit_harmless(DEVELOPER)
    (farm.directory / "go").touch()
    log = farm.directory / "master.log"
    eventually(lambda: log.read_bytes().count(b"the database cannot be reached") > 2)
    server.server.start_again()
    server.wait()
    for revision in (before, meanwhile):
        done = farm.follow(revision, DEVELOPER, lambda _line: None, seconds=60)
        assert done.build.result_name == "success"
    assert [len(mails_about(farm, revision)) for revision in (before, meanwhile)] == [1, 1]
    farm.check()


def killed(server: Postgres) -> None:
    server.server.kill()


def started(server: Postgres) -> None:
    server.server.start_again()


def processes(server: Postgres) -> list[psutil.Process]:
    return [psutil.Process(server.server.pid), *psutil.Process(server.server.pid).children(recursive=True)]


def hangs(server: Postgres) -> None:
    """Its kernel takes connections and questions, and nobody answers."""
    for process in processes(server):
        process.suspend()


def answers(server: Postgres) -> None:
    for process in processes(server):
        process.resume()


@pytest.mark.parametrize(("goes", "comes_back"), [(killed, started), (hangs, answers)], ids=["killed", "hangs"])
def test_a_master_that_is_stopped_while_its_database_is_away_ends_soon_and_loses_nothing(
    farm: Farm, server: Postgres, goes: Callable[[Postgres], None], comes_back: Callable[[Postgres], None]
) -> None:
    for flag in ("waiting", "go"):
        (farm.directory / flag).unlink(missing_ok=True)
    play(farm, "wait")
    before = farm.commit_harmless(DEVELOPER)
    eventually((farm.directory / "waiting").exists)
    goes(server)
    try:
        meanwhile = farm.commit_harmless(DEVELOPER)
        assert farm.master_server.stop(leaving.SECONDS + 15)
    finally:
        (farm.directory / "go").touch()
        comes_back(server)
        server.wait()
        farm.master_server.start_again()
    assert b"the database has not answered for 30 s" in (farm.directory / "master.log").read_bytes()
    farm.master_server.wait_until(farm.master.answers, "serving its web page", 60)
    for revision in (before, meanwhile):
        eventually(lambda: mails_about(farm, revision), 120)  # noqa: B023
    assert (
        farm.follow(farm.commit_harmless(DEVELOPER), DEVELOPER, lambda _line: None, seconds=120).build.result_name
        == "success"
    )
    assert [len(mails_about(farm, revision)) for revision in (before, meanwhile)] == [1, 1]
    farm.check()


def test_a_farm_moves_from_its_file_to_a_server_with_all_that_it_knows(
    server: Postgres, tmp_path_factory: pytest.TempPathFactory
) -> None:
    server.administer(sql.SQL("CREATE DATABASE moved OWNER {}").format(sql.Identifier(USER)))
    moved = Farm(tmp_path_factory.mktemp("moved") / "f", driver=[sys.executable, str(FAKE_DRIVER)])
    with nothing_to_install(tmp_path_factory.mktemp("standin")), moved:
        play(moved, "fail")
        before = moved.commit_harmless(DEVELOPER)
        assert moved.follow(before, DEVELOPER, lambda _line: None, seconds=60).build.result_name == "failure"
        assert moved.master_server.stop(30)
        base = moved.directory / "master"
        (base / "secrets" / DATABASE_PASSWORD).touch(0o600)
        (base / "secrets" / DATABASE_PASSWORD).write_text(PASSWORD)
        to = make_url(server.url("moved")).set(password=PASSWORD).render_as_string(hide_password=False)
        children.run(BUILDBOT, "copy-db", "--quiet", to, base)
        settings = (base / "farm.toml").read_text()
        where = f'[database]\nurl = "{server.url("moved")}"\n[driver]'
        (base / "farm.toml").write_text(settings.replace("[driver]", where))
        moved.master_server.start_again()
        moved.master_server.wait_until(moved.master.answers, "serving its web page", 60)
        play(moved, "pass")
        after = moved.commit_harmless(DEVELOPER)
        assert moved.follow(after, DEVELOPER, lambda _line: None, seconds=60).build.result_name == "success"
        assert [len(mails_about(moved, revision)) for revision in (before, after)] == [1, 1]
        engine = sa.create_engine(to)
        with engine.connect() as connection:
            query = "SELECT outcome FROM farm_results WHERE cell != 'lint' ORDER BY build"
            known = eventually(lambda: rows if len(rows := connection.exec_driver_sql(query).fetchall()) > 1 else None)
        engine.dispose()
        assert [outcome for (outcome,) in known] == ["failed", "passed"]
        moved.check()


def faults(folder: Path, url: str, password: str = PASSWORD) -> list[str]:
    """What `checkconfig` and a start say about a site with this database; none: nothing."""
    (folder / "secrets").mkdir(exist_ok=True)
    for name, secret in (("worker-worker1", "secret"), ("database-password", password)):
        path = folder / "secrets" / name
        path.touch(0o600)
        path.write_text(secret)
    (folder / "farm.toml").write_text(SITE.format(url=url, web=free_port(), port=free_port()))
    try:
        FileLoader(str(folder), str(CHECKOUT / "master.cfg")).loadConfig()
    except ConfigErrors as error:
        return [str(said) for said in error.errors]
    return []


def test_what_keeps_a_master_from_its_database_is_one_sentence_with_the_command(
    server: Postgres, tmp_path: Path
) -> None:
    where = f"{tmp_path}/farm.toml:10: database.url: "
    (said,) = faults(tmp_path, server.url(), "wrong")
    assert said.startswith(f'{where}the database cannot be used: connection to server at "{LOOPBACK}"')
    assert "password authentication failed" in said
    assert said.endswith("secret farm.toml database-password --ask --new")
    (said,) = faults(tmp_path, server.url("other"))
    assert said.endswith(f"createdb --encoding UTF8 --template template0 --owner {USER} other")
    (said,) = faults(tmp_path, f"postgresql://{USER}@{LOOPBACK}:{free_port()}/{DATABASE}")
    assert said.endswith("Connection refused; is its server running, and is this its address?")
    server.administer("CREATE DATABASE latin ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0")
    (said,) = faults(tmp_path, server.url("latin"))
    assert "the database has the encoding LATIN1" in said


def test_a_database_that_was_not_upgraded_is_one_sentence_until_it_is(server: Postgres, tmp_path: Path) -> None:
    server.administer(sql.SQL("CREATE DATABASE fresh OWNER {}").format(sql.Identifier(USER)))
    (said,) = faults(tmp_path, server.url("fresh"))
    program, word, folder = said.rpartition("as the master's user: ")[2].split()
    assert (Path(program), word, folder) == (BUILDBOT, "upgrade-master", str(tmp_path))
    children.run(BUILDBOT, "create-master", "--quiet", "--config", CHECKOUT / "master.cfg", tmp_path)
    started = subprocess.run(
        [BUILDBOT.with_name("twistd"), "--nodaemon", "--pidfile=", "--python=buildbot.tac"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=110,
    )
    told = f"{started.stdout}{started.stderr}{(tmp_path / 'twistd.log').read_text()}"
    assert said in told
    assert "Traceback" not in told
    children.run(program, word, "--quiet", folder)
    assert faults(tmp_path, server.url("fresh")) == []
