"""Who has which part of this host's memory and processors: reservations that all users and masters of a host share.

A reservation is a file in a folder that every user may write to and nobody may clean for others (`PLACES`: root's, with
the sticky bit), and a lock on that file. The kernel frees the lock when the process ends, however it ends: a killed run
reserves nothing. Whose a reservation is, the file system says. Decisions are made one at a time, under a lock of the
folder itself.

What an ordinary user can do: reserve all that the host has, or hold the lock of the folder; a run that waits names the
user. What an ordinary user cannot do: release what another user has, or make a run start where memory is missing: what
the kernel says is free is looked at as well.

`free` memory is what the kernel has free, less what granted reservations have not used yet.
"""

from __future__ import annotations

import asyncio
import errno
import fcntl
import json
import os
import pwd
import stat
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from secrets import token_hex

import psutil

from oscar_steps.capacity import gib
from oscar_steps.errors import HostError
from oscar_steps.textio import json_object, one_line
from oscar_steps.v3m.host.settings import HostSettings, load_settings

PLACES = (Path("/run/oscar-farm"), Path("/run/lock"), Path("/tmp"))
"""The first one that is there, root's and sticky: the same one for every user of the host."""
KVM_PER_PROCESSOR = 4
"""So many processors of guests share one of the host's where KVM works; an emulated one needs a whole one."""
_PREFIX, _SUFFIX = "oscar-farm-", ".reservation"
_MODE = 0o644
_LONGEST = 4096
_PAUSE = 0.2
"""Seconds between two looks: no event reports that a lock has become free."""
_LOCK_SECONDS = 10.0
_MOST = 1 << 40
_NO_DESCRIPTOR = (errno.EMFILE, errno.ENFILE, errno.ENOMEM)

Say = Callable[[str], object]


@dataclass(frozen=True, slots=True)
class Room:
    """An amount of memory and of processors: what the host has, or what somebody wants of it."""

    memory_mib: int
    processors: float


@dataclass(frozen=True, slots=True)
class Reservation:
    """One reservation as it stands in its file. `user` and `since` are the file system's word, the rest its owner's."""

    what: str
    pid: int
    memory_mib: int
    processors: float
    granted: bool
    user: str = ""
    uid: int = -1
    since: int = 0

    def __str__(self) -> str:
        return f"{self.what} of user {self.user}"


class Held:
    """A reservation of this process. It ends with `release`, or with the process."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path = path
        self._descriptor: int | None = descriptor

    def release(self) -> None:
        """Give it back; may be called again."""
        if self._descriptor is not None:
            self.path.unlink(missing_ok=True)
            os.close(self._descriptor)
            self._descriptor = None

    def write(self, reservation: Reservation) -> None:
        """Say what it is. Only under the folder's lock, or by the one that made it."""
        assert self._descriptor is not None
        text = json.dumps({k: v for k, v in asdict(reservation).items() if k not in ("user", "uid", "since")})
        os.ftruncate(self._descriptor, 0)
        os.pwrite(self._descriptor, text.encode(), 0)


def host_room(settings: HostSettings, *, emulated: bool) -> Room:
    """What machines may take together: as the settings say, otherwise what the host has."""
    capacity = settings.capacity
    total = _limited_by_container(psutil.virtual_memory().total >> 20, "memory.max")
    processors = len(os.sched_getaffinity(0)) * (1 if emulated else KVM_PER_PROCESSOR)
    return Room(min(capacity.memory_mib or total, total), capacity.processors or processors)


def free_memory_mib() -> int:
    """What the kernel could give now, by the smaller of the host's and our control group's word."""
    available = psutil.virtual_memory().available >> 20
    return _limited_by_container(available, "memory.max", "memory.current")


def _limited_by_container(mib: int, limit: str, used: str = "") -> int:
    """`mib`, or less where a container's limit (control groups, version 2) lies below it."""
    folder = Path("/sys/fs/cgroup")
    try:
        most = (folder / limit).read_text(encoding="ascii").strip()
        taken = int((folder / used).read_text(encoding="ascii")) if used else 0
    except (OSError, ValueError):
        return mib
    return mib if most == "max" else min(mib, max(0, int(most) - taken) >> 20)


def find_place(places: Iterable[Path] = PLACES) -> Path:
    """The folder of the host's reservations. Raises HostError where there is none."""
    for place in places:
        with suppress(OSError):
            found = place.lstat()
            if stat.S_ISDIR(found.st_mode) and found.st_uid == 0 and found.st_mode & 0o1007 == 0o1007:
                return place
    raise HostError(
        "this host has no folder for reservations that all users share",
        hint=f"as root: install --directory --mode 1777 {PLACES[0]}",
    )


class Reservations:
    """The reservations of one host."""

    def __init__(self, place: Path, room: Room) -> None:
        self._place = place
        self.room = room

    @classmethod
    def of_host(cls, *, emulated: bool) -> Reservations:
        """Those of this host. Raises HostError, and ConfigError for the host's settings."""
        return cls(find_place(), host_room(load_settings(), emulated=emulated))

    async def all(self) -> list[Reservation]:
        """Those whose process lives, the oldest first. Raises HostError."""
        lock = await self._locked()
        try:
            return sorted((each for _, each in self._live()), key=_since)
        except OSError as error:
            raise self._unusable(error) from None
        finally:
            os.close(lock)

    async def note(self, what: str, wanted: Room) -> Held:
        """Reserve without asking whether there is room: a person has decided. Raises HostError."""
        return await self._made(Reservation(what, os.getpid(), wanted.memory_mib, wanted.processors, granted=True))

    async def reserve(self, what: str, wanted: Room, limit: float, say: Say) -> Held:
        """Reserve, and wait up to `limit` seconds for it; `say` gets a sentence whenever the reason changes.

        Who began to wait first goes first. Raises HostError where it is more than the host has, and after the limit.
        """
        self.check_size(wanted)
        mine = Reservation(what, os.getpid(), wanted.memory_mib, wanted.processors, granted=False)
        held = await self._made(mine)
        end, said = time.monotonic() + limit, ""
        try:
            while why := await self._try(held, mine):
                if time.monotonic() >= end:
                    hint = "`oscar-testdriver host` lists who has reserved what"
                    raise HostError(f"timed out after {limit:.0f} s {why}", hint=hint)
                if why != said:
                    say(why)
                    said = why
                await asyncio.sleep(_PAUSE)
        except BaseException:
            held.release()
            raise
        return held

    def check_size(self, wanted: Room) -> None:
        """Raises HostError for what this host can never give. (Too many processors are only slow.)"""
        if wanted.memory_mib > self.room.memory_mib:
            has = f"this host has {gib(self.room.memory_mib)} for machines in all"
            raise HostError(
                f"the cluster needs {gib(wanted.memory_mib)} of memory, {has}",
                hint="give the machines less <memory> in the cluster profile, or the cell a bigger host",
            )

    async def _try(self, held: Held, mine: Reservation) -> str:
        """'' where it is granted now, otherwise why not yet."""
        lock = await self._locked()
        try:
            others = [each for path, each in self._live() if path != held.path]
            since = held.path.stat().st_ctime_ns
            why = missing(mine, since, others, self.room)
            if not why:
                held.write(replace(mine, granted=True))
        except OSError as error:
            raise self._unusable(error) from None
        finally:
            os.close(lock)
        return why

    async def _made(self, reservation: Reservation) -> Held:
        name = f"{_PREFIX}{os.geteuid()}-{os.getpid()}-{token_hex(4)}{_SUFFIX}"
        path = self._place / name
        lock = await self._locked()  # a file that is not locked yet is taken for a dead process's
        try:
            flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            descriptor = os.open(path, flags, _MODE)
            held = Held(path, descriptor)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                os.fchmod(descriptor, _MODE)  # whatever the umask: others have to read it
                held.write(reservation)
            except BaseException:
                held.release()
                raise
        except OSError as error:
            raise self._unusable(error) from None
        finally:
            os.close(lock)
        return held

    def _live(self) -> list[tuple[Path, Reservation]]:
        """Under the folder's lock: those whose process lives. What is left of others is removed, if it may be.

        Raises OSError where this process or the host has no descriptor left to look at them.
        """
        read = ((path, self._read(path)) for path in self._place.glob(f"{_PREFIX}*{_SUFFIX}"))
        return [(path, found) for path, found in read if found is not None]

    def _read(self, path: Path) -> Reservation | None:
        """A reservation; None where there is none, or its process has ended: only a lock that can be taken says so, and
        then the file is removed. One that says nothing sensible, or that this user may not read, reserves nothing."""
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            if error.errno in _NO_DESCRIPTOR:
                raise
            return None
        try:
            found = os.fstat(descriptor)
            if not stat.S_ISREG(found.st_mode):
                return None
            if not _is_locked(descriptor):
                with suppress(OSError):
                    path.unlink()
                return None
            text = os.pread(descriptor, _LONGEST, 0)
        finally:
            os.close(descriptor)
        return replace(_parsed(text), user=_user(found.st_uid), uid=found.st_uid, since=found.st_ctime_ns)

    async def _locked(self) -> int:
        """The lock of the folder: a descriptor that is closed to free it."""
        try:
            descriptor = os.open(self._place, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise self._unusable(error) from None
        end = time.monotonic() + _LOCK_SECONDS
        try:
            while True:
                try:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    if time.monotonic() >= end:
                        raise HostError(
                            f"timed out after {_LOCK_SECONDS:.0f} s waiting for the lock of {self._place}",
                            hint=f"another program holds it; as root: lslocks, or fuser {self._place}",
                        ) from None
                    await asyncio.sleep(0.01)
                else:
                    return descriptor
        except BaseException:
            os.close(descriptor)
            raise

    def _unusable(self, error: OSError) -> HostError:
        return HostError(
            f"the host's reservations in {self._place} cannot be used: {error.strerror}",
            hint=f"a service of systemd's needs ReadWritePaths={self._place}",
        )


def missing(mine: Reservation, since: int, others: list[Reservation], room: Room) -> str:
    """Why `mine`, which waits `since` then, is not granted; '' where it is."""
    granted = [each for each in others if each.granted]
    if why := _no_memory(mine, granted, room) or _no_processors(mine, granted, room):
        return why
    waiting = [each for each in others if not each.granted and 0 < each.memory_mib <= room.memory_mib]
    ahead = min((each for each in waiting if each.since < since), key=_since, default=None)
    return f"waiting behind {ahead}, which waits for {gib(ahead.memory_mib)} of memory" if ahead else ""


def _no_memory(mine: Reservation, granted: list[Reservation], room: Room) -> str:
    reserved = sum(each.memory_mib for each in granted)
    if reserved + mine.memory_mib > room.memory_mib:
        most = max(granted, key=lambda each: each.memory_mib)
        also = f", {len(granted) - 1} more have {gib(reserved - most.memory_mib)}" if len(granted) > 1 else ""
        has = f"{most} has {gib(most.memory_mib)} of {gib(room.memory_mib)}{also}"
        return f"waiting for {gib(mine.memory_mib)} of memory: {has}"
    free = free_memory_mib() - _not_used_yet(granted)
    if free >= mine.memory_mib:
        return ""
    has = f"{gib(max(free, 0))} are free and not reserved"
    return f"waiting for {gib(mine.memory_mib)} of memory: {has}; other programs use the rest"


def _no_processors(mine: Reservation, granted: list[Reservation], room: Room) -> str:
    """A cluster alone on the host is always granted: it is slow, and its time limits are stretched."""
    reserved = sum(each.processors for each in granted)
    if not granted or reserved + mine.processors <= room.processors:
        return ""
    most = max(granted, key=lambda each: each.processors)
    also = f", {len(granted) - 1} more have {reserved - most.processors:g}" if len(granted) > 1 else ""
    return f"waiting for {mine.processors:g} processors: {most} has {most.processors:g} of {room.processors:g}{also}"


def _not_used_yet(granted: list[Reservation]) -> int:
    """MiB that are reserved, and that the kernel still counts as free."""
    if not granted:
        return 0
    children: dict[int, list[int]] = {}
    sizes: dict[int, int] = {}
    owners: dict[int, int] = {}
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            children.setdefault(process.ppid(), []).append(process.pid)
            sizes[process.pid] = process.memory_info().rss >> 20
            owners[process.pid] = process.uids().real
    unused = 0
    for pid in {each.pid for each in granted}:
        ours = [each for each in granted if each.pid == pid]
        # A process of another user's says nothing about what this user's reservation uses.
        used = _size(pid, children, sizes) if owners.get(pid) == ours[0].uid else 0
        unused += max(0, sum(each.memory_mib for each in ours) - used)
    return unused


def _size(pid: int, children: dict[int, list[int]], sizes: dict[int, int]) -> int:
    """What a process and all its descendants use."""
    seen: set[int] = set()
    left = [pid]
    while left:
        one = left.pop()
        if one not in seen:
            seen.add(one)
            left += children.get(one, ())
    return sum(sizes.get(one, 0) for one in seen)


def _since(reservation: Reservation) -> int:
    return reservation.since


def _is_locked(descriptor: int) -> bool:
    """Whether its process lives. Readers share the lock that they take for this moment."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    return False


def _parsed(text: bytes) -> Reservation:
    """What another user's file says, within bounds."""
    try:
        value = json_object(text)
    except ValueError:
        return Reservation("a program without a name", 0, 0, 0.0, granted=True)
    pid = value.get("pid")
    return Reservation(
        what=one_line(str(value.get("what")), 80) or "a program without a name",
        pid=pid if type(pid) is int and 0 < pid < 1 << 31 else 0,
        memory_mib=int(_amount(value.get("memory_mib"))),
        processors=_amount(value.get("processors")),
        granted=value.get("granted") is True,
    )


def _amount(value: object) -> float:
    return float(value) if type(value) in (int, float) and 0 <= value < _MOST else 0.0  # type: ignore[operator,arg-type]


def _user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)
