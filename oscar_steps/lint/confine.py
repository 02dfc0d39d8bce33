"""Compilers run where a commit can do no harm: `perl -c` executes BEGIN blocks, and the farm tests whatever comes.

Bubblewrap gives them a root of their own (Perl and the shell, read-only; the tree, read-only; an empty /tmp), no
network, and processes that are gone with the sandbox's first one. Time, memory, files and processes are limited.
"""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess
import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from oscar_steps.environment import tool_environment
from oscar_steps.errors import HostError, ToolMissing

SECONDS_PER_FILE = 10
"""A good file takes a tenth of one; this is for a host that has much else to do."""
MIB_PER_PROCESS = 512
_MAX_PROCESSES = 32
_FIRST_USER = 1_500_000_000
"""Users that no host has: one for each sandbox, so that what one does takes no process from another."""
_SANDBOXES = itertools.count()
_NAMESPACES = ("ipc", "pid", "net", "uts", "cgroup-try")
_MINE = Path(__file__).parent / "sandbox"
_PROGRAMS = ("bwrap", "prlimit", "setpriv", "perl", "bash")
# In a merged /usr these are links; a host that has them as folders of their own gets them bound.
_LINKED = ("bin", "sbin", "lib", "lib64")

# Of Perl's own modules those that most scripts load: loaded once, unless the tree has one of that name itself.
_COMMON = (
    "strict.pm", "warnings.pm", "vars.pm", "base.pm", "Carp.pm", "Exporter.pm", "Data/Dumper.pm", "POSIX.pm", "Cwd.pm",
    "English.pm", "Getopt/Long.pm", "File/Basename.pm", "File/Copy.pm", "File/Path.pm", "File/Temp.pm", "Socket.pm",
    "Sys/Hostname.pm", "IO/File.pm", "IPC/Open3.pm",
)  # fmt: skip

End = Literal["done", "time", "left", "gone", "late"]


@dataclass(frozen=True)
class Task:
    """One file to be checked."""

    kind: Literal["perl", "shell"]
    path: str


@dataclass(frozen=True)
class Answer:
    """What the compiler said.

    `end`: 'time': it did not end; 'left': processes stayed; 'gone': it ended the sandbox, or spoilt it;
    'late': it had no turn.
    `status` is the exit status, negative for a signal; `notes` are those of the empty modules.
    """

    task: Task
    end: End
    status: int = 0
    words: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


class Sandbox:
    """A place to compile files of `tree` in. Both folders have to be readable for everybody."""

    def __init__(self, tree: Path, checks: Path) -> None:
        missing = [name for name in _PROGRAMS if shutil.which(name) is None]
        if missing:
            raise ToolMissing(
                f"'{missing[0]}' is missing on this host: without it no script of a commit can be compiled safely",
                hint="apt-get install bubblewrap util-linux perl bash",
            )
        shutil.copytree(_MINE, checks, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))
        for path in (checks, *checks.iterdir()):
            path.chmod(0o755)
        self._command = _command(tree, checks)
        own = {path.name for path in tree.rglob("*.pm")}
        self._modules = [module for module in _COMMON if module.rpartition("/")[2] not in own]

    def check(self, tasks: Sequence[Task], until: float) -> list[Answer]:
        """Check every file, on all cores, until `until` (`time.monotonic()`). Raises HostError where nothing runs."""
        cores = max(1, min(os.cpu_count() or 1, len(tasks)))
        with ThreadPoolExecutor(cores) as pool:
            shares = [tasks[core::cores] for core in range(cores)]
            return [
                answer
                for answers in pool.map(lambda share: list(self._share(share, until)), shares)
                for answer in answers
            ]

    def _share(self, tasks: Sequence[Task], until: float) -> Iterator[Answer]:
        """One sandbox for as many files as it survives, then another."""
        left = deque(tasks)
        while left:
            patience = until - time.monotonic()
            if patience <= 0:
                yield from (Answer(task, "late") for task in left)
                return
            answers, fresh = self._run(tuple(left), patience)
            yield from answers
            for _ in answers:
                left.popleft()
            if left and not fresh and (not answers or answers[-1].end == "done") and time.monotonic() < until:
                yield Answer(left.popleft(), "gone")

    def _run(self, tasks: tuple[Task, ...], patience: float) -> tuple[list[Answer], bool]:
        """As many answers as one sandbox gave, and whether it asks for a fresh one for the rest."""
        order = "".join(f"{task.kind}\t{task.path}\n" for task in tasks)
        with subprocess.Popen(
            [*self._command, *_program(), *self._modules],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=tool_environment(),
        ) as process:
            try:
                output, errors = process.communicate(order.encode(), timeout=patience)
            except subprocess.TimeoutExpired:
                process.kill()
                output, errors = process.communicate()
        if not output.startswith(b"=ready\n"):
            said = (errors.decode("utf-8", "replace").strip().splitlines() or ["nothing"])[-1]
            raise HostError(
                f"the sandbox for compilers does not start on this host: {said}",
                hint="this container has to be allowed to make namespaces (CAP_SYS_ADMIN)"
                if os.geteuid() == 0
                else "unprivileged user namespaces have to be allowed: sysctl kernel.unprivileged_userns_clone=1",
            )
        return list(_answers(output, tasks)), output.endswith(b"\n=fresh\n")


def _answers(output: bytes, tasks: tuple[Task, ...]) -> Iterator[Answer]:
    at = len(b"=ready\n")
    for task in tasks:
        end = output.find(b"\n", at)
        words = output[at:end].decode("utf-8", "replace").split("\t") if end >= 0 else []
        if len(words) != 4 or words[:2] != ["=result", task.path]:
            return
        at = end + 1 + int(words[3])
        lines = output[end + 1 : at].decode("utf-8", "replace").splitlines()
        notes = tuple(line[1:] for line in lines if line.startswith("+"))
        said = tuple(line for line in lines if not line.startswith("+"))
        match words[2]:
            case "time" | "left" | "gone" as how:
                yield Answer(task, how, 0, said, notes)
            case number:
                yield Answer(task, "done", os.waitstatus_to_exitcode(int(number)), said, notes)


def _command(tree: Path, checks: Path) -> list[str]:
    """The sandbox, up to the program that runs in it. For root it has no user namespace: in a container or a chroot
    nobody may make one, and root needs none."""
    linked: list[str] = []
    for name in _LINKED:
        place = Path("/") / name
        if place.is_symlink():
            linked += ["--symlink", str(place.readlink()), str(place)]
        elif place.is_dir():
            linked += ["--ro-bind", str(place), str(place)]
    variables = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/tmp", "USER": "root", "TERM": "dumb", "LC_ALL": "C"}
    settings = [
        word for name, value in {**variables, "OSCAR_HOME": "/tree"}.items() for word in ("--setenv", name, value)
    ]
    spaces = [f"--unshare-{space}" for space in _NAMESPACES] if os.geteuid() == 0 else ["--unshare-all"]
    return [
        "bwrap", *spaces, "--die-with-parent", "--new-session", "--ro-bind", "/usr", "/usr", *linked,
        "--proc", "/proc", "--dev", "/dev", "--perms", "1777", "--size", str(16 * 2**20), "--tmpfs", "/tmp",
        "--ro-bind", str(tree), "/tree", "--ro-bind", str(checks), "/checks", "--chdir", "/tmp", "--clearenv",
        *settings,
    ]  # fmt: skip


def _program() -> list[str]:
    """What runs in the sandbox, as a user of its own: the limit on processes holds for a user, and not for root."""
    drop: list[str] = []
    if os.geteuid() == 0:
        user = _FIRST_USER + os.getpid() % 2**16 * 2**10 + next(_SANDBOXES) % 2**10
        drop = ["setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups", "--no-new-privs"]
        drop += ["--inh-caps=-all", "--bounding-set=-all"]
    limits = (f"--nproc={_MAX_PROCESSES}", f"--as={MIB_PER_PROCESS * 2**20}", f"--fsize={8 * 2**20}", "--core=0")
    return [*drop, "prlimit", *limits, "perl", "/checks/check.pl", str(SECONDS_PER_FILE)]
