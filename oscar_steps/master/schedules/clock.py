"""By the clock: the nightly matrix, of the trunk and of branches that are maintained, and the weekly one."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from datetime import date, datetime, timedelta
from datetime import time as daytime
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from buildbot.changes.filter import ChangeFilter
from buildbot.plugins import schedulers
from buildbot.process.properties import Properties
from buildbot.process.results import FAILURE, SUCCESS, WARNINGS
from twisted.internet import defer
from twisted.python import log

from oscar_steps.errors import HostError, SourceError
from oscar_steps.master.schedules.names import IDENTITY, NIGHTLY, WEEKLY
from oscar_steps.master.watch.exact import Asked, exact_source
from oscar_steps.master.watch.released import is_tarball
from oscar_steps.master.watch.svn import PROJECT
from oscar_steps.repositories import Branch
from oscar_steps.site import WEEKDAYS, Site
from oscar_steps.sources.source import Source

MADE_UP_SECONDS = 12 * 3600.0
"""A run that was missed is made up for within this time; later the next one is near enough."""
_DONE, _ENDED = "night_done", "night_ended"
"""States: when the last run began of which all was asked for, and when that had been asked for (Unix time)."""
_RECENT = 2000
"""So many of the last changes say which branches there are."""


class OncePerNight(schedulers.Nightly):
    """Runs once per calendar day (`dayOfWeek`: on that day alone), also where a day has 23 or 25 hours.

    Where the clock is put back over the set time, the first of the two counts. Where it is put forward over it, the run
    begins as long after midnight as on other days: at 03:30 summer time instead of 02:30. Buildbot's own would run
    twice in autumn.

    A run that was missed, or cut short by the master's end, is made up for once. Buildbot's own is forgotten where the
    master is killed after it has noted the time, and made up for however long ago it was: two runs in one night.

    A clock that is set repeats no run and loses none: whether one is due is looked at again when its time has come, and
    a time that is more than half a day ahead was written down by a clock that was wrong.
    """

    lastActuated: float | None
    compare_attrs = (*schedulers.Nightly.compare_attrs, "site", "branches")

    def checkConfig(self, site: Site, branches: Sequence[str], **settings: Any) -> None:  # noqa: ARG002
        super().checkConfig(**settings)

    async def reconfigService(self, site: Site, branches: Sequence[str], **settings: Any) -> None:
        self.site, self.branches = site, tuple(branches)
        await super().reconfigService(**settings)

    def getNextBuildTime(self, lastActuation: float | None) -> Any:
        return defer.succeed(self._next_after(lastActuation or self.now()))

    def _next_after(self, time: float) -> float:
        day = date.fromtimestamp(time)
        while True:
            run = datetime.combine(day, daytime(self.hour, self.minute)).timestamp()
            if run > time and self.dayOfWeek in ("*", day.weekday()):
                return run
            day += timedelta(days=1)

    def _scheduleNextBuild_locked(self) -> Any:
        if self.lastActuated is not None:
            now = self.now()
            wrong = self.lastActuated > now + MADE_UP_SECONDS
            self.lastActuated = now if wrong else max(self.lastActuated, now - MADE_UP_SECONDS)
        return super()._scheduleNextBuild_locked()

    def getState(self, name: str, *default: Any) -> Any:
        """The time of the last run is that of the last one of which all was asked for."""
        if name != "last_build":
            return super().getState(name, *default)

        async def last() -> Any:
            done = await super(OncePerNight, self).getState(_DONE, None)
            return await super(OncePerNight, self).getState(name, *default) if done is None else done

        return defer.ensureDeferred(last())

    def startBuild(self) -> Any:
        return defer.ensureDeferred(self._start()) if self.enabled else super().startBuild()

    async def _start(self) -> None:
        done, now = await self.getState(_DONE, None), self.now()
        if done is not None and done <= now + MADE_UP_SECONDS and now < self._next_after(done):
            log.msg(f"{self.name}: the clock was set: the run of {datetime.fromtimestamp(done)} is not repeated")
            self.lastActuated = done
            return
        self.lastActuated = max(self.lastActuated or now, now)
        since = max(now - MADE_UP_SECONDS, await self.getState(_ENDED, 0.0))
        places = [*self.site.mains, *await self._maintained()]
        for place in dict.fromkeys(places):
            if not await self._do(_asked_between, *place, since, now + MADE_UP_SECONDS):
                await self._test(*place)
        await self.master.db.schedulers.flushChangeClassifications(self.serviceid)
        await self.setState(_DONE, self.lastActuated)
        await self.setState(_ENDED, self.now())

    async def _test(self, repository: str, branch: str) -> None:
        """Ask for the cells of one branch, at one revision for all of them."""
        try:
            asked = Asked(repository=repository, branch=branch, revision="", folder=Path(self.master.basedir))
            source: Source | None = await exact_source(self.master.reactor, self.site, asked)
        except SourceError as error:
            log.msg(f"{self.name}: {branch} is not tested: {error}")
            return
        except HostError as error:  # each build says so, to the operator
            log.msg(f"{self.name}: the last revision of {branch} is not known: {error}")
            source = None
        cells, said = list(self.builderNames), Properties()
        if source is not None:
            said.setProperty(IDENTITY, source.identity, "Scheduler")
        if self.site.schedule.nightly == "commits" and source is not None and source.is_exact:
            tested = await self._do(_tested, repository, branch, source.identity)
            cells = [cell for cell in cells if cell not in tested]
            if not cells:
                log.msg(f"{self.name}: nothing has changed on {branch} since {source.short} was tested; it is left out")
                return
        stamp = {
            "repository": repository,
            "branch": branch,
            "revision": source.revision if source else None,
            "codebase": "",
            "project": PROJECT,
        }
        await self.addBuildsetForSourceStampsWithDefaults(
            reason=self.reason, sourcestamps=[stamp], builderNames=cells, priority=self.priority, properties=said
        )

    async def _maintained(self) -> Iterable[Branch]:
        """The maintained branches among those that had commits, where their repositories are now."""
        known = await self.master.db.pool.do(_known_branches, self.master.db.model) if self.branches else []
        names = [place.name for place in known if not is_tarball(place.name)]
        maintained = [name for name in names if any(fnmatch(name, pattern) for pattern in self.branches)]
        return map(self.site.branch_called, maintained)

    async def _do(self, query: Any, *more: Any) -> Any:
        return await self.master.db.pool.do(query, self.master.db.model, self.name, *more)


def _known_branches(connection: Any, model: Any) -> list[Branch]:
    table = model.changes.c
    query = (
        sa.select(table.repository, table.branch)
        .where(table.project == PROJECT, table.branch.is_not(None))
        .order_by(table.changeid.desc())
        .limit(_RECENT)
    )
    return sorted({Branch(str(repository), str(branch)) for repository, branch in connection.execute(query).fetchall()})


def _buildsets(model: Any, scheduler: str, repository: str, branch: str, *columns: Any) -> Any:
    """Of this scheduler's buildsets for a branch."""
    sets, links, stamps, said = (
        model.buildsets,
        model.buildset_sourcestamps,
        model.sourcestamps,
        model.buildset_properties,
    )
    joined = (
        sets.join(links, links.c.buildsetid == sets.c.id)
        .join(stamps, stamps.c.id == links.c.sourcestampid)
        .join(said, said.c.buildsetid == sets.c.id)
        .join(model.buildrequests, model.buildrequests.c.buildsetid == sets.c.id)
        .join(model.builders, model.builders.c.id == model.buildrequests.c.builderid)
    )
    by = said.c.property_value == json.dumps([scheduler, "Scheduler"])
    place = (stamps.c.repository == repository, stamps.c.branch == branch)
    return sa.select(*columns).select_from(joined).where(said.c.property_name == "scheduler", by, *place)


def _asked_between(
    connection: Any, model: Any, scheduler: str, repository: str, branch: str, since: float, until: float
) -> bool:
    """Whether this night was asked for already, before the master was ended."""
    submitted = model.buildsets.c.submitted_at
    query = _buildsets(model, scheduler, repository, branch, model.buildsets.c.id)
    query = query.where(submitted > since, submitted < until).limit(1)
    return connection.execute(query).fetchone() is not None


def _tested(connection: Any, model: Any, scheduler: str, repository: str, branch: str, identity: str) -> set[str]:
    """The cells of which an earlier night has said something about this very source."""
    results = model.buildrequests.c.results.in_((SUCCESS, WARNINGS, FAILURE))
    asked = model.buildset_properties.alias().c
    same = sa.exists().where(
        asked.buildsetid == model.buildsets.c.id,
        asked.property_name == IDENTITY,
        asked.property_value == json.dumps([identity, "Scheduler"]),
    )
    query = _buildsets(model, scheduler, repository, branch, model.builders.c.name)
    return {str(name) for (name,) in connection.execute(query.where(same, results)).fetchall()}


def nightly(site: Site, cells: Sequence[str]) -> Any:
    return _by_the_clock(site, cells, NIGHTLY, "the nightly matrix", branches=site.schedule.nightly_branches)


def weekly(site: Site, cells: Sequence[str]) -> Any:
    return _by_the_clock(site, cells, WEEKLY, "the weekly matrix", dayOfWeek=WEEKDAYS.index(site.schedule.weekly))


def _by_the_clock(
    site: Site, cells: Sequence[str], name: str, reason: str, branches: Sequence[str] = (), **when: int
) -> Any:
    return OncePerNight(
        name=name,
        site=site,
        branches=branches,
        hour=site.schedule.hour,
        minute=site.schedule.minute,
        **when,
        builderNames=list(cells),
        reason=reason,
        change_filter=ChangeFilter(project=PROJECT, branch=site.main.name),
        codebases={"": {"repository": site.main.repository, "branch": site.main.name, "revision": None}},
    )
