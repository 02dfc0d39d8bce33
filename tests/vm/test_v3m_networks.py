"""What each kind of network becomes, with tiny guests that tell whom they reach."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import subprocess
import sys
import textwrap
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from oscar_steps.errors import HostError, ProfileError
from oscar_steps.v3m.boot import DirectKernel
from oscar_steps.v3m.host import ledger
from oscar_steps.v3m.host.accelerator import Accelerator
from oscar_steps.v3m.host.settings import DEFAULTS, HostSettings, NetworkSettings, ToHost, VlanKind
from oscar_steps.v3m.host.taps import HELPERS, make_vlans
from oscar_steps.v3m.machine import EndReason
from oscar_steps.v3m.profiles.cluster import load_cluster
from oscar_steps.v3m.profiles.vm import Nic, NicType
from oscar_steps.v3m.runtime import VirtualCluster
from tests.vm.tiny_guest import LIMIT, SAMPLE, Farm, make_guest, parameters, tiny, until

ROOT = Path(__file__).resolve().parents[2]
BRIDGE = HostSettings(network=NetworkSettings(vlan=VlanKind.BRIDGE))
OPEN = HostSettings(network=NetworkSettings(to_host=ToHost.OPEN))
CUT_OFF = HostSettings(network=NetworkSettings(to_host=ToHost.CUT_OFF))
BRIDGE_NAME = "br-farm-test"

CASES = {
    # What the guest hears from a server at $server:$port, as the machine $own/24 on the NIC to the host.
    "hear": """
        ip link set eth0 up; ip address add $own/24 dev eth0
        say "hears $(nc -w 10 $server $port < /dev/null)"
        poweroff -f""",
    # A stand-in for the guest's SSH server.
    "listen": """
        ip link set eth0 up; ip address add 10.0.2.15/24 dev eth0
        while :; do echo "the guest greets" | nc -l -p 22; done""",
    # The head node is 10.9.$net.2 and waits; a node looks for it, then for the other cluster's.
    "meet": """
        nic=eth0; [ $host = 1 ] && nic=eth1 && host=2
        ip link set $nic up; ip address add 10.9.$net.$host/16 dev $nic
        if [ $host = 2 ]; then say "is up"; rest; fi
        until ping -c 1 -w 5 10.9.$net.2; do :; done; say "reaches its head node"
        ping -c 3 -w 3 10.9.$other.2 && say "reaches a stranger"
        poweroff -f""",
}


@pytest.fixture(scope="module")
def talker(tmp_path_factory: pytest.TempPathFactory) -> DirectKernel:
    """The tiny guest with our own words."""
    return make_guest(tmp_path_factory.mktemp("talker"), cases=CASES)


@pytest.fixture
def farm(accelerator: Accelerator, talker: DirectKernel) -> Farm:
    return Farm(accelerator, talker)


def make_cluster(
    accelerator: Accelerator,
    guest: DirectKernel,
    directory: Path,
    do: str,
    settings: HostSettings,
    *,
    to_host: NicType | None = None,
) -> VirtualCluster:
    """The sample with tiny guests; `to_host` is the type of the head node's NIC to the host."""
    profile = tiny(load_cluster(SAMPLE))
    nics = tuple(nic if nic.is_vlan else Nic(to_host, nic.mac) for nic in profile.head.nics)
    profile = replace(profile, head=replace(profile.head, nics=nics))
    directory.mkdir(exist_ok=True)
    base = directory / "base.raw"
    base.write_bytes(bytes(1 << 20))
    kernel = replace(guest, parameters=parameters(do))
    return VirtualCluster(profile, directory, accelerator, base, kernel=kernel, settings=settings)


@asynccontextmanager
async def greeter(address: str) -> AsyncIterator[int]:
    """A server on the host that greets whoever comes; gives its port."""

    async def greet(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"the host greets\n")
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(greet, address, 0) as server:
        yield server.sockets[0].getsockname()[1]


async def told(cluster: VirtualCluster) -> str:
    """Boot the head node alone, until it ends by itself; returns its console."""
    await cluster.create()
    try:
        await cluster.head.boot()
        async with asyncio.timeout(LIMIT):
            assert (await cluster.head.wait_ended()).reason is EndReason.GUEST_SHUTDOWN
    finally:
        await cluster.destroy()
    return cluster.head.console.read_text(errors="replace")


@pytest.mark.parametrize("to_host", [None, "TUN/TAP", "TUN/TAP+NAT", "BRIDGED_TAP"])
def test_an_open_guest_reaches_a_server_on_the_host(farm: Farm, run_directory: Path, to_host: NicType | None) -> None:
    """BRIDGED_TAP, too, where the host's settings name no bridge."""

    async def scenario() -> str:
        async with greeter("127.0.0.1") as port:
            do = f"do=hear own=10.0.2.15 server=10.0.2.2 port={port}"
            return await told(make_cluster(farm.accelerator, farm.guest, run_directory, do, OPEN, to_host=to_host))

    assert "GUEST hears the host greets" in asyncio.run(scenario())


@pytest.mark.parametrize("settings", [DEFAULTS, CUT_OFF], ids=["nothing said", "cut off"])
def test_a_cluster_that_nobody_has_opened_hears_nothing_from_the_host(
    farm: Farm, run_directory: Path, settings: HostSettings
) -> None:
    async def scenario() -> str:
        async with greeter("127.0.0.1") as port:
            do = f"do=hear own=10.0.2.15 server=10.0.2.2 port={port}"
            return await told(make_cluster(farm.accelerator, farm.guest, run_directory, do, settings))

    console = asyncio.run(scenario())
    assert "GUEST hears" in console
    assert "the host greets" not in console


def test_the_host_reaches_a_guest_that_is_cut_off_by_ssh(farm: Farm, run_directory: Path) -> None:
    async def heard(port: int) -> bytes:
        while True:  # QEMU accepts before the guest listens
            try:
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                with contextlib.closing(writer):
                    async with asyncio.timeout(5):
                        line = await reader.readline()
                if line:
                    return line
            except (OSError, TimeoutError):
                pass
            await asyncio.sleep(0.2)

    async def scenario() -> bytes:
        cluster = make_cluster(farm.accelerator, farm.guest, run_directory, "do=listen", CUT_OFF)
        await cluster.create()
        try:
            await cluster.head.boot()
            async with asyncio.timeout(LIMIT):
                return await heard(cluster.head.ssh_endpoint()[1])
        finally:
            await cluster.destroy()

    assert asyncio.run(scenario()) == b"the guest greets\n"


# --- bridges of the host ---------------------------------------------------------------------------------------------


async def on_a_bridge(accelerator: Accelerator, guest: DirectKernel, directory: Path) -> None:
    """Print what a guest hears on the host's bridge; to be run where nothing can be spoiled."""
    settings = HostSettings(network=NetworkSettings(bridges=(BRIDGE_NAME,)))
    async with greeter("10.77.0.1") as port:
        do = f"do=hear own=10.77.0.2 server=10.77.0.1 port={port}"
        cluster = make_cluster(accelerator, guest, directory, do, settings, to_host="BRIDGED_TAP")
        await cluster.create()
        try:
            for _ in range(2):  # again with the same tap
                await cluster.head.boot()
                with pytest.raises(ProfileError, match="cannot be reached by SSH from the host"):
                    cluster.head.ssh_endpoint()
                async with asyncio.timeout(LIMIT):
                    await cluster.head.wait_ended()
        finally:
            await cluster.destroy()
    print(cluster.head.console.read_text(errors="replace"))


has_a_world = os.geteuid() == 0 and subprocess.run(["unshare", "--net", "--mount", "true"], check=False).returncode == 0
needs_root = pytest.mark.skipif(
    not has_a_world, reason="only root can make a bridge, and a network for it, and allow it"
)


def in_a_world_of_its_own(directory: Path, *command: str, before: str = "") -> subprocess.CompletedProcess[str]:
    """Run a command with a network of its own, and an /etc of its own in which QEMU's helper finds the bridge allowed.

    `before`: shell commands that change more of that world; $layers is a directory that goes with it.
    """
    layers = directory / "layers"
    layers.mkdir()
    world = f"""
        set -e
        layers={layers}
        mount -t tmpfs layers $layers; mkdir $layers/upper $layers/work
        mount -t overlay -o lowerdir=/etc,upperdir=$layers/upper,workdir=$layers/work etc /etc
        mkdir -p /etc/qemu; echo 'allow {BRIDGE_NAME}' > /etc/qemu/bridge.conf
        ip link set lo up
        ip link add {BRIDGE_NAME} type bridge forward_delay 0; ip link set {BRIDGE_NAME} up
        ip address add 10.77.0.1/24 dev {BRIDGE_NAME}
        {before}
        exec "$@"
        """
    return subprocess.run(
        ["unshare", "--net", "--mount", "sh", "-c", world, "sh", *command],
        cwd=ROOT, capture_output=True, text=True, check=False, timeout=LIMIT,
    )  # fmt: skip


@needs_root
def test_a_bridged_guest_reaches_what_is_on_the_hosts_bridge(farm: Farm, run_directory: Path) -> None:
    arguments = [sys.executable, "-m", "tests.vm.test_v3m_networks", farm.accelerator.name, str(run_directory)]
    arguments += [str(farm.guest.kernel), str(farm.guest.initrd)]
    done = in_a_world_of_its_own(run_directory, *arguments)
    assert done.stdout.count("GUEST hears the host greets") == 2, done.stderr


WITH_HELPER = f"mount --bind $layers/helper {HELPERS[0]}"
TUN = "mknod $layers/tun c 10 200; chmod {mode} $layers/tun; mount --bind $layers/tun /dev/net/tun"
"""The helper opens it as the user. udev lets everybody; where there is no udev nobody does."""


@needs_root
@pytest.mark.parametrize(
    ("before", "told"),
    [
        (f"chmod u+s $layers/helper; {WITH_HELPER}; {TUN.format(mode=666)}", "it joins"),
        (f"{WITH_HELPER}; {TUN.format(mode=666)}", f"let {HELPERS[0]} run as root: chmod u+s"),
        (f"chmod u+s $layers/helper; {WITH_HELPER}; {TUN.format(mode=600)}", "let users open it: chmod 666"),
    ],
    ids=["set-user-ID", "without", "no-tun"],
)
def test_a_user_joins_a_bridge_by_qemus_helper_if_that_runs_as_root(tmp_path: Path, before: str, told: str) -> None:
    """The user may read everything, as Python may be where only root looks; he has no right on networks."""
    code = f"""if True:
        from oscar_steps.errors import HostError
        from oscar_steps.v3m.host.taps import join
        try:
            join({BRIDGE_NAME!r})
            print("it joins")
        except HostError as error:
            print(error.explain())
        """
    capabilities = "-all,+dac_read_search"
    nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
    nobody += [f"--inh-caps={capabilities}", f"--ambient-caps={capabilities}"]
    before = f"cp {HELPERS[0]} $layers/helper; chmod 755 $layers $layers/helper; {before}"
    done = in_a_world_of_its_own(tmp_path, *nobody, sys.executable, "-c", code, before=before)
    assert told in done.stdout, done.stderr


# --- VLANs on bridges ------------------------------------------------------------------------------------------------


def are_refused() -> bool:
    try:
        make_vlans(["x"])
    except HostError:
        return True
    return False


needs_kernel = pytest.mark.skipif(are_refused(), reason="this kernel gives this user no bridges")


@needs_kernel
def test_clusters_on_bridges_with_the_same_macs_do_not_see_each_other(farm: Farm, run_directory: Path) -> None:
    """And a node may run before its head node, and end and come again."""

    async def scenario() -> list[str]:
        clusters = [
            make_cluster(farm.accelerator, farm.guest, run_directory / name, f"do=meet net={own} other={other}", BRIDGE)
            for name, own, other in (("a", 1, 2), ("b", 2, 1))
        ]
        try:
            for cluster in clusters:
                await cluster.create()
                await cluster.nodes[0].boot()
            for cluster in clusters:
                await cluster.head.boot()
            async with asyncio.timeout(LIMIT):
                for cluster in clusters:
                    await cluster.nodes[0].wait_ended()
                for cluster in clusters:
                    await cluster.nodes[0].boot()
                for cluster in clusters:
                    await cluster.nodes[0].wait_ended()
        finally:
            await asyncio.gather(*(cluster.destroy() for cluster in clusters))
        return [cluster.nodes[0].console.read_text(errors="replace") for cluster in clusters]

    interfaces = socket.if_nameindex()
    for console in asyncio.run(scenario()):
        assert console.count("GUEST reaches its head node") == 2
        assert "GUEST reaches a stranger" not in console
    assert socket.if_nameindex() == interfaces


@needs_kernel
def test_nothing_of_a_bridge_outlives_a_kill_of_the_runs_process(farm: Farm, run_directory: Path) -> None:
    program = textwrap.dedent(f"""
        import asyncio
        from pathlib import Path
        from oscar_steps.v3m.host.accelerator import Accelerator
        from oscar_steps.v3m.boot import DirectKernel
        from tests.vm.test_v3m_networks import BRIDGE, make_cluster

        async def main() -> None:
            accelerator = Accelerator({farm.accelerator.name!r}, "", 2.0)
            kernel = DirectKernel(Path({str(farm.guest.kernel)!r}), Path({str(farm.guest.initrd)!r}))
            cluster = make_cluster(accelerator, kernel, Path({str(run_directory)!r}), "do=sleep", BRIDGE)
            await cluster.create()
            for machine in cluster.machines:
                await machine.boot()
            print("booted", flush=True)
            await cluster.head.wait_ended()

        asyncio.run(main())
        """)
    interfaces = socket.if_nameindex()
    with subprocess.Popen([sys.executable, "-c", program], cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "booted\n"
        assert len(ledger.find_leftovers(run_directory)) == 3
        assert socket.if_nameindex() == interfaces  # not even while it runs
        process.kill()
    asyncio.run(until(lambda: ledger.find_leftovers(run_directory) == []))
    assert socket.if_nameindex() == interfaces


if __name__ == "__main__":
    name, where, its_kernel, its_initrd = sys.argv[1:]
    asyncio.run(on_a_bridge(Accelerator(name, "", 2.0), DirectKernel(Path(its_kernel), Path(its_initrd)), Path(where)))
