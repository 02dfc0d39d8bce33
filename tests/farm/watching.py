"""A real master that watches a repository and builds nothing, and the servers that it watches."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

from demo.children import Child, run
from demo.farm import Farm
from demo.mailsink import MailSink
from demo.ports import LOOPBACK, accepts, free_port
from oscar_steps.environment import tool_environment
from tests.apache_head import apache_head

_APACHE = """\
Listen {address}
<Location /svn>
DAV svn
SVNPath {repository}
Require all granted
</Location>
"""


class Server:
    """A server of one repository: `url` is its address, `child` its process."""

    def __init__(self, kind: str, directory: Path, environment: Mapping[str, str]) -> None:
        self.kind, self.directory = kind, directory
        # Not below pytest's folders: Apache's own user may not look into them.
        self.root = Path(tempfile.mkdtemp(prefix="farm-svn-"))
        self.root.chmod(0o755)
        self.repository = self.root / "oscar"
        run("svnadmin", "create", self.repository)
        self.port = free_port()
        address = f"{LOOPBACK}:{self.port}"
        if kind == "apache":
            self.url = f"http://{address}/svn"
            settings = apache_head(self.root, "dav", "dav_svn")
            settings += _APACHE.format(address=address, repository=self.repository)
            (self.root / "apache.conf").write_text(settings, encoding="utf-8")
            command = ["apache2", "-D", "FOREGROUND", "-f", str(self.root / "apache.conf")]
        else:
            self.url = f"svn://{address}/oscar"
            words = ("--listen-host", LOOPBACK, "--listen-port", str(self.port), "--root", str(self.root))
            command = ["svnserve", "--daemon", "--foreground", *words]
            (self.repository / "conf/svnserve.conf").write_text("[general]\nanon-access = write\n", encoding="utf-8")
        log = directory / f"{kind}.log"
        path = tool_environment()["PATH"]
        self.child = Child(
            f"the server {kind}", command, log=log, cwd=self.root, environment={**environment, "PATH": path}
        )
        self.wait()

    def wait(self) -> None:
        self.child.wait_until(lambda: accepts(self.port), "listening", 20)

    def away(self) -> None:
        """The server ends as by a power cut."""
        self.child.stop(10)

    def back(self) -> None:
        self.child.start_again()
        self.wait()

    def load(self, dumps: list[bytes]) -> None:
        """More revisions."""
        dump = self.root / "dump"
        dump.write_bytes(b"".join(dumps))
        words = ("--quiet", "--bypass-prop-validation", "--no-flush-to-disk", "--file", str(dump))
        run("svnadmin", "load", *words, self.repository)

    def close(self) -> None:
        self.child.stop(10)
        shutil.rmtree(self.root, ignore_errors=True)


class Watching(Farm):
    """A master and no worker: no branch is tested. `settings` replaces lines of its farm.toml."""

    def __init__(self, directory: Path, url: str, **settings: str) -> None:
        super().__init__(directory)
        self.watched, self.settings = url, settings

    def _start(self) -> None:
        self._take_directory()
        self._stack.callback(self._end_what_is_left)
        self.mails = MailSink(self.directory / "mails")
        self._stack.callback(self.mails.close)
        self._start_master()

    def _site(self, web_port: int, master_port: int) -> str:
        self.repository = _Watched(self.watched)  # type: ignore[assignment]
        site = super()._site(web_port, master_port)
        for old, new in (("tree_stable = 0", "tree_stable = 0\nbranches = []"), *self.settings.items()):
            assert old in site
            site = site.replace(old, new)
        return site

    def kill_master(self) -> None:
        """As a power cut does."""
        self.master_server.kill()

    def start_master(self) -> None:
        self.master_server.start_again()
        self.master_server.wait_until(self.master.answers, "serving its web page", self.patience)

    def changes(self) -> list[tuple[int, str, str]]:
        """Revision, branch and author of all changes, in the order in which they were seen."""
        # Buildbot gives them the newest first, whatever order is asked for.
        found = sorted(self.master._get("changes", "changes", limit=10000), key=lambda change: int(change["changeid"]))
        return [(int(change["revision"]), change["branch"], change["author"]) for change in found]


class _Watched:
    def __init__(self, url: str) -> None:
        self.url = url
