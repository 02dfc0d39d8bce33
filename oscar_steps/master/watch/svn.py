"""The poller of OSCAR's Subversion repository: every commit, none lost, none twice."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

from buildbot.changes.svnpoller import SVNPoller
from twisted.python import log

from oscar_steps.errors import FarmError, HostError
from oscar_steps.master.operator_mail import notify_operator
from oscar_steps.master.watch.asking import run_svn
from oscar_steps.master.watch.commits import (
    Commit,
    are_harmless,
    changed_properties,
    commits_of,
    not_tested,
    skipped_by,
    text_of,
)
from oscar_steps.master.watch.looks import Looks, readable_again, unreadable
from oscar_steps.master.watch.mark import AnotherRepository, Mark
from oscar_steps.master.watch.storable import storable
from oscar_steps.repositories import Repository
from oscar_steps.sources.login import Logins
from oscar_steps.sources.svn import advice, svn_words
from oscar_steps.sources.svn_xml import UNREADABLE, Address, address, log_entries, unreadable_entry
from oscar_steps.textio import read_regular, write_atomically

PROJECT = "oscar"
_REMEMBERED = 500


class BranchSplitter:
    """Splits a path of a commit into branch and file: `trunk/x`, `branches/NAME/x`, `tags/NAME/x`; others are not ours.

    Every branch has a name ('trunk' too, where Buildbot's own function says None), so poller, button and nightly agree
    and a branch is always the path below the repository's URL. It also knows which paths are not installed. Compares
    equal by all that: a reconfiguration that leaves it as it is does not restart the poller.
    """

    def __init__(self, repository: Repository) -> None:
        self.trunk = repository.trunk
        self.folders = (repository.branches, repository.tags)
        self.skip = repository.skip

    def __eq__(self, other: object) -> bool:
        return isinstance(other, BranchSplitter) and vars(self) == vars(other)

    def __hash__(self) -> int:
        return hash((self.trunk, self.folders, self.skip))

    def __call__(self, path: str) -> dict[str, str] | None:
        if path.startswith(f"{self.trunk}/"):
            return {"project": PROJECT, "branch": self.trunk, "path": path[len(self.trunk) + 1 :]}
        for folder in self.folders:
            name, slash, rest = path[len(folder) + 1 :].partition("/")
            if path.startswith(f"{folder}/") and name and slash:
                return {"project": PROJECT, "branch": f"{folder}/{name}", "path": rest}
        return None


class FarmPoller(Looks, SVNPoller):
    """Buildbot's poller, made to lose nothing.

    It asks for all revisions since the last one it has seen (the original asks for the newest `histmax`, and older ones
    vanish); a change that could not be stored is asked for again, and none is stored twice; a neighbour whose name
    merely begins like ours (`oscar-website` beside `oscar`) is not taken for ours; the address may be spelt in any way
    that svn takes; no entry of the log stops the others. Where several polls in a row fail the operator gets one mail.
    So the operator does where another repository has taken the place of ours; nothing is tested then until the note of
    it is removed.
    """

    last_change: int | None
    _prefix: str | None
    state: Path | None = None
    somewhere = "trunk"
    """A branch that is tested for a revision that does not show what it changed."""
    skip: tuple[str, ...] = ()
    logins = Logins()
    _mark: Mark | None = None
    _waits = False
    """For the operator, who has to say that another repository is meant."""

    def __init__(self, repourl: str, **kwargs: Any) -> None:
        self.svn: set[Any] = set()
        self._known: set[tuple[str, str]] | None = None
        super().__init__(repourl, **kwargs)

    def checkConfig(self, repourl: str, *, logins: Logins | None = None, **kwargs: Any) -> None:  # noqa: ARG002
        super().checkConfig(repourl, **kwargs)

    async def reconfigService(
        self, repourl: str, *, cachepath: str | None = None, logins: Logins | None = None, **kwargs: Any
    ) -> None:
        """Buildbot's own reading of its file gives up for good where the file is empty."""
        moved = self.state is not None and repourl.rstrip("/") != self.repourl
        await super().reconfigService(repourl, cachepath=None, **kwargs)
        self.state = Path(cachepath) if cachepath else None
        self.logins = logins or Logins()
        self.somewhere = getattr(self.split_file, "trunk", self.somewhere)
        self.skip = getattr(self.split_file, "skip", self.skip)
        if self._mark is None and self.note is not None:
            self._mark = Mark.read(self.note)
        if moved:
            self._prefix = self._known = None
        if self.last_change is None and self.state is not None:
            self.last_change = _number_in(self.state)

    @property
    def note(self) -> Path | None:
        """The file that says which repository is watched. The operator removes it to have another one watched."""
        return self.state.with_name("svn-repository") if self.state is not None else None

    def deactivate(self) -> Any:
        """The master ends, or changes: it does not wait for a repository that does not answer."""
        for process in tuple(self.svn):
            process.kill("the poller stops")
        return super().deactivate()

    async def poll(self) -> None:
        """Poll once. Failures are counted; the operator gets a mail when several follow each other."""
        try:
            await self._look()
        except Exception as error:
            said = error.sentence if isinstance(error, FarmError) else f"{type(error).__name__}: {error}"
            log.err(error, "SVNPoller: the repository could not be polled")
            if isinstance(error, AnotherRepository):
                self._wait(said)
            else:
                self.ended_badly(said, unreadable(self.repourl, said, self.pollInterval))
            return
        self.ended_well(readable_again(self.repourl))
        log.msg("SVNPoller: finished polling")

    def _wait(self, said: str) -> None:
        """Nothing is tested any more until the operator has decided: numbers mean other commits than before."""
        if not self._waits:
            text = f"{said}.\n\nNo commit is tested until then.\n"
            notify_operator(self.master, "the repository is not the one that was watched", text)
            if self.note is not None and not os.path.lexists(self.note):
                self._write_mark(self._mark or Mark())  # that it is removed is the operator's answer
        self._waits, self.trouble = True, said

    async def _begin_anew(self, where: Address) -> None:
        """The operator has said that this repository is meant. What is in it until now is not tested."""
        newest = await self.master.data.get(("changes",), order=["-changeid"], limit=1)
        self._known, self.last_change = set(), where.head
        self._write_mark(Mark(where.uuid, max((change["changeid"] for change in newest), default=0)))
        self._waits, self.trouble = False, ""
        text = (
            f"The repository {self.repourl} is watched again. The first commit that is tested is r{where.head + 1}.\n"
        )
        notify_operator(self.master, "the repository is watched again", text)

    def _other(self, difference: str) -> AnotherRepository:
        return AnotherRepository(
            f"the repository {self.repourl} is not the one that the farm has watched: {difference}. Was it loaded "
            f"anew, or restored from a backup? If so, remove {self.note} on the master's host: then the farm goes on "
            "by itself with the next commit after that. If not, mend the server or the address"
        )

    def _write_mark(self, mark: Mark) -> None:
        self._mark = mark
        if self.note is None:
            return
        try:
            mark.write(self.note)
        except OSError as error:
            log.msg(f"{self.note} cannot be written ({error}): after a restart another repository is not noticed")

    async def _look(self) -> None:
        where = address(await self._ask("info", "--xml", "-r", "HEAD", f"{self.repourl}@"))
        self._prefix = where.prefix
        if self._known is None:
            await self._remember(where.head)
        if self.last_change is None:
            log.msg(f"SVNPoller: starting at change {where.head}")
            self.last_change = where.head
        if self._waits and self.note is not None and not os.path.lexists(self.note):
            await self._begin_anew(where)
        if difference := (self._mark or Mark()).difference(where.uuid, where.head, self.last_change):
            raise self._other(difference)
        if self._mark is None or not self._mark.uuid:
            self._write_mark(replace(self._mark or Mark(), uuid=where.uuid))
        seen, self.last_change = self.last_change, where.head
        try:
            if where.head > seen:
                entries = sorted(await self._new_entries(where, seen), key=_revision_of)
                await self.submit_changes(self.create_changes(entries))
                self._remember_newest(entries)
        except BaseException:
            if self.last_change == where.head:
                self.last_change = seen
            raise
        finally:
            if self.state is not None and self.last_change != _number_in(self.state):
                self._note_last_change(self.state)

    def _note_last_change(self, state: Path) -> None:
        """That it cannot be noted does not stop the poller: after a start the database knows the last change, too."""
        try:
            write_atomically(state, f"{self.last_change}\n")
        except OSError as error:
            log.msg(f"{state} cannot be written ({error}); the last revision is in the database, too")

    async def _new_entries(self, where: Address, seen: int) -> list[Any]:
        """The log after revision `seen`. Raises AnotherRepository where a revision that was seen is another one now."""
        mark = self._mark or Mark()
        first = min(mark.revision, seen + 1) if mark.revision else seen + 1
        entries = await self._entries(where, first)
        if difference := mark.other_date({_revision_of(entry): text_of(entry, "date") for entry in entries}):
            raise self._other(difference)
        return [entry for entry in entries if _revision_of(entry) > seen]

    def _remember_newest(self, entries: list[Any]) -> None:
        """The newest revision whose date is known: by it the repository is recognized."""
        dated = [entry for entry in entries if text_of(entry, "date")]
        if dated and self._mark is not None:
            revision, date = _revision_of(dated[-1]), text_of(dated[-1], "date")
            self._write_mark(replace(self._mark, revision=revision, date=date))

    async def _entries(self, where: Address, first: int) -> list[Any]:
        """All of the log from revision `first` on. Where svn cannot print it as a whole, revision by revision."""
        somewhere = f"/{where.prefix}/{self.somewhere}/{UNREADABLE}".replace("//", "/")
        words = ("log", "--xml", "--verbose", "-r")
        target = f"{where.url}@{where.head}"
        try:
            return log_entries(await self._ask(*words, f"{where.head}:{first}", target), somewhere)
        except HostError:
            # Is it the repository, or a revision? Raises once more if it is the repository.
            await self._ask("info", "--xml", "-r", "HEAD", f"{self.repourl}@")
        entries = []
        for number in range(first, where.head + 1):
            try:
                entries += log_entries(await self._ask(*words, str(number), target), somewhere)
            except HostError as error:
                await self._ask("info", "--xml", "-r", "HEAD", f"{self.repourl}@")
                log.msg(f"revision {number} is tested although its log cannot be read: {error}")
                entries += await self._without_message(words, number, target, somewhere)
        return entries

    async def _without_message(self, words: Sequence[str], number: int, target: str, somewhere: str) -> list[Any]:
        """By HTTP a message that no XML may hold spoils the whole answer: who and where are asked for alone."""
        try:
            entries = log_entries(await self._ask(*words, str(number), "--quiet", target), somewhere)
        except HostError:
            return [unreadable_entry(number, somewhere)]
        for entry in entries:
            message = entry.ownerDocument.createElement("msg")
            message.appendChild(entry.ownerDocument.createTextNode(UNREADABLE))
            entry.appendChild(message)
        return entries

    async def _remember(self, head: int) -> None:
        """After a start: what the database has already. It also knows the last change where our own file is broken."""
        newest = await self.master.data.get(("changes",), order=["-changeid"], limit=_REMEMBERED)
        after = self._mark.after if self._mark is not None else 0
        ours = [
            change
            for change in newest
            if change["repository"] == self.repourl
            and str(change["revision"]).isdigit()
            and change.get("changeid", after + 1) > after
        ]
        self._known = {(str(change["revision"]), str(change["branch"])) for change in ours}
        revisions = [number for change in ours if (number := int(change["revision"])) <= head]
        if self.last_change is None and revisions:
            # Its neighbours on other branches may not have been stored: ask for this revision once more.
            self.last_change = max(revisions) - 1

    async def _ask(self, *words: str) -> bytes:
        command = [words[0], "--non-interactive", *words[1:]]
        rc, output, complaint = await run_svn(self.master.reactor, command, self.svn, logins=self.logins)
        if rc != 0:
            said, more = svn_words(complaint), advice(complaint)
            more = f"; {more}" if more else ""
            raise HostError(f"the repository {self.repourl} cannot be read (svn says: {said}){more}")
        return output

    def _transform_path(self, path: str) -> dict[str, str] | None:
        prefix = (self._prefix or "").rstrip("/")
        if prefix and not path.startswith(f"{prefix}/"):
            return None
        found: dict[str, str] | None = super()._transform_path(path)
        return found

    def create_changes(self, new_logentries: list[Any]) -> list[dict[str, Any]]:
        trunk = "/".join(part for part in ((self._prefix or "").strip("/"), self.somewhere) if part)
        return [
            self._change(commit)
            for entry in new_logentries
            for commit in commits_of(entry, self._transform_path, trunk)
        ]

    def _change(self, commit: Commit) -> dict[str, Any]:
        return {
            "author": commit.author,
            "committer": None,
            "files": [touched.path for touched in commit.touched],
            "comments": commit.message,
            "revision": commit.revision,
            "branch": commit.branch,
            "revlink": self.revlinktmpl % quote(commit.revision) if self.revlinktmpl else "",
            "category": self.category,
            "repository": self.repourl,
            "project": self.project,
            "codebase": None,
            "commit": commit,
        }

    async def _category(self, commit: Commit) -> Any:
        """Why a change is not tested; where it is, the category of all changes."""
        patterns = skipped_by(commit, self.skip)
        if patterns is None or not self.skip:
            return self.category
        properties: tuple[str, ...] = ()
        if any(touched.properties_only for touched in commit.touched):
            try:
                properties = changed_properties(await self._difference(commit))
            except HostError as error:
                log.msg(f"revision {commit.revision} is tested: its properties cannot be read: {error}")
            if not are_harmless(properties):
                return self.category
        return not_tested(patterns, properties)

    async def _difference(self, commit: Commit) -> str:
        url = f"{self.repourl}/{quote(commit.branch)}@{commit.revision}"
        output = await self._ask("diff", "--properties-only", "--change", commit.revision, url)
        return output.decode("utf-8", "replace")

    async def submit_changes(self, changes: list[dict[str, Any]]) -> None:
        known = self._known if self._known is not None else set()
        for change in changes:
            name = (str(change["revision"]), str(change["branch"]))
            if name in known:
                continue
            if (commit := change.pop("commit", None)) is not None:
                change["category"] = await self._category(commit)
            stored = storable(change)
            if stored is None:
                log.msg(f"SVNPoller: revision {name[0]} is not tested: the branch's name has {len(name[1])} characters")
                continue
            try:
                await self.master.data.updates.addChange(**stored)
            except BaseException:
                self.last_change = int(change["revision"]) - 1  # ask for it again at the next look
                raise
            known.add(name)


def _revision_of(entry: Any) -> int:
    return int(entry.getAttribute("revision"))


def _number_in(path: Path) -> int | None:
    """The revision that is noted in a file; None where there is none, or none that can be read."""
    try:
        return int(read_regular(path)[:40].decode("ascii").strip())
    except (OSError, ValueError):
        return None


def svn_poller(repository: Repository, state: Path, logins: Logins) -> FarmPoller:
    """The poller of a site's repository; the last revision it has seen is kept in a file below `state`."""
    return FarmPoller(
        repository.url.rstrip("/"),
        name="svn",
        project=PROJECT,
        split_file=BranchSplitter(repository),
        pollInterval=repository.poll,
        pollAtLaunch=True,
        histmax=repository.history,
        cachepath=str(state / "svn-last-revision"),
        revlinktmpl=repository.revision_link,
        logins=logins,
    )
