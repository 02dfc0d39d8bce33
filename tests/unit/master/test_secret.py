"""The command that makes the master's secrets."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

SITE = """\
[repository]
url = "svn://127.0.0.1/oscar"
[mail]
from = "farm@x.org"
operator = "op@x.org"
user = "farm"
[web]
admins = ["jane"]
[[worker]]
name = "worker1"
"""


@pytest.fixture
def site(tmp_path: Path) -> Path:
    (tmp_path / "farm.toml").write_text(SITE)
    return tmp_path / "farm.toml"


def secret(site: Path, *words: str, typed: str = "") -> tuple[int, str]:
    """Exit status and words of the command, run under a umask that would let everybody read."""
    command = [sys.executable, "-m", "oscar_steps.master.secret", str(site), *words]
    done = subprocess.run(command, input=typed, capture_output=True, text=True, umask=0, check=False)
    return done.returncode, done.stdout + done.stderr


def test_a_secret_is_made_for_its_user_alone_whatever_the_umask(site: Path) -> None:
    made = site.parent / "secrets" / "worker-worker1"
    assert secret(site, "worker-worker1") == (0, f"{made} (password of the worker worker1) is written\n")
    assert (made.stat().st_mode & 0o777, made.parent.stat().st_mode & 0o777) == (0o600, 0o700)
    assert len(made.read_text().strip()) >= 32


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_a_secret_that_root_makes_belongs_to_the_owner_of_the_folder(site: Path) -> None:
    os.chown(site.parent, 4242, 4242)
    assert secret(site, "web-jane")[0] == 0
    for path in (site.parent / "secrets", site.parent / "secrets/web-jane"):
        assert (path.stat().st_uid, path.stat().st_gid) == (4242, 4242)


def test_a_secret_is_replaced_only_on_request_and_then_by_another_one(site: Path) -> None:
    made = site.parent / "secrets" / "web-jane"
    assert secret(site, "web-jane")[0] == 0
    first = made.read_text()
    status, said = secret(site, "web-jane")
    assert (status, made.read_text()) == (64, first)
    assert said == f"the secret {made} exists already\n  to replace it: --new\n"
    made.chmod(0o644)
    assert secret(site, "web-jane", "--new")[0] == 0
    assert made.read_text() != first
    assert made.stat().st_mode & 0o777 == 0o600


def test_a_secret_that_somebody_else_has_chosen_is_read_from_standard_input_and_never_shown(site: Path) -> None:
    assert secret(site, "mail-password")[0] == 64
    status, said = secret(site, "mail-password", "--ask", typed="what they said\n")
    assert status == 0
    assert "what they said" not in said
    assert (site.parent / "secrets/mail-password").read_text() == "what they said\n"
    assert secret(site, "mail-password", "--ask", "--new", typed="\n") == (
        64,
        "no secret was given for mail-password\n  it has to be one line of text\n",
    )


@pytest.mark.parametrize(
    ("typed", "hint", "language"),
    [
        (b"caf\xe9\n", "it has to be UTF-8 text", "C.UTF-8"),
        (b"caf\xe9\n", "it has to be UTF-8 text", "POSIX"),
        (b" blanks \n", "it must not begin or end with a blank", "C.UTF-8"),
        (b"two\x07\n", "it has to be one line of text", "C.UTF-8"),
    ],
)
def test_what_could_not_be_read_back_is_no_secret(site: Path, typed: bytes, hint: str, language: str) -> None:
    command = [sys.executable, "-m", "oscar_steps.master.secret", str(site), "mail-password", "--ask"]
    done = subprocess.run(command, input=typed, capture_output=True, check=False, env=os.environ | {"LC_ALL": language})
    said = f"no secret was given for mail-password\n  {hint}\n".encode()
    assert (done.returncode, done.stdout + done.stderr) == (64, said)
    assert not (site.parent / "secrets").exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root would write where others send it")
def test_root_does_not_follow_a_link_in_the_place_of_the_folder_of_secrets(site: Path) -> None:
    (site.parent / "elsewhere").mkdir()
    (site.parent / "secrets").symlink_to("elsewhere")
    status, said = secret(site, "worker-worker1")
    assert status == 64
    assert said.startswith(f"the secret {site.parent}/secrets/worker-worker1 cannot be written: its folder is a link")
    assert list((site.parent / "elsewhere").iterdir()) == []


def test_without_a_name_it_says_what_is_there_and_what_is_missing_and_shows_none(site: Path) -> None:
    assert secret(site, "worker-worker1")[0] == 0
    status, said = secret(site)
    there, web, mail = said.splitlines()
    assert status == 0
    assert there == f"{site.parent}/secrets/worker-worker1 (password of the worker worker1) exists"
    assert "web-jane (web password of jane) is missing; create it: " in web
    assert "mail-password (password of farm at the mail relay 127.0.0.1) is missing" in mail
    assert (site.parent / "secrets/worker-worker1").read_text().strip() not in said


@pytest.mark.parametrize("name", ["worker-two", "../farm.toml", "web-", "database-password"])
def test_a_secret_that_the_site_does_not_need_is_refused_with_those_that_it_needs(site: Path, name: str) -> None:
    status, said = secret(site, name, "--ask", "--new", typed="x\n")
    assert status == 64
    assert said == f"{site} needs no secret '{name}'; it needs: worker-worker1, web-jane, mail-password\n"
