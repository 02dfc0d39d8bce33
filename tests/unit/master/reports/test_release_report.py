"""The report about a release goes out once."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from buildbot.data import resultspec

from oscar_steps.master.operator_mail import MAIL_SERVICE
from oscar_steps.master.reports.candidate import CandidateReports, CellResult
from oscar_steps.repositories import Tarballs
from oscar_steps.verdict import Outcome, Verdict

PASSED = Verdict(run_id="c-t5.1-b1", cell="c", source="/r", revision="5.1", outcome=Outcome.PASSED, sentence="")


@pytest.fixture
def reports(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> CandidateReports:
    """Of a master that knows an old release, a new one whose cell has passed, and many commits since."""

    now = int(time.time())
    old = {"changeid": 1, "branch": "tarballs/ftp", "revision": "5.0", "comments": "", "when_timestamp": now - 10**7}
    release = {**old, "changeid": 2, "revision": "5.1", "comments": "OSCAR 5.1, as tarballs:", "when_timestamp": now}
    commits = [{**release, "changeid": number, "branch": "trunk"} for number in range(3, 200)]

    async def changes(*_: Any, **how: Any) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = resultspec.ResultSpec(**how).apply([old, release, *commits])
        return found

    async def results(*_: Any) -> list[CellResult]:
        return [CellResult("c", PASSED)]

    monkeypatch.setattr(CandidateReports, "_results", results)
    (tmp_path / "tarballs").mkdir()
    made = CandidateReports()
    made.places = (Tarballs(name="ftp", url="/r"),)
    made.parent = cast(
        "Any",
        SimpleNamespace(
            master=SimpleNamespace(
                basedir=str(tmp_path),
                config=SimpleNamespace(buildbotURL="http://farm/"),
                data=SimpleNamespace(get=changes),
                reactor=SimpleNamespace(callLater=lambda *_: None),
                service_manager=SimpleNamespace(namedServices={}),
            )
        ),
    )
    return made


def test_a_report_that_the_mail_service_did_not_take_goes_out_later_and_once(reports: CandidateReports) -> None:
    runs, sent = [False, True, True], list[str]()

    def take(subject: str, *_words: Any, **_how: Any) -> bool:
        if taken := runs.pop(0):
            sent.append(subject)
        return taken

    reports.master.service_manager.namedServices[MAIL_SERVICE] = SimpleNamespace(notify=take)
    for _ in range(3):
        asyncio.run(reports._all())
    assert sent == ["OSCAR 5.1: releasable: yes"]
    assert runs == [True], "what is reported is not reported again"
