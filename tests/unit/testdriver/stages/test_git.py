"""A commit of git's comes into the head node: exactly that one, or a sentence that says why not."""

from __future__ import annotations

import asyncio
import os
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from oscar_steps.errors import FarmError, SourceError
from oscar_steps.sources.source import Source
from oscar_steps.testdriver import lookahead
from oscar_steps.testdriver.deadline import Deadline
from oscar_steps.testdriver.head.headnode import CommandResult
from oscar_steps.testdriver.stages.sources import git
from tests.unit.git_server import Repository, served


class Head:
    """A head node whose commands run on this host."""

    forwards = ()
    forward_trouble = ""

    async def run(self, command: str, *, seconds: float = 60, stdin: bytes = b"") -> CommandResult:
        done = await asyncio.to_thread(
            subprocess.run,
            ["sh", "-c", command],
            input=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=seconds,
            check=False,
            env={"PATH": os.environ["PATH"], "HOME": "/nonexistent"},
        )
        return CommandResult(command, done.returncode, done.stdout.decode())

    async def check(self, command: str) -> str:
        return (await self.run(command)).output


def bring(url: str, revision: str, home: Path) -> str:
    source = Source(kind="git", url=url, revision=revision)
    run = SimpleNamespace(job=SimpleNamespace(source=source, answers=SimpleNamespace(oscar_home=str(home))))
    booted = SimpleNamespace(head=Head())
    return asyncio.run(git.bring(cast("Any", run), cast("Any", booted), Deadline(60)))


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    made = Repository(tmp_path / "oscar.git")
    made.commit({"install_cluster": b"one\n", "lib/OSCAR/x.pm": b"1;\n"})
    made.commit({"install_cluster": b"two\n"})
    made.commit({"install_cluster": b"three\n"})
    return made


def test_exactly_the_commit_of_the_job_stands_in_oscars_home(repository: Repository, tmp_path: Path) -> None:
    wanted = repository.git("rev-parse", "main~1")
    with served(repository) as url:
        said = bring(url, wanted, tmp_path / "home dir")
    assert wanted in said
    assert (tmp_path / "home dir" / "install_cluster").read_text() == "two\n"


def test_a_server_that_gives_no_single_commits_gives_its_branches(repository: Repository, tmp_path: Path) -> None:
    wanted = repository.git("rev-parse", "main~1")
    repository.git("config", "protocol.version", "0")
    repository.git("config", "uploadpack.allowAnySHA1InWant", "false")
    with served(repository) as url:
        bring(url, wanted, tmp_path / "home")
    assert (tmp_path / "home" / "install_cluster").read_text() == "two\n"


def test_a_commit_that_is_not_there_is_the_askers_mistake(repository: Repository, tmp_path: Path) -> None:
    with served(repository) as url, pytest.raises(SourceError, match="could not check out"):
        bring(url, "0" * 39 + "1", tmp_path / "home")


def test_a_server_that_does_not_answer_is_no_mistake_of_the_asker(repository: Repository, tmp_path: Path) -> None:
    with served(repository) as url:
        pass
    with pytest.raises(FarmError, match="could not check out") as caught:
        bring(url, repository.tip("main"), tmp_path / "home")
    assert not isinstance(caught.value, SourceError)


def test_the_installers_sources_are_read_before_anything_boots(repository: Repository, tmp_path: Path) -> None:
    tip = repository.commit({"lib/OSCAR/é.pm": b"2;\n", "packages/big/x.bin": b"0" * 1000})
    with served(repository) as url:
        files = asyncio.run(lookahead.fetch(Source(kind="git", url=url, revision=tip), tmp_path))
    assert "install_cluster" in files
    assert "packages/big/x.bin" not in files
