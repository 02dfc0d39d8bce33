"""Image recipes: how the base image of a head node comes to be (`profiles/images/`)."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from oscar_steps.matrix.model import Frozen


class ImageRecipe(Frozen):
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
