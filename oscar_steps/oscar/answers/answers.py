"""The answers for OSCAR's command-line installer, made from the definition of the cluster.

OSCAR accepts almost any answer without a word, and a wrong one mostly makes it loop for ever. So whatever can be known
to be wrong is refused here, before anything boots: values with blanks (OSCAR pastes them into shell lines), empty
values and `0` (read as 'no answer'), names and addresses that OSCAR would not make. Answers go by the labels of the
menus; their numbers are those of the OSCAR that is tested (see `menus`).
"""

from __future__ import annotations

import posixpath
import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from ipaddress import IPv4Address, IPv4Interface
from types import MappingProxyType
from typing import Any, get_args

from oscar_steps.errors import UserError
from oscar_steps.oscar import hook
from oscar_steps.oscar.answers.menuitems import BY_HAND
from oscar_steps.oscar.answers.menus import MENUS_2007, Menu, Menus
from oscar_steps.words import NodeBoot

SELECTOR_COMMANDS = ("select", "unselect", "list")
INSTALLER_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

_WORD = re.compile(r"[A-Za-z0-9_./:@%+=,-]+")
_MAC = re.compile(r"[0-9A-F]{2}(?::[0-9A-F]{2}){5}")


class AnswerKind(StrEnum):
    """The files with the installer's answers."""

    SELECTOR = "selector"
    BUILD = "build"
    DEFINE = "define"
    NETWORK = "network"
    MACS = "macs"

    def path(self, directory: str = hook.DIRECTORY) -> str:
        """Where the file is on the head node."""
        return f"{directory}/{self}.txt"


OPTIONS = {
    AnswerKind.SELECTOR: "opkgselector",
    AnswerKind.BUILD: "buildimage",
    AnswerKind.DEFINE: "defineclients",
    AnswerKind.NETWORK: "networkclients",
}
"""The option of `install_cluster` that hands the file over; the MAC file is named in the network file."""


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
    return tuple(f"{base_name}{n:0{padding}d}" for n in range(starting_number, starting_number + count))


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
    first = check_address("first_address", first_address)
    head = check_address("head_address", head_address)
    network = IPv4Interface((head, check_netmask("netmask", netmask))).network
    addresses = {name: first + index for index, name in enumerate(names)}
    for name, address in addresses.items():
        if address == head:
            raise UserError(f"{name} would get the head node's own address {head}: choose another first_address")
        if address not in network or address in (network.network_address, network.broadcast_address):
            raise UserError(
                f"{name} would get {address}, which is not a host address of the cluster's network {network}"
            )
    return {name: str(address) for name, address in addresses.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class Definition:
    """What the cluster is to be like, in the words of OSCAR's menus.

    Paths are relative to `oscar_home` or absolute; what is '' is not answered, so that OSCAR's default stays.
    """

    image_name: str
    partition_file: str
    ip_assignment: str
    post_install_action: str
    install_mode: str
    domain: str
    base_name: str
    starting_number: int
    padding: int
    head_address: str
    first_address: str
    netmask: str
    selector: Sequence[str]
    package_file: str = ""
    distro: str = ""
    repositories: str = ""
    gateway: str = ""
    uyok: bool = False
    oscar_home: str = "/opt/oscar"

    def check(self, menus: Menus) -> None:
        """Raises UserError for a value that OSCAR would not take."""
        words = ("image_name", "partition_file", "domain", "base_name", "oscar_home")
        for what in (*words, *(what for what in ("package_file", "distro", "repositories") if getattr(self, what))):
            _check_word(what, getattr(self, what))
        check_address("gateway", self.gateway or self.head_address)
        for what in ("ip_assignment", "post_install_action"):
            _check_choice(what, getattr(self, what), getattr(menus.choices, what))
        if not menus.choices.mode(self.install_mode):
            _check_choice("install_mode", self.install_mode, menus.choices.install_mode)

    def addresses(self, count: int) -> dict[str, str]:
        """Name to address of `count` nodes. Raises UserError."""
        return node_addresses(
            base_name=self.base_name,
            starting_number=self.starting_number,
            padding=self.padding,
            head_address=self.head_address,
            first_address=self.first_address,
            netmask=self.netmask,
            count=count,
        )

    def build(self) -> list[tuple[str, str]]:
        """Labels of the build menu, and the answers."""
        return [
            ("Image name", self.image_name),
            ("Package file", _below(self.oscar_home, self.package_file)),
            ("Distro", self.distro),
            ("Package Repositories", self.repositories),
            ("Disk Partition File", _below(self.oscar_home, self.partition_file)),
            ("IP Assignment Method", self.ip_assignment),
            ("Post install action", self.post_install_action),
        ]

    def define(self, count: int) -> list[tuple[str, str]]:
        """Labels of the define menu, and the answers for `count` nodes."""
        return [
            ("Image Name", self.image_name),
            ("Domain Name", self.domain),
            ("Base Name", self.base_name),
            ("Number of Hosts", str(count)),
            ("Starting Number", str(self.starting_number)),
            ("Padding", str(self.padding or "")),
            ("Starting IP", self.first_address),
            ("Subnet Mask", self.netmask),
            ("Default Gateway", self.gateway or self.head_address),
        ]


def render_answers(
    *,
    nodes: Sequence[NodeAddress],
    boot: NodeBoot,
    directory: str = hook.DIRECTORY,
    adapter: str = "eth1",
    menus: Menus = MENUS_2007,
    written: Mapping[AnswerKind, str] = MappingProxyType({}),
    **fields: Any,
) -> AnswerFiles:
    """The answer files, the MAC file and the barrier's hook for a cluster of `nodes`.

    `fields` are those of `Definition`. `nodes` must be named as OSCAR will name them, in order. `menus` are those of
    the OSCAR that is tested. `written` are files that go in place of the generated ones, as they are (`check`).
    Raises UserError, naming the value and what would be right; MenuUnreadable where a menu lacks a needed item.
    """
    definition = Definition(**fields)
    definition.check(menus)
    for what, value in (("directory", directory), ("adapter", adapter)):
        _check_word(what, value)
    _check_choice("boot", boot, get_args(NodeBoot))
    macs = _checked_macs(nodes, tuple(definition.addresses(len(nodes))))
    build, define = _pairs(menus.build, definition.build()), _pairs(menus.define, definition.define(len(nodes)))
    mac_file, hook_file = AnswerKind.MACS.path(directory), hook.hook_path(directory)
    mode = menus.choices.mode(definition.install_mode)
    lines = {
        AnswerKind.SELECTOR: _selector_lines(definition.selector),
        AnswerKind.BUILD: [*build, _number(menus.build, "Build Image")],
        AnswerKind.DEFINE: [*define, _number(menus.define, "Add Clients")],
        AnswerKind.NETWORK: _network_lines(menus.network, mode, mac_file, macs, boot, definition.uyok),
        AnswerKind.MACS: [f"{mac}\t# {name}" for name, mac in macs.items()],
    }
    files = {kind.path(directory): written.get(kind, _text(some)) for kind, some in lines.items()}
    files[hook_file] = hook.hook_text(directory)
    options = (word for kind, option in OPTIONS.items() for word in (f"--{option}", kind.path(directory)))
    arguments = ("--cli", *options, "--bootscript", hook_file, adapter)
    return AnswerFiles(files=files, arguments=arguments, executables=frozenset({hook_file}))


def _network_lines(menu: Menu, mode: str, mac_file: str, macs: Mapping[str, str], boot: str, uyok: bool) -> list[str]:
    """The order counts: the mode before it is enabled, MACs before DHCP knows them, the kernel before what boots it.

    Each node gets its MAC address by name: until 2007 'automatically' means in the order of a Perl hash, which is none.
    DHCP is configured once more where the assignment has done so, for until February 2007 it has not.
    """
    lines = [_number(menu, "Installation Mode"), mode, _number(menu, "Enable Install Mode")]
    lines += [_number(menu, "Import MACs from file"), mac_file, BY_HAND]
    lines += [line for name, mac in macs.items() for line in (mac, name)]
    lines += ["quit", _number(menu, "Configure DHCP Server")]
    lines += [_number(menu, "Enable UYOK")] if uyok else []
    lines += [_number(menu, "Build AutoInstall CD" if boot == "cdrom" else "Setup Network Boot")]
    return [*lines, _number(menu, "Finish")]


# What a checkout needs that an installed package, or a login, gives; none of it harms where it is not asked for.
_CHECKOUT = {
    # Only then does wizard_prep make OSCAR's own package repository out of the tree's packages, as `make test` would.
    "OSCAR_DEVELOPER_MODE": "1",
    "OSCAR_VERBOSE": "5",  # later versions mark their stages in the log only from this level on
    "HOSTNAME": '"$(uname -n)"',  # the kernel of UYOK is made for the server of this name
    "DISPLAY": "",  # for some weeks of 2007 it had to be there on the command line as well, with whatever in it
}


def installer_command(
    oscar_home: str, arguments: Sequence[str], *, asks_configurator: bool = False, prefixes_paths: bool = False
) -> str:
    """The shell line that runs the installer on the head node; its status is the installer's own.

    OSCAR must be started as `./install_cluster` in its own directory, checks `USER` literally, and prints no test
    result without a `TERM`. Standard input is empty, so that a question ends the run and is not waited for; but the
    configurator (`asks_configurator`), which no file can answer, is answered with quit, and wants a carriage return.

    `prefixes_paths`: it puts its own directory before every file name, so an absolute one would be wrong.
    """
    environment = {"PATH": INSTALLER_PATH, "HOME": "/root", "USER": "root", "LOGNAME": "root", "SHELL": "/bin/bash"}
    environment["TERM"] = "linux"
    settings = " ".join(f"{name}={value}" for name, value in (environment | _CHECKOUT).items())
    if prefixes_paths:
        arguments = [posixpath.relpath(word, oscar_home) if word.startswith("/") else word for word in arguments]
    program = shlex.join(["./install_cluster", *arguments])
    if asks_configurator:
        return f"cd {shlex.quote(oscar_home)} && printf 'quit\\r' | env -i {settings} {program}"
    return f"cd {shlex.quote(oscar_home)} && env -i {settings} {program} </dev/null"


def _selector_lines(selector: Sequence[str]) -> list[str]:
    """The package selector's commands. `file` would end the selector there, and anything unknown prints a help text."""
    for line in selector:
        command = line.split()[0] if line.split() else ""
        if command not in SELECTOR_COMMANDS or "\n" in line or "\r" in line:
            raise UserError(f"selector: '{line}' is not a selector command; there are: {', '.join(SELECTOR_COMMANDS)}")
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
            f"{what} is '{value}'; OSCAR takes one word of letters, digits and _ . / : @ % + = , - only, and not 0"
        )
    if value.isdigit():
        raise UserError(f"{what} is '{value}', which reads like a number of a menu; begin it with a letter")
    if what in ("oscar_home", "directory") and not value.startswith("/"):
        raise UserError(f"{what} is '{value}'; it must be an absolute path on the head node")


def _check_choice(what: str, value: str, choice: Sequence[str]) -> None:
    if value not in choice:
        raise UserError(f"{what} is '{value}'; OSCAR knows {', '.join(choice)}")


def check_netmask(what: str, value: str) -> int:
    """The length of a network mask's prefix. Raises UserError."""
    try:
        network = IPv4Interface(f"0.0.0.0/{value}").network
    except ValueError:
        network = None
    if network is None or str(network.netmask) != value:  # 24 and 0.0.0.255 are other ways to write one
        raise UserError(f"{what} '{value}' is not a network mask such as 255.255.255.0")
    return network.prefixlen


def check_address(what: str, value: str) -> IPv4Address:
    """`value` as an address. Raises UserError."""
    try:
        return IPv4Address(value)
    except ValueError:
        raise UserError(f"{what} is '{value}', which is not an IPv4 address") from None


def _below(oscar_home: str, path: str) -> str:
    return path if not path or path.startswith("/") else f"{oscar_home.rstrip('/')}/{path}"


def _number(menu: Menu, label: str) -> str:
    return str(menu.number(label))


def _pairs(menu: Menu, answers: Iterable[tuple[str, str]]) -> list[str]:
    """A menu number and, on the very next line, its value: OSCAR takes whatever comes after a number as the value."""
    return [line for label, value in answers if value for line in (_number(menu, label), value)]


def _text(lines: Iterable[str]) -> str:
    return "".join(f"{line}\n" for line in lines)
