"""What is written down of a finished image, in `key.json` beside it: why it is as it is, and its digests."""

from __future__ import annotations

import os
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from oscar_steps import manifest
from oscar_steps.images.key import ImageKey
from oscar_steps.textio import one_line, open_regular, read_regular, sha256_of

KEY_FILE = "key.json"
_LONGEST = 4 << 20
"""Bytes that it may have; one with a distribution's public keys has 50 KB."""
# In a store that is shared it may be another user's: no time that no calendar has, no name of a file elsewhere.
_Seconds = Annotated[float, Field(ge=0, le=1e11, allow_inf_nan=False)]
_FileName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9._-]*$")]


class FileRecord(BaseModel):
    """A file of the image, as it was when the image was made."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    size: int
    sha256: str


class ImageRecord(BaseModel):
    """`key.json`. A field that a later version adds is left out by this one."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    key: str
    version: int
    recipe: dict[str, Any]
    own: dict[str, str]
    outside: dict[str, str]
    layer: dict[str, Any] = {}
    """What shaped the layer that the image keeps for its successors; {}: it keeps none."""
    base: str = ""
    """The image on whose layer it was made; '': it was made from nothing."""
    built: _Seconds
    """When, in seconds since 1970."""
    seconds: _Seconds
    """How long that took."""
    manifest: str = ""
    """The digest of its list of packages; '': it has none."""
    files: dict[_FileName, FileRecord]

    @property
    def image_key(self) -> ImageKey:
        return ImageKey(self.recipe, self.own, self.outside, self.version)

    @property
    def name(self) -> str:
        return one_line(self.image_key.name)

    @property
    def day(self) -> str:
        """The day on which it was built."""
        return f"{datetime.fromtimestamp(self.built):%Y-%m-%d}"

    @classmethod
    def load(cls, folder: Path) -> ImageRecord | None:
        """The record of the image in `folder`; None where it has none that can be used (of an earlier version, too)."""
        try:
            path = folder / KEY_FILE
            record = None if path.stat().st_size > _LONGEST else cls.model_validate_json(read_regular(path))
        except (OSError, ValidationError):
            return None
        return record if record and record.key == folder.name else None

    def faults(self, folder: Path, *, thorough: bool) -> list[str]:
        """What is wrong with the files in `folder`; not `thorough`: by their sizes alone, at once."""
        found = []
        for name, file in self.files.items():
            path = folder / name
            try:
                with os.fdopen(open_regular(path, os.O_RDONLY | os.O_NOFOLLOW), "rb") as opened:
                    size = os.fstat(opened.fileno()).st_size
                if size != file.size:
                    found.append(f"{name} has {size} bytes, not {file.size}")
                elif thorough and sha256_of(path) != file.sha256:
                    found.append(f"{name} is not what it was when the image was built")
            except OSError as error:
                found.append(f"{name} cannot be read: {error.strerror}")
        return found


def describe(folder: Path, key: ImageKey, *, built: float, seconds: float, **more: Any) -> ImageRecord:
    """The record of a finished image. It reads all its files."""
    paths = sorted(path for path in folder.iterdir() if path.is_file() and path.name != KEY_FILE)
    text = manifest.read_manifest(folder / manifest.MANIFEST_FILE)
    return ImageRecord(
        key=key.digest,
        version=key.version,
        recipe=dict(key.recipe),
        own=dict(key.own),
        outside=dict(key.outside),
        built=built,
        seconds=round(seconds, 1),
        manifest="" if text is None else manifest.digest(text),
        files={path.name: FileRecord(size=path.stat().st_size, sha256=sha256_of(path)) for path in paths},
        **more,
    )
