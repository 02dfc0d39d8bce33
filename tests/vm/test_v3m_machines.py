"""Real clusters of tiny machines, and what only QEMU's back-end has. What each back-end does: the conformance suite."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import textwrap
from functools import partial
from pathlib import Path

import pytest

from oscar_steps.errors import HostError, ImpossibleTransition
from oscar_steps.v3m.boot import DirectKernel
from oscar_steps.v3m.host import ledger
from oscar_steps.v3m.host.accelerator import find_accelerator
from oscar_steps.v3m.machine import EndReason, MachineState
from oscar_steps.v3m.qemu.machine import QemuMachine
from tests.vm.tiny_guest import LIMIT, SAMPLE, Farm, counted, says, until


def test_the_accelerator_is_tried_and_the_answer_kept(guest: DirectKernel, tmp_path: Path) -> None:
    first = asyncio.run(find_accelerator(tmp_path, guest.kernel))
    assert first.seconds > 0.1
    assert asyncio.run(find_accelerator(tmp_path, tmp_path / "no-kernel")) == first  # which nobody could try


def test_a_node_is_not_started_before_its_head_node(farm: Farm, run_directory: Path) -> None:
    async def scenario() -> None:
        cluster = farm.cluster(run_directory, "do=sleep")
        await cluster.create()
        with pytest.raises(
            ImpossibleTransition, match="oscarnode1 cannot be booted: oscar-headnode, which holds its VLAN, is off"
        ):
            await cluster.nodes[0].boot()
        assert cluster.nodes[0].state is MachineState.OFF

    asyncio.run(scenario())


def test_clusters_side_by_side_with_the_same_macs_do_not_see_each_other(farm: Farm, run_directory: Path) -> None:
    async def scenario() -> None:
        clusters = [
            farm.cluster(run_directory / name, f"do=vlan net={own} other={other}")
            for name, own, other in (("a", 1, 2), ("b", 2, 1))
        ]
        try:
            for cluster in clusters:
                await cluster.create()
                await cluster.head.boot()
            ports = {cluster.head.ssh_endpoint() for cluster in clusters}
            assert len(ports) == 2
            for cluster in clusters:
                await until(partial(says, cluster.head.console, b"GUEST is up"))
            for cluster in clusters:
                await cluster.nodes[0].boot()
            async with asyncio.timeout(LIMIT):
                ends = [await cluster.nodes[0].wait_ended() for cluster in clusters]
        finally:
            await asyncio.gather(*(cluster.destroy() for cluster in clusters))
        assert [ended.reason for ended in ends] == [EndReason.GUEST_SHUTDOWN] * 2
        for cluster in clusters:
            console = cluster.nodes[0].console.read_text(errors="replace")
            assert "GUEST reaches its head node" in console
            assert "GUEST reaches a stranger" not in console

    asyncio.run(scenario())


def test_a_machine_runs_on_where_its_state_cannot_be_written(farm: Farm, run_directory: Path) -> None:
    async def scenario(full: int) -> None:
        cluster = farm.cluster(run_directory, "do=count")
        await cluster.create()
        try:
            await cluster.head.boot()
            await until(lambda: len(counted(cluster.head.console)) > 3)
            assert isinstance(cluster.head, QemuMachine)
            with pytest.raises(HostError, match=r"oscar-headnode could not be saved: .*No space left"):
                await cluster.head.send_state(full, EndReason.SAVED, stop_first=True)
            with pytest.raises(HostError, match=r"oscar-headnode cannot be saved: \S+ is not a file"):
                await cluster.head.save(run_directory)
            before = len(counted(cluster.head.console))
            await until(lambda: len(counted(cluster.head.console)) > before + 3)
            (run_directory / "rubbish").write_bytes(bytes(4096))
            await cluster.head.power_off()
            with pytest.raises(HostError, match=r"the state of oscar-headnode could not be taken over"):
                await cluster.head.restore(run_directory / "rubbish")
            assert cluster.head.state is MachineState.OFF
        finally:
            await cluster.destroy()

    with Path("/dev/full").open("wb") as full:
        asyncio.run(scenario(full.fileno()))


def test_nothing_outlives_a_kill_of_the_runs_process(farm: Farm, run_directory: Path) -> None:
    program = textwrap.dedent(f"""
        import asyncio, sys
        from pathlib import Path
        from oscar_steps.v3m.host.accelerator import Accelerator
        from oscar_steps.v3m.profiles.cluster import load_cluster
        from oscar_steps.v3m.runtime import VirtualCluster

        async def main() -> None:
            directory = Path({str(run_directory)!r})
            profile = load_cluster(Path({str(SAMPLE)!r}))
            accelerator = Accelerator({farm.accelerator.name!r}, "", 2.0)
            cluster = VirtualCluster(profile, directory, accelerator, directory / "b")
            await cluster.create()
            for machine in cluster.machines:
                await machine.boot()
            print("booted", flush=True)
            await cluster.head.wait_ended()

        asyncio.run(main())
        """)
    (run_directory / "b").write_bytes(bytes(1 << 20))
    root = Path(__file__).resolve().parents[2]
    with subprocess.Popen([sys.executable, "-c", program], cwd=root, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "booted\n"
        assert len(ledger.find_leftovers(run_directory)) == 3
        process.kill()
    asyncio.run(until(lambda: ledger.find_leftovers(run_directory) == []))
