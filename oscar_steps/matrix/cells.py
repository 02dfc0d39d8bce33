"""The cells of the matrix: distribution x version x architecture, read from `profiles/matrix.toml`."""

from __future__ import annotations

from fnmatch import fnmatchcase
from pathlib import Path

from pydantic import Field

from oscar_steps.errors import ConfigError
from oscar_steps.matrix.answers import Answers, load_answers
from oscar_steps.matrix.model import Frozen
from oscar_steps.matrix.recipes import ImageRecipe, load_recipe
from oscar_steps.oscar.known import KnownIssue
from oscar_steps.tomlfile import line_of, load_toml, read_text, validate


class Cell(Frozen):
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


class Matrix(Frozen):
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
        return load_recipe(self.directory / "images" / f"{cell.image}.toml")

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


class _KnownIssuesFile(Frozen):
    issue: tuple[KnownIssue, ...] = ()


class _MatrixFile(Frozen):
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
    return Path(__file__).resolve().parents[2] / "profiles"
