"""What is tested: cells (distribution x version x architecture), read from `profiles/`.

Pure models, which only read their own files. `python -m oscar_steps.matrix` prints the cells.
"""

from __future__ import annotations

import argparse
import sys
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from oscar_steps.errors import ConfigError, UserError
from oscar_steps.oscar.answers import clilog
from oscar_steps.oscar.answers.answers import AnswerKind
from oscar_steps.oscar.known import KnownIssue
from oscar_steps.tomlfile import line_of, load_toml, read_text, validate


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ImageRecipe(_Frozen):
    """How the base image of a head node comes to be. `pool` is what goes, with all it depends on, into the local
    package repository `/tftpboot/distro/NAME` of the head node, so that a run needs no network."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9._-]*$")
    builder: Literal["mmdebstrap"] = "mmdebstrap"
    suite: str
    architecture: str
    components: tuple[str, ...] = ("main",)
    packages: tuple[str, ...]
    pool: tuple[str, ...] = ()
    disk_mib: int = Field(ge=512)
    masked_units: tuple[str, ...] = ()
    initrd_modules: tuple[str, ...] = ()
    """Kernel modules of the small initrd; none: every module that the kernel may need."""
    kernel_parameters: tuple[str, ...] = ()


class WrittenFile(_Frozen):
    """An answer file that somebody wrote by hand: its name, for errors, and its text."""

    name: str
    text: str


class Answers(_Frozen):
    """The answers for OSCAR's installer, as a cluster definition. The answer files are made from it.

    Field names follow the menus of OSCAR's command line. `selector` holds commands of the package selector, one a line.
    What is '' is not answered: OSCAR's own default stays.
    """

    oscar_home: str = "/opt/oscar"
    selector: tuple[str, ...] = ()
    image_name: str = "oscarimage"
    partition_file: str
    """Relative to `oscar_home`, or absolute."""
    ip_assignment: Literal["static", "dhcp", "replicant"] = "static"
    post_install_action: Literal["reboot", "shutdown"] = "reboot"
    install_mode: str = "systemimager-rsync"
    package_file: str = ""
    distro: str = ""
    repositories: str = ""
    uyok: bool = False
    domain: str = "oscardomain"
    base_name: str = "oscarnode"
    starting_number: int = 1
    padding: int = 0
    head_address: str = "10.0.0.1"
    first_address: str = "10.0.0.2"
    netmask: str = "255.255.255.0"
    gateway: str = ""
    """'': the head node."""
    oscar_repository: str = Field(default="", pattern=r"^$|^[a-z]+:/\S*( [^\s']+)+$")
    """What has OSCAR's packages beside its own tree, for `oscar_wizard`: 'URL SUITE COMPONENT...', as apt writes it."""
    tests: tuple[str, ...] = ("SSH ping test", "SSH server->node")
    """OSCAR's own tests that must have passed, as its output names them: one whose result is not seen is a failure."""
    files: dict[AnswerKind, WrittenFile] = {}
    """Files that are used as they are, in place of generated ones; checked before the run."""


class Cell(_Frozen):
    """One cell of the matrix, and one builder. Its name is OSCAR's own: distribution-version-architecture."""

    distribution: str = Field(pattern=r"^[a-z0-9_]+$")
    version: str = Field(pattern=r"^[0-9]+(\.[0-9]+)?$")
    architecture: str = Field(pattern=r"^[a-z0-9_]+$")
    image: str
    cluster: str
    answers: str
    every_commit: bool = False
    nightly: bool = True

    @property
    def name(self) -> str:
        return f"{self.distribution}-{self.version}-{self.architecture}"


class Matrix(_Frozen):
    """All cells. `load_matrix` has checked that everything they name exists."""

    directory: Path
    cells: tuple[Cell, ...]

    def cell(self, name: str) -> Cell:
        """The cell called `name`. Raises ConfigError, naming those there are."""
        for cell in self.cells:
            if cell.name == name:
                return cell
        there_are = ", ".join(cell.name for cell in self.cells) or "none"
        raise ConfigError(f"there is no cell '{name}' in {self.directory / 'matrix.toml'}; there are: {there_are}")

    def image(self, cell: Cell) -> ImageRecipe:
        return _load(ImageRecipe, self.directory / "images" / f"{cell.image}.toml")

    def answers_path(self, cell: Cell) -> Path:
        return self.directory / "answers" / f"{cell.answers}.toml"

    def answers(self, cell: Cell) -> Answers:
        return load_answers(self.answers_path(cell))

    def known_issues(self, cell: Cell) -> tuple[KnownIssue, ...]:
        """What is known of this cell, from `known-issues.toml`. Raises ConfigError, with file and line."""
        path = self.directory / "known-issues.toml"
        if not path.exists():
            return ()
        issues = validate(_KnownIssuesFile, path, *load_toml(path)).issue
        return tuple(issue for issue in issues if fnmatchcase(cell.name, issue.cells))

    def cluster_path(self, cell: Cell) -> Path:
        return self.directory / "clusters" / f"{cell.cluster}.xml"

    def cluster_xml(self, cell: Cell) -> str:
        return read_text(self.cluster_path(cell))


_Model = TypeVar("_Model", bound=BaseModel)


def _load(model: type[_Model], path: Path) -> _Model:
    return validate(model, path, *load_toml(path))


class _KnownIssuesFile(_Frozen):
    issue: tuple[KnownIssue, ...] = ()


def load_answers(path: Path) -> Answers:
    """The answers in a TOML file, with the recordings and the files written by hand that it names (relative to it).

    `recordings = ["build.4711.clilog", ...]` gives every setting that the file itself does not; `files.network =
    "network.txt"` goes in place of a generated file. Raises ConfigError.
    """
    text, value = load_toml(path)
    recordings = value.pop("recordings", [])
    files = value.get("files", {})
    if not isinstance(recordings, list) or not all(isinstance(name, str) for name in recordings):
        raise ConfigError(f"{path}:{line_of(text, ('recordings',))}: recordings: give a list of file names")
    if not isinstance(files, dict) or not all(isinstance(name, str) for name in files.values()):
        line = line_of(text, ("files",))
        raise ConfigError(f'{path}:{line}: files: give names of files, such as network = "network.txt"')
    try:
        read = [clilog.read_recording(str(path.parent / name), read_text(path.parent / name)) for name in recordings]
        value = clilog.definition(read, value) | value
    except UserError as error:
        raise ConfigError(error.sentence, hint=error.hint) from None
    if files:
        paths = {kind: path.parent / name for kind, name in files.items()}
        value["files"] = {kind: {"name": str(file), "text": read_text(file)} for kind, file in paths.items()}
    return validate(Answers, path, text, value)


class _MatrixFile(_Frozen):
    cell: tuple[Cell, ...] = Field(min_length=1)


def load_matrix(directory: Path) -> Matrix:
    """Read `matrix.toml` in `directory` (the `profiles/` folder) and check all that it refers to.

    Raises ConfigError, with file and line, at the first thing that does not exist or appears twice.
    """
    path = directory / "matrix.toml"
    text, value = load_toml(path)
    cells = validate(_MatrixFile, path, text, value).cell
    for index, cell in enumerate(cells):
        if cell.name in {other.name for other in cells[:index]}:
            raise ConfigError(f"{path}:{line_of(text, ('cell', index))}: the cell {cell.name} is there twice")
        for key, folder, suffix in (
            ("image", "images", "toml"),
            ("cluster", "clusters", "xml"),
            ("answers", "answers", "toml"),
        ):
            wanted = directory / folder / f"{getattr(cell, key)}.{suffix}"
            if not wanted.is_file():
                there_are = ", ".join(sorted(p.stem for p in wanted.parent.glob(f"*.{suffix}"))) or "none"
                raise ConfigError(
                    f"{path}:{line_of(text, ('cell', index, key))}: {key} '{getattr(cell, key)}' does not exist "
                    f"({wanted} is missing); there are: {there_are}"
                )
    return Matrix(directory=directory, cells=cells)


def default_profiles() -> Path:
    """The `profiles/` folder beside the package in a checkout."""
    return Path(__file__).resolve().parent.parent / "profiles"


def main() -> int:
    """Print the matrix."""
    parser = argparse.ArgumentParser(
        prog="python -m oscar_steps.matrix", description="Check the profiles and list the cells of the matrix."
    )
    parser.add_argument("profiles", nargs="?", type=Path, default=default_profiles(), help="the folder of profiles")
    try:
        matrix = load_matrix(parser.parse_args().profiles)
    except ConfigError as error:
        print(error.explain(), file=sys.stderr)
        return 64
    for cell in matrix.cells:
        when = ", ".join(word for word, on in (("every commit", cell.every_commit), ("nightly", cell.nightly)) if on)
        print(f"{cell.name}: image {cell.image}, cluster {cell.cluster}, answers {cell.answers} ({when or 'by hand'})")
    return 0


if __name__ == "__main__":
    sys.exit(main())
