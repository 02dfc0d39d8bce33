"""A checker for answer files that were written by hand.

OSCAR accepts nearly anything without a word: it loops for ever, takes an answer for a question, or drops it. Whatever
does one of these is a problem here, with file and line, before a virtual machine has been started.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from oscar_steps.errors import UserError
from oscar_steps.oscar.answers.answers import (
    OPTIONS,
    SELECTOR_COMMANDS,
    AnswerKind,
    check_address,
    check_netmask,
    node_names,
)
from oscar_steps.oscar.answers.menuitems import ASSIGNMENT_METHODS, Item
from oscar_steps.oscar.answers.menus import MENUS_2007, Menu, Menus

CORE_PACKAGES = ("apitest", "base", "c3", "oda", "rapt", "sc3", "sis", "switcher", "sync_files", "yume")

_WORD = re.compile(r"[A-Za-z0-9_./:@%+=,-]+")
_MAC = re.compile(r"[0-9A-Fa-f]{1,2}(?::[0-9A-Fa-f]{1,2}){5}")
_MAC_RUN = re.compile(r"\s*([0-9A-Fa-f:]{11,17})")  # what OSCAR of 2007 takes for a MAC
_NUMERIC = ("Number of Hosts", "Starting Number", "Padding")
_PATHS = ("Package file", "Disk Partition File")


@dataclass(frozen=True, slots=True)
class AnswerFile:
    """An answer file: what it is for, what errors call it, and its text."""

    kind: AnswerKind
    name: str
    text: str


@dataclass(frozen=True, slots=True)
class Problem:
    """Something in an answer file that OSCAR would choke on. `line` counts from 1; `hangs`: OSCAR would never end."""

    file: str
    line: int
    sentence: str
    hangs: bool = False

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.sentence}"


@dataclass(frozen=True, slots=True)
class Expected:
    """The cluster that the files are for, where it is known."""

    nodes: tuple[str, ...]
    macs: tuple[str, ...]
    """In the order of `nodes`."""
    first_address: str
    boot: str
    """'cdrom' or 'network'."""
    image_name: str


def check_answers(
    *files: AnswerFile, menus: Menus = MENUS_2007, expected: Expected | None = None, complete: bool = False
) -> tuple[Problem, ...]:
    """Every problem of the files, in the order of files and lines; () for files that OSCAR takes as they are meant.

    The numbers are those of `menus`. `complete`: these are all files there are, so that what is missing is a problem.
    """
    given = {file.kind: file for file in files}
    facts = _Facts(menus, expected)
    problems: list[Problem] = []
    for kind, check in _CHECKS.items():
        if kind in given:
            check(_Check(given[kind], problems), facts)
        elif complete:
            problems.append(Problem(f"{kind}.txt", 1, *_missing(kind)))
    return tuple(dict.fromkeys(problems))


def _missing(kind: AnswerKind) -> tuple[str, bool]:
    if kind is AnswerKind.MACS:
        return "there is no file with the nodes' MAC addresses: no node would get an address", False
    return f"there is no such file: without --{OPTIONS[kind]} OSCAR asks, and at an empty input it asks for ever", True


@dataclass
class _Facts:
    """What the files say so far; later files must agree with earlier ones."""

    menus: Menus
    expected: Expected | None
    image: str | None = None
    nodes: tuple[str, ...] = ()
    macs: tuple[str, ...] | None = None


@dataclass
class _Check:
    """One file under examination: its lines, and what is found."""

    file: AnswerFile
    problems: list[Problem]
    lines: list[str] = field(init=False)

    def __post_init__(self) -> None:
        text = self.file.text
        at = text.find("\r")
        if at >= 0:
            ends = "'10' is not understood with it, and OSCAR loops for ever" if self._is_network else "it is garbage"
            line = text.count("\n", 0, at) + 1
            self.say(line, f"there is a carriage return; {ends}: save the file with LF line ends", self._is_network)
        self.lines = text.replace("\r", "").removesuffix("\n").split("\n") if text else []

    @property
    def _is_network(self) -> bool:
        return self.file.kind is AnswerKind.NETWORK

    def say(self, line: int, sentence: str, hangs: bool = False) -> None:
        self.problems.append(Problem(self.file.name, max(line, 1), sentence, hangs))

    def answers(self) -> Iterator[tuple[int, str]]:
        """Lines that OSCAR does not skip, with their numbers."""
        for number, line in enumerate(self.lines, start=1):
            if line not in ("", "0") and not line.startswith("#"):
                yield number, line

    def word(self, line: int, what: str, value: str) -> bool:
        """Whether `value` is one that OSCAR can paste into a shell line."""
        if not _WORD.fullmatch(value):
            self.say(line, f"{what} '{value}' is not one word of letters, digits and _ . / : @ % + = , -")
        return _WORD.fullmatch(value) is not None


@dataclass(frozen=True)
class _Given:
    """The values that a build or define file gives (label to line and value), and the item that ended it."""

    values: Mapping[str, tuple[int, str]]
    end: Item | None
    end_line: int

    def value(self, label: str, default: str = "") -> str:
        return self.values.get(label, (0, default))[1]


def _walk(check: _Check, menu: Menu) -> _Given:
    """Read a build or define file as OSCAR does: a number, and the very next line is its value."""
    values: dict[str, tuple[int, str]] = {}
    taken = 0
    for line, text in check.answers():
        if line <= taken:
            continue
        number = re.match(r"\s*([0-9]{1,9})", text)
        if not re.fullmatch(r"[0-9]{1,9}", text):
            reads = f"OSCAR reads {int(number[1])}" if number else "OSCAR ignores it"
            check.say(line, f"'{text}' stands where a number of the menu is expected, and {reads}: one number a line")
        item = menu.item(int(number[1])) if number else None
        if number and item is None:
            check.say(line, f"{menu.file} has no item {number[1]} in this menu, and OSCAR ignores it silently")
        if item and not item.takes_value:
            for later, rest in check.answers():
                if later > line:
                    check.say(later, f"'{rest}' is never read: '{item.label}' in line {line} ends the file")
                    break
            return _Given(values, item, line)
        if item:
            taken = line + 1
            if _value(check, item, taken, line):
                values[item.label] = (taken, check.lines[taken - 1])
    return _Given(values, None, len(check.lines))


def _value(check: _Check, item: Item, line: int, asked: int) -> bool:
    """Whether there is a usable value for `item` in `line`, as OSCAR takes it: literally."""
    if line > len(check.lines):
        check.say(asked, f"the file ends where the value of '{item.label}' is expected: add it, or remove this line")
        return False
    value = check.lines[line - 1]
    if value == "":
        check.say(line, f"OSCAR sets '{item.label}' to nothing here: give a value, or remove line {asked} and this one")
    elif value.startswith("#"):
        check.say(line, f"OSCAR takes this comment as the value of '{item.label}': comments stand before a number only")
    elif item.label in _NUMERIC:
        if re.fullmatch(r"[0-9]{1,9}", value):
            return True
        check.say(line, f"'{item.label}' is '{value}', which is not a number")
    elif value.isdigit():
        check.say(line, f"'{item.label}' is '{value}', a number: is its value missing? What follows would be shifted")
    elif item.label in _PATHS and not value.startswith("/"):
        check.say(line, f"'{item.label}' is '{value}'; give an absolute path on the head node")
    else:
        return check.word(line, item.label, value)
    return False


def _check_selector(check: _Check, _: _Facts) -> None:
    for line, text in check.answers():
        words = text.split() or [""]
        packages = [word for word in words[1:] if word != "-q"]
        rest = any(number > line for number, _ in check.answers())
        if words[0] == "file":
            check.say(line, "OSCAR reads no line after 'file', and asks for ever where that file is missing", True)
        elif words[0] == "\\q":
            check.say(line, "'\\q' makes the step fail: leave it out, the file's end ends the step")
        elif words[0] in ("quit", "exit"):
            if rest:
                check.say(line, f"'{words[0]}' has no effect in a file: the lines after it are executed all the same")
        elif words[0] not in SELECTOR_COMMANDS:
            check.say(line, f"'{text}' is not a command of the selector, which knows {', '.join(SELECTOR_COMMANDS)}")
        elif words[0] != "list" and len(packages) != 1:
            check.say(line, f"'{text}': '{words[0]}' takes one package: {words[0]} NAME")
        elif words[0] == "unselect" and packages[0] in CORE_PACKAGES:
            check.say(line, f"'{packages[0]}' is a core package: OSCAR refuses to unselect it, and goes on")


def _check_build(check: _Check, facts: _Facts) -> None:
    given = _walk(check, facts.menus.build)
    choices = facts.menus.choices
    for label, words in (
        ("IP Assignment Method", choices.ip_assignment),
        ("Post install action", choices.post_install_action),
    ):
        line, value = given.values.get(label, (0, ""))
        if line and value not in words:
            check.say(line, f"'{label}' is '{value}', and OSCAR silently keeps its own: it knows {', '.join(words)}")
    build = facts.menus.build.number("Build Image")
    if given.end is None:
        check.say(given.end_line, f"the file ends without {build} ('Build Image'): nothing is built, and nothing fails")
    elif given.end.label != "Build Image":
        check.say(given.end_line, f"'{given.end.label}' ends the step without an image: end with {build} instead")
    if "Disk Partition File" not in given.values:
        number = facts.menus.build.number("Disk Partition File")
        check.say(1, f"'Disk Partition File' is not answered; OSCAR guesses by the head node's disk: give {number}")
    facts.image = given.value("Image name", "oscarimage")
    if facts.expected and facts.image != facts.expected.image_name:
        line = given.values.get("Image name", (1, ""))[0]
        check.say(line, f"the image is called '{facts.image}', but image_name says '{facts.expected.image_name}'")


def _check_define(check: _Check, facts: _Facts) -> None:
    given = _walk(check, facts.menus.define)
    line, image = given.values.get("Image Name", (0, ""))
    if line and facts.image is not None and image != facts.image:
        check.say(line, f"there is no image '{image}', and OSCAR waits for another for ever: use '{facts.image}'", True)
    if given.end and given.end.label != "Add Clients":
        number = facts.menus.define.number("Add Clients")
        check.say(given.end_line, f"'{given.end.label}' ends the step without a client: end with {number} instead")
    for label, least in (("Number of Hosts", 1), ("Starting Number", 1)):
        line, value = given.values.get(label, (0, str(least)))
        if int(value) < least:
            check.say(line, f"'{label}' is {value}; OSCAR needs {least} or more")
    _check_addresses(check, given)
    count = int(given.value("Number of Hosts", "1"))
    number_line = given.values.get("Number of Hosts", (1, ""))[0]
    if 1 <= count <= 4096:
        try:
            facts.nodes = node_names(
                base_name=given.value("Base Name", "oscarnode"),
                starting_number=max(int(given.value("Starting Number", "1")), 1),
                padding=min(int(given.value("Padding", "0")), 9),
                count=count,
            )
        except UserError as error:
            check.say(number_line, error.sentence + (f": {error.hint}" if error.hint else ""))
    elif count > 4096:
        check.say(number_line, f"'Number of Hosts' is {count}; the farm defines 4096 at most")
    _check_cluster(check, given, facts)


def _check_cluster(check: _Check, given: _Given, facts: _Facts) -> None:
    """The clients are the compute nodes of the virtual cluster."""
    if not facts.expected:
        return
    if facts.nodes and facts.nodes != facts.expected.nodes:
        wanted, made = (f"{len(n)} from {n[0]} to {n[-1]}" for n in (facts.expected.nodes, facts.nodes))
        line = given.values.get("Number of Hosts", given.values.get("Base Name", (1, "")))[0]
        check.say(line, f"OSCAR would define {made}; the virtual cluster has {wanted}")
    line, first = given.values.get("Starting IP", (0, ""))
    if line and first != facts.expected.first_address:
        check.say(line, f"'Starting IP' is {first}, but first_address says {facts.expected.first_address}")


def _check_addresses(check: _Check, given: _Given) -> None:
    for label in ("Starting IP", "Subnet Mask", "Default Gateway"):
        line, value = given.values.get(label, (0, ""))
        if line:
            try:
                (check_netmask if label == "Subnet Mask" else check_address)(label, value)
            except UserError as error:
                check.say(line, error.sentence)


def _check_macs(check: _Check, facts: _Facts) -> None:
    macs: dict[str, int] = {}
    for line, text in enumerate(check.lines, start=1):
        if not text.strip() or text.lstrip().startswith("#"):
            continue
        run = _MAC_RUN.match(text)
        if run is None or not _MAC.fullmatch(run[1]):
            check.say(line, f"'{text.split()[0]}' is not a MAC address that OSCAR takes: write it as 52:54:00:00:00:11")
            continue
        mac = ":".join(f"{int(octet, 16):02X}" for octet in run[1].split(":"))
        if mac == "00:00:00:00:00:00":
            check.say(line, "00:00:00:00:00:00 is dropped silently: give the node's own MAC address")
        elif mac in macs:
            check.say(line, f"{mac} is in line {macs[mac]} already, and is dropped silently")
        else:
            macs[mac] = line
    facts.macs = tuple(macs)
    last = len(check.lines)
    if facts.nodes and len(macs) != len(facts.nodes):
        what = "some nodes get none" if len(macs) < len(facts.nodes) else "those left over are dropped silently"
        check.say(last, f"{len(macs)} MAC addresses for {len(facts.nodes)} nodes: {what}")
    for node, mac, wanted in zip(facts.nodes, macs, facts.expected.macs if facts.expected else (), strict=False):
        if mac != wanted.upper():
            check.say(macs[mac], f"{node} would get {mac}; in the virtual cluster its NIC has {wanted.upper()}")
            break


def _check_network(check: _Check, facts: _Facts) -> None:
    _NetworkWalk(check, facts).walk()


class _NetworkWalk:
    """Reads a network file as OSCAR does: every line, also an answer to a question, comes after the same filter."""

    def __init__(self, check: _Check, facts: _Facts) -> None:
        self.check, self.facts, self.menu = check, facts, facts.menus.network
        self._lines = check.answers()
        self.imports = 0
        self.enabled, self.dynamic, self.dhcp = False, True, False
        self.boots: set[str] = set()
        self.of_2006 = "Delete MACs" not in self.menu.numbers
        """OSCAR before February 2007: 'automatically' means in any order, and only its own item configures DHCP."""

    def _next(self, what: str, right: str) -> tuple[int, str] | None:
        """The next line, without blanks at its ends (which are a problem: OSCAR compares all of it)."""
        found = next(self._lines, None)
        if found is None:
            last = len(self.check.lines)
            self.check.say(last, f"the file ends where {what} is expected, and OSCAR loops for ever: {right}", True)
            return None
        line, text = found
        if text != text.strip():
            self.check.say(line, f"'{text}' has blanks at its ends, with which OSCAR does not understand it", True)
        return line, text.strip()

    def walk(self) -> None:
        finish = self.menu.number("Finish")
        right = f"end the file with {finish} ('Finish')"
        while answer := self._next("a number of the menu", right):
            line, text = answer
            item = self.menu.item(int(text)) if re.fullmatch(r"[1-9][0-9]?", text) else None
            if item is None:
                self.check.say(
                    line, f"'{text}' is not an item of {self.menu.file}'s menu, and OSCAR ignores it silently"
                )
            elif item.label == "Finish":
                for later, rest in self._lines:
                    self.check.say(later, f"'{rest}' is never read: '{item.label}' in line {line} ends the file")
                    break
                self._conclude(line)
                return
            elif not self._action(item, line):
                return

    def _action(self, item: Item, line: int) -> bool:
        """Follow one item. False where OSCAR would not come out of it any more."""
        match item.label:
            case "Import MACs from file":
                return self._import(line)
            case "Installation Mode":
                return self._mode()
            case "Delete MACs":
                self.check.say(line, "'Delete MACs' does nothing in OSCAR: leave it out")
            case "Enable Install Mode":
                self.enabled = True
            case "Dynamic DHCP update":
                self.dynamic = not self.dynamic
            case "Configure DHCP Server":
                if not self.enabled:
                    number = self.menu.number("Enable Install Mode")
                    self.check.say(line, f"OSCAR refuses and goes on: '{item.label}' needs {number} before it")
                self.dhcp = True
            case "Build AutoInstall CD":
                self.boots.add("cdrom")
            case "Setup Network Boot":
                self.boots.add("network")
        return True

    def _mode(self) -> bool:
        modes = self.facts.menus.choices.install_mode
        if (answer := self._next("an installation mode", f"one of {', '.join(modes)}")) is None:
            return False
        line, mode = answer
        if mode not in modes:
            known = ", ".join(modes)
            self.check.say(
                line, f"'{mode}' is not an installation mode, and OSCAR waits for one for ever: {known}", True
            )
            return False
        return True

    def _import(self, line: int) -> bool:
        """The path and, only where the file had a MAC that is not known yet, the method."""
        self.imports += 1
        if self.imports > 1:
            what = "a second import finds no unassigned MACs, and the line after its path is taken as a number"
            self.check.say(line, f"{what}: import once")
            return False
        if (answer := self._next("the path of the MAC file", AnswerKind.MACS.path())) is None:
            return False
        at, path = answer
        if not self._is_mac_file(at, path):
            return False
        methods = "1 (automatically), 2 (by hand) or 3 (not at all)"
        if (answer := self._next("the method of assignment", methods)) is None:
            return False
        at, method = answer
        if method not in ("1", "2", "3"):
            self.check.say(at, f"'{method}' is not a method of assignment, and OSCAR loops for ever: {methods}", True)
            return False
        if method == "3":
            self.check.say(at, f"'{ASSIGNMENT_METHODS[2]}' leaves the nodes without MAC addresses: 1 assigns them")
        if method == "1" and self.of_2006 and len(self.facts.nodes) > 1:
            self.check.say(
                at, "this OSCAR assigns automatically in no order, so that nodes may swap: 2 assigns by hand"
            )
        return method != "2" or self._by_hand()

    def _is_mac_file(self, line: int, path: str) -> bool:
        there = AnswerKind.MACS.path()
        if not path.startswith("/") or (self.facts.macs is not None and path != there):
            what = f"there is no '{path}' on the head node, so that all later answers are shifted"
            self.check.say(line, f"{what}: the farm puts the MAC file to {there}")
        elif self.facts.macs == ():
            self.check.say(line, f"'{path}' has no MAC address, so that the next line is not taken as the method")
        else:
            return self.check.word(line, "the path of the MAC file", path)
        return False

    def _by_hand(self) -> bool:
        """Pairs of MAC and node until 'quit'. What OSCAR does not know it asks for again, of the next line."""
        done: dict[str, int] = {}
        while answer := self._next("a MAC address", "end the assignments with 'quit'"):
            line, mac = answer
            if mac == "quit":
                break
            if mac in done or (self.facts.macs is not None and mac not in self.facts.macs):
                self.check.say(
                    line, f"'{mac}' is not an unassigned MAC, written as 52:54:00:00:00:1A: OSCAR asks again"
                )
                return False
            if (answer := self._next("a node's name", "end the assignments with 'quit'")) is None:
                return False
            line, node = answer
            if self.facts.nodes and node not in self.facts.nodes:
                self.check.say(line, f"there is no node '{node}'; there are: {', '.join(self.facts.nodes[:4])} ...")
                return False
            done[mac] = line
        else:
            return False
        if self.facts.nodes and len(done) < len(self.facts.nodes):
            self.check.say(line, f"only {len(done)} of {len(self.facts.nodes)} nodes get a MAC address")
        return True

    def _conclude(self, line: int) -> None:
        cd, pxe = (self.menu.number(label) for label in ("Build AutoInstall CD", "Setup Network Boot"))
        numbers = {"cdrom": f"{cd} ('Build AutoInstall CD')", "network": f"{pxe} ('Setup Network Boot')"}
        wanted = self.facts.expected.boot if self.facts.expected else ""
        if wanted and wanted not in self.boots:
            self.check.say(line, f"nodes boot by {wanted}, but nothing prepares that: add {numbers[wanted]} before")
        elif not self.boots:
            self.check.say(line, f"nodes have nothing to boot from: add {numbers['cdrom']} or {numbers['network']}")
        if not self.imports:
            number = self.menu.number("Import MACs from file")
            self.check.say(line, f"no MAC address is imported ({number}): no node would get an address")
        elif not self.dhcp and (self.of_2006 or not self.dynamic):
            number = self.menu.number("Configure DHCP Server")
            why = "in this OSCAR" if self.of_2006 else "with 'Dynamic DHCP update' off"
            self.check.say(line, f"{why} nothing configures DHCP: add {number} before")


_CHECKS = {
    AnswerKind.SELECTOR: _check_selector,
    AnswerKind.BUILD: _check_build,
    AnswerKind.DEFINE: _check_define,
    AnswerKind.MACS: _check_macs,
    AnswerKind.NETWORK: _check_network,
}
