"""A real Subversion repository with the stand-in OSCAR, served by svnserve, and developers who commit to it."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

from demo.children import Child, run
from demo.ports import LOOPBACK, accepts, free_port

PASSWORD = "demo"
README = "README"
_SERVER = """\
[general]
anon-access = read
auth-access = write
password-db = passwd
realm = OSCAR demo
"""


class Repository:
    """The repository `oscar` below `directory`, with trunk, branches and tags; trunk is a copy of `tree`."""

    def __init__(self, directory: Path, tree: Path, *, users: tuple[str, ...]) -> None:
        self._root = directory
        self._path = directory / "oscar"
        self.port = free_port()
        self.url = f"svn://{LOOPBACK}:{self.port}/oscar"
        directory.mkdir(parents=True)
        run("svnadmin", "create", self._path)
        configuration = self._path / "conf"
        (configuration / "svnserve.conf").write_text(_SERVER, encoding="utf-8")
        lines = ["[users]", *(f"{user} = {PASSWORD}" for user in users)]
        (configuration / "passwd").write_text("\n".join(lines) + "\n", encoding="utf-8")
        self._import(tree, users[0])

    def _import(self, tree: Path, user: str) -> None:
        """The first revision. By file: the server's address is not needed for it, and executable bits are kept."""
        with tempfile.TemporaryDirectory(dir=self._root) as stage:
            layout = Path(stage)
            shutil.copytree(tree, layout / "trunk", symlinks=True)
            for name in ("branches", "tags"):
                (layout / name).mkdir()
            words = ("--quiet", "--no-ignore", "--no-auto-props", "--username", user, "-m", "Import OSCAR's sources")
            run("svn", "import", *words, layout, self._path.as_uri())

    def serve(self, log: Path, environment: Mapping[str, str]) -> Child:
        """The server, ready to answer."""
        place = ("--root", str(self._root), "--listen-host", LOOPBACK, "--listen-port", str(self.port))
        command = ["svnserve", "--daemon", "--foreground", *place]
        child = Child("the Subversion server", command, log=log, cwd=self._root, environment=environment)
        child.wait_until(lambda: accepts(self.port), "listening", 20)
        return child

    def commit(self, user: str, message: str, change: Callable[[Path], None], *, upon: int | None = None) -> int:
        """`change` a fresh working copy of trunk and commit it through the server; the revision that it became.

        `upon`: take back, in the same commit, all that trunk has seen since that revision.
        """
        identity = ("--non-interactive", "--no-auth-cache", "--username", user, "--password", PASSWORD)
        with tempfile.TemporaryDirectory(dir=self._root) as directory:
            copy = Path(directory) / "trunk"
            run("svn", "checkout", "--quiet", f"{self.url}/trunk", copy)
            if upon is not None:
                run("svn", "merge", "--quiet", "--ignore-ancestry", "--revision", f"HEAD:{upon}", ".", cwd=copy)
            change(copy)
            run("svn", "add", "--quiet", "--force", "--no-ignore", ".", cwd=copy)
            run("svn", "commit", "--quiet", *identity, "-m", message, cwd=copy)
        return int(run("svn", "info", "--show-item", "last-changed-revision", "--no-newline", f"{self.url}/trunk"))


def edit_readme(copy: Path) -> None:
    """A change that harms nobody: one more line in the README."""
    with (copy / README).open("a", encoding="utf-8") as readme:
        readme.write("A line more, so that there is something to test.\n")


def apply_patch(patch: Path) -> Callable[[Path], None]:
    """The change that `patch` (made for `patch -p1`) describes."""

    def change(copy: Path) -> None:
        run("patch", "-p1", "--batch", "--forward", "--no-backup-if-mismatch", "-i", patch.resolve(), cwd=copy)

    return change
