"""How fast a host is: tried once where it was calm; what a busy host said is tried again, and the best is kept."""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path

import pytest

from oscar_steps.errors import HostError
from oscar_steps.testdriver.deadline import HostSpeed
from oscar_steps.v2m.daemon import machines
from oscar_steps.v2m.daemon.machines import Machines
from oscar_steps.v2m.daemon.state import System
from oscar_steps.v3m.boards import Board
from oscar_steps.v3m.host import accelerator
from oscar_steps.v3m.host.accelerator import Accelerator, find_accelerator

CORES = 4


class Host:
    """A host with a made-up load, on which a kernel boots in made-up seconds (None: not at all)."""

    def __init__(self, cache: Path) -> None:
        self.cache = cache
        self.load = 0.0
        self.seconds: float | None = 2.0
        self.kvm: float | None = None
        self.trials = 0

    async def probe(self, _board: Board, name: str, _kernel: Path, limit: float) -> accelerator._Probe:
        seconds = self.kvm if name == "kvm" else self.seconds
        self.trials += name == "tcg" or seconds is not None
        return accelerator._Probe(seconds is not None, seconds or limit, "it hung")

    def found(self, *, load: float, seconds: float | None, kvm: float | None = None) -> Accelerator:
        """What is found while the host has that load."""
        self.load, self.seconds, self.kvm = load, seconds, kvm
        return asyncio.run(find_accelerator(self.cache, Path("/kernel")))


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    made_up = Host(tmp_path / "cache")

    async def key(_board: Board) -> str:
        return "this boot"

    monkeypatch.setattr(accelerator, "_probe", made_up.probe)
    monkeypatch.setattr(accelerator, "_host_key", key)
    monkeypatch.setattr(os, "getloadavg", lambda: (made_up.load, 99.0, 99.0))
    monkeypatch.setattr(os, "cpu_count", lambda: CORES)
    exists = Path.exists
    monkeypatch.setattr(Path, "exists", lambda path: str(path) == "/dev/kvm" or exists(path))
    monkeypatch.setattr(os, "access", lambda *_words: True)
    return made_up


def without_kernels(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    monkeypatch.setattr(accelerator, "_KERNELS", ((folder, "vmlinuz*"),))


def test_what_was_found_is_read_by_whom_a_store_is_shared_with(host: Host) -> None:
    for bits, mode in ((0o700, 0o600), (0o2750, 0o640)):
        host.cache.mkdir(exist_ok=True)
        host.cache.chmod(bits)
        host.found(load=0, seconds=2.0)
        (kept,) = host.cache.iterdir()
        assert kept.stat().st_mode & 0o777 == mode
        kept.unlink()


def test_where_the_host_lets_nobody_read_its_kernels_what_was_found_before_holds(
    host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`v2m check-host --kernel FILE` found it."""
    without_kernels(monkeypatch, tmp_path / "boot")
    before = asyncio.run(find_accelerator(host.cache))
    assert (before.name, before.tried) == ("tcg", False)
    assert "finds no readable kernel" in before.reason
    assert "v2m check-host --kernel FILE" in before.reason
    host.found(load=0.1, seconds=3.0, kvm=0.5)
    after = asyncio.run(find_accelerator(host.cache))
    assert (after.name, after.tried) == ("kvm", True)


def test_where_the_host_lets_nobody_read_its_kernels_that_of_a_base_image_is_tried(
    host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_kernels(monkeypatch, tmp_path / "boot")
    (host.cache / "0123").mkdir(parents=True)
    (host.cache / "0123/vmlinuz").write_bytes(bytes(0x202) + b"HdrS")
    host.found(load=0.1, seconds=3.0, kvm=0.5)  # sets what the host would do
    (host.cache / "accelerator.json").unlink()
    assert asyncio.run(find_accelerator(host.cache)).name == "kvm"


def test_a_calm_host_is_tried_once(host: Host) -> None:
    assert host.found(load=3.0, seconds=2.1).seconds == 2.1  # 0.75 of its 4 processors
    assert host.found(load=0.0, seconds=1.0).seconds == 2.1
    assert host.found(load=40.0, seconds=9.0).seconds == 2.1
    assert host.trials == 1


def test_what_a_busy_host_said_is_tried_again_when_it_is_calm_and_then_kept(host: Host) -> None:
    assert host.found(load=3.2, seconds=11.2).was_busy
    assert host.found(load=0.2, seconds=2.0).seconds == 2.0
    assert not host.found(load=0.2, seconds=5.0).was_busy
    assert host.trials == 2


def test_a_host_that_is_still_busy_is_not_tried_again(host: Host) -> None:
    host.found(load=6.0, seconds=11.2)
    assert host.found(load=5.0, seconds=2.0).seconds == 11.2
    assert host.trials == 1


def test_a_busy_host_is_tried_again_when_half_of_its_work_is_gone(host: Host) -> None:
    host.found(load=16.0, seconds=40.0)
    assert host.found(load=8.0, seconds=9.0).seconds == 9.0
    assert host.found(load=7.0, seconds=8.0).seconds == 9.0
    assert host.found(load=1.0, seconds=2.0).seconds == 2.0
    assert host.trials == 3


def test_the_best_is_kept_where_the_second_trial_is_slower(host: Host) -> None:
    host.found(load=6.0, seconds=2.5)
    assert host.found(load=0.0, seconds=3.5).seconds == 2.5
    assert host.found(load=0.0, seconds=1.0).seconds == 2.5  # tried on a calm host, and that was the last time
    assert host.trials == 2


def test_a_host_that_was_too_busy_for_kvm_gets_it_when_it_is_calm(host: Host) -> None:
    assert host.found(load=9.0, seconds=30.0).name == "tcg"
    assert host.found(load=0.0, seconds=2.0, kvm=0.9).name == "kvm"


def test_kvm_that_was_seen_to_work_is_not_given_up_for_a_faster_emulation(host: Host) -> None:
    assert host.found(load=9.0, seconds=30.0, kvm=8.0).name == "kvm"
    assert host.found(load=0.0, seconds=2.0).name == "kvm"


def test_a_second_trial_that_fails_takes_nothing_away(host: Host) -> None:
    found = host.found(load=9.0, seconds=30.0)
    assert host.found(load=0.0, seconds=None) == found
    assert host.found(load=0.0, seconds=2.0).seconds == 2.0


def test_a_first_trial_that_fails_is_an_error_and_nothing_is_kept(host: Host) -> None:
    with pytest.raises(HostError, match="no kernel boots on this host"):
        host.found(load=0.0, seconds=None)
    assert not host.cache.exists()


def test_work_that_begins_during_the_trial_counts(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    loads = iter([0.1, 8.0])
    monkeypatch.setattr(os, "getloadavg", lambda: (next(loads), 0.0, 0.0))
    assert host.found(load=0.0, seconds=11.0).was_busy


@pytest.mark.parametrize(
    "change",
    [
        {"load": None}, {"load": "much"}, {"load": -1.0}, {"load": float("nan")}, {"seconds": 0.0},
        {"seconds": float("inf")}, {"name": "xen"}, {"key": "another boot"},
    ],
)  # fmt: skip
def test_a_cache_that_says_too_little_or_nonsense_is_made_anew(host: Host, change: dict[str, object]) -> None:
    host.found(load=0.0, seconds=11.2)
    file = host.cache / "accelerator.json"
    file.write_text(json.dumps(json.loads(file.read_bytes()) | change))
    assert host.found(load=0.0, seconds=2.0).seconds == 2.0


def test_a_cache_of_a_version_that_knew_no_load_is_made_anew(host: Host) -> None:
    host.cache.mkdir()
    old = {"key": "this boot", "name": "tcg", "reason": "emulation", "seconds": 11.2, "tried": True}
    (host.cache / "accelerator.json").write_text(json.dumps(old))
    assert host.found(load=0.0, seconds=2.0).seconds == 2.0


@pytest.mark.parametrize("content", [b"", b"\0" * 64, b"\xff", b"[]", b"[" * 100_000])
def test_a_spoiled_cache_is_made_anew(host: Host, content: bytes) -> None:
    host.cache.mkdir()
    (host.cache / "accelerator.json").write_bytes(content)
    assert host.found(load=0.0, seconds=2.0).seconds == 2.0
    assert host.found(load=0.0, seconds=9.0).seconds == 2.0


def test_where_nothing_can_be_kept_the_host_is_tried_each_time(host: Host) -> None:
    host.cache.write_text("a file, no folder")
    assert host.found(load=0.0, seconds=2.0).seconds == 2.0
    assert host.found(load=0.0, seconds=3.0).seconds == 3.0


@pytest.mark.parametrize(("load", "asked"), [(0.2, 1), (0.9, 2)])
def test_a_daemon_keeps_in_mind_what_a_calm_host_said_and_asks_again_after_a_busy_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, load: float, asked: int
) -> None:
    found: list[Accelerator] = []

    async def find(_cache: Path) -> Accelerator:
        found.append(Accelerator("tcg", "", 2.0, load=load))
        return found[-1]

    async def twice() -> None:
        kept = Machines(System("a", tmp_path))
        await kept.find_accelerator()
        await kept.find_accelerator()

    monkeypatch.setattr(machines, "find_accelerator", find)
    asyncio.run(twice())
    assert len(found) == asked


def test_after_a_trial_on_a_busy_host_the_boot_of_the_head_node_says_how_fast_it_is() -> None:
    speed = HostSpeed(11.2, doubtful=True)
    assert speed.factor == 4.0
    speed.seen(30.0, 25.0)
    assert speed.factor == pytest.approx(1.2)
    speed.seen(1.0, 25.0)
    assert speed.factor == pytest.approx(1.2)


def test_a_boot_that_is_slow_as_well_leaves_the_limits_long() -> None:
    speed = HostSpeed(11.2, doubtful=True)
    speed.seen(250.0, 25.0)
    assert speed.factor == 4.0
