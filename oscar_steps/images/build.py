"""Build one base image from its recipe: the recipe's kind does it."""

from __future__ import annotations

from typing import Any

from oscar_steps.images.kind import DISK, KERNEL, LOG, Base, Build, Kind, Report
from oscar_steps.images.kinds.bootstrap import Bootstrap
from oscar_steps.images.kinds.cdrom import Cdrom
from oscar_steps.images.kinds.cloudimage import CloudImage
from oscar_steps.images.kinds.rpm import Rpm
from oscar_steps.matrix.recipes import ImageRecipe, Recipe

__all__ = ["DISK", "KERNEL", "LOG", "ImageBuild", "Report", "check_host", "kind_of"]

KINDS: dict[str, Kind[Any]] = {"bootstrap": Bootstrap(), "cdrom": Cdrom(), "cloud-image": CloudImage(), "rpm": Rpm()}
"""Each kind that a recipe can name."""


def kind_of(recipe: Recipe) -> Kind[Any]:
    return KINDS[recipe.kind]


def check_host(recipe: ImageRecipe) -> None:
    """Whether this host can build `recipe`. Raises ToolMissing (a program) or ConfigError (the recipe)."""
    kind_of(recipe).check(recipe)


class ImageBuild(Build[Any]):
    """One build of any kind."""

    async def run(self) -> Base | None:
        """Build, and say on which base (`Kind.build`). Raises ImageBuildFailed."""
        return await kind_of(self.recipe).build(self)
