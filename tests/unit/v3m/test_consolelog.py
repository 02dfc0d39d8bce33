"""A guest that floods its console fills no disk, and who reads the console goes on reading."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from oscar_steps.testdriver.head.console import follow_console, last_lines
from oscar_steps.v3m import consolelog
from oscar_steps.v3m.libvirt.machine import LibvirtMachine


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("MOST_BYTES", 4000), ("KEPT_BYTES", 1000), ("TAIL_BYTES", 100), ("LOOK_SECONDS", 0.01)):
        monkeypatch.setattr(consolelog, name, value)


def numbered(first: int, last: int) -> bytes:
    return b"".join(b"line %05d\r\n" % number for number in range(first, last))


@pytest.mark.usefixtures("small")
def test_a_long_log_keeps_its_beginning_and_its_end_and_says_so(tmp_path: Path) -> None:
    log = tmp_path / "vm.log"
    log.write_bytes(numbered(0, 1000))
    assert consolelog.cut(log)
    text = log.read_bytes()
    assert text.startswith(numbered(0, 80))
    assert text.endswith(numbered(995, 1000))
    assert text.count(consolelog.CUT.encode()) == 1
    assert len(text) < 1300
    assert not consolelog.cut(log)
    assert log.read_bytes() == text


@pytest.mark.usefixtures("small")
def test_a_short_log_a_missing_one_and_a_folder_are_left_alone(tmp_path: Path) -> None:
    log = tmp_path / "vm.log"
    log.write_bytes(numbered(0, 300))
    for path in (log, tmp_path / "none", tmp_path):
        assert not consolelog.cut(path)
    assert log.read_bytes() == numbered(0, 300)


@pytest.mark.usefixtures("small")
def test_the_console_that_libvirt_hands_on_is_kept_small_too(tmp_path: Path) -> None:
    machine: Any = object.__new__(LibvirtMachine)
    machine.profile, machine._directory = SimpleNamespace(name="vm"), tmp_path
    machine.console.parent.mkdir()
    for turn in range(20):
        machine._write_console(numbered(turn * 100, turn * 100 + 100))
    assert machine.console.stat().st_size <= consolelog.MOST_BYTES
    assert machine.console.read_bytes().endswith(numbered(1990, 2000))


@pytest.mark.usefixtures("small")
def test_a_flood_stays_small_and_its_reader_hears_what_comes_behind_the_cut(tmp_path: Path) -> None:
    log = tmp_path / "vm.log"
    log.touch()
    writer = os.open(log, os.O_WRONLY | os.O_APPEND)  # as QEMU has it

    async def scenario() -> list[str]:
        keeping = asyncio.create_task(consolelog.keep_small((log,)))
        seen: list[str] = []

        async def read() -> None:
            async for line in follow_console(log):
                seen.append(line)
                if "panic" in line:
                    return

        reading = asyncio.create_task(read())
        try:
            async with asyncio.timeout(30):
                for turn in range(10):
                    os.write(writer, numbered(turn * 1000, (turn + 1) * 1000))
                    while log.stat().st_size > consolelog.MOST_BYTES or (turn == 0 and not seen):  # noqa: ASYNC110 (a file has no event)
                        await asyncio.sleep(0.01)
                while not reading.done():
                    os.write(writer, b"Kernel panic - not syncing\r\n")
                    await asyncio.sleep(0.1)
        finally:
            keeping.cancel()
            reading.cancel()
        return seen

    seen = asyncio.run(scenario())
    os.close(writer)
    assert seen[0] == "line 00000"
    assert seen[-1] == "Kernel panic - not syncing"
    assert log.stat().st_size <= consolelog.MOST_BYTES
    assert last_lines(log, 1)[1] == ("Kernel panic - not syncing",)
