"""Layers: an image keeps the root file system as it was before our last files came, so that the next one is quick.

An image whose recipe or files of ours changed only in what comes after the packages is made of that layer by the same
steps that a full build takes from there on. So it is equal to one. Where packages came to the recipe, apt adds them to
the root, and then says what a full build would have installed: where that is anything else, the layer is of no use, and
the image is built from nothing. So it is for everything else that changes. An image that is made of a layer keeps that
very one: to pack another costs more than to add the packages once more.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from oscar_steps.images.jail import run_jailed
from oscar_steps.images.key import ImageKey
from oscar_steps.images.kind import Base
from oscar_steps.images.record import ImageRecord

LAYER = "root.tar.zst"
TOOLS = {"zstd": "zstd", "tar": "tar"}
_TAR = ("tar", "--numeric-owner", "--xattrs", "--xattrs-include=*")


async def pack(root: Path, directory: Path, log: Path) -> None:
    """Keep the folder `root` as the layer of the image in `directory`."""
    await run_jailed([*_TAR, "-I", "zstd -q --fast=3", "-cf", str(directory / LAYER), "-C", str(root), "."], log)


async def unpack(base: Base, root: Path, log: Path) -> None:
    """Make the folder `root` of a layer."""
    root.mkdir()
    await run_jailed([*_TAR, "-I", "zstd", "-xpf", str(base.folder / LAYER), "-C", str(root)], log)


def hand_on(base: Base, directory: Path) -> None:
    """Give the image in `directory` the layer of its base: as one file on the disk, where the two are one user's."""
    try:
        os.link(base.folder / LAYER, directory / LAYER)
    except OSError:
        shutil.copyfile(base.folder / LAYER, directory / LAYER)


def base_for(key: ImageKey, layer: dict[str, Any], folders: Iterable[tuple[Path, ImageRecord]]) -> Base | None:
    """The image on whose layer one with this key and layer is made with the fewest packages added; None: there is none.

    An image of another day's packages is none, nor one that has packages which the recipe does not name any more.
    """
    found = list[tuple[int, float, Base]]()
    for folder, record in folders:
        same = (record.version, record.outside) == (key.version, key.outside)
        if not (layer and record.layer and same and record.layer.get("rest") == layer["rest"]):
            continue
        theirs = set(record.layer.get("packages", ()))
        if theirs <= set(layer["packages"]) and LAYER in record.files and (folder / LAYER).is_file():
            added = tuple(name for name in layer["packages"] if name not in theirs)
            found.append((len(added), -record.built, Base(folder, added)))
    return min(found, key=lambda each: each[:2])[2] if found else None
