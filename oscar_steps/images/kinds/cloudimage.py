"""The kind `cloud-image`: a disk of the vendor's own, by its address and SHA-256. Nothing of ours is in it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from oscar_steps.errors import ImageBuildFailed
from oscar_steps.images import download
from oscar_steps.images.jail import output_of, run_jailed
from oscar_steps.images.kind import DISK, Build, require_tools
from oscar_steps.matrix.recipes import CloudImageRecipe


class CloudImage:
    """Satisfies `Kind[CloudImageRecipe]`."""

    tools: Mapping[str, str] = {
        "unshare": "util-linux",
        "setpriv": "util-linux",
        "qemu-img": "qemu-utils",
        "genisoimage": "genisoimage",
        **download.TOOLS,
    }

    def check(self, _recipe: CloudImageRecipe) -> None:
        require_tools(self.tools)

    def own_contents(self, _recipe: CloudImageRecipe) -> dict[str, str]:
        return {}

    async def outside(self, _recipe: CloudImageRecipe) -> dict[str, str]:
        return {}

    def layer(self, _recipe: CloudImageRecipe) -> dict[str, Any]:
        return {}

    async def build(self, build: Build[CloudImageRecipe]) -> None:
        recipe, store = build.recipe, build.directory.parent
        # qcow2 has tables beside the disk's contents.
        most = recipe.disk_mib + recipe.disk_mib // 64, f"a disk of disk_mib = {recipe.disk_mib} cannot have so many"
        async with download.downloaded(recipe.url, recipe.sha256, store, build.log, build.report, most) as path:
            build.report("making the disk")
            await check_disk(path, recipe.disk_mib, recipe.url)
            disk = str(build.directory / DISK)
            await run_jailed(["qemu-img", "convert", "-f", "qcow2", "-O", "qcow2", str(path), disk], build.log)
            # cloud-init lets the root file system grow into what is new.
            await run_jailed(["qemu-img", "resize", "-f", "qcow2", disk, f"{recipe.disk_mib}M"], build.log)


async def check_disk(path: Path, disk_mib: int, name: str) -> None:
    """Raises ImageBuildFailed: no qcow2, one that reads other files of this host, or one that is too large."""
    try:
        info = json.loads(await output_of("qemu-img", "info", "-f", "qcow2", "--output=json", str(path)))
    except ImageBuildFailed as failure:
        raise ImageBuildFailed(f"{name} is no qcow2 image: {failure.sentence}") from failure
    extra = info.get("format-specific", {}).get("data", {})
    if "backing-filename" in info or "data-file" in extra:
        raise ImageBuildFailed(f"{name} refers to another file; an image has to be complete in itself")
    has = -(-int(info["virtual-size"]) // (1 << 20))
    if has > disk_mib:
        raise ImageBuildFailed(
            f"{name} is a disk of {has} MiB; the recipe's disk_mib is {disk_mib}, so it is too small"
        )
