"""The ledger ends what is ours, and nothing else; the host's check says what is missing."""

from __future__ import annotations

import json
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from oscar_steps.errors import HostError, ToolMissing
from oscar_steps.v3m import disks
from oscar_steps.v3m.host import checks as host
from oscar_steps.v3m.host import ledger
from oscar_steps.v3m.host.accelerator import Accelerator


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(["sleep", "60"])
    yield process
    process.kill()
    process.wait()


def test_what_is_in_the_ledger_is_found_and_ended(tmp_path: Path, sleeper: subprocess.Popen[bytes]) -> None:
    ledger.record(tmp_path, "vm", sleeper.pid)
    assert [entry.pid for entry in ledger.find_leftovers(tmp_path)] == [sleeper.pid]
    assert [entry.name for entry in ledger.end_leftovers(tmp_path)] == ["vm"]
    assert sleeper.wait(timeout=5) == -9
    assert ledger.find_leftovers(tmp_path) == []


def test_another_process_with_the_same_id_is_not_touched(tmp_path: Path, sleeper: subprocess.Popen[bytes]) -> None:
    ledger.record(tmp_path, "vm", sleeper.pid)
    path = tmp_path / ledger.LEDGER_FILE
    entry = json.loads(path.read_text())[0]
    for foreign in (entry | {"started": entry["started"] - 1}, entry | {"boot_id": "another boot"}):
        path.write_text(json.dumps([foreign]))
        assert ledger.end_leftovers(tmp_path) == []
    assert sleeper.poll() is None


def test_a_machine_that_has_ended_is_struck_out(tmp_path: Path, sleeper: subprocess.Popen[bytes]) -> None:
    ledger.record(tmp_path, "vm", sleeper.pid)
    ledger.forget(tmp_path, "vm")
    assert ledger.find_leftovers(tmp_path) == []


def test_a_run_without_ledger_has_no_leftovers(tmp_path: Path) -> None:
    assert ledger.find_leftovers(tmp_path) == []


def test_a_vm_cannot_be_tied_to_a_thread_that_may_end() -> None:
    errors: list[BaseException] = []

    def start() -> None:
        try:
            ledger.owned(["true"])
        except RuntimeError as error:
            errors.append(error)

    thread = threading.Thread(target=start)
    thread.start()
    thread.join()
    assert "main thread" in str(errors[0])


def test_a_child_whose_parent_is_already_gone_does_not_start() -> None:
    command = ledger.owned(["echo", "started"])
    command[command.index("-c") + 2] = "1"  # as if the process that asked for it had died in between
    assert subprocess.run(command, check=False, capture_output=True).stdout == b""
    assert subprocess.run(ledger.owned(["echo", "started"]), check=False, capture_output=True).stdout == b"started\n"


def test_a_missing_program_names_its_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    checks = host.check_host(tmp_path, 1)
    with pytest.raises(ToolMissing, match="qemu-system-x86_64 is missing; also: the program qemu-img") as error:
        host.require(checks)
    assert "apt-get install qemu-utils" in error.value.hint


def test_too_little_memory_and_disk_are_one_sentence(tmp_path: Path) -> None:
    checks = host.check_host(tmp_path / "not" / "made" / "yet", 1 << 40, disk_mib=1 << 40)
    with pytest.raises(HostError, match=r"MiB of memory are free, the cluster needs .*; also: .* MiB are free in"):
        host.require([check for check in checks if not check.tool])


def test_a_host_that_has_all_passes(tmp_path: Path) -> None:
    host.require([check for check in host.check_host(tmp_path, 1, disk_mib=1) if check.name in ("memory", "disk")])


def test_a_slow_host_stretches_deadlines_and_a_fast_one_does_not_shorten_them() -> None:
    slow = Accelerator("tcg", "", 6.0)
    assert slow.slowness == 3.0
    assert replace(slow, seconds=0.5).slowness == 1.0


def test_an_images_format_is_read_from_its_first_bytes(tmp_path: Path) -> None:
    path = tmp_path / "image.qcow2"
    path.write_bytes(b"\xeb\x58\x90SYSLINUX")
    assert disks.image_format(path) == "raw"
    path.write_bytes(b"QFI\xfb\x00\x00\x00\x03")
    assert disks.image_format(path) == "qcow2"
