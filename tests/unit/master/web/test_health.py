"""What the health page says, and when the operator hears of a full disk."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from twisted.internet import defer
from twisted.internet.error import ConnectionDone
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.web.test.requesthelper import DummyRequest

from oscar_steps.master.operator_mail import MAIL_SERVICE
from oscar_steps.master.watch.svn import FarmPoller
from oscar_steps.master.web import health


class Masters:
    error: Exception | None = None

    async def getMasters(self) -> list[Any]:
        if self.error:
            raise self.error
        return []


@pytest.fixture
def master(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(health, "free_mib", lambda _folder: 5000)
    poller = FarmPoller.__new__(FarmPoller)
    poller.last_success = 12.0
    spool = SimpleNamespace(trouble="", waiting=lambda: 0, oldest=lambda: None)
    told: list[str] = []
    mail = SimpleNamespace(spool=spool, notify_operator=lambda subject, _text: told.append(subject) or True)
    return SimpleNamespace(
        basedir=tmp_path,
        change_svc=[poller],
        service_manager=SimpleNamespace(
            namedServices={MAIL_SERVICE: mail, health.DISK_SERVICE: SimpleNamespace(disk_mib=2048)}
        ),
        db=SimpleNamespace(masters=Masters()),
        workers=SimpleNamespace(workers={"w": SimpleNamespace(conn=object())}),
        told=told,
    )


def page(master: Any, **args: list[bytes]) -> tuple[int, str]:
    request = DummyRequest([b""])
    request.args = {name.encode(): value for name, value in args.items()}
    health.HealthPage(master).render_GET(request)
    return request.responseCode, b"".join(request.written).decode()


def test_a_farm_that_is_well_is_good_and_200(master: Any) -> None:
    code, body = page(master)
    assert (code, json.loads(body)["state"]) == (200, "good")
    assert page(master, format=[b"text"])[1].splitlines()[:2] == ["good", "poller: good"]


def _deaf(master: Any) -> None:
    master.change_svc[0].trouble = "the repository does not\nanswer"


def _relay(master: Any) -> None:
    master.service_manager.namedServices[MAIL_SERVICE].spool.trouble = "the relay took nothing"


def _stopped(master: Any) -> None:
    master.service_manager.namedServices[MAIL_SERVICE].spool = None


def _full(master: Any) -> None:
    master.service_manager.namedServices[health.DISK_SERVICE].disk_mib = 5001


def _locked(master: Any) -> None:
    master.db.masters.error = RuntimeError("postgresql://farm:secret@h/f is away")


def _away(master: Any) -> None:
    master.workers.workers["w2"] = SimpleNamespace(conn=None)


@pytest.mark.parametrize(
    ("spoil", "line"),
    [
        (_deaf, "poller: the repository does not answer"),
        (_relay, "spool: the relay took nothing"),
        (_stopped, "spool: the mail service does not run"),
        (_full, "disk: 5000 MiB are free; there should be 5001 MiB"),
        (_locked, "database: a query failed: RuntimeError"),
        (_away, "workers: not connected: w2"),
    ],
)
def test_each_part_in_trouble_makes_the_farm_troubled_and_says_so_in_its_line(
    master: Any, spoil: Any, line: str
) -> None:
    spoil(master)
    code, body = page(master, format=[b"text"])
    assert code == 503
    word, *lines = body.splitlines()
    assert word == "troubled"
    assert [said for said in lines if not said.endswith(": good")] == [line]


class Broken:
    """Every use of it is an error that nobody expected."""

    def __getattr__(self, name: str) -> Any:
        raise RuntimeError("secret")

    def __iter__(self) -> Any:
        raise RuntimeError("secret")


@pytest.mark.parametrize(
    ("part", "attribute"),
    [
        ("poller", "change_svc"),
        ("spool", "service_manager"),
        ("disk", "service_manager"),
        ("database", "db"),
        ("workers", "workers"),
    ],
)
def test_an_unexpected_error_in_a_part_is_an_answer_that_names_the_part_and_keeps_the_error_to_itself(
    master: Any, part: str, attribute: str
) -> None:
    setattr(master, attribute, Broken())
    code, body = page(master)
    assert code == 503
    assert json.loads(body)["state"] == "troubled"
    assert "RuntimeError" in json.loads(body)[part]["trouble"]
    assert "secret" not in body
    assert page(master, format=[b"text"])[1].splitlines()[0] == "troubled"


def test_a_monitor_that_goes_away_while_the_database_is_asked_is_no_error(master: Any) -> None:
    master.db.masters.getMasters = defer.Deferred
    request = DummyRequest([b""])
    request.args = {}
    health.HealthPage(master).render_GET(request)
    request.processingFailed(Failure(ConnectionDone()))
    assert not request.written


def test_a_database_that_never_answers_is_told_after_a_deadline(master: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    monkeypatch.setattr(health, "reactor", clock)
    master.db.masters.getMasters = defer.Deferred
    request = DummyRequest([b""])
    request.args = {b"format": [b"text"]}
    health.HealthPage(master).render_GET(request)
    clock.advance(9)
    assert not request.written
    clock.advance(2)
    assert request.responseCode == 503
    assert b"database: a query failed: timed out after 10 s" in b"".join(request.written)


def test_the_operator_hears_once_of_a_full_disk_and_once_that_it_is_good_again(
    master: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    watch = health.DiskWatch(disk_mib=1000)
    watch.disk_mib = 1000
    monkeypatch.setattr(health.DiskWatch, "master", master)
    for free in (1000, 999, 10, 1001, 999, 1100, 2000):
        monkeypatch.setattr(health, "free_mib", lambda _folder, free=free: free)
        watch.look()
    assert master.told == ["the master's disk is nearly full", "the master's disk has enough free space again"]
