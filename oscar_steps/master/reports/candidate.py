"""The report about a release: one mail when all its candidate cells have ended. Can it be released?

`yes`: every stable cell passed. `no`: OSCAR failed in a stable cell. `not known yet`: the farm, the distribution or the
site's answers kept a stable cell from its result, and no other has failed. Unstable cells are listed, and hold nothing
back. The mail goes to the release manager of the place, without one to the operator.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from buildbot.data import resultspec
from buildbot.process.results import RETRY
from buildbot.util import service
from twisted.internet import defer
from twisted.python import log

from oscar_steps.master.history.record import VERDICT, verdict_in
from oscar_steps.master.operator_mail import notify
from oscar_steps.master.schedules.names import CANDIDATE, CHANGES
from oscar_steps.master.steps.report import headline
from oscar_steps.master.watch.released import is_tarball
from oscar_steps.master.web.run_files import run_url
from oscar_steps.repositories import Tarballs
from oscar_steps.sources.tarballs.memory import FOLDER
from oscar_steps.textio import json_line, json_object, one_line, read_regular, some, write_atomically
from oscar_steps.verdict import Category, Outcome, Stability, Verdict

_LOOK_BACK = 50
"""Releases. Any number of commits may come while the cells of one are tested."""
_LONGEST_SECONDS = 30 * 86400.0
"""So long the tests of a release may take. Without the file of what was reported no older one is reported again."""
_NAMED = 3
_AGAIN_SECONDS = 1.0
"""The mail service may begin a moment later than this one."""


@dataclass(frozen=True)
class CellResult:
    """How one cell ended; `verdict` None: there is none."""

    cell: str
    verdict: Verdict | None
    link: str = ""

    @property
    def stable(self) -> bool:
        return self.verdict is None or self.verdict.stability is Stability.STABLE

    @property
    def failed(self) -> bool:
        """Whether OSCAR failed."""
        found = self.verdict
        return (
            found is not None and found.outcome is Outcome.FAILED and found.category in (Category.OSCAR, Category.NONE)
        )

    @property
    def passed(self) -> bool:
        return self.verdict is not None and self.verdict.outcome is Outcome.PASSED

    @property
    def line(self) -> str:
        said = headline(self.verdict) if self.verdict else "no result"
        return f"{self.cell:<28} {said}" + (f"\n{'':<28} {self.link}" if self.link and not self.passed else "")


def releasable(results: Sequence[CellResult]) -> str:
    """'yes', 'no, because ...' or 'not known yet, because ...'."""
    stable = [result for result in results if result.stable]
    failed = [result.cell for result in stable if result.failed]
    unknown = [result.cell for result in stable if not result.failed and not result.passed]
    if failed:
        return f"no, because OSCAR failed on {some(failed, _NAMED)}"
    if unknown:
        return f"not known yet, because there is no result about OSCAR from {some(unknown, _NAMED)}"
    return "yes" if stable else "not known yet, because no stable cell has the label candidate"


def report_text(what: str, comments: str, results: Sequence[CellResult], base: str) -> tuple[str, str]:
    """Subject and text of the report."""
    answer = releasable(results)
    stable = [result.line for result in results if result.stable]
    others = [result.line for result in results if not result.stable]
    parts = [f"releasable: {answer}", "", comments.strip(), "", "The cells:", "", *(f"  {line}" for line in stable)]
    if others:
        parts += ["", "Unstable cells, which hold no release back:", "", *(f"  {line}" for line in others)]
    parts += ["", base]
    text = "\n".join(line.replace("\n", "\n  ") if line.startswith("  ") else line for line in parts)
    return f"OSCAR {one_line(what, 60)}: releasable: {answer}", f"{text}\n"


class CandidateReports(service.BuildbotService):
    """Sends the report about each release, once, whatever ends the master in between."""

    name = "oscar-candidate-reports"
    compare_attrs = ("places",)
    places: tuple[Tarballs, ...] = ()

    async def reconfigService(self, places: tuple[Tarballs, ...]) -> None:
        self.places = places
        await super().reconfigService()

    async def startService(self) -> None:
        await super().startService()
        self._lock = defer.DeferredLock()
        self._consumer = await self.master.mq.startConsuming(self._ended, ("buildsets", None, "complete"))
        self._start = self.master.reactor.callLater(_AGAIN_SECONDS, self._catch_up)

    async def stopService(self) -> None:
        if self._start.active():
            self._start.cancel()
        self._consumer.stopConsuming()
        await super().stopService()

    def _ended(self, _key: Any, buildset: dict[str, Any]) -> None:
        if any(is_tarball(stamp.get("branch")) for stamp in buildset["sourcestamps"]):
            self._catch_up()

    def _catch_up(self) -> None:
        running = self._lock.run(lambda: defer.ensureDeferred(self._all()))
        running.addErrback(log.err, "the report about a release")

    async def _all(self) -> None:
        """Report each of the last releases that has all its results and no report yet."""
        branches = {place.branch: place for place in self.places}
        ours = [
            resultspec.Filter("branch", "eq", list(branches)),
            resultspec.Filter("when_timestamp", "gt", [time.time() - _LONGEST_SECONDS]),
        ]
        newest = await self.master.data.get(("changes",), filters=ours, order=["-changeid"], limit=_LOOK_BACK)
        reported = self._reported()
        for change in sorted(newest, key=lambda change: change["changeid"]):
            place, name = branches.get(str(change["branch"])), _key_of(change)
            if place is None or name in reported:
                continue
            results = await self._results(change["changeid"])
            if results and not self._send(place, change, results):
                self._start = self.master.reactor.callLater(_AGAIN_SECONDS, self._catch_up)
                return
            if results:
                reported = [*reported[-200:], name]
                write_atomically(self._file, json_line({"reported": reported}))

    @property
    def _file(self) -> Path:
        return Path(self.master.basedir) / FOLDER / "reported.json"

    def _reported(self) -> list[str]:
        try:
            return [str(name) for name in json_object(read_regular(self._file)).get("reported", [])]
        except FileNotFoundError:
            return []
        except (OSError, ValueError, TypeError) as error:
            log.msg(f"{self._file} cannot be read ({error}); the last releases are reported once more")
            return []

    async def _results(self, change: int) -> list[CellResult]:
        """How the cells of a release ended; none while one of them has not."""
        buildsets = await self.master.db.pool.do(_buildsets_of, self.master.db.model, change)
        latest: dict[str, tuple[int, CellResult]] = {}
        for number in buildsets:
            if not (await self.master.data.get(("buildsets", number)))["complete"]:
                return []
            for request in await self.master.data.get(
                ("buildrequests",), filters=[resultspec.Filter("buildsetid", "eq", [number])]
            ):
                build, result = await self._result(request)
                if build >= latest.get(result.cell, (-1, result))[0]:
                    latest[result.cell] = (build, result)
        return [result for _, (_, result) in sorted(latest.items())]

    async def _result(self, request: dict[str, Any]) -> tuple[int, CellResult]:
        builder = await self.master.data.get(("builders", request["builderid"]))
        builds = await self.master.data.get(("buildrequests", request["buildrequestid"], "builds"))
        last = max((build["buildid"] for build in builds if build["complete"] and build["results"] != RETRY), default=0)
        if not last:
            return 0, CellResult(builder["name"], None)
        said = await self.master.data.get(("builds", last, "properties"))
        verdict = verdict_in(said.get(VERDICT, (None,))[0])
        if verdict is None:
            return last, CellResult(builder["name"], None)
        return last, CellResult(builder["name"], verdict, run_url(self.master.config.buildbotURL, verdict.run_id))

    def _send(self, place: Tarballs, change: dict[str, Any], results: Sequence[CellResult]) -> bool:
        """Whether the report is on its way; not while the mail service does not run yet."""
        subject, text = report_text(
            str(change["revision"]), str(change["comments"]), results, self.master.config.buildbotURL
        )
        addresses = (place.release_manager,) if place.release_manager else ()
        log.msg(f"{place.name}: {subject}")
        name = f"release-{hashlib.sha256(_key_of(change).encode()).hexdigest()[:16]}"
        return notify(self.master, subject, text, addresses, operator=not addresses, name=name)


def _key_of(change: dict[str, Any]) -> str:
    return f"{change['branch']} {change['revision']} {change['changeid']}"


def _buildsets_of(connection: Any, model: Any, change: int) -> list[int]:
    """The buildsets that were asked for because of this release, retries included."""
    table = model.buildset_properties
    scheduled, changes = table.alias(), table.alias()
    query = (
        sa.select(changes.c.buildsetid)
        .join(scheduled, scheduled.c.buildsetid == changes.c.buildsetid)
        .where(changes.c.property_name == CHANGES, changes.c.property_value.startswith(f"[[{change}],"))
        .where(scheduled.c.property_name == "scheduler", scheduled.c.property_value.startswith(f'["{CANDIDATE}",'))
        .order_by(changes.c.buildsetid)
    )
    return [int(number) for (number,) in connection.execute(query).fetchall()]
