"""A Subversion repository for tests, and Subversion's own server for it."""

from __future__ import annotations

import os
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from oscar_steps.environment import tool_environment

LOOPBACK = "127.0.0.1"


class Repository:
    """A repository, and a working copy of all of it that commits are made in."""

    def __init__(self, place: Path) -> None:
        self.place, self.copy = place, place.with_name(f"{place.name}.copy")
        svn_tool("svnadmin", "create", place)
        (place / "conf/svnserve.conf").write_text("[general]\nanon-access = write\n")
        svn_tool("svn", "checkout", "--quiet", place.as_uri(), self.copy)

    def svn(self, *words: str | Path) -> str:
        return svn_tool("svn", *words, cwd=self.copy)

    def put(self, files: dict[str, str]) -> int:
        """Commit files; a name that ends with a slash is a folder's."""
        for name, text in files.items():
            path = self.copy / name
            if name.endswith("/"):
                path.mkdir(parents=True, exist_ok=True)
                continue
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        self.svn("add", "--quiet", "--force", ".")
        return self.commit()

    def externals(self, folder: str, text: str) -> None:
        """Set the property, without a commit."""
        value = self.copy.with_suffix(".property")
        value.write_text(text)
        self.svn("propset", "--quiet", "svn:externals", "--file", value, folder)

    def commit(self) -> int:
        self.svn("commit", "--quiet", "-m", "a change")
        self.svn("update", "--quiet", "--ignore-externals")
        return int(self.svn("info", "--show-item", "revision", "--no-newline"))


def svn_tool(*words: str | Path, cwd: Path | None = None) -> str:
    done = subprocess.run(
        [str(word) for word in words],
        check=True,
        capture_output=True,
        env=tool_environment(),
        cwd=cwd,
        timeout=120,
        text=True,
    )
    return done.stdout


@contextmanager
def served(root: Path) -> Iterator[str]:
    """The svn:// address of a folder with repositories, as long as the server runs."""
    with socket.socket() as free:
        free.bind((LOOPBACK, 0))
        port = free.getsockname()[1]
    words = ["svnserve", "--daemon", "--foreground", "--root", str(root), "--listen-host", LOOPBACK]
    server = subprocess.Popen([*words, "--listen-port", str(port)], env={"PATH": os.environ["PATH"]})
    try:
        deadline = time.monotonic() + 30
        while True:
            try:
                socket.create_connection((LOOPBACK, port), 1).close()
                break
            except OSError:
                if time.monotonic() > deadline or server.poll() is not None:
                    raise
                time.sleep(0.02)
        yield f"svn://{LOOPBACK}:{port}"
    finally:
        server.kill()
        server.wait()
