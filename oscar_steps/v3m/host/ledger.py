"""Which processes a run has started, kept in the run directory, and their lives tied to the run's process.

A process is identified by its id *and* its start time: an id is reused after a while, and a VM that is not
ours is never touched.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import shutil
import signal
import subprocess
import threading
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from oscar_steps.environment import libvirt_environment
from oscar_steps.errors import HostError, ToolMissing
from oscar_steps.textio import read_own, write_atomically

LEDGER_FILE = "vms.json"
UNDO_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class LedgerEntry:
    """One process. `started` is in clock ticks since the host's boot, `boot_id` says which boot that was.

    `undo`: for a process that only guards what is ours (see `v3m.libvirt.guard`), the command that ends that. It may be
    run although there is nothing to undo.
    """

    name: str
    pid: int
    started: int
    boot_id: str
    undo: tuple[str, ...] = ()


def boot_id() -> str:
    """The host's boot, as the kernel names it."""
    return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()


def start_time(pid: int) -> int | None:
    """When `pid` was started, in clock ticks since boot; None when there is no such process, or only its zombie."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = stat.rpartition(")")[2].split()  # the name in brackets may hold anything, even brackets
    return None if fields[0] in "ZX" else int(fields[19])


def owned(command: list[str], privileges: Sequence[str] = ()) -> list[str]:
    """`command`, to be started so that the kernel kills it in the moment the calling process dies, however that dies.

    PR_SET_PDEATHSIG is bound to the *thread* that forks: call it, and start the command, from the main thread. The
    shell closes the gap in which we may have died before the signal was asked for: its parent is not us then.

    `privileges`: options of setpriv that take some from it. The kernel forgets the signal where a program *gains* any.
    """
    if threading.current_thread() is not threading.main_thread():
        raise RuntimeError(
            "a virtual machine has to be started from the main thread: it dies with the thread that forks"
        )
    setpriv = shutil.which("setpriv")
    if setpriv is None:
        raise ToolMissing(
            "the program setpriv is missing, without which VMs could outlive a run", hint="install util-linux"
        )
    guard = ["/bin/sh", "-c", '[ "$PPID" = "$0" ] && exec "$@"', str(os.getpid())]
    return [setpriv, "--pdeathsig", "KILL", *privileges, "--", *guard, *command]


def record(run_directory: Path, name: str, pid: int, undo: Sequence[str] = ()) -> None:
    """Write down that `pid` is ours, and what has to be undone with it."""
    started = start_time(pid)
    if started is None:
        return  # it is gone already, there is nothing that could be left behind
    entries = [entry for entry in _read(run_directory) if entry.name != name]
    _write(run_directory, [*entries, LedgerEntry(name, pid, started, boot_id(), tuple(undo))])


def forget(run_directory: Path, name: str) -> None:
    """Strike out the process of the machine `name`, which has ended."""
    _write(run_directory, [entry for entry in _read(run_directory) if entry.name != name])


def find_leftovers(run_directory: Path) -> list[LedgerEntry]:
    """The processes of the run that are alive. Empty is the proof that none is left."""
    this_boot = boot_id()
    return [e for e in _read(run_directory) if e.boot_id == this_boot and start_time(e.pid) == e.started]


def end_leftovers(run_directory: Path) -> list[LedgerEntry]:
    """End what `find_leftovers` finds, and only that; returns what has been ended, when it is gone.

    What a guard guarded is ended first, also where the guard was killed before it could do that.
    """
    leftovers = find_leftovers(run_directory)
    this_boot = boot_id()
    for entry in _read(run_directory):
        if entry.undo and entry.boot_id == this_boot and _undo(entry) and entry not in leftovers:
            leftovers.append(entry)
    for entry in leftovers:
        _kill(entry)
    for entry in leftovers:
        if entry.undo:
            forget(run_directory, entry.name)
    return leftovers


def _undo(entry: LedgerEntry) -> bool:
    """Whether there was something to undo."""
    try:
        done = subprocess.run(
            entry.undo,
            timeout=UNDO_SECONDS,
            check=False,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            env=libvirt_environment(),
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0


def _kill(entry: LedgerEntry) -> None:
    """Kill and wait. A pidfd is opened first and the start time looked at again: no other process can be hit."""
    try:
        descriptor = os.pidfd_open(entry.pid)
    except ProcessLookupError:
        return
    try:
        if start_time(entry.pid) == entry.started:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(descriptor, signal.SIGKILL)
            _wait_gone(descriptor)
    finally:
        os.close(descriptor)


def _wait_gone(descriptor: int, seconds: float = 10.0) -> None:
    """Wait for the end of a process that may not be our child: its pidfd becomes readable then."""
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    poll.poll(seconds * 1000)


def _read(run_directory: Path) -> list[LedgerEntry]:
    """Raises HostError for a ledger that a power cut, a full disk or a person has damaged."""
    path = run_directory / LEDGER_FILE
    try:
        return [_entry(each) for each in json.loads(read_own(path))]
    except FileNotFoundError:
        return []
    except PermissionError as error:  # root would carry out what another user has written there
        hint = "end the run as the user whose it is: sudo -u USER oscar-testdriver destroy RUN"
        raise HostError(f"{path} cannot be used: {error.strerror}", hint=hint) from None
    except (OSError, ValueError, TypeError, AttributeError, RecursionError):
        hint = "QEMU's machines die with the run's process; end what else is left of the run, then delete it"
        raise HostError(f"{path} cannot be read, so the processes of the run are unknown", hint=hint) from None


def _entry(value: dict[str, Any]) -> LedgerEntry:
    entry = LedgerEntry(**{**value, "undo": tuple(value.get("undo", ()))})
    numbers = type(entry.pid) is int and entry.pid > 0 and type(entry.started) is int
    if not (numbers and all(isinstance(word, str) for word in (entry.name, entry.boot_id, *entry.undo))):
        raise ValueError("this is not a ledger entry")
    return entry


def _write(run_directory: Path, entries: list[LedgerEntry]) -> None:
    text = json.dumps([asdict(entry) for entry in entries], indent=2) + "\n"
    write_atomically(run_directory / LEDGER_FILE, text, mode=0o600)
