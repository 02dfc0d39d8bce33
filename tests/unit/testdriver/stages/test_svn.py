"""A revision of Subversion's comes into the head node with exactly the externals of its job."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from oscar_steps.errors import FarmError, HostError, SourceError, StageTimeout
from oscar_steps.sources import resolve
from oscar_steps.sources.resolve import exact, source_as_asked
from oscar_steps.sources.source import External, Source
from oscar_steps.testdriver.deadline import Deadline
from oscar_steps.testdriver.head.headnode import HeadNode
from oscar_steps.testdriver.record.events import Diary
from oscar_steps.testdriver.stages.sources import svn
from tests.unit.svn_server import Repository, served, svn_tool
from tests.unit.testdriver.head.sshd import Server, server, with_head

__all__ = ["server"]


@pytest.fixture(autouse=True)
def svn_of_the_guest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The test's SSH server leaves standard error out; and what is called large takes for ever."""
    program = tmp_path / "bin/svn"
    program.parent.mkdir()
    program.write_text('#!/bin/sh\ncase "$*" in *large*) exec sleep 600;; esac\nexec /usr/bin/svn "$@" 2>&1\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(program.parent), prepend=":")


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    made = Repository(tmp_path / "oscar")
    made.put({"trunk/install_cluster": "x\n", "trunk/lib/": "", "common/a@1/f": "1\n", "common/in/f": "1\n"})
    made.externals("common/a@1@", "../in in")
    made.externals("trunk/lib", "^/common/a@1@ 'deep/my @1'\n^/common/in/f@ 'f@2'")
    made.commit()
    return made


@pytest.fixture
def url(repository: Repository) -> Iterator[str]:
    with served(repository.place.parent) as root:
        yield f"{root}/oscar"


def brought(server: Server, folder: Path, source: Source, seconds: float = 60) -> str | FarmError:
    """What is said, or the error, after the source was brought into `folder`/home."""
    (folder / "run").mkdir()
    job = SimpleNamespace(source=source, answers=SimpleNamespace(oscar_home=str(folder / "home")))
    run: Any = SimpleNamespace(directory=folder / "run", job=job, diary=Diary(folder / "run"))
    said: list[str | FarmError] = []

    async def work(head: HeadNode) -> None:
        booted: Any = SimpleNamespace(head=head)
        try:
            said.append(await svn.bring(run, booted, Deadline(seconds)))
        except FarmError as error:
            said.append(error)

    with_head(server, work)
    return said[0]


def test_a_checkout_gets_the_externals_of_its_job_whatever_was_committed_since(
    repository: Repository, url: str, server: Server, tmp_path: Path
) -> None:
    source = exact(source_as_asked(f"{url}/trunk", "HEAD"), tmp_path)
    assert [each.path for each in source.externals] == ["lib/deep/my @1", "lib/deep/my @1/in", "lib/f@2"]
    repository.put({"common/a@1/f": "2\n", "common/in/f": "2\n"})
    said = brought(server, tmp_path, source)
    assert str(said).endswith("with 3 externals")
    home = tmp_path / "home/lib"
    assert [(home / name).read_text() for name in ("deep/my @1/f", "deep/my @1/in/f", "f@2")] == ["1\n"] * 3
    assert svn_tool("svn", "info", "--show-item", "url", f"{home}/deep/my @1@").strip() == f"{url}/common/a@1"


def test_a_job_that_names_no_externals_gets_those_of_today(
    repository: Repository, url: str, server: Server, tmp_path: Path
) -> None:
    repository.put({"common/in/f": "2\n"})
    said = brought(server, tmp_path, Source(url=f"{url}/trunk", revision="2"))
    assert (tmp_path / "home/lib/deep/my @1/in/f").read_text() == "2\n", said


@pytest.mark.parametrize(
    ("external", "kind", "words", "hint"),
    [
        (
            External(path="lib/x", url="{}/nowhere", revision="2"),
            SourceError,
            "check out the external lib/x from {}/nowhere@2: ",
            "",
        ),
        (
            External(path="lib/x", url="svn://127.0.0.1:9/x", revision="HEAD"),
            HostError,
            "lib/x from svn://127.0.0.1:9/x@HEAD: ",
            "externals on other servers are out of reach",
        ),
    ],
    ids=["gone", "another server"],
)
def test_an_external_that_cannot_be_had_is_named(
    external: External, kind: type[FarmError], words: str, hint: str, url: str, server: Server, tmp_path: Path
) -> None:
    external = external.model_copy(update={"url": external.url.format(url)})
    said = brought(server, tmp_path, Source(url=f"{url}/trunk", revision="2", externals=(external,)))
    assert isinstance(said, kind)
    assert words.format(url) in said.sentence and said.hint.startswith(hint)


def test_an_external_that_takes_too_long_is_named(url: str, server: Server, tmp_path: Path) -> None:
    external = External(path="large", url=f"{url}/common", revision="2")
    said = brought(server, tmp_path, Source(url=f"{url}/trunk", revision="2", externals=(external,)), seconds=6)
    assert isinstance(said, StageTimeout)
    assert f"the head node to check out the external large from {url}/common@2" in said.sentence


@pytest.fixture
def with_login(repository: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of the repository on a server that lets nobody read without a password, which this host has."""
    (repository.place / "conf/svnserve.conf").write_text("[general]\nanon-access = none\npassword-db = passwd\n")
    (repository.place / "conf/passwd").write_text("[users]\nfarm = a secret of the test's\n")
    (tmp_path / "password").write_text("a secret of the test's\n")
    (tmp_path / "password").chmod(0o600)
    monkeypatch.setattr(resolve, "LOGINS_FILE", tmp_path / "subversion.toml")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with served(repository.place.parent) as root:
        settings = f'[[server]]\nurl = "{root}"\nuser = "farm"\npassword_file = "password"\n'
        (tmp_path / "subversion.toml").write_text(settings)
        yield f"{root}/oscar"


def test_what_not_everybody_may_read_is_carried_into_the_head_node_without_the_login(
    with_login: str, server: Server, tmp_path: Path
) -> None:
    source = exact(source_as_asked(f"{with_login}/trunk", "HEAD"), tmp_path)
    os.umask(0o077)
    said = brought(server, tmp_path, source)
    assert "which this host checked out with its login" in str(said)
    home = tmp_path / "home"
    assert [(home / "lib" / name).read_text() for name in ("deep/my @1/f", "deep/my @1/in/f", "f@2")] == ["1\n"] * 3
    assert (home / "install_cluster").stat().st_mode & 0o777 == 0o644
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["events.jsonl"], "nothing is left on the host"
    for place in (home, tmp_path / "run"):
        for path in place.rglob("*"):
            assert path.is_dir() or b"a secret of" not in path.read_bytes()


def test_a_host_without_the_login_says_where_it_gets_one(with_login: str, server: Server, tmp_path: Path) -> None:
    (tmp_path / "subversion.toml").unlink()
    said = brought(server, tmp_path, Source(url=f"{with_login}/trunk", revision="2"))
    assert isinstance(said, HostError)
    assert "write a login for this host into /etc/oscar-farm/subversion.toml" in said.hint


def test_a_host_with_a_wrong_password_says_so(
    with_login: str, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", os.defpath)
    (tmp_path / "password").write_text("wrong\n")
    said = brought(server, tmp_path, Source(url=f"{with_login}/trunk", revision="2"))
    assert isinstance(said, HostError)
    assert "E170001" in said.sentence and "`user` and its password" in said.hint


@pytest.mark.parametrize(
    ("external", "words"),
    [
        (External(path="x", url="svn://127.0.0.1:9/x", revision="1"), "on another server, and a host that checks out"),
        (External(path="out/x", url="{}/common", revision="2"), "behind a link of the tree, out"),
        (External(path="out", url="{}/common", revision="2"), "behind a link of the tree, out"),
    ],
    ids=["another server", "behind a link", "over a link"],
)
def test_a_commit_makes_a_host_with_a_login_neither_call_nor_write_elsewhere(
    external: External, words: str, with_login: str, repository: Repository, server: Server, tmp_path: Path
) -> None:
    (repository.place / "conf/svnserve.conf").write_text("[general]\nanon-access = write\n")
    (repository.copy / "trunk/out").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere").mkdir()
    number = repository.put({})
    external = external.model_copy(update={"url": external.url.format(with_login)})
    said = brought(server, tmp_path, Source(url=f"{with_login}/trunk", revision=str(number), externals=(external,)))
    assert isinstance(said, SourceError) and words in said.sentence
    assert not list((tmp_path / "elsewhere").iterdir())
