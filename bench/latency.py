"""From a commit to the first step of its first build: with Subversion's hook, and without. A real master and worker.

    python -m bench.latency [--commits 10] [--poll 5]

The clock starts when `svn commit` has ended, and stops when the master's REST interface shows the step; so what the
question itself takes is in it. The driver is a fake: what is measured is poller, scheduler and master.
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

from demo.farm import CHECKOUT, Farm
from oscar_steps.site import POLL_HOOK
from tests.farm.support import FAKE_DRIVER, nothing_to_install

_SECRET = "a-secret-of-this-bench-0123456789"
_SECONDS = 120.0


class HookedFarm(Farm):
    """A farm with a secret for hooks, and a poll interval of its own."""

    def __init__(self, directory: Path, poll: int) -> None:
        super().__init__(directory, driver=[sys.executable, str(FAKE_DRIVER)])
        self.poll = poll

    def _site(self, web_port: int, master_port: int) -> str:
        secret = self.directory / "master/secrets" / POLL_HOOK
        secret.touch(mode=0o600)
        secret.write_text(_SECRET)
        return super()._site(web_port, master_port).replace("poll = 2", f"poll = {self.poll}")

    def install_hook(self) -> None:
        hook = self.directory / "svn/oscar/hooks/post-commit"
        shutil.copy(CHECKOUT / "workers/post-commit", hook)
        settings = f'url = "{self.master.base}change_hook/poke"\nheader = "X-Oscar-Farm-Hook: {_SECRET}"\n'
        hook.with_name("post-commit.curl").write_text(settings)

    def newest(self) -> int:
        """The id of the newest build."""
        found = self.master._get("builds", "builds", order="-buildid", limit=1)
        return int(found[0]["buildid"]) if found else 0

    def measure(self) -> float:
        """Seconds from a commit's end to the first step of its build."""
        before = self.newest()
        self.commit_harmless()
        begun = monotonic()
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
    words = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        (folder / "tree-of-one-file").mkdir()
        with nothing_to_install(folder / "tree-of-one-file"):
            for name, poll in (("without the hook", words.poll), ("with the hook", 36000)):
                with HookedFarm(folder / name.replace(" ", "-"), poll) as farm:
                    (farm.directory / "scenario").write_text(json.dumps({"play": "pass", "stage": "wait-nodes"}))
                    if poll > words.poll:
                        farm.install_hook()
                    seconds = sorted(farm.measure() for _ in range(words.commits))
                median, last = statistics.median(seconds), seconds[-1]
                print(f"{name}: median {median:.2f} s, longest {last:.2f} s, shortest {seconds[0]:.2f} s", flush=True)


if __name__ == "__main__":
    main()
