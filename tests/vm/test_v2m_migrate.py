"""A machine moves between two hosts while it is pinged or pings. The hosts are two network namespaces; SSH is real.

What the two share is what they would share in the world: storage, here one directory. What they do not share, network,
processes' daemons and state directories, they have each for themselves.
"""

from __future__ import annotations

import getpass
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from oscar_steps.v3m.boot import DirectKernel
from tests.vm.tiny_guest import make_cd, make_guest, parameters
from tests.vm.v2m_user import CASES, CD_MODULES, PROGRAM, User, user_of

SSHD = Path("/usr/sbin/sshd")
ADDRESSES = ("10.231.77.1", "10.231.77.2")
BREAKING_SSH = """
import subprocess, sys
with subprocess.Popen(sys.argv[2:], stdout=subprocess.PIPE) as ssh:
    for line in ssh.stdout:
        if sys.argv[1].encode() in line:
            ssh.kill()
            break
        sys.stdout.buffer.write(line)
        sys.stdout.flush()
"""


@pytest.fixture(scope="module")
def cd_guest(tmp_path_factory: pytest.TempPathFactory) -> DirectKernel:
    return make_guest(tmp_path_factory.mktemp("cd-guest"), modules=CD_MODULES, cases=CASES)


@dataclass(frozen=True)
class TwoHosts:
    """Two users on two hosts, and how one gets to the other by SSH."""

    here: User
    there: User
    ssh: str
    v2m: str

    def migrate(self, file: Path, status: int = 0, **more: str) -> str:
        options = {"ssh": self.ssh, "v2m": self.v2m, **more}
        words = [word for name, value in options.items() for word in (f"--{name}", value)]
        said = self.here.v2m("migrate", file, ADDRESSES[1], *words, status=status, seconds=240)
        return said.err if status else said.out

    def migrate_and_break(self, file: Path, word: str) -> str:
        """The connection is gone before the other side's `word` has come through it."""
        script = self.here.state.parent / "breaking_ssh.py"
        script.write_text(BREAKING_SSH, encoding="ascii")
        return self.migrate(file, status=20, ssh=f"{sys.executable} {script} {word} {self.ssh}")


def _run(*words: str) -> None:
    subprocess.run(words, check=True, capture_output=True, text=True)


@pytest.fixture
def namespaces() -> Iterator[tuple[str, str]]:
    """Two namespaces with a cable between them; skipped, with the reason, where this host gives none."""
    names = (f"v2m-a{os.getpid()}", f"v2m-b{os.getpid()}")
    ends = (f"va{os.getpid()}", f"vb{os.getpid()}")
    if os.geteuid() != 0 or shutil.which("ip") is None:
        pytest.skip("network namespaces with names take root, and the program ip (Debian: iproute2)")
    try:
        for name in names:
            _run("ip", "netns", "add", name)
    except subprocess.CalledProcessError as error:
        pytest.skip(f"no network namespaces here: {error.stderr.strip()}")
    try:
        _run("ip", "-n", names[0], "link", "add", ends[0], "type", "veth", "peer", "name", ends[1], "netns", names[1])
        for name, end, address in zip(names, ends, ADDRESSES, strict=True):
            _run("ip", "-n", name, "address", "add", f"{address}/24", "dev", end)
            for device in (end, "lo"):
                _run("ip", "-n", name, "link", "set", device, "up")
        yield names
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "del", name], check=False)


@pytest.fixture
def hosts(tmp_path: Path, namespaces: tuple[str, str]) -> Iterator[TwoHosts]:
    if not SSHD.exists():
        pytest.skip("there is no sshd (Debian: openssh-server)")
    keys = tmp_path / "keys"
    keys.mkdir(mode=0o700)
    for name in ("host", "user"):
        _run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(keys / name))
    (keys / "authorized").write_bytes((keys / "user.pub").read_bytes())
    (keys / "known").write_text(f"{ADDRESSES[1]} {(keys / 'host.pub').read_text()}", encoding="ascii")
    (keys / "sshd_config").write_text(
        f"ListenAddress {ADDRESSES[1]}\nHostKey {keys}/host\nAuthorizedKeysFile {keys}/authorized\nStrictModes no\n"
        "PidFile none\nUsePAM no\nPermitRootLogin prohibit-password\n",
        encoding="ascii",
    )
    Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
    disk = tmp_path / "shared"
    disk.mkdir()
    prefixes = [("ip", "netns", "exec", name) for name in namespaces]
    command = [*prefixes[1], str(SSHD), "-D", "-e", "-f", str(keys / "sshd_config")]
    with (keys / "sshd.log").open("wb") as log, subprocess.Popen(command, stdout=log, stderr=log) as sshd:
        try:
            _wait_until_listening(prefixes[0], sshd)
            options = {"IdentitiesOnly": "yes", "UserKnownHostsFile": f"{keys}/known", "LogLevel": "ERROR"}
            words = ["ssh", "-F", "none", "-i", f"{keys}/user", "-l", getpass.getuser()]
            words += [word for option, value in options.items() for word in ("-o", f"{option}={value}")]
            with user_of(tmp_path / "a", prefixes[0]) as here, user_of(tmp_path / "b", prefixes[1]) as there:
                here.directory = there.directory = disk
                yield TwoHosts(here, there, shlex.join(words), f"env XDG_STATE_HOME={there.state} {PROGRAM}")
        finally:
            sshd.terminate()


def _wait_until_listening(prefix: tuple[str, ...], sshd: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + 30
    command = [*prefix, "sh", "-c", f"exec 3<>/dev/tcp/{ADDRESSES[1]}/22"]
    command[-3:] = ["bash", *command[-2:]]
    while subprocess.run(command, capture_output=True, check=False).returncode:
        assert sshd.poll() is None, "sshd did not start"
        assert time.monotonic() < end
        time.sleep(0.1)


def _cd(hosts: TwoHosts, guest: DirectKernel, name: str, do: str) -> Path:
    return make_cd(hosts.here.directory / f"{name}-cd", guest, parameters(do))


def test_a_machine_on_a_vlan_moves_and_loses_next_to_no_packet(hosts: TwoHosts, cd_guest: DirectKernel) -> None:
    nic = "<nic1><type>VLAN</type><mac>52:54:00:00:01:0{}</mac></nic1>"
    peer_cd = _cd(hosts, cd_guest, "peer", "do=chatter peer=1")
    mover_cd = _cd(hosts, cd_guest, "mover", "do=pinger peer=2")
    peer = hosts.here.profile("peer", more=f"<cdrom>{peer_cd}</cdrom>{nic.format(2)}")
    mover = hosts.here.profile("mover", more=f"<cdrom>{mover_cd}</cdrom>{nic.format(1)}")
    for file in (peer, mover):
        hosts.here.v2m("create", file)
        hosts.here.v2m("boot", file)
    hosts.here.wait_for("mover", b" seq=5 ")

    assert hosts.migrate(mover) == f"mover: runs on {ADDRESSES[1]}\n"
    assert hosts.here.v2m("status", mover).out == f"mover: off; migrated to {ADDRESSES[1]}\n"
    assert hosts.there.state_of(mover) == "running"
    hosts.there.wait_for("mover", b" seq=", times=10)  # it goes on
    hosts.there.v2m("console", mover, "--type", typed="enough\n\x1d")
    hosts.there.wait_for("mover", b"GUEST has pinged")
    console = hosts.there.console_of("mover")
    packets = re.search(rb"(\d+) packets transmitted, (\d+) packets received", console)
    assert packets, console
    assert int(packets[2]) >= int(packets[1]) - 3
    moved = hosts.there.v2m("migrate", mover, ADDRESSES[0], status=3).err
    assert moved.startswith("mover came from another host, which holds its VLAN, and cannot be moved again")

    # Its line belongs to the daemon here, which lives for it although nothing is on here any more.
    hosts.here.v2m("destroy", peer)
    assert hosts.here.is_kept()
    assert "is kept, since" in hosts.here.v2m("destroy", mover).out
    assert "is deleted" in hosts.there.v2m("destroy", mover).out
    hosts.here.wait_until_unkept()
    hosts.there.wait_until_unkept()
    assert not list(Path("/tmp").glob("v2m-*.sock"))


def test_a_machine_that_cannot_move_runs_on(hosts: TwoHosts, cd_guest: DirectKernel) -> None:
    """Each refusal is one sentence, and afterwards the machine moves all the same: nothing was left half done."""
    file = hosts.here.profile("vm1", more=f"<cdrom>{_cd(hosts, cd_guest, 'vm1', 'do=count')}</cdrom>")
    assert hosts.migrate(file, status=3).startswith("vm1 cannot be moved: it is off")
    hosts.here.v2m("create", file)
    hosts.here.v2m("boot", file)
    hosts.here.wait_for("vm1", b"GUEST counts 3")
    assert "no-such-v2m" in hosts.migrate(file, status=20, v2m="no-such-v2m")
    wrong = hosts.ssh.replace("/user", "/nobody")
    assert f"vm1 could not be moved to {ADDRESSES[1]}: " in hosts.migrate(file, status=20, ssh=wrong)
    blind = f"unshare --mount sh -c 'mount -t tmpfs none {hosts.here.directory}; exec {hosts.v2m} \"$@\"' v2m"
    told = hosts.migrate(file, status=20, v2m=blind)
    assert "is not on storage that both hosts see" in told
    assert hosts.here.state_of(file) == "running"
    counted = hosts.here.console_of("vm1").count(b"GUEST counts")
    hosts.here.wait_for("vm1", b"GUEST counts", times=counted + 3)

    assert hosts.migrate(file) == f"vm1: runs on {ADDRESSES[1]}\n"
    hosts.here.wait_until_unkept()
    hosts.there.wait_for("vm1", b"GUEST counts", times=3)
    assert b"GUEST counts 1\r\n" not in hosts.there.console_of("vm1")
    hosts.there.v2m("destroy", file)
    assert not (hosts.here.directory / "vm1.qcow2").exists()


def test_a_machine_whose_connection_breaks_before_the_last_word_goes_on_as_it_was(
    hosts: TwoHosts, cd_guest: DirectKernel
) -> None:
    """The QEMU there has the disk's lock by then. A paused machine stays paused, here and, when it has moved, there."""
    nic = "<nic1><type>VLAN</type><mac>52:54:00:00:01:01</mac></nic1>"
    file = hosts.here.profile("vm1", more=f"<cdrom>{_cd(hosts, cd_guest, 'vm1', 'do=count')}</cdrom>{nic}")
    hosts.here.v2m("create", file)
    hosts.here.v2m("boot", file)
    hosts.here.wait_for("vm1", b"GUEST counts 3")
    assert "no-such-v2m" in hosts.migrate(file, status=20, v2m="no-such-v2m")
    assert not list(Path("/tmp").glob("v2m-*.sock"))

    assert (
        hosts.migrate_and_break(file, "arrived") == f"vm1 could not be moved to {ADDRESSES[1]}: the connection broke\n"
    )
    assert hosts.here.state_of(file) == "running"
    counted = hosts.here.console_of("vm1").count(b"GUEST counts")
    hosts.here.wait_for("vm1", b"GUEST counts", times=counted + 3)
    hosts.here.v2m("pause", file)
    hosts.migrate_and_break(file, "arrived")
    assert hosts.here.state_of(file) == "paused"
    hosts.there.wait_until_unkept()

    assert hosts.migrate(file) == f"vm1: runs on {ADDRESSES[1]}\n"
    assert hosts.there.state_of(file) == "paused"
    counted = hosts.there.console_of("vm1").count(b"GUEST counts")
    hosts.there.v2m("unpause", file)
    hosts.there.wait_for("vm1", b"GUEST counts", times=counted + 3)
    hosts.there.v2m("destroy", file)
    hosts.here.wait_until_unkept()
    assert not list(Path("/tmp").glob("v2m-*.sock"))


def test_a_machine_that_may_run_there_stands_still_here(hosts: TwoHosts, cd_guest: DirectKernel) -> None:
    file = hosts.here.profile("vm1", more=f"<cdrom>{_cd(hosts, cd_guest, 'vm1', 'do=count')}</cdrom>")
    hosts.here.v2m("create", file)
    hosts.here.v2m("boot", file)
    hosts.here.wait_for("vm1", b"GUEST counts 3")
    assert hosts.migrate_and_break(file, "running").startswith(f"it is unknown whether vm1 runs on {ADDRESSES[1]}: ")
    assert (hosts.here.state_of(file), hosts.there.state_of(file)) == ("paused", "running")
    hosts.there.wait_for("vm1", b"GUEST counts", times=3)
    assert "lock" in hosts.here.v2m("unpause", file, status=20).err
    hosts.there.v2m("power-off", file)
    hosts.here.v2m("power-off", file)
