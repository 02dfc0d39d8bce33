"""How much room the images take: what is there, how much there may be, and which go when it gets too much.

The least recently used goes first, and never one in use: its folder is locked (`lease.py`) while it is taken away, so
that nobody begins to use it then.
"""

from __future__ import annotations

import os
import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from oscar_steps.errors import ConfigError
from oscar_steps.images import lease
from oscar_steps.images.record import ImageRecord
from oscar_steps.textio import shared_with_group
from oscar_steps.v3m.host.settings import SETTINGS_FILE, load_settings

LIMIT_VARIABLE = "OSCAR_FARM_IMAGES_GIB"
DEFAULT_GIB = 20.0
DEFAULT_SHARE = 1 / 3
"""Of the file system: on a small disk the images leave room for the runs."""
DAMAGED = "damaged-"
_GIB = 1 << 30
_IMAGE = re.compile(rf"(?:{DAMAGED})?[0-9a-f]{{64}}|{DAMAGED}[0-9a-f]{{64}}-[0-9a-f]{{8}}")
_DOWNLOAD = re.compile(r"download-[0-9a-f]{64}")


@dataclass(frozen=True)
class Entry:
    """A folder of an image, or what has come of a download. `record`: None for an image of an earlier version, one that
    is damaged, and a download."""

    folder: Path
    record: ImageRecord | None
    last_used: float

    @property
    def damaged(self) -> bool:
        return self.folder.name.startswith(DAMAGED)

    @property
    def is_download(self) -> bool:
        return _DOWNLOAD.fullmatch(self.folder.name) is not None

    @property
    def key(self) -> str:
        """An image's key; a download has its file's name."""
        name = self.folder.name
        return name if self.is_download else name.removeprefix(DAMAGED).partition("-")[0]

    @property
    def name(self) -> str:
        """What it is, for people."""
        if self.is_download:
            return "a download that was not finished"
        return self.record.name if self.record else "of an earlier version"

    @property
    def size(self) -> int:
        """Bytes that it takes on the disk."""
        return sum(_blocks(self.folder).values())

    @property
    def users(self) -> tuple[str, ...]:
        return lease.users(lock_path(self.folder.parent, self.key) if self.is_download else self.folder)


def entries(store: Path) -> list[Entry]:
    """All images and downloads in the store, the least recently used first; those that no build will use again before
    all others."""
    found = []
    with suppress(FileNotFoundError):
        for folder in store.iterdir():
            if _IMAGE.fullmatch(folder.name) or _DOWNLOAD.fullmatch(folder.name):
                with suppress(OSError):
                    found.append(Entry(folder, ImageRecord.load(folder), _last_used(folder)))
    return sorted(found, key=lambda entry: (entry.record is not None, entry.last_used))


def lock_path(store: Path, key: str) -> Path:
    """The file that is locked by who builds or removes the image `key`. Its time says when the image was last used."""
    return store / f"{key}.lock"


def lock_mode(store: Path) -> int:
    return 0o660 if shared_with_group(store) else 0o600


def mark_used(store: Path, key: str) -> None:
    """The image `key` is used now. In a store of another user's nothing is noted."""
    path = lock_path(store, key)
    with suppress(OSError):
        if not path.exists():
            os.close(os.open(path, os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, lock_mode(store)))
        os.utime(path)


def _last_used(folder: Path) -> float:
    with suppress(OSError):
        return lock_path(folder.parent, folder.name).stat().st_mtime
    return folder.stat().st_mtime


def _blocks(folder: Path) -> dict[tuple[int, int], int]:
    """Each file of the folder, a hard link once, to the bytes that it takes."""
    found = {}
    with suppress(OSError):
        for path in folder.iterdir() if folder.is_dir() else [folder]:
            status = path.lstat()
            found[status.st_dev, status.st_ino] = status.st_blocks * 512
    return found


def used_bytes(found: list[Entry]) -> int:
    """What these images take together: a layer that some of them share counts once."""
    blocks = dict[tuple[int, int], int]()
    for entry in found:
        blocks |= _blocks(entry.folder)
    return sum(blocks.values())


def _removable_bytes(found: list[Entry]) -> int:
    """What the disk has more of without those that nobody uses: a layer that an image in use shares stays."""
    removable = [entry for entry in found if _may_go(entry)]
    kept = [entry for entry in found if entry not in removable]
    return used_bytes(found) - used_bytes(kept)


def _may_go(entry: Entry) -> bool:
    """Whether it may, as far as can be seen without a lock, which would be in the way of who begins to use it."""
    with suppress(OSError):
        return os.geteuid() in (0, entry.folder.stat().st_uid) and not entry.users
    return False


def limit_bytes(store: Path) -> int:
    """How much the images in `store` may take. Raises ConfigError for a limit that is none."""
    gib = load_settings().images.limit_gib
    if text := os.environ.get(LIMIT_VARIABLE, ""):
        try:
            gib = float(text)
        except ValueError:
            gib = -1.0
        if not 0 < gib < 1e6:
            raise ConfigError(
                f"{LIMIT_VARIABLE}={text!r} is no size", hint=f"give GiB, such as {LIMIT_VARIABLE}={DEFAULT_GIB:.0f}"
            )
    if gib is not None:
        return int(gib * _GIB)
    existing = next(path for path in (store.absolute(), *store.absolute().parents) if path.is_dir())
    return int(min(DEFAULT_GIB * _GIB, shutil.disk_usage(existing).total * DEFAULT_SHARE))


def how_to_get_room(store: Path) -> str:
    """The way out of a full store."""
    return (
        f"oscar-testdriver images prune --images {store} --all removes what no run uses; the images' limit is "
        f"limit_gib in {SETTINGS_FILE} ([images]) or {LIMIT_VARIABLE}"
    )


def evict(store: Path, *, limit: int, free: int = 0) -> Iterator[Entry]:
    """Remove images until no more than `limit` bytes are taken, and `free` bytes of the disk are free; gives each one
    that it has removed. It ends where every other image is in use, or another user's; where even without all that may
    go there were less than `free`, it removes none for that."""
    found = entries(store)
    if free and shutil.disk_usage(store).free + _removable_bytes(found) < free:
        free = 0
    for entry in list(found):
        if used_bytes(found) <= limit and shutil.disk_usage(store).free >= free:
            return
        if remove(entry):
            found.remove(entry)
            yield entry


def remove(entry: Entry) -> bool:
    """Remove an image that nobody uses; False where it stays.

    Killed in the middle, it leaves a `tmp-` folder, which the next build removes.
    """
    folder, store = entry.folder, entry.folder.parent
    with suppress(OSError, Timeout):
        if folder.stat().st_uid != os.geteuid() != 0:
            return False
        path = lock_path(store, entry.key)
        if entry.is_download:
            with FileLock(path, mode=lock_mode(store), blocking=False):
                folder.unlink()
                return True
        with FileLock(path, mode=lock_mode(store), blocking=False), lease.unused(folder) as unused:
            if not unused:
                return False
            aside = store / f"tmp-{entry.key}-{os.getpid()}-{secrets.token_hex(4)}"
            folder.rename(aside)  # from here on it is removed: by us, or by another process that finds its `tmp-`
            path.unlink(missing_ok=True)
            with suppress(FileNotFoundError):
                aside.chmod(0o700)
                shutil.rmtree(aside)
            return True
    return False


def set_aside(folder: Path, held: lease.Lease, *, locked: bool = False) -> Path | None:
    """Take a damaged image out of use: nobody finds it any more; those who use it go on. None: another process is
    building or removing it, or it is not the one any more that was `held` when its files were looked at.

    `locked`: the caller holds the lock of the image's key. Raises OSError: the store cannot be written.
    """
    if not locked:
        try:
            with FileLock(lock_path(folder.parent, folder.name), mode=lock_mode(folder.parent), blocking=False):
                return set_aside(folder, held, locked=True)
        except Timeout:
            return None
    if not held.is_of(folder):
        return None
    aside = folder.with_name(f"{DAMAGED}{folder.name}")
    with suppress(OSError), lease.unused(aside) as unused:
        if unused:
            aside.chmod(0o700)
            shutil.rmtree(aside)
    if aside.exists():
        aside = aside.with_name(f"{aside.name}-{secrets.token_hex(4)}")
    folder.rename(aside)
    return aside
