"""Logs from the disk of a stopped head node: by e2fsprogs, with names that a guest may choose."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from oscar_steps.environment import tool_environment
from oscar_steps.errors import HostError
from oscar_steps.testdriver.head import diskread
from oscar_steps.testdriver.head.diskread import logs_from_disk
from oscar_steps.v3m.host.confinement import OWN_MIB


def disk_of(tree: Path, folder: Path, *, start: int = 0) -> Path:
    """A qcow2 disk with an overlay on top, as a run has it; `start`: sector of its only partition."""
    system, raw, base, overlay = (folder / name for name in ("fs", "raw", "base.qcow2", "disk.qcow2"))
    command = ["mke2fs", "-q", "-t", "ext4", "-d", str(tree), str(system), "8M"]
    subprocess.run(command, check=True, env=tool_environment())  # it is in sbin
    table = bytearray(512)
    table[446 + 4], table[510:512] = 0x83, b"\x55\xaa"
    table[446 + 8 : 446 + 12] = start.to_bytes(4, "little")
    before = bytes(table) + bytes((start - 1) * 512) if start else b""
    raw.write_bytes(before + system.read_bytes())
    subprocess.run(["qemu-img", "convert", "-q", "-f", "raw", "-O", "qcow2", str(raw), str(base)], check=True)
    create = ["qemu-img", "create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", str(base), str(overlay)]
    subprocess.run(create, check=True)
    return overlay


def eventually(what: Callable[[], psutil.Process | None]) -> psutil.Process:
    end = time.monotonic() + 20
    while (found := what()) is None:
        assert time.monotonic() < end, "not within 20 s"
        time.sleep(0.02)
    return found


@pytest.mark.parametrize("start", [0, 2048])
def test_logs_are_read_from_a_stopped_disk_whatever_their_names_and_links(tmp_path: Path, start: int) -> None:
    tree = tmp_path / "tree"
    (tree / "var/log/oscar").mkdir(parents=True)
    (tree / "root/farm").mkdir(parents=True)
    (tree / "var/log/oscar/oscarinstall.log").write_text("what OSCAR said\n")
    (tree / "root/farm/seed.sh").write_text("PASSWORD=secret\n")
    (tree / "root/farm/terminal.log").write_text("the terminal\n")
    (tree / "var/log/secret").symlink_to(tmp_path / "outside")
    Path(os.fsdecode(bytes(tree / "var/log") + b"/caf\xe9.log")).write_text("odd name\n")
    for name in (b"same", b"a\nb", b"-p"):
        Path(os.fsdecode(bytes(tree / "var/log/oscar") + b"/" + name)).write_bytes(name)
    (tree / "opt/oscar").mkdir(parents=True)
    (tree / "opt/oscar/Makefile").write_text("no log\n")
    (tree / "opt/oscar/oscarinstall.log").write_text("the old place\n")
    into = tmp_path / "logs"
    assert logs_from_disk(disk_of(tree, tmp_path, start=start), into, "/opt/oscar") == 6
    assert (into / "var/log/oscar/oscarinstall.log").read_text() == "what OSCAR said\n"
    assert (into / "root/farm/terminal.log").read_text() == "the terminal\n"
    assert [path.read_text() for path in into.glob("var/log/caf*")] == ["odd name\n"]
    assert (into / "opt/oscar/oscarinstall.log").read_text() == "the old place\n"
    assert not (into / "opt/oscar/Makefile").exists()
    assert not (into / "root/farm/seed.sh").exists()
    assert (into / "var/log/oscar/-p").read_bytes() == b"-p"
    assert not (into / "var/log/secret").exists()
    assert not list(tmp_path.glob("disk-*"))


def test_a_disk_that_is_none_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(HostError, match="could not read the head node's disk"):
        logs_from_disk(tmp_path / "no.qcow2", tmp_path / "logs", "/opt/oscar")
    raw, disk = tmp_path / "raw", tmp_path / "disk.qcow2"
    raw.write_bytes(os.urandom(1 << 20))
    with pytest.raises(
        HostError, match="could not read the head node's disk"
    ):  # a guest's raw disk names no other file
        logs_from_disk(raw, tmp_path / "logs", "/opt/oscar")
    subprocess.run(["qemu-img", "convert", "-q", "-f", "raw", "-O", "qcow2", str(raw), str(disk)], check=True)
    with pytest.raises(HostError, match="no readable ext4 file system"):
        logs_from_disk(disk, tmp_path / "logs", "/opt/oscar")


def test_a_disk_is_not_copied_where_it_is_too_large_or_the_host_too_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "tree").mkdir()
    disk = disk_of(tmp_path / "tree", tmp_path)
    monkeypatch.setattr(diskread, "SPARE_BYTES", 1 << 60)
    with pytest.raises(HostError, match="MiB are free"):
        logs_from_disk(disk, tmp_path / "logs", "/opt/oscar")
    monkeypatch.setattr(diskread, "MAX_DISK_BYTES", 1 << 20)
    with pytest.raises(HostError, match="GiB; the farm reads disks of up to 0 GiB"):
        logs_from_disk(disk, tmp_path / "logs", "/opt/oscar")


def test_one_file_that_cannot_be_read_does_not_end_the_rest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    logs = tmp_path / "tree/var/log"
    logs.mkdir(parents=True)
    (logs / "big.log").write_bytes(bytes(2000))
    (logs / "small.log").write_bytes(b"words\n" + bytes(100))  # as the end of a file that was being written
    disk, tool = disk_of(tmp_path / "tree", tmp_path), diskread._tool

    def fails_once(command: list[str], seconds: float, most: int = 1 << 20) -> bytes:
        output = tool(command, seconds, most)
        if len(output) == 2000:
            raise HostError("it could not be read")
        return output

    monkeypatch.setattr(diskread, "_tool", fails_once)
    assert logs_from_disk(disk, tmp_path / "logs", "/opt/oscar") == 1
    assert (tmp_path / "logs/var/log/small.log").read_bytes() == b"words\n"


def test_a_tool_is_held_to_its_time_and_to_its_bytes() -> None:
    with pytest.raises(HostError, match="printed more than"):
        diskread._tool(["yes"], 20.0, 4096)
    with pytest.raises(HostError, match="timed out after 0 s"):
        diskread._tool(["sleep", "60"], 0.2)


def test_what_reads_a_guests_disk_has_no_privilege_and_gets_none() -> None:
    status = diskread._tool(["cat", "/proc/self/status", "/proc/self/limits"], 20.0).decode()
    fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    held = ("CapInh", "CapPrm", "CapEff", "CapAmb", *(("CapBnd",) if os.geteuid() == 0 else ()))
    assert {name: int(fields[name], 16) for name in held} == dict.fromkeys(held, 0)
    assert fields["NoNewPrivs"] == "1"
    core, data = (
        next(line for line in status.splitlines() if line.startswith(name)) for name in ("Max core", "Max data")
    )
    assert core.split()[4:6] == ["0", "0"]
    assert int(data.split()[3]) <= OWN_MIB << 20


def test_a_tool_dies_with_the_driver() -> None:
    script = "from oscar_steps.testdriver.head import diskread; diskread._tool(['sleep', '300'], 200.0)"
    with subprocess.Popen([sys.executable, "-c", script]) as driver:
        try:
            started = psutil.Process(driver.pid)
            tool = eventually(lambda: next((one for one in started.children() if one.name() == "sleep"), None))
        finally:
            driver.kill()
    try:
        assert psutil.wait_procs([tool], timeout=10) == ([tool], [])
    finally:
        with contextlib.suppress(psutil.NoSuchProcess):
            tool.kill()


def test_a_disk_that_is_slow_to_read_gives_what_was_read_in_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "tree/var/log/oscar").mkdir(parents=True)
    for name in ("a", "b", "c"):
        (tmp_path / "tree/var/log/oscar" / name).write_text(name)
    disk, real, times = disk_of(tmp_path / "tree", tmp_path), diskread._tool, iter([100.0, 200.0, 300.0])

    def timed(command: list[str], seconds: float, most: int = 1 << 20) -> bytes:
        clock.append(next(times) if "cat" in command[2] else clock[-1])
        return real(command, seconds, most)

    clock = [0.0]
    monkeypatch.setattr(diskread, "_tool", timed)
    monkeypatch.setattr(diskread, "time", SimpleNamespace(monotonic=lambda: clock[-1]))
    monkeypatch.setattr(diskread, "ALL_SECONDS", 150.0)
    assert logs_from_disk(disk, tmp_path / "logs", "/opt/oscar") == 2


def test_names_that_become_equal_get_a_number(tmp_path: Path) -> None:
    for name in (b"x" * 300, b"x" * 301, b".."):
        diskread._write(tmp_path / "logs", name, name)
    assert {path.name for path in (tmp_path / "logs").iterdir()} == {"x" * 200, "x" * 200 + ".2", "_"}
