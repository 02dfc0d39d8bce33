"""The record of this user's disks on this host that were raw when a guest first used them.

A guest can write the first bytes of a qcow2 file, with the name of a host's file in it, to a raw disk; opened as qcow2
the next time, the disk would show it that file. So a file that was raw once is not taken for qcow2, by whichever
system, profile and path it comes.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TextIO

from oscar_steps.daemon import claim
from oscar_steps.errors import HostError
from oscar_steps.textio import write_atomically
from oscar_steps.v3m.disks import file_identity, image_format

_LOCK_SECONDS = 60.0
_DEVICE = "device"
"""Instead of its identity: a device's node is made anew with each boot of the host."""
_NO_BIRTH = re.compile(r"\d+ 0(\.0*)?")
"""The identity of a file whose file system does not record its birth: its inode's number is reused."""


@dataclass(frozen=True, slots=True)
class _Disk:
    """Its path without symbolic links, and which file is there (`disks.file_identity`)."""

    path: str
    file: str

    def is_same(self, other: _Disk) -> bool:
        needs_path = self.file == _DEVICE or _NO_BIRTH.fullmatch(self.file) is not None
        return self.file == other.file and (self.path == other.path or not needs_path)


class RawDisks:
    """The list of them in the directory `root`."""

    def __init__(self, root: Path) -> None:
        self._file = root / "raw-disks.json"
        self._lock = root / "raw-disks.lock"

    def check(self, machine: str, paths: Iterable[str]) -> None:
        """To be asked before a guest gets its disks: raw ones are remembered. A disk that is not there is none.

        Raises HostError for one that was raw and now begins as qcow2 does, and for what cannot be a disk.
        """
        raw: list[_Disk] = []
        others: list[tuple[str, _Disk]] = []
        for path in paths:
            try:
                form = image_format(Path(path))
            except FileNotFoundError:
                continue
            except OSError as error:
                raise HostError(f"{machine} has the disk {path}, which cannot be used: {error.strerror}") from None
            if form == "raw":
                raw.append(_look(path))
            else:
                others.append((path, _look(path)))
        with self._locked():
            known = self._read()
            for path, disk in others:
                if any(disk.is_same(each) for each in known):
                    what = f"the disk {path} of {machine} was raw, but its content now looks like qcow2"
                    hint = "its guest may have written that to read a file of this host"
                    raise HostError(what, hint=f"{hint}; if you converted the disk, copy it: a copy counts as another")
            new = [disk for disk in raw if not any(disk.is_same(each) for each in known)]
            if new:
                self._write([*known, *new])

    def _read(self) -> list[_Disk]:
        try:
            return [_Disk(**entry) for entry in json.loads(self._file.read_bytes())]
        except FileNotFoundError:
            return []
        except (OSError, ValueError, TypeError) as error:
            hint = "delete it only if you trust every guest that had a raw disk"
            raise HostError(f"{self._file} cannot be read: {error}", hint=hint) from None

    def _write(self, known: list[_Disk]) -> None:
        write_atomically(self._file, json.dumps([asdict(disk) for disk in known], indent=1))

    def _locked(self) -> TextIO:
        lock = claim(self._lock, _LOCK_SECONDS)
        if lock is None:
            raise HostError(f"timed out after {_LOCK_SECONDS:.0f} s waiting for the lock {self._lock}")
        return lock


def _look(path: str) -> _Disk:
    real = Path(path).resolve()
    return _Disk(str(real), _DEVICE if real.is_block_device() else file_identity(real))
