"""From a commit to the first step of its first build: with the repository's hook, and without. A real master, a worker.

    python -m bench.latency [--commits 10] [--poll 5] [--git]

The clock starts when `svn commit` has ended, or when git would start its hook, and stops when the master's REST
interface shows the step; so what the question itself takes is in it. The driver is a fake: what is measured is poller,
scheduler and master.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import sys
import tempfile
from pathlib import Path
from time import monotonic, sleep

from demo.children import run
from demo.farm import CHECKOUT, Farm
from oscar_steps.site import POLL_HOOK
from tests.farm.support import FAKE_DRIVER, eventually, nothing_to_install
from tests.unit.git_server import Repository

_SECRET = "a-secret-of-this-bench-0123456789"
_SECONDS = 120.0


class HookedFarm(Farm):
    """A farm with a secret for hooks, and a poll interval of its own."""

    def __init__(self, directory: Path, poll: int, git: Repository | None) -> None:
        super().__init__(directory, driver=[sys.executable, str(FAKE_DRIVER)])
        self.poll, self.git = poll, git

    def _site(self, web_port: int, master_port: int) -> str:
        secret = self.directory / "master/secrets" / POLL_HOOK
        secret.touch(mode=0o600)
        secret.write_text(_SECRET)
        git = f'[[git]]\nname = "oscar"\nurl = "{self.git.url}"\npoll = {self.poll}\n' if self.git else ""
        return super()._site(web_port, master_port).replace("poll = 2", f"poll = {self.poll}") + git

    @property
    def hook(self) -> Path:
        return self.git.path / "hooks/post-receive" if self.git else self.directory / "svn/oscar/hooks/post-commit"

    def install_hook(self) -> None:
        self.hook.parent.mkdir(exist_ok=True)
        shutil.copy(CHECKOUT / "workers/post-commit", self.hook)
        settings = f'url = "{self.master.base}change_hook/poke"\nheader = "X-Oscar-Farm-Hook: {_SECRET}"\n'
        self.hook.with_name(f"{self.hook.name}.curl").write_text(settings)

    def commit_anything(self) -> None:
        if self.git is None:
            self.commit_harmless()
            return
        eventually((self.directory / "master/git-oscar.git/HEAD").exists, _SECONDS)  # the first look tests nothing
        self.git.commit({"README": f"{self.newest()}\n".encode()})

    def newest(self) -> int:
        """The id of the newest build."""
        found = self.master._get("builds", "builds", order="-buildid", limit=1)
        return int(found[0]["buildid"]) if found else 0

    def measure(self) -> float:
        """Seconds from a commit's end to the first step of its build."""
        before = self.newest()
        self.commit_anything()
        begun = monotonic()
        if self.git and self.hook.exists():
            run(self.hook)
        while monotonic() < begun + _SECONDS:
            if (build := self.newest()) > before and self.master.steps(build):
                seconds = monotonic() - begun
                self.settle()
                return seconds
            sleep(0.02)
        raise SystemExit(f"no build within {_SECONDS:.0f} s; see {self.master.base}")

    def settle(self) -> None:
        """Until all builds have ended, and none has begun for a second."""
        while True:
            newest = self.newest()
            sleep(1)
            if newest == self.newest() and self.master.build(newest).complete:
                return


def main() -> None:
    """Both ways."""
    parser = argparse.ArgumentParser(description="seconds from a commit to the first step of its build")
    parser.add_argument("--commits", type=int, default=10)
    parser.add_argument("--poll", type=int, default=5)
    parser.add_argument("--git", action="store_true", help="commits to a git repository")
    words = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        (folder / "tree-of-one-file").mkdir()
        git = Repository(folder / "oscar.git") if words.git else None
        if git:
            git.commit({"install_cluster": b"#!/bin/sh\n"})
        with nothing_to_install(folder / "tree-of-one-file"):
            for name, poll in (("without the hook", words.poll), ("with the hook", 36000)):
                with HookedFarm(folder / name.replace(" ", "-"), poll, git) as farm:
                    (farm.directory / "scenario").write_text(json.dumps({"play": "pass", "stage": "wait-nodes"}))
                    if poll > words.poll:
                        farm.install_hook()
                    seconds = sorted(farm.measure() for _ in range(words.commits))
                median, last = statistics.median(seconds), seconds[-1]
                print(f"{name}: median {median:.2f} s, longest {last:.2f} s, shortest {seconds[0]:.2f} s", flush=True)


if __name__ == "__main__":
    main()
