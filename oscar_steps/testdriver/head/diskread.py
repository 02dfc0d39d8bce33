"""Logs of a head node that does not answer any more, read on the host from the disk of the stopped machine.

The disk is the guest's: it is flattened into a raw file of ours, and e2fsprogs reads that; the host's kernel mounts
nothing. `debugfs` is only ever asked for listings and for contents by inode number: its `rdump` writes under names and
through links that the guest chose. A file system may break its reader: that has no privileges (`reading`).
"""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
import threading
import time
from contextlib import suppress
from fnmatch import fnmatchcase
from pathlib import Path

from oscar_steps.environment import tool_environment
from oscar_steps.errors import HostError, ToolMissing
from oscar_steps.textio import printable_name
from oscar_steps.v3m.host.confinement import reading

MAX_FILES = 500
MAX_FILE_BYTES = 16 << 20
MAX_TOTAL_BYTES = 256 << 20
MAX_LISTING_BYTES = 4 << 20
MAX_DISK_BYTES = 64 << 30
MAX_NAME_BYTES = 200
SPARE_BYTES = 1 << 30
"""What must be free on the host beside the copy of the disk."""
COPY_SECONDS = 120.0
READ_SECONDS = 20.0
ALL_SECONDS = 300.0
"""After so long no further file is begun: a file system that a guest has prepared may cost `READ_SECONDS` for each."""
_SECTOR = 512
_LINUX = 0x83
_REGULAR = 0o100000


def places(oscar_home: str) -> tuple[tuple[str, str], ...]:
    """Folders of the head node, and which of their files are logs; what says most comes first.

    Not everything in root's home: the seed is there, with what it knows of the run.
    """
    home = oscar_home.rstrip("/")
    return (
        (home, "oscarinstall.log*"),
        (home, "testing.log*"),
        (f"{home}/testing", "*.log"),
        ("/var/log/oscar", "*"),
        ("/root/farm", "*.log"),
        ("/root/farm", "*.txt"),
        (f"{home}/tmp", "*.clilog"),
        ("/var/log/systemimager", "*"),
        ("/var/log", "*.log"),
        ("/var/log", "messages*"),
        ("/var/log", "syslog*"),
    )


def logs_from_disk(disk: Path, into: Path, oscar_home: str) -> int:
    """Write the log files of a qcow2 disk below `into`; how many. The machine must be off.

    A file that cannot be read is left out. Raises HostError where the disk cannot be read at all.
    """
    count, room, end = 0, MAX_TOTAL_BYTES, time.monotonic() + ALL_SECONDS
    with tempfile.TemporaryDirectory(prefix="disk-", dir=disk.parent) as folder:
        device = _file_system(disk, Path(folder) / "raw")
        for directory, wanted in places(oscar_home):
            with suppress(HostError):  # a folder that cannot be listed; the others may be well
                for name, inode, size in _listing(device, directory, wanted):
                    if count >= MAX_FILES or size > room or time.monotonic() > end:
                        continue
                    with suppress(HostError, OSError):
                        content = _tool(["debugfs", "-R", f"cat <{inode}>", device], READ_SECONDS, MAX_FILE_BYTES)
                        content = content.rstrip(
                            b"\0"
                        )  # a block that was not written to its end when the plug came out
                        _write(into / printable_name(directory.lstrip("/")), name, content)
                        count, room = count + 1, room - len(content)
    return count


def _file_system(disk: Path, raw: Path) -> str:
    """Copy `disk` to `raw`; the name by which e2fsprogs finds the Linux file system there."""
    info = _tool(["qemu-img", "info", "-f", "qcow2", "--backing-chain", "--output=json", str(disk)], READ_SECONDS)
    chain = json.loads(info)
    size = int(chain[0]["virtual-size"])
    if size > MAX_DISK_BYTES:
        raise HostError(
            f"the head node's disk has {size >> 30} GiB; the farm reads disks of up to {MAX_DISK_BYTES >> 30} GiB"
        )
    # The copy has holes where the disk has none; a base image may be compressed.
    needed = min(size, 3 * sum(int(image["actual-size"]) for image in chain)) + SPARE_BYTES
    free = shutil.disk_usage(raw.parent).free
    if free < needed:
        raise HostError(f"a copy of the head node's disk may need {needed >> 20} MiB, and {free >> 20} MiB are free")
    _tool(["qemu-img", "convert", "-f", "qcow2", "-O", "raw", str(disk), str(raw)], COPY_SECONDS)
    device = f"{raw}?offset={_linux_partition(raw)}"
    with suppress(HostError):  # what is still in the journal only, since nobody unmounted the disk
        _tool(["e2fsck", "-p", "-E", "journal_only", device], READ_SECONDS)
    with suppress(HostError):
        if b"Filesystem magic number:" in _tool(["debugfs", "-R", "show_super_stats -h", device], READ_SECONDS):
            return device
    raise HostError("the head node's disk has no readable ext4 file system, and the farm reads no other kind")


def _linux_partition(raw: Path) -> int:
    """Where the first Linux partition begins, in bytes; 0 where the disk has no table of partitions."""
    with raw.open("rb") as file:
        table = file.read(_SECTOR)
    if table[510:512] != b"\x55\xaa":
        return 0
    for at in range(446, 510, 16):
        if table[at + 4] == _LINUX:
            return int.from_bytes(table[at + 8 : at + 12], "little") * _SECTOR
    return 0


def _listing(device: str, directory: str, wanted: str) -> list[tuple[bytes, int, int]]:
    """Name, inode and size of the regular files of moderate size. A folder that is missing has none."""
    if '"' in directory or not directory.isprintable():  # would be words of another command
        return []
    found: list[tuple[bytes, int, int]] = []
    rows = _tool(["debugfs", "-R", f'ls -p "{directory}"', device], READ_SECONDS, MAX_LISTING_BYTES)
    for row in rows.split(b"\n"):
        # /INODE/MODE/UID/GID/NAME/SIZE/ : a row of any other form, as a name with a slash makes one, is left out.
        fields = row.split(b"/")
        if len(fields) != 8 or not all(fields[at].isdigit() and len(fields[at]) < 16 for at in (1, 2, 6)):
            continue
        with suppress(ValueError):  # a mode that is not octal
            inode, mode, size = int(fields[1]), int(fields[2], 8), int(fields[6])
            is_log = mode & 0o170000 == _REGULAR and fnmatchcase(printable_name(fields[5]), wanted)
            if is_log and size <= MAX_FILE_BYTES:
                found.append((fields[5], inode, size))
    return found


def _write(folder: Path, name: bytes, content: bytes) -> None:
    """Write a file under the guest's name, made printable; with a number where another file has it already."""
    folder.mkdir(parents=True, exist_ok=True)
    text = printable_name(name)
    while len(text.encode()) > MAX_NAME_BYTES:
        text = text[:-1]
    text = "_" if text in ("", ".", "..") else text
    target, number = folder / text, 2
    while target.exists():
        target, number = folder / f"{text}.{number}", number + 1
    target.write_bytes(content)


def _tool(command: list[str], seconds: float, most: int = 1 << 20) -> bytes:
    """Standard output, of at most `most` bytes: what comes of a guest's disk may have any length and no end."""
    if shutil.which(command[0], path=tool_environment()["PATH"]) is None:
        raise ToolMissing(f"`{command[0]}` is not on this host, so the head node's disk cannot be read")
    name, late = command[0], threading.Event()
    with (
        tempfile.TemporaryFile() as errors,
        subprocess.Popen(
            reading(command), env=tool_environment(), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors
        ) as process,
    ):
        timer = threading.Timer(seconds, _end, (process, late))
        timer.start()
        try:
            assert process.stdout
            output = process.stdout.read(most + 1)
            if len(output) > most:
                process.kill()
            process.wait()
        finally:
            timer.cancel()
        errors.seek(0)
        said = errors.read(1 << 16).decode("utf-8", "backslashreplace").strip()[-200:]
    if late.is_set():
        raise HostError(f"timed out after {seconds:.0f} s waiting for `{name}` on the head node's disk")
    if len(output) > most:
        raise HostError(f"`{name}` printed more than {most >> 10} KiB while reading the head node's disk")
    if process.returncode != 0:
        raise HostError(f"`{name}` could not read the head node's disk: {said}")
    return output


def _end(process: subprocess.Popen[bytes], late: threading.Event) -> None:
    late.set()
    process.kill()
