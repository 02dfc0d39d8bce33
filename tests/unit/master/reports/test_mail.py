"""The mail of the farm: it goes out, also where the relay is away for a while, and it goes out once."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest
from twisted.internet import defer, reactor, task, threads
from twisted.python import log

from demo.mailsink import _BoundController
from oscar_steps.addresses import address_fault
from oscar_steps.master.operator_mail import MAIL_SERVICE, notify, notify_operator
from oscar_steps.master.reports.mail import OscarMail, oscar_mail
from oscar_steps.master.reports.relay import Relay, Reply
from oscar_steps.master.reports.spool import Letter, Reported, Spool
from oscar_steps.master.schedules.clock import nightly
from oscar_steps.site import Mail, Site


def master_with(services: dict[str, Any]) -> Any:
    return SimpleNamespace(service_manager=SimpleNamespace(namedServices=services))


@pytest.fixture
def logged() -> Any:
    said: list[str] = []

    def keep(event: dict[str, Any]) -> None:
        said.append(log.textFromEventDict(event) or "")

    log.addObserver(keep)
    yield said
    log.removeObserver(keep)


def test_a_word_to_the_operator_goes_to_the_mail_service() -> None:
    told: list[tuple[str, str]] = []

    def take(subject: str, text: str) -> bool:
        told.append((subject, text))
        return True

    service = SimpleNamespace(notify_operator=take)
    notify_operator(master_with({MAIL_SERVICE: service}), "the poller is deaf", "no password")
    assert told == [("the poller is deaf", "no password")]


def test_of_many_unusable_addresses_the_operator_hears_in_one_mail_and_of_each_once() -> None:
    told: list[tuple[str, str]] = []
    service = SimpleNamespace(notify_operator=lambda *words: told.append(words) or True)
    mail: Any = SimpleNamespace(master=master_with({MAIL_SERVICE: service}), _notified={"old"})
    faults = {"old": "no address"} | {f"login{n}": f"{n} is no address" for n in range(500)}
    for _ in range(2):
        OscarMail.tell_of_bad_logins(mail, faults)
    [(subject, text)] = told
    assert subject == "500 committers have no usable mail address"
    assert "0 is no address (the login 'login0')\n" in text and "... and 470 more\n" in text and "'old'" not in text
    OscarMail.tell_of_bad_logins(mail, {"new": "no address"})
    assert told[1][0] == "a committer has no usable mail address"


@pytest.mark.parametrize("runs", [True, False])
def test_who_has_a_mail_for_somebody_learns_whether_the_mail_service_runs(runs: bool) -> None:
    service = SimpleNamespace(notify=lambda *_words, **_how: runs)
    assert notify(master_with({MAIL_SERVICE: service}), "5.1", "text", ["rm@x.org"], operator=False) is runs
    assert notify(master_with({}), "5.1", "text", ["rm@x.org"], operator=False), "in the log, where there is no mail"


@pytest.mark.parametrize("master", [master_with({}), None], ids=["no mail", "no master"])
def test_a_word_to_the_operator_without_mail_goes_to_the_log(master: Any, logged: list[str]) -> None:
    notify_operator(master, "the poller is deaf", "no password")
    assert logged[-1] == "message to the operator (no mail was sent): the poller is deaf: no password"


class FakeRelay:
    """A real SMTP server on the loopback interface that can go away and come back on its port."""

    def __init__(self) -> None:
        self.port = 0
        self.mails: list[tuple[list[str], bytes]] = []
        self.answers: dict[str, str] = {}
        self._controller: Any = None

    def start(self) -> None:
        bound = socket.create_server(("127.0.0.1", self.port))
        self.port = bound.getsockname()[1]
        self._controller = _BoundController(self, bound)
        self._controller.start()

    def stop(self) -> None:
        if self._controller:
            self._controller.stop()
            self._controller = None

    async def handle_RCPT(self, _server: Any, _session: Any, envelope: Any, address: str, _options: Any) -> str:
        answer = self.answers.get(address, "250 OK")
        if answer.startswith("250"):
            envelope.rcpt_tos.append(address)
        return answer

    async def handle_DATA(self, _server: Any, _session: Any, envelope: Any) -> str:
        answer = self.answers.get("DATA", "250 kept")
        if answer.startswith("250"):
            self.mails.append((envelope.rcpt_tos, envelope.content))
        return answer


@pytest.fixture(scope="module", autouse=True)
def reactor_thread() -> Iterator[None]:
    thread = threading.Thread(target=reactor.run, kwargs={"installSignalHandlers": False}, daemon=True)
    thread.start()
    yield
    reactor.callFromThread(reactor.crash)
    thread.join(20)


@pytest.fixture
def relay() -> Iterator[FakeRelay]:
    made = FakeRelay()
    made.start()
    yield made
    made.stop()


@pytest.fixture
def spools(relay: FakeRelay) -> Iterator[Any]:
    made: list[Spool] = []
    refused: list[tuple[str, str]] = []

    def make(folder: Path, seconds: float = 1000) -> Spool:
        def begin() -> Spool:
            spool = Spool(
                folder,
                Relay("127.0.0.1", relay.port).send,
                reactor,
                lambda _letter, to, reason: refused.append((to, reason)),
                delays=(0.05, 0.1),
                seconds=seconds,
            )
            spool.wake()
            return spool

        made.append(threads.blockingCallFromThread(reactor, begin))
        return made[-1]

    make.refused = refused  # type: ignore[attr-defined]
    yield make
    for spool in made:
        threads.blockingCallFromThread(reactor, spool.stop)


def letter(*recipients: str, name: str = "one", report: bool = False) -> Letter:
    content = b"Message-ID: <%b@farm>\nSubject: s\n\n.a dot\n" % name.encode()
    return Letter(name, "farm@localhost", recipients, content, subject="s", report=report)


def add(spool: Spool, mail: Letter) -> None:
    threads.blockingCallFromThread(reactor, spool.add, mail)


def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline, "not within 20 s"
        time.sleep(0.01)


def test_a_mail_goes_out_at_once_and_its_file_is_removed(tmp_path: Path, relay: FakeRelay, spools: Any) -> None:
    spool = spools(tmp_path / "spool")
    add(spool, letter("root@localhost", "a@x.org"))
    until(lambda: spool.waiting() == 0)
    assert [to for to, _content in relay.mails] == [["root@localhost", "a@x.org"]]
    assert b"\r\n.a dot" in relay.mails[0][1]
    until(lambda: not list((tmp_path / "spool").glob("*.mail")))
    assert (tmp_path / "spool").stat().st_mode & 0o777 == 0o700


def test_a_relay_that_is_away_gets_every_mail_once_when_it_is_back(
    tmp_path: Path, relay: FakeRelay, spools: Any
) -> None:
    relay.stop()
    spool = spools(tmp_path / "spool")
    for number in range(3):
        add(spool, letter("a@x.org", name=f"m{number}"))
    until(lambda: spool.trouble)
    assert spool.waiting() == 3
    assert abs((spool.oldest() or 0) - time.time()) < 60
    relay.start()
    until(lambda: spool.waiting() == 0)
    assert len(relay.mails) == 3
    assert spool.oldest() is None
    assert spool.trouble == ""


def test_a_mail_outlives_the_master_with_its_message_id(tmp_path: Path, relay: FakeRelay, spools: Any) -> None:
    relay.stop()
    first = spools(tmp_path / "spool")
    add(first, letter("a@x.org"))
    until(lambda: first.trouble)
    threads.blockingCallFromThread(reactor, first.stop)
    relay.start()
    second = spools(tmp_path / "spool")
    until(lambda: second.waiting() == 0)
    assert [b"<one@farm>" in content for _to, content in relay.mails] == [True]


def test_each_recipient_has_an_answer_of_its_own(tmp_path: Path, relay: FakeRelay, spools: Any) -> None:
    relay.answers = {"later@x.org": "451 greylisted", "never@x.org": "550 no such user"}
    spool = spools(tmp_path / "spool")
    add(spool, letter("now@x.org", "later@x.org", "never@x.org"))
    until(lambda: relay.mails)
    until(lambda: spools.refused)
    assert spools.refused == [("never@x.org", "550 no such user")]
    assert spool.waiting() == 1
    relay.answers = {}
    until(lambda: spool.waiting() == 0)
    assert [to for to, _content in relay.mails] == [["now@x.org"], ["later@x.org"]]


@pytest.mark.parametrize(("answer", "seconds"), [("554 no", 1000), ("451 later", 0)], ids=["5xx", "days over"])
def test_a_mail_that_is_refused_for_good_is_given_up_and_told(
    tmp_path: Path, relay: FakeRelay, spools: Any, answer: str, seconds: float
) -> None:
    relay.answers = {"DATA": answer}
    spool = spools(tmp_path / "spool", seconds)
    add(spool, letter("a@x.org"))
    until(lambda: spool.waiting() == 0)
    until(lambda: spools.refused)
    assert [to for to, _reason in spools.refused] == ["a@x.org"]
    assert not list((tmp_path / "spool").glob("*.mail"))


NO_TIME = b'{"sender": "a@b", "recipients": ["c@d"], "spooled": %b}\nx'


@pytest.mark.parametrize(
    "content",
    [b"", b"\0" * 40, b'{"sender": "a@b"}\nx', b"[]\nx", b"\xff\nx", b"[" * 100_000 + b"\nx", b"x" * 10_000_000]
    + [NO_TIME % time for time in (b"1e999", b"NaN", b"9" * 400, b"[]")],
    ids=range(11),
)
def test_a_spooled_mail_that_cannot_be_read_holds_up_no_other(
    tmp_path: Path, relay: FakeRelay, spools: Any, content: bytes
) -> None:
    folder = tmp_path / "spool"
    folder.mkdir()
    (folder / "a.mail").write_bytes(content)
    (folder / "b.mail").write_bytes(letter("a@x.org").to_bytes())
    spool = spools(folder)
    until(lambda: spool.waiting() == 0)
    assert len(relay.mails) == 1
    assert (folder / "broken" / "a.mail").read_bytes() == content


def test_a_spooled_mail_that_is_no_file_holds_up_neither_the_start_nor_another(
    tmp_path: Path, relay: FakeRelay, spools: Any
) -> None:
    folder = tmp_path / "spool"
    (folder / "a.mail").mkdir(parents=True)
    os.mkfifo(folder / "b.mail")
    (folder / "c.mail").symlink_to("c.mail")
    (folder / "d.mail").symlink_to("/dev/zero")
    (folder / "e.mail").write_bytes(letter("a@x.org").to_bytes())
    spool = spools(folder)
    until(lambda: spool.waiting() == 0)
    assert len(relay.mails) == 1
    assert sorted(path.name for path in (folder / "broken").iterdir()) == ["a.mail", "b.mail", "c.mail", "d.mail"]


SPOILED = [b"", b"\0", b"[]", b"5", b"{}", b"[" * 100_000, b'{"upto": 1e999, "beyond": []}', b"x" * 10_000_000]


@pytest.mark.parametrize("content", [*SPOILED, "folder", "pipe"], ids=range(10))
def test_a_memory_of_reports_that_is_spoiled_begins_anew(tmp_path: Path, content: bytes | str) -> None:
    path = tmp_path / "reported.json"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content == "folder":
        (path / "in it").mkdir(parents=True)
    else:
        os.mkfifo(path)
    reported = Reported.load(path)
    assert not reported.known
    reported.begin(5)
    assert reported.saved
    assert 5 in Reported.load(path)


def test_a_full_disk_loses_no_mail(
    tmp_path: Path, relay: FakeRelay, spools: Any, logged: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_what: Any, **_mode: Any) -> None:
        raise OSError(28, "No space left on device")

    spool = spools(tmp_path / "spool")
    with monkeypatch.context() as patch:
        patch.setattr("oscar_steps.master.reports.spool.write_atomically", full)
        add(spool, letter("a@x.org", report=True))
        until(lambda: sum("No space left" in line for line in logged) > 1)
        assert spool.waiting() == 1
        assert not relay.mails
    until(lambda: spool.waiting() == 0)
    assert len(relay.mails) == 1


def test_a_spool_that_cannot_be_made_at_the_start_is_made_later(
    tmp_path: Path, relay: FakeRelay, spools: Any, logged: list[str]
) -> None:
    (tmp_path / "spool").write_text("in the way")
    spool = spools(tmp_path / "spool")
    add(spool, letter("a@x.org", report=True))
    until(lambda: sum("cannot be spooled" in line for line in logged) > 1)
    (tmp_path / "spool").unlink()
    until(lambda: spool.waiting() == 0)
    assert len(relay.mails) == 1


def test_the_spool_remembers_over_restarts_which_builds_were_reported(tmp_path: Path) -> None:
    reported = Reported.load(tmp_path / "reported.json")
    assert not reported.known
    reported.begin(5)
    reported.add(7)
    again = Reported.load(tmp_path / "reported.json")
    assert [again.known, *(build in again for build in (4, 6, 7, 8))] == [True, True, False, True, False]
    again.add(6)
    assert (again.upto, again.beyond) == (7, set())


GOOD = ["root@localhost", "a.b+c@x.org", "o_x@a-b.example"]
BAD = ["", "@x", "a@", "jürgen@x.org", "jane doe@x.org", "a\n@x.org", "a@x.org\n", "a,b@c.org", "<x@y>", "a;b@x.org"]
BAD += ["$(id)@x.org", "a\0@x.org", "-oQ@x.org", "a@x..org", "a@b@c.org", "a@x,y", "a" * 65 + "@x.org", "`a`@x", "a@é"]


def test_an_address_is_good_or_has_one_printable_sentence() -> None:
    assert [address_fault(address) for address in GOOD] == [None] * len(GOOD)
    faults = [address_fault(address) or "" for address in BAD]
    assert all(fault and fault.isascii() and fault.isprintable() for fault in faults), faults


class OneReport:
    """Tells of every build."""

    wanted_event_keys: ClassVar[list[Any]] = [("builds", None, "finished")]

    async def generate(self, _master: Any, _reporter: Any, _key: Any, build: dict[str, Any]) -> dict[str, Any]:
        return {"subject": f"build {build['buildid']}", "body": "x", "users": ["a@x.org"], "builds": [build]}


def mail_service(spool: Spool, builds: list[dict[str, Any]]) -> OscarMail:
    async def get(_path: Any, filters: Any) -> list[dict[str, Any]]:
        return [build for build in builds if build["buildid"] > filters[0].values[0]]

    site = Mail.model_validate({"from": "f@localhost", "operator": "root@localhost"})
    service = oscar_mail(site, ("cell",))
    service.parent = SimpleNamespace(master=SimpleNamespace(data=SimpleNamespace(get=get)))
    service.generators = [OneReport()]
    service.fromaddr, service.operator, service.relayhost = site.sender, site.operator, "relay"
    service.spool, service._notified = spool, set()
    return service


def in_reactor(function: Callable[..., Any], *arguments: Any) -> Any:
    return threads.blockingCallFromThread(
        reactor, lambda: defer.maybeDeferred(lambda: defer.ensureDeferred(function(*arguments)))
    )


def test_a_build_that_ended_when_the_master_was_killed_is_reported_once(
    tmp_path: Path, relay: FakeRelay, spools: Any
) -> None:
    builds = [
        {"buildid": n, "number": n, "complete": n != 5, "results": 2, "builder": {"name": "cell"}, "buildrequestid": n}
        for n in range(1, 6)
    ]
    spool = spools(tmp_path / "spool")
    threads.blockingCallFromThread(reactor, spool.reported.begin, 2)
    threads.blockingCallFromThread(reactor, spool.reported.add, 4)
    service = mail_service(spool, builds)
    for _start in range(2):
        in_reactor(service._catch_up, spool)
    in_reactor(service._got_event, ("builds", "3", "finished"), builds[2])
    until(lambda: spool.waiting() == 0)
    assert [b"Subject: build 3" in content for _to, content in relay.mails] == [True]
    assert Reported.load(tmp_path / "spool/reported.json").upto == 4


def test_a_mail_with_an_error_that_nobody_thought_of_waits_and_holds_up_no_other(tmp_path: Path) -> None:
    clock, attempts = task.Clock(), list[str]()

    async def send(_sender: str, recipients: Any, _content: bytes) -> dict[str, Reply]:
        attempts.append(recipients[0])
        if attempts.count("a@x.org") in range(1, 5) and recipients[0] == "a@x.org":
            raise UnicodeError("label too long")
        return {recipients[0]: Reply(250, "accepted")}

    spool = Spool(tmp_path / "spool", send, clock, lambda *_of: None, delays=(30.0,))
    spool.add(letter("a@x.org"))
    spool.add(letter("b@x.org", name="two"))
    clock.advance(0)
    assert (attempts, spool.waiting()) == (["a@x.org", "b@x.org"], 1)
    clock.advance(30)
    assert (len(attempts), spool.waiting()) == (3, 1)
    assert "label too long" in spool.trouble
    clock.pump([30.0] * 3)
    assert (len(attempts), spool.waiting(), spool.trouble) == (6, 0, "")


def test_a_report_that_was_spooled_when_the_master_was_killed_is_not_made_again_once_it_has_gone_out(
    tmp_path: Path, relay: FakeRelay, spools: Any
) -> None:
    builds = [
        {"buildid": 3, "number": 3, "complete": True, "results": 2, "builder": {"name": "cell"}, "buildrequestid": 3}
    ]
    folder = tmp_path / "spool"
    folder.mkdir()
    Reported(folder / "reported.json").begin(2)
    (folder / "build-000000003.mail").write_bytes(letter("a@x.org", report=True).to_bytes())
    spool = spools(folder)
    until(lambda: spool.waiting() == 0)  # the relay is faster than the database
    in_reactor(mail_service(spool, builds)._catch_up, spool)
    until(lambda: spool.waiting() == 0)
    assert len(relay.mails) == 1
    assert Reported.load(folder / "reported.json").upto == 3


def test_the_operator_hears_once_of_a_refused_address_and_never_of_the_own(
    tmp_path: Path, relay: FakeRelay, spools: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    spool = spools(tmp_path / "spool")
    service = mail_service(spool, [])
    monkeypatch.setattr(OscarMail, "master", master_with({MAIL_SERVICE: service}), raising=False)
    spool.refused = service._refused
    relay.answers = {"dead@x.org": "550 no such user"}
    for name in ("m1", "m2"):
        add(spool, letter("dead@x.org", name=name))
    until(lambda: spool.waiting() == 0)
    assert [to for to, _content in relay.mails] == [["root@localhost"]]
    relay.answers = {"root@localhost": "550 no such user"}
    assert threads.blockingCallFromThread(reactor, service.notify_operator, "the poller is deaf", "x")
    until(lambda: "mail to the operator root@localhost is refused: 550" in spool.trouble)
    assert spool.waiting() == 0
    assert len(relay.mails) == 1


@pytest.fixture
def berlin(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with monkeypatch.context() as patch:
        patch.setenv("TZ", "Europe/Berlin")
        time.tzset()
        yield
    time.tzset()


def scheduler() -> Any:
    """The farm's nightly scheduler, as its configuration makes it."""
    site = Site.model_validate({"repository": {"url": "svn://h/oscar"}, "worker": [{"name": "w"}]})
    made = nightly(site, ["cell"])
    made.hour, made.minute = site.schedule.hour, site.schedule.minute
    made.dayOfMonth = made.month = made.dayOfWeek = "*"
    return made


@pytest.mark.parametrize(
    ("day_before", "runs"),
    [
        ("2026-10-24T02:30+02:00", ["2026-10-25T02:30+02:00", "2026-10-26T02:30+01:00", "2026-10-27T02:30+01:00"]),
        ("2026-03-28T02:30+01:00", ["2026-03-29T03:30+02:00", "2026-03-30T02:30+02:00", "2026-03-31T02:30+02:00"]),
        ("2026-12-31T02:30+01:00", ["2027-01-01T02:30+01:00", "2027-01-02T02:30+01:00"]),
    ],
    ids=["summer time ends", "summer time begins", "new year"],
)
@pytest.mark.usefixtures("berlin")
def test_the_night_has_one_run_also_when_the_clock_is_put_forward_or_back(day_before: str, runs: list[str]) -> None:
    night = scheduler()
    last = datetime.fromisoformat(day_before).timestamp()
    for run in runs:
        following: list[float] = []
        night.getNextBuildTime(last).addCallback(following.append)
        assert following == [datetime.fromisoformat(run).timestamp()]
        last = following[0]


@pytest.mark.usefixtures("berlin")
def test_a_master_that_starts_in_the_doubled_hour_makes_no_second_run() -> None:
    night = scheduler()
    night.now = lambda: datetime.fromisoformat("2026-10-25T02:10+01:00").timestamp()
    following: list[float] = []
    night.getNextBuildTime(None).addCallback(following.append)
    assert following == [datetime.fromisoformat("2026-10-26T02:30+01:00").timestamp()]


def test_a_mail_with_a_name_of_its_own_goes_out_once_whatever_its_maker_forgot(
    tmp_path: Path, relay: FakeRelay, spools: Any
) -> None:
    """As that of a search: the master was killed when the mail had gone out, and the database did not know that yet."""
    folder = tmp_path / "spool"
    for _start in range(2):
        spool = spools(folder)
        service = mail_service(spool, [])
        for name in ("bisect-5", "bisect-5", ""):
            threads.blockingCallFromThread(
                reactor,
                lambda: service.notify("s", "text", ["a@x.org"], operator=False, name=name),  # noqa: B023
            )
        until(lambda: spool.waiting() == 0)  # noqa: B023
        threads.blockingCallFromThread(reactor, spool.stop)
    assert len(relay.mails) == 1 + 2
    assert [path.name for path in folder.glob("*.sent")] == ["bisect-5.sent"]
    month_ago = time.time() - 31 * 86400
    os.utime(folder / "bisect-5.sent", (month_ago, month_ago))
    spools(folder)
    assert not list(folder.glob("*.sent"))
