"""V2M's commands on machines, as far as nothing is started: words, names, exit statuses, completion."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

from oscar_steps import v2m
from oscar_steps.errors import HostError, UserError
from oscar_steps.v2m import requests, target
from oscar_steps.v2m.commands import moves, power
from oscar_steps.v2m.daemon import client
from oscar_steps.v2m.daemon.state import System, all_systems
from oscar_steps.v2m.legacy_cli import modern
from oscar_steps.v3m.host import ledger, settings

SAMPLE = Path(__file__).resolve().parents[3] / "profiles" / "clusters" / "head-and-two-nodes.xml"
VM = """<profile><name>{name}</name><memory>192</memory><image size="16">{name}.qcow2</image></profile>"""
ON_MACHINES = ("pause", "unpause", "reset", "shut-down", "power-off", "status", "destroy", "create", "boot")
ON_ONE = ("console", "screenshot", "insert-cd", "eject-cd", "save", "restore", "migrate")


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    def run(*words: str | Path) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["v2m", *map(str, words)])
        with pytest.raises(SystemExit) as end:
            v2m.main()
        said = capsys.readouterr()
        return int(end.value.code or 0), said.out, said.err

    return run


@pytest.fixture
def vm(home: Path) -> Path:
    path = home / "vm1.xml"
    path.write_text(VM.format(name="vm1"), encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("vm.xml --boot-vm", "boot vm.xml"),
        ("--boot-vm vm.xml", "boot vm.xml"),
        ("vm.xml --create-vm-image-from-cdrom", "install --from cdrom vm.xml"),
        ("vm.xml --install-vm-with-oscar", "install --from oscar vm.xml"),
        ("vm.xml --migrate-vm host2", "migrate vm.xml host2"),
        ("--migrate-vm host2 vm.xml", "migrate vm.xml host2"),
        ("vm.xml --pause-vm", "pause vm.xml"),
        ("vm.xml --unpause-vm", "unpause vm.xml"),
        ("vm.xml --status", "status vm.xml"),
        ("vm.xml --validate-profile", "validate vm.xml"),
        ("--version", "--version"),
        ("vm.xml --version", "--version"),
        ("status --json vm.xml", "status --json vm.xml"),
    ],
)
def test_words_of_2007_are_todays_commands(old: str, new: str) -> None:
    assert modern(old.split()) == new.split()


@pytest.mark.parametrize(
    ("words", "why"),
    [
        ("vm.xml --boot-vm --status", "'--boot-vm' and '--status' are two commands"),
        ("vm.xml --migrate-vm", "'--migrate-vm' needs the host to go to"),
    ],
)
def test_old_words_that_make_no_command_are_reported(words: str, why: str) -> None:
    with pytest.raises(click.UsageError, match=re.escape(why)):
        modern(words.split())


@pytest.mark.parametrize("command", [*ON_MACHINES, *ON_ONE, "install", "completion", "check-host"])
def test_every_command_teaches_by_example_and_names_its_exit_statuses(call: Any, command: str) -> None:
    status, out, _ = call(command, "--help")
    assert status == 0
    assert re.search(rf"Examples:\n +v2m {command}", out)
    assert command == "completion" or re.search(r"Exit status:\n +0 ", out)


@pytest.mark.parametrize("command", ["pause", "unpause", "reset", "shut-down", "eject-cd"])
def test_a_machine_that_is_off_is_a_wrong_state(call: Any, vm: Path, command: str) -> None:
    status, out, err = call(command, vm)
    assert (status, out) == (3, "")
    assert re.match(r"vm1 cannot be .*: it is off\n  `v2m boot` powers it on\n$", err)


def test_a_wrong_old_command_line_ends_as_a_wrong_new_one_does(call: Any, vm: Path) -> None:
    status, _, err = call(vm, "--boot-vm", "--status")
    assert (status, "'--boot-vm' and '--status' are two commands" in err) == (2, True)


def test_a_mistake_in_the_hosts_settings_is_not_the_profiles(
    call: Any, vm: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (home / "host.toml").write_text('[network]\nvlan = "ring"\n', encoding="utf-8")
    monkeypatch.setattr(settings, "SETTINGS_FILE", home / "host.toml")
    status, _, err = call("show", vm)
    assert status == 20
    assert err.startswith(f"{home}/host.toml:2: network.vlan: ")


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (("save", "vm1.xml", "state"), "vm1 cannot be saved: it is off"),
        (("migrate", "vm1.xml", "host2"), "vm1 cannot be moved: it is off"),
        (("screenshot", "vm1.xml", "a.png"), "vm1 cannot be captured in a screenshot: it is off"),
        (("console", "vm1.xml"), "vm1 has no console: it was never booted"),
    ],
)
def test_what_takes_a_machine_that_was_on_says_so(call: Any, vm: Path, words: tuple[str, ...], why: str) -> None:
    assert vm.name == "vm1.xml"
    status, _, err = call(*words)
    assert (status, err.splitlines()[0]) == (3, why)


@pytest.mark.parametrize("command", ["boot", "install", "create", "destroy", "status", "pause", "power-off"])
def test_a_file_that_is_not_valid_is_reported_with_its_place(call: Any, home: Path, command: str) -> None:
    (home / "wrong.xml").write_text("<profile>\n <name>x</name>\n</profile>", encoding="utf-8")
    more = ("--from", "cdrom") if command == "install" else ()
    status, _, err = call(command, "wrong.xml", *more)
    assert status == 64
    assert re.match(r"wrong\.xml:1:\d+: ", err)
    assert call(command, "nowhere.xml", *more)[0] == 64


def test_an_ssh_command_without_its_closing_quote_is_reported(call: Any, vm: Path) -> None:
    assert call("migrate", vm, "host2", "--ssh", "ssh -o 'x")[0::2] == (
        64,
        "--ssh 'ssh -o 'x' is not a command: No closing quotation\n",
    )


def test_a_name_that_is_not_in_the_file_is_reported_with_those_that_are(call: Any) -> None:
    status, _, err = call("boot", SAMPLE, "--machine", "oscarnode9")
    assert status == 64
    assert err.endswith("has no machine 'oscarnode9'; there are: oscar-headnode, oscarnode1, oscarnode2\n")


def test_a_command_on_one_machine_asks_which(call: Any) -> None:
    status, _, err = call("console", SAMPLE)
    assert status == 64
    assert err.endswith("has the machines oscar-headnode, oscarnode1, oscarnode2\n  say which one: --machine NAME\n")


@pytest.mark.parametrize("name", ["", "../up", "a/b", ".hidden", "-x", "ä", "x" * 65])
def test_a_system_has_a_name_that_cannot_leave_its_place(call: Any, vm: Path, name: str) -> None:
    if name:
        assert call("status", vm, "--system", name)[0] == 64
    with pytest.raises(UserError, match="the name of a system has to be"):
        System(name)


def test_a_clusters_machines_are_a_system_of_their_own(vm: Path) -> None:
    found = target.find(SAMPLE, (), None)
    assert found.system.name == "head-and-two-nodes"
    assert [machine.name for machine in found.machines] == ["oscar-headnode", "oscarnode1", "oscarnode2"]
    assert target.find(vm, (), None).system.name == "default"
    assert target.find(vm, (), "other").system.name == "other"


@pytest.mark.parametrize(
    ("one", "other"), [("北京", "上海"), ("lab/1", "lab 1"), ("default", "Default!"), ("x" * 70, "x" * 71)]
)
def test_clusters_whose_names_cannot_be_systems_do_not_meet(home: Path, one: str, other: str) -> None:
    """Machines of one system share its VLANs."""
    systems = {"default"}
    for name in (one, other):
        text = SAMPLE.read_text(encoding="utf-8").replace("head-and-two-nodes", name)
        (home / "cluster.xml").write_text(text, encoding="utf-8")
        found = target.find(home / "cluster.xml", (), None).system.name
        assert found == target.find(home / "cluster.xml", (), None).system.name
        systems.add(found)
    assert len(systems) == 3


def test_a_file_is_the_same_by_whichever_path(call: Any, vm: Path, home: Path) -> None:
    (home / "sub").mkdir()
    (home / "link").symlink_to(home, target_is_directory=True)
    assert call("create", Path("sub") / ".." / vm.name)[0] == 0
    for path in (vm, home / "link" / vm.name):
        assert json.loads(call("status", path, "--json")[1])[0]["disk"]["made"] is True
    assert call("destroy", home / "link" / vm.name)[1] == f"vm1: destroyed; its disk {home}/vm1.qcow2 is deleted\n"


def test_files_of_a_profile_lie_beside_it(home: Path) -> None:
    (home / "sub").mkdir()
    text = VM.format(name="vm1").replace("</image>", "</image><cdrom>/cds/a.iso</cdrom>")
    (home / "sub" / "vm1.xml").write_text(text, encoding="utf-8")
    (machine,) = target.find(Path("sub/vm1.xml"), (), None).machines
    assert (machine.image.path, machine.cdrom) == (str(home / "sub" / "vm1.qcow2"), "/cds/a.iso")


@pytest.mark.parametrize(
    ("hypervisor", "disk", "form"),
    [
        ("Xen", "vm1.img", "raw"),
        ("XenHVM", "vm1.img", "raw"),
        ("Xen", "vm1.qcow2", "qcow2"),
        ("Qemu", "vm1.img", "qcow2"),
    ],
)
def test_a_disk_is_made_in_the_format_that_its_hypervisor_reads_it_in(
    call: Any, home: Path, hypervisor: str, disk: str, form: str
) -> None:
    profile = f'<profile><name>vm1</name><type>{hypervisor}</type><image size="16">{disk}</image></profile>'
    (home / "vm.xml").write_text(profile, encoding="utf-8")
    assert call("create", "vm.xml")[0] == 0
    info = subprocess.run(["qemu-img", "info", "--output=json", disk], check=True, capture_output=True).stdout
    assert json.loads(info)["format"] == form
    assert "is deleted" in call("destroy", "vm.xml")[1]


def test_create_and_destroy_need_no_daemon_and_touch_only_what_was_made(call: Any, vm: Path, home: Path) -> None:
    disk = home / "vm1.qcow2"
    assert call("create", vm) == (0, f"vm1: made {disk} (16 MiB)\n", "")
    assert call("create", vm)[0] == 20
    assert json.loads(call("status", vm, "--json")[1])[0]["disk"] == {"file": str(disk), "exists": True, "made": True}
    assert call("destroy", vm)[1] == f"vm1: destroyed; its disk {disk} is deleted\n"
    assert not disk.exists()
    disk.write_bytes(b"mine")
    assert call("destroy", vm)[1] == f"vm1: destroyed; its disk {disk} is kept, since `v2m create` did not make it\n"
    assert disk.read_bytes() == b"mine"
    assert not System("default").log.exists()


def test_a_disk_that_a_machine_of_another_system_has_is_not_deleted(call: Any, vm: Path, home: Path) -> None:
    disk = home / "vm1.qcow2"
    assert call("create", vm)[0] == 0
    with subprocess.Popen(["qemu-io", str(disk)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as has_it:
        assert has_it.stdin is not None
        assert has_it.stdout is not None
        has_it.stdin.write("read 0 512\n")
        has_it.stdin.flush()
        assert "512" in has_it.stdout.readline()
        status, _, err = call("destroy", vm)
        has_it.stdin.close()
    assert status == 20
    assert err.startswith(f"the disk {disk} of vm1 is not deleted: another machine uses it")
    assert disk.exists()
    assert call("destroy", vm)[1] == f"vm1: destroyed; its disk {disk} is deleted\n"


def test_a_file_in_the_place_of_a_disk_that_was_made_is_kept(call: Any, vm: Path, home: Path) -> None:
    disk = home / "vm1.qcow2"
    assert call("create", vm)[0] == 0
    disk.unlink()
    disk.write_bytes(b"mine")  # where inodes are used again at once it has the same one
    assert json.loads(call("status", vm, "--json")[1])[0]["disk"] == {"file": str(disk), "exists": True, "made": False}
    assert call("destroy", vm)[1] == f"vm1: destroyed; its disk {disk} is kept, since `v2m create` did not make it\n"
    assert disk.read_bytes() == b"mine"


def test_a_disk_that_another_host_made_is_known_by_its_name(call: Any, vm: Path, system: System, home: Path) -> None:
    disk = home / "vm1.qcow2"
    assert call("create", vm)[0] == 0
    assert system.update("vm1", made=None).made_file is None
    assert system.update("vm1", made=str(disk)).made_file is None
    assert call("destroy", vm)[1] == f"vm1: destroyed; its disk {disk} is deleted\n"


@pytest.mark.parametrize(
    ("disk", "why"),
    [
        ("n" * 300, "File name too long"),
        ("file/vm1.qcow2", "File exists"),
        ("/proc/nope/vm1.qcow2", "No such file or directory"),
    ],
)
def test_a_disk_that_cannot_be_made_is_reported(call: Any, vm: Path, home: Path, disk: str, why: str) -> None:
    (home / "file").touch()
    vm.write_text(VM.format(name="vm1").replace("vm1.qcow2", disk), encoding="utf-8")
    status, _, err = call("create", vm)
    assert (status, err) == (20, f"the disk {home / disk} cannot be made: {why}\n")
    assert call("status", vm)[:2] == (0, "vm1: off; its disk has not been made\n")


def test_a_disk_that_cannot_be_deleted_is_reported(call: Any, vm: Path, system: System, home: Path) -> None:
    (home / "vm1.qcow2").mkdir()
    system.update("vm1", profile=str(vm), made=str(home / "vm1.qcow2"))
    status, _, err = call("destroy", vm)
    assert (status, err) == (20, f"the disk {home}/vm1.qcow2 of vm1 cannot be deleted: Is a directory\n")


def test_what_cannot_be_written_anywhere_else_is_one_sentence_too(
    call: Any, vm: Path, system: System, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(**_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", f"{system.directory}/machines.json")

    monkeypatch.setattr("oscar_steps.textio.tempfile.mkstemp", full)
    status, _, err = call("create", vm)
    assert (status, err) == (20, f"{system.directory}/machines.json: No space left on device\n")


def test_an_installation_from_a_cd_that_is_not_there_makes_no_disk(call: Any, vm: Path, home: Path) -> None:
    assert call("install", vm, "--from", "cdrom", "--cdrom", "no.iso")[0::2] == (64, "the CD no.iso is not there\n")
    assert not (home / "vm1.qcow2").exists()


def test_an_installation_that_is_not_waited_for_is_asked_for_as_one(
    call: Any, vm: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The daemon refuses it where the disk has a system; an ordinary boot it would not."""
    asked: list[dict[str, object]] = []

    class Link:
        def ask(self, request: dict[str, object]) -> dict[str, object]:
            asked.append(request)
            return {"machine": "vm1", "state": "running", "pid": None, "ssh": None}

    monkeypatch.setattr(power, "daemon_of", lambda _system, start: contextlib.nullcontext(Link() if start else None))
    assert call("install", vm, "--from", "network", "--no-wait")[0] == 0
    assert [(request["do"], request["install"], request["wait"]) for request in asked] == [
        ("install", "network", False)
    ]


class Answering:
    """A daemon that gives every request the same answer."""

    def __init__(self, **answer: object) -> None:
        self.answer = {"machine": "vm1", "state": "running", "pid": 41, "ssh": None, **answer}

    def ask(self, _request: dict[str, object]) -> dict[str, object]:
        return self.answer


def test_a_boot_says_which_accelerator_a_machine_got_and_why_where_none_was_tried(
    call: Any, vm: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    used = {"name": "tcg", "reason": "emulation; KVM was not tried", "tried": False}
    link = Answering(accelerator=used)
    monkeypatch.setattr(power, "daemon_of", lambda _system, start: contextlib.nullcontext(link if start else None))
    assert call("boot", vm) == (0, "vm1: running (process 41, tcg)\n", "vm1: emulation; KVM was not tried\n")
    used["tried"] = True
    assert call("boot", vm) == (0, "vm1: running (process 41, tcg)\n", "")
    assert json.loads(call("boot", "--json", vm)[1])[0]["accelerator"] == used


def test_shut_down_says_that_it_pressed_a_button_and_that_the_machine_still_runs(
    call: Any, vm: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(requests, "daemon_of", lambda _system, **_start: contextlib.nullcontext(Answering()))
    assert call("shut-down", vm) == (
        0,
        "vm1: running (process 41); its power button was pressed, and its guest has to do the rest "
        "(v2m power-off pulls the plug)\n",
        "",
    )
    assert call("pause", vm)[1] == "vm1: running (process 41)\n"


@pytest.mark.parametrize("words", [("boot", "vm1.xml", "--cdrom"), ("insert-cd", "vm1.xml")])
def test_what_cannot_be_a_cd_is_not_opened(call: Any, vm: Path, home: Path, words: tuple[str, ...]) -> None:
    """To open a FIFO waits for somebody who writes into it."""
    assert vm.name == "vm1.xml"
    os.mkfifo(home / "fifo")
    status, _, err = call(*words, "fifo")
    assert (status, err) == (64, "the CD fifo cannot be used: It is neither a file nor a block device\n")


@pytest.mark.parametrize("words", [("boot", "vm1.xml", "--cdrom"), ("insert-cd", "vm1.xml")])
def test_a_cd_that_cannot_be_used_is_reported(call: Any, vm: Path, words: tuple[str, ...]) -> None:
    assert vm.name == "vm1.xml"
    status, _, err = call(*words, "n" * 300)
    assert (status, err) == (64, f"the CD {'n' * 300} cannot be used: File name too long\n")


def test_a_profile_that_was_renamed_still_means_its_machine(call: Any, vm: Path, home: Path) -> None:
    assert call("create", vm)[0] == 0
    (home / "copy.xml").write_bytes(vm.read_bytes())
    assert call("destroy", home / "copy.xml")[0] == 64
    vm.unlink()
    assert call("destroy", home / "copy.xml")[1] == f"vm1: destroyed; its disk {home}/vm1.qcow2 is deleted\n"


def test_a_disk_without_a_size_cannot_be_made(call: Any, vm: Path) -> None:
    vm.write_text(VM.format(name="vm1").replace(' size="16"', ""), encoding="utf-8")
    status, _, err = call("create", vm)
    assert status == 64
    assert err.startswith(f"{vm}: the disk ")


def test_a_cd_that_is_not_there_is_reported_before_anything_is_started(call: Any, vm: Path) -> None:
    status, _, err = call("boot", vm, "--cdrom", "no.iso")
    assert (status, err) == (64, "the CD no.iso is not there\n")
    assert not System("default").log.exists()


def test_check_host_says_of_every_type_whether_it_works_here(call: Any, home: Path) -> None:
    status, out, _ = call("check-host", "--json", "--directory", home, "--memory", "1", "--cache", home / "cache")
    told = json.loads(out)
    works = {each["type"]: each["works"] for each in told["hypervisors"]}
    assert list(works) == ["Qemu", "Kvm", "Xen", "XenHVM", "VMWare", "VMM-HPC"]
    assert works["VMM-HPC"] is False
    well = all(check["ok"] for check in told["checks"]) and works["Qemu"] is not False
    assert status == (0 if well else 20)
    assert call("check-host", "--kernel", "nowhere")[0] == 64


# --- completion ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_prints_the_shells_script(call: Any, shell: str) -> None:
    status, out, _ = call("completion", shell)
    assert status == 0
    assert f"_V2M_COMPLETE={shell}_complete" in out


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("v2m un", ["unpause"]),
        ("v2m install vm1.xml --from ", ["cdrom", "network", "oscar"]),
        (f"v2m boot {SAMPLE} --machine oscarn", ["oscarnode1", "oscarnode2"]),
        ("v2m boot nowhere.xml --machine ", []),
    ],
)
def test_commands_choices_and_machines_are_completed(line: str, offered: list[str]) -> None:
    words = line.split(" ")
    environment = {"_V2M_COMPLETE": "bash_complete", "COMP_WORDS": line, "COMP_CWORD": str(len(words) - 1)}
    command = [sys.executable, "-c", "from oscar_steps.v2m import main; main()"]
    root = Path(__file__).resolve().parents[3]
    result = subprocess.run(
        command, env={**os.environ, **environment}, cwd=root, capture_output=True, text=True, check=False
    )
    assert [row.split(",", 1)[1] for row in result.stdout.split()] == offered


# --- what a daemon leaves, and one that is not as it should be -------------------------------------------------------


@pytest.fixture
def system() -> System:
    system = System("default")
    system.make()
    return system


def test_what_is_on_the_disk_is_for_its_owner_alone(system: System) -> None:
    assert system.directory.stat().st_mode & 0o777 == 0o700


def test_hosts_that_share_a_home_directory_keep_their_machines_apart(
    system: System, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = os.uname_result(("Linux", "another-host", "6.1", "1", "x86_64"))
    monkeypatch.setattr(os, "uname", lambda: other)
    assert System("default").directory.name == "default"
    assert System("default").directory.parent.name.startswith("another-host")
    assert System("default").directory.parent.parent == system.directory.parent.parent
    assert all_systems() == []


@pytest.mark.parametrize(
    ("boot", "ended"),
    [
        (ledger.boot_id(), "the v2m daemon was killed, and the machine died with it"),
        ("another-boot", "the host was rebooted"),
    ],
)
def test_machines_of_a_killed_daemon_are_marked_dead_once(
    call: Any, system: System, vm: Path, boot: str, ended: str
) -> None:
    system.update("vm1", profile=str(vm), on_since_boot=boot)
    status, out, err = call("status", vm)
    assert (status, out) == (0, f"vm1: off; {ended}; its disk has not been made\n")
    assert err == "the v2m daemon of the system default was killed; its machines died with it: vm1\n"
    assert call("status", vm)[2] == ""


def test_a_damaged_record_is_one_sentence(call: Any, system: System, vm: Path) -> None:
    (system.directory / "machines.json").write_text("{", encoding="utf-8")
    status, _, err = call("status", vm)
    assert status == 20
    assert err.startswith(f"{system.directory}/machines.json cannot be read: ")


@pytest.fixture
def silent_daemon(system: System, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """It listens, and never says a word."""
    monkeypatch.chdir(system.directory)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(system.socket.name)
        listener.listen()
        yield listener


def test_a_daemon_that_hangs_is_reported_with_its_process(
    call: Any, silent_daemon: socket.socket, vm: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "SILENCE_LIMIT", 0.3)
    assert silent_daemon.fileno() > 0
    status, _, err = call("pause", vm)
    assert status == 20
    what = f"the v2m daemon of the system default (process {os.getpid()})"
    assert err.startswith(f"timed out after 0 s waiting for {what}")


def test_a_daemon_that_dies_while_it_is_asked_is_reported(silent_daemon: socket.socket, system: System) -> None:
    def greet_and_go() -> None:
        connection, _ = silent_daemon.accept()
        connection.sendall(b'{"daemon": 1}\n')
        connection.recv(100)
        connection.close()

    threading.Thread(target=greet_and_go, daemon=True).start()
    link, dead = client.greet(system, start=False)
    assert link is not None
    assert dead == []
    with pytest.raises(HostError, match="the v2m daemon of the system default has died, and its machines with it"):
        link.ask({"do": "status"})
    link.close()


def _wait_until_unkept(system: System) -> None:
    for _ in range(100):
        if not system.is_kept():
            return
        threading.Event().wait(0.1)
    pytest.fail("the daemon does not end")


def _refused_by_the_daemon(name: str) -> str:
    """A profile that needs no hypervisor to be refused."""
    nic = "<nic1><type>VLAN</type><mac>52:54:00:00:00:01</mac></nic1></profile>"
    return VM.format(name=name).replace("<memory>", "<type>Xen</type><memory>").replace("</profile>", nic)


def test_the_daemon_runs_nothing_that_lies_beside_a_profile(call: Any, vm: Path, home: Path) -> None:
    vm.write_text(_refused_by_the_daemon("vm1"), encoding="utf-8")
    (home / "secrets.py").write_text(f"open({str(home / 'executed')!r}, 'w')\n", encoding="utf-8")
    status, _, err = call("boot", vm)
    assert not (home / "executed").exists()
    assert (status, err.splitlines()[0].startswith("vm1 is of type Xen and on a VLAN")) == (64, True)
    _wait_until_unkept(System("default"))


def test_a_deep_directory_has_a_socket_all_the_same(
    home: Path, monkeypatch: pytest.MonkeyPatch, call: Any, vm: Path
) -> None:
    """A socket's address has 107 bytes; and a daemon that powers nothing on ends by itself."""
    deep = home / ("d" * 100) / ("e" * 100)
    monkeypatch.setenv("XDG_STATE_HOME", str(deep))
    vm.write_text(_refused_by_the_daemon("vm1"), encoding="utf-8")
    status, _, err = call("boot", vm)
    assert status == 64
    assert err.startswith("vm1 is of type Xen and on a VLAN")
    system = System("default")
    _wait_until_unkept(system)
    assert not system.socket.exists()


@pytest.mark.parametrize("line", [b"[1]\n", b"7\n", b"{\n", b"[" * 100_000 + b"\n"])
def test_what_is_no_machine_that_moves_is_refused_in_one_sentence(monkeypatch: pytest.MonkeyPatch, line: bytes) -> None:
    monkeypatch.setattr(moves, "_line", lambda _descriptor: line)
    done = CliRunner().invoke(moves.receive, [])
    assert done.exit_code == 1
    assert json.loads(done.output)["error"]["sentence"].startswith(
        "the description of the incoming machine cannot be read: "
    )
