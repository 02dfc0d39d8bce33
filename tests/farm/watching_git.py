"""A real master that watches a git repository and builds nothing, and the servers that it watches."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from demo.children import Child, run
from demo.ports import LOOPBACK, accepts, free_port
from oscar_steps.environment import tool_environment
from tests.apache_head import apache_head
from tests.farm.generated_git import Generated, Push, Seen
from tests.farm.watching import Watching

_APACHE = """\
Listen {address}
ScriptSock {root}/cgisock
SetEnv GIT_PROJECT_ROOT {root}
SetEnv GIT_HTTP_EXPORT_ALL 1
SetEnv GIT_CONFIG_COUNT 1
SetEnv GIT_CONFIG_KEY_0 safe.directory
SetEnv GIT_CONFIG_VALUE_0 *
ScriptAlias /git/ /usr/lib/git-core/git-http-backend/
<Directory /usr/lib/git-core>
Require all granted
</Directory>
"""


class GitServer:
    """A server of one repository, `daemon` or `apache`: `url` is its address, `child` its process."""

    def __init__(self, kind: str, directory: Path, environment: Mapping[str, str]) -> None:
        # Not below pytest's folders: Apache's own user may not look into them.
        self.root = Path(tempfile.mkdtemp(prefix="farm-git-"))
        self.root.chmod(0o755)
        self.repository = self.root / "oscar.git"
        run("git", "init", "--quiet", "--bare", "--initial-branch=main", self.repository)
        self.port = free_port()
        address = f"{LOOPBACK}:{self.port}"
        if kind == "apache":
            self.url = f"http://{address}/git/oscar.git"
            settings = apache_head(self.root, "alias", "env", "cgid")
            settings += _APACHE.format(root=self.root, address=address)
            (self.root / "apache.conf").write_text(settings, encoding="utf-8")
            command = ["apache2", "-D", "FOREGROUND", "-f", str(self.root / "apache.conf")]
        else:
            self.url = f"git://{address}/oscar.git"
            words = (f"--listen={LOOPBACK}", f"--port={self.port}", f"--base-path={self.root}", "--reuseaddr")
            command = ["git", "daemon", "--export-all", *words, str(self.root)]
        everything = {**environment, "PATH": tool_environment()["PATH"]}
        log = directory / f"{kind}.log"
        self.child = Child(f"the server {kind}", command, log=log, cwd=self.root, environment=everything)
        self.wait()

    def wait(self) -> None:
        self.child.wait_until(lambda: accepts(self.port), "listening", 20)

    def away(self) -> None:
        """The server ends as by a power cut."""
        self.child.stop(10)

    def back(self) -> None:
        self.child.start_again()
        self.wait()

    def load(self, made: Generated, pushes: Sequence[Push], wait: Callable[[], object] | None = None) -> None:
        """Push, one after the other; `wait` before and after one that has to be alone."""
        for push in pushes:
            if push.alone:
                assert wait, "this push has to wait for the farm"
                wait()
            wishes = [f"+{tip or ''}:refs/heads/{branch}" for branch, tip in push.refs.items()]
            made.repository.git("push", "--quiet", self.repository.as_uri(), *wishes)
            if push.alone and wait:
                wait()

    def close(self) -> None:
        self.child.stop(10)
        shutil.rmtree(self.root, ignore_errors=True)


class WatchingGit(Watching):
    """A master that watches git alone, and no worker."""

    def _site(self, web_port: int, master_port: int) -> str:
        before, _, after = super()._site(web_port, master_port).partition("[repository]\n")
        rest = after[after.index("[schedule]") :]
        return f'{before}[[git]]\nname = "oscar"\nurl = "{self.watched}"\npoll = 1\n\n{rest}'

    def seen(self) -> list[Seen]:
        """Commit, branch and author of all changes, in the order in which they were seen."""
        found = sorted(self.master._get("changes", "changes", limit=10000), key=lambda change: int(change["changeid"]))
        return [(change["revision"], change["branch"], change["author"]) for change in found]

    def looks(self) -> int:
        """How often the master has looked, since the farm began."""
        return (self.directory / "master.log").read_bytes().count(b"finished polling")
