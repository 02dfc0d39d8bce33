"""What git says of a commit on its branch: what came before it, who made it, what was copied.

A branch is the chain of first parents: what a merge brings is the merge's. A commit's number is its place in the chain.
A chain may lose its end, where somebody pushes with force: then the same number is another commit's.
"""

from __future__ import annotations

from dataclasses import replace

from oscar_steps.errors import HostError
from oscar_steps.sources.git import author_of
from oscar_steps.sources.history import MAX_COMMITS, Change, Commit
from oscar_steps.sources.mirror import Mirror

_MOST_NAMED = 100
"""Of more commits in a row none is named for what it brought: for each of them git would be asked twice."""


def change_of_git(mirror: Mirror, revision: str, first: str | None = None) -> Change:
    """The commit `revision`, or all from `first` to it. Raises SourceError or HostError.

    If the branch has not got `first` (any more), all from where the branch left it.
    """
    words = ("--first-parent", "-z", "--format=%H%n%P%n%cI%n%aE%n%aN", "-n", str(MAX_COMMITS), revision, "--")
    log = mirror.git("log", "--no-show-signature", *words).decode("utf-8", "replace")
    chain = [entry.split("\n", 4) for entry in log.split("\0") if entry.count("\n") >= 4]
    if not chain:
        raise HostError(f"{mirror.url}@{revision}: git's answer cannot be read")
    entries = chain[: _how_many(mirror, [entry[0] for entry in chain], first)]
    number = int(mirror.git("rev-list", "--count", "--first-parent", revision))
    commits = tuple(
        Commit(number - place, author_of(name, address), date, identity)
        for place, (identity, _, date, address, name) in reversed([*enumerate(entries)])
    )
    base = entries[-1][1].partition(" ")[0]
    between = [commit.id for commit in commits[:-1]] if len(commits) <= _MOST_NAMED else []
    for identity in (*([base] if base else []), *between, revision):
        mirror.check(identity)
    change = Change(
        mirror.url, mirror.url, "git", commits, number - len(commits), number, base_url=mirror.url, base_id=base,
        chain=tuple(entry[0] for entry in chain),
    )  # fmt: skip
    return _with_paths(change, mirror)


def commits_between(mirror: Mirror, good: str, bad: str) -> tuple[Commit, ...]:
    """The commits of the branch that ends with `bad` after `good`; none where `good` is not on it, or is not earlier.

    Raises SourceError or HostError.
    """
    change = change_of_git(mirror, bad)
    if good not in change.chain[1:]:
        return ()
    return change_of_git(mirror, bad, change.chain[change.chain.index(good) - 1]).commits


def _how_many(mirror: Mirror, chain: list[str], first: str | None) -> int:
    if first is None:
        return 1
    if first in chain:
        return chain.index(first) + 1
    return max(int(mirror.git("rev-list", "--count", "--first-parent", chain[0], f"^{first}", "--")), 1)


def _with_paths(change: Change, mirror: Mirror) -> Change:
    """Who changed which path; what is copied or renamed is what git takes for it."""
    touched = dict[str, tuple[Commit, ...]]()
    before = change.base_id
    for commit in change.commits if 1 < len(change.commits) <= _MOST_NAMED else ():
        for path in _names(mirror, before, commit.id):
            touched[path] = (*touched.get(path, ()), commit)
        before = commit.id
    copied = dict[str, str]()
    if change.base_id:
        copied = _copies(mirror, change.base_id, change.commits[-1].id)
    return replace(change, touched=touched, copied=copied)


def _names(mirror: Mirror, before: str, after: str) -> list[str]:
    words = (before, after) if before else ("--root", "--no-commit-id", after)
    output = mirror.git("diff-tree", "-r", "-z", "--name-only", *words, "--")
    return [name.decode("utf-8", "surrogateescape") for name in output.split(b"\0") if name]


def _copies(mirror: Mirror, before: str, after: str) -> dict[str, str]:
    words = ("-r", "-z", "--name-status", "-M", "-C", "--diff-filter=RC", before, after, "--")
    parts = [part.decode("utf-8", "surrogateescape") for part in mirror.git("diff-tree", *words).split(b"\0") if part]
    return dict(zip(parts[2::3], parts[1::3], strict=False))
