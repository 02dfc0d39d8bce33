"""Whether the booted image has what OSCAR needs of a head node: asked once, in one session, before OSCAR comes."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from oscar_steps.errors import HostError, ImageUnfit
from oscar_steps.guest import guest_text
from oscar_steps.matrix.recipes import PackageRecipe

if TYPE_CHECKING:
    from oscar_steps.matrix.recipes import ImageRecipe
    from oscar_steps.testdriver.head.headnode import HeadNode

_SECONDS = 60.0
_SHOWN = 200
"""Characters of a line that comes from the guest."""


async def check_needs(head: HeadNode, recipe: ImageRecipe, address: str) -> None:
    """Raises ImageUnfit, with the first thing that is missing; the others are in its hint. HostError: no answer."""
    pool = recipe.pool_folder if isinstance(recipe, PackageRecipe) and recipe.pool else ""
    words = shlex.join(["sh", "-s", "--", pool, address])
    said = await head.run(words, seconds=_SECONDS, stdin=guest_text("head/needs.sh").encode())
    lines = [line.strip()[:_SHOWN] for line in said.output.splitlines() if line.strip()]
    if not lines or lines[-1] != "end":
        raise HostError(f"the image {recipe.name} was not looked at to the end: {said.last_line[:_SHOWN]}")
    if missing := lines[:-1]:
        others = "; ".join(f"it {line}" for line in missing[1:])
        raise ImageUnfit(f"the image {recipe.name} {missing[0]}", hint=others and f"Also: {others}.")
