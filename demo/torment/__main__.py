"""`python -m demo.torment`: a farm in bad weather, and what it has lost. Ends 0 only if it has lost nothing."""

from __future__ import annotations

import json
import signal
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from time import monotonic, sleep
from typing import NoReturn

import click

import demo.farm
from demo.children import Child
from demo.farm import CHECKOUT, DOMAIN, Farm
from demo.ports import accepts
from demo.torment import disk, records
from demo.torment.commits import load_commit
from demo.torment.judge import Due, losses, once_each
from demo.torment.plan import Commit, Event, Plan, make_plan
from oscar_steps.errors import FarmError

_DRIVER = CHECKOUT / "tests" / "farm" / "fake_driver.py"
_STUCK_SECONDS = 420.0
"""A farm with open requests that gets nowhere for so long is stuck: a worker waits five minutes after its faults."""
_READY_SECONDS = 120
_STOP_SECONDS = 60.0
"""A planned restart that takes longer has to be ended by force: that is a loss."""
_LATE_SECONDS = 10.0
"""So long a quiet farm is watched for what comes late and twice."""
_HOPELESS_SECONDS = 60.0
"""A farm that has nothing to do, and has lost something for so long, does not find it any more."""
_AGAIN = (5.0, 10.0, 20.0)
"""Seconds before what says nothing of its commit is tried again: hours, by default."""


class Torment:
    """One farm under one plan."""

    def __init__(self, farm: Farm, plan: Plan, minutes: float) -> None:
        self.farm = farm
        self.plan = plan
        self.minutes = minutes
        self.restarts = self.kills = 0
        self.due: dict[int, Due] = {}
        self.trouble: list[str] = []
        self._ended_early = threading.Event()
        self._database = farm.directory / "master" / records.DATABASE

    def run(self) -> list[str]:
        """Play the plan, wait until the farm is quiet; what was lost."""
        numbered = list(enumerate(self.plan.commits, 2))  # revision 1 is the import
        scenario = {
            "play": "by-revision",
            "stage": "wait-nodes",
            "fail": [revision for revision, commit in numbered if commit.outcome == "failed"],
            "infrastructure": [revision for revision, commit in numbered if commit.first_does_not_count],
        }
        (self.farm.directory / "scenario").write_text(json.dumps(scenario))
        begun = monotonic()
        with ThreadPoolExecutor(1) as committers:  # commits go on while an event lasts
            committing = committers.submit(self._commit_all, begun)
            try:
                for event in self.plan.events:
                    _sleep_until(begun + event.at)
                    self._event(event)
                committing.result()
            except BaseException:  # an end by a signal, too, does not wait for the commits that were still to come
                self._ended_early.set()
                raise
        self._wait_until_quiet()
        return self.trouble + self._losses()

    def _commit_all(self, begun: float) -> None:
        for commit in self.plan.commits:
            if self._ended_early.wait(max(0.0, begun + commit.at - monotonic())):
                return
            self._commit(commit)

    def _commit(self, commit: Commit) -> None:
        revision = load_commit(self.farm.directory / "svn" / "oscar", commit)
        login = f"{commit.recipient}@{DOMAIN}" if commit.recipient else f"operator@{DOMAIN}"
        self.due[revision] = Due(commit.outcome, login)

    def _event(self, event: Event) -> None:
        click.echo(f"torment: {event.at:.0f} s: {event.name} for {event.seconds:.0f} s")
        farm = self.farm
        match event.name:
            case "restart-master":
                if not farm.master_server.stop(_STOP_SECONDS):
                    self.trouble.append(
                        f"at {event.at:.0f} s a planned restart did not end within {_STOP_SECONDS:.0f} s"
                    )
                self._again(farm.master_server, farm.master.answers)
            case "kill-master":
                self.kills += 1
                farm.master_server.kill()
                self._again(farm.master_server, farm.master.answers)
            case "kill-worker":
                farm.worker.kill()
                sleep(event.seconds)
                self._again(farm.worker, lambda: True)
            case "mail-away":
                farm.mails.close()
                sleep(event.seconds)
                farm.mails.reopen()
            case "subversion-away":
                farm.subversion.kill()
                sleep(event.seconds)
                self._again(farm.subversion, lambda: accepts(farm.repository.port))
            case "disk-full":
                if not disk.is_small(self.farm.directory / "master"):
                    click.echo("torment: the disk cannot be filled: that takes root's rights")
                    return
                with disk.full(self.farm.directory / "master"):
                    sleep(3 * event.seconds)
            case _:
                with records.opened(self._database) as connection:
                    connection.execute("BEGIN IMMEDIATE")
                    sleep(event.seconds)
                    connection.execute("ROLLBACK")

    def _again(self, server: Child, ready: Callable[[], bool]) -> None:
        """Start a server that has ended. One that does not come back is a loss, and is tried once more."""
        self.restarts += 1
        for _attempt in range(2):
            server.start_again()
            try:
                server.wait_until(ready, "being ready after a restart", _READY_SECONDS)
                return
            except FarmError as error:
                self.trouble.append(error.sentence)
                server.kill()

    def _wait_until_quiet(self) -> None:
        """Until nothing is under way, and some time more: a double comes late, and something lost may yet be found."""
        since = monotonic()
        known: object = None
        while True:
            waiting = records.open_requests(self._database), records.spooled(self.farm.directory / "master" / "spool")
            lost = self._losses()
            if known != (known := (waiting, lost)):
                since = monotonic()
            patience = _STUCK_SECONDS if any(waiting) else _HOPELESS_SECONDS if lost else _LATE_SECONDS
            if monotonic() - since > patience:
                break
            sleep(1)
        if any(waiting):
            self.trouble.append(f"{waiting[0]} requests and {waiting[1]} mails got nowhere for {_STUCK_SECONDS:.0f} s")

    def _losses(self) -> list[str]:
        cell = self.farm.cell
        mails = records.posted(self.farm.mails.directory, cell)
        kept, dropped = once_each(mails)
        found = losses(self.due, records.tested(self._database, cell), kept)
        if dropped > self.kills:
            found.append(f"{dropped} mails came twice, and the master was killed {self.kills} times only")
        return found

    def summary(self) -> str:
        cell = self.farm.cell
        verdicts = [build for build in records.tested(self._database, cell) if build.outcome in ("passed", "failed")]
        kept, dropped = once_each(records.posted(self.farm.mails.directory, cell))
        return (
            f"{len(self.due)} commits, {len(verdicts)} verdicts, {len(kept)} mails of the cell's builds and {dropped} "
            f"that a receiver drops by their Message-ID, {self.restarts} restarts, {self.kills} kills of the master"
        )


@click.command()
@click.option("--seed", default=1, show_default=True, help="The same seed is the same sequence of commits and events.")
@click.option("--minutes", default=30.0, show_default=True, type=click.FloatRange(0.5, 240))
@click.option("--commits", default=300, show_default=True, type=click.IntRange(1, 5000))
def main(seed: int, minutes: float, commits: int) -> NoReturn:
    """Torment a farm on this machine, and say what it has lost."""
    disk.begin_in_own_namespace([sys.executable, "-u", "-m", "demo.torment", *sys.argv[1:]])
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: sys.exit(130))
    farm = disk.FarmOnSmallDisk(CHECKOUT / ".farm" / "torment", driver=[sys.executable, str(_DRIVER)])
    farm.again = _AGAIN
    torment = Torment(farm, make_plan(seed, minutes, commits), minutes)
    summary = "the farm did not start"
    try:
        demo.farm.STANDIN = _small_tree(CHECKOUT / ".farm" / "torment-tree")
        with farm:
            summary = "it was broken off"
            found = torment.run()
            summary = torment.summary()
    except FarmError as error:
        found = [error.explain()]
    found += [f"left running: {left}" for left in farm.leftovers]
    for sentence in found:
        click.echo(f"torment: {sentence}")
    end = f"{len(found)} losses, named above" if found else "nothing lost, nothing doubled, nothing left"
    click.echo(f"torment: seed {seed}, {minutes:g} min: {summary}; {end}")
    sys.exit(1 if found else 0)


def _sleep_until(when: float) -> None:
    sleep(max(0.0, when - monotonic()))


def _small_tree(directory: Path) -> Path:
    """A tree that is never installed: the driver is a fake."""
    (directory / "tree").mkdir(parents=True, exist_ok=True)
    (directory / "tree" / "README").write_text("A tree that is never installed.\n")
    return directory


if __name__ == "__main__":
    main()
