"""Buildbot's configuration, made of the site and the matrix."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from oscar_steps.master.bisect.service import BisectService
from oscar_steps.master.builders import build_builders, build_plans, build_workers
from oscar_steps.master.database import database_settings
from oscar_steps.master.durability.leaving import end_without_the_database
from oscar_steps.master.durability.patience import wait_for_the_database
from oscar_steps.master.history.store import HistoryService
from oscar_steps.master.reports.candidate import CandidateReports
from oscar_steps.master.reports.mail import OscarMail, oscar_mail
from oscar_steps.master.reports.queue import QueueNotes
from oscar_steps.master.scale.distribution import look_at_few, waiting_builders
from oscar_steps.master.scale.registry import note_all_at_once
from oscar_steps.master.schedules.all import build_schedulers
from oscar_steps.master.watch.git import git_pollers
from oscar_steps.master.watch.svn import svn_poller
from oscar_steps.master.watch.tarballs import tarball_watchers
from oscar_steps.master.web.health import DiskWatch
from oscar_steps.master.web.server import build_web
from oscar_steps.matrix.cells import Matrix
from oscar_steps.site import LDAP_PASSWORD, MAIL_PASSWORD, Site
from oscar_steps.verdict import LINT

_CACHES = dict.fromkeys(("BuildRequests", "BuildsetProperties", "ssdicts", "chdicts", "Changes"), 5000)
"""Rows of each kind that are kept in memory. Whenever a build can begin, Buildbot looks at all requests that wait, and
with its own sizes (1, for requests) it reads every one of them anew, in some six queries each."""


def build_configuration(site: Site, matrix: Matrix, state: Path) -> dict[str, Any]:
    """The dictionary that Buildbot calls `BuildmasterConfig`; `state` is the master's own folder.

    Raises ConfigError for whatever the site or the profiles have wrong, and for every secret that is missing.
    """
    wait_for_the_database()
    end_without_the_database()
    look_at_few()
    note_all_at_once()
    plans = build_plans(site, matrix)
    workers = build_workers(site)
    names = (*(plan.name for plan in plans), LINT)
    return {
        "title": site.master.title,
        "titleURL": site.web.base,
        "buildbotURL": site.web.base,
        "buildbotNetUsageData": None,
        "db": database_settings(site),
        "protocols": {"pb": {"port": site.master.port}},
        "workers": workers,
        "change_source": _watchers(site, state),
        "schedulers": build_schedulers(site, plans),
        "builders": build_builders(site, plans),
        # True would take two forced builds with different numbers of nodes for the same.
        "collapseRequests": False,
        "prioritizeBuilders": waiting_builders,
        "caches": _CACHES,
        "services": [
            HistoryService(issues=tuple(dict.fromkeys(issue for plan in plans for issue in plan.known_issues))),
            *_mail(site, names),
            BisectService(automatic=site.schedule.search, git=site.git),
            DiskWatch(disk_mib=site.master.disk_mib),
            QueueNotes(night=(site.schedule.hour, site.schedule.minute)),
            *_reports(site),
        ],
        "www": build_web(site),
        "logMaxSize": 20 * 2**20,
        "logMaxTailSize": 2**20,
    }


def _watchers(site: Site, state: Path) -> list[Any]:
    site.check_svn_login()
    svn = [svn_poller(site.repository, state, site.svn_logins(state))] if site.repository else []
    return [*svn, *git_pollers(site, state), *tarball_watchers(site, state)]


def _mail(site: Site, builders: tuple[str, ...]) -> list[OscarMail]:
    if site.mail is None:
        return []
    purpose = f"password of {site.mail.user} at the mail relay {site.mail.relay}"
    password = site.secrets.read(MAIL_PASSWORD, purpose) if site.mail.user else None
    ldap = site.mail.ldap
    asks = site.secrets.read(LDAP_PASSWORD, f"password of {ldap.bind} at {ldap.url}") if ldap and ldap.bind else ""
    return [oscar_mail(site.mail, builders, password, asks)]


def _reports(site: Site) -> list[CandidateReports]:
    return [CandidateReports(places=site.tarballs)] if site.tarballs else []
