"""Which accelerator works on this host, found by trying.

`/dev/kvm` may be there, open, and answer, and guests hang all the same; a boot sector would run even then. Only booting
a kernel tells: without an initrd it panics, `panic=-1` reboots at once and `-no-reboot` ends QEMU with status 0.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import platform
import shutil
import tempfile
import time
from dataclasses import asdict, dataclass, replace
from math import inf
from pathlib import Path
from typing import Literal, cast, get_args

from oscar_steps.environment import machine_environment, tool_environment
from oscar_steps.errors import HostError, ToolMissing
from oscar_steps.textio import shared_with_group, write_atomically
from oscar_steps.v3m.boards import BOARDS, Board, native
from oscar_steps.v3m.host import ledger
from oscar_steps.v3m.host.confinement import SANDBOX, confined

REFERENCE_SECONDS = 2.0
"""What the probe takes emulated on the reference host (2 cores, unloaded), of that host's own architecture."""
KVM_LIMIT = 10.0
TCG_LIMIT = 60.0
BUSY = 0.75
"""Processes per processor (the kernel's load average) above which a host has other work: a trial says too much."""
_PROBE_MIB = 256
_CALMER = 0.5
"""A busy host is tried again, too, where its load has fallen to this part of what it was."""

_KERNELS = (
    (Path("/boot"), "vmlinuz*"),
    (Path("/usr/lib/modules"), "*/vmlinuz*"),
)
"""Where distributions put them; in /boot some let only root read them."""
_NO_KERNEL = (
    "emulation; KVM was not tried: this user finds no readable kernel in /boot; "
    "to name one: v2m check-host --kernel FILE"
)
_NO_FOREIGN_KERNEL = "emulation of another architecture, untried: no base image of it is there yet, so no kernel"

AcceleratorName = Literal["kvm", "tcg"]


@dataclass(frozen=True, slots=True)
class Accelerator:
    """The accelerator to use. `reason`: how it was found, for people; `seconds`: how long it took to boot a kernel.

    `tried`: a kernel was seen to boot with it; otherwise it is emulation, taken untried. `load`: what else the host
    did then, in processes per processor.
    """

    name: AcceleratorName
    reason: str
    seconds: float
    tried: bool = True
    load: float = 0.0

    @property
    def was_busy(self) -> bool:
        """Whether the host had other work when this was found: then it is found anew when the host is calmer."""
        return self.load > BUSY

    @property
    def slowness(self) -> float:
        """How many times slower than the reference host; never below 1. Deadlines are stretched by it."""
        return max(1.0, self.seconds / REFERENCE_SECONDS)


@dataclass(frozen=True, slots=True)
class _Probe:
    works: bool
    seconds: float
    saw: str


def emulator(board: Board | None = None) -> str:
    """QEMU's path; without a board: for the host's own architecture. Raises ToolMissing."""
    board = board or BOARDS[native()]
    path = shutil.which(board.program)
    if path is None:
        raise ToolMissing(
            f"the program {board.program} is missing", hint=f"install it: apt-get install {board.package} qemu-utils"
        )
    return path


async def find_accelerator(cache_dir: Path, kernel: Path | None = None, architecture: str | None = None) -> Accelerator:
    """KVM where it was seen to boot a kernel, else emulation; kept in `cache_dir` until the host boots again.

    Each architecture is tried by itself (None: the host's): one that is not the host's own is always emulated, and how
    fast that is says nothing of another.

    What was found on a busy host is tried again when that is calmer, and the best is kept.
    `kernel` None: one of the host's own, or of a base image in `cache_dir`. Without any, what was found before is
    taken, or else emulation, untried. Raises ToolMissing, and HostError when a kernel boots with neither.
    """
    board = BOARDS[architecture or native()]
    kernel = kernel or _readable_kernel(cache_dir, board)
    key = await _host_key(board)
    cache = cache_dir / ("accelerator.json" if board.is_native else f"accelerator-{board.name}.json")
    kept = _read_cache(cache, key)
    if kernel is None:
        why = _NO_KERNEL if board.is_native else _NO_FOREIGN_KERNEL
        return kept or Accelerator("tcg", why, REFERENCE_SECONDS, tried=False)
    if kept is None:
        best = await _try_with_load(board, kernel)
    elif _is_calmer(kept):
        best = await _try_again(kept, board, kernel)
    else:
        return kept
    with contextlib.suppress(OSError):  # it is tried again then
        cache_dir.mkdir(parents=True, exist_ok=True)
        mode = 0o640 if shared_with_group(cache_dir) else 0o600
        write_atomically(cache, json.dumps({"key": key, **asdict(best)}) + "\n", mode=mode)
    return best


def _load() -> float:
    """What the host does, in processes per processor, over the last minute."""
    return os.getloadavg()[0] / (os.cpu_count() or 1)


def _is_calmer(kept: Accelerator) -> bool:
    """Whether another trial may say more than the one that was kept."""
    load = _load()
    return kept.was_busy and (load <= BUSY or load <= kept.load * _CALMER)


async def _try_again(kept: Accelerator, board: Board, kernel: Path) -> Accelerator:
    """The better of what was kept and what is found now, as of now: a calm host is not tried a third time."""
    try:
        found = await _try_with_load(board, kernel)
    except HostError:  # what was seen to work is not forgotten
        return kept
    best = min(kept, found, key=lambda each: (each.name != "kvm", each.seconds))
    return replace(best, load=found.load)


async def _try_with_load(board: Board, kernel: Path) -> Accelerator:
    before = _load()
    found = await _try(board, kernel)
    return replace(found, load=round(max(before, _load()), 2))


async def _try(board: Board, kernel: Path) -> Accelerator:
    if not board.is_native:
        why_not = f"this host is {platform.machine()} and the machine {board.name}"
    elif not Path("/dev/kvm").exists():
        why_not = "there is no /dev/kvm"
    elif not os.access("/dev/kvm", os.R_OK | os.W_OK):
        why_not = "this user may not open /dev/kvm"
    else:
        kvm = await _probe(board, "kvm", kernel, KVM_LIMIT)
        if kvm.works:
            return Accelerator("kvm", f"KVM booted a kernel in {kvm.seconds:.1f} s", kvm.seconds)
        why_not = f"/dev/kvm is there but does not work: {kvm.saw}"
    tcg = await _probe(board, "tcg", kernel, TCG_LIMIT)
    if not tcg.works:
        raise HostError(
            f"no kernel boots on this host: {why_not}; emulated: {tcg.saw}",
            hint=f"the kernel that was tried is {kernel}",
        )
    return Accelerator("tcg", f"emulation, as {why_not}; it booted a kernel in {tcg.seconds:.1f} s", tcg.seconds)


async def _probe(board: Board, accelerator: str, kernel: Path, limit: float) -> _Probe:
    """Boot `kernel` until it panics. It works only if QEMU ends with 0 *and* the panic stands on the console."""
    with tempfile.TemporaryDirectory(prefix="v3m-probe-") as directory:
        console = Path(directory) / "console"
        arguments = ["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-m", str(_PROBE_MIB)]
        arguments += ["-machine", board.machine(), "-accel", accelerator, "-cpu", board.processor(accelerator)]
        arguments += ["-kernel", str(kernel.resolve()), "-append", f"console={board.console} panic=-1 quiet"]
        arguments += ["-serial", "file:console"]
        begin = time.monotonic()
        process = await asyncio.create_subprocess_exec(
            *confined([emulator(board), *SANDBOX, *arguments], _PROBE_MIB),
            cwd=directory,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
            env=machine_environment(),
        )
        try:
            async with asyncio.timeout(limit):
                _, errors = await process.communicate()
        except TimeoutError:
            return _Probe(False, limit, f"timed out after {limit:.0f} s waiting for a kernel to boot")
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        seconds = time.monotonic() - begin
        if process.returncode != 0:
            last = (errors.decode(errors="replace").strip().splitlines() or ["it said nothing"])[-1]
            return _Probe(False, seconds, f"QEMU ended with {process.returncode} ({last})")
        text = console.read_text(encoding="utf-8", errors="replace") if console.exists() else ""
        return _Probe("Kernel panic" in text, seconds, "QEMU ended but the kernel never ran")


def _readable_kernel(cache_dir: Path, board: Board) -> Path | None:
    """A kernel for the board that we may read: of the host's, or of a base image."""
    for folder, pattern in (*_KERNELS, (cache_dir, "*/vmlinuz*")):
        if kernels := sorted(path for path in folder.glob(pattern) if _is_readable_kernel(path, board)):
            return kernels[-1]
    return None


def _is_readable_kernel(path: Path, board: Board) -> bool:
    try:
        return board.is_kernel(path)
    except OSError:
        return False


async def _host_key(board: Board) -> str:
    """Changes whenever the answer may: another boot of the host, another QEMU, another /dev/kvm."""
    process = await asyncio.create_subprocess_exec(
        emulator(board),
        "--version",
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
        env=tool_environment(),
    )
    version, _ = await process.communicate()
    try:
        status = Path("/dev/kvm").stat()
        device = f"{status.st_rdev} {os.access('/dev/kvm', os.R_OK | os.W_OK)}"
    except FileNotFoundError:
        device = "no /dev/kvm"
    return f"{ledger.boot_id()} | {version.decode(errors='replace').splitlines()[0]} | {device}"


def _read_cache(path: Path, key: str) -> Accelerator | None:
    """What was found before; None when nothing was, or on another boot, or when the file is not ours to understand.

    A file without the load is of a version that did not ask for it: what it says is worth nothing.
    """
    try:
        value = json.loads(path.read_bytes())
        name, seconds, load = value["name"], float(value["seconds"]), float(value["load"])
        if value["key"] != key or name not in get_args(AcceleratorName) or not (0 < seconds < inf and 0 <= load < inf):
            return None
        return Accelerator(cast(AcceleratorName, name), str(value["reason"]), seconds, load=load)
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
