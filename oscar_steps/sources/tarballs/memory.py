"""What is remembered of a place with releases between two looks, and over restarts."""

from __future__ import annotations

import re
from pathlib import Path
from uuid import uuid4

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from oscar_steps.errors import HostError
from oscar_steps.sources.source import TarFile
from oscar_steps.sources.tarballs.names import NotOurTarball, Version
from oscar_steps.textio import read_regular, write_atomically

FOLDER = "tarballs"
"""Of the master's own folder: one folder for each place."""
_MEMORY, _FILES = "seen.json", "files"


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid")


class FileNote(_Model):
    """A tarball as it was at the last look."""

    url: str
    tag: str
    """What its place said of it."""
    seen: float
    """Unix time of the first look that showed it."""
    taken: str = ""
    """The tag with which its content was fetched."""
    sha256: str = ""
    size: int = 0
    proofs: str | None = None
    """Which checksums and signature it was judged by; None: it was not judged yet."""
    fault: str = ""
    """Why it cannot be used: another checksum, no signature."""
    old: bool = False
    """It was there, as part of a whole set, when the farm looked for the first time: it is not fetched."""

    @property
    def usable(self) -> bool:
        return (
            not self.old and bool(self.sha256) and self.taken == self.tag and self.proofs is not None and not self.fault
        )


class SetNote(_Model):
    """A set that is, or was, tested. Its key is the revision by which builds ask for it."""

    version: str
    files: tuple[TarFile, ...] = ()
    """Empty: it was there at the first look."""
    sent: bool = False
    """The database has a change for it."""


class Letter(_Model):
    """A mail that is not handed to the mail service yet."""

    subject: str
    text: str
    to_operator: bool = True
    name: str = Field(default_factory=lambda: uuid4().hex)
    """By which the mail service knows it again: a master may be killed before it has noted that it was handed over."""


class Memory(_Model):
    """All that is remembered of one place."""

    looked: bool = False
    files: dict[str, FileNote] = Field(default_factory=dict)
    proofs: dict[str, str] = Field(default_factory=dict)
    """Files with checksums and signatures: the tag of each at the last look."""
    sets: dict[str, SetNote] = Field(default_factory=dict)
    waiting: dict[str, str] = Field(default_factory=dict)
    """Versions that are not complete: what each waits for, in a sentence."""
    reminded: list[str] = Field(default_factory=list)
    said: list[str] = Field(default_factory=list)
    """What was said once, and is not said again."""
    letters: list[Letter] = Field(default_factory=list)

    def first_time(self, words: str) -> bool:
        """Whether these words are said for the first time."""
        if words in self.said:
            return False
        self.said = [*self.said[-999:], words]
        return True

    def revisions_of(self, version: str) -> list[str]:
        """The sets of a version, in the order in which they came."""
        return [revision for revision, note in self.sets.items() if note.version == version]

    def unsent(self) -> list[str]:
        """The sets for which there is no change yet, the oldest version first."""
        new = [revision for revision, note in self.sets.items() if not note.sent]
        return sorted(new, key=lambda revision: Version.parse(self.sets[revision].version))


class Shelf:
    """The folder of one place below the master's: what was seen, and the files, each by its digest."""

    def __init__(self, master: Path, name: str) -> None:
        self.folder = master / FOLDER / name

    def file(self, sha256: str) -> Path:
        """Where a file with this digest is, if it is kept."""
        if not re.fullmatch(r"[0-9a-f]{64}", sha256):
            raise ValueError(sha256)
        return self.folder / _FILES / sha256

    def load(self) -> Memory:
        """Raises HostError where it cannot be read: a place that is forgotten would be tested anew as a whole."""
        path = self.folder / _MEMORY
        try:
            memory = Memory.model_validate_json(read_regular(path))
            for note in memory.sets.values():
                Version.parse(note.version)
        except FileNotFoundError:
            return Memory()
        except (OSError, ValidationError, NotOurTarball) as error:
            hint = "restore it from a backup, or remove it: then all that lies there now is taken for tested"
            raise HostError(f"{path} cannot be read: {str(error).splitlines()[0]}", hint=hint) from None
        return memory

    def save(self, memory: Memory) -> None:
        """Raises OSError."""
        (self.folder / _FILES).mkdir(mode=0o700, parents=True, exist_ok=True)
        write_atomically(self.folder / _MEMORY, memory.model_dump_json(indent=1) + "\n")

    def part(self) -> Path:
        """The name under which a file comes. What an earlier one has left is overwritten."""
        (self.folder / _FILES).mkdir(mode=0o700, parents=True, exist_ok=True)
        return self.folder / _FILES / "coming.part"

    def evict(self, memory: Memory, most_bytes: int) -> list[str]:
        """Remove the files that were fetched first until the others fit; gives their digests. Those of sets that wait,
        and of the last set, stay: workers fetch the others from where they came from, if they are still there."""
        last = [*memory.sets.values()][-1:]
        needed = {file.sha256 for note in memory.sets.values() if not note.sent or note in last for file in note.files}
        needed |= {note.sha256 for note in memory.files.values() if note.usable and self._is_new(memory, note)}
        kept = sorted(
            (path.stat().st_mtime, path.stat().st_size, path) for path in (self.folder / _FILES).glob("?" * 64)
        )
        total = sum(size for _, size, _ in kept)
        gone = []
        for _, size, path in kept:
            if total > most_bytes and path.name not in needed:
                path.unlink()
                total -= size
                gone.append(path.name)
        return gone

    @staticmethod
    def _is_new(memory: Memory, note: FileNote) -> bool:
        tested = {file.sha256 for each in memory.sets.values() for file in each.files}
        return note.sha256 not in tested
