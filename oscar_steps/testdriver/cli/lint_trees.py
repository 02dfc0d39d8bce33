"""The trees that the first tier compares: a revision and the one before it, got from Subversion within a second.

One working copy per repository is kept below the cache's folder and switched from revision to revision, so that only
what differs is fetched. It is used by one lint at a time, while the trees are read. What was cut short, damaged, or
belongs to another repository is made anew.
"""

from __future__ import annotations

import hashlib
import os
import posixpath
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from filelock import FileLock, Timeout

from oscar_steps.archive import Limits, unpack
from oscar_steps.environment import tool_environment
from oscar_steps.errors import FarmError, HostError
from oscar_steps.lint.scratch import scratch_folder
from oscar_steps.lint.tree import Tree
from oscar_steps.sources.externals_text import known_paths, properties_in
from oscar_steps.sources.history import Change
from oscar_steps.sources.mirror import Mirror
from oscar_steps.sources.resolve import EXPORT_SECONDS, svn
from oscar_steps.sources.source import Patch
from oscar_steps.testdriver.cli.patches import patched
from oscar_steps.textio import read_regular, write_atomically
from oscar_steps.v3m.host.ledger import owned

MAX_COPIES = 4
_LOCK_SECONDS = 300
_FULL = re.compile(r"No space left on device|Disk quota exceeded|disk is full")


@dataclass(frozen=True)
class Trees:
    """A tree, the one before it (None: there is none), and what was copied from where between them."""

    before: Tree | None
    after: Tree
    copied: dict[str, str] = field(default_factory=dict)


def trees_of(change: Change, cache: Path, patch: Patch | None = None) -> Trees:
    """The trees before and after a change, or before and after a patch on it. Raises SourceError or HostError."""
    with _working_copy(change, cache) as copy:
        if patch is not None:
            base = copy.tree(change.url, change.revision)
            return Trees(base, *patched(base, patch))
        before = copy.tree(change.base_url, change.base) if change.base else None
        return Trees(before, copy.tree(change.url, change.revision), change.copied)


def trees_of_git(change: Change, mirror: Mirror, patch: Patch | None = None) -> Trees:
    """As `trees_of`, of a git repository: its files stand beside the copy, and only what differs is written."""
    place = mirror.place.with_suffix(".tree")
    for left in ("index.lock", "HEAD.lock"):  # of a git that was killed: the mirror is ours alone
        (mirror.place / left).unlink(missing_ok=True)

    def tree(identity: str) -> Tree:
        if place.is_symlink() or not place.is_dir():
            place.unlink(missing_ok=True)
            place.mkdir()
        here = f"--work-tree={place}"
        mirror.git(here, "checkout", "--quiet", "--force", "--detach", identity, seconds=EXPORT_SECONDS)
        mirror.git(here, "clean", "-ffdxq", seconds=EXPORT_SECONDS)
        return Tree(place)

    last = change.commits[-1].id
    if patch is not None:
        base = tree(last)
        return Trees(base, *patched(base, patch))
    before = tree(change.base_id) if change.base_id else None
    return Trees(before, tree(last), change.copied)


@contextmanager
def _working_copy(change: Change, cache: Path) -> Iterator[_WorkingCopy]:
    place = cache / hashlib.sha256(change.root.encode()).hexdigest()[:16]
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{place}.lock", timeout=_LOCK_SECONDS):
            yield _WorkingCopy(place, change)
        _let_old_ones_go(cache)
    except Timeout:
        raise HostError(f"timed out after {_LOCK_SECONDS} s waiting for another lint of {change.root}") from None
    except OSError as error:
        raise HostError(f"{error.filename or cache} cannot be used: {error.strerror}") from None


def _let_old_ones_go(cache: Path) -> None:
    """Keep the working copies of the repositories that were looked at last."""
    with suppress(OSError):  # Another lint may tidy up as well; the next one does what is left.
        notes = sorted(cache.glob("*.at"), key=lambda note: note.lstat().st_mtime, reverse=True)
        for note in notes[MAX_COPIES:]:
            with suppress(Timeout), FileLock(note.with_suffix(".lock"), timeout=0):
                note.unlink(missing_ok=True)
                shutil.rmtree(note.with_suffix(""), ignore_errors=True)


class _WorkingCopy:
    """The working copy of a repository; its user holds its lock."""

    def __init__(self, place: Path, change: Change) -> None:
        self.place = place
        self.change = change
        self.note = place.with_suffix(".at")
        """Where the working copy stands; gone while svn is at work on it."""

    def tree(self, url: str, revision: int) -> Tree:
        """The tree at this address and revision."""
        wanted = f"{self.change.uuid} {url}@{revision}"
        if self._noted() != wanted or not self._is_clean():
            self._bring(f"{url}@{revision}")
        write_atomically(self.note, wanted)
        return Tree(self.place, external_folders(self.place))

    def _noted(self) -> str:
        try:
            return read_regular(self.note).decode("utf-8", "replace")
        except OSError:
            return ""

    def _is_clean(self) -> bool:
        try:
            return not svn("status", "--ignore-externals", "--no-ignore", str(self.place), about=str(self.place))
        except FarmError:
            return False

    def _bring(self, wanted: str) -> None:
        usable = self._noted().startswith(f"{self.change.uuid} ") and self._is_clean()
        self.note.unlink(missing_ok=True)
        if usable:
            with suppress(FarmError):  # it is made anew; where the server is the reason, that says so
                self._fetch("switch", "--ignore-ancestry", wanted=wanted)
                return
        self._remove()
        self._fetch("checkout", wanted=wanted)

    def _remove(self) -> None:
        if self.place.is_dir() and not self.place.is_symlink():
            shutil.rmtree(self.place, ignore_errors=True)
        else:
            self.place.unlink(missing_ok=True)

    def _fetch(self, *words: str, wanted: str) -> None:
        options = ("--quiet", "--ignore-externals", *words[1:])
        try:
            svn(words[0], *options, wanted, str(self.place), seconds=EXPORT_SECONDS, about=wanted)
        except FarmError as error:
            if _FULL.search(error.sentence):
                self._remove()
                raise HostError(f"{self.place.parent} has no room for a tree: {error.sentence}") from None
            raise


def trees_of_folder(folder: Path) -> Trees:
    """A folder as it is, and as it was committed last where it is a working copy of Subversion's or git's."""
    externals = external_folders(folder)
    after = Tree(folder, externals)
    with scratch_folder() as place:
        committed = place / "tree"
        made = _export_base(folder, committed) or _export_head(folder, committed)
        return Trees(Tree(committed, externals) if made else None, after)


def _export_base(folder: Path, target: Path) -> bool:
    try:
        place = f"{folder}@"  # else an '@' in its name begins a revision
        svn("info", place, about=str(folder))
        words = ("--quiet", "--ignore-externals", "-r", "BASE", place, f"{target}@")
        svn("export", *words, seconds=EXPORT_SECONDS, about=str(folder))
    except FarmError:
        return False
    return target.is_dir()


def _export_head(folder: Path, target: Path) -> bool:
    """What a working copy of git's is based on."""
    try:
        top = Path(_git(folder, "rev-parse", "--show-toplevel").decode().removesuffix("\n"))
        prefix = _git(folder, "rev-parse", "--show-prefix").decode().removesuffix("\n")
        archive = _git(top, "archive", "--format=tar", f"HEAD:{prefix}")
        whole = Limits(files=len(archive), total_bytes=len(archive), file_bytes=len(archive), depth=len(archive))
        # Links are not followed by the first tier, and a name is compared as it is.
        unpack(archive, target, whole, named=str, executable=True)
    except (OSError, subprocess.SubprocessError, UnicodeDecodeError, HostError):
        return False
    return True


def _git(folder: Path, *words: str) -> bytes:
    command = ["git", "-C", str(folder), *words]
    return subprocess.run(
        owned(command), capture_output=True, check=True, timeout=EXPORT_SECONDS, env=tool_environment()
    ).stdout


def external_folders(copy: Path) -> frozenset[str]:
    """What `svn:externals` would fill in a working copy: the cells check it out, and the first tier does not."""
    try:
        found = properties_in(svn("propget", "-R", "--xml", "svn:externals", f"{copy}@", about=str(copy)))
    except (FarmError, ValueError):
        return frozenset()
    places = (
        posixpath.normpath(posixpath.join(os.path.relpath(path, copy), name))
        for path, text in found
        for name in known_paths(text)
    )
    return frozenset(place for place in places if not place.startswith(".."))
