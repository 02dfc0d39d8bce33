"""V2M's command line on profiles: what it prints, and how it ends."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from oscar_steps import v2m

PROFILES = Path(__file__).parents[1] / "v3m" / "profiles" / "corpus"
SAMPLE = Path(__file__).resolve().parents[3] / "profiles" / "clusters" / "head-and-two-nodes.xml"
HEADNODE = PROFILES / "valid" / "mission-2-headnode.xml"
WRONG = PROFILES / "invalid" / "type-in-lower-case.xml"


class Said:
    """What one call printed, and its exit status."""

    def __init__(self, status: int, out: str, err: str) -> None:
        self.status, self.out, self.err = status, out, err


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    def run(*words: str | Path) -> Said:
        monkeypatch.setattr(sys, "argv", ["v2m", *map(str, words)])
        with pytest.raises(SystemExit) as end:
            v2m.main()
        captured = capsys.readouterr()
        return Said(int(end.value.code or 0), captured.out, captured.err)

    return run


def test_valid_files_are_named_with_what_they_hold(call: Any) -> None:
    said = call("validate", HEADNODE, SAMPLE, PROFILES / "valid" / "set-of-two.xml")
    assert said.status == 0
    assert said.out.splitlines() == [
        f"{HEADNODE}: valid: 1 VM: oscar-headnode",
        f"{SAMPLE}: valid: a cluster: oscar-headnode, oscarnode1, oscarnode2",
        f"{PROFILES}/valid/set-of-two.xml: valid: 2 VMs: a, b",
    ]


def test_every_file_is_checked_although_an_earlier_one_is_wrong(call: Any, tmp_path: Path) -> None:
    said = call("validate", WRONG, HEADNODE, tmp_path / "nothing.xml")
    assert said.status == 64
    assert said.out == f"{HEADNODE}: valid: 1 VM: oscar-headnode\n"
    first, second = said.err.splitlines()
    assert first.startswith(f"{WRONG}:5:3: the type 'qemu' is not known; there are: Qemu, Kvm")
    assert second == f"{tmp_path}/nothing.xml: the profile cannot be read: No such file or directory"


def test_a_script_gets_file_line_and_column(call: Any, tmp_path: Path) -> None:
    said = call("validate", "--json", WRONG, HEADNODE, tmp_path)
    assert (said.status, said.err) == (64, "")
    wrong, valid, unreadable = json.loads(said.out)
    assert (wrong["valid"], wrong["error"]["line"], wrong["error"]["column"]) == (False, 5, 3)
    assert wrong["error"]["sentence"].startswith(f"{WRONG}:5:3: ")
    assert valid == {
        "file": str(HEADNODE),
        "valid": True,
        "what": "profiles",
        "names": ["oscar-headnode"],
        "error": None,
    }
    assert unreadable["error"] == {
        "line": None,
        "column": None,
        "sentence": f"{tmp_path}: the profile cannot be read: it is a directory",
    }


def test_the_old_word_still_validates(call: Any) -> None:
    assert call(HEADNODE, "--validate-profile").out == f"{HEADNODE}: valid: 1 VM: oscar-headnode\n"
    assert call(WRONG, "--validate-profile").status == 64


@pytest.mark.parametrize("command", ["validate", "show"])
def test_no_file_at_all_is_a_wrong_command_line(call: Any, command: str) -> None:
    said = call(command)
    assert said.status == 2
    assert "Missing argument 'FILE" in said.err


def test_show_is_a_table_of_the_machines_and_of_what_each_becomes(call: Any) -> None:
    said = call("show", SAMPLE)
    assert (said.status, said.err) == (0, "")
    assert "cluster head-and-two-nodes: nodes are installed from cdrom, 2048 MiB of memory in all" in said.out
    for name in ("oscar-headnode", "oscarnode1", "oscarnode2"):
        assert f"{name} becomes qemu-system-x86_64" in said.out
    assert re.search(r"nic2: the VLAN +-device virtio-net-pci,netdev=net1,mac=52:54:00:00:00:02,", said.out)
    assert "cdrom" not in said.out.split("oscarnode1 becomes")[1]


def test_show_install_is_the_boot_that_installs(call: Any) -> None:
    machines = json.loads(call("show", "--json", "--install", SAMPLE).out)["machines"]
    has_cd = ["the CD in its drive" in [part["for"] for part in each["becomes"]["parts"]] for each in machines]
    assert has_cd == [False, True, True]


def test_show_as_json_has_every_value_and_the_command_line(call: Any) -> None:
    said = json.loads(call("show", "--json", HEADNODE).out)
    (machine,) = said.pop("machines")
    becomes = machine.pop("becomes")
    assert said == {"kind": "profiles"}
    assert machine == {
        "role": "vm",
        "name": "oscar-headnode",
        "type": "Qemu",
        "option": None,
        "cpu": 1,
        "memory_mib": 256,
        "architecture": None,
        "machine": None,
        "firmware": None,
        "boot": [],
        "image": {"path": "/home/somebody/qemu/images/oscar-headnode.img", "size_mib": 5000, "bus": "ide"},
        "virtual_disks": [],
        "cdrom": None,
        "nics": [
            {"type": "TUN/TAP", "mac": "00:01:02:03:04:05", "vlan": None, "option": None},
            {"type": "VLAN", "mac": "00:01:02:03:04:06", "vlan": None, "option": None},
        ],
    }
    assert becomes["program"] == "qemu-system-x86_64"
    assert {"for": "processors, memory, clock", "arguments": ["-smp", "1", "-m", "256", "-rtc", "base=utc"]} in becomes[
        "parts"
    ]


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("type-vmware", "test is a VMware guest, whose disks are files that end in .vmdk"),
        ("ours-firmware-machine-architecture", "test cannot boot from the network: it has no NIC of type VLAN"),
        ("everything-of-1.0", "all names the host's interface 'eth2' to bridge (option), but this host"),
    ],
)
def test_what_cannot_be_started_here_is_shown_with_the_reason(call: Any, name: str, why: str) -> None:
    said = call("show", PROFILES / "valid" / f"{name}.xml")
    assert said.status == 0
    assert f"cannot be started here: {why}" in said.out


def test_show_is_what_boot_starts(call: Any, tmp_path: Path) -> None:
    """Files beside the profile, disks that outlive a crash of the host, a line to who holds the VLANs."""
    text = HEADNODE.read_text(encoding="utf-8")
    path = tmp_path / "vms" / "head.xml"
    path.parent.mkdir()
    path.write_text(re.sub(r"<image([^>]*)>[^<]*<", r"<image\1>head.img<", text), encoding="utf-8")
    (machine,) = json.loads(call("show", "--json", path).out)["machines"]
    arguments = [argument for part in machine["becomes"]["parts"] for argument in part["arguments"]]
    (drive,) = (argument for argument in arguments if argument.startswith("if=none,id=disk0"))
    assert f"file={path.parent}/head.img" in drive
    assert "cache=writeback" in drive
    assert any(argument.startswith("stream,id=line1,server=off") for argument in arguments)
    path.write_text(path.read_text().replace("Qemu", "XenHVM"), encoding="utf-8")
    assert f'<source file="{path.parent}/head.img"/>' in call("show", path).out


def test_show_of_a_wrong_file_is_one_sentence(call: Any) -> None:
    said = call("show", WRONG)
    assert (said.status, said.out) == (64, "")
    assert len(said.err.splitlines()) == 1


@pytest.mark.parametrize("command", ["validate", "show"])
def test_help_has_examples_and_exit_statuses(call: Any, command: str) -> None:
    out = call(command, "--help").out
    assert re.search(rf"Examples:\n +v2m {command} ", out)
    assert re.search(r"Exit status:\n +0 ", out)


@pytest.mark.parametrize("path", sorted(PROFILES.glob("valid/*.xml")), ids=lambda path: path.stem)
def test_every_valid_profile_can_be_shown_as_it_is_written(call: Any, path: Path) -> None:
    for words in ((), ("--install",)):
        said = call("show", path, *words)
        assert (said.status, said.err) == (0, "")
        names = [machine["name"] for machine in json.loads(call("show", "--json", path, *words).out)["machines"]]
        assert all(name in said.out for name in names)


def test_a_terminal_without_the_names_letters_gets_them_as_escapes() -> None:
    path = PROFILES / "valid" / "encoding-latin-1.xml"
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    words = [sys.executable, "-c", "from oscar_steps.v2m import main; main()", "show", str(path)]
    said = subprocess.run(words, env=environment, capture_output=True, text=True, check=True)
    assert r"t\xeate" in said.stdout


def test_a_file_whose_name_is_no_text_can_be_reported(call: Any, tmp_path: Path) -> None:
    path = tmp_path / "\udcff.xml"
    path.write_bytes(HEADNODE.read_bytes())
    assert "\N{REPLACEMENT CHARACTER}.xml: valid: 1 VM" in call("validate", path).out
    path.write_bytes(b"")
    assert call("validate", path).status == 64


@pytest.mark.parametrize("command", ["create", "validate", "show"])
def test_the_name_of_a_file_stays_on_its_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    monkeypatch.setattr(sys, "argv", ["v2m", command, str(tmp_path / "a\nb.xml")])
    with pytest.raises(SystemExit):
        v2m.main()
    caught = capsys.readouterr()
    assert len((caught.out + caught.err).splitlines()) == 1
