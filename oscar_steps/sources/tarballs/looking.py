"""One look at a place with releases: what is new there, what has come whole, which sets can be tested.

A file is taken when two looks one after the other have found it the same. A set is tested when the parts are there for
which the site waits. What comes later is said, and not tested again. A file of a tested set that changes under its name
is reported, and its set is tested once more, as another one: its digest is what it is.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from oscar_steps.errors import HostError
from oscar_steps.sources.source import TarFile
from oscar_steps.sources.tarballs import proofs
from oscar_steps.sources.tarballs.fetch import Limit, download
from oscar_steps.sources.tarballs.memory import FileNote, Letter, Memory, SetNote, Shelf
from oscar_steps.sources.tarballs.names import ENDINGS, NotOurTarball, TarName, Version, is_ours
from oscar_steps.sources.tarballs.places import Entry, entries
from oscar_steps.sources.tarballs.sets import Waiting, by_version, missing
from oscar_steps.textio import printable_name

LIST_SECONDS = 120
FILE_SECONDS = 3600
_RECHECKED = 60
"""Of so many tarballs, the newest, it is asked at each look whether they have changed."""


@dataclass(frozen=True)
class Place:
    """What the site says of a place (`[[tarballs]]`)."""

    name: str
    url: str
    parts: Sequence[str] = ("base",)
    patterns: Sequence[str] = ("oscar-*",)
    keyring: Path | None = None
    newer_than: str = ""
    remind_seconds: float = 86400.0
    file_bytes: int = 4 << 30
    keep_bytes: int = 20 << 30


@dataclass
class Look:
    """One look. `say` gets what is of interest for the log; nothing that is said twice."""

    place: Place
    shelf: Shelf
    memory: Memory
    limit: Limit
    say: Callable[[str], None]
    now: float = field(default_factory=time.time)
    trouble: HostError | None = None
    """The first file that could not be fetched."""

    def all(self) -> None:
        """Look, take what is new, make sets. Raises HostError where a file could not be had, after all else is done.

        What was found is saved, also where it raises.
        """
        found = self._entries()
        files = self._files(found)
        settled = self._settled(found)
        if not self.memory.looked:
            self._first(files)
        for name, entry in sorted(files.items(), key=lambda item: TarName.parse(item[0]).version):
            try:
                self._see(name, entry)
                self._judge(name, found, settled)
            except HostError as error:
                self.trouble = self.trouble or error
            self.shelf.save(self.memory)
        self.memory.files = {name: note for name, note in self.memory.files.items() if name in files or note.sha256}
        self._sets()
        self.shelf.evict(self.memory, self.place.keep_bytes)
        self.memory.looked = True
        self.shelf.save(self.memory)
        if self.trouble is not None:
            raise self.trouble

    def _entries(self) -> dict[str, Entry]:
        """All that is there and may concern us, by name."""
        newest = sorted(
            (name for name, note in self.memory.files.items() if note.old or note.taken == note.tag),
            key=lambda name: TarName.parse(name).version,
        )
        settled = newest[:-_RECHECKED]
        return {
            entry.name: entry
            for entry in entries(self.place.url, self._wanted, replace(self.limit, seconds=LIST_SECONDS), settled)
        }

    def _wanted(self, name: str) -> bool:
        if proofs.is_proof(name):
            return True
        if not any(fnmatchcase(name, pattern) for pattern in self.place.patterns):
            return False
        if not is_ours(name):
            self._stranger(name)
            return False
        return not self.place.newer_than or TarName.parse(name).version > Version.parse(self.place.newer_than)

    def _stranger(self, name: str) -> None:
        if name.lower().endswith(ENDINGS):
            try:
                TarName.parse(name)
            except NotOurTarball as error:
                if self.memory.first_time(f"stranger {printable_name(name[:200])}"):
                    self.say(f"{self.place.name}: {error.sentence}; it is left alone")

    def _files(self, found: dict[str, Entry]) -> dict[str, Entry]:
        return {name: entry for name, entry in found.items() if is_ours(name)}

    def _settled(self, found: dict[str, Entry]) -> frozenset[str]:
        """Checksums and signatures that two looks have found the same."""
        now = {name: entry.tag for name, entry in found.items() if proofs.is_proof(name)}
        before, self.memory.proofs = self.memory.proofs, now
        return frozenset(name for name, tag in now.items() if before.get(name) == tag)

    def _first(self, files: dict[str, Entry]) -> None:
        """At the first look whole sets are taken for tested, unless the site says since when it wants them."""
        if self.place.newer_than:
            return
        for version, parts in by_version(TarName.parse(name) for name in files).items():
            if missing(parts, self.place.parts):
                continue
            self.memory.sets[version.text] = SetNote(version=version.text, sent=True)
            for name in parts.values():
                entry = files[name.text]
                self.memory.files[name.text] = FileNote(url=entry.url, tag=entry.tag, seen=self.now, old=True)
            self.say(f"{self.place.name}: OSCAR {version.text} was there before the farm; it is not tested")

    def _see(self, name: str, entry: Entry) -> None:
        """Take the file if two looks have found it the same, and it was not taken as such."""
        note = self.memory.files.get(name)
        if note is None:
            self.memory.files[name] = FileNote(url=entry.url, tag=entry.tag, seen=self.now)
            return
        note.url = entry.url
        if not entry.tag and note.tag:  # the place was not asked this time
            return
        if note.tag != entry.tag:
            note.tag, was_old, note.old = entry.tag, note.old, False
            if was_old:
                self._look_anew(name)
            return
        if not note.old and note.taken != note.tag:
            self._take(name, entry, note)

    def _look_anew(self, name: str) -> None:
        """A file of a set from before the farm's time has changed: all of its set is fetched."""
        version = TarName.parse(name).version
        for other, note in self.memory.files.items():
            if TarName.parse(other).version == version:
                note.old = False
        self._report(f"{name} has changed", f"{name} was there before the farm, and has changed under its name.")

    def _take(self, name: str, entry: Entry, note: FileNote) -> None:
        coming = self.shelf.part()
        got = download(entry.url, coming, replace(self.limit, most_bytes=self.place.file_bytes, seconds=FILE_SECONDS))
        if got.tag and got.tag != entry.tag:
            note.tag = got.tag
            raise HostError(f"{entry.url} changed while it was fetched")
        coming.rename(self.shelf.file(got.sha256))
        if note.sha256 and note.sha256 != got.sha256:
            self._report(
                f"{name} has changed under its name",
                f"{entry.url} was fetched before, with the SHA-256\n  {note.sha256}\n"
                f"and is another file now, with the SHA-256\n  {got.sha256}\n\n"
                "A release that was announced should not change: give it another version. Its set is tested once more.",
            )
        changed = note.sha256 != got.sha256
        note.taken, note.sha256, note.size = note.tag, got.sha256, got.size
        if changed:
            note.proofs, note.fault = None, ""
            self.say(f"{self.place.name}: {name} has come ({got.size} bytes, SHA-256 {got.sha256})")

    def _judge(self, name: str, found: dict[str, Entry], settled: frozenset[str]) -> None:
        """Compare a file that has come with what is published beside it."""
        note = self.memory.files[name]
        if note.old or not note.sha256 or note.taken != note.tag or not self.shelf.file(note.sha256).is_file():
            return
        beside = {other: proofs.algorithm(other, name) for other in found if proofs.algorithm(other, name)}
        signature = next((name + end for end in proofs.SIGNATURES if name + end in found), "")
        known = sorted(f"{other} {found[other].tag}" for other in (*beside, *([signature] if signature else [])))
        by = "\n".join([str(self.place.keyring), *known])
        if note.proofs == by:
            return
        if any(other not in settled for other in (*beside, *([signature] if signature else []))):
            note.proofs = None  # they still come
            return
        fault = self._fault(name, note, beside, found) or self._signature_fault(name, note, signature, found)
        note.proofs, note.fault = by, fault
        if fault and self.memory.first_time(f"fault {name} {note.sha256} {fault}"):
            self._report(f"{name} is not tested", f"{note.url} is not tested: {fault}.", operator=True)

    def _fault(self, name: str, note: FileNote, beside: dict[str, str], found: dict[str, Entry]) -> str:
        for other, kind in sorted(beside.items()):
            text = self._fetched(found[other]).read_text("utf-8", "replace")
            wanted = proofs.published(text, name, kind, own=other.startswith(name))
            if wanted and wanted != (is_now := proofs.digest_of(self.shelf.file(note.sha256), kind)):
                return f"its {kind.upper()} is {is_now}, but {other} says {wanted}"
        return ""

    def _signature_fault(self, name: str, note: FileNote, signature: str, found: dict[str, Entry]) -> str:
        if self.place.keyring is None:
            return ""
        if not signature:
            return f"there is no signature {name}.asc, which the site asks for"
        file, text = self.shelf.file(note.sha256), self._fetched(found[signature])
        fault = proofs.signature_fault(file, text, self.place.keyring)
        return f"{signature}: {fault}" if fault else ""

    def _fetched(self, entry: Entry) -> Path:
        target = self.shelf.part().with_name("proof.part")
        download(entry.url, target, replace(self.limit, most_bytes=proofs.MOST_BYTES, seconds=LIST_SECONDS))
        return target

    def _sets(self) -> None:
        memory = self.memory
        memory.waiting = {}
        seen = by_version(TarName.parse(name) for name in memory.files)
        usable = by_version(TarName.parse(name) for name, note in memory.files.items() if note.usable)
        for version, names in seen.items():
            if all(memory.files[name.text].old for name in names.values()):
                continue
            parts = usable.get(version, {})
            if lacks := missing(parts, self.place.parts):
                self._waits(version, sorted(parts), lacks, [name.text for name in names.values()])
                continue
            self._complete(version.text, [name.text for name in parts.values()])

    def _waits(self, version: Version, there: list[str], lacks: tuple[str, ...], names: list[str]) -> None:
        memory = self.memory
        if memory.revisions_of(version.text) and not any(memory.files[name].fault for name in names):
            return  # a file of a tested set has changed, and still comes
        since = min(memory.files[name].seen for name in names)
        text = str(Waiting(version.text, tuple(there), lacks, since))
        faults = [f"{name}: {memory.files[name].fault}" for name in names if memory.files[name].fault]
        memory.waiting[version.text] = "; ".join([text, *faults])
        if memory.first_time(memory.waiting[version.text]):
            self.say(f"{self.place.name}: {memory.waiting[version.text]}")
        if self.now - since >= self.place.remind_seconds and version.text not in memory.reminded:
            memory.reminded.append(version.text)
            self._report(
                f"OSCAR {version.text} is not complete", f"{memory.waiting[version.text]}.\n\nIt is not tested."
            )

    def _complete(self, version: str, names: list[str]) -> None:
        memory = self.memory
        earlier = memory.revisions_of(version)
        files = tuple(self._file(name) for name in sorted(names))
        if earlier:
            before = {file.name: file.sha256 for file in memory.sets[earlier[-1]].files}
            now = {file.name: file.sha256 for file in files}
            late = sorted(now.keys() - before.keys()) if before else []
            if before and all(now.get(name, sha256) == sha256 for name, sha256 in before.items()):
                for name in late:
                    if memory.first_time(f"late {name}"):
                        self.say(
                            f"{self.place.name}: {name} has come after OSCAR {version} was tested: not tested again"
                        )
                return
        revision = f"{version}#{len(earlier) + 1}" if earlier else version
        memory.sets[revision] = SetNote(version=version, files=files)
        self.say(f"{self.place.name}: OSCAR {version} is complete: {', '.join(file.name for file in files)}")

    def _file(self, name: str) -> TarFile:
        note = self.memory.files[name]
        return TarFile(name=name, url=note.url, sha256=note.sha256, size=note.size)

    def _report(self, subject: str, text: str, **how: Any) -> None:
        self.say(f"{self.place.name}: {subject}")
        self.memory.letters.append(Letter(subject=subject, text=f"{text}\n", to_operator=how.get("operator", True)))
