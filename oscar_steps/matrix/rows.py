"""The grammar of `profiles/matrix.toml`, and the cells that its entries make.

An entry is a product: each of its distributions, versions and architectures with each other, less what it excludes, and
each of these once more per variant. A cell's settings come in layers. The last one that has a setting counts:
`defaults`, `distributions.NAME`, `distributions.NAME-VERSION`, the entry, the variant. docs/matrix-format.md.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from math import prod
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field
from pydantic_core import PydanticCustomError

from oscar_steps.errors import ConfigError
from oscar_steps.matrix.cell import (
    LONGEST_NAME,
    Cell,
    DistributionName,
    Factor,
    NodeCount,
    Owner,
    VariantName,
    VersionName,
)
from oscar_steps.matrix.model import Frozen
from oscar_steps.textio import some
from oscar_steps.tomlfile import check_values, line_of, load_toml, validate
from oscar_steps.words import Architecture, HypervisorType, Label, NodeBoot, Stability

MOST_CELLS = 20_000
AXES = ("distribution", "version", "architecture")
PATTERNS = ("image", "cluster", "answers", "real", "compatible")
NEEDED = ("image", "cluster", "answers")
_PLACEHOLDER = re.compile(r"\{([^{}]*)\}")
_NAME = re.compile(r"[A-Za-z0-9{][A-Za-z0-9._{}-]*")


def _pattern(text: str) -> str:
    said = ""
    there_are = ", ".join(f"{{{axis}}}" for axis in AXES)
    unknown = [found for found in _PLACEHOLDER.findall(text) if found not in AXES]
    if unknown:
        said = f"{{{ascii(unknown[0])[1:-1]}}} is not a placeholder; there are {there_are}"
    elif re.search(r"[{}]", _PLACEHOLDER.sub("", text)):
        said = f"{text!a} has a brace without its other one; placeholders are {there_are}"
    elif not _NAME.fullmatch(text):
        said = f"{text!a} is not a name; write letters, digits, '.', '_' and '-', the first a letter or a digit"
    if said:
        raise PydanticCustomError("pattern", "{said}", {"said": said})
    return text


def _listed(value: object) -> object:
    return value if isinstance(value, list) else [value]


def _without_doubles(values: tuple[str, ...]) -> tuple[str, ...]:
    for index, value in enumerate(values):
        if value in values[:index]:
            raise PydanticCustomError("twice", "{value} is there twice; leave one out", {"value": ascii(str(value))})
    return values


_Pattern = Annotated[str, AfterValidator(_pattern)]
_ONE_OR_MORE = (BeforeValidator(_listed), Field(min_length=1), AfterValidator(_without_doubles))
Distributions = Annotated[tuple[DistributionName, ...], *_ONE_OR_MORE]
Versions = Annotated[tuple[VersionName, ...], *_ONE_OR_MORE]
Architectures = Annotated[tuple[Architecture, ...], *_ONE_OR_MORE]


class VariantSettings(Frozen):
    """What a variant may have of its own; `Cell` says what each setting means. None: as the layer before."""

    image: _Pattern | None = None
    cluster: _Pattern | None = None
    answers: _Pattern | None = None
    boot: NodeBoot | None = None
    nodes: NodeCount | None = None
    hypervisor: HypervisorType | None = None
    labels: Annotated[tuple[Label, ...], AfterValidator(_without_doubles)] | None = None
    stability: Stability | None = None
    owner: Owner | None = None
    timeout_factor: Factor | None = None


class Settings(VariantSettings):
    """What `defaults`, a distribution and an entry may say."""

    real: _Pattern | None = None
    compatible: _Pattern | None = None
    variants: Annotated[tuple[VariantName, ...], AfterValidator(_without_doubles)] | None = None


class Exclusion(Frozen):
    """What an entry leaves out of its product: the cells that agree with everything that stands here."""

    distribution: Distributions | None = None
    version: Versions | None = None
    architecture: Architectures | None = None

    def takes(self, place: tuple[str, ...]) -> bool:
        """Whether it leaves out the cell of that distribution, version and architecture."""
        return all(value in (getattr(self, axis) or (value,)) for axis, value in zip(AXES, place, strict=True))


class Row(Settings):
    """An entry: the cells of a product."""

    distribution: Distributions
    version: Versions
    architecture: Architectures
    exclude: tuple[Exclusion, ...] = ()


class MatrixFile(Frozen):
    """All of `matrix.toml`."""

    defaults: Settings = Settings()
    distributions: dict[str, Settings] = Field(default_factory=dict)
    variants: dict[VariantName, VariantSettings] = Field(default_factory=dict)
    cell: tuple[Row, ...] = Field(min_length=1)


BUILT_IN = Settings(
    labels=(Label.NIGHTLY,),
    stability=Stability.STABLE,
    timeout_factor=1.0,
    real="{distribution}-{version}",
)
SETTINGS = (*VariantSettings.model_fields, "real", "compatible")


@dataclass(frozen=True)
class Layer:
    """Some settings, and where they stand (None: in the farm itself)."""

    settings: VariantSettings
    location: tuple[int | str, ...] | None


@dataclass(frozen=True)
class Made:
    """A cell, and the layers that its settings come from: the last one that has a setting counts."""

    cell: Cell
    layers: tuple[Layer, ...]
    row: int

    def layer_of(self, setting: str) -> Layer | None:
        """The layer that a setting comes from; None: no layer has it."""
        return next(
            (layer for layer in reversed(self.layers) if getattr(layer.settings, setting, None) is not None), None
        )


class MatrixText:
    """`matrix.toml` as it was read: its cells, and the lines where things stand."""

    def __init__(self, path: Path) -> None:
        """Raises ConfigError, with file and line, at the first mistake."""
        self.path = path
        self.text, value = load_toml(path)
        self._refuse_old_settings(value)
        check_values(path, self.text, value)
        self.file = validate(MatrixFile, path, self.text, value)
        self.made: dict[str, Made] = {}
        self._used: set[str] = set()
        for index, row in enumerate(self.file.cell):
            self._add(index, row)
        for name in self.file.distributions:
            if name not in self._used:
                here = sorted({made.cell.distribution for made in self.made.values()})
                said = f"no cell is of {name!a}; write a distribution ({some(here)}), or one with its version"
                raise self.wrong(("distributions", name), said)

    def line(self, location: tuple[int | str, ...]) -> int:
        return line_of(self.text, location)

    def wrong(self, location: tuple[int | str, ...], sentence: str) -> ConfigError:
        """The error that this is wrong at `location`."""
        key = ascii(".".join(str(part) for part in location))[1:-1]
        return ConfigError(f"{self.path}:{self.line(location)}: {key}: {sentence}")

    def _refuse_old_settings(self, value: dict[str, Any]) -> None:
        """A site's own matrix of before labels."""
        rows = value.get("cell")
        for index, row in enumerate(rows if isinstance(rows, list) else ()):
            old = [key for key in ("every_commit", "nightly") if isinstance(row, dict) and key in row]
            if old:
                wanted = {"smoke": row.get("every_commit", False), "nightly": row.get("nightly", True)}
                labels = ", ".join(f'"{label}"' for label, on in wanted.items() if on is True)
                instead = f"in place of {' and '.join(old)} write labels = [{labels}]"
                said = f"every_commit and nightly are labels now; {instead}"
                raise self.wrong(("cell", index, old[0]), said)

    def _add(self, index: int, row: Row) -> None:
        places = [tuple(place) for place in self._product(index, row)]
        kept = [place for place in places if not any(exclusion.takes(place) for exclusion in row.exclude)]
        for number, exclusion in enumerate(row.exclude):
            if not any(exclusion.takes(place) for place in places):
                said = "this excludes no cell of its entry; take it out, or write a value that the entry has"
                raise self.wrong(("cell", index, "exclude", number), said)
        if not kept:
            raise self.wrong(("cell", index, "exclude"), "this excludes all cells of its entry; take the entry out")
        for place in kept:
            for made in self._variants(index, row, place):
                self._take(made)

    def _product(self, index: int, row: Row) -> Iterator[tuple[str, ...]]:
        size = prod(len(getattr(row, axis)) for axis in AXES)
        if len(self.made) + size > MOST_CELLS:
            raise self.wrong(
                ("cell", index), f"with this entry there are more than {MOST_CELLS} cells, the farm's limit"
            )
        return product(row.distribution, row.version, row.architecture)

    def _variants(self, index: int, row: Row, place: tuple[str, ...]) -> Iterator[Made]:
        layers = self._layers(index, row, place)
        plain = Made(_cell(self, index, layers, place, ""), layers, index)
        yield plain
        chosen = plain.layer_of("variants")
        names = chosen.settings.variants if chosen and isinstance(chosen.settings, Settings) else None
        for number, name in enumerate(names or ()):
            if chosen and name not in self.file.variants:
                there_are = some(sorted(self.file.variants)) or "none"
                said = f"the variant {name!a} is not in [variants]; there are: {there_are}"
                raise self.wrong((*(chosen.location or ()), "variants", number), said)
            more = (*layers, Layer(self.file.variants[name], ("variants", name)))
            yield Made(_cell(self, index, more, place, name), more, index)

    def _layers(self, index: int, row: Row, place: tuple[str, ...]) -> tuple[Layer, ...]:
        layers = [Layer(BUILT_IN, None), Layer(self.file.defaults, ("defaults",))]
        for name in (place[0], f"{place[0]}-{place[1]}"):
            if name in self.file.distributions:
                self._used.add(name)
                layers.append(Layer(self.file.distributions[name], ("distributions", name)))
        return (*layers, Layer(row, ("cell", index)))

    def _take(self, made: Made) -> None:
        name, here = made.cell.name, ("cell", made.row)
        if name in self.made:
            other = self.line(("cell", self.made[name].row))
            said = f"the cell {name} is there twice; the entry on line {other} makes it, too"
            raise self.wrong(here, said)
        if len(name) > LONGEST_NAME:
            raise self.wrong(here, f"the name {name} is too long for a cell; the limit is {LONGEST_NAME} characters")
        if len(self.made) >= MOST_CELLS:
            raise self.wrong(here, f"with this entry there are more than {MOST_CELLS} cells, the farm's limit")
        self.made[name] = made


def _cell(file: MatrixText, index: int, layers: tuple[Layer, ...], place: tuple[str, ...], variant: str) -> Cell:
    names = dict(zip(AXES, place, strict=True))
    values: dict[str, Any] = {}
    for layer in layers:
        for setting in SETTINGS:
            value = getattr(layer.settings, setting, None)
            if value is not None:
                values[setting] = value
    for setting in NEEDED:
        if setting not in values:
            said = f"{setting} is missing; give it here or in [defaults]"
            raise file.wrong(("cell", index), said)
    values.setdefault("compatible", values["real"])
    for setting in PATTERNS:
        values[setting] = _PLACEHOLDER.sub(lambda found: names[found[1]], values[setting])
    return Cell(variant=variant, **names, **values)
