"""The configuration: what checkconfig would find, and the rules that every matrix and site must keep."""

from __future__ import annotations

import inspect
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from buildbot.changes.changes import Change
from buildbot.config.errors import ConfigErrors
from buildbot.config.master import FileLoader
from buildbot.db.base import CachedMethod
from buildbot.db.buildsets import BuildsetsConnectorComponent as Buildsets
from buildbot.db.changes import ChangesConnectorComponent as Changes
from buildbot.db.sourcestamps import SourceStampsConnectorComponent as Stamps
from buildbot.process.buildrequest import BuildRequest
from buildbot.process.results import CANCELLED, EXCEPTION, FAILURE, RETRY, SUCCESS, WARNINGS
from buildbot.worker.base import AbstractWorker
from sqlalchemy.engine import make_url
from twisted.internet import defer
from twisted.python import log

from oscar_steps.master import checks, database
from oscar_steps.master.checks import can_match
from oscar_steps.master.schedules.commit import is_good_commit
from oscar_steps.master.schedules.names import BISECT_SERVICE
from oscar_steps.matrix.cells import default_profiles, load_matrix
from oscar_steps.site import Site
from oscar_steps.verdict import LINT, Stage

ROOT = default_profiles().parent
SITE = """\
[repository]
url = "svn://127.0.0.1/oscar"
[mail]
from = "farm@x.org"
operator = "op@x.org"
[[worker]]
name = "worker1"
"""


@pytest.fixture(autouse=True)
def default_ports_are_free(monkeypatch: pytest.MonkeyPatch) -> None:
    """A farm may be running on this machine: the example's two ports count as free, all others are really tried."""
    tried = checks._port_in_use

    def in_use(address: str, port: int, state: Path) -> Iterator[str]:
        return iter(()) if address == "127.0.0.1" and port in (8010, 9989) else tried(address, port, state)

    monkeypatch.setattr(checks, "_port_in_use", in_use)


def base(directory: Path, text: str = SITE) -> Path:
    (directory / "farm.toml").write_text(text)
    secrets = directory / "secrets"
    secrets.mkdir(exist_ok=True)
    (secrets / "worker-worker1").write_text("secret")
    (secrets / "worker-worker1").chmod(0o600)
    return directory


def load(directory: Path) -> Any:
    return FileLoader(str(directory), str(ROOT / "master.cfg")).loadConfig()


def complaints(directory: Path) -> list[str]:
    with pytest.raises(ConfigErrors) as error:
        load(directory)
    return list(error.value.errors)


def test_every_cell_has_a_builder_that_can_be_forced_and_all_stages_in_their_order(tmp_path: Path) -> None:
    configuration = load(base(tmp_path))
    cells = [cell.name for cell in load_matrix(default_profiles()).cells]
    assert [builder.name for builder in configuration.builders] == [*cells, LINT]
    assert sorted(configuration.schedulers["force"].builderNames) == sorted(cells)
    for builder in configuration.builders[:-1]:
        steps = [step.buildStep().name for step in builder.factory.steps]
        assert steps == ["job", "already tested", *(stage.value for stage in Stage), "report"]


def test_cells_of_every_commit_and_of_the_night_are_scheduled(tmp_path: Path) -> None:
    schedulers = load(base(tmp_path)).schedulers
    cells = load_matrix(default_profiles()).cells
    assert schedulers["commit"].builderNames == [cell.name for cell in cells if "smoke" in cell.labels]
    assert schedulers["nightly"].builderNames == [cell.name for cell in cells if "nightly" in cell.labels]


@pytest.mark.parametrize(("setting", "searches"), [("", True), ("[schedule]\nsearch = false\n", False)])
def test_the_farm_searches_by_itself_unless_the_site_does_not_want_it(
    tmp_path: Path, setting: str, searches: bool
) -> None:
    service = load(base(tmp_path, SITE + setting)).services[BISECT_SERVICE]
    assert service._config_kwargs["automatic"] is searches


def test_only_extract_logs_teardown_and_report_run_after_a_failure(tmp_path: Path) -> None:
    for builder in load(base(tmp_path)).builders[:-1]:
        steps = [step.buildStep() for step in builder.factory.steps]
        always = [step.name for step in steps if step.alwaysRun]
        assert always == ["extract-logs", "teardown", "report"]
        assert all(step.haltOnFailure or step.alwaysRun for step in steps)


def test_a_commit_is_looked_at_first_and_then_goes_on_to_its_cells(tmp_path: Path) -> None:
    configuration = load(base(tmp_path))
    assert configuration.schedulers[LINT].builderNames == [LINT]
    steps = [step.buildStep() for step in configuration.builders[-1].factory.steps]
    assert [step.name for step in steps] == [LINT, "report", "cells", "cells of the patch"]
    assert steps[-2].schedulerNames == ["commit"]


@pytest.mark.parametrize(
    ("scheduler", "so_far", "goes_on"),
    [
        (LINT, SUCCESS, True),
        (LINT, WARNINGS, True),
        (LINT, EXCEPTION, True),  # a fault of the farm's must not keep a commit from its test
        (LINT, FAILURE, False),
        (LINT, CANCELLED, False),
        (LINT, RETRY, False),
        ("force", SUCCESS, False),
    ],
)
def test_only_what_the_first_tier_finds_keeps_a_commit_from_its_cells(
    scheduler: str, so_far: int, goes_on: bool
) -> None:
    step = SimpleNamespace(getProperty={"scheduler": scheduler}.get, build=SimpleNamespace(results=so_far))
    assert is_good_commit(step) is goes_on


def test_a_worker_has_room_for_the_first_tier_beside_its_clusters(tmp_path: Path) -> None:
    configuration = load(base(tmp_path, SITE + "builds = 2\n"))
    assert configuration.workers[0].max_builds == 3
    for builder in configuration.builders:
        limits = [access.lockid.maxCountForWorker for access in builder.locks]
        assert limits == ([] if builder.name == LINT else [{"worker1": 2}])


def test_nothing_listens_beyond_the_loopback_interface(tmp_path: Path) -> None:
    configuration = load(base(tmp_path))
    assert configuration.www["port"] == "tcp:8010:interface=127.0.0.1"
    assert configuration.protocols == {"pb": {"port": "tcp:9989:interface=127.0.0.1"}}


def test_without_a_login_nobody_may_force_unless_the_site_is_open(tmp_path: Path) -> None:
    assert load(base(tmp_path)).www["authz"].allowRules
    assert not load(base(tmp_path, SITE + "[web]\nopen = true\n")).www["authz"].allowRules


def test_a_night_of_requests_fits_into_each_cache_that_buildbot_reads_requests_through(tmp_path: Path) -> None:
    caches = load(base(tmp_path)).caches
    cached = [member for kind in (Buildsets, Stamps, Changes) for member in vars(kind).values()]
    names = {member.cache_name for member in cached if isinstance(member, CachedMethod)}
    for reader in (BuildRequest.fromBrdict, Change.fromChdict):
        names |= set(re.findall(r'get_cache\("(\w+)"', inspect.getsource(reader)))
    assert names >= {"BuildRequests", "chdicts"}
    assert {name for name in names if caches.get(name, 1) < 1500} == set()


def test_builds_are_never_merged(tmp_path: Path) -> None:
    assert load(base(tmp_path)).collapseRequests is False


def test_a_missing_secret_is_one_sentence_that_says_how_to_create_it(tmp_path: Path) -> None:
    shutil.rmtree(base(tmp_path) / "secrets")
    (said,) = complaints(tmp_path)
    assert f"the secret file {tmp_path}/secrets/worker-worker1 (password of the worker worker1) is missing" in said


def test_a_folder_that_others_can_open_is_refused_with_the_file_that_they_can_read(tmp_path: Path) -> None:
    (base(tmp_path) / "state.sqlite").touch(0o644)
    tmp_path.chmod(0o755)
    assert complaints(tmp_path) == [
        f"other users of this host can open the master's folder {tmp_path} (mode 0755), and read state.sqlite (and "
        f"1 more) in it; close it: chmod -R go= {tmp_path}"
    ]
    tmp_path.chmod(0o711)  # its files' names are known
    assert "read state.sqlite (and" in complaints(tmp_path)[0]
    subprocess.run(["chmod", "-R", "go=", str(tmp_path)], check=True)
    load(tmp_path)


def test_what_was_made_under_another_umask_and_what_is_made_from_then_on_is_for_the_master_alone(
    tmp_path: Path,
) -> None:
    os.umask(0)
    (base(tmp_path) / "state.sqlite").touch()
    (tmp_path / "gone").symlink_to(tmp_path / "nowhere")
    load(tmp_path)
    (tmp_path / "twistd.log.1").touch()
    modes = {path.name: path.stat().st_mode & 0o777 for path in tmp_path.iterdir() if path.exists()}
    assert modes == {"farm.toml": 0o600, "secrets": 0o700, "state.sqlite": 0o600, "twistd.log.1": 0o600}


@pytest.mark.parametrize("place", ["../{name}-db/state.sqlite", "/{folder}-db/state.sqlite", "link/state.sqlite"])
def test_a_database_elsewhere_that_others_can_read_is_refused(tmp_path: Path, place: str) -> None:
    elsewhere = tmp_path.parent / f"{tmp_path.name}-db"
    elsewhere.mkdir()
    (tmp_path / "link").symlink_to(elsewhere)
    (elsewhere / "state.sqlite").touch(0o644)
    url = "sqlite:///" + place.format(name=tmp_path.name, folder=tmp_path)
    assert complaints(base(tmp_path, SITE + f'[database]\nurl = "{url}"\n')) == [
        f"other users of this host can read the database {elsewhere}/state.sqlite; close it: "
        f"chmod 600 {elsewhere}/state.sqlite"
    ]
    (elsewhere / "state.sqlite").chmod(0o600)
    load(tmp_path)


def test_a_database_further_down_in_the_masters_folder_is_closed(tmp_path: Path) -> None:
    file = base(tmp_path, SITE + '[database]\nurl = "sqlite:///db/state.sqlite"\n') / "db" / "state.sqlite"
    file.parent.mkdir(mode=0o755)
    file.touch(0o644)
    load(tmp_path)
    assert [path.stat().st_mode & 0o777 for path in (file.parent, file)] == [0o700, 0o600]


def test_the_databases_password_comes_from_a_secret_and_is_in_nothing_that_is_printed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "faults", lambda *_: ())  # its server is not here
    text = SITE + '[database]\nurl = "postgresql://farm@127.0.0.1/farm"\n'
    assert load(base(tmp_path, text)).db.db_url == "postgresql://farm@127.0.0.1/farm"
    secret = tmp_path / "secrets/database-password"
    secret.touch(0o600)
    secret.write_text("a/b@c")
    configuration = load(tmp_path)
    assert f"{configuration.db.db_url} {configuration.db!r}".count("a/b") == 0
    rendered = configuration.db.db_url.getRenderingFor(None)
    assert make_url(rendered).password == "a/b@c"


def test_a_mistake_in_the_site_or_the_matrix_is_one_sentence_with_file_and_line(tmp_path: Path) -> None:
    (said,) = complaints(base(tmp_path, SITE + "[web]\nprot = 1\n"))
    assert said == f"{tmp_path}/farm.toml:9: web.prot: there is no such setting"
    profiles = tmp_path / "profiles"
    shutil.copytree(default_profiles(), profiles)
    matrix = profiles / "matrix.toml"
    matrix.write_text(matrix.read_text().replace('answers = "{distribution}-{version}"', 'answers = "nothing"'))
    (said,) = complaints(base(tmp_path, 'profiles = "profiles"\n' + SITE))
    assert "answers 'nothing' does not exist" in said


def test_a_mail_account_needs_its_password_file(tmp_path: Path) -> None:
    (said,) = complaints(base(tmp_path, SITE.replace("[[worker]]", 'user = "farm"\n[[worker]]')))
    assert "secrets/mail-password" in said


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        (
            '[master]\nport = "tcp:hello"\n',
            9,
            "master.port: 'tcp:hello' is not an endpoint that workers can connect to",
        ),
        ('[master]\nport = "tcp"\n', 9, "master.port: 'tcp' is not an endpoint that workers can connect to"),
        ('[master]\nport = "carrier-pigeon:1"\n', 9, "master.port: 'carrier-pigeon:1' is not an endpoint"),
        ('[master]\nport = "tcp:99999"\n', 9, "master.port: 99999 is not a TCP port"),
        ('[master]\nport = "tcp:9989:interface=300.1.1.1"\n', 9, "master.port: '300.1.1.1' is not the address"),
        ('[web]\naddress = "everywhere"\n', 9, "web.address: 'everywhere' is not the address of an interface"),
        ('[web]\naddress = "192.0.2.1"\n', 8, "web.port: no interface of this host has the address 192.0.2.1"),
        ("[web]\nport = 9989\n", 9, "master.port: [web] port is 9989 too"),
        ('[database]\nurl = "mysql://farm@127.0.0.1/farm"\n', 9, "database.url: the driver for 'mysql' is not"),
        ('[database]\nurl = "postgresql://farm@127.0.0.1:1/farm"\n', 9, "database.url: the database cannot be used: "),
        ('[database]\nurl = "dbase://x/y"\n', 9, "database.url: the farm cannot use a database of the kind 'dbase'"),
        ("builds = 501\n", 8, "worker.0.builds: one worker's connection bears 500 builds; give 500 at most, and run a"),
        ('[schedule]\nbranches = ["trunk", "branch/*"]\n', 9, "schedule.branches.1: 'branch/*' can match no branch"),
    ],
)
def test_what_a_start_would_refuse_is_one_sentence_with_its_line(
    tmp_path: Path, text: str, line: int, said: str
) -> None:
    (told,) = complaints(base(tmp_path, SITE + text))
    assert told.startswith(f"{tmp_path}/farm.toml:{line}: ")
    assert said in told


def test_a_port_in_use_is_refused_unless_the_master_of_this_folder_has_it(tmp_path: Path) -> None:
    program = (
        "import socket; s = socket.create_server(('127.0.0.1', 0)); print(s.getsockname()[1], flush=True); input()"
    )
    for folder, refused in ((tmp_path.parent, True), (tmp_path, False)):
        with subprocess.Popen(
            [sys.executable, "-c", program], cwd=folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as other:
            assert other.stdout and other.stdin
            port = int(other.stdout.readline())
            base(tmp_path, SITE + f"[web]\nport = {port}\n")
            if refused:
                (told,) = complaints(tmp_path)
                assert told.startswith(
                    f"{tmp_path}/farm.toml:9: web.port: port {port} of 127.0.0.1 is in use by another"
                )
            else:
                load(tmp_path)
            other.stdin.close()


@pytest.mark.parametrize(
    ("xml", "said"),
    [
        ("<cluster", "clusters/head-and-two-nodes.xml:1: this is not well-formed XML"),
        ("<cluster name='x'>\n<hat/>\n</cluster>", "this is not a valid cluster (v3m_cluster.dtd)"),
    ],
)
def test_a_cluster_that_is_none_is_refused(tmp_path: Path, xml: str, said: str) -> None:
    shutil.copytree(default_profiles(), tmp_path / "profiles")
    (tmp_path / "profiles/clusters/head-and-two-nodes.xml").write_text(xml)
    (told,) = complaints(base(tmp_path, 'profiles = "profiles"\n' + SITE))
    assert said in told


def test_a_site_that_is_there_but_cannot_be_read_is_not_replaced_by_the_example(tmp_path: Path) -> None:
    site = base(tmp_path) / "farm.toml"
    site.unlink()
    site.symlink_to(tmp_path / "unmounted/farm.toml")
    assert complaints(tmp_path) == [f"{site}: there is no such file"]
    site.unlink()
    site.mkdir()
    assert complaints(tmp_path) == [f"{site}: the file cannot be read: Is a directory"]


@pytest.mark.parametrize(
    ("pattern", "can"),
    [
        ("*", True),
        ("trunk", True),
        ("tr?nk", True),
        ("t[a-z]*/5.*", True),
        ("branches/branch-5-*", True),
        ("*-5", True),
        ("branches", False),
        ("branches/", False),
        ("/trunk", False),
        ("branches/a/b", False),
        ("trunk/*", False),
        ("", False),
    ],
)
def test_a_branch_pattern_is_good_when_a_branch_could_have_such_a_name(pattern: str, can: bool) -> None:
    site = {"repository": {"url": "svn://127.0.0.1/oscar"}, "worker": [{"name": "w"}]}
    assert can_match(pattern, Site.model_validate(site)) is can


@pytest.mark.parametrize(
    ("pattern", "can"),
    [
        ("git/oscar/main", True),
        ("git/*/x/y", True),
        ("*", True),
        ("git/oscar/", False),
        ("git/*x", True),
        ("trunk", False),
    ],
)
def test_a_branch_pattern_of_a_site_with_git_alone_needs_a_name_of_gits(pattern: str, can: bool) -> None:
    site = {"git": [{"name": "oscar", "url": "git://h/oscar"}], "worker": [{"name": "w"}]}
    assert can_match(pattern, Site.model_validate(site)) is can


def test_a_login_at_the_repository_needs_its_secret_and_is_in_nothing_that_is_printed(tmp_path: Path) -> None:
    site = SITE.replace('/oscar"\n', '/oscar"\nuser = "farm"\n', 1)
    (said,) = complaints(base(tmp_path, site))
    assert "secrets/svn-password (password of farm at svn://127.0.0.1/oscar) is missing" in said
    (tmp_path / "secrets/svn-password").write_text("hush, this is secret\n")
    (tmp_path / "secrets/svn-password").chmod(0o600)
    (poller,) = load(tmp_path).change_sources
    assert poller._config_kwargs["logins"].of("svn://127.0.0.1/other") is not None
    assert "hush" not in repr(poller._config_kwargs)


def test_a_site_may_have_git_alone_or_beside_subversion(tmp_path: Path) -> None:
    table = '[[git]]\nname = "oscar"\nurl = "git://127.0.0.1/oscar.git"\nmain = "master"\n'
    alone = load(base(tmp_path, table + SITE.partition("\n")[2].partition("\n")[2]))
    assert alone.schedulers["nightly"]._config_kwargs["site"].mains == (
        ("git://127.0.0.1/oscar.git", "git/oscar/master"),
    )
    assert [source.name for source in alone.change_sources] == ["git-oscar"]
    both = load(base(tmp_path, SITE + table))
    assert [source.name for source in both.change_sources] == ["svn", "git-oscar"]


class Connection:
    """As much of a worker's connection as an attachment wants."""

    lost = 0
    ended = 0
    info: dict[str, str] = {}  # noqa: RUF012 (Buildbot's own attribute)

    def __init__(self, *, gone: bool = False) -> None:
        self.mind = SimpleNamespace(broker=SimpleNamespace(disconnected=int(gone)))

    def detached(self, _mind: object) -> None:
        self.ended += 1

    def notifyOnDisconnect(self, _callback: object) -> None:
        """Nobody is told."""

    def loseConnection(self) -> None:
        self.lost += 1


async def _disk_full(**_arguments: object) -> None:
    raise OSError(28, "database or disk is full")


def test_a_worker_that_cannot_be_attached_is_cut_off_so_that_it_comes_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (worker,) = load(base(tmp_path)).workers
    updates = SimpleNamespace(workerConnected=_disk_full)
    master = SimpleNamespace(data=SimpleNamespace(updates=updates), masterid=1)
    monkeypatch.setattr(type(worker), "master", master)
    worker.workerid = 1
    worker.conn = None
    monkeypatch.setattr(log, "err", lambda *_arguments: None)
    connection = Connection()
    defer.maybeDeferred(worker.attached, connection)
    assert connection.lost == 1
    assert connection.ended == 0, "the connection's end tells Buildbot of it"


@pytest.mark.parametrize("error", [None, OSError(28, "database or disk is full")])
@pytest.mark.parametrize("gone", [True, False])
def test_a_worker_whose_connection_ended_while_it_was_attached_does_not_stay_connected(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: OSError | None, gone: bool
) -> None:
    async def attached(_worker: object, _connection: object) -> None:
        if error:
            raise error

    (worker,) = load(base(tmp_path)).workers
    monkeypatch.setattr(AbstractWorker, "attached", attached)
    monkeypatch.setattr(log, "err", lambda *_arguments: None)
    connection = Connection(gone=gone)
    defer.maybeDeferred(worker.attached, connection)
    assert connection.ended == gone
