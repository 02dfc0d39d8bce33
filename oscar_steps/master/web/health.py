"""The farm's health, for a monitor: PLUGINS/health (JSON), PLUGINS/health?format=text (one word, then lines).

Registered as a Buildbot web plug-in (entry point `buildbot.www`, name `health`). The disk is also watched without a
monitor: the operator gets one mail when it falls below the watermark, and one when it is good again.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable
from typing import Any

from buildbot.util.service import BuildbotService
from twisted.internet import defer, reactor, task
from twisted.python import log

from oscar_steps.capacity import SAYS_NOTHING
from oscar_steps.master.operator_mail import MAIL_SERVICE, notify_operator
from oscar_steps.master.watch.git import GitPoller
from oscar_steps.master.watch.svn import FarmPoller
from oscar_steps.master.watch.tarballs import TarballWatcher
from oscar_steps.master.web.plugin import Content, Page, Plugin

HEALTH = "health"
"""The plug-in's name."""
DISK_SERVICE = "oscar-disk"
_MIB = 2**20
_WATCH_SECONDS = 60.0
_QUERY_SECONDS = 10.0
_AGAIN = 1.1
"""The disk is good again with a tenth more than the watermark: one that swings around it fills no mailbox."""


def free_mib(folder: str) -> int:
    return shutil.disk_usage(folder).free // _MIB


class DiskWatch(BuildbotService):
    """Sends the operator a mail when the disk of the master's folder falls below the watermark, and one after that."""

    name = DISK_SERVICE
    disk_mib = 0
    low = False
    clock: Any = reactor
    _loop: task.LoopingCall | None = None

    def checkConfig(self, disk_mib: int) -> None:
        """The site has checked it."""

    async def reconfigService(self, disk_mib: int) -> None:
        self.disk_mib = disk_mib

    async def startService(self) -> None:
        await super().startService()
        self._loop = task.LoopingCall(self.look)
        self._loop.clock = self.clock
        # Not now: the service that sends the mail may not run yet.
        self._loop.start(_WATCH_SECONDS, now=False)

    async def stopService(self) -> None:
        if self._loop and self._loop.running:
            self._loop.stop()
        await super().stopService()

    def look(self) -> None:
        folder = str(self.master.basedir)
        try:
            free = free_mib(folder)
        except OSError as error:
            log.msg(f"the free space of {folder} cannot be read: {error}")
            return
        if not self.low and free < self.disk_mib:
            self.low = True
            said = f"{folder} has {free} MiB free; it should have {self.disk_mib} MiB ([master] disk_mib)."
            notify_operator(
                self.master, "the master's disk is nearly full", f"{said} Free some space before runs are lost."
            )
        elif self.low and free >= self.disk_mib * _AGAIN:
            self.low = False
            notify_operator(
                self.master, "the master's disk has enough free space again", f"{folder} has {free} MiB free."
            )


async def health(master: Any) -> dict[str, Any]:
    """The state of each part; `trouble` of a part is a sentence, empty where the part is well."""
    parts = {
        "poller": _part(_poller, master),
        "releases": _part(_releases, master),
        "spool": _part(_spool, master),
        "disk": _part(_disk, master),
        "database": await _database(master),
        "workers": _part(_workers, master),
    }
    return {"state": "troubled" if any(part["trouble"] for part in parts.values()) else "good", **parts}


def _part(look: Callable[[Any], dict[str, Any]], master: Any) -> dict[str, Any]:
    """A part that cannot be looked at is in trouble: the page answers anyway, also about the others."""
    try:
        return look(master)
    except Exception as error:
        log.err(error, "a part of the health page")
        # Not the error's text: it may hold an address with a password.
        return {"trouble": f"its state cannot be read: {type(error).__name__} (the master's log says more)"}


def _poller(master: Any) -> dict[str, Any]:
    pollers = [source for source in master.change_svc if isinstance(source, FarmPoller | GitPoller)]
    if not pollers:
        return {"trouble": "the poller of the repository does not run", "last_success": None}
    trouble = "; ".join(poller.trouble for poller in pollers if poller.trouble)
    ended = [poller.last_success or 0.0 for poller in pollers]
    return {"trouble": trouble, "last_success": min(ended) or None}


def _releases(master: Any) -> dict[str, Any]:
    """The places with tarballs, and what sets that are not complete wait for."""
    watchers = [source for source in master.change_svc if isinstance(source, TarballWatcher)]
    trouble = next((watcher.trouble for watcher in watchers if watcher.trouble), "")
    waiting = [f"{watcher.table.name}: {sentence}" for watcher in watchers for sentence in watcher.waiting]
    return {"trouble": trouble, "places": len(watchers), "waiting": waiting}


def _spool(master: Any) -> dict[str, Any]:
    service = master.service_manager.namedServices.get(MAIL_SERVICE)
    if service is None:
        return {"trouble": "", "mail": False, "waiting": 0, "oldest": None}
    if service.spool is None:
        return {"trouble": "the mail service does not run", "mail": True, "waiting": 0, "oldest": None}
    spool = service.spool
    return {"trouble": spool.trouble, "mail": True, "waiting": spool.waiting(), "oldest": spool.oldest()}


def _disk(master: Any) -> dict[str, Any]:
    watch = master.service_manager.namedServices.get(DISK_SERVICE)
    wanted = watch.disk_mib if watch else 0
    try:
        free = free_mib(str(master.basedir))
    except OSError as error:
        return {"trouble": f"the free space cannot be read: {error.strerror}", "free_mib": None, "disk_mib": wanted}
    trouble = f"{free} MiB are free; there should be {wanted} MiB" if free < wanted else ""
    return {"trouble": trouble, "free_mib": free, "disk_mib": wanted}


async def _database(master: Any) -> dict[str, Any]:
    begun = time.monotonic()
    query = defer.ensureDeferred(_query(master))
    query.addTimeout(_QUERY_SECONDS, reactor)
    try:
        await query
    except defer.CancelledError:
        raise  # who asked is gone
    except Exception as error:
        late = isinstance(error, defer.TimeoutError)
        log.msg(f"the database does not answer: {error!r}")
        # The error itself may hold the database's address, with its password.
        said = f"timed out after {_QUERY_SECONDS:.0f} s" if late else type(error).__name__
        return {"trouble": f"a query failed: {said}", "seconds": None}
    return {"trouble": "", "seconds": round(time.monotonic() - begun, 3)}


async def _query(master: Any) -> None:
    await master.db.masters.getMasters()


def _workers(master: Any) -> dict[str, Any]:
    workers = master.workers.workers
    connected = sorted(name for name, worker in workers.items() if worker.conn is not None)
    missing = sorted(set(workers) - set(connected))
    faults = [f"{name}: {fault}" for name in connected if (fault := getattr(workers[name], "host_fault", ""))]
    silent = [f"not connected: {', '.join(missing)}"] if missing else []
    trouble = "; ".join([*silent, *(fault for fault in faults if SAYS_NOTHING not in fault)])
    return {"trouble": trouble, "connected": connected, "missing": missing}


def as_text(found: dict[str, Any]) -> str:
    """One word, and a line for each part."""
    parts = [(name, part["trouble"]) for name, part in found.items() if name != "state"]
    lines = [f"{name}: {' '.join(trouble.split()) or 'good'}" for name, trouble in parts]
    return "\n".join([str(found["state"]), *lines, ""])


class HealthPage(Page):
    """200 where all is good, 503 where something is not."""

    def __init__(self, master: Any) -> None:
        super().__init__()
        self.master = master

    async def content(self, form: str) -> Content:
        found = await health(self.master)
        status = 200 if found["state"] == "good" else 503
        if form == "text":
            return Content(as_text(found), "text/plain; charset=utf-8", status)
        return Content(json.dumps(found) + "\n", "application/json", status)


application = Plugin("Health of the farm", HealthPage)
