"""The watcher of a place with releases: a change for each set of tarballs that is complete, none lost, none twice.

It looks in a thread, which may wait for servers; what it has found is in a file before anything is done about it. So a
master that was killed goes on where it was: a set that is noted and has no change in the database gets one.
"""

from __future__ import annotations

import time
from pathlib import Path
from threading import Event
from typing import Any

from buildbot.changes import base
from buildbot.data import resultspec
from twisted.internet import threads
from twisted.python import log

from oscar_steps.errors import Cancelled, FarmError, HostError
from oscar_steps.master.operator_mail import notify
from oscar_steps.master.watch.looks import FAILURES_BEFORE_MAIL, Letter, Looks
from oscar_steps.master.watch.svn import PROJECT
from oscar_steps.repositories import Tarballs
from oscar_steps.site import Site
from oscar_steps.sources.tarballs.fetch import Limit
from oscar_steps.sources.tarballs.looking import Look
from oscar_steps.sources.tarballs.memory import Memory, Shelf

AUTHOR = "release"
"""Who made a release is not known; the release manager gets the report, not the mails of each cell."""


class TarballWatcher(Looks, base.ReconfigurablePollingChangeSource):
    """Looks at one place, again and again."""

    compare_attrs = ("table", "folder")
    waiting: tuple[str, ...] = ()
    """What each set that is not complete waits for."""

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        self._stop = Event()
        self._known: set[str] | None = None
        super().__init__(*arguments, **settings)

    def checkConfig(self, *, table: Tarballs, folder: Path, **settings: Any) -> None:  # noqa: ARG002
        super().checkConfig(**settings)

    async def reconfigService(self, *, table: Tarballs, folder: Path, **settings: Any) -> None:
        self.table, self.folder = table, folder
        self._known = None
        await super().reconfigService(**settings)

    def activate(self) -> Any:
        self._stop = Event()
        return super().activate()

    def deactivate(self) -> Any:
        """The master ends, or changes: it does not wait for a server that does not answer."""
        self._stop.set()
        return super().deactivate()

    async def poll(self) -> None:
        """Look once. What was found is handed over also where a file could not be had."""
        shelf, fault = Shelf(self.folder, self.table.name), None
        try:
            try:
                await threads.deferToThread(self._look, shelf, self._stop)
            except HostError as error:
                fault = error
            await self._hand_over(shelf)
        except Cancelled:
            return
        except Exception as error:
            log.err(error, f"the tarballs of {self.table.name} could not be looked at")
            fault = fault or HostError(error.sentence if isinstance(error, FarmError) else f"{error!r}")
        self._note(fault)

    def _look(self, shelf: Shelf, stop: Event) -> None:
        """In a thread of its own. Raises HostError, OSError."""
        memory = shelf.load()
        Look(self.table.place, shelf, memory, Limit(0, 0, stop), _say).all()

    def _note(self, fault: HostError | None) -> None:
        name, url = self.table.name, self.table.url
        if fault is None:
            text = f"The releases at {url} can be read again.\n"
            self.ended_well(Letter(f"the releases {name} can be read again", text))
            return
        log.msg(f"{name}: {fault.sentence}")
        text = (
            f"The last {FAILURES_BEFORE_MAIL} looks at the releases at {url} failed ({self.table.poll} s apart):\n\n"
            f"  {fault.explain()}\n\n"
            "No release is lost: it is tested when it can be read. You will get a mail then.\n"
        )
        self.ended_badly(fault.sentence, Letter(f"the releases {name} cannot be read", text))

    async def _hand_over(self, shelf: Shelf) -> None:
        """A change for each set that has none, and the mails. Nothing else changes the memory meanwhile."""
        memory = await threads.deferToThread(shelf.load)
        self.waiting = tuple(memory.waiting.values())
        known = await self._changes()
        for revision in memory.unsent():
            if revision not in known:
                await self._add(memory, revision)
                known.add(revision)
            memory.sets[revision].sent = True
            await threads.deferToThread(shelf.save, memory)
        while memory.letters:
            letter = memory.letters[0]
            addresses = (self.table.release_manager,) if self.table.release_manager else ()
            to_operator = letter.to_operator or not addresses
            name = f"tarballs-{letter.name}"
            if not notify(self.master, letter.subject, letter.text, addresses, operator=to_operator, name=name):
                break  # the next look hands it over
            del memory.letters[0]
            await threads.deferToThread(shelf.save, memory)

    async def _changes(self) -> set[str]:
        """The revisions that have a change already: a master that was killed may not have noted them."""
        if self._known is None:
            ours = [resultspec.Filter("branch", "eq", [self.table.branch])]
            found = await self.master.data.get(("changes",), filters=ours)
            self._known = {str(change["revision"]) for change in found if change["branch"] == self.table.branch}
        return self._known

    async def _add(self, memory: Memory, revision: str) -> None:
        note = memory.sets[revision]
        lines = [f"{file.sha256}  {file.name}" for file in note.files]
        await self.master.data.updates.addChange(
            files=[file.name for file in note.files],
            author=AUTHOR,
            comments="\n".join([f"OSCAR {note.version}, as tarballs:", *lines]),
            revision=revision,
            branch=self.table.branch,
            repository=self.table.url,
            project=PROJECT,
            category=None,
            when_timestamp=int(time.time()),
            properties={},
            revlink="",
            codebase="",
            src=None,
        )


def _say(line: str) -> None:
    log.msg(line)


def tarball_watchers(site: Site, state: Path) -> list[TarballWatcher]:
    """One for each place of the site; what it has seen is kept below `state`."""
    return [
        TarballWatcher(
            name=f"tarballs-{place.name}", table=place, folder=state, pollInterval=place.poll, pollAtLaunch=True
        )
        for place in site.tarballs
    ]
