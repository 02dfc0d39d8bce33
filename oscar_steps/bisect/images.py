"""The images of a search over packages: the old one, the old one with more and more upgrades, at last the new one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from oscar_steps.manifest import Upgrade, versions_of


@dataclass(frozen=True)
class Images:
    """Position 0 is the old image, position N has the first N upgrades, and the position after the last is the new one.

    `old` and `new` are keys of images.
    """

    old: str
    new: str
    upgrades: tuple[Upgrade, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """What each position has more than the one before, in words."""
        rest = f"what else differs in the image {self.new[:12]}"
        return (f"the image {self.old[:12]}", *map(str, self.upgrades), rest)

    def at(self, position: int) -> str:
        """The image of a position, in words."""
        if position > len(self.upgrades):
            return f"the image {self.new[:12]}"
        more = f" with all up to {self.upgrades[position - 1]}" if position else ""
        return f"the image {self.old[:12]}{more}"

    def wanted(self, position: int) -> dict[str, Any]:
        """The image of a position, as fields of a job."""
        if position > len(self.upgrades):
            return {"image_key": self.new, "image_versions": {}}
        return {"image_key": self.old, "image_versions": versions_of(self.upgrades[:position])}
