"""The nights by a fake clock: summer time in both hemispheres, clocks that are set, masters that are off."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from twisted.internet import defer
from twisted.internet.task import Clock

from oscar_steps.master.schedules.clock import OncePerNight, nightly, weekly
from oscar_steps.site import Site

HOUR = 3600.0


@pytest.fixture
def zone(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Sets this process's time zone."""

    def to(name: str) -> None:
        monkeypatch.setenv("TZ", name)
        time.tzset()

    yield to
    monkeypatch.undo()
    time.tzset()


class Asked(OncePerNight):
    """Without a database: it notes when a night was asked for. Buildbot's own timers run it."""

    master: Any = None
    enabled = True

    def __init__(self, clock: Clock, state: dict[str, Any], asked: list[float], *, week: bool = False) -> None:
        schedule = {"hour": clock.night[0], "minute": clock.night[1]}  # type: ignore[attr-defined]
        site = Site.model_validate(
            {"repository": {"url": "svn://h/o"}, "schedule": schedule, "worker": [{"name": "w"}]}
        )
        vars(self).update(vars((weekly if week else nightly)(site, ["cell"])))
        self.site, self.branches, self.serviceid = site, (), 1
        self.hour, self.minute, self.dayOfWeek = *clock.night, 6 if week else "*"  # type: ignore[attr-defined]
        self.state, self.asked, self.actuateOk = state, asked, True
        nothing = SimpleNamespace(flushChangeClassifications=lambda _number: defer.succeed(None))
        self.master = SimpleNamespace(reactor=clock, db=SimpleNamespace(schedulers=nothing))
        self.lastActuated = state.get("night_done", state.get("last_build"))
        self.scheduleNextBuild()

    async def getState(self, name: str, *default: Any) -> Any:
        return self.state.get(name, *default)

    async def setState(self, name: str, value: Any) -> None:
        self.state[name] = value

    async def _do(self, _query: Any, _repository: str, _branch: str, since: float, until: float) -> bool:
        return any(since < asked < until for asked in self.asked)

    async def _test(self, _repository: str, _branch: str) -> None:
        self.asked.append(self.now())


class Master:
    """One that is switched on and off, on a host whose clock may be set."""

    def __init__(self, now: str, night: tuple[int, int] = (2, 30), *, week: bool = False) -> None:
        self.clock, self.week = Clock(), week
        self.clock.night = night  # type: ignore[attr-defined]
        self.clock.rightNow = at(now)
        self.state: dict[str, Any] = {}
        self.asked: list[float] = []
        self.on()

    def on(self) -> None:
        self.scheduler = Asked(self.clock, self.state, self.asked, week=self.week)

    def off(self) -> None:
        for call in self.clock.getDelayedCalls():
            call.cancel()

    def goes_on(self, until: str) -> list[str]:
        """Time passes; the nights until then."""
        before = len(self.asked)
        self.clock.advance(0)
        while (now := self.clock.seconds()) < at(until):
            due = min((call.getTime() for call in self.clock.getDelayedCalls()), default=at(until))
            self.clock.advance(max(0, min(due, at(until)) - now))
        return [shown(asked) for asked in self.asked[before:]]

    def clock_is_set(self, to: str) -> None:
        self.clock.rightNow = at(to)
        self.clock.advance(0)


def at(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


def shown(when: float) -> str:
    """Local time, with its distance from UTC in hours."""
    here = datetime.fromtimestamp(when, UTC).astimezone()
    offset = here.utcoffset()
    assert offset is not None
    return f"{here:%m-%d %H:%M} {offset.total_seconds() / HOUR:+g}"


@pytest.mark.parametrize(
    ("name", "night", "first", "last", "nights"),
    [
        (
            "Europe/Berlin", (2, 30), "2026-10-23T12:00", "2026-10-26T12:00",
            ["10-24 02:30 +2", "10-25 02:30 +2", "10-26 02:30 +1"],
        ),
        (
            "Europe/Berlin", (2, 30), "2027-03-26T12:00", "2027-03-29T12:00",
            ["03-27 02:30 +1", "03-28 03:30 +2", "03-29 02:30 +2"],
        ),
        (
            "Australia/Sydney", (2, 30), "2026-10-02T12:00", "2026-10-05T12:00",
            ["10-03 02:30 +10", "10-04 03:30 +11", "10-05 02:30 +11"],
        ),
        (
            "Australia/Sydney", (2, 30), "2027-04-02T12:00", "2027-04-05T12:00",
            ["04-03 02:30 +11", "04-04 02:30 +11", "04-05 02:30 +10"],
        ),
        (
            "Australia/Lord_Howe", (2, 15), "2026-10-02T12:00", "2026-10-05T12:00",
            ["10-03 02:15 +10.5", "10-04 02:45 +11", "10-05 02:15 +11"],
        ),
        (
            "America/Santiago", (0, 30), "2026-09-04T12:00", "2026-09-07T12:00",
            ["09-05 00:30 -4", "09-06 01:30 -3", "09-07 00:30 -3"],
        ),
        (
            "America/Santiago", (23, 30), "2027-04-02T12:00", "2027-04-05T12:00",
            ["04-02 23:30 -3", "04-03 23:30 -3", "04-04 23:30 -4"],
        ),
    ],
)  # fmt: skip
def test_each_day_has_one_night_also_where_its_hour_comes_never_or_twice(
    zone: Any, name: str, night: tuple[int, int], first: str, last: str, nights: list[str]
) -> None:
    zone(name)
    assert Master(first, night).goes_on(last) == nights


@pytest.mark.parametrize("name", ["Europe/Berlin", "Australia/Sydney", "America/Santiago", "Africa/Cairo", "UTC"])
@pytest.mark.parametrize("night", [(0, 0), (0, 30), (2, 0), (2, 30), (3, 0), (23, 59)])
def test_a_year_has_as_many_nights_as_days(zone: Any, name: str, night: tuple[int, int]) -> None:
    zone(name)
    master = Master("2026-07-01T12:00", night)
    master.goes_on("2027-07-01T12:00")
    assert len(master.asked) == 365
    pauses = [then - before for before, then in zip(master.asked, master.asked[1:], strict=False)]
    assert min(pauses) >= 23 * HOUR
    assert max(pauses) <= 25 * HOUR


def test_the_week_s_night_falls_on_the_sunday_on_which_the_clocks_change(zone: Any) -> None:
    zone("Europe/Berlin")
    master = Master("2027-03-19T12:00", week=True)
    assert master.goes_on("2027-04-05T12:00") == ["03-21 02:30 +1", "03-28 03:30 +2", "04-04 02:30 +2"]


@pytest.mark.parametrize(
    ("back", "nights"),
    [
        ("2026-11-30T02:29:50", ["12-01 02:30 +0"]),
        ("2026-11-30T01:30", ["12-01 02:30 +0"]),
        ("2026-11-28T12:00", ["11-29 02:30 +0", "12-01 02:30 +0"]),
        ("2020-01-01T12:00", ["01-02 02:30 +0", "01-03 02:30 +0"]),
    ],
    ids=["some seconds", "an hour", "days", "years"],
)
def test_a_clock_that_is_set_back_after_a_night_repeats_none_of_that_day_and_stops_none_later(
    zone: Any, back: str, nights: list[str]
) -> None:
    """The 30th has had its night. Where it is set back for long the master is started anew: Twisted's own timers stand
    still until then."""
    zone("UTC")
    master = Master("2026-11-29T12:00")
    assert master.goes_on("2026-11-30T02:30:10") == ["11-30 02:30 +0"]
    master.clock_is_set(back)
    until = "2020-01-03T12:00" if back.startswith("2020") else "2026-12-01T12:00"
    if at(back) > at("2026-11-30"):
        assert master.goes_on("2026-11-30T12:00") == []
    master.off()
    master.on()
    assert master.goes_on(until) == nights


def test_a_host_that_starts_in_1970_and_learns_the_time_then_repeats_no_night(zone: Any) -> None:
    zone("UTC")
    master = Master("2026-11-29T12:00")
    master.goes_on("2026-11-30T08:00")
    master.off()
    master.clock_is_set("1970-01-01T00:01")
    master.on()
    master.clock_is_set("2026-11-30T09:00")
    assert master.goes_on("2026-12-01T12:00") == ["12-01 02:30 +0"]


def test_a_clock_that_jumps_over_days_begins_one_night_at_once_and_no_second(zone: Any) -> None:
    zone("UTC")
    master = Master("2026-11-29T12:00")
    master.clock_is_set("2026-12-03T10:00")
    assert master.goes_on("2026-12-04T12:00") == ["12-04 02:30 +0"]
    assert [shown(asked) for asked in master.asked] == ["12-03 10:00 +0", "12-04 02:30 +0"]


@pytest.mark.parametrize(
    ("on", "nights"),
    [
        ("2026-12-03T09:00", ["12-03 09:00 +0", "12-04 02:30 +0"]),
        ("2026-12-03T14:29", ["12-03 14:29 +0", "12-04 02:30 +0"]),
        ("2026-12-03T15:00", ["12-04 02:30 +0"]),
    ],
    ids=["in the morning", "just in time", "too late"],
)
def test_a_master_that_was_off_for_three_nights_makes_up_for_one(zone: Any, on: str, nights: list[str]) -> None:
    zone("UTC")
    master = Master("2026-11-29T12:00")
    master.goes_on("2026-11-30T12:00")
    master.off()
    master.clock.rightNow = at(on)
    before = len(master.asked)
    master.on()
    master.goes_on("2026-12-04T12:00")
    assert [shown(asked) for asked in master.asked[before:]] == nights


def test_a_night_that_took_long_to_ask_for_keeps_no_branch_from_the_next(zone: Any) -> None:
    """Made up for nearly twelve hours late, its last branch is asked for minutes later."""
    zone("UTC")
    master = Master("2026-11-29T12:00")
    master.off()
    master.state["last_build"] = at("2026-11-29T02:30")
    master.clock.rightNow = at("2026-11-30T14:29")

    async def slow(_repository: str, _branch: str) -> None:
        master.clock.rightNow += 300
        master.asked.append(master.clock.seconds())

    master.on()
    master.scheduler._test = slow  # type: ignore[method-assign]
    assert master.goes_on("2026-12-01T12:00") == ["11-30 14:34 +0", "12-01 02:35 +0"]
    assert timedelta(seconds=master.asked[1] - master.asked[0]) > timedelta(hours=12)
