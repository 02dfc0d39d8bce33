"""Commits as no client would make them: loaded as a dump, any bytes can be their author and message."""

from __future__ import annotations

import subprocess
from pathlib import Path

from demo.children import run
from demo.errors import ToolFailed
from demo.torment.plan import Commit

_CONTENT = b"one line\n"


def load_commit(repository: Path, commit: Commit) -> int:
    """Commit it; its revision."""
    command = ["svnadmin", "load", "--quiet", "--bypass-prop-validation", str(repository)]
    done = subprocess.run(command, input=dump_of(commit), capture_output=True, timeout=60, check=False)
    if done.returncode:
        raise ToolFailed(f"'svnadmin load' failed: {done.stderr.decode(errors='replace').strip()}")
    return int(run("svnlook", "youngest", repository))


def dump_of(commit: Commit) -> bytes:
    """One revision that adds one file to trunk, in Subversion's dump format 2."""
    said = {"svn:author": commit.author, "svn:log": commit.message, "svn:date": "2024-01-01T00:00:00.000000Z"}
    properties = b"".join(_entry(name, value) for name, value in said.items()) + b"PROPS-END\n"
    length = len(properties)
    head = b"SVN-fs-dump-format-version: 2\n\nRevision-number: 1\n"
    head += b"Prop-content-length: %d\nContent-length: %d\n\n" % (length, length)
    node = f"\nNode-path: trunk/{commit.name}\nNode-kind: file\nNode-action: add\n".encode()
    sizes = b"Text-content-length: %d\nContent-length: %d\n\n" % (len(_CONTENT), len(_CONTENT))
    return head + properties + node + sizes + _CONTENT + b"\n\n"


def _entry(name: str, value: str) -> bytes:
    data = value.encode()
    return b"K %d\n%s\nV %d\n%s\n" % (len(name), name.encode(), len(data), data)
