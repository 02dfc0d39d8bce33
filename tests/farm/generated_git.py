"""A git repository of more than 300 commits with all that developers do to one, and what the farm has to show of it.

What is expected of each push is written down beside it, by the one who makes it up: no code of the farm is used.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from pathlib import Path

from tests.unit.git_server import Repository

COMMITS = 330
NOBODY = "(nobody)"
HEAD = "install_cluster"
ERIC, JANE = "Eric <eric@oscar.test>", "Jane Doe <jane@oscar.test>"
TREE = (HEAD, "lib/OSCAR/Env.pm", "README", "share/manual.tex")
NAMES = ("a blank", "at@sign", "100%41", "caf\u00e9", "\u65e5\u672c", "-r", "a&b<c>", "it's", "$HOME")
BRANCHES = ("feature/x", "caf\u00e9", "-rf", "a@b", "5%1", "trunk", "git", "<b>", "a;b$(c)", "n" * 200)
Seen = tuple[str, str, str]
"""Commit, branch and author, as the farm shows them."""


@dataclass
class Push:
    """What one push does to branches (None: deleted), and the changes that it brings, in the order of each branch."""

    refs: dict[str, str | None]
    seen: list[Seen] = field(default_factory=list)
    alone: bool = False
    """What it brings depends on what the farm has seen before: it waits for the farm, before and after."""
    told: bool = False
    """The operator gets a mail about it."""


class Generated:
    """`pushes` are made one after the other; the objects are in `repository`."""

    def __init__(self, folder: Path) -> None:
        self.repository = Repository(folder / "made.git")
        self.pushes: list[Push] = []
        self._commits = 0

    @property
    def count(self) -> int:
        return self._commits

    def seen(self, first: int, last: int | None = None) -> list[Seen]:
        """What pushes bring."""
        return [change for push in self.pushes[first:last] for change in push.seen]

    def make(self, branch: str, author: str = ERIC, name: str = HEAD, parents: tuple[str, ...] | None = None) -> str:
        """A commit that no other is like; nobody sees it yet."""
        self._commits += 1
        files = {_quoted(name): f"{self._commits}\n".encode()}
        return self.repository.commit(
            files, branch=branch, author=author, message=f"change {self._commits}", parents=parents
        )

    def raw(self, branch: str, who: bytes, message: bytes, header: bytes = b"") -> str:
        """A commit as its bytes are, on top of a branch, with another tree."""
        tip = self.make(branch)
        tree = self.repository.git("rev-parse", f"{tip}^{{tree}}").encode()
        parent = self.repository.git("rev-parse", f"{tip}^").encode()
        lines = [b"tree " + tree, b"parent " + parent, b"author " + who, b"committer " + who, *[header][: bool(header)]]
        content = b"\n".join(lines) + b"\n\n" + message
        made = self.repository.git("hash-object", "-t", "commit", "-w", "--literally", "--stdin", stdin=content)
        self.repository.git("update-ref", f"refs/heads/{branch}", made)
        return made

    def push(self, branch: str, *commits: tuple[str, str], **more: bool) -> None:
        """A branch with these commits (id and shown author), the last of which is its tip now."""
        tip = self.repository.tip(branch) or None
        self.pushes.append(Push({branch: tip}, [(i, f"git/oscar/{branch}", author) for i, author in commits], **more))

    def commit(self, branch: str, author: str = ERIC, name: str = HEAD) -> str:
        """A commit that is pushed alone."""
        made = self.make(branch, author, name)
        self.push(branch, (made, author))
        return made

    def fork(self, branch: str, origin: str) -> None:
        """A new branch without a commit of its own."""
        self.repository.git("update-ref", f"refs/heads/{branch}", self.repository.tip(origin))
        self.push(branch)

    def merge(self, into: str, other: str, author: str = JANE, *, alone: bool = False) -> None:
        """What the merge brings is the merge's."""
        parents = (self.repository.tip(into), self.repository.tip(other))
        self.push(into, (self.make(into, author, parents=parents), author), alone=alone)


def _quoted(name: str) -> str:
    return f'"{name}"' if " " in name else name


def generate(folder: Path) -> Generated:
    """The repository."""
    made = Generated(folder)
    made.commit("main")
    made.commit("main", JANE, "lib/OSCAR/Env.pm")
    _branches(made)
    _names(made)
    _messages_and_authors(made)
    _everyday(made)
    _forced(made)
    return made


def _branches(made: Generated) -> None:
    made.fork("5.0", "main")
    made.commit("5.0", JANE)
    several = [(made.make("5.0", author), author) for author in (ERIC, JANE, ERIC)]
    made.push("5.0", *several)
    made.merge("main", "5.0", alone=True)
    made.commit("main")
    # A branch with commits of its own at its first push, and one that goes off it in the same moment.
    off = (made.repository.tip("main"),)
    own = [(made.make("topic", ERIC, parents=off), ERIC), (made.make("topic", JANE), JANE)]
    made.push("topic", *own)
    more = (made.make("above", ERIC, parents=(own[-1][0],)), ERIC)
    made.push("above", more)
    # main is fast-forwarded: these are its commits, too.
    made.repository.git("update-ref", "refs/heads/main", own[-1][0])
    made.push("main", *own, alone=True)
    # An octopus.
    for name in ("leg-1", "leg-2"):
        made.push(name, (made.make(name, JANE, parents=(made.repository.tip("main"),)), JANE))
    legs = tuple(made.repository.tip(name) for name in ("main", "leg-1", "leg-2"))
    made.push("main", (made.make("main", JANE, parents=legs), JANE), alone=True)
    # A branch with a history of its own begins with its last commit.
    made.make("pages", JANE, parents=())
    made.push("pages", (made.make("pages", ERIC), ERIC))


def _names(made: Generated) -> None:
    for name in NAMES:
        made.commit("main", JANE, name)
    for name in BRANCHES:
        made.fork(name, "main")
        made.commit(name, JANE)
        made.commit(name, ERIC, "README")


def _messages_and_authors(made: Generated) -> None:
    who = b"Eric <eric@oscar.test> 1700000000 +0000"
    for message, header in (
        ("na\u00efve".encode("latin-1"), b""),
        ("na\u00efve".encode("latin-1"), b"encoding ISO-8859-1"),
        ("\u65e5\u672c".encode("euc-jp"), b"encoding EUC-JP"),
        (b"x", b"encoding no-such-thing"),
        (b"bell \x07, escape \x1b[31m", b""),
        (b"commit 0000\nauthor nobody\n\x00after the end", b""),
        (b"", b""),
        (b"\r\nlines\r\n" * 50, b""),
        (b"x" * 100_000, b""),
    ):
        made.push("main", (made.raw("main", who, message, header), ERIC))
    for author, shown in (
        (b" <>", NOBODY),
        (b"Nobody <>", "Nobody"),
        (b" <nameless@oscar.test>", "nameless@oscar.test"),
        ("Jos\u00e9 <jose@oscar.test>".encode(), "Jos\u00e9 <jose@oscar.test>"),
        (b"Jos\xe9 <jose@oscar.test>", "Jos\ufffd <jose@oscar.test>"),
        (b"A" * 500 + b" <a@oscar.test>", "A" * 100 + " <a@oscar.test>"),
        (b"Tab\tand  blanks <t@oscar.test>", "Tab and blanks <t@oscar.test>"),
    ):
        made.push("main", (made.raw("main", author + b" 1700000000 +0000", b"who"), shown))
    for date in (b"0 +0000", b"99999999999999 +0000", b"-1 +0000", b"x"):
        made.push("main", (made.raw("main", b"Eric <eric@oscar.test> " + date, b"when"), ERIC))


def _everyday(made: Generated) -> None:
    """The rest: what developers do all day, in an order that is always the same."""
    chance = random.Random(5916)
    branches = ["main", "5.0", "feature/x", "caf\u00e9"]
    made.push("main", (made.make("main"), ERIC), alone=True)  # the farm knows all of them before they are merged
    while made.count < COMMITS - 20:
        author, where = chance.choice((ERIC, JANE)), chance.choice(branches)
        what = chance.random()
        if what < 0.1:
            made.merge(where, chance.choice([name for name in branches if name != where]), author)
        elif what < 0.2:
            several = [(made.make(where, author), author) for _ in range(chance.randrange(2, 5))]
            made.push(where, *several)
        else:
            made.commit(where, author, chance.choice(TREE))


def _forced(made: Generated) -> None:
    tip = made.repository.tip
    before = made.repository.git("rev-parse", "5.0~3")
    made.make("5.0", JANE, parents=(before,))
    made.push("5.0", (made.make("5.0", JANE), JANE), alone=True, told=True)
    made.commit("5.0")
    # Back to a commit that was seen: told, and nothing is new.
    made.repository.git("update-ref", "refs/heads/5.0", before)
    made.push("5.0", alone=True, told=True)
    made.commit("5.0")
    # Deleted, and made again: what was seen is not seen once more.
    old = tip("feature/x")
    made.repository.git("update-ref", "-d", "refs/heads/feature/x")
    made.push("feature/x", alone=True)
    made.repository.git("update-ref", "refs/heads/feature/x", old)
    made.push("feature/x", alone=True)
    made.commit("feature/x")
    # A folder of branches takes the place of a branch.
    made.repository.git("update-ref", "-d", "refs/heads/git")
    made.push("git", alone=True)
    made.push("git/below", (made.make("git/below", JANE, parents=(tip("main"),)), JANE))
    while made.count < COMMITS:
        made.commit("main", JANE, TREE[made.count % len(TREE)])
