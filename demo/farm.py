"""The farm of the demo and of the tests: real servers on the loopback interface, all state in one directory."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from email.message import EmailMessage
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Self

import psutil
from filelock import FileLock, Timeout

from demo import children
from demo.children import Child
from demo.errors import FarmInUse
from demo.faults import FaultBook
from demo.follow import Follower
from demo.judge import Finished
from demo.mailsink import MailSink
from demo.ports import LOOPBACK, claim, free_port
from demo.repository import Repository, apply_patch, edit_readme
from demo.rest import Master
from oscar_steps.matrix.cells import load_matrix
from oscar_steps.site import DATABASE_PASSWORD
from oscar_steps.verdict import LINT, Verdict
from oscar_steps.words import Label

CHECKOUT = Path(__file__).resolve().parent.parent
STANDIN = CHECKOUT / "tests" / "oscar_standin"
DOMAIN = "oscar.test"
USERS = ("demo", "developer")
WORKER = "demo-worker"
_PASSWORD = "only-on-loopback"
_POLL_SECONDS = 2


class Farm:
    """A context manager: servers start on the way in and end, with all runs, on the way out.

    `directory` is emptied first. `port` is the web page's (None: any free one). `driver` is the testing driver's
    command. After the end `leftovers` names what had to be ended by force; it should be empty.
    """

    again: Sequence[float] = ()
    """`[schedule] again`: one purple build is the end here."""
    search = False
    """`[schedule] search`: more builds than the commits that are made here."""
    busy = "newest"
    """`[schedule] busy`."""
    profiles = CHECKOUT / "profiles"
    try_users: Sequence[str] = ()
    """`[try] users`: who may have patches tested."""
    patience = 120.0
    """Seconds for the master's start."""
    database = ""
    """`[database] url`, of an empty database on a server; '': a file."""
    database_password = ""

    def __init__(self, directory: Path, *, port: int | None = None, driver: Sequence[str] = ()) -> None:
        self.directory = directory.resolve()
        self.leftovers: list[str] = []
        self.cell = next(cell.name for cell in load_matrix(CHECKOUT / "profiles").cells if Label.SMOKE in cell.labels)
        self._programs = Path(sys.executable).parent
        self._driver = list(driver) or [str(self._programs / "oscar-testdriver")]
        self._wanted_port = port
        self._environment = {**os.environ, children.MARK: str(self.directory)}
        self._stack = ExitStack()
        self._servers: list[Child] = []
        self._good = 1  # the import of the sources

    def __enter__(self) -> Self:
        try:
            self._start()
        except BaseException:
            self._close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close()

    @cached_property
    def faults(self) -> FaultBook:
        """The faults that can be committed."""
        return FaultBook(STANDIN / "faults")

    def commit_harmless(self, user: str = USERS[0]) -> int:
        """Commit a change that breaks nothing; its revision."""
        self._good = self.repository.commit(user, "Say one thing more in the README", edit_readme, upon=self._good)
        return self._good

    def commit_fault(self, name: str, user: str = USERS[1]) -> int:
        """Commit a fault of the fault book; its revision. Faults do not add up: an earlier one is taken back."""
        change = apply_patch(self.faults.patch(name))
        # The message does not give the fault away: the mail quotes it, and has to say the cause by itself.
        return self.repository.commit(user, "Simplify a little", change, upon=self._good)

    def follow(self, revision: int, user: str, show: Callable[[str], None], *, seconds: float = 10800) -> Finished:
        """Wait for the builds of `revision`, show their progress, then wait for the mail to `user`.

        What the first tier finds wrong is the end: no cell is installed then.
        """
        for builder in (LINT, self.cell):
            build = self.master.wait_for_build(revision, builder, 120)
            show(f"build: {build.page}")
            build = Follower(self.master, build, show).to_the_end(seconds)
            if build.result_name == "failure":
                break
        stored = self.master.property(build.build_id, "verdict")
        verdict = (
            Verdict.model_validate_json(stored if isinstance(stored, str) else json.dumps(stored)) if stored else None
        )
        mail = self.mails.wait_for(lambda message: _concerns(message, user, revision, builder), 60)
        return Finished(revision, build, verdict, mail)

    def check(self) -> None:
        """Raises ChildEnded when one of the servers is gone."""
        for server in self._servers:
            server.check()

    def _start(self) -> None:
        if self._wanted_port is not None:
            claim(self._wanted_port, hint=f"end it, or choose another port: make demo PORT={self._wanted_port + 10}")
        self._take_directory()
        self._stack.callback(self._end_what_is_left)
        self.mails = MailSink(self.directory / "mails")
        self._stack.callback(self.mails.close)
        self.repository = Repository(self.directory / "svn", STANDIN / "tree", users=USERS)
        self.subversion = self.repository.serve(self.directory / "svnserve.log", self._environment)
        self._serve(self.subversion, 5)
        self._stack.callback(self._end_runs)
        self._start_master()
        self._start_worker()

    def _take_directory(self) -> None:
        """Make the directory ours and empty. What an earlier farm that was killed has left there ends now."""
        self.directory.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(self.directory.with_suffix(".lock"), timeout=0)
        try:
            lock.acquire()
        except Timeout:
            raise FarmInUse(
                f"another farm is running in {self.directory}", hint="end it with Ctrl-C where it was started"
            ) from None
        self._stack.callback(lock.release)
        if self.directory.exists():
            self._end_runs()
            _kill(children.marked(str(self.directory)))
            shutil.rmtree(self.directory)
        self.directory.mkdir(mode=0o700)

    def _start_master(self) -> None:
        base = self.directory / "master"
        master_port = free_port()
        web_port = self._wanted_port or free_port()
        base.mkdir(mode=0o700, exist_ok=True)
        command = [str(self._programs / "buildbot"), "create-master", "--quiet", "--no-logrotate"]
        children.run(*command, "--config", CHECKOUT / "master.cfg", base)
        secrets = base / "secrets"
        secrets.mkdir(mode=0o700)
        _write_secret(secrets / f"worker-{WORKER}", _PASSWORD)
        for login in self.try_users:
            _write_secret(secrets / f"try-{login}", _PASSWORD)
        if self.database_password:
            _write_secret(secrets / DATABASE_PASSWORD, self.database_password)
        (base / "farm.toml").write_text(self._site(web_port, master_port), encoding="utf-8")
        if self.database:
            children.run(str(self._programs / "buildbot"), "upgrade-master", "--quiet", base)
        self.master = Master(f"http://{LOOPBACK}:{web_port}/")
        self._stack.callback(self.master.close)
        log = self.directory / "master.log"
        self.master_server = child = self._twistd("the Buildbot master", base, log)
        self._serve(child, 15)
        child.wait_until(self.master.answers, "serving its web page", self.patience)
        # The first look at the repository only remembers where it stands: a commit before it would start nothing.
        child.wait_until(lambda: b"finished polling" in log.read_bytes(), "a first look at the repository", 60)
        self._worker_address = f"{LOOPBACK}:{master_port}"

    def _site(self, web_port: int, master_port: int) -> str:
        """farm.toml of a demo. JSON's strings and arrays are TOML's too."""
        self.try_port = free_port()
        users = json.dumps([*self.try_users])
        tries = f'[try]\nport = "tcp:{self.try_port}:interface={LOOPBACK}"\nusers = {users}\n' if self.try_users else ""
        database = f"[database]\nurl = {json.dumps(self.database)}\n" if self.database else ""
        return f"""\
profiles = {json.dumps(str(self.profiles))}

[repository]
url = "{self.repository.url}"
poll = {_POLL_SECONDS}

[schedule]
tree_stable = 0
again = {json.dumps(self.again)}
busy = "{self.busy}"
search = {json.dumps(self.search)}

[mail]
from = "farm@{DOMAIN}"
operator = "operator@{DOMAIN}"
port = {self.mails.port}
domain = "{DOMAIN}"
always = true

[web]
port = {web_port}
open = true

[master]
title = "OSCAR test farm (demo)"
port = "tcp:{master_port}:interface={LOOPBACK}"

{database}{tries}
[driver]
command = {json.dumps(self._driver)}
runs = {json.dumps(str(self.runs))}

[[worker]]
name = "{WORKER}"
"""

    def _start_worker(self) -> None:
        base = self.directory / "worker"
        base.mkdir()
        shutil.copy(CHECKOUT / "workers" / "buildbot.tac", base)
        settings = f'master = "{self._worker_address}"\nname = "{WORKER}"\npassword_file = "password"\n'
        (base / "worker.toml").write_text(settings, encoding="utf-8")
        _write_secret(base / "password", _PASSWORD)
        self.worker = child = self._twistd("the worker", base, self.directory / "worker.log")
        self._serve(child, 15)
        child.wait_until(lambda: self.master.has_worker(WORKER), "a connection to the master", 60)

    def _twistd(self, name: str, base: Path, log: Path) -> Child:
        command = [str(self._programs / "twistd"), "--nodaemon", "--no_save", "--pidfile=", "--python=buildbot.tac"]
        return Child(name, command, log=log, cwd=base, environment=self._environment)

    def _serve(self, child: Child, patience: float) -> None:
        self._servers.append(child)
        self._stack.callback(child.stop, patience)

    @property
    def runs(self) -> Path:
        """Where the worker's runs are."""
        return self.directory / "runs"

    def _end_runs(self) -> None:
        """End every run of this farm through the driver, which knows how to end a cluster."""
        if not self.runs.is_dir():
            return
        command = [*self._driver, "destroy", "--runs", str(self.runs), "--all"]
        with suppress(subprocess.TimeoutExpired, FileNotFoundError):  # what is left then is found by its mark
            subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=60, check=False)

    def _end_what_is_left(self) -> None:
        left = children.wait_for_none(str(self.directory), 10)
        self.leftovers += [_describe(process) for process in left]
        _kill(left)

    def _close(self) -> None:
        self._servers.clear()
        with _undisturbed():
            self._stack.close()


def _concerns(message: EmailMessage, user: str, revision: int, builder: str) -> bool:
    ours = f"{user}@{DOMAIN}" in str(message["To"]) and message["X-Oscar-Farm-Builder"] == builder
    return ours and bool(re.search(rf"\br{revision}\b", str(message["Subject"])))


def _write_secret(path: Path, secret: str) -> None:
    path.touch(mode=0o600)
    path.write_text(secret, encoding="utf-8")


def _describe(process: psutil.Process) -> str:
    with suppress(psutil.Error):
        return f"{process.pid}: {' '.join(process.cmdline())[:160]}"
    return f"{process.pid}: has just ended"


def _kill(processes: Sequence[psutil.Process]) -> None:
    for process in processes:
        with suppress(psutil.Error):
            process.kill()
    psutil.wait_procs(processes, timeout=5)


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Cleaning up is not interrupted by an impatient second Ctrl-C: it would leave what the first one wanted gone."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    signals = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = [(number, signal.signal(number, signal.SIG_IGN)) for number in signals]
    try:
        yield
    finally:
        for number, handler in before:
            signal.signal(number, handler)
