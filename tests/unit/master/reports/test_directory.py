"""From logins to mail addresses."""

from __future__ import annotations

import asyncio
import dataclasses
import socket
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from demo.children import Child
from demo.ports import LOOPBACK, free_port
from oscar_steps.errors import HostError
from oscar_steps.master.reports import directory as module
from oscar_steps.master.reports.directory import AddressBook, Directory, Entry, escaped, first_value
from oscar_steps.site import Ldap, Mail

LDAP: dict[str, Any] = {"url": "ldap://127.0.0.1:1", "base": "ou=people,dc=x,dc=org"}
NO_ANSWER = "Can't contact LDAP server (-1)"


def mail(**settings: Any) -> Mail:
    return Mail.model_validate({"from": "f@x.org", "operator": "op@x.org", **settings})


def entry(site: Mail, login: str, run: Any = None, password: str = "") -> Entry:
    return asyncio.run(Directory(site, password, run).book([login])).entries[login]


@pytest.fixture(autouse=True)
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    async def at_once(*_: Any) -> None:
        pass

    monkeypatch.setattr(module.task, "deferLater", at_once)


@pytest.mark.parametrize(
    ("login", "address"),
    [
        ("eric", "e@x.org"),
        ("wesley", "wesley@oscar.org"),
        ("a@b.org", "a@b.org"),
        ("Jane Doe <jane@home.org>", "jane@home.org"),
        ("Eric <old@home.org>", "eric@now.org"),
        ("bli <bli@18f9d06c-6ae2-0310-8438-938a554feff9>", "bli@oscar.org"),
        ("eric <eric@18f9d06c-6ae2-0310-8438-938a554feff9>", "e@x.org"),
        ("Somebody <moved@home.org>", "new@home.org"),
    ],
)
def test_the_sites_own_list_comes_first_then_the_address_of_a_commit_then_the_domain(login: str, address: str) -> None:
    people = {"eric": "e@x.org", "Eric": "eric@now.org", "moved@home.org": "new@home.org"}
    assert entry(mail(domain="oscar.org", people=people), login).address == address


def test_an_unknown_login_without_a_domain_has_no_address_and_that_is_no_fault() -> None:
    assert entry(mail(), "eric") == Entry()


def test_only_an_address_that_somebody_has_named_belongs_to_a_person_the_site_knows() -> None:
    site = mail(domain="oscar.org", people={"eric": "e@x.org"})
    book = asyncio.run(Directory(site).book(["eric", "tom", ""]))
    assert (book.known("eric"), book.known("tom"), book.address("tom")) == ("e@x.org", None, "tom@oscar.org")
    assert AddressBook().address("eric") is None


def test_a_file_of_people_is_read_anew_whenever_it_is_asked(tmp_path: Path) -> None:
    file = tmp_path / "people"
    file.write_text("# who is who\neric = e@x.org\ngeoffroy: Geoffroy V. <g@x.org>\n\nnonsense\nbad: nobody\n")
    site = mail(people_file=file)
    assert [entry(site, login).address for login in ("eric", "geoffroy", "nonsense")] == ["e@x.org", "g@x.org", None]
    assert "'nobody' is not a mail address" in entry(site, "bad").fault
    file.write_text("eric = new@x.org\n")
    assert entry(site, "eric").address == "new@x.org"
    file.unlink()
    assert "people cannot be read (No such file or directory)" in entry(site, "eric").fault


def test_a_command_gets_a_login_as_its_last_word_and_prints_the_address() -> None:
    asked: list[Sequence[str]] = []

    async def run(words: Sequence[str], given: str) -> tuple[int, str, str]:
        assert given == ""
        asked.append(words)
        return 0, "jane@x.org\n" if words[-1] == "jane" else "", ""

    site = mail(command=["address-of", "--quiet"])
    assert entry(site, "jane", run).address == "jane@x.org"
    assert entry(site, "nobody", run) == Entry()
    assert entry(site, "--help", run) == Entry(), "it would be an option of the command's"
    assert asked == [["address-of", "--quiet", "jane"], ["address-of", "--quiet", "nobody"]]


def test_what_does_not_answer_is_asked_again_and_then_named_with_its_words() -> None:
    tries: list[int] = []

    async def run(_words: Sequence[str], _given: str) -> tuple[int, str, str]:
        tries.append(1)
        return (255, "", f"ldap_sasl_bind(SIMPLE): {NO_ANSWER}\n") if len(tries) < 4 else (0, "mail: j@x.org\n", "")

    site = mail(ldap=LDAP)
    assert entry(site, "jane", run).address == "j@x.org"

    async def never(_words: Sequence[str], _given: str) -> tuple[int, str, str]:
        raise HostError("timed out after 30 s waiting for ldapsearch")

    assert entry(site, "jane", never).fault == "timed out after 30 s waiting for ldapsearch"


def test_an_answer_is_remembered_and_a_failure_is_not() -> None:
    answers = [(1, "", "no")] * 4 + [(0, "mail: j@x.org\n", "")]

    async def run(_words: Sequence[str], _given: str) -> tuple[int, str, str]:
        return answers.pop(0)

    async def ask() -> list[Entry]:
        found = Directory(mail(ldap=LDAP), run=run)
        return [(await found.book(["jane"])).entries["jane"] for _ in range(3)]

    first, second, third = asyncio.run(ask())
    assert "cannot be asked for the address of 'jane': no" in first.fault
    assert (second.address, third.address, answers) == ("j@x.org", "j@x.org", [])


def test_the_last_address_that_is_known_is_used_while_nobody_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = [(0, "mail: j@x.org\n", ""), *[(1, "", "no")] * 4]

    async def run(_words: Sequence[str], _given: str) -> tuple[int, str, str]:
        return answers.pop(0)

    async def ask() -> list[str | None]:
        found = Directory(mail(ldap=LDAP), run=run)
        first = (await found.book(["jane"])).address("jane")
        monkeypatch.setattr(module, "_REMEMBERED_SECONDS", 0.0)
        return [first, (await found.book(["jane"])).address("jane")]

    assert asyncio.run(ask()) == ["j@x.org", "j@x.org"]
    assert answers == []


def test_nothing_of_a_login_is_a_part_of_the_filter() -> None:
    assert escaped("eric") == "eric"
    assert escaped("*)(uid=*") == "\\2a\\29\\28uid\\3d\\2a"
    assert escaped("jürgen\0") == "j\\c3\\bcrgen\\00"


def test_the_first_value_counts_also_where_it_is_base64() -> None:
    ldap = Ldap.model_validate(LDAP)
    assert first_value("dn: x\nMail: a@x.org\nmail: b@x.org\n", ldap) == "a@x.org"
    assert first_value("dn: x\nmail:: asO8cmdlbkB4Lm9yZw==\n", ldap) == "jürgen@x.org"
    assert first_value("dn: x\nmailbox: c@x.org\n", ldap) == ""


ENTRIES = """\
dn: dc=x,dc=org
objectClass: dcObject
objectClass: organization
o: x
dc: x

dn: ou=people,dc=x,dc=org
objectClass: organizationalUnit
ou: people

dn: uid=jane,ou=people,dc=x,dc=org
objectClass: inetOrgPerson
uid: jane
cn: Jane
sn: Doe
mail: jane.doe@x.org

dn: uid=tom,ou=people,dc=x,dc=org
objectClass: inetOrgPerson
uid: tom
cn: Tom
sn: Roe
"""
SCHEMAS = Path("/etc/ldap/schema")
ADMIN, PASSWORD = "cn=farm,dc=x,dc=org", "a b'c"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A real slapd in a folder of its own; nobody reads it without a password."""
    folder = tmp_path_factory.mktemp("slapd")
    (folder / "data").mkdir()
    (folder / "entries").write_text(ENTRIES)
    includes = "".join(f"include {SCHEMAS}/{name}.schema\n" for name in ("core", "cosine", "inetorgperson"))
    (folder / "conf").write_text(
        f"{includes}modulepath /usr/lib/ldap\nmoduleload back_mdb\npidfile {folder}/pid\n"
        f'database mdb\nsuffix "dc=x,dc=org"\nrootdn "{ADMIN}"\nrootpw "{PASSWORD}"\ndirectory {folder}/data\n'
        "access to * by * none\n"
    )

    load = ["/usr/sbin/slapadd", "-f", str(folder / "conf"), "-l", str(folder / "entries")]
    subprocess.run(load, check=True, capture_output=True, timeout=60)
    url = f"ldap://{LOOPBACK}:{free_port()}"
    words = ["/usr/sbin/slapd", "-f", str(folder / "conf"), "-h", url, "-d", "0"]
    child = Child("slapd", words, log=folder / "log", cwd=folder, environment={"PATH": "/usr/sbin:/usr/bin:/bin"})
    try:
        host, _, port = url.removeprefix("ldap://").partition(":")
        child.wait_until(lambda: _answers(host, int(port)), "an answer", 30)
        yield url
    finally:
        child.stop(10)


def _answers(host: str, port: int) -> bool:

    with socket.socket() as connection:
        return connection.connect_ex((host, port)) == 0


def real(words: Sequence[str], given: str) -> Any:
    """As the master runs a program, without its reactor."""

    async def run() -> tuple[int, str, str]:
        process = await asyncio.create_subprocess_exec(*words, stdin=-1, stdout=-1, stderr=-1)
        output, complaint = await process.communicate(given.encode())
        return process.returncode or 0, output.decode(), complaint.decode()

    return run()


def test_a_real_server_is_asked_with_an_account_whose_password_no_list_of_processes_shows(server: str) -> None:
    site = mail(ldap={**LDAP, "url": server, "bind": ADMIN})
    assert entry(site, "jane", real, PASSWORD).address == "jane.doe@x.org"
    assert entry(site, "tom", real, PASSWORD) == Entry(), "somebody without an address"
    assert entry(site, "*", real, PASSWORD) == Entry()
    wrong = entry(site, "jane", real, "wrong")
    assert f"LDAP at {server} cannot be asked for the address of 'jane': ldap_bind: Invalid credentials" in wrong.fault
    nowhere = site.model_copy(update={"ldap": site.ldap and site.ldap.model_copy(update={"base": "ou=no,dc=x,dc=org"})})
    assert "is base in [mail.ldap] right?" in entry(nowhere, "jane", real, PASSWORD).fault


def test_an_entry_says_either_an_address_or_why_there_is_none() -> None:
    assert dataclasses.astuple(Entry.of("j@x.org")) == ("j@x.org", "", False)
    assert Entry.of("jürgen@x.org").address is None and "ASCII" in Entry.of("jürgen@x.org").fault
