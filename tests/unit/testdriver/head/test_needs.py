"""The check of what a head node needs, in a small root folder of its own: each need is missed by itself."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from oscar_steps.errors import HostError, ImageUnfit
from oscar_steps.guest import guest_text
from oscar_steps.testdriver.head.headnode import CommandResult
from oscar_steps.testdriver.head.needs import check_needs

PROGRAMS = ("file", "perl", "rsync", "svn", "tar", "pgrep", "sleep")
ADDRESS = "127.0.0.1"
"""The only address in a network namespace of its own."""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """The parts of a head node's root folder that the check reads, all in order."""
    for folder in ("bin", "etc/ssh", "sbin", "tftpboot/pool", "terms/l"):
        (tmp_path / folder).mkdir(parents=True)
    for name in (*(f"bin/{name}" for name in PROGRAMS), "sbin/ifconfig"):
        (tmp_path / name).write_text("#!/bin/sh\n")
        (tmp_path / name).chmod(0o755)
    shutil.copy("/bin/true", tmp_path / "bin/sleep")  # it is run where something has to come yet
    (tmp_path / "etc/hosts").write_text("127.0.0.1\tlocalhost\n10.0.0.1\toscarhead.oscardomain oscarhead\n")
    (tmp_path / "etc/ssh/sshd_config").write_text("#PermitRootLogin no\nPermitRootLogin yes\nPermitRootLogin no\n")
    (tmp_path / "tftpboot/pool/a.deb").touch()
    (tmp_path / "terms/l/linux").touch()
    return tmp_path


def _said(root: Path, pool: str = "/tftpboot/pool", *, address: str = ADDRESS, host: str = "oscarhead") -> list[str]:
    """What the check prints where `root` is the root folder."""
    confined = ["bwrap", "--unshare-all", "--hostname", host, "--tmpfs", "/", "--proc", "/proc", "--dev", "/dev"]
    for name in ("bin", "etc", "sbin", "tftpboot"):
        if (root / name).exists():
            confined += ["--ro-bind", str(root / name), f"/{name}"]
    confined += ["--ro-bind", "/usr/lib", "/usr/lib", "--symlink", "usr/lib", "/lib"]
    confined += ["--ro-bind", str(root / "terms"), "/etc-terms", "--ro-bind", "/lib64", "/lib64"]
    confined += [
        "--ro-bind",
        "/bin/dash",
        "/shell",
        "--clearenv",
        "--setenv",
        "PATH",
        "/bin",
        "--setenv",
        "USER",
        "root",
    ]
    done = subprocess.run(
        [*confined, "--uid", "0", "/shell", "-s", "--", pool, address],
        input=guest_text("head/needs.sh")
        .replace("/lib/terminfo", "/etc-terms")
        .replace("/usr/share/terminfo", "/none"),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stderr == ""
    *lines, end = done.stdout.splitlines()
    assert end == "end"
    return lines


def test_a_head_node_that_has_everything_is_fit(root: Path) -> None:
    assert _said(root) == []


def _remove(name: str) -> Callable[[Path], object]:
    return lambda root: (root / name).unlink()


def _write(name: str, text: str) -> Callable[[Path], object]:
    return lambda root: (root / name).write_text(text)


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (_remove("sbin/ifconfig"), "has no ifconfig; add net-tools to its packages"),
        (_remove("bin/file"), "has no file; add file to its packages"),
        (_remove("bin/svn"), "has no svn; add subversion to its packages"),
        (_remove("bin/pgrep"), "has no pgrep; add procps to its packages"),
        (_remove("tftpboot/pool/a.deb"), "has no package in /tftpboot/pool; its recipe needs a pool"),
        (_remove("terms/l/linux"), "does not know the terminal 'linux'; add ncurses-base to its packages"),
        (
            lambda root: (root / "tftpboot").rename(root / "x"),
            "has no folder /tftpboot; its pool_folder has to be in it",
        ),
        (
            _write("etc/hosts", "127.0.0.1 localhost oscarhead\n"),
            "has its own name on the loopback; /etc/hosts has to be the seed's",
        ),
        (
            _write("etc/ssh/sshd_config", "permitrootlogin prohibit-password\n"),
            "has PermitRootLogin 'prohibit-password' in /etc/ssh/sshd_config; it has to be yes",
        ),
        (
            _write("etc/ssh/sshd_config", "# PermitRootLogin yes\n"),
            "has PermitRootLogin '' in /etc/ssh/sshd_config; it has to be yes",
        ),
    ],
)
def test_what_is_missing_is_one_line_that_says_what_to_do(
    root: Path, harm: Callable[[Path], object], said: str
) -> None:
    harm(root)
    assert _said(root) == [said]


def test_an_image_without_a_pool_and_one_of_rpms_are_fit(root: Path) -> None:
    (root / "tftpboot/pool/a.deb").unlink()
    assert _said(root, pool="") == []
    (root / "tftpboot/pool/Packages").mkdir()
    (root / "tftpboot/pool/Packages/a.rpm").touch()
    assert _said(root) == []


def test_a_name_or_an_address_that_the_seed_did_not_set_is_named(root: Path) -> None:
    name = "is called 'localhost'; its farm-seed.service or cloud-init has to set the seed's name"
    assert name in _said(root, host="localhost")
    assert _said(root, address="10.0.0.1") == [
        "has no network card with the address 10.0.0.1; its recipe's network does not fit"
    ]


def _checked(output: str) -> None:
    async def run(_command: str, **_more: Any) -> CommandResult:
        return CommandResult("sh", 0, output)

    recipe: Any = SimpleNamespace(name="debian-13-x86_64", pool=(), pool_folder="/tftpboot/x")
    asyncio.run(check_needs(SimpleNamespace(run=run), recipe, "10.0.0.1"))  # type: ignore[arg-type]


def test_the_sentence_names_the_image_and_the_first_need_and_blames_no_commit() -> None:
    _checked("end\n")
    with pytest.raises(ImageUnfit) as caught:
        _checked("has no ifconfig; add net-tools to its packages\nhas SELinux; add selinux=0\nend\n")
    assert caught.value.sentence == "the image debian-13-x86_64 has no ifconfig; add net-tools to its packages"
    assert caught.value.hint == "Also: it has SELinux; add selinux=0."
    assert isinstance(caught.value, HostError)


@pytest.mark.parametrize("output", ["", "bash: sh: command not found\n", "x" * 5000])
def test_an_answer_that_is_not_the_checks_is_the_farms_fault(output: str) -> None:
    with pytest.raises(HostError, match="was not looked at to the end") as caught:
        _checked(output)
    assert len(caught.value.sentence) < 300
