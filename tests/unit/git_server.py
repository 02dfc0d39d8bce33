"""A git repository for tests, and git's own server for it."""

from __future__ import annotations

import os
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from oscar_steps.sources.git import git_environment


class Repository:
    """A bare repository that is written to commit by commit, without any working copy."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.clock = 1_700_000_000
        self.git("init", "--quiet", "--bare", "--initial-branch=main", str(path), inside=False)

    @property
    def url(self) -> str:
        return f"file://{self.path}"

    def git(self, *words: str, stdin: bytes = b"", inside: bool = True, environment: Mapping[str, str] = {}) -> str:
        where = [f"--git-dir={self.path}"] if inside else []
        run = subprocess.run(
            ["git", *where, *words],
            input=stdin,
            capture_output=True,
            check=True,
            timeout=60,
            env=git_environment() | dict(environment),
        )
        return run.stdout.decode("utf-8", "replace").strip()

    def commit(
        self,
        files: dict[str, bytes | None],
        *,
        branch: str = "main",
        message: str = "a commit",
        author: str = "Ada <ada@example.org>",
        committer: str = "Carl <carl@example.org>",
        parents: tuple[str, ...] | None = None,
    ) -> str:
        """A commit on top of a branch (or of `parents`); of a path with None the file is removed. Gives its id."""
        self.clock += 60
        tip = self.tip(branch)
        parents = parents if parents is not None else (tip,) if tip else ()
        lines = [f"commit refs/heads/{branch}".encode()]
        for role, who in (("author", author), ("committer", committer)):
            lines.append(f"{role} {who} {self.clock} +0000".encode())
        text = message.encode()
        lines += [b"data %d" % len(text), text]
        for number, parent in enumerate(parents):
            lines.append(f"{'merge' if number else 'from'} {parent}".encode())
        for name, content in files.items():
            if content is None:
                lines.append(f"D {name}".encode())
            else:
                lines += [f"M 100755 inline {name}".encode(), b"data %d" % len(content), content]
        if not parents:
            self.git("update-ref", "-d", f"refs/heads/{branch}")
        self.git("fast-import", "--quiet", "--force", stdin=b"\n".join(lines) + b"\n")
        return self.tip(branch)

    def commit_folder(self, folder: Path, *, branch: str = "main", author: str = "Ada <ada@example.org>") -> str:
        """A commit of all that is in a folder, with its executable bits, on top of a branch. Gives its id."""
        self.clock += 60
        name, _, address = author.rstrip(">").partition(" <")
        who = {"GIT_AUTHOR_NAME": name, "GIT_AUTHOR_EMAIL": address, "GIT_AUTHOR_DATE": f"{self.clock} +0000"}
        who |= {key.replace("AUTHOR", "COMMITTER"): value for key, value in who.items()}
        self.git(f"--work-tree={folder}", "add", "--all", "--force", "--", str(folder))
        tree, tip = self.git("write-tree"), self.tip(branch)
        made = self.git("commit-tree", tree, *(("-p", tip) if tip else ()), stdin=b"a folder", environment=who)
        self.git("update-ref", f"refs/heads/{branch}", made)
        return made

    def folders_in_folders(self, depth: int, blob: bytes = b"x") -> str:
        """A tree of 10 ** (depth + 1) files, of some kilobytes."""
        kind, each = "100644 blob", self.git("hash-object", "-w", "--stdin", stdin=blob)
        for _ in range(depth + 1):
            each = self.git("mktree", stdin="".join(f"{kind} {each}\tn{n}\n" for n in range(10)).encode())
            kind = "040000 tree"
        return each

    def commit_tree(self, tree: str, *, branch: str = "main") -> str:
        """A commit of a tree on top of a branch. Gives its id."""
        who = {f"GIT_{role}_{what}": "x" for role in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
        made = self.git("commit-tree", tree, "-p", self.tip(branch), stdin=b"many", environment=who)
        self.git("update-ref", f"refs/heads/{branch}", made)
        return made

    def tip(self, branch: str) -> str:
        return self.git("for-each-ref", "--format=%(objectname)", f"refs/heads/{branch}")


@contextmanager
def served(repository: Repository) -> Iterator[str]:
    """The repository's git:// address, as long as the server runs."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = ["--reuseaddr", "--export-all", "--listen=127.0.0.1", f"--port={port}"]
    words.append(f"--base-path={repository.path.parent}")
    daemon = subprocess.Popen(
        ["git", "daemon", *words, str(repository.path.parent)],
        stderr=subprocess.DEVNULL,
        env=git_environment(),
        start_new_session=True,
    )
    try:
        deadline = time.monotonic() + 20
        while not _accepts(port):
            assert time.monotonic() < deadline, "timed out after 20 s waiting for git daemon"
            time.sleep(0.05)
        yield f"git://127.0.0.1:{port}/{repository.path.name}"
    finally:
        os.killpg(daemon.pid, 15)
        daemon.wait(20)


def _accepts(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
