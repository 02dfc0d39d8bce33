"""Why cells wait is on their pages, and once a night in the operator's mail."""

from __future__ import annotations

import asyncio
import time
from datetime import datetime
from types import SimpleNamespace
from typing import Any

import pytest
from buildbot.process.results import SKIPPED

from oscar_steps.master.reports import queue
from oscar_steps.master.reports.queue import QueueNotes, mail_of, next_mail
from oscar_steps.master.waiting import WaitingCell, quiet_cells

NIGHT = (2, 30)
ARM = WaitingCell("arm", 1, 0.0, stuck=True, why="no connected worker can take it: w1 has no aarch64\x1b[0m")
FULL = WaitingCell("full", 2, 0.0, stuck=False, why="w1 is full: 2 of 2 clusters")


def at(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> dict[int, Any]:
    """What the pages of builders say, by the builders' ids."""
    pages: dict[int, Any] = {}

    async def describe(_master: Any, wanted: dict[int, Any]) -> None:
        pages.update(wanted)

    monkeypatch.setattr(queue, "describe_builders", describe)
    return pages


@pytest.fixture
def mails(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    sent: list[tuple[str, str]] = []
    monkeypatch.setattr(queue, "notify_operator", lambda _master, subject, text: sent.append((subject, text)))
    return sent


def notes(monkeypatch: pytest.MonkeyPatch, *names: str) -> QueueNotes:
    def builder(number: int) -> Any:
        async def number_of() -> int:
            return number

        return SimpleNamespace(config=SimpleNamespace(description="OSCAR"), getBuilderId=number_of)

    service = QueueNotes(night=NIGHT)
    of_name = {name: builder(number) for number, name in enumerate(names)}
    monkeypatch.setattr(QueueNotes, "master", SimpleNamespace(botmaster=SimpleNamespace(builders=of_name)))
    asyncio.run(service.reconfigService(NIGHT))
    return service


def waits(monkeypatch: pytest.MonkeyPatch, *cells: WaitingCell, behind: tuple[str, ...] = ()) -> None:
    async def found(_master: Any) -> Any:
        return [*cells], [*behind]

    monkeypatch.setattr(queue, "waiting_cells", found)


@pytest.mark.usefixtures("mails")
def test_the_page_of_a_cell_says_why_it_waits_until_it_does_not(
    monkeypatch: pytest.MonkeyPatch, written: dict[int, Any]
) -> None:
    service = notes(monkeypatch, "arm", "last", "idle")
    waits(monkeypatch, ARM, behind=("last",))
    asyncio.run(service.look())
    assert written[0].startswith("OSCAR. Waits: no connected worker can take it: w1 has no aarch64")
    assert "\x1b" not in written[0]
    assert (written[1], written[2]) == ("OSCAR. Waits behind 100 other cells.", "OSCAR")
    waits(monkeypatch)
    asyncio.run(service.look())
    assert {*written.values()} == {"OSCAR"}


@pytest.mark.usefixtures("written")
def test_what_waits_after_the_night_is_one_mail_a_day_and_none_where_nothing_waits(
    monkeypatch: pytest.MonkeyPatch, mails: list[tuple[str, str]]
) -> None:
    now = [at("2026-11-30T03:00")]
    monkeypatch.setattr(time, "time", lambda: now[0])
    service = notes(monkeypatch, "arm")
    waits(monkeypatch, ARM, FULL)
    for moment, sent in (("30T03:01", 0), ("30T07:31", 1), ("30T07:32", 1), ("30T23:59", 1)):
        now[0] = at(f"2026-11-{moment}")
        asyncio.run(service.look())
        assert len(mails) == sent, moment
    now[0] = at("2026-12-01T07:31")
    waits(monkeypatch)
    asyncio.run(service.look())
    assert len(mails) == 1


def test_the_mail_has_cells_without_a_worker_first() -> None:
    subject, text = mail_of([FULL, ARM], ["a", "b"])
    assert subject == "after the night 4 cells wait, 1 of them for a worker that can take it"
    assert text.index("arm (1 build): no connected worker") < text.index("full (2 builds): w1 is full")
    assert text.rstrip().endswith("... and 2 more")
    assert mail_of([FULL], [])[0] == "after the night 1 cell waits"
    assert "had no night" not in text
    assert "These had no night, because nothing had changed: a, b.\n" in mail_of([FULL], [], ["a", "b"])[1]


def test_a_cell_without_a_night_is_one_that_was_skipped_since_the_night_began() -> None:
    ended = {number: datetime.fromtimestamp(time.time() - hours * 3600) for number, hours in ((1, 1), (2, 6), (3, 2))}

    async def get(_path: Any, filters: Any, **_more: Any) -> list[dict[str, Any]]:
        assert (filters[0].field, filters[0].values) == ("results", [SKIPPED])
        return [{"builderid": number, "complete_at": when} for number, when in ended.items()]

    names = {1: SimpleNamespace(name="b"), 2: SimpleNamespace(name="old"), 3: None}
    master = SimpleNamespace(data=SimpleNamespace(get=get), botmaster=SimpleNamespace(getBuilderById=names.get))
    assert asyncio.run(quiet_cells(master, 5 * 3600)) == ["b"]


def test_the_mail_comes_five_hours_after_the_night_s_begin_also_where_that_is_the_next_day() -> None:
    assert next_mail(NIGHT, at("2026-11-30T07:29")) == at("2026-11-30T07:30")
    assert next_mail(NIGHT, at("2026-11-30T07:30")) == at("2026-12-01T07:30")
    assert next_mail((22, 0), at("2026-11-30T01:00")) == at("2026-11-30T03:00")


def test_a_look_that_fails_is_logged_and_the_next_one_follows(
    monkeypatch: pytest.MonkeyPatch, written: dict[int, Any], mails: list[tuple[str, str]]
) -> None:
    service = notes(monkeypatch, "arm")

    async def broken(_master: Any) -> Any:
        raise OSError("the database is away")

    said: list[str] = []
    monkeypatch.setattr(queue.log, "err", lambda _error, words: said.append(words))
    monkeypatch.setattr(queue, "waiting_cells", broken)
    asyncio.run(service.look())
    assert (said, written, mails) == (["why cells wait could not be noted"], {}, [])
