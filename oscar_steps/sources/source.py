"""The identity of what is tested: a revision, or a set of tarballs, and perhaps a developer's patch on it."""

from __future__ import annotations

import hashlib
import json
import re
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

SourceKind = Literal["svn", "git", "tarball"]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
MAX_PATCH_BYTES = 2**20
MAX_STRIP = 5


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class TarFile(_Frozen):
    """One tarball of a release: its name, where it is fetched from, and what it is."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._+:~-]{0,200}$")
    url: str = Field(min_length=1)
    sha256: Sha256
    size: int = Field(ge=0)
    """Bytes."""


class External(_Frozen):
    """What a checkout gets from elsewhere (svn:externals): path in the tree, address, revision.

    The revision is exact on the repository's own server. Another server is not asked: it is what the property says.
    """

    path: str = Field(min_length=1)
    url: str = Field(min_length=1)
    revision: str = Field(min_length=1)
    kind: Literal["folder", "file"] = "folder"

    def __str__(self) -> str:
        return f"{self.path} from {self.url}@{self.revision}"


class Patch(_Frozen):
    """A developer's change that is in no repository. `text` is left out where only its identity is wanted."""

    sha256: Sha256
    who: str
    """The login of the developer, who alone learns the result."""
    strip: int = Field(default=0, ge=0, le=MAX_STRIP)
    """So many folders are taken off the front of each path, as by patch -p."""
    text: str = Field(default="", max_length=MAX_PATCH_BYTES)
    encoding: Literal["utf-8", "latin-1"] = "utf-8"
    """Of the text. Old files are in other encodings than UTF-8: bytes that are not UTF-8 are kept as Latin-1."""

    @classmethod
    def of(cls, text: str, who: str, strip: int = 0) -> Self:
        """The patch with this text."""
        return cls(sha256=_digest(text), who=who, strip=strip, text=text)

    @classmethod
    def of_bytes(cls, content: bytes, who: str, strip: int = 0) -> Self:
        """The patch in a file."""
        try:
            return cls.of(content.decode("utf-8"), who, strip)
        except UnicodeDecodeError:
            digest, text = hashlib.sha256(content).hexdigest(), content.decode("latin-1")
            return cls(sha256=digest, who=who, strip=strip, text=text, encoding="latin-1")

    @property
    def content(self) -> bytes:
        """The bytes of the file that the developer gave."""
        return self.text.encode(self.encoding, "surrogatepass" if self.encoding == "utf-8" else "strict")

    @model_validator(mode="after")
    def _is_itself(self) -> Self:
        try:
            digest = hashlib.sha256(self.content).hexdigest()
        except UnicodeEncodeError:
            digest = ""
        if self.text and digest != self.sha256:
            raise ValueError("the patch is not the one that its sha256 names")
        return self


class Source(_Frozen):
    """Where OSCAR comes from. `url` is reached from the host; `revision` is exact, never 'HEAD'.

    svn: `revision` is a number. git: `url` is the repository's, `revision` a full commit id. tarball: `url` is the
    place that was looked at, `revision` the version as the files' names say it, and `files` are what is unpacked.
    """

    kind: SourceKind = "svn"
    url: str = Field(min_length=1)
    revision: str = Field(min_length=1)
    branch: str = ""
    """As the farm names it ('trunk', 'branches/NAME'); '' where nobody said it. It is no part of the identity."""
    files: tuple[TarFile, ...] = ()
    externals: tuple[External, ...] = ()
    """In the order in which they are checked out: one may be inside another."""
    patch: Patch | None = None

    @model_validator(mode="after")
    def _has_what_its_kind_needs(self) -> Self:
        if bool(self.files) != (self.kind == "tarball"):
            raise ValueError("a source has files if, and only if, it is of kind tarball")
        return self

    def __str__(self) -> str:
        patched = f" with the patch {self.patch.sha256[:8]} of {self.patch.who}" if self.patch else ""
        return f"{self.url}@{self.revision}{patched}"

    @property
    def short(self) -> str:
        """A short name, for people and for names of files: 'r5916', 'g0123456789ab', 't5.1rc1', 'r5916.p0a1b2c3d'."""
        number = self.revision[:12] if self.kind == "git" else self.revision[:40]
        name = {"svn": "r", "git": "g", "tarball": "t"}[self.kind] + re.sub(r"[^A-Za-z0-9.]", "_", number)
        return f"{name}.p{self.patch.sha256[:8]}" if self.patch else name

    @property
    def identity(self) -> str:
        """A digest of all that decides what is tested: equal for the same thing, and for nothing else."""
        if self.kind == "tarball":
            what: object = sorted((file.name, file.sha256) for file in self.files)
        elif self.kind == "git":
            what = self.revision
        else:
            what = [self.url.rstrip("/"), self.revision, sorted((e.path, e.url, e.revision) for e in self.externals)]
        patch = [self.patch.sha256, self.patch.strip] if self.patch else None
        return _digest(json.dumps([self.kind, what, patch]))

    @property
    def is_exact(self) -> bool:
        """Whether `identity` says all: an external on another server may be another one tomorrow."""
        return all(external.revision.isdecimal() for external in self.externals)

    def without_text(self) -> Source:
        """The same, without the patch's text: to be shown and kept."""
        if self.patch is None:
            return self
        return self.model_copy(update={"patch": self.patch.model_copy(update={"text": ""})})


def short_name(revision: str) -> str:
    """A revision as people write it: a number of Subversion's has an 'r', of a commit's id the beginning is enough."""
    if re.fullmatch("[0-9a-f]{40}", revision):
        return revision[:12]
    return f"r{revision}" if revision.isdecimal() else revision


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
