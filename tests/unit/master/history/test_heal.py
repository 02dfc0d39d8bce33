"""Known issues that heal, and what of the history is on the page."""

from __future__ import annotations

import asyncio
import dataclasses
import datetime
import json
import time
from types import SimpleNamespace
from typing import Any

import pytest
import sqlalchemy as sa

from oscar_steps.master.history import heal, table
from oscar_steps.master.history.heal import IssueState, healed_lines, issue_states
from oscar_steps.master.history.record import Result
from oscar_steps.master.history.store import HISTORY_SERVICE
from oscar_steps.master.history.table import Flake, Rate
from oscar_steps.master.web import standing_page
from oscar_steps.master.web.standing_page import Past, html_of, past_of
from oscar_steps.oscar.known import KnownIssue

NOTHING: dict[str, Any] = {"trouble": "", "branches": {}, "begun_anew": 0.0}


def issue(reference: str, expires: str = "2099-01-01") -> KnownIssue:
    day = datetime.date.fromisoformat(expires)
    return KnownIssue(text="the old library", reference=reference, expires=day, note="a note")


def result(build: int, outcome: str = "passed", **more: Any) -> Result:
    plain = Result(
        build=build,
        number=build,
        request=build,
        cell="cell",
        branch="trunk",
        identity=f"id{build}",
        source=f"r{build}",
        url="svn://svn/oscar/trunk",
        revision=str(build),
        outcome=outcome,
        ended=time.time() - 86400 * (10 - build),
    )
    return dataclasses.replace(plain, **more)


def a_master(issues: tuple[KnownIssue, ...], *results: Result) -> Any:
    engine = sa.create_engine("sqlite://", poolclass=sa.pool.StaticPool)
    table.create(engine)
    with engine.connect() as connection:
        table.add(connection, results)

    async def do(question: Any, *arguments: Any, **settings: Any) -> Any:
        with engine.connect() as connection:
            return question(connection, *arguments, **settings)

    services = {HISTORY_SERVICE: SimpleNamespace(issues=issues)}
    return SimpleNamespace(
        db=SimpleNamespace(pool=SimpleNamespace(do=do)), service_manager=SimpleNamespace(namedServices=services)
    )


def shows(build: int, cell: str = "cell") -> Result:
    return result(build, "failed", cell=cell, known=("T1",))


def state(*results: Result) -> IssueState:
    (found,) = asyncio.run(issue_states(a_master((issue("T1"),), *results)))
    return found


def test_an_issue_is_open_until_every_cell_that_has_shown_it_has_passed_since() -> None:
    seen = [shows(1), shows(2, "other"), shows(3), result(4)]
    still = state(*seen)
    assert (still.cells, still.cured, still.count) == (("other",), None, 3)
    assert still.words.startswith("open in other: seen 3 times, first on ")
    healed = state(*seen, result(5), result(6, cell="other"), result(7, cell="other"))
    assert healed.cured is not None
    assert (healed.cells, healed.cured.build) == ((), 6)
    assert healed.words.startswith("healed by r6 in other on ")
    assert "(r1), last on " in healed.words
    assert healed.words.endswith("(r3)")


def test_an_issue_that_comes_back_is_open_again() -> None:
    assert state(shows(1), result(2)).cured is not None
    assert state(shows(1), result(2), shows(3)).cured is None


def test_an_issue_that_has_not_shown_says_so_and_one_past_its_day_is_expired() -> None:
    master = a_master((issue("T1", "2026-01-01"),))
    (found,) = asyncio.run(issue_states(master))
    assert (found.words, found.expired) == ("it has not shown yet", True)


def test_the_night_s_mail_names_what_has_healed_since_the_last_one() -> None:
    master = a_master((issue("T1"), issue("T2")), shows(1), result(9, ended=time.time() - 3600))
    (line,) = asyncio.run(healed_lines(master, 86400))
    assert line.startswith("T1: healed by r9 in cell on ")
    assert asyncio.run(healed_lines(master, 60)) == []


FLAKE = Flake(
    Rate(3, 50),
    result(9, "failed", sentence="oscarnode2 stopped <b>in mid-pull</b>", signature="wait-nodes:0123456789ab"),
)


def test_the_page_shows_what_is_flaky_with_its_rate_and_what_became_of_each_known_issue() -> None:
    healed = state(shows(1), result(2))
    page = html_of(NOTHING, time.time(), None, Past([FLAKE], [healed, state()]))
    assert "oscarnode2 stopped &lt;b&gt;in mid-pull&lt;/b&gt;" in page
    assert "3 of its last 50 runs" in page
    assert "wait-nodes:0123456789ab" in page
    assert "1 day ago, r9" in page
    assert f'<td class="healed">{healed.words}</td>' in page
    assert "it has not shown yet" in page


def test_the_page_says_where_there_is_nothing_and_where_the_history_cannot_be_read() -> None:
    page = html_of(NOTHING, 0.0)
    assert "no failure has come and gone" in page
    assert "known-issues.toml has none" in page
    past = asyncio.run(past_of(SimpleNamespace()))
    assert "the list cannot be made" in html_of(NOTHING, 0.0, None, past)


def test_a_program_reads_the_same_as_json(monkeypatch: pytest.MonkeyPatch) -> None:
    master = a_master((issue("T1"),), shows(1), result(2), result(3, "failed", identity="x"), result(4, identity="x"))
    said = json.loads(json.dumps(asyncio.run(past_of(master)).as_json()))
    assert [each["last"]["build"] for each in said["flaky"]] == [3]
    assert said["known_issues"][0]["words"].startswith("healed by r2")
    monkeypatch.setattr(heal, "History", None)
    assert asyncio.run(standing_page.past_of(master)).as_json()["trouble"]
