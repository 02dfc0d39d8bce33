"""By the clock: the nightly and the weekly matrix."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, datetime, timedelta
from datetime import time as daytime
from typing import Any

from buildbot.changes.filter import ChangeFilter
from buildbot.plugins import schedulers
from twisted.internet import defer

from oscar_steps.master.schedules.names import NIGHTLY, WEEKLY
from oscar_steps.master.watch.svn import PROJECT
from oscar_steps.site import WEEKDAYS, Site


class OncePerNight(schedulers.Nightly):
    """Runs once per calendar day (`dayOfWeek`: on that day alone), also where a day has 23 or 25 hours.

    Where the clock is put back over the set time, the first of the two counts. Where it is put forward over it, the run
    begins as long after midnight as on other days: at 03:30 summer time instead of 02:30. Buildbot's own would run
    twice in autumn.
    """

    def getNextBuildTime(self, lastActuation: float | None) -> Any:
        after = lastActuation or self.now()
        day = date.fromtimestamp(after)
        while True:
            run = datetime.combine(day, daytime(self.hour, self.minute)).timestamp()
            if run > after and self.dayOfWeek in ("*", day.weekday()):
                return defer.succeed(run)
            day += timedelta(days=1)


def nightly(site: Site, cells: Sequence[str]) -> Any:
    return _by_the_clock(site, cells, NIGHTLY, "the nightly matrix")


def weekly(site: Site, cells: Sequence[str]) -> Any:
    return _by_the_clock(site, cells, WEEKLY, "the weekly matrix", dayOfWeek=WEEKDAYS.index(site.schedule.weekly))


def _by_the_clock(site: Site, cells: Sequence[str], name: str, reason: str, **when: int) -> Any:
    trunk = {"repository": site.repository.url, "branch": site.repository.trunk, "revision": None}
    return OncePerNight(
        name=name,
        hour=site.schedule.hour,
        minute=site.schedule.minute,
        **when,
        builderNames=list(cells),
        reason=reason,
        # Without absolute source stamps each cell would test another HEAD; without the filter, another branch.
        createAbsoluteSourceStamps=True,
        change_filter=ChangeFilter(project=PROJECT, branch=site.repository.trunk),
        codebases={"": trunk},
    )
