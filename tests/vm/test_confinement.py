"""What the processes with guests in them may do on the host, as the kernel tells it."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from oscar_steps.v2m.daemon.vlan_hub import VlanHub
from oscar_steps.v3m.host.confinement import MAX_FILES, OWN_MIB
from oscar_steps.v3m.machine import MachineState
from oscar_steps.v3m.qemu.machine import QemuMachine
from tests.vm.tiny_guest import Farm

FOUND = ("Uid", "CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb", "NoNewPrivs", "Seccomp")


def status(pid: int) -> dict[str, str]:
    lines = Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines()
    pairs = dict(line.split(":\t", 1) for line in lines if ":\t" in line)
    return {name: pairs[name] for name in FOUND}


def limits(pid: int) -> dict[str, tuple[str, str]]:
    """Soft and hard limit by name."""
    lines = Path(f"/proc/{pid}/limits").read_text(encoding="utf-8").splitlines()[1:]
    return {line[:26].strip(): (line[26:47].strip(), line[47:68].strip()) for line in lines}


def environment(pid: int) -> dict[str, str]:
    words = Path(f"/proc/{pid}/environ").read_bytes().decode().split("\0")
    return dict(word.split("=", 1) for word in words if word)


def check(pid: int, memory_mib: int) -> None:
    """Print what a reader of the test's output wants to see, and hold it to the rule."""
    seen, held, around = status(pid), limits(pid), environment(pid)
    print(f"\nQEMU {pid}: {seen}\n{held}\n{around}")
    bounding = seen.pop("CapBnd")
    if os.geteuid() == 0:
        assert int(bounding, 16) == 0, "a program that root's QEMU started would have capabilities again"
    assert seen.pop("Uid").split() == [str(os.geteuid())] * 4
    assert {name: int(value, 16) for name, value in seen.items()} == {
        **dict.fromkeys(("CapInh", "CapPrm", "CapEff", "CapAmb"), 0),
        "NoNewPrivs": 1,
        "Seccomp": 2,
    }
    assert held["Max core file size"] == ("0", "0")
    assert max(int(limit) for limit in held["Max open files"]) <= MAX_FILES
    most = (memory_mib + OWN_MIB + 1024) << 20
    assert max(int(limit) for limit in held["Max data size"]) <= most
    assert {name for name in around if not name.startswith("OSCAR_FARM_")} <= {"PATH", "LC_ALL", "LANG", "PWD"}


def test_a_machines_process_has_no_privilege_no_secret_and_no_memory_without_end(
    farm: Farm, run_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSH_AUTH_SOCK", "/tmp/agent")
    monkeypatch.setenv("A_PASSWORD", "secret")

    async def scenario() -> None:
        cluster = farm.cluster(run_directory, "do=sleep")
        await cluster.create()
        try:
            for machine in cluster.machines[:2]:
                await machine.boot()
                assert isinstance(machine, QemuMachine)
                assert machine.pid is not None
                check(machine.pid, machine.profile.memory_mib)
            await cluster.head.screenshot(run_directory / "head.png")  # what it is asked for works all the same
            assert await cluster.head.status() is MachineState.RUNNING
        finally:
            await cluster.destroy()

    asyncio.run(scenario())


def test_the_process_that_holds_the_vlans_is_confined_too(farm: Farm, run_directory: Path) -> None:
    async def scenario() -> None:
        vlan_hub = VlanHub(run_directory)
        try:
            await vlan_hub.lines_of(farm.cluster(run_directory, "do=sleep").head.profile)
            assert vlan_hub.pid is not None
            check(vlan_hub.pid, 0)
        finally:
            await vlan_hub.close()

    asyncio.run(scenario())
