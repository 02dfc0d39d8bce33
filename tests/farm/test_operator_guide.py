"""The operator's guide and the worker's page, executed as they stand, by root on a bare machine.

Bare: an environment of PATH alone, and a mount namespace of its own with an empty /opt and /var/lib and a private /etc,
so that the user that the guide makes and all its files are gone with the namespace. Two things are not as the guide
says: `make setup` needs a network and minutes, so /opt/oscar-farm/.venv is an environment whose .pth file points to the
packages of the interpreter that runs this test; and the ports and the repository's address are replaced by free ones.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from tests.farm.support import eventually

HERE = Path(__file__).resolve().parents[2]
SECONDS = 180
_MADE = [Path("/opt/oscar-farm"), Path("/var/lib/oscar-farm")]
_BARE = ["env", "-i", "PATH=/usr/sbin:/usr/bin:/sbin:/bin"]

# $1 checkout, $2 interpreter's prefix and $3 its name, $4 its packages, $5 its scripts, $6 scratch folder. What the
# guide writes is in the scratch folder (/var/lib) or in memory. An interpreter in a home of mode 0700 (pyenv) is of no
# use to the master's user: then that home is hidden, and the interpreter alone stands in it, at the path that its files
# name. (`env`, since the program that setpriv itself starts is still opened with root's rights.)
_NAMESPACE = """
set -eu
mount --make-rprivate /
mount -t tmpfs -o mode=755 tmpfs /media
mkdir /media/python /media/packages /media/scratch
mount --bind "$2" /media/python
mount --bind "$4" /media/packages
mount --bind "$6" /media/scratch
cp -a /etc /media/etc
for file in passwd shadow group gshadow subuid subgid; do
    [ ! -e /media/etc/$file ] || sed -i '/^oscar-[a-z]*:/d' /media/etc/$file
done
mount --bind /media/etc /etc
mkdir /media/oscar-farm
cp -a "$1/oscar_steps" "$1/workers" "$1/profiles" "$1/master.cfg" "$1/farm.toml" /media/oscar-farm/
mkdir /media/scripts
for name in buildbot twistd oscar-testdriver; do
    sed '1s,.*,#!/opt/oscar-farm/.venv/bin/python,' "$5/$name" > "/media/scripts/$name"
done
mkdir -m 755 "$6/lib"
mount --bind "$6/lib" /var/lib
mount -t tmpfs -o mode=755 tmpfs /var/log
mount -t tmpfs -o mode=755 tmpfs /opt
if ! setpriv --reuid 65534 --regid 65534 --clear-groups env "$2/bin/$3" -c '' 2>/dev/null; then
    top=${2#/}
    mount -t tmpfs -o mode=755 tmpfs "/${top%%/*}"
    mkdir -p "$2"
    mount --bind /media/python "$2"
fi
cp -a /media/oscar-farm /opt/oscar-farm
chmod -R a+rX /opt/oscar-farm
"$2/bin/$3" -m venv --without-pip /opt/oscar-farm/.venv
printf '/opt/oscar-farm\\n/media/packages\\n' > "/opt/oscar-farm/.venv/lib/$3/site-packages/farm.pth"
install -m 755 /media/scripts/* /opt/oscar-farm/.venv/bin/
cd /
exec env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin /bin/sh -ex /media/scratch/inside.sh
"""


def blocks(page: str, section: str = "") -> list[str]:
    """The blocks that are marked as executed; of one section only, where its title is given."""
    text = (HERE / page).read_text()
    if section:
        found = re.search(rf"^(#+ {re.escape(section)}\n.*?)(?=^#+ |\Z)", text, re.DOTALL | re.MULTILINE)
        assert found, f"{page} has no section '{section}'"
        text = found[1]
    return re.findall(r"^```sh\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@pytest.fixture
def repository(tmp_path: Path) -> Iterator[str]:
    subprocess.run(["svnadmin", "create", str(tmp_path / "svn")], check=True)
    port = free_port()
    server = subprocess.Popen(
        ["svnserve", "-d", "--foreground", "--listen-host=127.0.0.1", f"--listen-port={port}", "-r", str(tmp_path)]
    )
    try:
        url = f"svn://127.0.0.1:{port}/svn"
        eventually(lambda: subprocess.run(["svn", "info", url], capture_output=True, check=False).returncode == 0, 20)
        tree = f"file://{tmp_path}/svn/"
        subprocess.run(["svn", "mkdir", "-q", "-m", "layout", tree + "trunk", tree + "branches"], check=True)
        yield url
    finally:
        server.terminate()
        server.wait(20)


def script(repository: str, web: int, workers: int, mail: int) -> str:
    """All blocks in order; the last one of each page stays in the foreground and is put into the background here."""
    master, worker = blocks("docs/operator-guide.md", "Setting up the master"), blocks("workers/README.md")
    assert len(master) >= 3 and len(worker) >= 2, "the guide's blocks are marked ```sh"
    # A block is typed line by line into one shell; -e ends it at the first command that fails.
    text = "".join(master[:-1]) + f"(\n{master[-1]}) > /media/scratch/master.txt 2>&1 &\n"
    text += "master=$!\n" + "".join(worker[:-1]) + f"(\n{worker[-1]}) > /media/scratch/worker.txt 2>&1 &\n"
    # When the test says so: a backup, the loss of the master, its restore, another start.
    text += "read go < /media/scratch/go\n" + "".join(blocks("docs/operator-guide.md", "Make a backup"))
    text += "kill -9 $master\nwait $master || true\nmv /var/lib/oscar-farm/master /var/lib/oscar-farm/lost\n"
    text += "".join(blocks("docs/operator-guide.md", "Restore it"))
    text += f"(\n{master[-1]}) > /media/scratch/restored.txt 2>&1 &\nwait\n"
    for old, new in (
        ("svn://127.0.0.1/oscar", repository),
        ("8010", str(web)),
        ("9989", str(workers)),
        ("port = 25\n", f"port = {mail}\n"),
    ):
        assert old in text, f"the guide does not say {old!r} any more"
        text = text.replace(old, new)
    return text


def start_on_a_bare_root(script: str, scratch: Path) -> subprocess.Popen[bytes]:
    """What it says goes to said.txt. A process namespace as well: its end is the end of everything that was started."""
    (scratch / "inside.sh").write_text(script)
    name = f"python{sys.version_info.major}.{sys.version_info.minor}"
    packages, scripts = sysconfig.get_path("purelib"), sysconfig.get_path("scripts")
    arguments = [str(HERE), sys.base_prefix, name, packages, scripts, str(scratch)]
    namespaces = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
    with (scratch / "said.txt").open("wb") as said:
        return subprocess.Popen(
            [*_BARE, *namespaces, "sh", "-c", _NAMESPACE, "sh", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=said,
            start_new_session=True,
        )


@contextmanager
def bare_root(script: str, scratch: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A script in a namespace of its own; afterwards nothing of it runs. Its words are the .txt files in `scratch`."""
    shell = start_on_a_bare_root(script, scratch)
    inhabited = ""
    try:
        eventually(
            lambda: shell.poll() is not None or namespace(shell.pid, "pid_for_children") != namespace(os.getpid()), 20
        )
        inhabited = namespace(shell.pid, "pid_for_children")
        yield shell
    except BaseException:
        for log in sorted([*scratch.glob("*.txt"), *scratch.glob("lib/oscar-farm/*/twistd.log")]):
            print(f"--- {log}:\n{log.read_text(errors='replace')[-6000:]}")
        raise
    finally:
        if shell.poll() is None:
            os.killpg(shell.pid, signal.SIGKILL)
        shell.wait(30)
        eventually(lambda: not inhabitants(inhabited), 30)


def namespace(pid: int, kind: str = "pid") -> str:
    """Which one a process is in; empty if there is no such process (any more)."""
    with suppress(OSError):
        return str(Path(f"/proc/{pid}/ns/{kind}").readlink())
    return ""


def inhabitants(space: str) -> list[int]:
    """The processes of a process namespace. Those that have ended and that nobody has waited for are not in any."""
    pids = [int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit()]
    return [pid for pid in pids if space and namespace(pid) == space]


def user_of(pid: int) -> int:
    with suppress(OSError):
        return Path(f"/proc/{pid}").stat().st_uid
    return -1


def connected(port: int) -> bool:
    """Has the master that answers at this port a worker that is connected?"""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/api/v2/workers", timeout=5) as answer:
            workers = json.load(answer)["workers"]
    except OSError:
        return False
    return any(worker["name"] == "worker1" and worker["connected_to"] for worker in workers)


@pytest.mark.skipif(os.geteuid() != 0, reason="the guide is for root: needs a mount namespace of its own")
def test_the_guide_followed_to_the_letter_on_a_bare_root_gives_a_master_with_a_connected_worker_also_after_a_restore(
    tmp_path: Path, repository: str
) -> None:
    users, made = Path("/etc/passwd").read_bytes(), [path.exists() for path in _MADE]
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    os.mkfifo(scratch / "go")
    web = free_port()
    with bare_root(script(repository, web, free_port(), free_port()), scratch) as shell:
        eventually(lambda: shell.poll() is not None or connected(web), SECONDS)
        assert shell.poll() is None, f"a command of the guide ended with status {shell.returncode}"
        running = inhabitants(namespace(shell.pid, "pid_for_children"))
        assert {user_of(pid) for pid in running} - {0, -1}, "the master has a user of its own"
        (scratch / "go").write_text("go\n")
        lost = scratch / "lib/oscar-farm/lost"
        eventually(lambda: shell.poll() is not None or (lost.is_dir() and connected(web)), SECONDS)
        assert shell.poll() is None, f"a command of backup or restore ended with status {shell.returncode}"
    assert not connected(web)
    assert Path("/etc/passwd").read_bytes() == users, "the user that the guide makes stays in the namespace"
    assert [path.exists() for path in _MADE] == made, "the guide's files stay in the namespace"


@pytest.mark.skipif(os.geteuid() != 0, reason="needs a mount namespace of its own, with the checkout in /opt")
@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd-analyze here")
@pytest.mark.parametrize("name", ["oscar-farm-master", "oscar-farm-worker", "oscar-farm-images"])
def test_systemd_finds_nothing_to_say_about_the_units(name: str, tmp_path: Path) -> None:
    with bare_root(f"systemd-analyze verify /opt/oscar-farm/workers/{name}.service\n", tmp_path) as shell:
        assert shell.wait(SECONDS) == 0
        said = (tmp_path / "said.txt").read_text(errors="replace")
        assert said == f"+ systemd-analyze verify /opt/oscar-farm/workers/{name}.service\n"
