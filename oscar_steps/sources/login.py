"""How the farm shows a Subversion server who it is, and how it knows that server.

Nothing secret is ever a word of a command, which every user of a host can read: svn reads a password from its standard
input, and a certificate's passphrase from settings of the farm's own. A login is shown to its own server alone.
"""

from __future__ import annotations

import hashlib
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Self
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field

from oscar_steps.errors import HostError
from oscar_steps.sources.externals_text import is_same_server
from oscar_steps.textio import close_to_others, open_to_others, read_regular, write_atomically

_SSH = ("ssh", "-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=yes", "-o", "LogLevel=ERROR")
_NOT_KEPT = "store-passwords = no\nstore-ssl-client-cert-pp = no\n"


class Login(BaseModel):
    """Of one server. All files are read at each use, so that a new password counts at once."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    url: str = Field(pattern=r"^(svn|svn\+ssh|https?)://[^\s]+$")
    """An address on the server; whatever else is on it is asked with this login, too."""
    user: str = ""
    password_file: Path | None = None
    """One line: the password of `user`."""
    certificate: Path | None = None
    """The client's certificate with its key, as PKCS#12."""
    passphrase_file: Path | None = None
    """One line: the passphrase of `certificate`."""
    authorities: Path | None = None
    """Certificates (PEM) of authorities that may sign the server's, beside those that the system knows."""
    ssh_key: Path | None = None
    """For svn+ssh: a private key without a passphrase."""
    known_hosts: Path | None = None
    """For svn+ssh: the keys of servers, as ssh-keyscan writes them; none: those that the user and the system know."""

    def below(self, folder: Path) -> Self:
        """The same with absolute paths."""
        return self.model_copy(update={name: folder / value for name, value in self if isinstance(value, Path)})


class Asking(NamedTuple):
    """A command, and what it reads from its standard input."""

    words: list[str]
    stdin: bytes


@dataclass(frozen=True)
class Logins:
    """All that a host has. `folder`: where svn's settings for them are written, for the farm's user alone."""

    folder: Path = Path()
    logins: tuple[Login, ...] = ()

    def of(self, url: str) -> Login | None:
        """The login for the server of an address."""
        return next((login for login in self.logins if is_same_server(url, login.url)), None)

    def check(self) -> None:
        """Raise HostError where a file of a login cannot be used."""
        for login in self.logins:
            _servers(login)
            _config(login)
            if login.password_file is not None:
                _password_of(login)

    def command(self, words: Sequence[str]) -> Asking:
        """`svn` and these words, with the login for the address among them. Raises HostError for a file of it."""
        urls = [word for word in words if "://" in word]
        login = next((found for url in urls if (found := self.of(url))), None)
        if login is None:
            return Asking(["svn", *words], b"")
        options = ["--config-dir", str(self._settings(login)), "--no-auth-cache"]
        stdin = b""
        if login.user:
            options += ["--username", login.user]
        if login.password_file is not None:
            options.append("--password-from-stdin")
            stdin = _password_of(login).encode()
        return Asking(["svn", words[0], *options, *words[1:]], stdin)

    def _settings(self, login: Login) -> Path:
        folder = self.folder / hashlib.sha256(login.url.encode()).hexdigest()[:16]
        try:
            for each in (self.folder, folder):
                each.mkdir(mode=0o700, parents=True, exist_ok=True)
                close_to_others(each)
            for name, text in (("servers", _servers(login)), ("config", _config(login))):
                if not _has(folder / name, text):
                    write_atomically(folder / name, text, mode=0o600)
        except OSError as error:
            raise HostError(f"svn's settings in {folder} cannot be written: {error.strerror}") from None
        return folder


def _password_of(login: Login) -> str:
    return secret_in(login.password_file, f"password of {login.user} at {login.url}") if login.password_file else ""


def _servers(login: Login) -> str:
    lines = _NOT_KEPT
    for name, path in (("ssl-authority-files", login.authorities), ("ssl-client-cert-file", login.certificate)):
        if path is not None:
            _check(path, f"{name} of {login.url}", private=path == login.certificate)
            lines += f"{name} = {path}\n"
    if login.passphrase_file is not None:
        passphrase = secret_in(login.passphrase_file, f"passphrase of the certificate for {login.url}")
        lines += f"ssl-client-cert-password = {passphrase}\n"
    return f"[groups]\nfarm = {urlsplit(login.url).hostname}\n\n[farm]\n{lines}\n[global]\n{_NOT_KEPT}"


def _config(login: Login) -> str:
    text = "[auth]\npassword-stores =\n"
    command = list(_SSH)
    if login.ssh_key is not None:
        _check(login.ssh_key, f"key for {login.url}", private=True)
        command += ["-o", "IdentitiesOnly=yes", "-i", str(login.ssh_key)]
    if login.known_hosts is not None:
        _check(login.known_hosts, f"keys of servers for {login.url}", private=False)
        command += ["-o", f"UserKnownHostsFile={login.known_hosts}"]
    return f"{text}\n[tunnels]\nssh = {shlex.join(command)}\n"


def _has(path: Path, text: str) -> bool:
    try:
        return read_regular(path) == text.encode() and not open_to_others(path)
    except OSError:
        return False


def _check(path: Path, purpose: str, *, private: bool) -> None:
    """Raise HostError where svn would only say that something went wrong."""
    try:
        read_regular(path)
    except FileNotFoundError:
        raise HostError(f"the file {path} ({purpose}) is missing") from None
    except OSError as error:
        raise HostError(f"the file {path} ({purpose}) cannot be read: {error.strerror}") from None
    if private and open_to_others(path):
        raise HostError(f"other users of this host can read the file {path} ({purpose})", hint=f"chmod 600 {path}")


def secret_in(path: Path, purpose: str) -> str:
    """The one line of a file that its user alone can read. Raises HostError, without what is in it."""
    _check(path, purpose, private=True)
    try:
        text = read_regular(path).decode().strip()
    except UnicodeDecodeError:
        text = ""
    if not text or not text.isprintable():
        raise HostError(f"the file {path} ({purpose}) has to hold one line of text")
    return text
