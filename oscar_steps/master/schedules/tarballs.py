"""A release candidate: the cells with the label `candidate`, once for each set of tarballs."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from buildbot.changes.filter import ChangeFilter
from buildbot.data import resultspec

from oscar_steps.master.schedules.commit import REFUSED_SECONDS, PerCommit
from oscar_steps.master.schedules.names import CANDIDATE, CHANGES
from oscar_steps.master.watch.svn import PROJECT
from oscar_steps.repositories import TARBALLS

_LOOK_BACK = 100
"""Releases, however many commits have come since."""


class PerRelease(PerCommit):
    """As for commits; it looks for forgotten changes among its own, whatever was tested in the meantime."""

    async def _catch_up(self) -> None:
        asked = await self.master.db.pool.do(_releases_with_builds, self.master.db.model)
        releases = [resultspec.Filter("branch", "contains", [TARBALLS])]
        newest = await self.master.data.get(("changes",), filters=releases, order=["-changeid"], limit=_LOOK_BACK)
        ours = {c["changeid"]: c["when_timestamp"] for c in newest if str(c["branch"]).startswith(TARBALLS)}
        last, day_ago = max(asked, default=0), time.time() - REFUSED_SECONDS
        for number, when in sorted(ours.items()):
            if number not in asked and (number > last or when > day_ago):
                await self._catch(number)


def _releases_with_builds(connection: Any, model: Any) -> set[int]:
    """Ids of all the changes that cells of releases were ever asked for. (There are few; commits are many.)"""
    table = model.buildset_properties
    scheduled, changes = table.alias(), table.alias()
    query = (
        sa.select(changes.c.property_value)
        .join(scheduled, scheduled.c.buildsetid == changes.c.buildsetid)
        .where(changes.c.property_name == CHANGES)
        .where(scheduled.c.property_name == "scheduler", scheduled.c.property_value.startswith(f'["{CANDIDATE}",'))
    )
    rows = connection.execute(query).fetchall()
    return {int(number) for (value,) in rows for number in json.loads(value)[0] or ()}


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
