"""The master's copy of a git repository: brought up to date, asked for branches and commits, without waiting.

It lies below the master's folder, and only the poller writes branches into it. It is never the only one that knows
something: one that is damaged is made anew.
"""

from __future__ import annotations

import os
import shutil
from collections import defaultdict
from collections.abc import Coroutine, Iterable, Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import Any

from twisted.internet import defer, threads
from twisted.python import log

from oscar_steps.errors import HostError, SourceError
from oscar_steps.master.watch.asking import run_program
from oscar_steps.master.watch.commits import Commit, Touched
from oscar_steps.sources.git import (
    FULL_ID,
    HEADS,
    author_of,
    error_kind,
    git_environment,
    git_words,
    may_be_id,
    name_fault,
    named,
    refs_in,
)
from oscar_steps.sources.svn import NOBODY

_ASK_SECONDS = 120
_FETCH_SECONDS = 3600
_EVERY_HEAD = "+refs/heads/*:refs/heads/*"
_FORMAT = "--format=%aN%x00%aE%x00%P%x00%B"
_MOST_AUTHORS = 50
_NO_ANCESTOR = 1
_NAMES = ("--first-parent", "-m", "--root", "-r", "--no-renames", "--name-status")
_HEAD_PARTS = _FORMAT.count("%x00") + 1
_LISTED_BYTES, _LISTING_MEMORY = 16 << 20, 1 << 30
"""A commit of a few kilobytes can have a thousand million files: folders that are the same are one object of git's."""
_MANY = Touched("... and more files than the farm lists", "M")
_writing = defaultdict[Path, defer.DeferredLock](defer.DeferredLock)
"""One at a time writes into a copy: the poller, or a build that fetches an old commit."""


@dataclass
class GitCommit(Commit):
    """A commit, compared with its first parent."""

    parents: tuple[str, ...] = ()


class Copy:
    """The copy of one repository. `running` are its programs, so that they can be ended."""

    def __init__(self, place: Path, url: str, reactor: Any, running: set[Any] | None = None) -> None:
        self.place, self.url = place, url
        self.running: set[Any] = set() if running is None else running
        self.closed = False
        """Nothing is begun any more: the master ends."""
        self.damaged = False
        self._reactor = reactor

    def close(self) -> None:
        """End what runs, and begin nothing any more."""
        self.closed = True
        for process in tuple(self.running):
            process.kill("the poller stops")

    async def _run(
        self, words: Iterable[str], seconds: float, stdin: bytes = b"", before: Sequence[str] = (), most: int = 0
    ) -> tuple[int, bytes, str]:
        if self.closed:
            raise HostError("the master ends")
        # Where the master is killed git ends, too: nobody would wait for a server that does not answer.
        command = ["setpriv", "--pdeathsig", "KILL", "--", *before, "git", *words]
        return await run_program(self._reactor, command, git_environment(), seconds, self.running, stdin, most)

    async def _ask(self, *words: str, seconds: float = _ASK_SECONDS) -> bytes:
        """Of the repository. Raises SourceError where nothing of the kind is there, HostError otherwise."""
        status, output, complaint = await self._run(words, seconds)
        if status != 0:
            said = f"{self.url}: git says {git_words(complaint)}"
            raise error_kind(complaint)(said, hint="check the address and the revision")
        return output

    async def _look(self, *words: str, stdin: bytes = b"", good: tuple[int, ...] = (0,)) -> tuple[int, bytes]:
        """Into the copy. Raises HostError; the copy is made anew then."""
        status, output, complaint = await self._run([f"--git-dir={self.place}", *words], _ASK_SECONDS, stdin)
        if status not in good:
            raise self._unreadable(complaint)
        return status, output

    def _unreadable(self, complaint: str) -> HostError:
        self.damaged = self.damaged or not self.closed
        return HostError(f"the copy {self.place} of {self.url} cannot be read: git says {git_words(complaint)}")

    @property
    def is_there(self) -> bool:
        return (self.place / "HEAD").is_file()

    async def remote(self) -> dict[str, str]:
        """What the repository has: the full names of its references, HEAD among them, and their commits."""
        return refs_in(await self._ask("ls-remote", "--quiet", self.url))

    async def heads(self) -> dict[str, str]:
        """The branches that the repository has now, and their last commits."""
        return _branches(refs_in(await self._ask("ls-remote", "--quiet", "--heads", self.url)))

    async def tip(self, name: str) -> str:
        """The last commit of a branch; where none is called so, what else `resolve` finds by this name."""
        return (await self.heads()).get(name) or await self.resolve(name)

    async def update(self) -> dict[str, str]:
        """Fetch what is new; gives the branches with their last commits. Raises SourceError or HostError."""
        await self._alone(self._update())
        _, output = await self._look("for-each-ref", "--format=%(objectname)%09%(refname)", HEADS)
        return _branches(refs_in(output))

    async def _alone(self, work: Coroutine[Any, Any, None]) -> None:
        await _writing[self.place].run(lambda: defer.ensureDeferred(work))

    @property
    def _new(self) -> Path:
        return self.place.with_suffix(".new")

    async def _update(self) -> None:
        if os.path.lexists(self._new):  # of a master that was killed
            await threads.deferToThread(_remove, self._new)
        if not self.is_there or self.damaged:
            await self._make_anew()
        else:
            try:
                await self._fetch(self.place)
            except HostError as error:
                await self.heads()  # raises where it is the server
                log.msg(f"the copy {self.place} is made anew: {error}")
                await self._make_anew()

    async def _fetch(self, place: Path, *what: str) -> None:
        words = (f"--git-dir={place}", "fetch", "--quiet", "--no-tags", "--no-write-fetch-head", "--update-head-ok")
        await self._ask(*words, *(what or ("--prune", self.url, _EVERY_HEAD)), seconds=_FETCH_SECONDS)

    async def _make_anew(self) -> None:
        """Beside the one that is there, which stays until then."""
        new = self._new
        await threads.deferToThread(_remove, new)
        await self._ask("init", "--quiet", "--bare", "--template=", str(new))
        await self._fetch(new)
        await threads.deferToThread(_remove, self.place)
        new.rename(self.place)
        self.damaged = False

    async def resolve(self, wanted: str) -> str:
        """The full id of a branch, tag, HEAD or (abbreviated) commit id. Raises SourceError where there is none."""
        if fault := name_fault(wanted):
            raise SourceError(f"{self.url}: {fault}")
        ids = await self._ids(wanted) if may_be_id(wanted) else []
        if wanted in ids:
            return wanted
        found = named(await self.remote(), wanted, ids)
        if not found and FULL_ID.fullmatch(wanted) and await self._brings(wanted):
            found = wanted
        if not found:
            raise SourceError(f"{self.url} has no branch, tag or commit '{wanted}'", hint="check the revision")
        return found

    async def _ids(self, wanted: str) -> list[str]:
        """The commits of the copy whose ids begin so."""
        if not self.is_there:
            return []
        _, output = await self._look("rev-parse", f"--disambiguate={wanted.lower()}")
        return await self._there(output.decode().split())

    async def _there(self, ids: Iterable[str]) -> list[str]:
        """Those that are commits of the copy."""
        stdin = _lines(dict.fromkeys(ids))
        _, output = await self._look("cat-file", "--batch-check=%(objectname) %(objecttype)", stdin=stdin)
        found = (line.partition(" ") for line in output.decode().splitlines())
        return [identity for identity, _, kind in found if kind == "commit"]

    async def _brings(self, identity: str) -> bool:
        """Whether the repository gives a commit that the copy has not: a new one, or one of no branch."""
        if not self.is_there:
            await self._alone(self._update())
        if not await self._there([identity]):
            try:
                await self._alone(self._fetch(self.place, self.url, identity))
            except SourceError:
                return False
        return bool(await self._there([identity]))

    async def leads_to(self, old: str, new: str) -> bool:
        """Whether `old` is an ancestor of `new`; one that the copy does not have is none."""
        if not await self._there([old]):
            return False
        status, _ = await self._look("merge-base", "--is-ancestor", old, new, good=(0, _NO_ANCESTOR))
        return status == 0

    async def between(self, tip: str, known: Iterable[str]) -> list[str]:
        """The commits of a branch from its tip back to what leads to `known`, the oldest first.

        A branch is the chain of first parents: what a merge brings is the merge's. Git is asked for no differences: it
        lists too much where a commit has a wrong date.
        """
        _, output = await self._look("rev-list", "--first-parent", tip, "--")
        chain, ends = output.decode().split(), {*await self._there(known)}
        last = next((place for place, identity in enumerate(chain) if identity in ends), len(chain))
        own = chain[:last]
        if own and not (len(ends) == 1 and last < len(chain)):
            known_of_all = await self._leading_to(ends)
            own = list(takewhile(lambda identity: identity not in known_of_all, own))
        return own[::-1]

    async def _leading_to(self, ids: Iterable[str]) -> set[str]:
        """These commits and all that they have come from."""
        _, output = await self._look("rev-list", "--stdin", stdin=_lines(ids))
        return {*output.decode().split()}

    async def commit(self, identity: str, branch: str) -> GitCommit:
        """What git knows of a commit. `branch` is the farm's name of its branch."""
        parts, is_whole = await self._log(identity, *_NAMES)
        if len(parts) < _HEAD_PARTS:
            parts, is_whole = (await self._log(identity, "--no-patch"))[0][:_HEAD_PARTS], False
        name, address, parents, message, *rest = parts
        rest = [part.removeprefix("\n") for part in rest[:1]] + rest[1:]
        touched = [Touched(path, action[:1]) for action, path in zip(rest[::2], rest[1::2], strict=False) if path]
        touched += [] if is_whole else [_MANY]
        return GitCommit(identity, author_of(name, address), message, branch, touched, tuple(parents.split()))

    async def has(self, identity: str) -> bool:
        """Whether the copy has this commit. Raises HostError where there is no copy."""
        return bool(await self._there([identity]))

    async def told(self, identities: Sequence[str]) -> list[GitCommit]:
        """Who made these commits, in their order, with their messages, but without their files: one question for all.

        Where they say too much for one answer each of them is asked for alone.
        """
        if not identities:
            return []
        words = ("log", "-z", "--no-walk=unsorted", "--no-patch", "--no-show-signature", _FORMAT, "--stdin")
        command = [f"--git-dir={self.place}", *words]
        status, output, _ = await self._run(command, _ASK_SECONDS, _lines(identities), most=_LISTED_BYTES)
        parts = output.decode("utf-8", "replace").split("\0")
        if status != 0 or len(parts) != _HEAD_PARTS * len(identities) + 1:
            return [await self.commit(identity, "") for identity in identities]
        rows = zip(identities, *(parts[place:-1:_HEAD_PARTS] for place in range(_HEAD_PARTS)), strict=True)
        return [
            GitCommit(identity, author_of(name, address), message, "", [], tuple(parents.split()))
            for identity, name, address, parents, message in rows
        ]

    async def _log(self, identity: str, *words: str) -> tuple[list[str], bool]:
        """What git tells of a commit, and whether that is all: it is not where git would print or take too much."""
        command = [f"--git-dir={self.place}", "log", "-1", "-z", *words, "--no-show-signature", _FORMAT, identity, "--"]
        limit = ("prlimit", f"--data={_LISTING_MEMORY}")
        status, output, complaint = await self._run(command, _ASK_SECONDS, before=limit, most=_LISTED_BYTES)
        parts = output.decode("utf-8", "replace").split("\0")
        is_too_much = status < 0 or "memory" in complaint.lower()
        is_useless = len(parts) < _HEAD_PARTS and "--no-patch" in words
        if self.closed or (status != 0 and not is_too_much) or is_useless:
            raise self._unreadable(complaint)
        return parts, status == 0

    async def merged_authors(self, commit: GitCommit) -> list[str]:
        """Whose commits a merge brings."""
        if len(commit.parents) < 2:
            return []
        brought = await self._leading_to(commit.parents[1:]) - await self._leading_to(commit.parents[:1])
        if not brought:
            return []
        _, output = await self._look("log", "-z", "--no-walk", "--format=%aN%x00%aE", "--stdin", stdin=_lines(brought))
        parts = [part.decode("utf-8", "replace") for part in output.split(b"\0")]
        names = dict.fromkeys(author_of(*pair) for pair in zip(parts[::2], parts[1::2], strict=False))
        return [name for name in names if name not in (commit.author, NOBODY)][:_MOST_AUTHORS]


def _branches(refs: dict[str, str]) -> dict[str, str]:
    return {name.removeprefix(HEADS): tip for name, tip in refs.items() if name.startswith(HEADS)}


def _lines(words: Iterable[str]) -> bytes:
    return "".join(f"{word}\n" for word in words).encode()


def _remove(folder: Path) -> None:
    if folder.is_dir() and not folder.is_symlink():
        shutil.rmtree(folder, ignore_errors=True)
    else:
        folder.unlink(missing_ok=True)
