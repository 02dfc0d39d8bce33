"""What OSCAR's command-line installer is answered, made from the definition of the cluster.

OSCAR accepts almost any answer without a word, and a wrong one mostly makes it loop for ever. So whatever can be known
to be wrong is refused here, before anything boots: values with blanks (OSCAR pastes them into shell lines), empty
values and `0` (read as 'no answer'), names and addresses that OSCAR would not make.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Interface
from typing import Literal

from oscar_steps.errors import UserError
from oscar_steps.oscar import hook

IP_ASSIGNMENTS = ("static", "dhcp", "replicant")
POST_INSTALL_ACTIONS = ("reboot", "shutdown", "beep", "kexec")
INSTALL_MODES = ("systemimager-rsync", "systemimager-multicast", "systemimager-bt")
SELECTOR_COMMANDS = ("select", "unselect", "list")
INSTALLER_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

_WORD = re.compile(r"[A-Za-z0-9_./:@%+=-]+")
_MAC = re.compile(r"[0-9A-F]{2}(?::[0-9A-F]{2}){5}")


@dataclass(frozen=True, slots=True)
class NodeAddress:
    """A compute node as the virtual cluster has it: its name and the MAC of its NIC on the private network."""

    name: str
    mac: str


@dataclass(frozen=True, slots=True)
class AnswerFiles:
    """Files for the head node (absolute path to text), and the options that `install_cluster` is started with."""

    files: Mapping[str, str]
    arguments: tuple[str, ...]
    executables: frozenset[str]

    def mode(self, path: str) -> int:
        """Permissions of one of the files: the hook must be executable, or OSCAR gives up at the barrier."""
        return 0o755 if path in self.executables else 0o644


def node_names(*, base_name: str, starting_number: int, padding: int, count: int) -> tuple[str, ...]:
    """The names that OSCAR gives `count` nodes. Raises UserError where OSCAR would not do what was asked for."""
    if count < 1:
        raise UserError("a cluster needs at least one compute node; OSCAR refuses to define none")
    if starting_number < 1:
        raise UserError(
            f"starting_number is {starting_number}; OSCAR reads 0 as 'no answer' and starts at 1: use 1 or more"
        )
    if padding < 0:
        raise UserError(f"padding is {padding}; it is a number of digits: use 0 or more")
    names = tuple(f"{base_name}{n:0{padding}d}" for n in range(starting_number, starting_number + count))
    if sorted(names) != list(names):
        digits = len(str(starting_number + count - 1))
        raise UserError(
            f"{count} nodes from {names[0]} on with padding {padding} do not sort in the order of their numbers, and "
            f"OSCAR gives MAC addresses to nodes in the order of names",
            hint=f"set padding to {digits}: {base_name}{starting_number:0{digits}d} and so on",
        )
    return names


def node_addresses(
    *,
    base_name: str,
    starting_number: int,
    padding: int,
    head_address: str,
    first_address: str,
    netmask: str,
    count: int,
) -> dict[str, str]:
    """Name to IP address of each of `count` nodes, as OSCAR defines them. Raises UserError."""
    names = node_names(base_name=base_name, starting_number=starting_number, padding=padding, count=count)
    first = _address("first_address", first_address)
    head = _address("head_address", head_address)
    try:
        network = IPv4Interface(f"{head}/{netmask}").network
    except ValueError:
        raise UserError(f"netmask '{netmask}' is not a network mask such as 255.255.255.0") from None
    addresses = {name: first + index for index, name in enumerate(names)}
    for name, address in addresses.items():
        if address == head:
            raise UserError(f"{name} would get the head node's own address {head}: choose another first_address")
        if address not in network or address in (network.network_address, network.broadcast_address):
            raise UserError(f"{name} would get {address}, which is no host address of the cluster's network {network}")
    return {name: str(address) for name, address in addresses.items()}


def render_answers(
    *,
    image_name: str,
    partition_file: str,
    ip_assignment: str,
    post_install_action: str,
    install_mode: str,
    domain: str,
    base_name: str,
    starting_number: int,
    padding: int,
    head_address: str,
    first_address: str,
    netmask: str,
    selector: Sequence[str],
    nodes: Sequence[NodeAddress],
    boot: Literal["cdrom", "network"],
    oscar_home: str = "/opt/oscar",
    directory: str = hook.DIRECTORY,
    adapter: str = "eth1",
) -> AnswerFiles:
    """The answer files, the MAC file and the barrier's hook for a cluster of `nodes`.

    `partition_file` is relative to `oscar_home` or absolute. `nodes` must be named as OSCAR will name them, in order.
    Raises UserError, naming the value and what would be right.
    """
    words = {"image_name": image_name, "partition_file": partition_file, "domain": domain, "base_name": base_name}
    words |= {"oscar_home": oscar_home, "directory": directory, "adapter": adapter}
    for what, value in words.items():
        _check_word(what, value)
    for what, value, choice in (
        ("ip_assignment", ip_assignment, IP_ASSIGNMENTS),
        ("post_install_action", post_install_action, POST_INSTALL_ACTIONS),
        ("install_mode", install_mode, INSTALL_MODES),
        ("boot", boot, ("cdrom", "network")),
    ):
        if value not in choice:
            raise UserError(f"{what} is '{value}'; OSCAR knows {', '.join(choice)}")
    addresses = node_addresses(
        base_name=base_name,
        starting_number=starting_number,
        padding=padding,
        head_address=head_address,
        first_address=first_address,
        netmask=netmask,
        count=len(nodes),
    )
    macs = _checked_macs(nodes, tuple(addresses))
    if not partition_file.startswith("/"):
        partition_file = f"{oscar_home.rstrip('/')}/{partition_file}"

    build = [(1, image_name), (5, partition_file), (6, ip_assignment), (7, post_install_action)]
    define: list[tuple[int, str]] = [(1, image_name), (2, domain), (3, base_name), (4, str(len(nodes)))]
    define += [(5, str(starting_number)), *([(6, str(padding))] if padding else [])]
    define += [(7, first_address), (8, netmask), (9, head_address)]
    mac_file, hook_file = f"{directory}/macs.txt", hook.hook_path(directory)
    network = ["3", install_mode, "4", "1", mac_file, "1", "8" if boot == "cdrom" else "9", "10"]

    stages = {
        "opkgselector": ("selector", _selector_lines(selector)),
        "buildimage": ("build", [*_pairs(build), "8"]),
        "defineclients": ("define", [*_pairs(define), "10"]),
        "networkclients": ("network", network),
    }
    files = {f"{directory}/{name}.txt": _text(lines) for name, lines in stages.values()}
    files[mac_file] = _text(f"{mac}\t# {name}" for name, mac in macs.items())
    files[hook_file] = hook.hook_text(directory)
    arguments = ["--cli"]
    for option, (name, _) in stages.items():
        arguments += [f"--{option}", f"{directory}/{name}.txt"]
    arguments += ["--bootscript", hook_file, adapter]
    return AnswerFiles(files=files, arguments=tuple(arguments), executables=frozenset({hook_file}))


def installer_command(oscar_home: str, arguments: Sequence[str]) -> str:
    """The shell line that runs the installer on the head node; its status is the installer's own.

    OSCAR must be started as `./install_cluster` in its own directory, checks `USER` literally, and prints no test
    result without a `TERM`. Standard input is empty, so that a question ends the run and is not waited for.
    """
    environment = {"PATH": INSTALLER_PATH, "HOME": "/root", "USER": "root", "LOGNAME": "root", "SHELL": "/bin/bash"}
    environment["TERM"] = "linux"
    settings = " ".join(f"{name}={value}" for name, value in environment.items())
    program = shlex.join(["./install_cluster", *arguments])
    return f"cd {shlex.quote(oscar_home)} && env -i {settings} {program} </dev/null"


def _selector_lines(selector: Sequence[str]) -> list[str]:
    """The package selector's commands. `file` would end the selector there, and anything unknown prints a help text."""
    for line in selector:
        command = line.split()[0] if line.split() else ""
        if command not in SELECTOR_COMMANDS or "\n" in line or "\r" in line:
            raise UserError(
                f"selector: '{line}' is none of the package selector's commands {', '.join(SELECTOR_COMMANDS)}"
            )
    return ["# every other package stays as the default set has it", *(" ".join(line.split()) for line in selector)]


def _checked_macs(nodes: Sequence[NodeAddress], expected: Sequence[str]) -> dict[str, str]:
    """Name to MAC in the order of the nodes, after a check that OSCAR will name the nodes the same way."""
    macs: dict[str, str] = {}
    for index, (node, name) in enumerate(zip(nodes, expected, strict=True), start=1):
        if node.name != name:
            raise UserError(
                f"compute node {index} of the cluster profile is called '{node.name}', but OSCAR will call it '{name}'",
                hint="name the nodes of the cluster profile in the order of their numbers, or change base_name, "
                "starting_number and padding in the answers",
            )
        mac = node.mac.upper()
        if not _MAC.fullmatch(mac) or mac == "00:00:00:00:00:00":
            raise UserError(f"{name}: MAC address '{node.mac}' is not of the form 52:54:00:00:00:11")
        if mac in macs.values():
            raise UserError(f"{name}: MAC address '{node.mac}' belongs to another node of the cluster already")
        macs[name] = mac
    return macs


def _check_word(what: str, value: str) -> None:
    """OSCAR skips lines that are empty, `0` or begin with '#', and pastes values into shell lines without quotes."""
    if not _WORD.fullmatch(value) or value == "0":
        raise UserError(
            f"{what} is '{value}'; OSCAR takes one word of letters, digits and _ . / : @ % + = - only, and not 0"
        )
    if what in ("oscar_home", "directory") and not value.startswith("/"):
        raise UserError(f"{what} is '{value}'; it must be an absolute path on the head node")


def _address(what: str, value: str) -> IPv4Address:
    try:
        return IPv4Address(value)
    except ValueError:
        raise UserError(f"{what} is '{value}', which is not an IPv4 address") from None


def _pairs(items: Iterable[tuple[int, str]]) -> list[str]:
    """A menu number and, on the very next line, its value: OSCAR takes whatever comes after a number as the value."""
    return [line for number, value in items for line in (str(number), value)]


def _text(lines: Iterable[str]) -> str:
    return "".join(f"{line}\n" for line in lines)
