"""From logins to mail addresses: the site's own list and file, LDAP, a command, the address in a commit, the domain.

The first that knows a login counts. LDAP and command are asked without waiting: a mail is made when they have answered.
Where one of them does not answer it is asked again a few times; then the operator gets the mail in the author's place.
"""

from __future__ import annotations

import base64
import os
import re
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from email.utils import parseaddr

from buildbot.util import runprocess
from twisted.internet import reactor, task

from oscar_steps.addresses import address_fault
from oscar_steps.environment import tool_environment
from oscar_steps.errors import HostError
from oscar_steps.site import Ldap, Mail
from oscar_steps.textio import one_line, read_regular

_SECONDS = 30
_PAUSES = (5.0, 30.0, 120.0)
"""Seconds before LDAP or the command is asked once more, where it did not answer."""
_REMEMBERED_SECONDS = 600.0
_LINE = re.compile(r"^(?P<login>[^:=]*[^:=\s])\s*[:=]\s*(?P<address>.+)$")
_COMMIT = re.compile(r"[^<>]*[^<>\s] <[^<>]+>")
"""An author as git has it: Name <address>."""
_OF_SUBVERSION = re.compile("@[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$")
"""Of a commit that git-svn has brought: LOGIN@UUID."""
_NO_SUCH_ENTRY = 32
"""LDAP's own number for it."""

Run = Callable[[Sequence[str], str], Awaitable[tuple[int, str, str]]]
"""Runs a program, with a standard input, to its end: exit status, output, complaint. Raises HostError."""


@dataclass(frozen=True)
class Entry:
    """What is known of a login: its address, or why there is none (`fault`; '': there is to be none)."""

    address: str | None = None
    fault: str = ""
    guessed: bool = False
    """By the domain alone: nobody said that there is such a person."""

    @classmethod
    def of(cls, address: str, *, guessed: bool = False) -> Entry:
        """The entry with an address that somebody has named, which need not be one."""
        fault = address_fault(address)
        return cls(fault=fault, guessed=guessed) if fault else cls(address, guessed=guessed)


@dataclass(frozen=True)
class AddressBook:
    """The entries of those who matter for one mail."""

    entries: Mapping[str, Entry] = field(default_factory=dict)

    def address(self, login: str) -> str | None:
        """The mail address of a committer, or None where the site knows no usable one."""
        return self.entries.get(login, Entry()).address

    def fault(self, login: str) -> str | None:
        """Why a committer's address cannot be used; None where it can, and where there is to be none (no domain)."""
        return self.entries.get(login, Entry()).fault or None

    def known(self, login: str) -> str | None:
        """The address of somebody whom the site knows by name: no login with the domain behind it."""
        entry = self.entries.get(login, Entry())
        return None if entry.guessed else entry.address


class Directory:
    """Finds addresses as the site's `[mail]` says it. `password` is that of LDAP's `bind`."""

    def __init__(self, mail: Mail, password: str = "", run: Run | None = None) -> None:
        self._mail, self._password, self._run = mail, password, run or _run
        self._remembered: dict[str, tuple[float, Entry]] = {}

    async def book(self, logins: Iterable[str]) -> AddressBook:
        """All of them; never raises: what keeps an address from being found is its entry's fault."""
        return AddressBook({login: await self._entry(login) for login in {*logins}})

    async def _entry(self, login: str) -> Entry:
        at, last = self._remembered.get(login, (0.0, Entry()))
        if time.monotonic() - at < _REMEMBERED_SECONDS and at:
            return last
        for pause in (*_PAUSES, None):
            try:
                entry = await self._look(login)
            except HostError as error:
                if pause is None:  # an address of an hour ago is better than none
                    return last if last.address else Entry(fault=error.sentence)
                await task.deferLater(reactor, pause, lambda: None)
                continue
            break
        if self._mail.ldap or self._mail.command:
            self._remembered[login] = (time.monotonic(), entry)
        return entry

    async def _look(self, login: str) -> Entry:
        mail = self._mail
        name, own = parseaddr(login) if _COMMIT.fullmatch(login) else ("", "")
        for each in (login, *filter(None, (name, own))):
            if found := mail.people.get(each) or self._in_file(each):
                return Entry.of(found)
        asked = own.partition("@")[0] or login
        if asked and mail.ldap and (found := await self._ask_ldap(mail.ldap, asked)):
            return Entry.of(found)
        if asked and mail.command and (found := await self._ask_command(asked)):
            return Entry.of(found)
        address = own or login
        if "@" in address and not (mail.domain and _OF_SUBVERSION.search(address)):
            return Entry.of(address)
        login = address.partition("@")[0] or login
        return Entry.of(f"{login}@{mail.domain}", guessed=True) if mail.domain else Entry()

    def _in_file(self, login: str) -> str:
        if self._mail.people_file is None:
            return ""
        try:
            text = read_regular(self._mail.people_file).decode("utf-8", "replace")
        except OSError as error:
            said = f"{self._mail.people_file} cannot be read ({error.strerror}), so the address of {login[:60]!a}"
            raise HostError(f"{said} is not known") from None
        found = (_LINE.match(line.strip()) for line in text.splitlines() if not line.lstrip().startswith("#"))
        addresses = {match["login"]: match["address"] for match in found if match}
        address = addresses.get(login, "")
        return (parseaddr(address)[1] if "<" in address else address).strip()

    async def _ask_ldap(self, ldap: Ldap, login: str) -> str:
        words = ["ldapsearch", "-x", "-LLL", "-o", "ldif-wrap=no", "-o", "nettimeout=10", "-l", "10", "-H", ldap.url]
        if ldap.bind:
            words += ["-D", ldap.bind, "-y", "/dev/stdin"]  # a password in its words would be in the list of processes
        words += ["-b", ldap.base, ldap.filter.replace("{login}", escaped(login)), ldap.attribute]
        status, output, complaint = await self._run(words, self._password if ldap.bind else "")
        if status == _NO_SUCH_ENTRY:
            raise HostError(f"LDAP at {ldap.url} has nothing below {ldap.base!a}: is base in [mail.ldap] right?")
        if status != 0:
            raise HostError(f"LDAP at {ldap.url} cannot be asked for the address of {login[:60]!a}: {_said(complaint)}")
        return first_value(output, ldap)

    async def _ask_command(self, login: str) -> str:
        if login.startswith("-"):  # the command would take it for an option
            return ""
        status, output, complaint = await self._run([*self._mail.command, login], "")
        if status != 0:
            program = self._mail.command[0]
            said = f"{program} cannot say the address of {login[:60]!a} (status {status}): {_said(complaint)}"
            raise HostError(said)
        return output.strip().splitlines()[0].strip() if output.strip() else ""


def escaped(login: str) -> str:
    """A login as a value in a filter of LDAP's (RFC 4515, section 3): nothing of it is a filter's own."""
    return "".join(
        chr(byte) if chr(byte).isalnum() and byte < 128 else f"\\{byte:02x}"
        for byte in login.encode("utf-8", "surrogateescape")
    )


def first_value(ldif: str, ldap: Ldap) -> str:
    """The first value of the attribute in LDAP's answer (RFC 2849); '' where it has none."""
    for line in ldif.splitlines():
        name, colon, value = line.partition(":")
        if not colon or name.lower() != ldap.attribute.lower():
            continue
        if value.startswith(":"):
            return base64.b64decode(value[1:].strip()).decode("utf-8", "replace").strip()
        return value.strip()
    return ""


def _said(complaint: str) -> str:
    lines = [line.strip() for line in complaint.splitlines() if line.strip()]
    return one_line(lines[0] if lines else "(it said nothing)")


async def _run(words: Sequence[str], given: str) -> tuple[int, str, str]:
    environment: dict[str, str | None] = {**dict.fromkeys(os.environ), **tool_environment()}  # None: not inherited
    process = runprocess.RunProcess(
        reactor,
        list(words),
        env=environment,
        io_timeout=None,
        runtime_timeout=_SECONDS,
        initial_stdin=given.encode(),
    )
    try:
        status, output, complaint = await process.start()
    except OSError as error:
        raise HostError(f"{words[0]} cannot be run: {error.strerror}") from None
    if status is None or status < 0:
        raise HostError(f"timed out after {_SECONDS} s waiting for {words[0]}")
    return status, output.decode("utf-8", "replace"), complaint.decode("utf-8", "replace")
