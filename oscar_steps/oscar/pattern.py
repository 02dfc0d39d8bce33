"""How texts to look for are written in our data files: as they are on the terminal, with … for anything."""

from __future__ import annotations

import re
from functools import cache

ANYTHING = "…"


@cache
def compiled(text: str) -> re.Pattern[str]:
    """`text` as a pattern to search for: … becomes a group, a ^ at the beginning stands for the line's beginning."""
    anchored = text.startswith("^")
    pieces = text.removeprefix("^").split(ANYTHING)
    pattern = "(.+?)".join(re.escape(piece) for piece in pieces)
    if len(pieces) > 1 and not pieces[-1]:
        pattern = pattern.removesuffix("(.+?)") + "(.*)"
    return re.compile(("^" if anchored else "") + pattern)


def longest_piece(text: str) -> str:
    """The longest text that every line has which the pattern of `text` finds."""
    return max(text.removeprefix("^").split(ANYTHING), key=len)
