"""How the OSCAR of a tree can be installed without a person, found by reading the tree: its *flavour*.

A tree has the flavour `install_cluster` where `install_cluster --cli` takes all answers from files and what it starts
is there. What is missing is seen before a machine boots, and the reason says where: file and line.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum

from oscar_steps.errors import AnswersRefused
from oscar_steps.oscar.answers.answers import OPTIONS
from oscar_steps.oscar.answers.menus import is_menu_file
from oscar_steps.oscar.answers.wizard import Way, way_of

INSTALLER = "install_cluster"
FOLDERS = ("lib", "scripts", "src", "bin", "debian")
"""Beside the files of its top folder, these folders of a tree are read; what lies elsewhere is not judged.

The head node's checkout is read for menus only (`is_menu_file`), so no more of them is judged than that."""

OTHERS = frozenset({INSTALLER, "Makefile", "debian/control", "bin/oscar-config", "bin/oscar_wizard"})
"""Files that tell the flavour and have no menu."""

_NEEDED = ("cli", *OPTIONS.values(), "bootscript")


class FlavourName(StrEnum):
    """The ways in that the farm knows."""

    INSTALL_CLUSTER = "install_cluster"
    OSCAR_WIZARD = "oscar_wizard"
    NONE = "none"


@dataclass(frozen=True, slots=True)
class Flavour:
    """The way in, and where it is not `install_cluster`, why not: half a sentence with file and line.

    `prefixes_paths`: the installer puts its own directory before every file name that does not hold it (2006).
    """

    name: FlavourName
    reason: str = ""
    way: Way | None = None
    prefixes_paths: bool = False

    def check(self) -> None:
        """Raises AnswersRefused where nothing can install this OSCAR without a person."""
        if self.name is FlavourName.NONE:
            raise AnswersRefused(
                f"this OSCAR cannot be installed by its command line: {self.reason}",
                hint="the farm tests revisions whose `install_cluster --cli` takes all its answers from files",
            )


def flavour_of(files: Mapping[str, str]) -> Flavour:
    """The flavour of the tree whose top folder and FOLDERS hold `files`: path relative to the tree, to text."""
    if not (reason := next(_obstacles(files), "")):
        prefixes = _PREFIXES.search(_code(files[INSTALLER])) is not None
        return Flavour(FlavourName.INSTALL_CLUSTER, prefixes_paths=prefixes)
    way = way_of(files)
    return Flavour(FlavourName.OSCAR_WIZARD if way else FlavourName.NONE, reason, way)


def _obstacles(files: Mapping[str, str]) -> Iterator[str]:
    """What keeps `install_cluster --cli` from its end, in the order in which it would get there."""
    if INSTALLER not in files:
        yield f"there is no {INSTALLER} in its top folder"
        return
    installer = _code(files[INSTALLER])
    if missing := [f"--{name}" for name in _NEEDED if not _takes(installer, name)]:
        at = _line(installer, max(installer.find("GetOptions"), 0))
        yield f"{INSTALLER}:{at} does not take {', '.join(missing)}"
        return
    yield from _absent(INSTALLER, installer, "", files)
    if not (match := _INTO_CLI.search(installer)):
        return
    main = f"{match[1].strip('/')}/main_cli"
    if main not in files:
        yield f"{INSTALLER}:{_line(installer, match.start())} starts {main}, which this tree does not have"
        return
    yield from _absent(main, _code(files[main]), f"{match[1].strip('/')}/", files)


_PREFIXES = re.compile(r"!~\s*/\$cwd\b")
_INTO_CLI = re.compile(r"""chdir\s*\(?\s*["']([\w./-]{1,80}cli/?)["']""")


def _takes(installer: str, option: str) -> bool:
    """Whether the installer's source knows `option`: among those of its call of Getopt::Long, where it has one."""
    if (at := installer.find("GetOptions")) >= 0 and "(" in (call := installer[at : at + 4000].partition(";")[0]):
        return re.search(rf"""["'\s|]{option}\b""", call) is not None
    return f"--{option}" in installer


_STARTED = re.compile(
    r"""(?:\$cmd\s*=|system\s*\(?)\s*(?:"([^"\n]{1,400})"|(\$ENV\{OSCAR_HOME\})\s*\.\s*"([^"\n]{1,400})")"""
)
_VARIABLE = re.compile(r"""\$(\w{1,40})\s*=\s*"\$ENV\{OSCAR_HOME\}/([\w./-]{1,80})"\s*;""")
_SURVIVED = re.compile(r"\s*\)\s*==\s*1\b")


def _absent(file: str, code: str, folder: str, files: Mapping[str, str]) -> Iterator[str]:
    """What `file` starts, in `folder`, and the tree does not have. A status that is compared with 1 ends nothing."""
    variables = {match[1]: match[2].strip("/") for match in _VARIABLE.finditer(code)}
    for match in _STARTED.finditer(code):
        path = _path(match[1] or f"{match[2]}{match[3]}", folder, variables)
        judged = path.startswith(tuple(f"{name}/" for name in FOLDERS)) and is_menu_file(path)
        if judged and path not in files and not _SURVIVED.match(code, match.end()):
            yield f"{file}:{_line(code, match.start())} starts {path}, which this tree does not have"


def _path(command: str, folder: str, variables: Mapping[str, str]) -> str:
    """The script that a shell line starts, relative to the tree; '' where that is not plain."""
    if match := re.match(r"cd \$ENV\{OSCAR_HOME\}/([\w./-]+?)/? && \./([\w.-]+)", command):
        return f"{match[1]}/{match[2]}"
    if match := re.match(r"\./([\w./-]+)", command):
        return f"{folder}{match[1]}"
    if match := re.match(r"\$ENV\{OSCAR_HOME\}/([\w./-]+)", command):
        return match[1]
    if (match := re.match(r"\$\{?(\w+)\}?/([\w./-]+)", command)) and match[1] in variables:
        return f"{variables[match[1]]}/{match[2]}"
    return ""


def _code(text: str) -> str:
    """The Perl source with its comment lines emptied; line numbers stay."""
    return "\n".join("" if line.lstrip().startswith("#") else line for line in text.split("\n"))


def _line(code: str, position: int) -> int:
    return code.count("\n", 0, position) + 1
