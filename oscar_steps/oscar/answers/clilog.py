"""Recordings of an interactive installation (`tmp/STAGE.PID.clilog`), read, shown as labels, and used again.

A recording is what was typed, under a commented copy of the menu. It cannot be fed back as it is: an empty line means
'keep' when typed and 'nothing' when read from a file, a rejected answer comes before the right one, and of the network
menu the answers to its questions (mode, method, MACs) are not recorded at all. So a recording is read into a definition
(the fields of `Answers`), and the answer files are made anew from that, for the OSCAR and the cluster at hand.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath

from oscar_steps.errors import RecordingUnusable
from oscar_steps.oscar.answers.answers import SELECTOR_COMMANDS, AnswerKind
from oscar_steps.oscar.answers.menuitems import NUMBERED, MenuStage, find, mode_of
from oscar_steps.oscar.answers.menus import IP_ASSIGNMENTS, POST_INSTALL_ACTIONS, Menu

SUFFIX = ".clilog"

FIELDS: dict[MenuStage, dict[str, str]] = {
    MenuStage.BUILD: {
        "Image name": "image_name",
        "Disk Partition File": "partition_file",
        "IP Assignment Method": "ip_assignment",
        "Post install action": "post_install_action",
    },
    MenuStage.DEFINE: {
        "Image Name": "image_name",
        "Domain Name": "domain",
        "Base Name": "base_name",
        "Starting Number": "starting_number",
        "Padding": "padding",
        "Starting IP": "first_address",
        "Subnet Mask": "netmask",
    },
    MenuStage.NETWORK: {"Installation Mode": "install_mode"},
}
"""Label to field of `Answers`: taken from the answer or, where none was given, from the default in the menu."""

TYPED_FIELDS: dict[MenuStage, dict[str, str]] = {
    MenuStage.BUILD: {
        "Package file": "package_file",
        "Distro": "distro",
        "Package Repositories": "repositories",
    },
    MenuStage.DEFINE: {"Default Gateway": "gateway"},
    MenuStage.NETWORK: {},
}
"""The same, but only where somebody typed it: the defaults are those of the machine that was recorded."""

_ASKED_AGAIN = {"IP Assignment Method": IP_ASSIGNMENTS, "Post install action": POST_INSTALL_ACTIONS, "Distro": ()}
_LAST = {MenuStage.BUILD: "Build Image", MenuStage.DEFINE: "Add Clients", MenuStage.NETWORK: "Finish"}
_KINDS = {
    "selector": AnswerKind.SELECTOR,
    "build": AnswerKind.BUILD,
    "define": AnswerKind.DEFINE,
    "mac": AnswerKind.NETWORK,
    "network": AnswerKind.NETWORK,
}


@dataclass(frozen=True, slots=True)
class Answered:
    """One answer of a recording. `value` is None for an item that takes none, and where it was not recorded."""

    line: int
    label: str
    value: str | None = None
    lost: str = ""
    """What the recording does not have of this answer."""

    def __str__(self) -> str:
        text = self.label if self.value is None else f"{self.label}: {self.value}"
        return f"{text}   (lost: {self.lost})" if self.lost else text


@dataclass(frozen=True, slots=True)
class Recording:
    """A recording as labels. `defaults` are the values that the menu showed before the first answer."""

    kind: AnswerKind
    name: str
    answers: tuple[Answered, ...]
    defaults: Mapping[str, str]

    def value(self, label: str) -> Answered | None:
        """The last answer to `label`."""
        return next((one for one in reversed(self.answers) if one.label == label and one.value is not None), None)


def read_recording(name: str, text: str) -> Recording:
    """A recording as labels; `name` is its file, whose beginning says which step it is of.

    Raises RecordingUnusable where it has no menu to read its numbers by, or ends before its step did.
    """
    kind = _KINDS.get(PurePosixPath(name).name.split(".")[0])
    if kind is None:
        raise RecordingUnusable(f"{name}: a recording is called selector, build, define or mac, then .PID{SUFFIX}")
    lines = [(number, line.rstrip("\r")) for number, line in enumerate(text.removesuffix("\n").split("\n"), start=1)]
    if kind is AnswerKind.SELECTOR:
        return Recording(kind, name, tuple(_selector(name, lines)), {})
    stage = MenuStage(kind.value)
    groups = _groups(stage, lines)
    if not groups:
        raise RecordingUnusable(
            f"{name}:1: the commented menu of the step '{stage}' is missing, so that nobody knows what its numbers mean"
        )
    read = _network if stage is MenuStage.NETWORK else _pairs
    answers = tuple(read(stage, groups))
    last = next((one for one in reversed(answers) if one.label in (_LAST[stage], "Quit")), None)
    if last is None or last.label == "Quit":
        at = last.line if last else len(lines)
        raise RecordingUnusable(f"{name}:{at}: the recording ends without '{_LAST[stage]}': the step was not done")
    return Recording(kind, name, answers, groups[0].defaults)


def show(recording: Recording) -> list[str]:
    """A recording as lines for people."""
    lines = [f"{recording.name} ({recording.kind})"]
    lines += [f"  {one}" for one in recording.answers]
    kept = [(label, value) for label, value in recording.defaults.items() if value and recording.value(label) is None]
    return lines + [f"  {label}: {value}   (the default, kept)" for label, value in kept]


def definition(recordings: Iterable[Recording], given: Mapping[str, object]) -> dict[str, object]:
    """Fields of `Answers` that the recordings say; those in `given` are not looked for, for they are said otherwise.

    What belongs to the virtual cluster is left to it: number of nodes, MAC addresses, way of booting.
    Raises RecordingUnusable where a recording has lost what is needed, or two contradict each other.
    """
    found: dict[str, object] = {}
    where: dict[str, str] = {}
    for recording in recordings:
        for field, value, line in _fields(recording, given):
            if field in given:
                continue
            if found.get(field, value) != value:
                raise RecordingUnusable(
                    f"{recording.name}:{line}: {field} is '{value}', but {where[field]} has '{found[field]}'",
                    hint=f"set {field} in the answers file: it goes before recordings",
                )
            found[field], where[field] = value, f"{recording.name}:{line}"
    return found


def _fields(recording: Recording, given: Mapping[str, object]) -> Iterable[tuple[str, object, int]]:
    if recording.kind is AnswerKind.SELECTOR:
        yield "selector", tuple(str(one.value) for one in recording.answers), 1
        return
    stage = MenuStage(recording.kind.value)
    for label, field in (FIELDS[stage] | TYPED_FIELDS[stage]).items():
        answer = recording.value(label)
        lost = next((one for one in reversed(recording.answers) if one.label == label), None)
        if lost and lost.lost and field not in given:
            raise RecordingUnusable(
                f"{recording.name}:{lost.line}: '{label}' was changed here, but {lost.lost} is not recorded",
                hint=f"set {field} in the answers file",
            )
        value = answer.value if answer else recording.defaults.get(label, "") if label in FIELDS[stage] else ""
        if value:
            line = answer.line if answer else 1
            yield field, _portable(field, value, f"{recording.name}:{line}"), line
    if stage is MenuStage.NETWORK and sum(one.label == "Enable UYOK" for one in recording.answers) % 2:
        yield "uyok", True, next(one.line for one in recording.answers if one.label == "Enable UYOK")


def _portable(field: str, value: str, where: str) -> object:
    """The value without what belongs to the recorded machine: paths below its OSCAR become relative."""
    if field in ("starting_number", "padding"):
        if not re.fullmatch(r"[0-9]{1,9}", value):
            raise RecordingUnusable(f"{where}: {field} is '{value}', which is not a number")
        return int(value)
    if field in ("partition_file", "package_file") and "/oscarsamples/" in value:
        return "oscarsamples/" + value.split("/oscarsamples/", 1)[1]
    return value


def _selector(name: str, lines: list[tuple[int, str]]) -> Iterable[Answered]:
    """The commands that change something: the rest (list, help, mistakes) was for the eyes of who typed it."""
    for number, line in lines:
        words = line.split()
        if not words or line.startswith("#"):
            continue
        if words[0] in ("file", "\\q"):
            why = "what that file said is not recorded" if words[0] == "file" else "with it the step failed"
            raise RecordingUnusable(f"{name}:{number}: '{line}' cannot be used again: {why}")
        if words[0] in SELECTOR_COMMANDS and words[0] != "list":
            yield Answered(number, words[0], " ".join(words))


@dataclass(frozen=True, slots=True)
class _Group:
    """A commented menu and what was typed until the next one."""

    menu: Menu
    defaults: Mapping[str, str]
    typed: tuple[tuple[int, str], ...]


def _groups(stage: MenuStage, lines: list[tuple[int, str]]) -> list[_Group]:
    groups: list[_Group] = []
    key: list[tuple[int, str]] = []
    typed: list[tuple[int, str]] = []
    for number, line in [*lines, (0, "#")]:
        if not line.startswith("#"):
            typed.append((number, line))
            continue
        if typed or number == 0:
            numbers, defaults = _key(stage, key)
            if len(numbers) > 1:
                groups.append(_Group(Menu(stage, numbers), defaults, tuple(typed)))
            key, typed = [], []
        key.append((number, line))
    return groups


def _key(stage: MenuStage, lines: list[tuple[int, str]]) -> tuple[dict[str, int], dict[str, str]]:
    """Label to number, and label to the value that the menu showed."""
    numbers: dict[str, int] = {}
    defaults: dict[str, str] = {}
    for _, line in lines:
        match = NUMBERED.fullmatch(line.lstrip("#"))
        if match and (item := find(stage, match[2])):
            numbers[item.label] = int(match[1])
            if item.takes_value:
                defaults[item.label] = match[2].partition(":")[2].strip()
    return numbers, defaults


def _pairs(_: MenuStage, groups: list[_Group]) -> Iterable[Answered]:
    """Build and define: a number, then its value; nothing typed means that the old value stayed."""
    menu = groups[0].menu
    typed = [one for group in groups for one in group.typed]
    at = 0
    while at < len(typed):
        line, text = typed[at]
        at += 1
        number = re.match(r"\s*([0-9]{1,9})", text)
        item = menu.item(int(number[1])) if number else None
        if item is None:
            continue  # rejected, and asked for again
        if not item.takes_value:
            yield Answered(line, item.label)
            continue
        if at == len(typed):
            yield Answered(line, item.label, lost="its value")
            continue
        at += 1
        while _rejected(item.label, typed[at - 1][1]) and at < len(typed) and not re.match(r"\s*[0-9]", typed[at][1]):
            at += 1
        line, value = typed[at - 1]
        if value and not (_ASKED_AGAIN.get(item.label) and _rejected(item.label, value)):
            yield Answered(line, item.label, value)


def _rejected(label: str, value: str) -> bool:
    """Whether OSCAR asked again: it did where it has a list of words and the answer was none of them."""
    return bool(value) and label in _ASKED_AGAIN and value not in _ASKED_AGAIN[label]


def _network(_: MenuStage, groups: list[_Group]) -> Iterable[Answered]:
    """The menu is recorded before every answer to it, and the next one shows the mode that was not recorded."""
    for index, group in enumerate(groups):
        line, text = group.typed[0] if group.typed else (0, "")
        item = group.menu.item(int(text)) if re.fullmatch(r"[1-9][0-9]?", text) else None
        rest = [value for _, value in group.typed[1:] if value]
        if item is None:
            continue
        if item.label == "Installation Mode":
            later = [g.defaults["Installation Mode"] for g in groups[index + 1 : index + 2] if g.defaults]
            mode = next((word for word in (*rest, *later) if mode_of(word)), None)
            yield Answered(line, item.label, mode, "" if mode else "the new mode")
        elif item.takes_value:
            path = rest[-1] if rest else None
            yield Answered(line, item.label, path, "how the MACs were assigned")
        else:
            yield Answered(line, item.label)
