"""After a commit: the first tier at once, then the cells of every commit."""

from __future__ import annotations

import json
import time
from fnmatch import fnmatch
from typing import Any

import sqlalchemy as sa
from buildbot.changes.changes import Change
from buildbot.changes.filter import ChangeFilter
from buildbot.data import resultspec
from buildbot.plugins import schedulers, util
from buildbot.process.properties import Properties
from buildbot.process.results import EXCEPTION, SUCCESS, WARNINGS
from buildbot.steps.trigger import Trigger
from twisted.internet import defer
from twisted.python import log

from oscar_steps.master.durability.once import asked_already
from oscar_steps.master.durability.restarts import cut_short, master_ends
from oscar_steps.master.schedules.names import CHANGES, PER_COMMIT
from oscar_steps.master.watch.commits import starts_tests
from oscar_steps.master.watch.released import is_tarball
from oscar_steps.master.watch.svn import PROJECT
from oscar_steps.site import Schedule, Site
from oscar_steps.sources.source import short_name
from oscar_steps.verdict import LINT

_LOOK_BACK = 1000
REFUSED_SECONDS = 86400.0
"""A branch that is watched only now may have older commits, which nobody wants tested."""
AGAIN_SECONDS = 60.0
"""After so long the scheduler tries again what the database did not take."""

_MOST_LINKS = 20
"""Cells that the last step of the first tier links to."""


class PerCommit(schedulers.AnyBranchScheduler):
    """Tests each branch once it has been quiet, notes whose changes a build is for, and misses none.

    Buildbot keeps only the last of several changes with a build, and finds the others, when asked, by walking back to
    the last green build: everybody since then would be blamed. And a change that is stored when the master ends,
    before its build is asked for, is forgotten by it.
    """

    compare_attrs = (*schedulers.AnyBranchScheduler.compare_attrs, "each")
    each: frozenset[str] = frozenset()
    """The repositories whose commits are tested one by one."""

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        self._heard: set[int] = set()

    def checkConfig(self, each: frozenset[str] = frozenset(), **settings: Any) -> Any:  # noqa: ARG002
        """The site has checked it."""
        return super().checkConfig(**settings)

    def reconfigService(self, each: frozenset[str] = frozenset(), **settings: Any) -> Any:
        """Take new settings."""
        self.each = each
        return super().reconfigService(**settings)

    def addBuildsetForChanges(self, **arguments: Any) -> Any:
        properties = arguments.pop("properties", None) or Properties()
        properties.setProperty(CHANGES, list(arguments.get("changeids") or ()), "Scheduler")
        return super().addBuildsetForChanges(properties=properties, **arguments)

    async def activate(self) -> None:
        self._heard.clear()  # changes of branches that are not quiet yet are taken again
        await super().activate()
        if self.active and self.enabled:
            catching_up = defer.ensureDeferred(self._catch_up())
            catching_up.addErrback(log.err, "commits that were stored when the master ended")

    def gotChange(self, change: Any, important: bool) -> Any:
        """Each change once: it may come by itself while the forgotten ones are looked for."""
        if change.number in self._heard:
            return defer.succeed(None)
        self._heard.add(change.number)
        return defer.ensureDeferred(self._take(change, important))

    async def _take(self, change: Any, important: bool, *, again: bool = False) -> None:
        """Where the database does not take it (its server is restarted) it is tried again: Buildbot would not."""
        try:
            database = self.master.db
            if again and change.number in await database.pool.do(changes_with_builds, database.model):
                return
            if change.repository in self.each:
                await self.addBuildsetForChanges(reason=self.reason, changeids=[change.number], priority=self.priority)
            else:
                await super().gotChange(change, important)
        except Exception as error:
            log.err(
                error,
                f"the change {change.number} ({short_name(change.revision)}) could not be noted; that is tried again",
            )
            self.master.reactor.callLater(AGAIN_SECONDS, self._take_again, change, important)

    def _take_again(self, change: Any, important: bool) -> None:
        if self.active:  # otherwise the next start finds it
            defer.ensureDeferred(self._take(change, important, again=True))

    def stableTimerFired(self, timer_name: Any) -> Any:
        """Ask for the build of a branch that is quiet now, and forget what waited for it: these changes alone.

        Buildbot's own forgets everything up to the last of them, on other branches too: their authors get no mail.
        """
        return self._stable_timers_lock.run(lambda: defer.ensureDeferred(self._branch_is_quiet(timer_name)))

    async def _branch_is_quiet(self, timer_name: Any) -> None:
        if not self._stable_timers.pop(timer_name, None):
            return
        try:
            await self._ask_for_quiet(timer_name)
        except Exception as error:
            log.err(
                error, f"the build of the quiet branch {timer_name[-1]} could not be requested; that is tried again"
            )
            self._stable_timers[timer_name] = self.master.reactor.callLater(
                AGAIN_SECONDS, self.stableTimerFired, timer_name
            )

    async def _ask_for_quiet(self, timer_name: Any) -> None:
        waiting = await self.getChangeClassificationsForTimer(self.serviceid, timer_name)
        database = self.master.db
        # The master may have been killed after it asked, before it forgot.
        asked = await database.pool.do(changes_with_builds, database.model)
        if due := sorted({*waiting} - {*asked}):
            await self.addBuildsetForChanges(reason=self.reason, changeids=due, priority=self.priority)
        await database.pool.do(_forget, database.model, self.serviceid, list(waiting))

    async def _catch_up(self) -> None:
        """Take the changes after the last one for which a build was, or will be, requested, and those of the last day
        before it: the database may have refused one and taken the next, of this scheduler or of another.
        """
        waiting = await self.master.db.schedulers.getChangeClassifications(self.serviceid)
        known = {*waiting, *await self.master.db.pool.do(changes_with_builds, self.master.db.model)}
        last = max(known, default=0)
        day_ago = time.time() - REFUSED_SECONDS
        before = [resultspec.Filter("changeid", "lt", [last]), resultspec.Filter("when_timestamp", "gt", [day_ago])]
        for filters in (before, [resultspec.Filter("changeid", "gt", [last])]):
            for stored in await self.master.data.get(("changes",), filters=filters, order=["changeid"]):
                if stored["changeid"] not in known:
                    await self._catch(stored["changeid"])

    async def _catch(self, number: int) -> None:
        change = await Change.fromChdict(self.master, await self.master.db.changes.getChange(number))
        if number in self._heard or not self.change_filter.filter_change(change):
            return
        if not await self.master.db.pool.do(_was_asked_for, self.master.db.model, number):
            log.msg(f"the change {number} ({short_name(change.revision)}) was stored when the master ended")
            await self._change_consumption_lock.run(self.gotChange, change, True)


def changes_with_builds(connection: Any, model: Any) -> list[int]:
    """Ids of the last changes that builds were asked for."""
    table = model.buildset_properties.c
    query = (
        sa.select(table.property_value)
        .where(table.property_name == CHANGES)
        .order_by(table.buildsetid.desc())
        .limit(_LOOK_BACK)
    )
    rows = connection.execute(query).fetchall()
    return [int(number) for (value,) in rows for number in json.loads(value)[0] or ()]


def _was_asked_for(connection: Any, model: Any, change: int) -> bool:
    """Whether any build was ever asked for because of this change."""
    table = model.buildset_properties.c
    query = sa.select(table.property_value).where(
        table.property_name == CHANGES, table.property_value.contains(str(change))
    )
    return any(change in (json.loads(value)[0] or ()) for (value,) in connection.execute(query).fetchall())


def _forget(connection: Any, model: Any, scheduler: int, changes: list[int]) -> None:
    """These changes wait for no build any more."""
    table = model.scheduler_changes
    with connection.begin():
        connection.execute(table.delete().where(table.c.schedulerid == scheduler, table.c.changeid.in_(changes)))


class WatchedBranch:
    """Whether commits on a branch are tested. A release is no commit. Compares equal by its patterns."""

    def __init__(self, schedule: Schedule) -> None:
        self.patterns = schedule.branches
        self.__name__ = "watched_branch"  # Buildbot describes a filter by its function's name

    def __eq__(self, other: object) -> bool:
        return isinstance(other, WatchedBranch) and self.patterns == other.patterns

    def __hash__(self) -> int:
        return hash(self.patterns)

    def __call__(self, branch: str | None) -> bool:
        name = branch or ""
        return not is_tarball(name) and any(fnmatch(name, pattern) for pattern in self.patterns)


def first_tier(site: Site) -> Any:
    return PerCommit(
        name=LINT,
        change_filter=ChangeFilter(project=PROJECT, branch_fn=WatchedBranch(site.schedule), category_fn=starts_tests),
        treeStableTimer=site.schedule.tree_stable or None,
        each=site.tested_each,
        builderNames=[LINT],
        reason="a commit",
    )


class StartCells(Trigger):
    """Starts the cells. Buildbot would cancel, at the master's end, what it has just asked for: a lost commit.

    With 1,500 cells it also took a minute of a processor's: it notes a link to each cell, for each of them all that it
    had noted before, and then listens for the end of each, which makes every event of the farm dearer.
    """

    _links = 0

    async def addURL(self, name: str, url: str) -> None:
        """Note a link, unless there are many: the build's page lists all builds that it has asked for."""
        self._links += 1
        if self._links <= _MOST_LINKS:
            await super().addURL(name, url)

    def _add_results(self, brid: int) -> None:
        """This step does not wait: nobody listens for the end of its cells."""

    def interrupt(self, reason: Any) -> Any:
        """Stop asking; see `BuildStep.interrupt`. What was asked for before the master's end stands."""
        return defer.succeed(None) if master_ends(self) else super().interrupt(reason)

    async def run(self) -> int:
        """Ask for the cells, unless the master ends: the build starts again then."""
        if self.build.stopped and (cut := cut_short(self)) is not None:
            return cut
        return await super().run()


def start_cells() -> Any:
    """The last step of the first tier: a commit in which it found nothing goes on to the cells of every commit.

    So it does where the first tier itself has failed: a fault of the farm there must not keep a commit from its test.
    """
    return StartCells(
        name="cells",
        schedulerNames=[PER_COMMIT],
        waitForFinish=False,
        updateSourceStamp=False,
        set_properties={CHANGES: util.Property(CHANGES)},
        alwaysRun=True,
        doStepIf=_goes_on,
        hideStepIf=lambda results, _step: results != SUCCESS,
        updateBuildSummaryPolicy=False,
    )


def is_good_commit(step: Any) -> bool:
    """A person who forces a lint of a revision gets no more than that."""
    return step.getProperty("scheduler") == LINT and step.build.results in (SUCCESS, WARNINGS, EXCEPTION)


def _goes_on(step: Any) -> Any:
    """A commit whose cells were started before this build had to start again has them already."""

    async def answer() -> bool:
        return is_good_commit(step) and not await asked_already(step)

    return defer.ensureDeferred(answer())
