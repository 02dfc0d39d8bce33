"""The matrix for people and programs: a table, where each value comes from, and what another matrix has instead."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from oscar_steps.errors import ConfigError
from oscar_steps.matrix.cell import Cell
from oscar_steps.matrix.cells import FOLDERS, Matrix
from oscar_steps.matrix.rows import PATTERNS, SETTINGS, Layer, Made, MatrixText

AS_PROFILE = "as the cluster profile says"
_FROM_PROFILE = ("boot", "nodes", "hypervisor")
_HEAD = ("CELL", "LABELS", "STABILITY", "BOOT", "NODES", "HYPERVISOR", "IMAGE", "CLUSTER", "ANSWERS", "OSCAR", "AS")


def table(matrix: Matrix) -> str:
    """All cells, one a line, in columns. What is '-' is as the cluster profile says."""
    rows = [_HEAD, *(_row(cell, matrix) for cell in matrix.cells)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_HEAD))]
    lines = ("  ".join(word.ljust(width) for word, width in zip(row, widths, strict=True)) for row in rows)
    return "\n".join(line.rstrip() for line in lines)


def _row(cell: Cell, matrix: Matrix) -> tuple[str, ...]:
    labels = ",".join(cell.labels) or "-"
    from_profile = [str(getattr(cell, setting) or "-") for setting in _FROM_PROFILE]
    files = [str(getattr(cell, setting)) for setting in FOLDERS]
    if matrix.image(cell).unproven:
        files[0] += " (unproven)"
    return (cell.name, labels, str(cell.stability), *from_profile, *files, *oscar_names(cell))


def oscar_names(cell: Cell) -> tuple[str, str]:
    """OSCAR's names of the cell: the real one, and that of the distribution that it is treated as."""
    return f"{cell.real}-{cell.architecture}", f"{cell.compatible}-{cell.architecture}"


def as_value(cell: Cell) -> dict[str, Any]:
    """A cell for programs."""
    real, compatible = oscar_names(cell)
    return {"name": cell.name, **cell.model_dump(mode="json"), "real": real, "compatible": compatible}


def why(text: MatrixText, name: str) -> list[tuple[str, str, str]]:
    """Every setting of a cell: its name, its value, where that comes from."""
    made = text.made[name]
    return [(setting, _shown(made.cell, setting), _origin(text, made, setting)) for setting in SETTINGS]


def _shown(cell: Cell, setting: str) -> str:
    value = getattr(cell, setting)
    if isinstance(value, tuple):
        return ", ".join(value) or "none"
    if value is None:
        return AS_PROFILE if setting in _FROM_PROFILE else "none"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _origin(text: MatrixText, made: Made, setting: str) -> str:
    layer = made.layer_of(setting)
    if layer is None:
        return "as real" if setting == "compatible" else "no setting"
    return _origin_in(text, layer, setting)


def _origin_in(text: MatrixText, layer: Layer, setting: str) -> str:
    value = getattr(layer.settings, setting)
    pattern = f' "{value}"' if setting in PATTERNS and "{" in value else ""
    if layer.location is None:
        return f"the farm's default{pattern}"
    where = {"cell": "entry", "defaults": "defaults"}.get(str(layer.location[0]), ".".join(map(str, layer.location)))
    return f"{where}{pattern}, line {text.line((*layer.location, setting))}"


Change = tuple[str, str, str]
"""What changed, from what, to what."""


class Difference:
    """Which cells come, go and change from one matrix to another."""

    def __init__(self, old: Matrix, new: Matrix) -> None:
        self.come = [cell for name, cell in new.by_name.items() if name not in old.by_name]
        self.go = [cell for name, cell in old.by_name.items() if name not in new.by_name]
        both = {name: (old.by_name[name], cell) for name, cell in new.by_name.items() if name in old.by_name}
        found = {name: _changes(old, new, *pair) for name, pair in both.items()}
        self.change = {name: changes for name, changes in found.items() if changes}

    def as_value(self) -> dict[str, Any]:
        """For programs."""
        changes = {
            name: {setting: {"from": before, "to": after} for setting, before, after in found}
            for name, found in self.change.items()
        }
        return {"come": [*map(as_value, self.come)], "go": [*map(as_value, self.go)], "change": changes}

    def lines(self) -> Iterator[str]:
        """For people."""
        yield from (f"+ {cell.name}" for cell in self.come)
        yield from (f"- {cell.name}" for cell in self.go)
        for name, found in self.change.items():
            yield f"~ {name}"
            yield from (f"    {setting}: {before} -> {after}" for setting, before, after in found)
        if not (self.come or self.go or self.change):
            yield "no cell comes, goes or changes"


def _changes(old: Matrix, new: Matrix, before: Cell, after: Cell) -> list[Change]:
    pairs = ((setting, _shown(before, setting), _shown(after, setting)) for setting in SETTINGS)
    changed = [pair for pair in pairs if pair[1] != pair[2]]
    for setting in FOLDERS:
        if getattr(before, setting) == getattr(after, setting) and _is_other(setting, old, new, after):
            changed.append(
                (setting, str(old.path(before, setting)), f"{new.path(after, setting)}, whose content differs")
            )
    return changed


def _is_other(setting: str, old: Matrix, new: Matrix, cell: Cell) -> bool:
    """Whether the two matrices have different contents under the same name; an old one without files has none."""
    read = {"image": Matrix.image, "cluster": Matrix.cluster_xml, "answers": Matrix.answers}[setting]
    if not old.path(cell, setting).is_file():
        return False
    try:
        return bool(read(old, cell) != read(new, cell))
    except ConfigError:  # an old recipe that today's farm does not understand
        return True


def open_matrix(path: Path) -> Matrix:
    """A matrix to compare with: a folder of profiles or a `matrix.toml`, whose files need not exist."""
    file = path / "matrix.toml" if path.is_dir() else path
    return Matrix(directory=file.parent, cells=tuple(made.cell for made in MatrixText(file).made.values()))
