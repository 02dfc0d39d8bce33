"""A repository of more than 300 revisions with all that developers do to one, written as a dump, and what is in it.

What is expected of each revision is written down beside it, by the one who makes it up: no code of the farm is used.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field

REVISIONS = 330
NOBODY = "(nobody)"


@dataclass(frozen=True)
class Expected:
    """A revision as the farm has to show it: its author, and the branches that it leaves changed."""

    author: str
    branches: tuple[str, ...]


@dataclass
class Generated:
    """`dumps` are the revisions from 1 on, one dump stream each, to be loaded in order."""

    dumps: list[bytes] = field(default_factory=list)
    expected: dict[int, Expected] = field(default_factory=dict)

    @property
    def newest(self) -> int:
        return len(self.dumps)

    def changes(self, after: int) -> list[tuple[int, str, str]]:
        """Revision, branch and author of all that is to be seen after a revision."""
        return [
            (number, branch, expected.author)
            for number, expected in sorted(self.expected.items())
            if number > after
            for branch in sorted(expected.branches)
        ]

    def add(
        self,
        author: bytes | None,
        message: bytes,
        nodes: list[bytes],
        branches: tuple[str, ...] = (),
        shown: str | None = None,
    ) -> int:
        """One revision; its number. `shown`: the author as the farm has to show it, where it is another."""
        number = self.newest + 1
        minute, second = divmod(number, 60)
        revision = {b"svn:log": message, b"svn:date": f"2007-03-04T05:{minute:02}:{second:02}.000000Z".encode()}
        if author is not None:
            revision[b"svn:author"] = author
        properties = _properties(revision)
        head = (
            f"Revision-number: {number}\nProp-content-length: {len(properties)}\nContent-length: {len(properties)}\n\n"
        )
        self.dumps.append(b"SVN-fs-dump-format-version: 2\n\n" + head.encode() + properties + b"\n" + b"".join(nodes))
        name = shown if shown is not None else (author or b"").decode() or NOBODY
        self.expected[number] = Expected(name, branches)
        return number


def _properties(properties: dict[bytes, bytes]) -> bytes:
    lines = [b"K %d\n%s\nV %d\n%s\n" % (len(key), key, len(value), value) for key, value in properties.items()]
    return b"".join(lines) + b"PROPS-END\n"


def node(
    path: str,
    action: str,
    kind: str = "",
    *,
    text: bytes | None = None,
    properties: dict[bytes, bytes] | None = None,
    copy_of: tuple[str, int] | None = None,
) -> bytes:
    """One path of a revision's dump."""
    lines = [f"Node-path: {path}", f"Node-action: {action}"]
    lines += [f"Node-kind: {kind}"] if kind else []
    lines += [f"Node-copyfrom-rev: {copy_of[1]}", f"Node-copyfrom-path: {copy_of[0]}"] if copy_of else []
    body = _properties(properties) if properties is not None else b""
    if body:
        lines.append(f"Prop-content-length: {len(body)}")
    if text is not None:
        lines.append(f"Text-content-length: {len(text)}")
    if body or text is not None:
        lines.append(f"Content-length: {len(body) + len(text or b'')}")
    return "\n".join(lines).encode() + b"\n\n" + body + (text or b"") + b"\n\n"


def folder(path: str) -> bytes:
    return node(path, "add", "dir")


def edit(path: str, text: str) -> bytes:
    return node(path, "change", "file", text=text.encode())


def new(path: str, text: str = "new\n") -> bytes:
    return node(path, "add", "file", text=text.encode())


def copy(path: str, origin: str, revision: int, *, over: bool = False) -> bytes:
    return node(path, "replace" if over else "add", "dir", copy_of=(origin, revision))


def put(path: str, kind: str, **properties: str) -> bytes:
    """Only properties; `_` in a name is the colon."""
    values = {name.replace("_", ":", 1).encode(): value.encode() for name, value in properties.items()}
    return node(path, "change", kind, properties=values)


def gone(path: str) -> bytes:
    return node(path, "delete")


TREE = ("install_cluster", "lib/OSCAR/Env.pm", "README", "doc/manual.tex")
NAMES = ("a blank", "at@sign", "at@12", "100%41", "caf\u00e9", "\u65e5\u672c", "-r", "a&b<c>", "it's", '"q"', "$HOME")
HEAD = "install_cluster"


def generate() -> Generated:
    """The repository."""
    made = Generated()
    made.add(b"eric", b"layout", [folder(name) for name in ("trunk", "branches", "tags", "tmp", "pkgsrc")], ("trunk",))
    made.add(
        b"eric",
        b"import",
        [folder(f"trunk/{name}") for name in ("lib", "lib/OSCAR", "doc")] + [new(f"trunk/{name}") for name in TREE],
        ("trunk",),
    )
    _branches(made)
    _properties_and_names(made)
    _messages_and_authors(made)
    _sizes(made)
    _everyday(made)
    return made


def _branches(made: Generated) -> None:
    add = made.add
    one = add(b"jane", b"branch", [copy("branches/branch-5-0", "trunk", 2)], ("branches/branch-5-0",))
    add(b"jane", b"fix", [edit(f"branches/branch-5-0/{HEAD}", "5.0\n")], ("branches/branch-5-0",))
    add(b"eric", b"tag", [copy("tags/rel-5-0", "branches/branch-5-0", one + 1)], ("tags/rel-5-0",))
    add(b"eric", b"elsewhere", [folder("tmp/ef_sandbox"), new("tmp/ef_sandbox/trunk")])
    add(b"eric", b"tools", [folder("pkgsrc/selector"), folder("pkgsrc/selector/trunk")])
    add(b"eric", b"a file among the branches", [new("branches/README"), new("tags/README")])
    # svn mv of a branch, and of one that is edited in the same commit.
    number = made.newest
    moved = [copy("branches/5.0.x", "branches/branch-5-0", number), gone("branches/branch-5-0")]
    add(b"jane", b"rename", moved, ("branches/5.0.x",))
    number = made.newest
    moved = [
        copy("branches/5.0", "branches/5.0.x", number),
        edit(f"branches/5.0/{HEAD}", "moved\n"),
        gone("branches/5.0.x"),
    ]
    add(b"jane", b"rename and edit", moved, ("branches/5.0",))
    number = made.newest
    add(b"jane", b"replace", [copy("branches/5.0", "trunk", 2, over=True)], ("branches/5.0",))
    add(b"jane", b"delete", [gone("branches/5.0")])
    add(b"jane", b"back", [copy("branches/5.0", "branches/5.0", number)], ("branches/5.0",))
    for name in ("5 1", "5@1", "5%1", "caf\u00e9", "trunk"):
        add(b"jane", b"names", [copy(f"branches/{name}", "trunk", 2)], (f"branches/{name}",))
        add(b"eric", b"names", [edit(f"branches/{name}/{HEAD}", "x\n")], (f"branches/{name}",))
    both = [edit(f"trunk/{HEAD}", "both\n"), edit(f"branches/5.0/{HEAD}", "both\n")]
    add(b"jane", b"two branches at once", both, ("trunk", "branches/5.0"))
    across = [gone("branches/5@1"), edit("trunk/README", "x\n"), edit("tmp/ef_sandbox/trunk", "y\n")]
    add(b"jane", b"a branch goes, trunk changes", across, ("trunk",))
    merged = [put("trunk", "dir", svn_mergeinfo="/branches/5.0:13-25"), edit(f"trunk/{HEAD}", "merged\n")]
    add(b"jane", b"merge", merged, ("trunk",))
    add(b"jane", b"record a merge", [put("trunk", "dir", svn_mergeinfo="/branches/5.0:13-27")], ("trunk",))
    add(b"jane", b"an empty commit", [])
    add(
        b"eric", b"trunk by its own name", [copy("branches/trunk-copy", "trunk", made.newest)], ("branches/trunk-copy",)
    )


def _properties_and_names(made: Generated) -> None:
    add, trunk = made.add, ("trunk",)
    externals = "^/pkgsrc/selector/trunk selector\npkgs -r3 /pkgsrc/selector/trunk\n"
    add(b"eric", b"externals", [put("trunk", "dir", svn_externals=externals)], trunk)
    add(b"eric", b"other externals", [put("trunk", "dir", svn_externals="../pkgsrc/selector/trunk s\n")], trunk)
    add(b"eric", b"not ours", [put("pkgsrc", "dir", svn_ignore="*.o")])
    add(b"eric", b"executable", [put(f"trunk/{HEAD}", "file", svn_executable="*")], trunk)
    add(b"eric", b"ignore", [put("trunk/lib", "dir", svn_ignore="*.o\nAdded: svn:executable\n")], trunk)
    for name in NAMES:
        add(b"jane", b"names", [new(f"trunk/{name}")], trunk)
        add(b"jane", b"names", [edit(f"trunk/{name}", "again\n")], trunk)
    add(b"jane", b"names go", [gone(f"trunk/{name}") for name in NAMES], trunk)


def _messages_and_authors(made: Generated) -> None:
    texts = (
        "na\u00efve".encode("latin-1"),
        "\u65e5\u672c".encode("euc-jp"),
        b"bell \x07, escape \x1b[31m, backspace \x08",
        b"</msg></logentry><logentry revision='9999'>",
        b"]]> &amp; &#0; <!-- \xef\xbf\xbf",
        b"\xff\xfe\x00\x00",
        b"",
        b"\r\nlines\r\n" * 50,
        b"x" * 100_000,
    )
    for number, text in enumerate(texts):
        made.add(b"eric", text, [edit("trunk/README", f"m{number}\n")], ("trunk",))
    for author, shown in (
        (None, NOBODY),
        (b"", NOBODY),
        (b"jos\xc3\xa9", None),
        (b"eric@example.org", None),
        (b"two words", None),
        (b"<b>&amp;", None),
        (b"a" * 500, "a" * 197 + "..."),
    ):
        made.add(author, b"who", [edit("trunk/README", f"{author!r}\n")], ("trunk",), shown)


def _sizes(made: Generated) -> None:
    many = [folder("trunk/many")] + [new(f"trunk/many/file-{number}") for number in range(400)]
    made.add(b"jane", b"a huge commit", many, ("trunk",))
    made.add(b"jane", b"gone again", [gone("trunk/many")], ("trunk",))
    made.add(b"jane", b"a large file", [edit("trunk/README", "line\n" * 20_000)], ("trunk",))
    deep = [folder("trunk/" + "/".join(["deep"] * level)) for level in range(1, 60)]
    made.add(b"jane", b"deep", deep, ("trunk",))
    made.add(
        b"jane", b"an outer branch's long name", [copy(f"branches/{'n' * 230}", "trunk", 2)], (f"branches/{'n' * 230}",)
    )


def _everyday(made: Generated) -> None:
    """The rest: what developers do all day, in an order that is always the same."""
    chance = random.Random(5916)
    branches = ["trunk", "branches/5.0", "branches/5 1", "branches/caf\u00e9"]
    while made.newest < REVISIONS:
        author, number = chance.choice(("eric", "jane", "wesley")), made.newest + 1
        where = chance.choice((*branches, "tmp/ef_sandbox"))
        if where.startswith("tmp"):
            made.add(author.encode(), b"sandbox", [edit("tmp/ef_sandbox/trunk", f"{number}\n")])
        elif chance.random() < 0.1:
            tag = f"tags/rel-{number}"
            made.add(author.encode(), b"tag", [copy(tag, where, number - 1)], (tag,))
        else:
            nodes = [edit(f"{where}/{chance.choice(TREE)}", f"{number}\n")]
            made.add(author.encode(), f"change {number}".encode(), nodes, (where,))
