"""The whole life of machines by the command line, as a user has it: real commands, real machines, tiny ones."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from oscar_steps.v2m.daemon.client import greet
from oscar_steps.v3m.boot import DirectKernel
from tests.vm.tiny_guest import make_cd, make_guest, parameters
from tests.vm.v2m_user import CASES, CD_MODULES, User, user_of

STATE, HOST, PROFILE = 3, 20, 64
IMPATIENT = f"""#!{sys.executable}
from oscar_steps.v2m import main
from oscar_steps.v2m.daemon import client
client.SILENCE_LIMIT = 3.0
main()
"""


@pytest.fixture(scope="module")
def cd_guest(tmp_path_factory: pytest.TempPathFactory) -> DirectKernel:
    return make_guest(tmp_path_factory.mktemp("cd-guest"), modules=CD_MODULES, cases=CASES)


@pytest.fixture
def user(tmp_path: Path) -> Iterator[User]:
    with user_of(tmp_path) as user:
        yield user


def _cd(user: User, guest: DirectKernel, do: str) -> str:
    name = do.replace(" ", "-").replace("=", "-")
    return str(make_cd(user.directory / name, guest, parameters(do)).relative_to(user.directory))


def _daemon_pid(user: User) -> int:
    link, _ = greet(user.system(), start=False)
    assert link is not None
    with contextlib.closing(link):
        return link.pid


def test_a_machines_life_from_create_to_destroy(user: User, cd_guest: DirectKernel) -> None:
    iso = _cd(user, cd_guest, "do=count")
    file = user.profile("vm1", more=f"<cdrom>{iso}</cdrom><nic1><mac>52:54:00:00:00:01</mac></nic1>")
    disk = user.directory / "vm1.qcow2"

    (row,) = user.v2m("status", "--json", file).json()
    assert (row["state"], row["disk"]) == ("off", {"file": str(disk), "exists": False, "made": False})
    assert user.v2m("boot", file, status=STATE).err.startswith("vm1 cannot be booted: its disk")

    assert user.v2m("create", file.name).out == f"vm1: made {disk} (16 MiB)\n"
    assert "is there already" in user.v2m("create", file, status=HOST).err

    (booted,) = user.v2m("boot", "--json", file).json()
    assert (booted["system"], booted["state"]) == ("default", "running")
    assert booted["ssh"]["port"] > 0
    os.kill(booted["pid"], 0)
    user.wait_for("vm1", b"GUEST counts 3\r\n")
    assert "GUEST counts 3" in user.v2m("console", file, "--lines", 500).out
    assert user.v2m("boot", file, status=STATE).err == "vm1 cannot be booted: it is running\n"

    assert user.v2m("pause", file).out.startswith("vm1: paused (process ")
    assert user.state_of(file) == "paused"
    assert user.v2m("unpause", file).out.startswith("vm1: running")

    user.v2m("screenshot", file, "now.png")
    assert (user.directory / "now.png").read_bytes().startswith(b"\x89PNG")
    user.v2m("eject-cd", file)
    user.v2m("insert-cd", file, iso)
    assert user.v2m("insert-cd", file, "no.iso", status=PROFILE).err == "the CD no.iso is not there\n"

    user.v2m("save", file, "vm1.state")
    assert user.state_of(file) == "off"
    user.wait_until_unkept()
    counted = user.console_of("vm1").count(b"GUEST counts")
    user.v2m("restore", file, "vm1.state")
    user.wait_for("vm1", b"GUEST counts", times=counted + 3)
    assert user.console_of("vm1").count(b"GUEST counts 1\r\n") == 1, "it was booted anew"

    user.v2m("reset", file)
    user.wait_for("vm1", b"GUEST counts 1\r\n", times=2)
    assert user.v2m("destroy", file).out == f"vm1: destroyed; its disk {disk} is deleted\n"
    assert not disk.exists()
    user.wait_until_unkept()
    assert user.v2m("status", "--json").json() == []


def test_an_installation_is_judged_by_the_disk(user: User, cd_guest: DirectKernel) -> None:
    good = user.profile("good", more=f"<cdrom>{_cd(user, cd_guest, 'do=install')}</cdrom>")
    lazy = user.profile("lazy", more=f"<cdrom>{_cd(user, cd_guest, 'do=poweroff')}</cdrom>")
    (done,) = user.v2m(good, "--create-vm-image-from-cdrom", "--json").json()
    assert (done["machine"], done["succeeded"], done["ended"]) == ("good", True, "guest-reset")
    said = user.v2m("install", lazy, "--from", "oscar", status=1)
    assert said.out.splitlines()[-1] == (
        "lazy: not installed: its boot ended by guest-shutdown, and its disk is as it was"
    )
    assert "its disk has a system already" in user.v2m("install", good, "--from", "cdrom", status=STATE).err
    user.v2m("destroy", good)
    user.v2m("destroy", lazy)


def test_an_installation_that_does_not_end_is_ended(user: User, cd_guest: DirectKernel) -> None:
    file = user.profile("slow", more=f"<cdrom>{_cd(user, cd_guest, 'do=sleep')}</cdrom>")
    said = user.v2m("install", file, "--from", "cdrom", "--limit", "5", status=1)
    assert "not installed: its boot ended by host-power-off" in said.out
    user.v2m("destroy", file)


def test_a_killed_daemon_takes_its_machines_along_and_the_next_command_says_so(
    user: User, cd_guest: DirectKernel
) -> None:
    file = user.profile("vm1", more=f"<cdrom>{_cd(user, cd_guest, 'do=sleep')}</cdrom>")
    user.v2m("create", file)
    (booted,) = user.v2m("boot", "--json", file).json()
    os.kill(_daemon_pid(user), signal.SIGKILL)
    end = time.monotonic() + 5
    while Path(f"/proc/{booted['pid']}").exists():
        assert time.monotonic() < end, "its machine outlived it"
        time.sleep(0.05)
    said = user.v2m("status", file)
    assert said.err == "the v2m daemon of the system default was killed; its machines died with it: vm1\n"
    assert said.out == "vm1: off; the v2m daemon was killed, and the machine died with it\n"
    assert user.v2m("status", file).err == ""
    assert user.v2m("boot", file).out.startswith("vm1: running")
    user.v2m("destroy", file)


def test_a_daemon_that_hangs_is_reported_in_time(user: User, cd_guest: DirectKernel) -> None:
    file = user.profile("vm1", more=f"<cdrom>{_cd(user, cd_guest, 'do=sleep')}</cdrom>")
    user.v2m("create", file)
    user.v2m("boot", file)
    daemon = _daemon_pid(user)
    impatient = User(user.directory, program=user.directory / "impatient-v2m")
    impatient.program.write_text(IMPATIENT, encoding="utf-8")
    impatient.program.chmod(0o755)
    os.kill(daemon, signal.SIGSTOP)
    try:
        said = impatient.v2m("status", file, status=HOST)
    finally:
        os.kill(daemon, signal.SIGCONT)
    assert said.err.startswith(
        f"timed out after 3 s waiting for the v2m daemon of the system default (process {daemon})\n"
    )
    user.v2m("destroy", file)


def test_two_boots_at_once_share_a_daemon(user: User, cd_guest: DirectKernel) -> None:
    iso = _cd(user, cd_guest, "do=sleep")
    files = [user.profile(name, more=f"<cdrom>{iso}</cdrom>") for name in ("one", "two", "three")]
    for file in files:
        user.v2m("create", file)
    with ThreadPoolExecutor() as threads:
        list(threads.map(lambda file: user.v2m("boot", file), files))
    assert [row["state"] for row in user.v2m("status", "--json").json()] == ["running"] * 3
    assert user.system().log.read_text().count(" daemon\n") == 1
    daemon = _daemon_pid(user)
    owners = [Path(f"/proc/{row['pid']}/stat").read_text().rpartition(")")[2].split()[1] for row in _rows(user)]
    assert owners == [str(daemon)] * 3
    os.kill(daemon, signal.SIGTERM)
    user.wait_until_unkept()
    assert {row["ended"] for row in _rows(user)} == {"host-power-off"}


def _rows(user: User) -> list[dict[str, str]]:
    rows: list[dict[str, str]] = user.v2m("status", "--json").json()
    return rows


@pytest.mark.parametrize("order", [("a", "b"), ("b", "a")], ids=["a-first", "b-first"])
def test_single_files_meet_on_their_vlan_in_any_order(
    user: User, cd_guest: DirectKernel, order: tuple[str, str]
) -> None:
    nic = "<nic1><type>VLAN</type><mac>52:54:00:00:01:0{}</mac></nic1>"
    number = {"a": 1, "b": 2}
    files = {}
    for name in order:
        iso = _cd(user, cd_guest, f"do=chatter peer={3 - number[name]}")
        files[name] = user.profile(name, more=f"<cdrom>{iso}</cdrom>{nic.format(number[name])}")
        user.v2m("create", files[name])
        user.v2m("boot", files[name])
    user.wait_for("a", b"GUEST hears 3\r\n")
    user.wait_for("b", b"GUEST hears 3\r\n")
    first = order[0]
    user.v2m("power-off", files[first])
    user.v2m("boot", files[first])
    user.wait_for(first, b"GUEST hears 3\r\n", times=2)
    for file in files.values():
        user.v2m("destroy", file)
    user.wait_until_unkept()
    assert list((user.system().directory / "vlan").iterdir()) == []


def test_a_cluster_is_a_system_of_its_own(user: User, cd_guest: DirectKernel) -> None:
    def machine(name: str, number: int) -> str:
        iso = _cd(user, cd_guest, f"do=chatter peer={3 - number}")
        return f"""<profile><name>{name}</name><type>Qemu</type><memory>192</memory><boot>cdrom</boot>
            <image size="16">{name}.qcow2</image><cdrom>{iso}</cdrom>
            <nic1><type>VLAN</type><mac>52:54:00:00:01:0{number}</mac></nic1></profile>"""

    file = user.directory / "cluster.xml"
    members = f"<head>{machine('head', 1)}</head><nodes>{machine('node1', 2)}</nodes>"
    file.write_text(f'<cluster name="tiny">{members}</cluster>', encoding="utf-8")
    user.v2m("create", file)
    booted = user.v2m("boot", "--json", file).json()
    assert [(row["system"], row["machine"], row["state"]) for row in booted] == [
        ("tiny", "head", "running"),
        ("tiny", "node1", "running"),
    ]
    user.wait_for("head", b"GUEST hears 3\r\n", system="tiny")
    user.v2m("pause", file, "--machine", "node1")
    assert [row["state"] for row in user.v2m("status", "--json", file).json()] == ["running", "paused"]
    user.v2m("destroy", file)
    user.wait_until_unkept("tiny")


def test_a_disk_that_was_there_is_kept(user: User, cd_guest: DirectKernel) -> None:
    file = user.profile("vm1", size=None, more=f"<cdrom>{_cd(user, cd_guest, 'do=sleep')}</cdrom>")
    disk = user.directory / "vm1.qcow2"
    disk.write_bytes(bytes(1 << 20))  # raw, whatever its name says
    assert "its size is missing" in user.v2m("create", file, status=PROFILE).err
    user.v2m("boot", file)
    said = user.v2m("destroy", file).out
    assert said == f"vm1: destroyed; its disk {disk} is kept, since `v2m create` did not make it\n"
    assert disk.stat().st_size == 1 << 20


@pytest.mark.parametrize("form", ["qcow2", "raw"])
def test_a_disk_that_is_used_in_another_system_is_not_deleted(user: User, cd_guest: DirectKernel, form: str) -> None:
    file = user.profile("vm1", more=f"<cdrom>{_cd(user, cd_guest, 'do=sleep')}</cdrom>")
    user.v2m("create", file)
    disk = user.directory / "vm1.qcow2"
    if form == "raw":  # in the very file that was made: its name does not matter
        disk.write_bytes(bytes(16 << 20))
    user.v2m("boot", "--system", "lab", file)
    said = user.v2m("destroy", file, status=HOST)
    assert said.err.startswith(f"the disk {disk} of vm1 is not deleted: another machine uses it")
    assert disk.exists()
    assert user.v2m("status", "--json", "--system", "lab", file).json()[0]["state"] == "running"
    user.v2m("destroy", "--system", "lab", file)
    assert user.v2m("destroy", file).out == f"vm1: destroyed; its disk {disk} is deleted\n"


def test_console_follows_until_the_machine_is_off(user: User, cd_guest: DirectKernel) -> None:
    file = user.profile("vm1", more=f"<cdrom>{_cd(user, cd_guest, 'do=poweroff')}</cdrom>")
    user.v2m("create", file)
    user.v2m("boot", file)
    user.v2m("console", file, "--follow")
    assert user.v2m("status", file).out == "vm1: off; guest-shutdown\n"
    user.v2m("destroy", file)


def test_what_is_typed_reaches_the_guest_and_its_words_the_file_all_the_same(
    user: User, cd_guest: DirectKernel
) -> None:
    file = user.profile("vm1", more=f"<cdrom>{_cd(user, cd_guest, 'do=listen')}</cdrom>")
    user.v2m("create", file)
    user.v2m("boot", file)
    user.wait_for("vm1", b"GUEST is up\r\n")
    for number in (1, 2):
        user.v2m("console", file, "--type", typed=f"word{number}\n\x1d")
        user.wait_for("vm1", f"GUEST heard word{number}\r\n".encode())
    user.v2m("destroy", file)


def test_a_machine_of_another_file_with_the_same_name_is_not_taken_for_it(user: User) -> None:
    file = user.profile("vm1")
    user.v2m("create", file)
    other = User(user.directory / "other")
    stranger = other.profile("vm1")
    said = user.v2m("destroy", stranger, status=PROFILE)
    assert said.err.startswith(f"the system default has a machine vm1 already, from {file}\n")
    assert user.v2m("create", stranger, "--system", "second").status == 0
    user.v2m("destroy", file)
    user.v2m("destroy", stranger, "--system", "second")
