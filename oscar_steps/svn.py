"""What Subversion complains of, for people."""

from __future__ import annotations

import re

PASSWORD_IN_URL = re.compile(r"^[^/]*//[^/@]*:[^/]*@")
"""Subversion takes none from there, and the address stands in logs, on pages and in mails."""
_NO_CHARACTER = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_REFERENCE = re.compile(r"&#(?:x([0-9A-Fa-f]{1,8})|([0-9]{1,10}));")
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


def characters(output: bytes) -> str:
    """The text of svn's XML, which may hold what no XML may; what is no character of XML is U+FFFD."""
    text = _NO_CHARACTER.sub("\ufffd", output.decode("utf-8", "replace"))
    return _REFERENCE.sub(lambda found: found[0] if _is_character(found) else "\ufffd", text)


def _is_character(found: re.Match[str]) -> bool:
    number = int(found[1], 16) if found[1] else int(found[2])
    return number <= 0x10FFFF and not _NO_CHARACTER.match(chr(number))
