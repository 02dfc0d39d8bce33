"""An image of another day with some packages of today: what a search over the packages of two images runs.

It is made on the old image's layer, which holds the old packages; apt brings those that are wanted to the versions of
the new one. It is an image of the store like any other, under a key that names the old image and each version.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from oscar_steps.errors import ConfigError, ImageBuildFailed
from oscar_steps.guest import guest_path
from oscar_steps.images import layer as layer_file
from oscar_steps.images import lease, room, root
from oscar_steps.images.build import kind_of
from oscar_steps.images.key import ImageKey, own_digests
from oscar_steps.images.kind import Base, Build, Report
from oscar_steps.images.kinds.bootstrap import Apt
from oscar_steps.images.layer import LAYER
from oscar_steps.images.record import ImageRecord
from oscar_steps.images.store import BaseImage, ImageStore
from oscar_steps.matrix.recipes import BootstrapRecipe, ImageRecipe


class UpgradeStore(ImageStore):
    """Makes images on the layer of one that is there. Raises ConfigError where that one keeps none of its own."""

    def __init__(self, directory: Path, old: str) -> None:
        super().__init__(directory)
        self.old = directory / old
        record = ImageRecord.load(self.old)
        if record is None:
            raise ConfigError(f"there is no image {old[:12]} in {directory}")
        self.recipe = _recipe(record)
        theirs = set(record.layer.get("packages", ()))
        if not (self.old / LAYER).is_file() or theirs != set(self.recipe.packages):
            what = f"the image {old[:12]} keeps no layer with all its packages, so none can be made on it"
            raise ConfigError(what, hint="take one that was built from nothing: `oscar-testdriver images` shows them")

    def key_with(self, wanted: Mapping[str, str]) -> ImageKey:
        """The key of the old image with these versions of packages."""
        versions = {f"version of {name}": version for name, version in wanted.items()}
        own = own_digests(kind_of(self.recipe).own_contents(self.recipe))
        # It is no image of this recipe: where the mirror is away, no run may take it for the newest one.
        recipe = {**self.recipe.model_dump(mode="json"), "upgraded": True}
        return ImageKey(recipe, own, {"image before": self.old.name, **versions})

    async def ensure_with(self, wanted: Mapping[str, str], report: Report) -> BaseImage:
        """The old image with these packages, built now if it has to be. Raises ImageBuildFailed, HostError."""
        with self._explained():
            return await self._ensured(self.recipe, self.key_with(wanted), report)

    @contextmanager
    def _base(self, key: ImageKey, layer: dict[str, Any]) -> Iterator[Base | None]:  # noqa: ARG002
        held = lease.lease(self.old)
        if held is None:
            raise ImageBuildFailed(f"the image {self.old.name[:12]} is gone")
        room.mark_used(self.directory, self.old.name)  # or it is the first to go, while a search is under way
        try:
            yield Base(self.old)
        finally:
            held.end()

    async def _run(self, build: Build[Any]) -> Base | None:
        prefix = "version of "
        versions = {name.removeprefix(prefix): each for name, each in build.outside.items() if name.startswith(prefix)}
        return await _Upgraded(build, versions).run()


@dataclass(frozen=True)
class _Upgraded:
    build: Build[BootstrapRecipe]
    versions: Mapping[str, str]

    async def run(self) -> Base | None:
        return await root.build_from_root(self.build, self._install)

    async def _install(self, folder: Path, _overlay: Path) -> None:
        base, recipe = self.build.base, self.build.recipe
        assert base is not None
        self.build.report(f"{len(self.versions)} packages of another day on the image {base.folder.name[:12]}")
        await layer_file.unpack(base, folder, self.build.log)
        words = [f"{name}={version}" for name, version in self.versions.items()]
        script = shlex.quote(str(guest_path("upgrade/upgrade.sh")))
        apt = Apt(replace(self.build, outside={}))  # its key names no index of the mirror
        await apt.change(folder, f'sh {script} "$1" {recipe.pool_folder} {shlex.join(words)}')
        await apt.finish(folder)


def _recipe(record: ImageRecord) -> BootstrapRecipe:
    try:
        recipe: Any = TypeAdapter(ImageRecipe).validate_python(record.recipe)
    except ValidationError as error:
        raise ConfigError(f"the image {record.key[:12]} has a recipe of another version: {error}") from None
    if not isinstance(recipe, BootstrapRecipe):
        raise ConfigError(f"the image {record.key[:12]} is of the kind {recipe.kind}; only bootstrap can be upgraded")
    return recipe
