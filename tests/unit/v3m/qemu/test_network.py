"""What the networks of a cluster become; and the star on QEMU itself: a node that takes no frames stops nobody."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import struct
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from oscar_steps.errors import HostError, ProfileError
from oscar_steps.v3m.host.accelerator import Accelerator
from oscar_steps.v3m.host.settings import HostSettings, NetworkSettings, ToHost
from oscar_steps.v3m.host.taps import Tap
from oscar_steps.v3m.profiles.cluster import load_cluster
from oscar_steps.v3m.profiles.vm import Nic, VMProfile
from oscar_steps.v3m.qemu.machine import QemuMachine
from oscar_steps.v3m.qemu.network import (
    VLAN_DIRECTORY,
    bridge_of,
    check,
    has_unanswered_ssh,
    plan,
    plan_single,
    ssh_port,
)

ROOT = Path(__file__).resolve().parents[4]
FRAMES = 2000
ARP = b"\xff" * 6 + bytes.fromhex("525400000002") + b"\x08\x06" + bytes(46)


@contextmanager
def qemu(directory: Path, *arguments: str) -> Iterator[None]:
    words = ["qemu-system-x86_64", "-nodefaults", "-display", "none", *arguments]
    process = subprocess.Popen(words, cwd=directory, stderr=subprocess.DEVNULL)
    try:
        yield
    finally:
        process.kill()
        process.wait()


def connected(path: Path) -> socket.socket:
    end = time.monotonic() + 20
    while True:
        try:
            connection = socket.socket(socket.AF_UNIX)
            connection.connect(str(path))
            return connection
        except OSError:
            connection.close()
            if time.monotonic() > end:
                raise
            time.sleep(0.05)


def answers(qmp: socket.socket) -> bool:
    """Whether QEMU's main loop runs: it obeys a command."""
    qmp.settimeout(10)
    with qmp.makefile("rw") as stream:
        for command in ("qmp_capabilities", "query-status"):
            stream.write(json.dumps({"execute": command}) + "\n")
            stream.flush()
            try:
                while "return" not in json.loads(stream.readline()):
                    pass
            except TimeoutError:
                return False
    return True


def usernet(qmp: socket.socket) -> str:
    """What the monitor says of the user network."""
    qmp.settimeout(10)
    with qmp.makefile("rw") as stream:
        stream.write(json.dumps({"execute": "qmp_capabilities"}) + "\n")
        asked = {"execute": "human-monitor-command", "arguments": {"command-line": "info usernet"}}
        stream.write(json.dumps(asked) + "\n")
        stream.flush()
        while not isinstance(answer := json.loads(stream.readline()).get("return"), str):
            pass
    return answer


@pytest.mark.timeout(90)
def test_a_node_whose_network_card_has_no_driver_does_not_freeze_the_head_node(tmp_path: Path) -> None:
    cluster = load_cluster(ROOT / "profiles/clusters/head-and-two-nodes.xml")
    networks = plan(cluster)
    (tmp_path / VLAN_DIRECTORY).mkdir()
    (tmp_path / "halt.bin").write_bytes(b"\xf4" * 65536)  # firmware of one instruction: the node never gets any further
    source = "stream,id=source,server=on,addr.type=unix,addr.path=source"
    with ExitStack() as stack:
        head = [*networks[cluster.head.name].arguments, "-netdev", source]
        head += ["-netdev", "hubport,id=from-source,hubid=0,netdev=source", "-qmp", "unix:qmp,server=on,wait=off"]
        stack.enter_context(qemu(tmp_path, "-machine", "none", *head))
        qmp, frames = (stack.enter_context(connected(tmp_path / name)) for name in ("qmp", "source"))
        node = networks[cluster.nodes[0].name]
        card = ["-device", f"virtio-net-pci,netdev={node.netdevs[0]},mac=52:54:00:00:00:11"]
        stack.enter_context(qemu(tmp_path, "-machine", "q35", "-m", "16", "-bios", "halt.bin", *node.arguments, *card))
        time.sleep(1.0)  # the node's QEMU connects; there is nobody there who could say when
        frames.settimeout(10)
        for _ in range(FRAMES):
            frames.sendall(struct.pack(">I", len(ARP)) + ARP)
        assert answers(qmp)


@pytest.mark.timeout(90)
def test_a_connection_that_the_guests_kernel_does_not_answer_is_seen_from_outside(tmp_path: Path) -> None:
    cluster = load_cluster(ROOT / "profiles/clusters/head-and-two-nodes.xml")
    (tmp_path / VLAN_DIRECTORY).mkdir()
    with ExitStack() as stack:
        head = [*plan(cluster)[cluster.head.name].arguments, "-qmp", "unix:qmp,server=on,wait=off"]
        stack.enter_context(qemu(tmp_path, "-machine", "none", *head))  # a machine without a guest
        qmp = stack.enter_context(connected(tmp_path / "qmp"))
        before = usernet(qmp)
        assert not has_unanswered_ssh(before)
        port = ssh_port(before)
        assert port is not None
        stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=10))
        until = time.monotonic() + 30
        while not has_unanswered_ssh(usernet(qmp)):
            assert time.monotonic() < until
            time.sleep(0.05)


# --- what a network becomes ------------------------------------------------------------------------------------------

MAC = "52:54:00:00:00:01"
BRIDGED = Nic("BRIDGED_TAP", MAC)
BRIDGES = HostSettings(network=NetworkSettings(bridges=("br0", "br1")))
NONE = HostSettings()


@pytest.fixture
def vm() -> VMProfile:
    return load_cluster(ROOT / "profiles/clusters/head-and-two-nodes.xml").nodes[0]


def test_only_the_first_nic_to_the_host_leads_to_ssh(vm: VMProfile) -> None:
    network = plan_single(replace(vm, nics=(Nic(None, MAC), Nic("TUN/TAP", "52:54:00:00:00:02"))))
    first, second = network.arguments[1::2]
    assert first == "user,id=net0,ipv6=off,hostfwd=tcp:127.0.0.1:0-:22"
    assert second == "user,id=net1,ipv6=off"
    assert network.forwards_ssh
    assert not plan_single(vm).forwards_ssh  # which is on a VLAN alone


def test_the_settings_can_cut_guests_off(vm: VMProfile) -> None:
    cut_off = HostSettings(network=NetworkSettings(to_host=ToHost.CUT_OFF))
    network = plan_single(replace(vm, nics=(Nic("TUN/TAP+NAT", MAC),)), cut_off)
    assert network.arguments[1] == "user,id=net0,ipv6=off,restrict=on,hostfwd=tcp:127.0.0.1:0-:22"


@pytest.mark.parametrize(
    ("nic", "settings", "bridge"),
    [
        (BRIDGED, NONE, None),
        (BRIDGED, BRIDGES, "br0"),
        (replace(BRIDGED, option="br1"), BRIDGES, "br1"),
        (Nic("TUN/TAP", MAC), BRIDGES, None),
        (Nic("VLAN", MAC), BRIDGES, None),
        (Nic(None, MAC), BRIDGES, None),
    ],
)
def test_a_bridged_nic_joins_the_bridge_it_names_or_the_first(
    vm: VMProfile, nic: Nic, settings: HostSettings, bridge: str | None
) -> None:
    profile = replace(vm, nics=(nic,))
    check(profile, settings)
    assert bridge_of(profile, nic, settings) == bridge


def test_the_machines_own_option_counts_for_nics_without_one(vm: VMProfile) -> None:
    profile = replace(vm, option="br1", nics=(BRIDGED,))
    check(profile, BRIDGES)
    assert bridge_of(profile, BRIDGED, BRIDGES) == "br1"


@pytest.mark.parametrize(
    ("changes", "settings", "sentence", "hint"),
    [
        ({"nics": (replace(BRIDGED, option="br0"),)}, NONE, "'br0' to bridge (option), but this host allows no NIC",
         "add the bridge to [network] bridges in /etc/oscar-farm/host.toml"),
        ({"nics": (replace(BRIDGED, option="br7"),)}, BRIDGES, "'br7' to bridge (option), but this host lets NICs join:"
         " br0, br1", "leave the option out"),
        ({"nics": (Nic("TUN/TAP", MAC, option="br0"),)}, BRIDGES, "'br0' to bridge or NAT (option); QEMU's user", ""),
        ({"nics": (Nic("VLAN", MAC, option="br0"),)}, BRIDGES, "'br0' to bridge or NAT (option); QEMU's user", ""),
        ({"option": "br0"}, BRIDGES, "'br0' to bridge or NAT (option); QEMU's user network", ""),
    ],
)  # fmt: skip
def test_an_option_of_which_nothing_would_come_is_refused(
    vm: VMProfile, changes: dict[str, object], settings: HostSettings, sentence: str, hint: str
) -> None:
    with pytest.raises(ProfileError) as error:
        check(replace(vm, **changes), settings)  # type: ignore[arg-type]
    assert f"oscarnode1 names the host's interface {sentence}" in error.value.sentence
    assert hint in error.value.hint


def test_a_nic_with_a_tap_needs_no_hub_and_no_socket() -> None:
    cluster = load_cluster(ROOT / "profiles/clusters/head-and-two-nodes.xml")
    places = [(vm.name, number) for vm in cluster.machines for number, nic in enumerate(vm.nics) if nic.is_vlan]
    taps = {place: Tap(os.open("/dev/null", os.O_RDWR)) for place in places}
    networks = plan(cluster, taps=taps)
    for (name, number), tap in taps.items():
        assert f"tap,id=net{number},fd={tap.fileno()}" in networks[name].arguments
        assert networks[name].descriptors == (tap.fileno(),)
    assert not any("hub" in argument or "stream" in argument for net in networks.values() for argument in net.arguments)


def test_a_machine_does_not_migrate_to_one_that_would_read_its_tap(vm: VMProfile, tmp_path: Path) -> None:
    tap = Tap(os.open("/dev/null", os.O_RDWR))
    network = plan_single(vm, taps={(vm.name, 0): tap})
    accelerator = Accelerator("tcg", "", 1.0)
    here, there = (QemuMachine(vm, tmp_path / name, accelerator, network) for name in ("here", "there"))
    with pytest.raises(HostError, match="oscarnode1 cannot migrate: its target has the same taps"):
        asyncio.run(here.migrate(there))
