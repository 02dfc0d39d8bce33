"""What a guest reaches by its NIC to the host, tried from inside as root: what its run needs, and nothing else."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

import psutil
import pytest

from oscar_steps.images.seed import write_seed
from oscar_steps.images.store import ImageStore
from oscar_steps.matrix.cells import default_profiles, load_matrix
from oscar_steps.testdriver.head.forwards import GUEST_LOOPBACK, forwards_for
from oscar_steps.testdriver.head.headnode import HeadNode
from oscar_steps.v3m.boot import DirectKernel
from oscar_steps.v3m.host.accelerator import Accelerator
from oscar_steps.v3m.host.settings import DEFAULTS, HostSettings, NetworkSettings, ToHost
from oscar_steps.v3m.machine import EndReason
from oscar_steps.v3m.profiles.cluster import load_cluster
from oscar_steps.v3m.runtime import VirtualCluster
from tests.vm.tiny_guest import LIMIT, SAMPLE, make_guest, parameters, says, tiny, until

OPEN = HostSettings(network=NetworkSettings(to_host=ToHost.OPEN))
BOOT_SECONDS = 240.0
HOST, NAME_SERVER = "10.0.2.2", "10.0.2.3"
GREETING = "the host greets"

CASES = {
    # A stand-in for another guest's SSH server.
    "listen": """
        ip link set eth0 up; ip address add 10.0.2.15/24 dev eth0; say "is up"
        while :; do echo "the host greets: another guest" | nc -l -p 22; done""",
    "try": """
        ip link set eth0 up; ip address add 10.0.2.15/24 dev eth0; ip route add default via 10.0.2.2
        for place in $(echo $tcp | tr , ' '); do
            (said=$(nc -w 10 ${place%:*} ${place#*:} < /dev/null); say "tried tcp $place '$said'") &
        done
        for place in $(echo $udp | tr , ' '); do
            said="exec 3<>/dev/udp/${place%:*}/${place#*:} && echo hello >&3 && timeout 10 head -n 1 <&3"
            (said=$(bash -c "$said"); say "tried udp $place '$said'") &
        done
        wait; poweroff -f""",
}

# All at once. The guest is root there: it takes the way out back, which the farm has not given to it.
SCRIPT = r"""
ip route replace default via 10.0.2.2
try() {
    said=$(timeout 20 bash -c "exec 3<>/dev/$1/$2/$3 && printf '$4' >&3 && head -n 1 <&3" 2>/dev/null | head -c 60)
    echo "tried $1 $2:$3 '$said'"
}
"""
DNS_QUERY = r"\x12\x34\x01\0\0\1\0\0\0\0\0\0\7example\3org\0\0\1\0\1"


@dataclass(frozen=True)
class Target:
    """Something that a guest may try, and whether it answers everybody who gets there."""

    what: str
    kind: str
    address: str
    port: int
    answers: bool = True

    @property
    def place(self) -> str:
        return f"{self.address}:{self.port}"

    def reached(self, console: str) -> bool:
        """Whether it answered, by what the guest said; the guest has to have tried it."""
        mark = f"tried {self.kind} {self.place} '"
        assert mark in console, f"{self.what} was not tried: {console}"
        return not console.partition(mark)[2].startswith("'")


class _Greeter(asyncio.DatagramProtocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.DatagramTransport, transport)  # the loop's own class is none of its children

    def datagram_received(self, _data: bytes, address: tuple[str, int]) -> None:
        self.transport.sendto(f"{GREETING}\n".encode(), address)


async def _greet(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(f"{GREETING}\n".encode())
    await writer.drain()
    writer.close()


async def _server(stack: AsyncExitStack, address: str) -> int:
    server = await stack.enter_async_context(await asyncio.start_server(_greet, address, 0))
    return int(server.sockets[0].getsockname()[1])


def _own_address() -> str | None:
    """An address of this host that is not its loopback interface's."""
    addresses = (one for interface in psutil.net_if_addrs().values() for one in interface)
    return next((one.address for one in addresses if one.family == socket.AF_INET and one.address[:4] != "127."), None)


@asynccontextmanager
async def surroundings(accelerator: Accelerator, guest: DirectKernel, directory: Path) -> AsyncIterator[list[Target]]:
    """Everything that there is to reach, all of it up: servers of the host, and another cluster's guest."""
    async with AsyncExitStack() as stack:
        targets = [
            Target(f"the host's loopback: {what}", "tcp", HOST, await _server(stack, "127.0.0.1"))
            for what in ("the repository's server", "a master's port", "a web page")
        ]
        loop = asyncio.get_running_loop()
        transport, _ = await loop.create_datagram_endpoint(_Greeter, ("127.0.0.1", 0))
        stack.callback(transport.close)
        targets.append(Target("the host's loopback: UDP", "udp", HOST, transport.get_extra_info("sockname")[1]))
        if own := _own_address():
            targets.append(Target("the host's own address", "tcp", own, await _server(stack, own)))
        other = _cluster(accelerator, guest, directory / "other", "do=listen", DEFAULTS)
        await other.create()
        stack.push_async_callback(other.destroy)
        await other.head.boot()
        await until(lambda: says(other.head.console, b"GUEST is up"))
        targets.append(Target("another cluster's guest, its SSH", "tcp", *_seen(other.head.ssh_endpoint())))
        targets.append(Target("the name server", "udp", NAME_SERVER, 53, answers=False))
        targets.append(Target("the name server", "tcp", NAME_SERVER, 53, answers=False))
        targets.append(Target("an address outside", "tcp", "198.51.100.1", 80, answers=False))
        yield targets


def _seen(endpoint: tuple[str, int]) -> tuple[str, int]:
    return HOST, endpoint[1]


def _cluster(
    accelerator: Accelerator, guest: DirectKernel, directory: Path, do: str, settings: HostSettings
) -> VirtualCluster:
    directory.mkdir()
    base = directory / "base.raw"
    base.write_bytes(bytes(1 << 20))
    kernel = replace(guest, parameters=parameters(do))
    return VirtualCluster(tiny(load_cluster(SAMPLE)), directory, accelerator, base, kernel=kernel, settings=settings)


@pytest.fixture(scope="module")
def prober(tmp_path_factory: pytest.TempPathFactory) -> DirectKernel:
    """The tiny guest that tries. UDP is bash's: Debian's busybox has it not."""
    return make_guest(tmp_path_factory.mktemp("prober"), cases=CASES, files={"bin/bash": Path("/bin/bash")})


@pytest.mark.parametrize("settings", [OPEN, DEFAULTS], ids=["open", "nothing said"])
def test_a_guest_reaches_all_that_is_there_only_where_the_host_is_open(
    accelerator: Accelerator, prober: DirectKernel, run_directory: Path, settings: HostSettings
) -> None:
    """That it does where it is open proves that the trying works."""

    async def scenario() -> tuple[list[Target], str]:
        async with surroundings(accelerator, prober, run_directory) as targets:
            tried = {kind: ",".join(one.place for one in targets if one.kind == kind) for kind in ("tcp", "udp")}
            do = f"do=try tcp={tried['tcp']} udp={tried['udp']}"
            cluster = _cluster(accelerator, prober, run_directory / "guest", do, settings)
            await cluster.create()
            try:
                await cluster.head.boot()
                async with asyncio.timeout(LIMIT):
                    assert (await cluster.head.wait_ended()).reason is EndReason.GUEST_SHUTDOWN
            finally:
                await cluster.destroy()
            return targets, cluster.head.console.read_text(errors="replace")

    targets, console = asyncio.run(scenario())
    reached = {one.what for one in targets if one.reached(console)}
    if settings is OPEN:
        assert reached >= {one.what for one in targets if one.answers}
    else:
        assert reached == set()


@pytest.mark.timeout(600)
def test_a_head_node_reaches_the_server_that_its_run_needs_and_nothing_else(
    accelerator: Accelerator, prober: DirectKernel, run_directory: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    matrix = load_matrix(default_profiles())
    image = asyncio.run(ImageStore().ensure(matrix.image(matrix.cells[0]), print))

    async def scenario() -> tuple[list[Target], str]:
        async with surroundings(accelerator, prober, run_directory) as targets:
            forwards = forwards_for([f"svn://127.0.0.1:{targets[0].port}/oscar"])
            run = run_directory / "run"
            run.mkdir()
            seed = write_seed(
                run / "seed.tar",
                hostname="headnode",
                domain="oscardomain",
                head_address="10.0.0.1",
                netmask="255.255.255.0",
                network="ifupdown",
            )
            cluster = VirtualCluster(load_cluster(SAMPLE), run, accelerator, image.path, seed.path)
            await cluster.create()
            head = None
            try:
                await cluster.head.boot()
                await until(lambda: says(cluster.head.console, b"headnode login:"), BOOT_SECONDS)
                host, port = cluster.head.ssh_endpoint()
                head = HeadNode(host, port, seed.password, seed.host_key, forwards)
                await head.connect()
                await head.forwarded()
                targets.append(Target("its own SSH, from outside", "tcp", HOST, port))
                targets.append(Target("the forward", "tcp", GUEST_LOOPBACK, forwards[0].guest_port))
                words = [f"try {one.kind} {one.address} {one.port} '{_said_to(one)}' &" for one in targets]
                said = await head.check("cat > try; bash try", seconds=BOOT_SECONDS, stdin=_script(words))
                return targets, said
            finally:
                if head is not None:
                    head.close()
                await cluster.destroy()

    targets, said = asyncio.run(scenario())
    with capsys.disabled():
        print(f"\n{'from inside a guest':40} {'address':28} answers")
        for one in targets:
            print(f"{one.what:40} {one.kind} {one.place:24} {'yes' if one.reached(said) else 'no'}")
    assert [one.what for one in targets if one.reached(said)] == ["the forward"]
    assert f"tried tcp {targets[-1].place} '{GREETING}'" in said


def _said_to(target: Target) -> str:
    return DNS_QUERY if target.port == 53 else "hello"


def _script(words: list[str]) -> bytes:
    return "\n".join([SCRIPT, *words, "wait", ""]).encode()
