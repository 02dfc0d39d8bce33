"""`oscar-testdriver host`: what a host can run, for a person and for the master."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from oscar_steps.capacity import INFO_FILE, read_host
from oscar_steps.testdriver.cli import host as command
from oscar_steps.v3m.boards import BOARDS
from oscar_steps.v3m.host.reservations import Reservations, Room
from oscar_steps.v3m.hypervisors import HypervisorCheck


@pytest.fixture
def works(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, bool | None]:
    """Which types of machines work here; a test may change it."""
    found: dict[str, bool | None] = {"Qemu": True, "Kvm": False, "Xen": True}

    async def check(*_: object) -> list[Any]:
        return [HypervisorCheck(kind, each, "a sentence") for kind, each in found.items()]  # type: ignore[arg-type]

    place = tmp_path / "lock"
    place.mkdir()
    monkeypatch.setattr(Reservations, "of_host", lambda **_: Reservations(place, Room(4096, 4)))
    monkeypatch.setattr(command, "check_hypervisors", check)
    monkeypatch.setattr(command, "_is_here", lambda board: board is BOARDS["x86_64"])
    return found


def run(tmp_path: Path, *words: str) -> str:
    result = CliRunner().invoke(command.host, ["--images", str(tmp_path), "--runs", str(tmp_path / "none"), *words])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.output


def test_what_is_written_for_the_master_is_what_the_master_reads(tmp_path: Path, works: dict[str, bool | None]) -> None:
    assert works
    assert run(tmp_path, "--info", str(tmp_path)) == ""
    found, fault = read_host((tmp_path / INFO_FILE).read_text())
    assert fault == ""
    assert found.memory_mib == read_host(run(tmp_path, "--json"))[0].memory_mib
    assert dict(found.architectures) == {"x86_64": "tcg", "i386": "tcg"}
    assert found.hypervisors == ["Qemu", "Xen"]
    assert found.memory_mib > 0 and found.runs_free_mib > 0
    assert "x86_64 (tcg), i386 (tcg); Qemu, Xen; " in (tmp_path / "host").read_text()


def test_no_kernel_of_whatever_architecture_is_named_for_the_trial(
    tmp_path: Path, works: dict[str, bool | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "0123").mkdir()
    (tmp_path / "0123/vmlinuz").write_bytes(b"of another architecture")
    asked: list[tuple[Any, ...]] = []

    async def check(*words: Any) -> list[Any]:
        asked.append(words)
        return [HypervisorCheck("Qemu", works["Qemu"], "a sentence")]

    monkeypatch.setattr(command, "check_hypervisors", check)
    run(tmp_path, "--json")
    assert asked == [(tmp_path,)]  # the trial itself finds a kernel that fits


def test_kvm_counts_only_where_it_was_seen_to_work(tmp_path: Path, works: dict[str, bool | None]) -> None:
    emulated = read_host(run(tmp_path, "--json"))[0]
    works["Kvm"] = True
    found = read_host(run(tmp_path, "--json"))[0]
    assert set(found.architectures.values()) == {"kvm"}
    assert found.processors == 4 * emulated.processors


def test_emulation_that_could_not_be_tried_is_believed_as_the_driver_believes_it(
    tmp_path: Path, works: dict[str, bool | None]
) -> None:
    works.update(Qemu=None, Kvm=None, Xen=False)
    assert read_host(run(tmp_path, "--json"))[0].hypervisors == ["Qemu"]


def test_a_host_where_nothing_runs_says_why_in_one_sentence(tmp_path: Path, works: dict[str, bool | None]) -> None:
    works.update(Qemu=False, Xen=False)
    assert "no machine runs on this host: a sentence" in run(tmp_path, "--info", str(tmp_path))
    assert not (tmp_path / INFO_FILE).exists()


def test_a_person_sees_who_has_reserved_what(tmp_path: Path, works: dict[str, bool | None]) -> None:
    assert works
    assert "reserved       nothing" in run(tmp_path)
    held = asyncio.run(Reservations.of_host(emulated=True).note("run x", Room(2048, 3)))
    lines = run(tmp_path).splitlines()
    held.release()
    assert lines[0] == "architectures  x86_64 (emulated), i386 (emulated)"
    assert lines[-1].startswith("reserved       run x of user ")
    assert lines[-1].endswith("2.0 GiB, 3 processors")
