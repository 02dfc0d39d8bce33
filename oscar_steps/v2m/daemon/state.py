"""What a system of virtual machines leaves on the disk: a directory that outlives its daemon, however that ends.

A *system* is the set of machines that belong together and see each other on their VLANs. Its directory holds the
daemon's socket, log and lock, the machines' consoles, and `machines.json`: for each machine the profile that it came
from, the disk that `create` made, whether it is on, and how its last boot ended.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from oscar_steps.daemon import claim, is_claimed
from oscar_steps.environment import home_directory
from oscar_steps.errors import HostError, UserError
from oscar_steps.textio import write_atomically
from oscar_steps.v3m.disks import file_identity
from oscar_steps.v3m.host import ledger

DEFAULT_SYSTEM = "default"
SYSTEM_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,63}")
LOCK_SECONDS = 60.0
_KINDS: dict[str, type] = {"name": str, "profile": str, "ended": str, "drive": bool}
"""Of a record's values; the others are a text or nothing."""


@dataclass(frozen=True, slots=True)
class MachineRecord:
    """What is known of one machine. `made`: the disk that `create` made; `ended`: how its last boot ended.

    `made_file`: which file that is (`disks.file_identity`), None where another host made it. `cdrom`, `drive` and
    `medium` (of an installation): how it was booted last, which a saved state depends on.
    `on_since_boot`: the host's boot in which it was powered on, None when it is off.
    """

    name: str
    profile: str
    made: str | None = None
    made_file: str | None = None
    on_since_boot: str | None = None
    ended: str = ""
    cdrom: str | None = None
    drive: bool = False
    medium: str | None = None

    def has_made(self, disk: str) -> bool:
        """Whether this is the disk that `create` made. For a disk that another host made, only the name is known."""
        if self.made != disk:
            return False
        return self.made_file is None or not os.path.lexists(disk) or self.made_file == file_identity(Path(disk))


def _record(**entry: Any) -> MachineRecord:
    """A record as it was written. Raises TypeError for what is none."""
    record = MachineRecord(**entry)
    for name, value in asdict(record).items():
        if not isinstance(value, _KINDS.get(name, str | None)):
            raise TypeError(f"{name} is {value!r}")
    return record


class System:
    """The directory of one system. Raises UserError for a name that cannot be one, HostError for the host's faults."""

    def __init__(self, name: str, root: Path | None = None) -> None:
        if not SYSTEM_NAME.fullmatch(name):
            what = "has to be 1 to 64 letters, digits, '.', '_', '+' or '-', and begin with a letter or a digit"
            raise UserError(f"the name of a system {what}; '{name}' does not", hint="name one: --system NAME")
        self.name = name
        self.directory = (root or state_root()) / name
        # Not renamed: a daemon that an earlier version started, which was called the keeper, must be found.
        self.socket = self.directory / "keeper.sock"
        self.lock = self.directory / "keeper.lock"
        self.log = self.directory / "daemon.log"

    def make(self) -> None:
        """Make the directory, for its owner alone."""
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            self.directory.chmod(0o700)
        except OSError as error:
            sentence = f"the directory {self.directory} of the system {self.name} cannot be made: {error.strerror}"
            raise HostError(sentence, hint="set XDG_STATE_HOME to a directory that can be written to") from None

    @contextmanager
    def starting(self, seconds: float = LOCK_SECONDS) -> Iterator[None]:
        """While this is held no daemon starts and none ends. Raises TimeoutError."""
        with self._locked(self.directory / "start.lock", seconds):
            yield

    @contextmanager
    def kept(self) -> Iterator[None]:
        """A daemon holds this as long as it lives; a kill -9 frees it. Raises TimeoutError when another one has it."""
        with self._locked(self.lock, 2.0):
            yield

    def is_kept(self, seconds: float = 0.0) -> bool:
        """Whether a daemon lives; one that ends within `seconds` does not."""
        try:
            return is_claimed(self.lock, seconds)
        except OSError as error:
            raise _unlockable(self.lock, error) from None

    def records(self) -> dict[str, MachineRecord]:
        """All machines that are known, by name."""
        try:
            entries = json.loads((self.directory / "machines.json").read_bytes())
            return {entry["name"]: _record(**entry) for entry in entries}
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
            sentence = f"{self.directory}/machines.json cannot be read: {error}"
            raise HostError(
                sentence, hint="when its daemon is gone, none of its machines runs; then delete the file"
            ) from None

    def update(self, name: str, **changes: object) -> MachineRecord:
        """Write down something about a machine. `profile` has to be among the changes when it is not known yet."""
        if "made" in changes:
            changes.setdefault("made_file", None)  # the file that was known belongs to what was made before
        with self._locked(self.directory / "machines.lock", LOCK_SECONDS):
            records = self.records()
            known = records.get(name) or MachineRecord(name, str(changes.get("profile", "")))
            records[name] = replace(known, **changes)  # type: ignore[arg-type]
            self._write(records)
            return records[name]

    def forget(self, name: str) -> None:
        """Strike a machine out."""
        with self._locked(self.directory / "machines.lock", LOCK_SECONDS):
            records = self.records()
            if records.pop(name, None) is not None:
                self._write(records)

    def mark_dead(self) -> list[str]:
        """Call only when no daemon lives: the machines that were on when it was killed; they are off from now on."""
        dead = [record for record in self.records().values() if record.on_since_boot is not None]
        for record in dead:
            rebooted = record.on_since_boot != ledger.boot_id()
            how = "the host was rebooted" if rebooted else "the v2m daemon was killed, and the machine died with it"
            self.update(record.name, on_since_boot=None, ended=how)
        return [record.name for record in dead]

    def _write(self, records: dict[str, MachineRecord]) -> None:
        text = json.dumps([asdict(record) for record in records.values()], indent=1)
        write_atomically(self.directory / "machines.json", text, mode=0o600)

    @contextmanager
    def _locked(self, path: Path, seconds: float) -> Iterator[None]:
        try:
            lock = claim(path, seconds)
        except OSError as error:
            raise _unlockable(path, error) from None
        if lock is None:
            raise TimeoutError(f"{path} is held by another process")
        with lock:
            yield


def _unlockable(path: Path, error: OSError) -> HostError:
    return HostError(f"{path} cannot be locked: {error.strerror}")


def state_root() -> Path:
    """Where the systems of this user on this host are, by the XDG's rule for what outlives a login.

    Raises HostError for a user without a home.
    """
    home = os.environ.get("XDG_STATE_HOME", "")
    base = Path(home) if Path(home).is_absolute() else home_directory("XDG_STATE_HOME") / ".local" / "state"
    return base / "v2m" / this_host()


def this_host() -> str:
    """A name that no other host has: they may share the home directory, but no lock, no socket and no process.

    The name alone may be 'localhost' everywhere; and nodes that were installed from one image may share a machine-id.
    """
    try:
        identity = Path("/etc/machine-id").read_text(encoding="ascii").strip()[:12]
    except (OSError, ValueError):
        identity = ""
    return "-".join(part for part in (os.uname().nodename.replace("/", "-"), identity) if part)


def all_systems() -> list[System]:
    """The systems that have a directory."""
    root = state_root()
    names = sorted(path.name for path in root.iterdir() if path.is_dir()) if root.is_dir() else []
    return [System(name) for name in names if SYSTEM_NAME.fullmatch(name)]
