"""All schedulers of the farm."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from buildbot.plugins import schedulers

from oscar_steps.job import CellPlan
from oscar_steps.master.schedules.clock import nightly, weekly
from oscar_steps.master.schedules.commit import first_tier
from oscar_steps.master.schedules.force import button
from oscar_steps.master.schedules.names import PER_COMMIT
from oscar_steps.master.schedules.patches import try_scheduler
from oscar_steps.master.schedules.search import find_button
from oscar_steps.master.schedules.tarballs import candidates
from oscar_steps.site import Site
from oscar_steps.words import Label


def build_schedulers(site: Site, plans: Sequence[CellPlan]) -> list[Any]:
    """All schedulers of the farm; one that would start no cell is left out."""
    of_label = {label: [plan.name for plan in plans if label in plan.cell.labels] for label in Label}
    cells = [plan.name for plan in plans]
    made = [button(site, cells, of_label), find_button(site, cells), first_tier(site)]
    if smoke := of_label[Label.SMOKE]:
        made.append(schedulers.Triggerable(name=PER_COMMIT, builderNames=smoke, reason="a commit"))
    if site.try_ is not None:
        made.append(try_scheduler(site, cells, smoke))
    if by_night := of_label[Label.NIGHTLY]:
        made.append(nightly(site, by_night))
    # The night's own cells run in that night in any case.
    if by_week := [name for name in of_label[Label.WEEKLY] if name not in {*by_night}]:
        made.append(weekly(site, by_week))
    if site.tarballs and (of_release := of_label[Label.CANDIDATE]):
        made.append(candidates(of_release))
    return made
