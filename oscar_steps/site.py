"""The site, read from `farm.toml`: where OSCAR's repository is, when to test, who gets mail, which workers there are.

Pure models, which only read the site's files. Secrets (passwords of workers, of the mail account, of web logins) are in
files below `[secrets] directory`, one each.
`python -m oscar_steps.site FARM.TOML` prints the settings in effect.
"""

from __future__ import annotations

import argparse
import os
import pwd
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal, Self, get_args

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, field_validator, model_validator
from pydantic_core import PydanticCustomError

from oscar_steps.addresses import address_fault, is_mail_host
from oscar_steps.errors import ConfigError, HostError
from oscar_steps.job import Timeouts
from oscar_steps.matrix.cells import Matrix
from oscar_steps.repositories import GIT, TARBALLS, Branch, Git, Repository, Tarballs
from oscar_steps.sources.login import Login, Logins
from oscar_steps.textio import open_to_others, read_regular, some
from oscar_steps.tomlfile import check_values, line_of, load_toml, validate
from oscar_steps.words import ExitStatus, Label

SITE_FILE = "farm.toml"
MAIL_PASSWORD, DATABASE_PASSWORD, LDAP_PASSWORD = "mail-password", "database-password", "ldap-password"
SVN_PASSWORD, SVN_PASSPHRASE = "svn-password", "svn-certificate"
GIVEN = (MAIL_PASSWORD, DATABASE_PASSWORD, LDAP_PASSWORD, SVN_PASSWORD, SVN_PASSPHRASE)
"""Secrets that somebody else has made."""
POLL_HOOK = "poll-hook"
"""What commit hooks have to know, so that the farm looks at its repositories at once. A site may have none."""
_PASSWORD_IN_URL = re.compile(r"^[\w+]+://[^:/?]*:[^@]*@|[?&](password|passwd|pwd)=", re.IGNORECASE)
"""As SQLAlchemy and the drivers of databases take one out of an address."""
Weekday = Literal["monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"]
WEEKDAYS: tuple[Weekday, ...] = get_args(Weekday)


def _usable(address: str) -> str:
    if fault := address_fault(address):
        raise PydanticCustomError("address", "{fault}", {"fault": fault})
    return address


def _usable_or_none(address: str) -> str:
    return _usable(address) if address else address


Address = Annotated[str, AfterValidator(_usable)]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Schedule(_Frozen):
    """When to test. Hours are the master's local time."""

    hour: int = Field(default=2, ge=0, le=23)
    minute: int = Field(default=30, ge=0, le=59)
    weekly: Weekday = "sunday"
    """The night in which the weekly cells run, too, at the same time."""
    tree_stable: float = Field(default=60, ge=0)
    """Seconds without a commit on a branch before its tests begin; 0: every commit is tested by itself."""
    again: tuple[Annotated[float, Field(ge=0, le=86400)], ...] = (60, 600, 3600)
    """Seconds before each further try of a commit's cell that ended by the farm's or the host's fault; []: none."""
    nightly: Literal["always", "commits", "changes"] = "always"
    """`commits`: a cell that a night has judged at the same revision has no night, whatever its packages did.
    `changes`: it has one where the branch, the distribution's packages or the farm have changed since then."""
    nightly_branches: tuple[str, ...] = ()
    """Shell patterns of the branches that have a nightly matrix, as the trunk has."""
    search: bool = True
    """Whether the farm looks by itself for the commit, where a cell turned red with several."""
    busy: Literal["newest", "each"] = "newest"
    """Of commits that wait on a branch for a cell that is busy: the newest alone is tested, for all their authors, or
    each of them."""
    branches: tuple[str, ...] = ("trunk", "branches/*", f"{GIT}*")
    """Shell patterns of the branches whose commits are tested."""


class Try(_Frozen):
    """Who may have patches tested by `buildbot try`, and where its clients connect."""

    port: str = "tcp:9990:interface=127.0.0.1"
    """As a Twisted endpoint. What passes there is not encrypted."""
    users: tuple[Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,59}$")], ...] = Field(min_length=1)
    """Logins, as in the repository; the password of each is the secret `try-LOGIN`."""


class Ldap(_Frozen):
    """Where `[mail.ldap]` asks for addresses, with the program ldapsearch."""

    url: str = Field(pattern=r"^ldap(s|i)?://[^\s]*$")
    base: str = Field(min_length=1)
    """The entry below which people are, such as ou=people,dc=example,dc=org."""
    filter: str = Field(default="(uid={login})", pattern=r"^\(.*\{login\}.*\)$")
    attribute: str = Field(default="mail", pattern=r"^[A-Za-z][A-Za-z0-9-]*$")
    bind: str = ""
    """The account that asks; its password is the secret `ldap-password`. Empty: nobody in particular."""


class Mail(_Frozen):
    """Who gets mail, and through which relay. Without `[mail]` the farm sends none."""

    sender: Address = Field(alias="from")
    operator: Address
    """Gets mail about failures of the farm, and those that no single commit caused if there is no `developers` list."""
    relay: str = "127.0.0.1"
    port: int = Field(default=25, ge=1, le=65535)
    user: str = ""
    """Account at the relay; its password is the secret `mail-password`."""
    tls: bool = False
    people_file: Path | None = None
    """A file with more of `people`, one a line: LOGIN = ADDRESS, or LOGIN: NAME <ADDRESS>. It is read at each use."""
    ldap: Ldap | None = None
    command: tuple[str, ...] = ()
    """A program and its words. It gets a login as its last word, and prints the address, or nothing."""
    domain: str = ""
    """A committer's address is LOGIN@DOMAIN unless `people` says otherwise; empty: only `people` get mail."""
    people: dict[str, Address] = Field(default_factory=dict)
    """Subversion login to mail address."""
    developers: Annotated[str, AfterValidator(_usable_or_none)] = ""
    """A list that gets mail about failures that no single commit caused (the nightly matrix)."""
    always: bool = False
    """Committers also get mail when their commit passed."""

    @field_validator("people_file", mode="before")
    @classmethod
    def _empty_is_none(cls, path: object) -> object:
        return path or None

    @field_validator("domain")
    @classmethod
    def _is_a_host(cls, domain: str) -> str:
        if domain and not is_mail_host(domain):
            sentence = "{domain} is not a host name; a committer's address would be LOGIN@{domain}"
            raise PydanticCustomError("address", sentence, {"domain": ascii(domain)})
        return domain


class Web(_Frozen):
    """The web pages. On the loopback interface unless the site says otherwise."""

    address: str = "127.0.0.1"
    port: int = Field(default=8010, ge=1, le=65535)
    url: str = Field(default="", pattern=r"^$|^https?://\S+/$")
    """The address people use, with a slash at its end (it stands in mails); empty: http://ADDRESS:PORT/"""
    open: bool = False
    """Anybody on the page may force and stop builds, without a login. Only allowed on the loopback interface."""
    admins: tuple[str, ...] = ()
    """Logins that may force and stop builds; the password of each is the secret `web-LOGIN`."""

    @model_validator(mode="after")
    def _open_means_loopback(self) -> Self:
        if self.open and self.address not in ("127.0.0.1", "::1", "localhost"):
            sentence = "open = true lets anybody force builds, so address must be 127.0.0.1, not {address}"
            raise PydanticCustomError("open", sentence, {"address": self.address})
        return self

    @property
    def base(self) -> str:
        return self.url or f"http://{self.address}:{self.port}/"


class Database(_Frozen):
    """Where the master keeps its state; the default is a file in the master's own folder."""

    url: str = Field(default="sqlite:///state.sqlite", pattern=r"^\w+(\+\w+)?://.*$")
    """The password of its user, where it needs one, is the secret `database-password`."""

    @field_validator("url")
    @classmethod
    def _has_no_password(cls, url: str) -> str:
        if _PASSWORD_IN_URL.search(url):
            raise PydanticCustomError(
                "password",
                "this file must not contain a password; write postgresql://USER@HOST/NAME here, and type the password "
                f"as a secret: {sys.executable} -P -m oscar_steps.master.secret farm.toml database-password --ask",
            )
        return url


class Secrets(_Frozen):
    """The folder with one file per secret, readable by the master's user alone."""

    directory: Path = Path("secrets")

    def has(self, name: str) -> bool:
        """Whether there is a secret `name`."""
        return os.path.lexists(self.directory / name)

    def read(self, name: str, purpose: str) -> str:
        """The secret `name`. Raises ConfigError that says which file to create, and how."""
        path = self.directory / name
        make = f"{sys.executable} -P -m oscar_steps.master.secret {SITE_FILE} {name}"
        create = f"{make} --ask" if name in GIVEN else make
        again = f"write it anew: {create} --new"
        try:
            secret = read_regular(path).decode("utf-8").strip()
        except FileNotFoundError:
            raise ConfigError(f"the secret file {path} ({purpose}) is missing; create it: {create}") from None
        except OSError as error:
            said = error.strerror
            raise ConfigError(f"the secret file {path} ({purpose}) cannot be read by the farm's user: {said}") from None
        except UnicodeDecodeError:
            raise ConfigError(f"the secret file {path} ({purpose}) is not UTF-8 text; {again}") from None
        if any(character < " " for character in secret):
            raise ConfigError(f"the secret file {path} ({purpose}) has to be one line of text; {again}")
        if not secret:
            raise ConfigError(f"the secret file {path} ({purpose}) is empty; {again}")
        if open_to_others(path):
            sentence = f"other users of this host can read the secret file {path} ({purpose})"
            raise ConfigError(f"{sentence}; close it: {self._close(path)}")
        return secret

    def _close(self, path: Path) -> str:
        """The command after which only the farm's user can read a secret; it also mends a wrong owner."""
        user = os.geteuid() or self.directory.parent.stat().st_uid
        if path.stat().st_uid == user:
            return f"chmod 600 {path}"
        try:
            name = pwd.getpwuid(user).pw_name
        except KeyError:
            name = str(user)
        return f"chown {name} {path}; chmod 600 {path}"


class Worker(_Frozen):
    """A virtualization host. Its password is the secret `worker-NAME`."""

    name: str = Field(pattern=r"^[A-Za-z0-9_-]{1,50}$")
    builds: int = Field(default=1, ge=1, le=1000)
    """How many clusters it may run at a time."""
    cells: tuple[str, ...] = ()
    """The cells that it can run; none: all."""


class Driver(_Frozen):
    """The testing driver on the workers."""

    command: tuple[str, ...] = Field(default=("oscar-testdriver",), min_length=1)
    runs: Path = Path("/var/lib/oscar-farm/runs")
    """The folder on the workers with one run directory per build."""
    keep: int = Field(default=10, ge=1)
    """Run directories of a cell that a worker keeps; older ones are removed when a new build begins."""
    hours: float = Field(default=4, gt=0)
    """A stage that takes longer than this is stopped, as a fault of the farm. The driver's own deadlines come first."""


class Master(_Frozen):
    """The Buildmaster itself."""

    title: str = "OSCAR test farm"
    port: str = "tcp:9989:interface=127.0.0.1"
    """Where workers connect, as a Twisted endpoint."""
    keep: int = Field(default=200, ge=1)
    """Runs of a cell whose logs are kept on the master."""
    disk_mib: int = Field(default=2048, ge=0)
    """Free space (MiB) of the master's folder below which the operator gets a mail; 0: not watched."""


class Site(_Frozen):
    """All of `farm.toml`, with paths made absolute (a relative path is relative to the file)."""

    profiles: Path | None = None
    """What is tested; none: `profiles/` beside `master.cfg`."""
    repository: Repository | None = None
    git: tuple[Git, ...] = ()
    tarballs: tuple[Tarballs, ...] = ()
    schedule: Schedule = Schedule()
    try_: Try | None = Field(default=None, alias="try")
    mail: Mail | None = None
    web: Web = Web()
    database: Database = Database()
    secrets: Secrets = Secrets()
    driver: Driver = Driver()
    master: Master = Master()
    timeouts: Timeouts = Timeouts()
    worker: tuple[Worker, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _watches_something(self) -> Self:
        if self.repository is None and not self.git:
            raise ValueError("there is nothing to test: give [repository] (Subversion) or [[git]], each with its url")
        return self

    @property
    def mains(self) -> tuple[Branch, ...]:
        """The main branch of each repository, Subversion's first."""
        trunk = [Branch(self.repository.url.rstrip("/"), self.repository.trunk)] if self.repository else []
        return (*trunk, *(git.main_branch for git in self.git))

    @property
    def main(self) -> Branch:
        """The branch that is meant where nobody names one."""
        return self.mains[0]

    @property
    def branch_names(self) -> tuple[str, ...]:
        """The forms that names of branches have here, for sentences."""
        svn = self.repository
        forms = (svn.trunk, f"{svn.branches}/NAME", f"{svn.tags}/NAME") if svn else ()
        return (*forms, *(f"{git.prefix}BRANCH" for git in self.git))

    @property
    def tested_each(self) -> frozenset[str]:
        """The repositories of which each commit of a burst is tested by itself."""
        svn = [(self.repository.url.rstrip("/"), self.repository.burst)] if self.repository else []
        return frozenset(url for url, burst in (*svn, *((git.url, git.burst) for git in self.git)) if burst == "each")

    def branch_called(self, name: str) -> Branch:
        """What a person means by the name of a branch: '' is the main one, and git's own name will do without svn."""
        if not name:
            return self.main
        if git := self.git_of(name):
            return Branch(git.url, name)
        if self.repository is None and not name.startswith((GIT, TARBALLS)):
            return Branch(self.git[0].url, self.git[0].prefix + name)
        return Branch(self.main.repository, name)

    def git_of(self, branch: str) -> Git | None:
        """The git repository that a branch is in, by the farm's name of it; None: it is in none of them."""
        return next((git for git in self.git if branch.startswith(git.prefix)), None)

    @property
    def svn_secrets(self) -> dict[str, str]:
        """Name and purpose of the secrets that Subversion's server asks for."""
        if self.repository is None:
            return {}
        at, secrets = self.repository.url, dict[str, str]()
        if self.repository.user:
            secrets[SVN_PASSWORD] = f"password of {self.repository.user} at {at}"
        if self.repository.certificate is not None:
            secrets[SVN_PASSPHRASE] = f"passphrase of the certificate for {at}"
        return secrets

    def check_svn_login(self) -> None:
        """Raise ConfigError where a secret or a file of it is missing, or open to others."""
        for name, purpose in self.svn_secrets.items():
            self.secrets.read(name, purpose)
        if self.repository is not None:
            try:
                self.svn_logins(Path()).check()
            except HostError as error:
                raise ConfigError(f"[repository]: {error.sentence}", hint=error.hint) from None

    def svn_logins(self, folder: Path) -> Logins:
        """How the master shows Subversion's server who it is. `folder`: the master's."""
        table = self.repository
        if table is None or not table.has_login:
            return Logins()
        secrets = {name: self.secrets.directory / name for name in self.svn_secrets}
        login = Login(
            url=table.url,
            user=table.user,
            password_file=secrets.get(SVN_PASSWORD),
            certificate=table.certificate,
            passphrase_file=secrets.get(SVN_PASSPHRASE),
            authorities=table.authorities,
            ssh_key=table.ssh_key,
            known_hosts=table.known_hosts,
        )
        return Logins(folder / "svn-settings", (login,))

    def workers_for(self, cell: str) -> tuple[str, ...]:
        """Names of the workers that can run `cell`."""
        return tuple(worker.name for worker in self.worker if not worker.cells or cell in worker.cells)

    def check_against(self, matrix: Matrix) -> None:
        """Raise ConfigError where a worker names a cell that does not exist, or a cell has no worker."""
        known = {cell.name: None for cell in matrix.cells}
        for worker in self.worker:
            for cell in worker.cells:
                if cell not in known:
                    raise ConfigError(
                        f"the worker '{worker.name}' names the cell '{cell}', which {matrix.directory / 'matrix.toml'} "
                        f"does not have; there are: {some(known)}"
                    )
        for cell in known:
            if not self.workers_for(cell):
                raise ConfigError(f"no worker can run the cell '{cell}': add it to the cells of a [[worker]]")
        if self.tarballs and not any(Label.CANDIDATE in cell.labels for cell in matrix.cells):
            raise ConfigError(
                f"[[tarballs]] watches for releases, but no cell of {matrix.directory / 'matrix.toml'} has the label "
                f"{Label.CANDIDATE}, so nothing would test them: give it to the cells that a release must pass"
            )


def _absolute(site: Site, base: Path) -> Site:
    return site.model_copy(
        update={
            "profiles": base / site.profiles if site.profiles else None,
            "mail": _mail_absolute(site.mail, base),
            "secrets": Secrets(directory=base / site.secrets.directory),
            "repository": site.repository.below(base) if site.repository else None,
            "tarballs": tuple(
                place.model_copy(update={"keyring": base / place.keyring}) if place.keyring else place
                for place in site.tarballs
            ),
            "driver": site.driver.model_copy(update={"runs": base / site.driver.runs}),
        }
    )


def _mail_absolute(mail: Mail | None, base: Path) -> Mail | None:
    if mail is None or mail.people_file is None:
        return mail
    return mail.model_copy(update={"people_file": base / mail.people_file})


def load_site(path: Path) -> Site:
    """Read a site file. Raises ConfigError with file, line, what is there and what would be right."""
    text, value = load_toml(path)
    check_values(path, text, value)
    site = validate(Site, path, text, value)
    _check_names(path, text, "worker", [worker.name for worker in site.worker])
    _check_names(path, text, "git", [git.name for git in site.git])
    _check_names(path, text, "git", [git.url.rstrip("/") for git in site.git], "url")
    _check_names(path, text, "tarballs", [place.name for place in site.tarballs])
    site = _absolute(site, path.resolve().parent)
    for index, place in enumerate(site.tarballs):
        if place.keyring is not None and not place.keyring.is_file():
            line = line_of(text, ("tarballs", index, "keyring"))
            what = f"there is no file {place.keyring}; write the public keys there: gpg --export KEY > {place.keyring}"
            raise ConfigError(f"{path}:{line}: tarballs.{index}.keyring: {what}")
    return site


def _check_names(path: Path, text: str, table: str, names: Sequence[str], key: str = "name") -> None:
    """Raise ConfigError where two tables of a kind have the same name, or the same of another `key`."""
    first: dict[str, int] = {}
    for index, name in enumerate(names):
        line = line_of(text, (table, index, key))
        if name in first:
            kind = "workers" if table == "worker" else f"[[{table}]]"
            two = f"two {kind} called '{name}'" if key == "name" else f"two {kind} with the {key} {name}"
            said = f"there are {two}; the other is on line {first[name]}"
            raise ConfigError(f"{path}:{line}: {table}.{index}.{key}: {said}")
        first[name] = line


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the site. Gives the exit status: 0, or 64 for a mistake in the file or on the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m oscar_steps.site", description="Check a site file and print its settings, defaults included."
    )
    parser.add_argument("file", nargs="?", type=Path, default=Path(SITE_FILE), help=f"the site file ({SITE_FILE})")
    try:
        site = load_site(parser.parse_args(arguments).file)
    except SystemExit as end:  # argparse has said what is wrong, and would end with 2, as a traceback does
        return ExitStatus.USAGE if end.code else 0
    except ConfigError as error:
        print(error.explain(), file=sys.stderr)
        return ExitStatus.USAGE
    print(site.model_dump_json(indent=2, by_alias=True))
    return 0


if __name__ == "__main__":
    sys.exit(main())
