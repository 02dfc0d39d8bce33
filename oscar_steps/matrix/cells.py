"""The matrix: its cells, read from `profiles/matrix.toml`, and the files that they name."""

from __future__ import annotations

from collections.abc import Callable
from difflib import get_close_matches
from fnmatch import fnmatchcase
from functools import cached_property
from pathlib import Path
from typing import TypeVar, cast

from pydantic import PrivateAttr

from oscar_steps.errors import ConfigError
from oscar_steps.matrix.answers import Answers, load_answers
from oscar_steps.matrix.cell import Cell
from oscar_steps.matrix.clusters import ClusterFacts, cluster_facts
from oscar_steps.matrix.model import Frozen
from oscar_steps.matrix.recipes import ImageRecipe, load_recipe
from oscar_steps.matrix.rows import Made, MatrixText
from oscar_steps.oscar.known import KnownIssue
from oscar_steps.textio import some
from oscar_steps.tomlfile import load_toml, read_text, validate

__all__ = ["Cell", "Matrix", "default_profiles", "load_matrix"]

FOLDERS = {"image": ("images", "toml"), "cluster": ("clusters", "xml"), "answers": ("answers", "toml")}
"""Where the files are that a cell names, and how their names end."""
_Read = TypeVar("_Read")


class Matrix(Frozen):
    """All cells. `load_matrix` has checked that everything they name exists. Each file is read once."""

    directory: Path
    cells: tuple[Cell, ...]
    _read: dict[tuple[Path, object], object] = PrivateAttr(default_factory=dict)

    @cached_property
    def by_name(self) -> dict[str, Cell]:
        return {cell.name: cell for cell in self.cells}

    def cell(self, name: str) -> Cell:
        """The cell called `name`. Raises ConfigError, naming those there are."""
        if (cell := self.by_name.get(name)) is not None:
            return cell
        like = get_close_matches(name, self.by_name, n=3)
        there_are = f"did you mean {' or '.join(like)}?" if len(self.cells) > 30 and like else some([*self.by_name])
        path = self.directory / "matrix.toml"
        raise ConfigError(f"there is no cell {_shown(name)} in {path}; there are: {there_are}")

    def image(self, cell: Cell) -> ImageRecipe:
        """Raises ConfigError where the recipe cannot be used, or is for another architecture."""
        path = self.path(cell, "image")
        recipe = self._once(path, load_recipe)
        if recipe.architecture != cell.architecture:
            said = f"{path}: this image is for {recipe.architecture}, but the cell {cell.name} is not"
            raise ConfigError(f"{said}; give the cell another image in {self.directory / 'matrix.toml'}")
        return recipe

    def answers_path(self, cell: Cell) -> Path:
        return self.path(cell, "answers")

    def answers(self, cell: Cell) -> Answers:
        return self._once(self.answers_path(cell), load_answers)

    def known_issues(self, cell: Cell) -> tuple[KnownIssue, ...]:
        """What is known of this cell, from `known-issues.toml`. Raises ConfigError, with file and line."""
        issues = self._once(self.directory / "known-issues.toml", _load_issues)
        return tuple(issue for issue in issues if fnmatchcase(cell.name, issue.cells))

    def cluster_path(self, cell: Cell) -> Path:
        return self.path(cell, "cluster")

    def cluster_xml(self, cell: Cell) -> str:
        return self._once(self.cluster_path(cell), read_text)

    def cluster_facts(self, cell: Cell) -> ClusterFacts:
        return self._once(self.cluster_path(cell), _cluster_facts)

    def path(self, cell: Cell, setting: str) -> Path:
        """The file that a setting of a cell names: its image, its cluster or its answers."""
        folder, suffix = FOLDERS[setting]
        return self.directory / folder / f"{getattr(cell, setting)}.{suffix}"

    def _once(self, path: Path, read: Callable[[Path], _Read]) -> _Read:
        if (path, read) not in self._read:
            self._read[path, read] = read(path)
        return cast(_Read, self._read[path, read])


def _shown(name: str) -> str:
    return f"'{name}'" if name.isprintable() else ascii(name)


def _cluster_facts(path: Path) -> ClusterFacts:
    return cluster_facts(read_text(path))


class _KnownIssuesFile(Frozen):
    issue: tuple[KnownIssue, ...] = ()


def _load_issues(path: Path) -> tuple[KnownIssue, ...]:
    return validate(_KnownIssuesFile, path, *load_toml(path)).issue if path.exists() else ()


def load_matrix(directory: Path) -> Matrix:
    """Read `matrix.toml` in `directory` (the `profiles/` folder) and check that all that its cells name exists.

    Raises ConfigError, with file and line, at the first thing that is wrong.
    """
    text = MatrixText(directory / "matrix.toml")
    matrix = Matrix(directory=directory, cells=tuple(made.cell for made in text.made.values()))
    there = {setting: _names(directory / folder, suffix) for setting, (folder, suffix) in FOLDERS.items()}
    for made in text.made.values():
        for setting, names in there.items():
            if getattr(made.cell, setting) not in names:
                raise _missing(text, made, setting, matrix.path(made.cell, setting), names)
        _check_cluster(text, made, matrix)
        _check_labels(text, made, matrix)
    return matrix


def _names(folder: Path, suffix: str) -> set[str]:
    return {file.stem for file in folder.glob(f"*.{suffix}") if file.is_file()}


def _missing(text: MatrixText, made: Made, setting: str, path: Path, names: set[str]) -> ConfigError:
    where, set_at = _place(text, made, setting)
    said = f"{setting} '{path.stem}' does not exist ({path} is missing); the cell {made.cell.name} needs it{set_at}"
    return ConfigError(f"{text.path}:{where}: {said}; there are: {some(sorted(names)) or 'none'}")


def _place(text: MatrixText, made: Made, setting: str) -> tuple[int, str]:
    """The line of the setting; of a pattern that stands elsewhere the line of the entry, and in words the pattern's."""
    layer = made.layer_of(setting)
    row = ("cell", made.row)
    if layer is None or layer.location is None:
        return text.line(row), ""
    if layer.location == row or "{" not in str(getattr(layer.settings, setting)):
        return text.line((*layer.location, setting)), ""
    return text.line(row), f" ({setting} is set on line {text.line((*layer.location, setting))})"


def _check_labels(text: MatrixText, made: Made, matrix: Matrix) -> None:
    """No cell runs by itself whose image nobody has ever seen work."""
    path = matrix.path(made.cell, "image")
    if not made.cell.labels or not matrix._once(path, load_recipe).unproven:
        return
    where, set_at = _place(text, made, "labels")
    said = f"the image {made.cell.image} is unproven, so the cell {made.cell.name} must not run by itself{set_at}"
    right = f"write labels = [], or unproven = false into {path} after a green run"
    raise ConfigError(f"{text.path}:{where}: labels: {said}; {right}")


def _check_cluster(text: MatrixText, made: Made, matrix: Matrix) -> None:
    """What the cell asks of its cluster, the cluster must be able to do."""
    cell, path = made.cell, matrix.cluster_path(made.cell)
    if cell.boot != "network" and cell.nodes is None:
        return
    facts = matrix.cluster_facts(cell)
    if cell.boot == "network" and facts.without_vlan:
        where, set_at = _place(text, made, "boot")
        line, node = facts.without_vlan
        said = f'boot = "network" of the cell {cell.name}{set_at} needs a NIC of the type VLAN in every compute node'
        raise ConfigError(f"{text.path}:{where}: {said}; {node} has none ({path}:{line})")
    if cell.nodes is not None and cell.nodes > facts.nodes and not facts.last_node[-1:].isdigit():
        where, set_at = _place(text, made, "nodes")
        said = f"nodes = {cell.nodes} of the cell {cell.name}{set_at} makes more nodes than {path} has ({facts.nodes})"
        named = f"the last one's name, '{facts.last_node}', has to end in a number for that"
        raise ConfigError(f"{text.path}:{where}: {said}; {named}")


def default_profiles() -> Path:
    """The `profiles/` folder beside the package in a checkout."""
    return Path(__file__).resolve().parents[2] / "profiles"
