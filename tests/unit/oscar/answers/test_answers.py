"""Answer files: what OSCAR is answered, and what is refused because OSCAR would loop or do something else."""

from __future__ import annotations

import os
import posixpath
import shlex
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from oscar_steps.errors import UserError
from oscar_steps.oscar.answers.answers import AnswerKind, NodeAddress, installer_command, node_addresses, render_answers
from oscar_steps.oscar.answers.menuitems import MenuStage
from oscar_steps.oscar.answers.menus import MENUS_2007, Choices, Menu, MenuUnreadable

ANSWERS: dict[str, Any] = {
    "image_name": "oscarimage",
    "partition_file": "oscarsamples/scsi.disk",
    "ip_assignment": "static",
    "post_install_action": "shutdown",
    "install_mode": "systemimager-rsync",
    "domain": "oscardomain",
    "base_name": "oscarnode",
    "starting_number": 1,
    "padding": 0,
    "head_address": "10.0.0.1",
    "first_address": "10.0.0.2",
    "netmask": "255.255.255.0",
    "selector": ("unselect ganglia",),
    "nodes": (NodeAddress("oscarnode1", "52:54:00:00:00:1a"), NodeAddress("oscarnode2", "52:54:00:00:00:12")),
    "boot": "cdrom",
}


def values(text: str) -> list[str]:
    return text.split("\n")


def test_the_files_are_what_the_installer_accepts() -> None:
    files = render_answers(**ANSWERS).files
    assert values(files["/root/farm/build.txt"]) == [
        *("1", "oscarimage", "5", "/opt/oscar/oscarsamples/scsi.disk", "6", "static", "7", "shutdown", "8", "")
    ]
    assert values(files["/root/farm/define.txt"]) == [
        *("1", "oscarimage", "2", "oscardomain", "3", "oscarnode", "4", "2", "5", "1"),
        *("7", "10.0.0.2", "8", "255.255.255.0", "9", "10.0.0.1", "10", ""),
    ]
    assert values(files["/root/farm/network.txt"]) == [
        *("3", "systemimager-rsync", "4", "1", "/root/farm/macs.txt", "2"),
        *("52:54:00:00:00:1A", "oscarnode1", "52:54:00:00:00:12", "oscarnode2", "quit", "6", "8", "10", ""),
    ]
    assert values(files["/root/farm/macs.txt"]) == [
        "52:54:00:00:00:1A\t# oscarnode1",
        "52:54:00:00:00:12\t# oscarnode2",
        "",
    ]
    assert values(files["/root/farm/selector.txt"])[-2:] == ["unselect ganglia", ""]


def test_booting_over_the_network_is_another_menu_number() -> None:
    assert values(render_answers(**ANSWERS | {"boot": "network"}).files["/root/farm/network.txt"])[-3:] == [
        "9",
        "10",
        "",
    ]


def test_every_option_names_a_file_that_is_there_and_the_adapter_comes_last() -> None:
    rendered = render_answers(**ANSWERS)
    options = dict(zip(rendered.arguments[1:-1:2], rendered.arguments[2:-1:2], strict=True))
    assert rendered.arguments[0] == "--cli" and rendered.arguments[-1] == "eth1"
    assert sorted(options) == ["--bootscript", "--buildimage", "--defineclients", "--networkclients", "--opkgselector"]
    assert set(options.values()) <= set(rendered.files)
    assert rendered.mode(options["--bootscript"]) == 0o755
    assert rendered.mode(options["--buildimage"]) == 0o644


def test_no_file_has_carriage_returns_or_lacks_its_last_line_end() -> None:
    for text in render_answers(**ANSWERS).files.values():
        assert "\r" not in text and text.endswith("\n")


def test_padding_makes_names_and_is_answered() -> None:
    nodes = tuple(NodeAddress(f"n{n:03d}", f"52:54:00:00:00:{n:02x}") for n in range(9, 12))
    changed = {"nodes": nodes, "base_name": "n", "padding": 3, "starting_number": 9, "partition_file": "/root/x.disk"}
    files = render_answers(**ANSWERS | changed).files
    assert values(files["/root/farm/define.txt"])[8:12] == ["5", "9", "6", "3"]
    assert values(files["/root/farm/build.txt"])[3] == "/root/x.disk"


def test_addresses_count_up_from_the_first() -> None:
    found = node_addresses(
        base_name="oscarnode",
        starting_number=1,
        padding=0,
        head_address="10.0.0.1",
        first_address="10.0.0.2",
        netmask="255.255.255.0",
        count=2,
    )
    assert found == {"oscarnode1": "10.0.0.2", "oscarnode2": "10.0.0.3"}


def test_ten_nodes_need_no_padding_for_each_gets_its_address_by_name() -> None:
    ten = tuple(NodeAddress(f"oscarnode{n}", f"52:54:00:00:00:{n:02x}") for n in range(1, 11))
    network = values(render_answers(**ANSWERS | {"nodes": ten}).files["/root/farm/network.txt"])
    assert network[6:10] == ["52:54:00:00:00:01", "oscarnode1", "52:54:00:00:00:02", "oscarnode2"]
    assert network[24:27] == ["52:54:00:00:00:0A", "oscarnode10", "quit"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"nodes": ()}, "at least one compute node"),
        ({"nodes": (NodeAddress("node1", "52:54:00:00:00:11"),)}, "'node1', but OSCAR will call it 'oscarnode1'"),
        ({"nodes": (NodeAddress("oscarnode1", "52-54-00-00-00-11"),)}, "is not of the form"),
        ({"nodes": (ANSWERS["nodes"][0], NodeAddress("oscarnode2", "52:54:00:00:00:1A"))}, "belongs to another node"),
        ({"image_name": ""}, "image_name is ''"),
        ({"image_name": "my image"}, "one word"),
        ({"image_name": "0"}, "not 0"),
        ({"base_name": "#node"}, "base_name is '#node'"),
        ({"domain": "a\r"}, "domain is"),
        ({"starting_number": 0}, "starts at 1"),
        ({"padding": -1}, "padding is -1"),
        ({"ip_assignment": "bogus"}, "OSCAR knows static, dhcp, replicant"),
        ({"post_install_action": "sleep"}, "OSCAR knows reboot, shutdown"),
        ({"install_mode": "carrier-pigeon"}, "OSCAR knows systemimager-rsync"),
        ({"boot": "floppy"}, "OSCAR knows cdrom, network"),
        ({"first_address": "10.0.0.1"}, "the head node's own address"),
        ({"first_address": "10.0.1.2"}, "not a host address of the cluster's network 10.0.0.0/24"),
        ({"first_address": "10.0.0.254"}, "oscarnode2 would get 10.0.0.255"),
        ({"first_address": "here"}, "not an IPv4 address"),
        ({"netmask": "255.0.255.0"}, "not a network mask"),
        ({"netmask": "24"}, "not a network mask"),
        ({"netmask": "0.0.0.255"}, "not a network mask"),
        ({"gateway": "router"}, "gateway is 'router', which is not an IPv4 address"),
        ({"image_name": "5"}, "reads like a number of a menu"),
        ({"distro": "debian 4"}, "distro is 'debian 4'"),
        ({"selector": ("quit",)}, "is not a selector command; there are: "),
        ({"selector": ("",)}, "is not a selector command; there are: "),
        ({"directory": "farm"}, "absolute path"),
    ],
)
def test_what_oscar_would_choke_on_is_refused_with_a_sentence(change: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError) as caught:
        render_answers(**ANSWERS | change)
    assert words in caught.value.sentence
    assert "\n" not in caught.value.sentence


def test_the_installer_is_started_in_its_own_directory_as_root_on_a_terminal_type() -> None:
    line = installer_command("/opt/oscar", ("--cli", "eth1"))
    assert line.startswith("cd /opt/oscar && env -i PATH=/")
    assert line.endswith(" ./install_cluster --cli eth1 </dev/null")
    for setting in (" USER=root ", " HOME=/root ", " TERM=linux "):
        assert setting in line


def test_the_installer_gets_what_a_checkout_needs_and_a_package_does_not(tmp_path: Path) -> None:
    (tmp_path / "install_cluster").write_text("#!/bin/sh\nenv\n")
    (tmp_path / "install_cluster").chmod(0o755)
    line = installer_command(str(tmp_path), ("--cli", "eth1"))
    ended = subprocess.run(["sh", "-c", line], capture_output=True, text=True, check=True)
    seen = dict(row.partition("=")[::2] for row in ended.stdout.splitlines())
    assert "OSCAR_DEVELOPER_MODE" in seen, "wizard_prep makes the package repository of the tree only in this mode"
    assert seen["HOSTNAME"] == os.uname().nodename
    assert seen["DISPLAY"] == "" and seen["OSCAR_VERBOSE"] == "5"


@pytest.mark.parametrize("home", ["/opt/oscar", "/srv/a/b/c/oscar"])
def test_an_oscar_that_puts_its_directory_before_every_file_gets_files_that_bear_it(home: str) -> None:
    words = ("--cli", "--bootscript", "/root/farm/hook", "eth1")
    line = installer_command(home, words, prefixes_paths=True)
    program = shlex.split(line.partition("./install_cluster ")[2].partition(" <")[0])
    assert (program[0], program[1], program[3]) == ("--cli", "--bootscript", "eth1")
    assert posixpath.normpath(f"{home}/{program[2]}") == "/root/farm/hook"
    assert " --bootscript /root/farm/hook eth1 " in installer_command(home, words)


def test_the_configurator_is_told_to_quit_where_this_oscar_asks(tmp_path: Path) -> None:
    (tmp_path / "install_cluster").write_text("#!/bin/sh\nod -c | head -1; echo $*; exit 7\n")
    (tmp_path / "install_cluster").chmod(0o755)
    line = installer_command(str(tmp_path), ("--cli", "eth1"), asks_configurator=True)
    ended = subprocess.run(["sh", "-c", line], capture_output=True, text=True, check=False)
    assert ended.stdout.split("\n")[:2] == ["0000000   q   u   i   t  \\r", "--cli eth1"]
    assert ended.returncode == 7


def test_what_is_not_asked_for_is_not_answered() -> None:
    asked = {"package_file": "oscarsamples/my.rpmlist", "distro": "debian-4-x86_64", "repositories": "/a,/b"}
    build = values(render_answers(**ANSWERS | asked).files["/root/farm/build.txt"])
    assert build[2:8] == ["2", "/opt/oscar/oscarsamples/my.rpmlist", "3", "debian-4-x86_64", "4", "/a,/b"]
    define = values(render_answers(**ANSWERS | {"gateway": "10.0.0.254"}).files["/root/farm/define.txt"])
    assert define[-4:] == ["9", "10.0.0.254", "10", ""]
    network = values(render_answers(**ANSWERS | {"uyok": True}).files["/root/farm/network.txt"])
    assert network[-4:] == ["7", "8", "10", ""]


def test_the_words_are_those_of_this_oscar() -> None:
    menus = replace(MENUS_2007, choices=Choices(post_install_action=("beep", "reboot")))
    with pytest.raises(UserError, match="post_install_action is 'shutdown'; OSCAR knows beep, reboot"):
        render_answers(**ANSWERS, menus=menus)


def test_an_item_that_this_oscar_lacks_is_missed_only_where_it_is_needed() -> None:
    numbers = {label: number for label, number in MENUS_2007.define.numbers.items() if label != "Padding"}
    menus = replace(MENUS_2007, define=Menu(MenuStage.DEFINE, numbers))
    render_answers(**ANSWERS, menus=menus)
    nodes = (NodeAddress("oscarnode01", "52:54:00:00:00:01"),)
    with pytest.raises(MenuUnreadable, match="the menu of the step 'define' has no item 'Padding'"):
        render_answers(**ANSWERS | {"padding": 2, "nodes": nodes}, menus=menus)


def test_files_written_by_hand_go_as_they_are() -> None:
    rendered = render_answers(**ANSWERS, written={AnswerKind.NETWORK: "10\n"})
    assert rendered.files["/root/farm/network.txt"] == "10\n"
    assert set(rendered.files) == set(render_answers(**ANSWERS).files)
