"""The tree under test, as a copy of our own: nothing in it is followed out of it, and everybody may read it."""

from __future__ import annotations

import os
import posixpath
import re
import stat
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path, PurePosixPath

from oscar_steps.errors import SourceError

MAX_FILE_BYTES = 2**20
"""What is larger is no script."""
MAX_FILES = 20_000
_SKIPPED_FOLDERS = {".svn", ".git", ".hg", "CVS"}
_SCRIPT_FOLDERS = re.compile(
    r"""^(  [^/]+ | (scripts|src/cli|lib|testing|sbin|dist|share|bin)/.*
        | packages/[^/]+/(scripts|testing|lib)/.* )$""",
    re.VERBOSE,
)
"""Where the command line's scripts are. The graphical wizard and the sources of packages are not judged."""
_BUILD = re.compile(r"(^|/)(GNUmakefile|[Mm]akefile(\.\w+)?|[\w-]+\.mk|autogen(\.sh)?|configure(\.ac|\.in)?)$")


@dataclass(frozen=True)
class File:
    """One regular file. `executable` is its bit in the tree, not in our copy."""

    path: str
    content: bytes = field(repr=False)
    executable: bool

    @cached_property
    def text(self) -> str:
        return self.content.decode("utf-8", "replace")

    @property
    def lines(self) -> list[str]:
        """As editors, compilers and `text.count("\n")` count them: a form feed ends none."""
        return [line.removesuffix("\r") for line in self.text.split("\n")]

    @cached_property
    def first_line(self) -> str:
        return self.content.split(b"\n", 1)[0].decode("latin-1")

    @property
    def binary(self) -> bool:
        return b"\0" in self.content[:8192]

    @property
    def shebang(self) -> str:
        """The interpreter's line without '#!' and line end; '' where there is none."""
        return self.first_line[2:].strip() if self.first_line.startswith("#!") else ""

    @property
    def interpreter(self) -> str:
        """'perl', 'bash', 'python3' ...; behind `env` the program that is looked for."""
        words = self.shebang.split()
        if words and PurePosixPath(words[0]).name == "env":
            words = [word for word in words[1:] if not word.startswith("-") and "=" not in word]
        return PurePosixPath(words[0]).name if words else ""

    @property
    def in_command_line(self) -> bool:
        """Whether it lies where the scripts of the command line are."""
        return bool(_SCRIPT_FOLDERS.match(self.path))


class Tree:
    """The files of an OSCAR tree, by path relative to its top. Symbolic links are left out, so are huge files.

    `externals`: folders and files that a checkout of the cells gets from elsewhere (svn:externals), by their paths.
    """

    def __init__(self, top: Path, externals: Iterable[str] = ()) -> None:
        self.top = top
        self.externals = frozenset(posixpath.normpath(path) for path in externals)
        self.files: dict[str, File] = {}
        self.folders: set[str] = {""}
        self.others: set[str] = set()
        """Paths that exist and are not read: symbolic links, huge files, devices."""
        self._read()

    def _read(self) -> None:
        if not self.top.is_dir():
            raise SourceError(f"{self.top}: there is no such directory", hint="name the top of an OSCAR tree")
        for folder, folders, names in os.walk(self.top):
            folders[:] = sorted(set(folders) - _SKIPPED_FOLDERS)
            here = Path(folder).relative_to(self.top)
            for name in folders:
                (self.others if (Path(folder) / name).is_symlink() else self.folders).add(str(here / name))
            for name in sorted(names):
                self._take(str(here / name), Path(folder) / name)

    def _take(self, path: str, place: Path) -> None:
        if len(self.files) >= MAX_FILES:
            raise SourceError(f"{self.top}: more than {MAX_FILES} files; this is not an OSCAR tree")
        status = place.lstat()
        if not stat.S_ISREG(status.st_mode) or status.st_size > MAX_FILE_BYTES:
            self.others.add(path)
            return
        try:
            content = place.read_bytes()
        except PermissionError:
            raise SourceError(f"{place}: this file cannot be read") from None
        self.files[path] = File(path, content, bool(status.st_mode & 0o111))

    def __contains__(self, path: str) -> bool:
        return path in self.files or path in self.folders or path in self.others

    @cached_property
    def names(self) -> frozenset[str]:
        """The names of all files, without their folders."""
        return frozenset(posixpath.basename(path) for path in (*self.files, *self.others))

    def may_have(self, path: str) -> bool:
        """Whether nobody can say that a cell's tree has not got it: it may come from elsewhere, or be built."""
        return self.is_external(path) or self.is_built(path)

    def is_external(self, path: str) -> bool:
        """Whether a path is, or lies below, what a checkout gets from elsewhere."""
        parts = path.split("/")
        return any("/".join(parts[:count]) in self.externals for count in range(1, len(parts) + 1))

    def is_built(self, path: str) -> bool:
        """Whether the tree's own build makes this file: it has a template, or a build's rule names it."""
        if f"{path}.in" in self:
            return True
        folder, name = posixpath.split(path)
        makes = re.compile(
            rf"^(?P<place>[^\s#:=]*/)?{re.escape(name)}\s*:(?!=)|(?<![=-])>\s*(?:[^\s>]*/)?{re.escape(name)}\b",
            re.MULTILINE,
        )
        # A target without a folder is made where make runs: in the folder of its Makefile.
        return any(
            ">" in match[0] or match["place"] or posixpath.dirname(file.path) == folder or file.path.endswith(".mk")
            for file in self.builds
            for match in makes.finditer(file.text)
        )

    @cached_property
    def builds(self) -> tuple[File, ...]:
        """What the tree is built with: Makefiles, `configure`, and what makes these."""
        return tuple(f for f in self.files.values() if _BUILD.search(f.path) and not f.binary)

    def write_scripts(self, directory: Path, made: Mapping[str, str]) -> None:
        """Write all files that a script may load into `directory`, readable for everybody; `made`: by path, what is
        written in the place of a file."""
        for file in self.files.values():
            if file.binary or not (file.in_command_line or file.path.endswith((".pm", ".pl", ".ph"))):
                continue
            target = directory / file.path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(file.content)
        for path, text in made.items():
            (directory / path).parent.mkdir(parents=True, exist_ok=True)
            (directory / path).write_text(text, encoding="utf-8")
        for folder, folders, names in os.walk(directory):
            for name in (*folders, *names):
                (Path(folder) / name).chmod(0o755)
        directory.chmod(0o755)
