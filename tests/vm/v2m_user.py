"""A user of v2m: a directory with profiles and CDs, a state directory of his own, and the installed program."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from oscar_steps.v2m.daemon.state import System, this_host
from oscar_steps.v3m.host import ledger

PROGRAM = Path(sys.executable).with_name("v2m")
COMMAND_SECONDS = 120.0
CONSOLE_SECONDS = 120.0
CD_MODULES = ("virtio_pci", "virtio_net", "ata_piix", "sd_mod", "pvpanic-pci")
CASES = {
    # Addresses by the MAC's last byte; whoever has a peer pings it for ever and counts.
    "chatter": 'ip link set eth0 up; ip address add 10.9.1.$host/24 dev eth0; say "is up"; while :; do '
    "ping -c 1 -w 2 10.9.1.$peer > /dev/null && n=$((n + 1)) && say hears $n; sleep 0.2; done",
    # Says back what is typed on its console, line by line.
    "listen": 'say "is up"; while read line < /dev/console; do say heard $line; done',
    # A numbered packet three times a second, lost or not, until a line is typed on its console; then the sum.
    "pinger": "ip link set eth0 up; ip address add 10.9.1.$host/24 dev eth0; "
    "while ! ping -c 1 -w 5 10.9.1.$peer; do :; done; "
    'ping -i 0.3 10.9.1.$peer > /dev/console & read line < /dev/console; kill -INT $!; wait; say "has pinged"; rest',
}


@dataclass(frozen=True)
class Said:
    """What a command printed, and its exit status."""

    status: int
    out: str
    err: str

    def json(self) -> Any:
        return json.loads(self.out)


class User:
    """Works in `directory`; his systems are below `directory`/state."""

    def __init__(self, directory: Path, prefix: tuple[str, ...] = (), program: Path = PROGRAM) -> None:
        self.directory = directory
        self.program = program
        self.state = directory / "state"
        self.root = self.state / "v2m" / this_host()
        self.prefix = prefix
        directory.mkdir(exist_ok=True)

    def v2m(
        self, *words: str | Path, status: int | None = 0, seconds: float = COMMAND_SECONDS, typed: str = ""
    ) -> Said:
        """Run a command. It has to end in time, with this exit status, and without a traceback."""
        result = subprocess.run(
            [*self.prefix, str(self.program), *map(str, words)],
            cwd=self.directory, env={**os.environ, "XDG_STATE_HOME": str(self.state)},
            input=typed, capture_output=True, text=True, timeout=seconds, check=False,
        )  # fmt: skip
        said = Said(result.returncode, result.stdout, result.stderr)
        assert "Traceback" not in said.err, said.err
        assert status is None or said.status == status, (words, said)
        return said

    def profile(self, name: str, *, size: int | None = 16, more: str = "", boot: str = "disk cdrom") -> Path:
        """Write NAME.xml, a machine of 192 MiB; `more` comes behind its image: cdrom, NICs."""
        text = f"""<profile><name>{name}</name><type>Qemu</type><memory>192</memory><boot>{boot}</boot>
            <image{"" if size is None else f' size="{size}"'}>{name}.qcow2</image>{more}</profile>"""
        path = self.directory / f"{name}.xml"
        path.write_text(text, encoding="utf-8")
        return path

    def system(self, name: str = "default") -> System:
        return System(name, self.root)

    def state_of(self, file: str | Path) -> str:
        (row,) = self.v2m("status", "--json", file).json()
        return str(row["state"])

    def console_of(self, machine: str, system: str = "default") -> bytes:
        path = self.system(system).directory / "console" / f"{machine}.log"
        return path.read_bytes() if path.exists() else b""

    def wait_for(
        self,
        machine: str,
        words: bytes,
        *,
        times: int = 1,
        system: str = "default",
        seconds: float = CONSOLE_SECONDS,
    ) -> None:
        """Wait until the machine's console has `words` so many times."""
        end = time.monotonic() + seconds
        while (text := self.console_of(machine, system)).count(words) < times:
            assert time.monotonic() < end, text[-2000:].decode(errors="replace")
            time.sleep(0.1)

    def is_kept(self, system: str = "default") -> bool:
        return self.system(system).is_kept()

    def wait_until_unkept(self, system: str = "default", seconds: float = 20.0) -> None:
        end = time.monotonic() + seconds
        while self.is_kept(system):
            assert time.monotonic() < end, f"the daemon of {system} does not end"
            time.sleep(0.1)

    def end(self) -> list[str]:
        """End whatever is left of his machines; returns their names, and there should be none."""
        systems = sorted(path for path in self.root.glob("*") if path.is_dir())
        left = [f"{path.name}: {entry.name}" for path in systems for entry in ledger.end_leftovers(path)]
        for path in systems:
            self.wait_until_unkept(path.name)
        return left


@contextmanager
def user_of(directory: Path, prefix: tuple[str, ...] = (), program: Path = PROGRAM) -> Iterator[User]:
    """A user; at the end all of his machines are off, or the test fails."""
    user = User(directory, prefix, program)
    try:
        yield user
    except BaseException:
        user.end()
        raise
    assert user.end() == []
