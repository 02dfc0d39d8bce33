"""A PostgreSQL of a test's own: in a folder of its own, on the loopback interface, gone with the test."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import psycopg2
from psycopg2 import sql

from demo.children import Child
from demo.ports import LOOPBACK, free_port

PROGRAMS = max(Path("/usr/lib/postgresql").glob("*/bin/initdb"), default=Path("initdb")).parent
"""Debian has a folder for each version."""
USER, DATABASE = "farm", "farm"
_ADMINISTRATOR = "admin"


class Postgres:
    """The server; it runs when this is made."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.port = folder, free_port()
        self._as: list[str] = []
        if os.geteuid() == 0:  # PostgreSQL refuses to run as root
            user = pwd.getpwnam("postgres")
            os.chown(folder, user.pw_uid, user.pw_gid)
            self._as = ["setpriv", f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups"]
        make = ["--username", _ADMINISTRATOR, "--auth-local=trust", "--auth-host=scram-sha-256", "--no-sync"]
        subprocess.run(
            [*self._as, PROGRAMS / "initdb", "--pgdata", folder / "data", *make, "--encoding=UTF8", "--locale=C.UTF-8"],
            check=True,
            capture_output=True,
            cwd=folder,
            timeout=110,
        )
        # The uid is changed after the first --pdeathsig, and that forgets it.
        command = [*(self._as and [*self._as, "--pdeathsig=KILL"]), str(PROGRAMS / "postgres"), "-D", f"{folder}/data"]
        for setting in (f"listen_addresses={LOOPBACK}", f"port={self.port}", f"unix_socket_directories={folder}"):
            command += ["-c", setting]
        self.server = Child(
            "PostgreSQL", [*command, "-F"], log=folder / "log", cwd=folder, environment=dict(os.environ)
        )
        self.wait()

    def wait(self) -> None:
        """Wait until the server answers."""
        self.server.wait_until(self._answers, "an answer", 30)

    def _answers(self) -> bool:
        try:
            self.administer()
        except psycopg2.OperationalError:
            return False
        return True

    def administer(self, *statements: str | sql.Composable) -> list[Any]:
        """Execute statements as the administrator; the rows of the last one."""
        with closing(
            psycopg2.connect(host=str(self.folder), port=self.port, user=_ADMINISTRATOR, dbname="postgres")
        ) as connection:
            connection.autocommit = True
            with connection.cursor() as cursor:
                for statement in statements:
                    cursor.execute(statement)
                return cursor.fetchall() if cursor.description else []

    def make_database(self, password: str) -> None:
        """An empty database of a user's."""
        owner = sql.SQL("CREATE USER {} PASSWORD {}").format(sql.Identifier(USER), sql.Literal(password))
        self.administer(owner, f"CREATE DATABASE {DATABASE} OWNER {USER}")

    def administrators_url(self, database: str) -> str:
        """The address of a database for the administrator, who needs no password on this host."""
        return f"postgresql://{_ADMINISTRATOR}@/{database}?host={self.folder}&port={self.port}"

    def url(self, database: str = DATABASE) -> str:
        return f"postgresql://{USER}@{LOOPBACK}:{self.port}/{database}"


@contextmanager
def postgres() -> Iterator[Postgres]:
    """A server that runs meanwhile. Its folder is short: it holds a socket, whose path has 107 bytes at most."""
    folder = Path(tempfile.mkdtemp(prefix="pg-"))
    try:
        server = Postgres(folder)
        try:
            yield server
        finally:
            server.server.kill()
    finally:
        shutil.rmtree(folder)
