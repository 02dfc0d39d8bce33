"""A confined program has no privilege, little memory and nothing of our environment, and it dies with its owner."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from oscar_steps.environment import machine_environment
from oscar_steps.v3m.host import ledger
from oscar_steps.v3m.host.confinement import confined


def said(command: list[str]) -> str:
    answer = subprocess.run(confined(command, 256), check=True, capture_output=True, text=True, timeout=60)
    return answer.stdout


def test_it_has_no_capability_and_gets_none_back_by_a_program() -> None:
    status = said(["/bin/sh", "-c", "grep -E '^(Cap|NoNewPrivs)' /proc/self/status; exit 0"])
    found = dict(line.split(":\t") for line in status.splitlines())
    assert found.pop("NoNewPrivs") == "1"
    if os.geteuid() != 0:
        found.pop("CapBnd")  # what it bounds, nobody has
    assert {name: int(value, 16) for name, value in found.items()} == dict.fromkeys(found, 0)


def test_its_memory_ends_above_the_guests_and_it_leaves_no_core() -> None:
    limits = said(["/bin/sh", "-c", "ulimit -c; ulimit -d; ulimit -n"]).split()
    assert limits[0] == "0"
    assert 256 * 1024 < int(limits[1]) <= (256 + 4096 + 16) * 1024
    assert int(limits[2]) <= 4096


def test_a_limit_that_is_lower_already_is_kept() -> None:
    program = (
        "import resource; from oscar_steps.v3m.host.confinement import confined; import subprocess;"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (200, 300));"
        "print(subprocess.run(confined(['/bin/sh', '-c', 'ulimit -n']), check=True, capture_output=True).stdout)"
    )
    answer = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert answer.stdout.strip() == r"b'300\n'"
    assert resource.getrlimit(resource.RLIMIT_NOFILE)[1] != 300


def test_it_dies_with_its_owner(tmp_path: Path) -> None:
    program = (
        "import subprocess, sys; from oscar_steps.v3m.host.confinement import confined;"
        "child = subprocess.Popen(confined(['sleep', '1000'])); print(child.pid, flush=True); sys.stdin.read()"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as owner:
        assert owner.stdout is not None
        pid = int(owner.stdout.readline())
        ledger.record(tmp_path, "vm", pid)
        while Path(f"/proc/{pid}/comm").read_text() != "sleep\n":  # the signal has to outlive each exec before it
            assert ledger.find_leftovers(tmp_path)
        watched = os.pidfd_open(pid)
        owner.send_signal(signal.SIGKILL)
    ledger._wait_gone(watched)
    os.close(watched)
    assert ledger.find_leftovers(tmp_path) == []


def test_its_environment_has_nothing_of_ours_but_the_farms_marks(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SSH_AUTH_SOCK", "HOME", "A_PASSWORD", "XDG_RUNTIME_DIR", "OSCAR_FARM_DEMO"):
        monkeypatch.setenv(name, "/x")
    assert set(machine_environment()) == {"OSCAR_FARM_DEMO", "PATH", "LC_ALL", "LANG"}
