"""What a kind of image is: one way in which a base image comes to be, one module in `kinds/`."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

from oscar_steps.errors import ToolMissing
from oscar_steps.images.jail import build_environment
from oscar_steps.matrix.recipes import Recipe

Report = Callable[[str], None]
_Makes = TypeVar("_Makes", bound=Recipe, covariant=True)
_Takes = TypeVar("_Takes", bound=Recipe, contravariant=True)

DISK, KERNEL, INITRD, LOG = "image.qcow2", "vmlinuz", "initrd.img", "build.log"


@dataclass(frozen=True)
class Base:
    """An image on whose layer another one can be made; `added`: packages that the layer has not."""

    folder: Path
    added: tuple[str, ...] = ()


@dataclass(frozen=True)
class Build(Generic[_Makes]):
    """One build, all in `directory`, which holds `image.qcow2` in the end, and `vmlinuz` and `initrd.img` where the
    kind has them."""

    recipe: _Makes
    directory: Path
    machine_id: str
    report: Report
    outside: Mapping[str, str] = field(default_factory=dict)
    """What the image's key says of the world outside (`Kind.outside`)."""
    base: Base | None = None

    @property
    def log(self) -> Path:
        return self.directory / LOG

    @property
    def work(self) -> Path:
        """A folder for what is needed only while the image is made; the kind removes it at the end."""
        return self.directory / "work"


class Kind(Protocol[_Takes]):
    """One way to make an image. A recipe's `kind` names it (`build.KINDS`)."""

    @property
    def tools(self) -> Mapping[str, str]:
        """Programs of the host that every recipe of this kind needs, each with the Debian package that brings it."""

    def check(self, recipe: _Takes) -> None:
        """Whether this host can build `recipe`. Raises ToolMissing or ConfigError."""

    def own_contents(self, recipe: _Takes) -> dict[str, str]:
        """All text of ours that shapes the image, for its key: the name of each file, for people, to its contents."""

    async def outside(self, recipe: _Takes) -> dict[str, str]:
        """What else shapes the image, for its key: a name for people ('package index of bookworm') to a digest.

        Raises OutsideUnknown where that cannot be found out.
        """

    def layer(self, recipe: _Takes) -> dict[str, Any]:
        """What shapes the layer that an image keeps for its successors: `packages`, their names, and `rest`, a digest
        of all else. {}: images of this kind keep none."""

    async def build(self, build: Build[_Takes]) -> Base | None:
        """Build, and say on which base; None: from nothing. Raises ImageBuildFailed; what has been made until then
        stays in the directory."""


def missing_tools(tools: Mapping[str, str]) -> dict[str, str]:
    """Those of the programs and files (paths) that this host does not have, and the package of each."""
    path = build_environment()["PATH"]
    missing = {tool: package for tool, package in tools.items() if shutil.which(tool, path=path) is None}
    return {
        tool: package for tool, package in missing.items() if not Path(tool).is_absolute() or not Path(tool).exists()
    }


def require_tools(tools: Mapping[str, str]) -> None:
    """Raises ToolMissing, with the command that installs them, where a program or file (a path) is missing."""
    if missing := missing_tools(tools):
        raise ToolMissing(
            f"an image cannot be built without {', '.join(missing)}",
            hint=f"apt-get install {' '.join(sorted(set(missing.values())))}",
        )
