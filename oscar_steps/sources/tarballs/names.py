"""What OSCAR's tarballs are called, in all its periods, and which version is newer.

    oscar-4.2.1.tar.gz, oscar-including-srpms-4.2.1.tar.gz, oscar-only-srpms-4.2.1.tar.gz     until 4.x
    oscar-base-FULL.tar.gz, oscar-srpms-FULL.tar.gz, oscar-repo-DISTRO-VERSION-ARCH-FULL.tar.gz    since 5.0
    oscar-6.3.tar.gz                                                                          today

FULL is MAJOR.MINOR[.RELEASE][GREEK][rREVISION | svnMMDDYYYY][nightly-YYYYMMDD], such as 5.1a1r5916nightly-20070615.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import total_ordering

from oscar_steps.errors import UserError
from oscar_steps.textio import printable_name

ENDINGS = (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
BASE, SOURCE, WITH_SRPMS, COMMON = "base", "source", "including-srpms", "repo-common-rpms"
MAIN_PARTS = (BASE, SOURCE, WITH_SRPMS)
"""Each of them holds an installer. Where a version has several the first of these is tested."""
LONGEST = 200
_GREEK = {"a": 1, "alpha": 1, "b": 2, "beta": 2, "rc": 3}
_OTHER_WORD, _NO_GREEK = 0, 4
"""A word such as sc2005 was for what came before an alpha."""
_VERSION = re.compile(
    r"(?P<major>[0-9]{1,4})\.(?P<minor>[0-9]{1,4}?)(?:\.(?P<release>[0-9]{1,4}?))?"
    r"(?:(?P<git>[0-9]{8})git|(?P<greek>[A-Za-z][A-Za-z0-9]*?)??"
    r"(?:r(?:[0-9]{1,9}:)?(?P<revision>[0-9]{1,9})[MSP]*|svn(?P<date>[0-9]{8}))?"
    r"(?:nightly(?:-(?P<night>[0-9]{8}))?)?)"
)
_NAME = re.compile(
    r"oscar-(?:(?P<part>base|srpms|including-srpms|only-srpms|repo-[a-z0-9_]+(?:-[a-z0-9_.]+)*?)-)?"
    r"(?P<version>[0-9]{1,4}\.[0-9][A-Za-z0-9.:]*(?:-[0-9]{8})?)"
)


class NotOurTarball(UserError):
    """A file's name is not one of OSCAR's tarballs; the sentence says why."""


@total_ordering
@dataclass(frozen=True, eq=False)
class Version:
    """A full version as it stands in names. Two spellings of one version (6.3, 6.3.0) are the same in order only."""

    text: str
    key: tuple[object, ...]

    @classmethod
    def parse(cls, text: str) -> Version:
        """Raises NotOurTarball."""
        found = _VERSION.fullmatch(text) if len(text) <= LONGEST else None
        if found is None:
            right = "versions are like 5.0, 5.1rc1, 6.0.5, 5.1a1r5916 or 5.0b2r6000nightly-20070704"
            raise NotOurTarball(f"'{printable_name(text[:LONGEST])}' is not a version of OSCAR; {right}")
        word, number = _split(found["greek"] or "")
        rank = _GREEK.get(word.lower(), _OTHER_WORD) if word else _NO_GREEK
        built = _sortable(found["date"]) or int(found["git"] or 0)
        return cls(
            text,
            (
                *(int(found[name] or 0) for name in ("major", "minor", "release")),
                *(rank, word.lower(), number),
                # What was built of a checkout is later than the plain name only where it has a night or a revision.
                *(int(found["revision"] or -1), built, int(found["night"] or 0)),
            ),
        )

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Version) and (self.key, self.text) == (other.key, other.text)

    def __lt__(self, other: Version) -> bool:
        return (self.key, self.text) < (other.key, other.text)

    def __hash__(self) -> int:
        return hash(self.text)

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True)
class TarName:
    """The name of one of OSCAR's tarballs, and what it says."""

    text: str
    part: str
    """base, source, srpms, including-srpms, only-srpms, repo-common-rpms or repo-DISTRO-VERSION-ARCH."""
    version: Version

    @classmethod
    def parse(cls, name: str) -> TarName:
        """Raises NotOurTarball with the reason, in one printable sentence."""
        if hostile := _hostile(name):
            raise NotOurTarball(f"'{printable_name(name[:LONGEST])}' is no tarball of OSCAR's: {hostile}")
        ending = next((each for each in ENDINGS if name.endswith(each)), "")
        found = _NAME.fullmatch(name.removesuffix(ending)) if ending else None
        if found is None:
            raise NotOurTarball(f"'{printable_name(name)}' is no tarball of OSCAR's: its name is not of that form")
        return cls(name, found["part"] or SOURCE, Version.parse(found["version"]))

    @property
    def repository(self) -> str:
        """DISTRO-VERSION-ARCH, or common-rpms: the folder below /tftpboot/oscar; '' of what is no repository."""
        return self.part.removeprefix("repo-") if self.part.startswith("repo-") else ""


def is_ours(name: str) -> bool:
    """Whether a file is called like one of OSCAR's tarballs."""
    try:
        TarName.parse(name)
    except NotOurTarball:
        return False
    return True


def _hostile(name: str) -> str:
    if len(name) > LONGEST:
        return f"its name has {len(name)} characters"
    if "/" in name or "\\" in name or name in ("", ".", ".."):
        return "its name leads to another folder"
    if not name.isascii() or not name.isprintable():
        return "its name has characters that no name of a release has"
    if name.startswith(("-", ".")):
        return "its name begins with a dash or a dot"
    return ""


def _split(greek: str) -> tuple[str, int]:
    word = greek.rstrip("0123456789")
    return word, int(greek[len(word) :][:9] or 0)


def _sortable(date: str | None) -> int:
    """MMDDYYYY, as OSCAR's scripts wrote it, or YYYYDDMM, as they write it today, as the number YYYYMMDD."""
    if not date:
        return 0
    if date[:2] in ("19", "20") and date[4:6] not in ("19", "20"):
        return int(date[:4] + date[6:] + date[4:6])
    return int(date[4:] + date[:4])
