"""A server that wants to know who asks, and how it is known: real Apache with TLS, real svnserve, real sshd."""

from __future__ import annotations

import os
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from oscar_steps.errors import ConfigError, FarmError, HostError
from oscar_steps.sources import resolve
from oscar_steps.sources.login import Login, Logins
from oscar_steps.sources.resolve import exact, host_logins, resolve_revision, source_as_asked
from oscar_steps.sources.svn import advice
from oscar_steps.testdriver.cli.run import check_logins
from tests.unit.apache import PASSPHRASE, PASSWORD, USER, Apache
from tests.unit.svn_server import Repository, served


@pytest.fixture(scope="module")
def apache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Apache]:
    repository = Repository(tmp_path_factory.mktemp("svn") / "oscar")
    repository.put({"trunk/install_cluster": "x\n", "common/f": "1\n"})
    repository.externals("trunk", "^/common lib")
    repository.commit()
    server = Apache(repository.place)
    yield server
    server.close()


@pytest.fixture
def secrets(tmp_path: Path) -> dict[str, Path]:
    files = {"password": PASSWORD, "wrong": "wrong", "passphrase": PASSPHRASE}
    paths = {name: tmp_path / name for name in files}
    for name, text in files.items():
        paths[name].write_text(f"{text}\n")
        paths[name].chmod(0o600)
    return paths


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Writes the logins of this host."""
    monkeypatch.setattr(resolve, "LOGINS_FILE", tmp_path / "subversion.toml")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))

    def write(url: str, **settings: Path | str) -> None:
        lines = [f'{name} = "{value}"\n' for name, value in settings.items()]
        (tmp_path / "subversion.toml").write_text(f'[[server]]\nurl = "{url}"\n{"".join(lines)}')

    yield write


@pytest.mark.parametrize(
    ("way", "settings", "said", "advised"),
    [
        ("open", {}, "issuer is not trusted", "name the file of the authority that signed it: `authorities`"),
        ("expired", {"authorities": "ca"}, "certificate has expired", "renew the server's certificate"),
        ("other", {"authorities": "ca"}, "different hostname", "the name that the server's certificate is for"),
        ("good", {"authorities": "ca"}, "E215004", "`user` and its password"),
        ("good", {"authorities": "ca", "user": USER, "password_file": "wrong"}, "E215004", "`user` and its password"),
        ("client", {"authorities": "ca"}, "SSL communication", "`certificate` and the right passphrase"),
        (
            "client",
            {"authorities": "ca", "certificate": "p12", "passphrase_file": "wrong"},
            "SSL communication",
            "`certificate` and the right passphrase",
        ),
    ],
)
def test_each_reason_is_one_sentence_that_says_what_to_do_and_nobody_is_asked(
    way: str, settings: dict[str, Any], said: str, advised: str, apache: Apache, secrets: dict[str, Path], host: Any
) -> None:
    places = {**secrets, "ca": apache.authorities, "p12": apache.client}
    host(f"{apache.url[way]}", **{name: places.get(value, value) for name, value in settings.items()})
    with pytest.raises(HostError) as caught:
        resolve_revision(f"{apache.url[way]}/trunk", "HEAD")
    assert said in caught.value.sentence and advised in caught.value.hint
    assert "\n" not in caught.value.sentence + caught.value.hint


@pytest.mark.parametrize(
    ("way", "settings"),
    [
        ("open", {"authorities": "ca"}),
        ("good", {"authorities": "ca", "user": USER, "password_file": "password"}),
        ("client", {"authorities": "ca", "certificate": "p12", "passphrase_file": "passphrase"}),
    ],
)
def test_with_its_login_the_farm_finds_revision_and_externals_and_shows_nobody_a_secret(
    way: str,
    settings: dict[str, str],
    apache: Apache,
    secrets: dict[str, Path],
    host: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen = tmp_path / "seen"
    program = tmp_path / "bin/svn"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" >> {seen}; env >> {seen}\nexec /usr/bin/svn "$@"\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(program.parent), prepend=":")
    places = {**secrets, "ca": apache.authorities, "p12": apache.client}
    host(apache.url[way], **{name: places.get(value, value) for name, value in settings.items()})
    source = exact(source_as_asked(f"{apache.url[way]}/trunk", "HEAD"), tmp_path)
    assert [str(each) for each in source.externals] == [f"lib from {apache.url[way]}/common@1"]
    assert "--non-interactive" in seen.read_text()
    assert PASSWORD not in seen.read_text() and PASSPHRASE not in seen.read_text()
    for path in (tmp_path / "cache").rglob("*"):
        assert path.is_dir() or not path.stat().st_mode & 0o077 or PASSPHRASE not in path.read_text()
        assert path.is_dir() or PASSWORD not in path.read_text(), "svn keeps none"


def test_a_password_is_shown_to_its_own_server_alone(secrets: dict[str, Path], tmp_path: Path) -> None:
    login = Login(url="https://svn.example.org/oscar", user=USER, password_file=secrets["password"])
    logins = Logins(tmp_path / "settings", (login,))
    for url in (
        "https://svn.example.com/oscar",
        "http://svn.example.org/oscar",
        "https://svn.example.org:444/oscar",
        "https://eve@svn.example.org/oscar",
        "svn://svn.example.org/oscar",
        "/srv/copy",
    ):
        assert logins.command(["info", "--non-interactive", url]) == (["svn", "info", "--non-interactive", url], b"")
    asking = logins.command(["info", "--non-interactive", "https://svn.example.org/other@5"])
    assert asking.stdin.decode() == PASSWORD and USER in asking.words


@pytest.mark.parametrize("fault", ["missing", "open", "empty", "two lines", "a folder"])
def test_a_secret_that_cannot_be_used_is_named_and_never_shown(fault: str, secrets: dict[str, Path], host: Any) -> None:
    path = secrets["password"]
    {
        "missing": path.unlink,
        "open": lambda: path.chmod(0o644),
        "empty": lambda: path.write_text("\n"),
        "two lines": lambda: path.write_text(f"{PASSWORD}\n{PASSWORD}\n"),
        "a folder": lambda: (path.unlink(), path.mkdir()),
    }[fault]()
    host("svn://127.0.0.1/oscar", user=USER, password_file=path)
    with pytest.raises(HostError) as caught:
        resolve_revision("svn://127.0.0.1/oscar/trunk", "HEAD")
    assert f"{path} (password of {USER} at svn://127.0.0.1/oscar)" in caught.value.sentence
    assert PASSWORD not in caught.value.explain()


def test_the_check_of_a_host_names_each_login_and_what_is_wrong_with_its_files(
    secrets: dict[str, Path], host: Any
) -> None:
    assert list(check_logins()) == []
    host("svn://127.0.0.1/oscar", user=USER, password_file=secrets["password"])
    assert [(each.ok, each.sentence) for each in check_logins()] == [
        (True, "this host has a login at svn://127.0.0.1/oscar")
    ]
    secrets["password"].chmod(0o644)
    (check,) = check_logins()
    assert not check.ok and "other users of this host can read" in check.sentence and "chmod 600" in check.hint


def test_a_mistake_in_the_hosts_logins_is_named_by_file_and_line(host: Any) -> None:
    host("svn://127.0.0.1/oscar", password="x")
    with pytest.raises(ConfigError, match=r"subversion\.toml:3: "):
        host_logins()


def test_svns_own_server_takes_the_login_and_says_who_may_not(
    secrets: dict[str, Path], host: Any, tmp_path: Path
) -> None:
    repository = Repository(tmp_path / "oscar")
    repository.put({"trunk/install_cluster": "x\n"})
    (repository.place / "conf/svnserve.conf").write_text("[general]\nanon-access = none\npassword-db = passwd\n")
    (repository.place / "conf/passwd").write_text(f"[users]\n{USER} = {PASSWORD}\n")
    with served(tmp_path) as root:
        for login in ({}, {"user": USER, "password_file": secrets["wrong"]}):
            host(root, **login)
            with pytest.raises(HostError) as caught:
                resolve_revision(f"{root}/oscar/trunk", "HEAD")
            assert "E170001" in caught.value.sentence and "`user` and its password" in caught.value.hint
        host(root, user=USER, password_file=secrets["password"])
        assert resolve_revision(f"{root}/oscar/trunk", "HEAD") == "1"


SSHD = """\
ListenAddress {address}:22
HostKey {folder}/host
AuthorizedKeysFile {folder}/authorized
PermitRootLogin yes
StrictModes no
UsePAM no
PidFile none
"""


@pytest.fixture
def by_ssh(tmp_path: Path) -> Iterator[str]:
    """The svn+ssh address of a repository. The key is `tmp_path`/key, the server's is in `tmp_path`/hosts."""
    repository = Repository(tmp_path / "oscar")
    repository.put({"trunk/install_cluster": "x\n"})
    for name in ("host", "key", "stranger"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", tmp_path / name], check=True)
    address = f"127.{os.getpid() >> 16 & 255}.{os.getpid() >> 8 & 255}.{os.getpid() & 255 or 1}"  # svn names no port
    key = (tmp_path / "key.pub").read_text()
    (tmp_path / "authorized").write_text(f'command="/usr/bin/svnserve -t -r {tmp_path}" {key}')
    (tmp_path / "hosts").write_text(f"{address} {(tmp_path / 'host.pub').read_text()}")
    (tmp_path / "nobody").write_text("")
    (tmp_path / "sshd.conf").write_text(SSHD.format(address=address, folder=tmp_path))
    Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
    with (tmp_path / "sshd.log").open("wb") as log:
        server = subprocess.Popen(["/usr/sbin/sshd", "-D", "-e", "-f", tmp_path / "sshd.conf"], stderr=log)
    try:
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            try:
                socket.create_connection((address, 22), 1).close()
                break
            except OSError:
                assert server.poll() is None, (tmp_path / "sshd.log").read_text()
                time.sleep(0.05)
        yield f"svn+ssh://root@{address}/oscar"
    finally:
        server.terminate()
        server.wait(10)


@pytest.mark.skipif(os.geteuid() != 0 or not Path("/usr/sbin/sshd").exists(), reason="needs root and openssh-server")
@pytest.mark.parametrize(
    ("key", "hosts", "said", "advised"),
    [
        ("key", "hosts", "", ""),
        ("stranger", "hosts", "Permission denied", "`ssh_key`"),
        ("key", "nobody", "Host key verification failed", "`known_hosts`"),
    ],
)
def test_by_ssh_the_farm_shows_its_key_and_knows_the_servers(
    key: str, hosts: str, said: str, advised: str, by_ssh: str, host: Any, tmp_path: Path
) -> None:
    host(by_ssh, ssh_key=tmp_path / key, known_hosts=tmp_path / hosts)
    if not said:
        assert resolve_revision(f"{by_ssh}/trunk", "HEAD") == "1"
        return
    with pytest.raises(FarmError) as caught:
        resolve_revision(f"{by_ssh}/trunk", "HEAD")
    assert isinstance(caught.value, HostError)
    assert said in caught.value.sentence and advised in caught.value.hint


def test_what_is_about_no_login_gets_no_advice_about_one() -> None:
    assert advice("svn: E000111: Can't connect to host 'h': Connection refused") == ""
