"""What Subversion complains of, for people."""

from __future__ import annotations

import re

# E170013: unable to connect; E200009: some target was not there; E155009: the working copy. Others tell why.
_WRAPPERS = ("E170013", "E200009", "E155009")


def svn_words(errors: str) -> str:
    """Subversion's reason, among the lines that it wrote to standard error."""
    # A warning says more than the error after it, which is that there was one; an error that says only that something
    # did not work is followed by the reason, whose second line may name what it is about.
    said = re.findall(r"^svn: (?:[^:]+: )?([EW]\d+: .*)", errors, re.MULTILINE)
    causes = [line for line in said if not line.startswith(_WRAPPERS)] or said
    if not causes:
        lines = [line.strip() for line in errors.splitlines() if line.strip()]
        return lines[-1] if lines else "(it said nothing)"
    first = next((line for line in causes if line.startswith("W")), causes[0])
    after = causes[causes.index(first) + 1 :]
    return f"{first} {after[0].partition(': ')[2]}" if first.endswith(":") and after else first
