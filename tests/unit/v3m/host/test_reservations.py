"""Memory and processors of a host, reserved by real processes that know nothing of each other."""

from __future__ import annotations

import asyncio
import errno
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from oscar_steps.errors import HostError
from oscar_steps.v3m.host import reservations
from oscar_steps.v3m.host.reservations import Reservation, Reservations, Room, missing
from oscar_steps.v3m.host.settings import CapacitySettings, HostSettings

NOBODY = 65534
GIB = 1024
FORK = multiprocessing.get_context("fork")


class Driver:
    """A process that reserves, tells what it hears, and holds it until it is killed or asked to release it."""

    def __init__(self, place: Path, name: str, memory: int, most: int, user: int) -> None:
        self._ours, theirs = FORK.Pipe()
        self._process = FORK.Process(target=_drive, args=(theirs, place, name, memory, most, user), daemon=True)
        self._process.start()
        theirs.close()
        assert self._process.pid is not None
        self.pid = self._process.pid

    def said(self) -> str:
        assert self._ours.poll(30), "it says nothing"
        return str(self._ours.recv())

    def release(self) -> None:
        self._ours.send("release")

    def kill(self) -> None:
        self._process.kill()

    def close(self) -> None:
        self.kill()
        self._process.join()
        self._ours.close()


def _drive(parent: Connection, place: Path, name: str, memory: int, most: int, user: int) -> None:
    if user:
        os.setgroups([])
        os.setresgid(user, user, user)
        os.setresuid(user, user, user)
    os.umask(0o077)
    held = asyncio.run(Reservations(place, Room(most, 64)).reserve(name, Room(memory, 1), 60, parent.send))
    parent.send("granted")
    parent.recv()
    held.release()
    parent.recv()


@pytest.fixture(autouse=True)
def _a_host_with_free_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is granted depends on the reservations alone, unless a test says otherwise."""
    monkeypatch.setattr(reservations, "free_memory_mib", lambda: 1 << 30)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """As /run/lock is: everybody may add a file, and remove their own."""
    for folder in (tmp_path, *tmp_path.parents):
        if folder.stat().st_uid == os.geteuid() and folder != Path("/"):
            folder.chmod(folder.stat().st_mode | 0o005)
    shared = tmp_path / "lock"
    shared.mkdir()
    shared.chmod(0o1777)
    return shared


@contextmanager
def driver(place: Path, name: str, memory: int, most: int = 8 * GIB, user: int = 0) -> Iterator[Driver]:
    with closing(Driver(place, name, memory, most, user)) as process:
        yield process


def host(place: Path, memory: int = 8 * GIB, processors: float = 64) -> Reservations:
    return Reservations(place, Room(memory, processors))


def there(place: Path, memory: int = 8 * GIB) -> list[Reservation]:
    return asyncio.run(host(place, memory).all())


def test_a_run_waits_for_the_memory_that_another_process_has_and_names_it(place: Path) -> None:
    with driver(place, "run one", 6246) as first:
        assert first.said() == "granted"
        with driver(place, "run two", 2 * GIB) as second:
            me = "root" if os.geteuid() == 0 else reservations._user(os.geteuid())
            assert second.said() == f"waiting for 2.0 GiB of memory: run one of user {me} has 6.1 GiB of 8.0 GiB"
            first.release()
            assert second.said() == "granted"


def test_a_killed_run_lets_the_next_one_in_at_once_and_leaves_nothing(place: Path) -> None:
    with driver(place, "run one", 6 * GIB) as first, driver(place, "run two", 6 * GIB) as second:
        runs = {first.said(): first, second.said(): second}
        winner = runs.pop("granted")
        (waiter,) = runs.values()
        os.kill(winner.pid, signal.SIGKILL)
        begun = time.monotonic()
        assert waiter.said() == "granted"
        assert time.monotonic() - begun < 2.0
        assert [each.pid for each in there(place)] == [waiter.pid]
        assert len(list(place.iterdir())) == 1


def test_eight_drivers_at_once_never_have_more_than_the_host_has_and_all_have_their_turn(place: Path) -> None:
    most, each, finished = 4 * GIB, 1500, 0
    with ExitStack() as stack:
        drivers = [stack.enter_context(driver(place, f"run {n}", each, most)) for n in range(8)]
        waiting = set(drivers)
        end = time.monotonic() + 60
        while finished < 8 and time.monotonic() < end:
            granted = [one for one in there(place, most) if one.granted]
            assert sum(one.memory_mib for one in granted) <= most
            for one in granted:
                process = next(p for p in drivers if p.pid == one.pid)
                if process in waiting:
                    waiting.discard(process)
                    finished += 1
                    process.kill()
        assert finished == 8


@pytest.mark.skipif(os.geteuid() != 0, reason="becomes another user")
def test_users_of_a_host_see_each_other_s_reservations_and_cannot_take_them(place: Path) -> None:
    with driver(place, "of root", 6 * GIB) as ours:
        assert ours.said() == "granted"
        with driver(place, "of nobody", 6 * GIB, user=NOBODY) as theirs:
            assert theirs.said().endswith("of root of user root has 6.0 GiB of 8.0 GiB")
            (path,) = place.glob("oscar-farm-0-*")
            code = f"import os; os.setresuid({NOBODY}, {NOBODY}, {NOBODY}); os.unlink({str(path)!r})"
            done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
            assert "PermissionError" in done.stderr
            ours.release()
            assert theirs.said() == "granted"
            (found,) = there(place)
            assert (found.user, found.uid) == ("nobody", NOBODY)


def test_who_waited_first_goes_first_also_where_a_smaller_one_would_fit(place: Path) -> None:
    with driver(place, "run one", 5 * GIB) as first:
        assert first.said() == "granted"
        with driver(place, "big", 6 * GIB) as big:
            assert big.said().startswith("waiting for 6.0 GiB")
            with driver(place, "small", GIB) as small:
                assert small.said().startswith("waiting behind big of user")
                big.kill()
                assert small.said() == "granted"


def test_a_wait_ends_at_its_limit_with_what_it_waited_for(place: Path) -> None:
    async def ask() -> None:
        one = await host(place).note("somebody's machine", Room(7 * GIB, 1))
        try:
            with pytest.raises(HostError, match=r"timed out after 0 s waiting for 2\.0 GiB of memory: somebody's"):
                await host(place).reserve("run", Room(2 * GIB, 1), 0.3, print)
        finally:
            one.release()

    asyncio.run(ask())
    assert list(place.iterdir()) == []


def test_more_than_the_host_has_is_refused_at_once(place: Path) -> None:
    with pytest.raises(HostError, match=r"needs 1024\.2 GiB of memory, this host has 8\.0 GiB for machines in all"):
        asyncio.run(host(place).reserve("run", Room((1 << 20) + 256, 1), 3600, print))


def other(memory: int = 0, processors: float = 0, *, granted: bool = True, since: int = 0) -> Reservation:
    return Reservation("run x", 0, memory, processors, granted, "eve", 12, since)


def test_processors_count_but_a_cluster_alone_is_always_granted() -> None:
    mine, room = other(1, 4, granted=False), Room(8 * GIB, 2)
    assert missing(mine, 0, [], room) == ""
    why = missing(mine, 0, [other(1, 1)], room)
    assert why == "waiting for 4 processors: run x of user eve has 1 of 2"
    assert missing(other(1, 1, granted=False), 0, [other(1, 1)], room) == ""


def test_memory_that_other_programs_have_is_not_given_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reservations, "free_memory_mib", lambda: GIB)
    mine, room = other(2 * GIB, granted=False), Room(8 * GIB, 2)
    why = missing(mine, 0, [], room)
    assert why == "waiting for 2.0 GiB of memory: 1.0 GiB are free and not reserved; other programs use the rest"


def test_what_others_have_reserved_and_not_used_yet_is_not_free(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reservations, "free_memory_mib", lambda: 4 * GIB)
    mine, room = other(2 * GIB, granted=False), Room(64 * GIB, 9)
    assert missing(mine, 0, [], room) == ""
    assert "1.0 GiB are free and not reserved" in missing(mine, 0, [other(3 * GIB)], room)
    used = Reservation("run x", os.getpid(), 1, 1, granted=True, uid=os.geteuid())
    assert missing(mine, 0, [used], room) == ""


def test_one_that_waits_for_more_than_there_is_holds_up_nobody() -> None:
    liar = other(1 << 39, granted=False, since=1)
    assert missing(other(1, granted=False), 2, [liar], Room(8 * GIB, 2)) == ""


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"\xff\xfe",
        b"[" * 4000,
        b'{"memory_mib": -5, "processors": "many", "pid": -1, "granted": true}',
        b'{"memory_mib": 1e400, "processors": true, "pid": 1e30, "what": ["\\u001b[2J"], "granted": 1}',
    ],
)
def test_a_file_that_says_nothing_sensible_reserves_nothing_and_stops_nobody(place: Path, text: bytes) -> None:
    async def ask() -> None:
        held = await host(place).note("x", Room(1, 1))
        held.path.write_bytes(text)
        (found,) = await host(place).all()
        assert (found.memory_mib, found.processors, found.pid) == (0, 0, 0)
        assert found.what.isprintable()
        second = await host(place).reserve("run", Room(8, 1), 0.0, print)
        second.release()
        held.release()

    asyncio.run(ask())


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.EACCES, errno.EINTR])
def test_a_reservation_whose_file_cannot_be_opened_now_is_not_removed(
    place: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    ours = Reservations(place, Room(8 * GIB, 8))
    held = asyncio.run(ours.note("one", Room(GIB, 1)))
    opened = os.open

    def refuse(path: str | os.PathLike[str], *more: int, **how: int) -> int:
        if Path(path).suffix == ".reservation":
            raise OSError(number, os.strerror(number))
        return opened(path, *more, **how)

    with monkeypatch.context() as patched:
        patched.setattr(os, "open", refuse)
        with suppress(HostError):
            asyncio.run(ours.all())
    assert [each.what for each in asyncio.run(ours.all())] == ["one"]
    held.release()


def test_pipes_links_and_folders_among_the_files_hold_up_nothing(place: Path, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("x")
    os.mkfifo(place / "oscar-farm-1-1-a.reservation")
    (place / "oscar-farm-1-1-b.reservation").symlink_to(tmp_path / "secret")
    (place / "oscar-farm-1-1-c.reservation").mkdir()
    held = asyncio.run(host(place).reserve("run", Room(8, 1), 0.0, print))
    held.release()
    assert (tmp_path / "secret").read_text() == "x"


def test_a_folder_that_cannot_be_used_is_one_sentence_with_what_helps(tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    with pytest.raises(HostError, match=r"gone cannot be used: No such file") as error:
        asyncio.run(host(gone).reserve("run", Room(8, 1), 0.0, print))
    assert "ReadWritePaths=" in error.value.hint
    with pytest.raises(HostError, match="no folder for reservations that all users share"):
        reservations.find_place([gone, tmp_path])


def test_a_lock_that_is_never_freed_is_said_with_how_to_find_who_has_it(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reservations, "_LOCK_SECONDS", 0.1)
    code = f"import fcntl, os, sys; fcntl.flock(os.open({str(place)!r}, os.O_RDONLY), 2); print(); sys.stdin.read()"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        with pytest.raises(HostError, match="waiting for the lock of") as error:
            asyncio.run(host(place).note("run", Room(8, 1)))
        assert "lslocks" in error.value.hint
        process.kill()


def test_a_host_has_what_it_has_or_less_where_its_settings_say_so() -> None:
    whole = reservations.host_room(HostSettings(), emulated=True)
    assert 0 < whole.memory_mib < 1 << 30
    assert reservations.host_room(HostSettings(), emulated=False).processors == 4 * whole.processors
    few = HostSettings(capacity=CapacitySettings(memory_mib=512, processors=3))
    assert reservations.host_room(few, emulated=True) == Room(512, 3)
    many = HostSettings(capacity=CapacitySettings(memory_mib=1 << 30))
    assert reservations.host_room(many, emulated=True).memory_mib == whole.memory_mib


def test_a_file_says_no_more_than_it_has_to(place: Path) -> None:
    held = asyncio.run(host(place).note("run x", Room(8, 1)))
    assert set(json.loads(held.path.read_text())) == {"what", "pid", "memory_mib", "processors", "granted"}
    assert held.path.stat().st_mode & 0o777 == 0o644
    held.release()
    held.release()
    assert list(place.iterdir()) == []
