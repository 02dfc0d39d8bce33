"""The poller of a git repository: every commit of every watched branch, in order, none lost, none twice.

A branch is the chain of its first parents, and what a merge brings is the merge's. Of each branch the last commit that
is stored is noted in a file (its mark), after it is stored; what the database has already is not stored once more. So a
master may be killed between any two steps. If a branch does not go on from its mark (a force push, another
repository at the address), the poller tests its tip and mails the operator.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import Any

from buildbot.changes import base
from buildbot.data import resultspec
from twisted.python import log

from oscar_steps.errors import FarmError, HostError
from oscar_steps.master.operator_mail import notify, notify_operator
from oscar_steps.master.watch.commits import NOT_TESTED, not_tested, skipped_by
from oscar_steps.master.watch.copy import Copy, GitCommit
from oscar_steps.master.watch.looks import Looks, readable_again, unreadable
from oscar_steps.master.watch.storable import storable
from oscar_steps.master.watch.svn import PROJECT
from oscar_steps.repositories import Git
from oscar_steps.site import Site
from oscar_steps.sources.git import FULL_ID, name_fault
from oscar_steps.sources.source import short_name
from oscar_steps.textio import printable, read_regular, some, write_atomically

MERGED_AUTHORS = "merged_authors"
"""A change's property: whose commits a merge brings."""


@dataclass
class _Known:
    """Where new branches end, at one look."""

    marks: tuple[str, ...]
    """Where the known branches were: all that leads there is known."""
    passed: set[str]
    """The commits that branches have got since then. What their merges bring may be a new branch's."""
    watched: list[str]
    """The tips of watched branches."""


class GitPoller(Looks, base.ReconfigurablePollingChangeSource):
    """Looks at one repository, again and again.

    A branch that is new begins with its own commits where it goes off a branch that is known, and otherwise with its
    last one. The first look only notes where each branch is.
    """

    compare_attrs = ("table", "folder")
    master: Any

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        self._copy: Copy | None = None
        self._marks: dict[str, str] | None = None
        self._told_of_main = False
        self._told = 0
        """How often the operator has been told of branches that were replaced."""
        super().__init__(*arguments, **settings)

    def checkConfig(self, *, table: Git, folder: Path, **settings: Any) -> None:  # noqa: ARG002
        super().checkConfig(**settings)

    async def reconfigService(self, *, table: Git, folder: Path, **settings: Any) -> None:
        self.table, self.folder = table, folder
        self._copy = None
        await super().reconfigService(**settings)

    def activate(self) -> Any:
        self._copy = None
        return super().activate()

    def deactivate(self) -> Any:
        """The master ends, or changes: it does not wait for a server that does not answer."""
        if self._copy is not None:
            self._copy.close()
        return super().deactivate()

    @property
    def note(self) -> Path:
        """The file with the marks."""
        return self.folder / f"git-{self.table.name}.json"

    async def poll(self) -> None:
        """Look once. Failures are counted; the operator gets a mail when several follow each other."""
        copy = self._copy = self._copy or Copy(self.table.copy_below(self.folder), self.table.url, self.master.reactor)
        try:
            await self._look(copy)
        except Exception as error:
            if copy.closed:
                return
            said = error.sentence if isinstance(error, FarmError) else f"{type(error).__name__}: {error}"
            log.err(error, f"GitPoller {self.table.name}: the repository could not be polled")
            self.ended_badly(said, unreadable(self.table.url, said, self.table.poll))
            return
        self.ended_well(readable_again(self.table.url))
        log.msg(f"GitPoller {self.table.name}: finished polling")

    async def _look(self, copy: Copy) -> None:
        heads = await copy.heads()
        if self._marks is None:
            self._marks = await self._remembered(heads)
            self._write()
        marks = self._marks
        if marks and not heads:
            raise HostError(f"the repository {self.table.url} has no branches any more; {len(marks)} were known")
        if heads == marks and (copy.is_there or not heads):
            return
        tips = await copy.update()
        self._look_for_main(tips)
        for name in {*marks} - {*tips}:
            del marks[name]
        replaced = {
            name: tip
            for name, tip in tips.items()
            if self.table.watches(name) and name in marks and not await copy.leads_to(marks[name], tip)
        }
        if replaced and not self._tell(replaced):
            tips = {name: tip for name, tip in tips.items() if name not in replaced}  # they are told at the next look
        known = await self._known(copy, tips)
        for name in await self._in_turn(copy, tips, known):
            await self._take(copy, name, tips[name], known, replaced=name in replaced)
        self._told += bool({*replaced} & {*tips})
        self._write()

    async def _known(self, copy: Copy, tips: Mapping[str, str]) -> _Known:
        marks = self._marks or {}
        moved = {name: tip for name, tip in tips.items() if marks.get(name, tip) != tip}
        passed = {each for name, tip in moved.items() for each in await copy.between(tip, [marks[name]])}
        watched = [tip for name, tip in tips.items() if name in marks and self.table.watches(name)]
        return _Known(tuple(marks.values()), passed, watched)

    async def _in_turn(self, copy: Copy, tips: Mapping[str, str], known: _Known) -> list[str]:
        """The branches in an order in which a commit that several have is the one's that it was made on.

        That is a branch that is known; of new ones the one that has the fewest commits of its own, as others go off it.
        One that is not watched takes a commit from none that is. The new ones come first: the master may be killed
        before it has taken the merge that brings their commits to a branch that is known.
        """
        watches, marks = self.table.watches, {*(self._marks or {})}
        own = {name: await self._own(copy, tips[name], known) for name in tips if name not in marks and watches(name)}

        def turn(name: str) -> tuple[Any, ...]:
            is_new = name not in marks
            return not is_new, watches(name) != is_new, len(own.get(name, ())), name != self.table.main, name

        return sorted(tips, key=turn)

    def _look_for_main(self, tips: Mapping[str, str]) -> None:
        told, self._told_of_main = self._told_of_main, self.table.main not in tips
        if told or not self._told_of_main:
            return
        text = (
            f"The repository {self.table.url} has no branch '{self.table.main}', so nothing of it is tested by night. "
            f'There are: {printable(some(tips, 10))}. Give one of them in farm.toml, as main = "NAME" below [[git]].\n'
        )
        notify_operator(self.master, f"the repository {self.table.name} has no branch {self.table.main}", text)

    def _tell(self, replaced: Mapping[str, str]) -> bool:
        """Tell the operator of branches that do not go on from where they were; whether it can be told now."""
        marks = self._marks or {}
        lines = [
            f"  {printable(name)}: was at {short_name(marks[name])}, and is at {short_name(tip)}"
            for name, tip in replaced.items()
        ]
        text = (
            f"In the repository {self.table.url} branches do not go on from the last commit that the farm has seen:\n\n"
            + "\n".join(lines)
            + "\n\nWere they pushed by force? Or is another repository there now? Of each the last commit is tested, "
            "unless it was seen on that branch before; what was between is not.\n"
        )
        log.msg(f"GitPoller {self.table.name}: replaced branches:\n" + "\n".join(lines))
        subject = f"the repository {self.table.name} has branches that were replaced"
        this_time = hashlib.sha256("\n".join((*sorted(lines), str(self._told))).encode()).hexdigest()[:32]
        name = f"git-{self.table.name}-{this_time}"
        return notify(self.master, subject, text, (), operator=True, name=name)

    async def _take(self, copy: Copy, name: str, tip: str, known: _Known, *, replaced: bool) -> None:
        """Store what is new on a branch, commit by commit."""
        assert self._marks is not None
        mark = self._marks.get(name)
        if self.table.watches(name) and tip != mark:
            if replaced:
                commits = [tip]
            elif mark is not None:
                commits = await copy.between(tip, [mark])
            else:
                commits = await self._own(copy, tip, known)
                known.passed.update(await self._walk(copy, tip, known))
                known.watched.append(tip)
            for identity in commits:
                await self._store(await copy.commit(identity, f"{self.table.prefix}{name}"), copy)
                self._marks[name] = identity
                self._write()
        self._marks[name] = tip

    async def _walk(self, copy: Copy, tip: str, known: _Known) -> list[str]:
        """The commits of a new branch that no other has, or has by a merge alone that was not seen yet."""
        back = reversed(await copy.between(tip, known.marks))
        return [*takewhile(lambda identity: identity not in known.passed, back)][::-1]

    async def _own(self, copy: Copy, tip: str, known: _Known) -> list[str]:
        """The commits of a new branch; of one that has nothing in common with those that are known its last one.

        So it is where all of them are known of branches that nobody watches.
        """
        own = await self._walk(copy, tip, known)
        if not own and await copy.between(tip, known.watched):
            return [tip]
        begins = await copy.commit(own[0], "") if own else None
        return [tip] if begins is not None and not begins.parents else own

    async def _store(self, commit: GitCommit, copy: Copy) -> None:
        if await self._is_stored(commit):
            return
        merged = await copy.merged_authors(commit)
        change = storable(
            {
                "author": commit.author,
                "files": [touched.path for touched in commit.touched],
                "comments": commit.message,
                "revision": commit.revision,
                "branch": commit.branch,
                "revlink": self.table.revision_link.replace("%s", commit.revision),
                "category": self._category(commit),
                "properties": {MERGED_AUTHORS: merged} if merged else {},
            }
        )
        if change is None:
            said = f"the name of its branch has {len(commit.branch)} characters"
            log.msg(f"GitPoller {self.table.name}: {commit.revision} is not tested: {said}")
            return
        await self.master.data.updates.addChange(**change, repository=self.table.url, project=PROJECT, codebase="")

    def _category(self, commit: GitCommit) -> str | None:
        """Why a change is not tested; None where it is."""
        patterns = skipped_by(commit, self.table.skip) if self.table.skip else None
        if patterns is None:
            return None
        return not_tested(patterns, ()) if patterns else f"{NOT_TESTED}it changes no file"

    async def _is_stored(self, commit: GitCommit) -> bool:
        """Whether the database has it already: the master may have been killed before the mark moved."""
        this = [resultspec.Filter("revision", "eq", [commit.revision])]
        found = await self.master.data.get(("changes",), filters=this)
        return any((c["revision"], c["branch"]) == (commit.revision, commit.branch) for c in found)

    async def _remembered(self, heads: dict[str, str]) -> dict[str, str]:
        """After a start: the marks. Where the file is lost, the database knows what was stored last of each branch."""
        noted = read_note(self.note)
        if noted is not None:
            marks, self._told = noted
            return marks
        stored = dict[str, str]()
        for name in heads:
            of_branch = [resultspec.Filter("branch", "eq", [self.table.prefix + name])]
            changes = self.master.data.get(("changes",), filters=of_branch, order=["-changeid"], limit=1)
            for change in await changes:
                stored[name] = str(change["revision"])
        if stored:
            log.msg(
                f"GitPoller {self.table.name}: {self.note} cannot be read; the database knows {len(stored)} branches"
            )
        return heads | stored

    def _write(self) -> None:
        """That the marks cannot be noted does not stop the poller: what is stored is in the database, too."""
        try:
            write_atomically(self.note, json.dumps({"branches": self._marks, "told": self._told}) + "\n")
        except OSError as error:
            log.msg(f"{self.note} cannot be written ({error})")


def read_note(path: Path) -> tuple[dict[str, str], int] | None:
    """The marks in a file, by git's names of the branches, and how often the operator was told that some were replaced.

    None where there is no file, or none that can be read.
    """
    try:
        note = json.loads(read_regular(path))
        marks = {
            name: identity
            for name, identity in note["branches"].items()
            if isinstance(identity, str) and FULL_ID.fullmatch(identity) and not name_fault(name)
        }
        return marks, int(note.get("told", 0))
    except (OSError, ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError):
        return None


def git_pollers(site: Site, state: Path) -> Iterable[GitPoller]:
    """One for each git repository of the site; what it has seen is kept below `state`."""
    return [
        GitPoller(name=f"git-{git.name}", table=git, folder=state, pollInterval=git.poll, pollAtLaunch=True)
        for git in site.git
    ]
