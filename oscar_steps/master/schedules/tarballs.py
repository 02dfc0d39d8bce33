"""A release candidate: the cells with the label `candidate`, once for each set of tarballs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from buildbot.changes.changes import Change
from buildbot.changes.filter import ChangeFilter
from buildbot.data import resultspec
from twisted.python import log

from oscar_steps.master.schedules.commit import PerCommit, changes_with_builds
from oscar_steps.master.schedules.names import CANDIDATE
from oscar_steps.master.watch.svn import PROJECT
from oscar_steps.repositories import TARBALLS

_LOOK_BACK = 100
"""Releases, however many commits have come since."""


class PerRelease(PerCommit):
    """As for commits; it looks for forgotten changes among its own, whatever was tested in the meantime."""

    async def _catch_up(self) -> None:
        asked = {*await self.master.db.pool.do(changes_with_builds, self.master.db.model)}
        releases = [resultspec.Filter("branch", "contains", [TARBALLS])]
        newest = await self.master.data.get(("changes",), filters=releases, order=["-changeid"], limit=_LOOK_BACK)
        ours = sorted(c["changeid"] for c in newest if str(c["branch"]).startswith(TARBALLS))
        last = max((number for number in ours if number in asked), default=0)
        for number in ours:
            if number <= last or number in self._heard:
                continue
            change = await Change.fromChdict(self.master, await self.master.db.changes.getChange(number))
            log.msg(f"the release {change.revision} was stored when the master ended")
            await self._change_consumption_lock.run(self.gotChange, change, True)


def _is_release(branch: str | None) -> bool:
    return (branch or "").startswith(TARBALLS)


def candidates(cells: Sequence[str]) -> Any:
    return PerRelease(
        name=CANDIDATE,
        change_filter=ChangeFilter(project=PROJECT, branch_fn=_is_release),
        treeStableTimer=None,
        builderNames=list(cells),
        reason="a release candidate",
    )
