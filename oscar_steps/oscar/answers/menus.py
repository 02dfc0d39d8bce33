"""The numbers of OSCAR's menus, read out of the Perl sources of the very OSCAR that is tested.

A menu is looked for as printed lines (`print "3)  Distro: $distro\\n"`), here-documents, tables (`3 => 'Distro'`,
`'Distro' => 3`, `[3, 'Distro']`) and, where nothing has a number, as a plain list of labels, whose order counts. What
is found in more than one way must agree. Nothing is guessed: a label that is missing, or ambiguous, is an error.
"""

from __future__ import annotations

import difflib
import re
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import islice, pairwise

from oscar_steps.errors import Finding
from oscar_steps.oscar.answers.menuitems import (
    INSTALL_MODES,
    ITEMS,
    NUMBERED,
    Item,
    MenuStage,
    find,
    item,
    mode_of,
    plain,
)
from oscar_steps.oscar.answers.wordlists import word_lists

IP_ASSIGNMENTS = ("static", "dhcp", "replicant")
POST_INSTALL_ACTIONS = ("reboot", "shutdown", "beep", "kexec")

KNOWN_FILES: dict[MenuStage, tuple[str, ...]] = {
    MenuStage.BUILD: ("src/cli/build_oscar_image_cli", "scripts/cli/build_oscar_image_cli"),
    MenuStage.DEFINE: ("src/cli/define_oscar_clients_cli", "scripts/cli/define_oscar_clients_cli"),
    MenuStage.NETWORK: ("lib/OSCAR/CLI_MAC.pm", "lib/OSCAR/MAC.pm"),
}
"""Where OSCARs of 2006 to today have their menus."""

_MENU_FILE = re.compile(r"(.*/)?((cli|scripts)/[^/]+|[^/]*[_-]cli|lib/.*\.pm)")

_AT_LEAST = 3  # so many known labels make a menu; fewer are a coincidence


class MenuUnreadable(Finding):
    """A menu of this OSCAR is missing, lacks an item, or has it twice: what would be answered is not known.

    `at`: the line of OSCAR's sources that shows it, where there is one.
    """

    def __init__(self, sentence: str, *, hint: str = "", at: Place | None = None) -> None:
        super().__init__(sentence, hint=hint, category="answers")
        self.at = at


@dataclass(frozen=True, slots=True)
class Place:
    """Where a menu has an item: file, line, and its own words."""

    file: str
    line: int
    text: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"


@dataclass(frozen=True, slots=True)
class Menu:
    """One menu: label (as in `menuitems`) to number. `places` says where each was read; empty for the built-in one."""

    stage: MenuStage
    numbers: Mapping[str, int]
    places: Mapping[str, Place] = field(default_factory=dict)

    @property
    def file(self) -> str:
        """The file that it was read in."""
        return next((place.file for place in self.places.values()), "OSCAR of 2007")

    def number(self, label: str) -> int:
        """The number to type for `label`. Raises MenuUnreadable where this OSCAR's menu has no such item."""
        if label in self.numbers:
            return self.numbers[label]
        raise MenuUnreadable(
            f"{self.file}: the menu of the step '{self.stage}' has no item '{label}', which this cluster's answers need"
        )

    def item(self, number: int) -> Item | None:
        """The item that `number` stands for; None where the farm knows of none."""
        return next((item(self.stage, label) for label, at in self.numbers.items() if at == number), None)


@dataclass(frozen=True, slots=True)
class Choices:
    """The words that OSCAR accepts where it has a list of them."""

    ip_assignment: tuple[str, ...] = IP_ASSIGNMENTS
    post_install_action: tuple[str, ...] = POST_INSTALL_ACTIONS
    install_mode: tuple[str, ...] = INSTALL_MODES

    def mode(self, wanted: str) -> str:
        """The word by which this OSCAR knows the installation mode `wanted`; '' where it has none."""
        same = (word for word in self.install_mode if mode_of(word) and mode_of(word) == mode_of(wanted))
        return wanted if wanted in self.install_mode else next(same, "")


@dataclass(frozen=True, slots=True)
class Menus:
    """All three menus of one OSCAR."""

    build: Menu
    define: Menu
    network: Menu
    choices: Choices = Choices()
    asks_configurator: bool = False
    """Whether step 2 asks at the terminal, as it has since June 2008; then standard input has to end it."""

    def of(self, stage: MenuStage) -> Menu:
        return {MenuStage.BUILD: self.build, MenuStage.DEFINE: self.define, MenuStage.NETWORK: self.network}[stage]


def _built_in(*lacking: str) -> Menus:
    """The menus of June 2007 without the items `lacking`, whose successors move up."""

    def menu(stage: MenuStage) -> Menu:
        labels = [one.label for one in ITEMS[stage] if one.label not in lacking]
        return Menu(stage, {label: number for number, label in enumerate(labels, start=1)})

    return Menus(menu(MenuStage.BUILD), menu(MenuStage.DEFINE), menu(MenuStage.NETWORK))


MENUS_2007 = _built_in()
"""The menus of June 2007: what is assumed until an OSCAR has been checked out."""

LAYOUTS = (MENUS_2007, _built_in("Delete MACs"))
"""All layouts that OSCAR has had: June 2007 and later, and 2006."""


def is_menu_file(path: str) -> bool:
    """Whether `path`, relative to the OSCAR tree, may hold a menu: also where none has been until now."""
    return _MENU_FILE.fullmatch(path) is not None


def read_menus(files: Mapping[str, str]) -> Menus:
    """The menus in an OSCAR tree; `files` maps paths relative to the tree (see `is_menu_file`) to their text.

    Raises MenuUnreadable, with file, line and label, for what is missing or ambiguous.
    """
    cleaned = {path: _without_comments(text[:_LONGEST_SOURCE]) for path, text in files.items()}
    lines = {path: _menu_lines(path, text) for path, text in cleaned.items()}
    build, define, network = (_read_menu(stage, lines) for stage in MenuStage)
    choices = Choices(
        ip_assignment=_words(cleaned, build.file, "ways to assign addresses", {"static", "dhcp"}.issubset),
        post_install_action=_words(cleaned, build.file, "actions after the installation", {"reboot", "beep"}.issubset),
        install_mode=_words(cleaned, network.file, "installation modes", lambda words: any(map(mode_of, words))),
    )
    asks = any("configurator_cli" in text for path, text in cleaned.items() if path.endswith("main_cli"))
    return Menus(build, define, network, choices, asks)


def _words(files: Mapping[str, str], file: str, what: str, fits: Callable[[Iterable[str]], bool]) -> tuple[str, ...]:
    """The words of the first list that `fits`, of all there are. Raises MenuUnreadable where there is none."""
    if found := next((one for one in word_lists(files, file) if fits(one.words)), None):
        return found.words
    lists = word_lists(files, file)
    sentence = (
        f"{file}: no list of the {what} that this OSCAR accepts was found here or in {len(files) - 1} other files"
    )
    if made := next((one for one in lists if not one.whole and what.split()[-1].rstrip("s") in one.variable), None):
        sentence = f"{made.file}:{made.line}: OSCAR makes its {what} when it runs, from files outside its tree"
    hint = "such a list is looked for as `@words = qw(one two)`; see oscar_steps/oscar/answers/wordlists.py"
    raise MenuUnreadable(sentence, hint=hint)


@dataclass(frozen=True, slots=True)
class _Line:
    """Something that may be a line of a menu: `block` tells one menu of a file from another."""

    number: int
    label: str
    place: Place
    block: int = 0


def _read_menu(stage: MenuStage, files: Mapping[str, list[_Line]]) -> Menu:
    menus = {path: lines for path, lines in files.items() if len(_labels(stage, lines)) >= _AT_LEAST}
    known = [path for path in KNOWN_FILES[stage] if path in menus]
    best = max((len(_labels(stage, lines)) for lines in menus.values()), default=0)
    paths = known or sorted(path for path, lines in menus.items() if len(_labels(stage, lines)) == best)
    if not paths:
        there = [path for path in KNOWN_FILES[stage] if path in files]
        raise MenuUnreadable(
            f"{there[0]}: no menu of the step '{stage}' is recognised in it"
            if there
            else f"this OSCAR has no menu of the step '{stage}': looked for {' and '.join(KNOWN_FILES[stage])}, and "
            f"for a menu with items such as '{ITEMS[stage][0].label}' in {len(files)} other files",
            hint="a menu's line looks like `3)  Distro`; oscar_steps/oscar/answers/menuitems.py lists the labels",
        )
    resolved = [_resolve(stage, path, menus[path]) for path in paths]
    for one, other in pairwise(zip(paths, resolved, strict=True)):
        different = dict(one[1].numbers.items() ^ other[1].numbers.items())
        if different:
            label = min(different)
            places = " and ".join(str(menu.places.get(label, path)) for path, menu in (one, other))
            raise MenuUnreadable(f"two menus of the step '{stage}' differ in '{label}': {places}")
    return resolved[0]


def _labels(stage: MenuStage, lines: Iterable[_Line]) -> set[str]:
    return {known.label for line in lines if (known := find(stage, line.label))}


def _resolve(stage: MenuStage, path: str, lines: list[_Line]) -> Menu:
    """One line for each item. A block with few known labels is a question of its own, and gives way to the menu."""
    found = [(line, known) for line in lines if (known := find(stage, line.label))]
    scores = {block: len({known.label for line, known in found if line.block == block}) for block in _blocks(lines)}
    numbers: dict[str, int] = {}
    places: dict[str, Place] = {}
    for one in ITEMS[stage]:
        matching = [line for line, known in found if known is one]
        if len({line.number for line in matching}) > 1:
            matching = [line for line in matching if scores[line.block] >= _AT_LEAST] or matching
        if len({line.number for line in matching}) > 1:
            first, second = _two_numbers(matching)
            raise MenuUnreadable(
                f"{first.place}: '{one.label}' is ambiguous in the menu of the step '{stage}': {first.number}) "
                f"{first.place.text}, and in line {second.place.line} {second.number}) {second.place.text}",
                at=first.place,
            )
        if matching:
            numbers[one.label], places[one.label] = matching[0].number, matching[0].place
        elif one.needed:
            raise _missing(stage, one, path, lines, [*places.values()])
    for one_label, other in ((a, b) for a in numbers for b in numbers if a < b and numbers[a] == numbers[b]):
        raise MenuUnreadable(
            f"{places[one_label]}: in the menu of the step '{stage}', '{one_label}' and '{other}' (line "
            f"{places[other].line}) have the same number {numbers[other]}",
            at=places[one_label],
        )
    return Menu(stage, numbers, places)


def _two_numbers(lines: list[_Line]) -> tuple[_Line, _Line]:
    return lines[0], next(line for line in lines if line.number != lines[0].number)


def _blocks(lines: list[_Line]) -> set[int]:
    return {line.block for line in lines}


def _missing(stage: MenuStage, wanted: Item, path: str, lines: list[_Line], found: list[Place]) -> MenuUnreadable:
    """The error for a label that is not there; it names the menu's line that looks most like it."""
    near = {plain(line.label): line for line in lines if find(stage, line.label) is None}
    close = difflib.get_close_matches(plain(wanted.label), near, n=1, cutoff=0.5)
    at = near[close[0]].place if close else (found[0] if found else Place(path, 1, ""))
    is_there = f"; there is '{at.text}'" if close else ""
    return MenuUnreadable(
        f"{at}: the menu of the step '{stage}' has no item '{wanted.label}'{is_there}",
        hint=f"where OSCAR has renamed it, add the new spelling to '{wanted.label}' "
        "in oscar_steps/oscar/answers/menuitems.py",
        at=at,
    )


# Bounded, all of them: a source may be anything, and nobody waits for a regular expression.
_STRING = r"""(?:"((?:\\.|[^"\\\n]){0,1000})"|'((?:\\.|[^'\\\n]){0,1000})')"""
_STRING_PATTERN = re.compile(_STRING)
# 3 => 'Distro' · 3 => { label => 'Distro' · [3, "Distro" · printf("%2d) %s\n", 3, 'Distro'
_NUMBER_FIRST = re.compile(
    rf"(?<![\w$.])['\"]?(\d{{1,2}})['\"]?\s*(?:=>|,)\s*[\[{{(\s]*(?:\w+\s*(?:=>|,)\s*)?{_STRING}"
)
# 'Distro' => 3 · ['Distro', 3]
_LABEL_FIRST = re.compile(rf"{_STRING}\s*(?:=>\s*(\d{{1,2}})(?!\w)|,\s*(\d{{1,2}})\s*[\])}}])")
_LIST = re.compile(r"[@$]\w{1,80}\s*=\s*[(\[]")
_LONGEST_LIST, _MOST_LISTS = 4000, 100
_LONGEST_SOURCE = 1 << 18


_DIGIT = re.compile(r"\d")


def _menu_lines(path: str, text: str) -> list[_Line]:
    """All that may be lines of menus; plain lists only where nothing has a number."""
    starts = [0, *(match.end() for match in re.finditer("\n", text))]
    numbered: list[_Line] = []
    block = 0
    for source in (_printed(path, text), _tabled(path, text, starts)):
        previous = 99
        for line in source:
            block += line.number <= previous  # a menu begins where the numbers do not go up any more
            previous = line.number
            numbered.append(replace(line, block=block))
    known = any(find(stage, line.label) for stage in MenuStage for line in numbered)
    return numbered if known else [*_listed(path, text, starts)]


def _line(number: int | str, label: str, path: str, line: int) -> _Line:
    shown = re.split(r"\\n|:|\$", label.strip(), maxsplit=1)[0].strip(" \"';,.")
    return _Line(int(number), label, Place(path, line, shown))


def _printed(path: str, text: str) -> Iterator[_Line]:
    """Lines with a number in front, in strings and in here-documents. The key that goes into a recording is not one."""
    for at, line in enumerate(text.split("\n"), start=1):
        if not _DIGIT.search(line):
            continue
        strings = [match[1] if match[1] is not None else match[2] for match in _STRING_PATTERN.finditer(line)]
        for piece in (piece for string in (*strings, line) for piece in re.split(r"\\n", string)):
            if match := NUMBERED.fullmatch(piece):
                yield _line(match[1], match[2], path, at)


def _tabled(path: str, text: str, starts: list[int]) -> Iterator[_Line]:
    for match in _NUMBER_FIRST.finditer(text):
        if not text[max(match.start() - 20, 0) : match.start()].rstrip().endswith("=>"):  # ... => 3, 'Next label'
            string = 2 if match[2] is not None else 3
            yield _line(match[1], match[string], path, _at(match.start(string), starts))
    for match in _LABEL_FIRST.finditer(text):
        number = match[3] or match[4]
        yield _line(number, match[1] if match[1] is not None else match[2], path, _at(match.start(), starts))


def _listed(path: str, text: str, starts: list[int]) -> Iterator[_Line]:
    """Labels in the order of a list, counted from 1, or from 0 where the first place is empty."""
    for block, match in enumerate(islice(_LIST.finditer(text), _MOST_LISTS), start=1):
        elements = _elements(text, match.end())
        offset = 0 if elements and not elements[0][1] else 1
        for index, (position, label) in enumerate(elements, start=offset):
            if index and label:
                yield replace(_line(index, label, path, _at(position, starts)), block=block)


def _elements(text: str, start: int) -> list[tuple[int, str]]:
    """The elements of the list that begins at `start`: position and first string of each."""
    elements: list[tuple[int, str]] = []
    depth, begin, label, seen, at = 0, start, "", False, start
    while at < min(start + _LONGEST_LIST, len(text)):
        if string := _STRING_PATTERN.match(text, at):
            if not seen:
                begin, label = at, string[1] if string[1] is not None else string[2]
            seen, at = True, string.end()
            continue
        if (char := text[at]) in "([{":
            depth += 1
        elif char in ")]}":
            depth -= 1
        if depth < 0 or (char == "," and depth == 0):
            if label or text[begin:at].strip(" \n\t,"):
                elements.append((begin, label))
            begin, label, seen = at + 1, "", False
        if depth < 0 or char == ";":
            break
        at += 1
    return elements


def _at(position: int, starts: list[int]) -> int:
    """The line, counted from 1, of a position in the text."""
    return bisect_right(starts, position)


def _without_comments(text: str) -> str:
    """The Perl source with comment lines, documentation and data emptied; line numbers stay."""
    kept: list[str] = []
    documentation = False
    for line in text.replace("\r\n", "\n").split("\n"):
        if line.startswith(("__END__", "__DATA__")):
            break
        documentation = documentation or (line.startswith("=") and re.match(r"=[a-z]\w*", line) is not None)
        kept.append("" if documentation or line.lstrip().startswith("#") else line)
        documentation = documentation and not line.startswith("=cut")
    return "\n".join(kept)
