"""What a tarball says of its own version (OSCAR's file VERSION) against what its name says."""

from __future__ import annotations

import re

from oscar_steps.sources.tarballs.names import TarName
from oscar_steps.textio import one_line

_SETTING = re.compile(r"^[ \t]*(\w+)[ \t]*=[ \t]*([^#\s]*)", re.MULTILINE)
_UNKNOWN = "-1"
"""Of a revision: found out where the version is asked for, so the file does not say it."""


def difference(name: TarName, version_text: str | None) -> str:
    """In one sentence, how VERSION and the name of its tarball differ; '' where they agree."""
    if version_text is None:
        return f"{name.text} has no file VERSION in its top folder"
    said = dict(_SETTING.findall(version_text))
    plain, built = _base(said), _built(said)
    full = name.version.text
    spellings = {
        plain,
        plain if said.get("release", "") not in ("", "0") else _base({**said, "release": "0"}, zero=True),
    }
    for spelling in spellings:
        rest = full.removeprefix(spelling)
        if full.startswith(spelling) and _agrees(rest, built):
            return ""
    return f"{name.text} says in its file VERSION that it is OSCAR {one_line(plain + (built or ''), 60)}, not {full}"


def _base(said: dict[str, str], *, zero: bool = False) -> str:
    release = said.get("release", "")
    tail = f".{release}" if zero or release not in ("", "0") else ""
    return f"{said.get('major', '?')}.{said.get('minor', '?')}{tail}{said.get('greek', '')}"


def _built(said: dict[str, str]) -> str | None:
    """The part of the version that names a revision: '' where there is to be none, None where any may stand."""
    if said.get("want_svn", said.get("want_build_r", "")) != "1":
        return ""
    revision = said.get("svn_r", said.get("build_r", _UNKNOWN))
    return None if revision in ("", _UNKNOWN) else revision


def _agrees(rest: str, built: str | None) -> bool:
    if built is None:
        # 'make source_tarball' names a tarball without a revision, 'make dist' with the one of the checkout.
        return re.fullmatch(r"|(?:r[0-9]|svn[0-9]|[0-9]{8}git|nightly).*", rest) is not None
    night = rest.removeprefix(built)
    return rest.startswith(built) and re.fullmatch(r"|-[0-9]{8}|nightly(?:-[0-9]{8})?", night) is not None
