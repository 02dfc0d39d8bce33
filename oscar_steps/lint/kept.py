"""What the compilers said is kept by content: a commit that touches five files costs the compilation of these five.

An answer depends on the file, on whatever it loads, and on which modules are not there. Two things have to agree before
a kept answer is believed: the names and contents that stand behind every `use` and `require` in the texts themselves,
followed through all files (the key), and what the compiler really loaded or looked for (its notes). The first is read
here and not by the compiler, so that no file can leave itself out of another one's key.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator
from dataclasses import asdict
from functools import lru_cache
from pathlib import Path, PurePosixPath

from oscar_steps.lint.confine import Answer, Task
from oscar_steps.lint.entries import SPOILED, let_oldest_go, read_entry, version_of, write_entry
from oscar_steps.lint.tree import Tree

MAX_ENTRIES = 20_000
"""One is about a kilobyte; the oldest tenth goes when there are more."""
_ROOM = Path(__file__).parent
_FIELDS = ("status", "words", "notes", "loaded")
_LOADS = re.compile(rb"(?:^|[;{(\"'])[ \t]*(?:use|require|no|do)(?:\s|(?=[\"'(]))[^;#]*", re.MULTILINE)
_NAME = re.compile(rb"[A-Za-z_]\w*(?:(?:::|/)\w+)*(?:\.(?:p[lmh]))?")


class Kept:
    """The answers of one tree, in a folder that may be shared with other trees. Without a folder nothing is kept."""

    def __init__(self, folder: Path | None, tree: Tree) -> None:
        self._folder = folder
        self._tree = tree
        self._contents: dict[str, str] = {}
        self._loaded: dict[str, tuple[str, ...]] = {}
        self._by_name: dict[str, list[str]] = {}
        self._version = _version()
        if folder is not None:
            for path in sorted(tree.files):
                self._by_name.setdefault(PurePosixPath(path).name, []).append(path)

    def answer(self, task: Task) -> Answer | None:
        """What was said of the very same file among the very same others; None if it was not kept, or is spoiled."""
        if self._folder is None:
            return None
        entry = self._entry(task)
        try:
            data = read_entry(entry)
            answer = Answer(task, "done", int(data["status"]), tuple(data["words"]), tuple(data["notes"]))
            if data["loaded"] != self._really_loaded(answer):
                return None
            os.utime(entry)
        except SPOILED:
            return None
        return answer

    def keep(self, answer: Answer) -> None:
        """Keep what depends on contents alone: not what ran out of time or memory."""
        if self._folder is None or answer.end != "done" or any("Out of memory" in words for words in answer.words):
            return
        data = asdict(answer) | {"loaded": self._really_loaded(answer)}
        write_entry(self._entry(answer.task), {name: data[name] for name in _FIELDS})

    def bound(self) -> None:
        """Let the oldest entries go where there are too many."""
        if self._folder is not None:
            let_oldest_go(self._folder, MAX_ENTRIES)

    def _entry(self, task: Task) -> Path:
        assert self._folder is not None
        parts = [self._version, task.kind, task.path]
        todo, seen = [task.path], {task.path}
        while todo:
            path = todo.pop()
            for other in self._may_load(path) if task.kind == "perl" else ():
                if other not in seen:
                    seen.add(other)
                    todo.append(other)
        parts += [f"{path}\t{self._content(path)}" for path in sorted(seen)]
        return self._folder / hashlib.sha256("\n".join(parts).encode("utf-8", "surrogateescape")).hexdigest()

    def _may_load(self, path: str) -> tuple[str, ...]:
        """Files of the tree that a `use` or `require` in `path` may mean."""
        if path not in self._loaded:
            self._loaded[path] = tuple(dict.fromkeys(self._named(self._tree.files[path].content)))
        return self._loaded[path]

    def _named(self, content: bytes) -> Iterator[str]:
        for statement in _LOADS.finditer(content):
            for word in _NAME.finditer(statement[0]):
                name = word[0].decode().replace("::", "/")
                name = name if name.endswith((".pl", ".pm", ".ph")) else f"{name}.pm"
                for path in self._by_name.get(PurePosixPath(name).name, ()):
                    if f"/{path}".endswith(f"/{name}"):
                        yield path

    def _content(self, path: str) -> str:
        if path not in self._contents:
            file = self._tree.files.get(path)
            self._contents[path] = "" if file is None else hashlib.sha256(file.content).hexdigest()
        return self._contents[path]

    def _really_loaded(self, answer: Answer) -> dict[str, str]:
        """What the compiler noted that it loaded or looked for, each with its content now, '' where it is not there."""
        notes = (note.split(" ", 1) for note in answer.notes)
        return {note[1]: self._content(note[1]) for note in notes if len(note) == 2 and note[0] in ("needs", "lacks")}


@lru_cache(maxsize=1)
def _version() -> str:
    """Each module here may decide what the compilers get to read, in which surroundings, and what their words mean."""
    return version_of(_ROOM)
