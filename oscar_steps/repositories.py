"""What a site watches, as its `farm.toml` says it: where OSCAR's source is."""

from __future__ import annotations

import re
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Literal, NamedTuple, Self
from urllib.parse import quote

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, field_validator, model_validator
from pydantic_core import PydanticCustomError

from oscar_steps.addresses import address_fault
from oscar_steps.sources.externals_text import server_of
from oscar_steps.sources.git import name_fault
from oscar_steps.sources.source import SourceKind
from oscar_steps.sources.svn import PASSWORD_IN_URL
from oscar_steps.sources.tarballs.looking import Place
from oscar_steps.sources.tarballs.names import NotOurTarball, Version

_LOGINS = {
    "user": ("svn", "http", "https"),
    "certificate": ("https",),
    "authorities": ("https",),
    "ssh_key": ("svn+ssh",),
    "known_hosts": ("svn+ssh",),
}
"""Settings of `[repository]`, and the addresses that they are for."""
_TOKEN_IN_URL = re.compile(r"^https?://[^/]*@", re.IGNORECASE)
_FOLDER = r"^[A-Za-z0-9._-]+(/[A-Za-z0-9._-]+)*$"


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


def _understood(url: str) -> str:
    server = server_of(url)
    if server is None or not (server[1] or server[0] == "file"):
        raise PydanticCustomError("server", "this URL has no server, or one whose name or port cannot be understood")
    return url


Url = Annotated[str, AfterValidator(_understood)]


class Repository(_Frozen):
    """OSCAR's Subversion repository. `url` is the folder with trunk, branches, tags; master and workers reach it."""

    url: Url = Field(pattern=r"^(svn|svn\+ssh|https?|file)://[^\s]+$")
    trunk: str = Field(default="trunk", pattern=_FOLDER)
    branches: str = Field(default="branches", pattern=_FOLDER)
    tags: str = Field(default="tags", pattern=_FOLDER)
    poll: int = Field(default=60, ge=1)
    """Seconds between two looks at the repository."""
    history: int = Field(default=200, ge=10)
    """Without effect, for sites that have it: a look asks for every revision since the one before."""
    skip: tuple[str, ...] = ("ChangeLog", "CREDITS", "doc/*")
    """Shell patterns of paths in a branch that are not installed: a commit that only writes these is not tested."""
    burst: Literal["newest", "each"] = "newest"
    """Several commits of a branch within `[schedule] tree_stable`: the newest is tested, for all authors; or each."""
    revision_link: str = Field(default="", pattern=r"^$|^https?://[^%\s]*%s[^%\s]*$")
    """Address of a revision's web page, with %s where its number goes; empty: there is none."""

    user: str = Field(default="", pattern=r"^[^\x00-\x1f]*$")
    """The account that the farm has there; its password is the secret `svn-password`."""
    certificate: Path | None = None
    """The farm's own certificate with its key (PKCS#12), for a server that asks for one: `svn-certificate` opens it."""
    authorities: Path | None = None
    """Certificates (PEM) of authorities that sign the server's, beside those that the system knows."""
    ssh_key: Path | None = None
    """For svn+ssh: a private key without a passphrase."""
    known_hosts: Path | None = None
    """For svn+ssh: the server's key, as ssh-keyscan writes it; none: those that the farm's user and the system know."""

    @field_validator("url")
    @classmethod
    def _has_no_password(cls, url: str) -> str:
        if PASSWORD_IN_URL.search(url):
            raise PydanticCustomError(
                "password",
                "this URL must not contain a password, because logs and mails show it, and svn ignores it there; "
                "write the account into `user`, and type its password as the secret svn-password",
            )
        return url

    @field_validator("certificate", "authorities", "ssh_key", "known_hosts", mode="before")
    @classmethod
    def _empty_is_none(cls, path: object) -> object:
        return path or None

    @model_validator(mode="after")
    def _has_the_login_of_its_kind(self) -> Self:
        kind = self.url.partition(":")[0]
        for name, kinds in _LOGINS.items():
            if getattr(self, name) and kind not in kinds:
                said = f"{name} is for {', '.join(f'{each}://' for each in kinds)}, and the url begins with {kind}://"
                raise PydanticCustomError("login", "{said}", {"said": said})
        return self

    @property
    def has_login(self) -> bool:
        """Whether anything is said of how the farm shows who it is."""
        return any(getattr(self, name) for name in _LOGINS)

    def below(self, folder: Path) -> Self:
        """The same with absolute paths."""
        paths = {name: getattr(self, name) for name in _LOGINS if name != "user"}
        return self.model_copy(update={name: folder / path for name, path in paths.items() if path is not None})

    @field_validator("trunk", "branches", "tags")
    @classmethod
    def _is_ours(cls, folder: str) -> str:
        if kind_of(f"{folder}/") != "svn":
            sentence = "no folder of Subversion can be called {folder} here: the branches of others begin so"
            raise PydanticCustomError("folder", sentence, {"folder": folder})
        return folder

    def source_url(self, branch: str) -> str:
        """The URL that is checked out for `branch` ('trunk', 'branches/NAME', 'tags/NAME')."""
        return f"{self.url.rstrip('/')}/{quote(branch)}"


class Branch(NamedTuple):
    """A branch as changes and builds name it, and the address of its repository."""

    repository: str
    name: str


GIT = "git/"
"""Before the name of a git repository: the branch of a change is git/NAME/BRANCH."""


class Git(_Frozen):
    """A git repository with OSCAR's source: `[[git]]`. docs/operator-guide.md says how it is watched."""

    name: str = Field(pattern=r"^[A-Za-z0-9_-]{1,50}$")
    url: Url = Field(pattern=r"^(git|ssh|https?|file)://[^\s]+$")
    branches: tuple[Annotated[str, Field(min_length=1)], ...] = Field(default=("*",), min_length=1)
    """Shell patterns of the branches that are watched, as git calls them."""
    main: str = "main"
    """The branch that is tested by night, as the trunk is."""
    poll: int = Field(default=60, ge=1)
    """Seconds between two looks."""
    skip: tuple[str, ...] = ("ChangeLog", "CREDITS", "doc/*")
    """As of `[repository]`."""
    burst: Literal["newest", "each"] = "newest"
    """As of `[repository]`."""
    revision_link: str = Field(default="", pattern=r"^$|^https?://[^%\s]*%s[^%\s]*$")
    """Address of a commit's web page, with %s where its id goes; empty: there is none."""

    @field_validator("url")
    @classmethod
    def _has_no_password(cls, url: str) -> str:
        # Git's servers of the web take a token for an account: nobody could type a password for one here.
        if PASSWORD_IN_URL.search(url) or _TOKEN_IN_URL.search(url):
            sentence = (
                "this URL must not contain a password or a token, because logs and mails show it; use a key of the "
                "farm's user (ssh://), or a URL that needs no password"
            )
            raise PydanticCustomError("password", sentence)
        return url

    @field_validator("main")
    @classmethod
    def _is_a_branch(cls, name: str) -> str:
        if fault := name_fault(name):
            raise PydanticCustomError("branch", "{fault}", {"fault": fault})
        return name

    @property
    def prefix(self) -> str:
        """Before git's name of a branch."""
        return f"{GIT}{self.name}/"

    @property
    def main_branch(self) -> Branch:
        """Its main branch."""
        return Branch(self.url, self.prefix + self.main)

    def copy_below(self, folder: Path) -> Path:
        """Where the master, whose folder this is, has its copy."""
        return folder / f"git-{self.name}.git"

    def watches(self, name: str) -> bool:
        """Whether commits on the branch that git calls so are tested."""
        return any(fnmatchcase(name, pattern) for pattern in self.branches)


TARBALLS = "tarballs/"
"""Before the name of a place: the branch of its changes."""


class Tarballs(_Frozen):
    """A place where releases appear as tarballs: `[[tarballs]]`. docs/operator-guide.md says what happens to them."""

    name: str = Field(pattern=r"^[A-Za-z0-9_-]{1,50}$")
    url: str = Field(pattern=r"^((https?|ftp|file)://[^\s]+|/[^\s]*)$")
    """A folder of the master's host (/srv/releases), an index page of a web server, a folder of an FTP server."""
    poll: int = Field(default=300, ge=1)
    """Seconds between two looks. A file is taken when two looks have found it the same."""
    parts: tuple[Annotated[str, Field(pattern=r"^[a-z0-9_.*?-]+$")], ...] = ("base",)
    """Shell patterns of the parts that a set must have before it is tested: base, srpms, repo-common-rpms,
    repo-DISTRO-VERSION-ARCH. A release in one file (oscar-VERSION.tar.gz) is complete in any case."""
    patterns: tuple[Annotated[str, Field(min_length=1)], ...] = ("oscar-*",)
    """Shell patterns of the names that are looked at."""
    newer_than: str = ""
    """Test what is there already, if its version is newer than this one; '': only what comes after the first look."""
    keyring: Path | None = None
    """Public keys (as `gpg --export` writes them). With it only files are tested that have a signature of one of them,
    beside them as NAME.asc or NAME.sig."""
    release_manager: str = ""
    """The mail address that gets the report about each release, and mail about what is wrong with its files."""
    remind_hours: float = Field(default=24, gt=0, le=10_000)
    """After so long a set that is not complete is reported."""
    size_mib: int = Field(default=4096, ge=1)
    """A file that is larger is not taken."""
    keep_mib: int = Field(default=20480, ge=1)
    """So much of the files is kept by the master; what came first goes first."""

    @field_validator("url")
    @classmethod
    def _has_no_password(cls, url: str) -> str:
        if PASSWORD_IN_URL.search(url):
            sentence = "this URL must not contain a password: write it into .netrc in the home of the farm's user"
            raise PydanticCustomError("password", sentence)
        return url

    @field_validator("keyring", mode="before")
    @classmethod
    def _empty_is_none(cls, path: object) -> object:
        return path or None

    @field_validator("newer_than")
    @classmethod
    def _is_a_version(cls, text: str) -> str:
        try:
            return Version.parse(text).text if text else ""
        except NotOurTarball as error:
            raise PydanticCustomError("version", "{said}", {"said": error.sentence}) from None

    @field_validator("release_manager")
    @classmethod
    def _is_an_address(cls, address: str) -> str:
        if address and (fault := address_fault(address)):
            raise PydanticCustomError("address", "{fault}", {"fault": fault})
        return address

    @property
    def branch(self) -> str:
        """Of its changes."""
        return f"{TARBALLS}{self.name}"

    @property
    def place(self) -> Place:
        """The same for one who looks."""
        return Place(
            name=self.name,
            url=self.url,
            parts=self.parts,
            patterns=self.patterns,
            keyring=self.keyring,
            newer_than=self.newer_than,
            remind_seconds=self.remind_hours * 3600,
            file_bytes=self.size_mib << 20,
            keep_bytes=self.keep_mib << 20,
        )


def kind_of(branch: str) -> SourceKind:
    """The kind of what is on a branch, by the farm's name of it."""
    return "git" if branch.startswith(GIT) else "tarball" if branch.startswith(TARBALLS) else "svn"
