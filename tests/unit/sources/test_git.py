"""Git as a source: names of revisions, exact commits, hostile servers, and what a copy in the cache survives."""

from __future__ import annotations

import hashlib
import socket
import subprocess
from pathlib import Path

import pytest

from oscar_steps.errors import HostError, SourceError
from oscar_steps.sources import git as words
from oscar_steps.sources.git import error_kind, git_environment, git_words, is_git, name_fault, refs_in
from oscar_steps.sources.mirror import git, mirror_of
from oscar_steps.sources.resolve import exact, source_as_asked
from tests.unit.git_server import Repository, served


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    made = Repository(tmp_path / "oscar.git")
    made.commit({"install_cluster": b"#!/bin/sh\n"}, message="one")
    return made


@pytest.mark.parametrize(
    ("url", "answer"),
    [
        ("https://host/oscar.git", True),
        ("https://host/oscar.git/", True),
        ("git://host/oscar", True),
        ("ssh://git@host/oscar", True),
        ("https://host/svn/oscar/trunk", False),
        ("svn://host/oscar/trunk", False),
        ("file:///no/such/folder", False),
        ("http://[broken", False),
    ],
)
def test_the_form_of_an_address_says_whether_it_is_gits(url: str, answer: bool) -> None:
    assert is_git(url) is answer


def test_a_folder_of_this_host_is_gits_where_git_is_in_it(repository: Repository, tmp_path: Path) -> None:
    plain = repository.path.rename(tmp_path / "repo")
    assert is_git(f"file://{plain}")


@pytest.mark.parametrize(
    "name",
    [
        "",
        "-x",
        "--upload-pack=touch x",
        "../x",
        "a..b",
        "a b",
        "a\x1bb",
        "a\nb",
        "ma\u202ein",
        "main\u200b",
        "a\x85b",
        "a\ud800",
        "x:y",
        "a^",
        "a~1",
        "x@{1}",
        "/x",
        "x/",
    ],
)
def test_a_name_that_git_has_not_is_refused(name: str, repository: Repository) -> None:
    assert name_fault(name)
    with pytest.raises(SourceError):
        source_as_asked(repository.url, name)


@pytest.mark.parametrize(
    "url", ["ext::sh -c touch% /tmp/x", "ext://sh/x.git", "ftp://host/oscar.git", "https://u:p@h/x.git"]
)
def test_an_address_that_runs_programs_or_shows_a_password_is_refused(url: str) -> None:
    with pytest.raises(SourceError):
        source_as_asked(url, "main", is_gits=True)


def test_git_itself_reads_no_address_that_runs_a_program(tmp_path: Path) -> None:
    with pytest.raises(HostError):
        git("ls-remote", f"ext::touch {tmp_path}/ran", about="it")
    assert not (tmp_path / "ran").exists()


def test_a_server_can_name_no_reference_that_git_refuses() -> None:
    one, two = "a" * 40, "b" * 40
    said = f"{one}\trefs/heads/main\n{one}\trefs/heads/-x\n{one}\trefs/heads/../x\n{one}\trefs/tags/1.0\n"
    said += f"{two}\trefs/tags/1.0^{{}}\nnonsense\n{one}\trefs/heads/\x1b[2J\n"
    # '-x' is a part of the name, behind refs/heads/: it is never given to git by itself
    assert refs_in(said.encode()) == {"refs/heads/main": one, "refs/heads/-x": one, "refs/tags/1.0": two}


def test_branch_tag_head_and_ids_lead_to_the_same_exact_commit(repository: Repository, tmp_path: Path) -> None:
    tip = repository.tip("main")
    repository.git("-c", "user.name=x", "-c", "user.email=x", "tag", "-a", "-m", "t", "5.1", tip)
    with served(repository) as url:
        for asked in ("main", "5.1", "HEAD", tip, tip[:8], tip[:8].upper(), "refs/heads/main"):
            source = exact(source_as_asked(url, asked), tmp_path / "cache")
            assert (source.kind, source.revision, source.short) == ("git", tip, f"g{tip[:12]}"), asked


def test_an_ambiguous_name_is_refused_and_says_what_it_may_be(repository: Repository, tmp_path: Path) -> None:
    first = repository.tip("main")
    second = repository.commit({"x": b"1"})
    repository.git("update-ref", "refs/heads/5.1", first)
    repository.git("update-ref", "refs/tags/5.1", second)
    with pytest.raises(SourceError, match=r"may be refs/heads/5\.1 or refs/tags/5\.1"):
        exact(source_as_asked(repository.url, "5.1"), tmp_path)


def test_an_abbreviated_id_of_several_commits_is_refused(repository: Repository, tmp_path: Path) -> None:
    tree = repository.git("rev-parse", "main^{tree}")
    seen: dict[str, bytes] = {}
    for number in range(100_000):
        content = f"tree {tree}\nauthor a <a> 1 +0000\ncommitter a <a> 1 +0000\n\n{number}\n".encode()
        begins = hashlib.sha1(b"commit %d\0" % len(content) + content).hexdigest()[:4]
        if begins in seen:
            break
        seen[begins] = content
    for branch, text in (("a", seen[begins]), ("b", content)):
        repository.git("update-ref", f"refs/heads/{branch}", repository.git(*_STORE, stdin=text))
    with pytest.raises(SourceError, match="may be"):
        exact(source_as_asked(repository.url, begins), tmp_path)


_STORE = ("hash-object", "-t", "commit", "-w", "--stdin")


@pytest.mark.parametrize("asked", ["nosuch", "abcdef12"])
def test_what_is_not_there_is_the_askers_mistake(asked: str, repository: Repository, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=asked):
        exact(source_as_asked(repository.url, asked), tmp_path)


def test_no_repository_is_the_askers_mistake_and_no_server_the_hosts(repository: Repository, tmp_path: Path) -> None:
    with served(repository) as url, pytest.raises(SourceError):
        exact(source_as_asked(url.replace("oscar.git", "other.git"), "main"), tmp_path)
    with pytest.raises(HostError):
        exact(source_as_asked(url, "main"), tmp_path)


def test_a_copy_that_is_damaged_is_made_anew(repository: Repository, tmp_path: Path) -> None:
    with mirror_of(repository.url, tmp_path) as mirror:
        place = mirror.place
    for file in [*place.rglob("*.pack"), *place.rglob("*.idx")]:
        file.chmod(0o600)
        file.write_bytes(b"")
    tip = repository.commit({"y": b"1"})
    with mirror_of(repository.url, tmp_path) as mirror:
        assert mirror.resolve("main") == tip


def test_a_copy_follows_a_force_push_and_a_removed_branch(repository: Repository, tmp_path: Path) -> None:
    repository.git("update-ref", "refs/heads/side", repository.tip("main"))
    with mirror_of(repository.url, tmp_path):
        pass
    repository.git("update-ref", "-d", "refs/heads/side")
    tip = repository.commit({"z": b"1"}, parents=())
    with mirror_of(repository.url, tmp_path) as mirror:
        assert mirror.resolve("main") == tip
        with pytest.raises(SourceError):
            mirror.resolve("side")


def test_a_commit_that_git_cannot_list_has_not_passed_as_an_empty_one(repository: Repository, tmp_path: Path) -> None:
    with mirror_of(repository.url, tmp_path / "cache") as mirror:
        mirror.check(repository.tip("main"))
        with pytest.raises(HostError, match=r"git says fatal: .*[Nn]ot a"):
            mirror.check("0" * 39 + "1")


def test_gits_reason_is_the_line_that_says_it() -> None:
    said = "Cloning into 'x'...\nfatal: remote error: access denied or repository not exported: /other.git\n"
    assert "not exported" in git_words(said)
    assert error_kind(said) is SourceError
    assert error_kind("fatal: unable to connect to 127.0.0.1: Connection refused") is HostError


def test_a_web_server_that_stops_in_the_middle_of_its_answer_is_left_by_git_itself(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of a git that is killed a program that asks the server goes on: nobody else would end it."""
    assert int(words._SETTINGS["http.lowSpeedTime"]) <= 300
    monkeypatch.setitem(words._SETTINGS, "http.lowSpeedTime", "1")
    answer = b"HTTP/1.1 200 OK\r\nContent-Type: application/x-git-upload-pack-advertisement\r\n\r\n001e#"
    with socket.create_server(("127.0.0.1", 0)) as server:
        command = ["git", "ls-remote", f"http://127.0.0.1:{server.getsockname()[1]}/x.git"]
        asking = subprocess.Popen(command, env=git_environment(), stderr=subprocess.PIPE)
        with asking, server.accept()[0] as connection:
            connection.recv(4096)
            connection.sendall(answer)
            said = asking.communicate(timeout=120)[1]
    assert b"too slow" in said.lower()
